//! Where downloaded models lie, and their checksums.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

/// The folder of what comes from one kind of source, in the engine's cache folder; the hub's models lie in a cache that
/// other programs share.
///
/// # Errors
/// There is no cache folder.
pub fn folder(source: &str) -> Result<PathBuf> {
    let cache = engine::internals::cache::folder();
    Ok(cache.context("no place for models: set ENGINE_HOME to a folder")?.join(source))
}

/// The SHA-256 of a file, in hexadecimal.
pub fn sha256(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("{}", path.display()))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        hasher.update(&buffer[..n]);
    }
    let mut hex = String::new();
    for byte in hasher.finalize() {
        _ = write!(hex, "{byte:02x}");
    }
    Ok(hex)
}

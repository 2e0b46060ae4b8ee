//! The folder in which the engine keeps what it need not find out twice.

use std::path::PathBuf;

/// `ENGINE_HOME`, or `engine` in the user's cache folder; none where there is no such folder.
pub fn folder() -> Option<PathBuf> {
    let variable =
        |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("ENGINE_HOME").or_else(|| {
        let cache = variable("XDG_CACHE_HOME")
            .or_else(|| variable("LOCALAPPDATA"))
            .or_else(|| Some(variable("HOME")?.join(".cache")))?;
        Some(cache.join("engine"))
    })
}

/// FNV-1a, for names of files: stable between runs, and nobody gains by a collision.
pub(crate) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

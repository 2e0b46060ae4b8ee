//! Kernels through Tint, the WGSL compiler of Chrome, in the npm package `webgpu` (`checks/tint`).

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use shaders::Kernel;

/// A kernel as the script reads it.
#[derive(Serialize, Debug)]
pub struct Text {
    /// The variant.
    pub name: String,
    /// Its text.
    pub wgsl: String,
    /// Its constants.
    pub constants: BTreeMap<&'static str, u32>,
}

/// A kernel that Tint refuses.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub struct Refused {
    /// The variant.
    pub name: String,
    /// What Tint says.
    pub why: String,
}

/// The folder of the script, if Node is there and its package installed (`npm ci`); else what is missing.
///
/// # Errors
/// If something is missing.
pub fn script() -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../checks/tint");
    if Command::new("node").arg("--version").output().is_err() {
        return Err("node is not installed".into());
    }
    if !folder.join("node_modules/webgpu").is_dir() {
        return Err("the package webgpu is not installed (npm ci in checks/tint)".into());
    }
    Ok(folder.join("check.mjs"))
}

/// The texts of kernels; of those that no browser can run there are none.
pub fn texts(kernels: &[Kernel]) -> Vec<Text> {
    let text = |kernel: &Kernel| {
        let (variant, wgsl) = (&kernel.variant, kernel.wgsl_for_browsers()?);
        Some(Text { name: variant.to_string(), wgsl, constants: variant.constants.clone() })
    };
    kernels.iter().filter_map(text).collect()
}

/// Compiles texts, and answers those that are refused.
///
/// # Errors
/// If the script fails.
pub fn refused(script: &Path, texts: &[Text]) -> Result<Vec<Refused>, String> {
    let mut lines = String::new();
    for text in texts {
        lines.push_str(&serde_json::to_string(text).map_err(|why| why.to_string())?);
        lines.push('\n');
    }
    let mut node = Command::new("node")
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|why| format!("node: {why}"))?;
    let mut stdin = node.stdin.take().ok_or("node takes nothing in")?;
    // The script reads all before it answers. One that ends early says why on stderr.
    let _ = stdin.write_all(lines.as_bytes());
    drop(stdin);
    let output = node.wait_with_output().map_err(|why| why.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).map_err(|why| format!("{line}: {why}")))
        .collect()
}

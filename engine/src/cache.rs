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

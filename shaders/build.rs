//! Lists every file under `wgsl/` with its text, so that adding a kernel or a format is adding a file.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("set by cargo")).join("wgsl");
    println!("cargo:rerun-if-changed={}", root.display());
    let mut files = Vec::new();
    collect(&root, &root, &mut files);
    files.sort();
    let mut table = String::from("&[\n");
    for (name, path) in files {
        writeln!(table, "    ({name:?}, include_str!({:?})),", path.display().to_string())
            .expect("writing to a string");
    }
    table.push(']');
    let out = PathBuf::from(env::var("OUT_DIR").expect("set by cargo")).join("files.rs");
    fs::write(out, table).expect("the build folder is writable");
}

/// Gathers `kernel/matvec` and its path for `kernel/matvec.wgsl`, and so on.
fn collect(root: &Path, folder: &Path, files: &mut Vec<(String, PathBuf)>) {
    for entry in fs::read_dir(folder).expect("the wgsl folder is readable") {
        let path = entry.expect("a folder entry").path();
        if path.is_dir() {
            println!("cargo:rerun-if-changed={}", path.display());
            collect(root, &path, files);
        } else if path.extension().is_some_and(|extension| extension == "wgsl") {
            let name = path.strip_prefix(root).expect("below the root").with_extension("");
            let name =
                name.components().map(|c| c.as_os_str().to_string_lossy()).collect::<Vec<_>>();
            files.push((name.join("/"), path));
        }
    }
}

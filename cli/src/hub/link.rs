//! Links to files of other hosts, as llama.cpp's `--model-url`: each lies in a folder of its own in the engine's cache.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use gguf::SplitName;

use super::cache::{Lock, cannot_write, write_whole};
use super::choose::beside_a_model;
use super::download::{Source, etag_name, fetch, length_of, sha256_of};
use super::http::{Ask, Client, header};
use super::name::is_gguf;
use super::offline;
use super::url::{decode, permitted, shown};

use crate::{output, store};

/// The file at a link, or its first part, fetched if it is not here or has changed.
pub fn get(link: &str) -> Result<PathBuf> {
    let (address, fragment) = link.split_once('#').unwrap_or((link, ""));
    let address = permitted(address.as_bytes());
    let link = address.as_str();
    let (path, query) = match link.split_once('?') {
        Some((path, query)) => (path, format!("?{query}")),
        None => (link, String::new()),
    };
    let (folder, last) = path.rsplit_once('/').unwrap_or(("", path));
    let name = decode(last).unwrap_or_else(|| last.to_string());
    if !is_gguf(&name) || folder.ends_with(':') || folder.ends_with(":/") {
        let sign = if is_gguf(fragment) {
            " (what stands behind # is no part of an address: in a file's name it is written %23)"
        } else {
            ""
        };
        bail!(
            "{}: a link must lead to a .gguf file{sign}; fetch other things by other means and name the file",
            shown(link)
        );
    }
    if let Some(what) = beside_a_model(&name) {
        bail!("{}: {name} is {what}, not a model", shown(link));
    }
    let client = Client::from_environment()?;
    let Some(split) = SplitName::parse(last) else {
        return file(&client, link, link, &name);
    };
    let mut first = None;
    for part in 1..=split.count {
        let last = split.name_of(part);
        let name = decode(&last).unwrap_or_else(|| last.clone());
        // All parts lie beside each other: the folder is named after the first's link.
        let of = format!("{folder}/{}{query}", split.name_of(1));
        let path = file(&client, &format!("{folder}/{last}{query}"), &of, &name)?;
        first.get_or_insert(path);
    }
    first.context("a split model has a part")
}

/// The file of a URL, in the folder that `of` names.
fn file(client: &Client, url: &str, of: &str, name: &str) -> Result<PathBuf> {
    let folder = store::folder("links")?.join(digest(of));
    let plain = |c: char| !c.is_control() && !"/\\:*?\"<>|".contains(c);
    let name: String = name.chars().map(|c| if plain(c) { c } else { '_' }).collect();
    let path = folder.join(name.trim_start_matches('.'));
    let mark = folder.join(format!("{name}.etag"));
    if offline() {
        if path.exists() {
            return Ok(path);
        }
        bail!("{}: not fetched yet, and HF_HUB_OFFLINE forbids to", shown(url));
    }
    let head = match client.ask(url, Ask::LinkHead, false) {
        Ok(head) => Some(head),
        Err(failure) if path.exists() => {
            output::say(format_args!("{failure}: using {}", path.display()));
            return Ok(path);
        }
        // Some servers answer GET alone.
        Err(failure) if !failure.again => None,
        Err(_) => Some(super::http::persist(false, || client.ask(url, Ask::LinkHead, false))?),
    };
    let headers = head.as_ref().map(|head| head.headers());
    let etag = headers.and_then(|headers| header(headers, "etag")).unwrap_or_default();
    // What tells one version of the file from another.
    let version = if etag.is_empty() {
        headers.and_then(|headers| header(headers, "last-modified")).unwrap_or_default()
    } else {
        etag.clone()
    };
    let bytes: Option<u64> =
        headers.and_then(|headers| header(headers, "content-length")?.parse().ok());
    fs::create_dir_all(&folder).with_context(|| cannot_write(&folder))?;
    let _lock = Lock::take(&folder.join(".lock"), &name);
    let old = fs::read_to_string(&mark).unwrap_or_default();
    let is_whole = length_of(&path).is_some_and(|here| bytes.is_none_or(|bytes| bytes == here));
    if is_whole && (version.is_empty() || version == old) {
        return Ok(path);
    }
    let etag_file = etag_name(&etag);
    let source = Source { url, name: &name, bytes, sha256: sha256_of(&etag_file), trusted: false };
    // Named by the version: what began as another file must not be gone on with.
    let incomplete = folder.join(format!("{name}.{}.incomplete", etag_name(&version)));
    if version.is_empty() && incomplete.exists() {
        fs::remove_file(&incomplete).with_context(|| cannot_write(&incomplete))?;
    }
    fetch(client, &source, &incomplete, &path)?;
    write_whole(&mark, version.as_bytes()).with_context(|| cannot_write(&mark))?;
    Ok(path)
}

/// A short name for a link.
fn digest(link: &str) -> String {
    use sha2::{Digest as _, Sha256};
    use std::fmt::Write as _;
    Sha256::digest(link.as_bytes()).iter().take(8).fold(String::new(), |mut hex, byte| {
        _ = write!(hex, "{byte:02x}");
        hex
    })
}

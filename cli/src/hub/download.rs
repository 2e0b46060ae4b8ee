//! Downloads: they go on where they stopped, by themselves a few times, and are checked before they get their name.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use ureq::Body;
use ureq::http::Response;

use super::Hub;
use super::cache::{cannot_write, link_to};
use super::http::{Ask, Client, Failure, Tries, header, persist};
use super::url::{encode, shown};
use crate::{output, progress, store};

/// So many bytes make a try a success: the next failure is the first again.
const PROGRESS: u64 = 1 << 20;

/// What is fetched.
pub struct Source<'a> {
    /// Where from.
    pub url: &'a str,
    /// The file's name, for people.
    pub name: &'a str,
    /// Its length, where it is known.
    pub bytes: Option<u64>,
    /// Its SHA-256 in hexadecimal, where it is known.
    pub sha256: Option<&'a str>,
    /// Whether it is the hub's, who may see the token.
    pub trusted: bool,
}

/// What the hub says of a file.
struct Facts {
    etag: String,
    bytes: Option<u64>,
}

/// An etag as a file's name: without `W/` and quotation marks, other characters than a hash has replaced.
pub fn etag_name(etag: &str) -> String {
    let etag = etag.trim().trim_start_matches("W/").trim_matches('"');
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    etag.chars().take(200).map(plain).collect()
}

/// The SHA-256 that an etag is, as those of large files are.
pub fn sha256_of(etag: &str) -> Option<&str> {
    let is_hash = etag.len() == 64 && etag.bytes().all(|b| b.is_ascii_hexdigit());
    is_hash.then_some(etag)
}

fn facts(client: &Client, url: &str) -> Result<Facts, Failure> {
    let head = persist(false, || client.ask(url, Ask::Head, true))?;
    let headers = head.headers();
    let etag = header(headers, "x-linked-etag").or_else(|| header(headers, "etag"));
    let etag = etag.map(|etag| etag_name(&etag)).unwrap_or_default();
    if etag.is_empty() {
        return Err(Failure::lasting(format!(
            "{}: the server names no etag, so the download could not be checked",
            shown(url)
        )));
    }
    // The length of a redirect's own body is not the file's.
    let own_length = || header(headers, "content-length").filter(|_| head.status().is_success());
    let bytes = header(headers, "x-linked-size").or_else(own_length);
    Ok(Facts { etag, bytes: bytes.and_then(|bytes| bytes.parse().ok()) })
}

/// Fetches one file of a commit into the cache. `known` is its length as it was written down when it was fetched; with
/// `ask` the hub is asked for the length though the file is as long as that. The length comes back too, where the hub
/// said it, or the file was fetched now.
///
/// # Errors
/// What stands between, and what to do; what came so far is kept, and the next call goes on from there.
pub fn into_cache(
    hub: &Hub,
    repo: &str,
    commit: &str,
    file: &str,
    known: Option<u64>,
    ask: bool,
) -> Result<(PathBuf, Option<u64>)> {
    let folder = hub.cache.folder(repo);
    let link = hub.cache.snapshot(repo, commit).join(file);
    let here = length_of(&link);
    if here.is_some() && here == known && !ask {
        return Ok((link, known));
    }
    let url = format!(
        "{}/{repo}/resolve/{}/{}",
        hub.client.endpoint,
        encode(commit, false),
        encode(file, true)
    );
    let facts = match facts(&hub.client, &url) {
        Ok(facts) => facts,
        Err(failure) if here.is_some() && (known.is_none() || here == known) => {
            output::say(format_args!("{failure}; using {file} from the cache"));
            return Ok((link, known));
        }
        Err(failure) => return Err(failure.into()),
    };
    let right = facts.bytes.or(known);
    let is_right = |length: Option<u64>| length.is_some() && (right.is_none() || length == right);
    if is_right(here) {
        return Ok((link, right));
    }
    let blobs = folder.join("blobs");
    fs::create_dir_all(&blobs).with_context(|| cannot_write(&blobs))?;
    let blob = blobs.join(&facts.etag);
    let _lock = hub.cache.lock(repo, &facts.etag, file);
    // Another program may have fetched it in the meantime.
    if is_right(length_of(&link)) {
        return Ok((link, right));
    }
    if fs::symlink_metadata(&link).is_ok() {
        fs::remove_file(&link).with_context(|| cannot_write(&link))?;
    }
    if let (Some(length), Some(bytes)) = (length_of(&blob), right)
        && length != bytes
    {
        output::say(format_args!("{} has {length} of {bytes} bytes: fetched anew", blob.display()));
        fs::remove_file(&blob).with_context(|| cannot_write(&blob))?;
    }
    let fetched = !blob.exists();
    if fetched {
        let source = Source {
            url: &url,
            name: file,
            bytes: facts.bytes,
            sha256: sha256_of(&facts.etag),
            trusted: true,
        };
        fetch(&hub.client, &source, &blobs.join(format!("{}.incomplete", facts.etag)), &blob)?;
    }
    link_to(&blob, &link, file)?;
    let checked = if fetched { length_of(&blob) } else { right };
    Ok((link, checked))
}

/// The length of a file, or of what a link leads to; none if there is nothing.
pub fn length_of(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|metadata| metadata.len())
}

/// Fetches what a source has into a file, by way of another that is kept where it breaks off.
pub fn fetch(client: &Client, source: &Source, incomplete: &Path, path: &Path) -> Result<()> {
    let mut tries = Tries::new(false);
    let mut resumed = length(incomplete) > 0;
    loop {
        let before = length(incomplete);
        match once(client, source, incomplete) {
            Ok(()) => {}
            Err(failure) => {
                let now = length(incomplete);
                if now >= before + PROGRESS {
                    tries = Tries::new(false);
                }
                tries.wait_after(failure, "the download goes on").map_err(|failure| {
                    let kept = if now > 0 { "; try again, the download goes on" } else { "" };
                    Failure { message: format!("{}{kept}", failure.message), ..failure }
                })?;
                resumed |= now > 0;
                continue;
            }
        }
        let Some(right) = source.sha256 else { break };
        let hash = store::sha256(incomplete)?;
        if hash.eq_ignore_ascii_case(right) {
            break;
        }
        fs::remove_file(incomplete).with_context(|| cannot_write(incomplete))?;
        if !resumed {
            bail!("{} has the SHA-256 {hash}, expected {right}; try again", source.name);
        }
        // What was there before may have been of something else.
        output::say(format_args!(
            "{} came together wrongly; fetched once more from its beginning",
            source.name
        ));
        resumed = false;
    }
    fs::rename(incomplete, path).with_context(|| cannot_write(path))?;
    Ok(())
}

fn length(path: &Path) -> u64 {
    length_of(path).unwrap_or(0)
}

/// Where a range that was sent begins.
fn range_begin(response: &Response<Body>) -> Option<u64> {
    let range = header(response.headers(), "content-range")?;
    range.trim_start_matches("bytes").trim_start().split('-').next()?.parse().ok()
}

/// One connection: appends to what is there if the server goes on from that byte, else begins anew.
fn once(client: &Client, source: &Source, path: &Path) -> Result<(), Failure> {
    let have = length(path);
    // More than there is to have is of something else.
    let from = if source.bytes.is_some_and(|bytes| have > bytes) { 0 } else { have };
    if from > 0 && source.bytes == Some(from) {
        return Ok(());
    }
    let mut response = client.ask(source.url, Ask::Get(from), source.trusted)?;
    let mut goes_on = from > 0 && response.status() == 206 && range_begin(&response) == Some(from);
    if !goes_on && !matches!(response.status().as_u16(), 200 | 203) {
        // Another piece than asked for, or nothing beyond this byte (416): from the beginning.
        response = client.ask(source.url, Ask::Get(0), source.trusted)?;
        goes_on = false;
        if !matches!(response.status().as_u16(), 200 | 203) {
            let status = response.status();
            return Err(Failure::lasting(format!(
                "{}: the server answered {status} where the whole file was asked for",
                shown(source.url)
            )));
        }
    }
    let start = if goes_on { from } else { 0 };
    let unwritable = |error: std::io::Error| {
        let full = matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
        let what = if full { "no space is left".to_string() } else { error.to_string() };
        Failure::lasting(format!("{}: {what} ({})", cannot_write(path), source.name))
    };
    let out = if goes_on { OpenOptions::new().append(true).open(path) } else { File::create(path) };
    let mut out = out.map_err(unwritable)?;
    let promised = header(response.headers(), "content-length").and_then(|n| n.parse::<u64>().ok());
    let total = source.bytes.or(promised.map(|length| length.saturating_add(start)));
    let bar = progress::bar(total.unwrap_or(0), source.name);
    bar.set_position(start);
    let mut got = start;
    let result = copy(response.body_mut().as_reader(), &mut out, total, &mut got, |got| {
        bar.set_position(got);
    });
    bar.finish_and_clear();
    match result {
        Ok(()) => {}
        Err(Broken::Read(error)) => return Err(client.broken(source.url, got, &error)),
        Err(Broken::Write(error)) => return Err(unwritable(error)),
    }
    out.sync_all().map_err(unwritable)?;
    match total {
        Some(total) if got < total => {
            Err(Failure::passing(format!("{}: {got} of {total} bytes came", shown(source.url))))
        }
        Some(total) if got > total => {
            drop(out);
            fs::remove_file(path).map_err(unwritable)?;
            Err(Failure::lasting(format!(
                "{}: more than the {total} bytes came that the server promised; try again",
                shown(source.url)
            )))
        }
        _ => Ok(()),
    }
}

/// Which side of a copy broke.
enum Broken {
    Read(std::io::Error),
    Write(std::io::Error),
}

/// Copies a body to a file, a piece beyond its length at the most.
fn copy(
    mut body: impl Read,
    out: &mut File,
    total: Option<u64>,
    got: &mut u64,
    show: impl Fn(u64),
) -> Result<(), Broken> {
    let mut buffer = vec![0; 1 << 18];
    loop {
        let n = match body.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(Broken::Read(error)),
        };
        out.write_all(&buffer[..n]).map_err(Broken::Write)?;
        *got += n as u64;
        show(*got);
        if total.is_some_and(|total| *got > total) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etags_become_names() {
        let hash = "a".repeat(64);
        for etag in
            [format!("\"{hash}\""), format!("W/\"{hash}\""), hash.clone(), format!(" \"{hash}\" ")]
        {
            assert_eq!(etag_name(&etag), hash);
            assert_eq!(sha256_of(&etag_name(&etag)), Some(hash.as_str()));
        }
        assert_eq!(etag_name("\"../../x:1\""), "______x_1");
        assert_eq!(etag_name("\"5f-62a\""), "5f-62a");
        for no_hash in ["c0ffee".to_string(), "g".repeat(64), "a".repeat(40)] {
            assert_eq!(sha256_of(&no_hash), None);
        }
    }
}

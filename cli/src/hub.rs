//! Hugging Face: names, which file they mean, the shared cache, downloads.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

mod cache;
mod choose;
mod download;
mod http;
mod link;
mod name;
mod token;
mod url;

pub use cache::Lock;
pub use name::Wanted;

use cache::{Cache, Found, Listing, is_commit};
use http::{Ask, Client, Failure};
use name::{Name, Pick};

use crate::output;

/// The longest answer that is read whole: a list of some hundred thousand files.
const LONGEST_LIST: u64 = 64 << 20;

/// An environment variable as text; none if it is empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Whether an environment variable says yes, in huggingface_hub's words.
fn is_true(name: &str) -> bool {
    let value = variable(name).unwrap_or_default().to_ascii_uppercase();
    ["1", "ON", "YES", "TRUE"].contains(&value.as_str())
}

/// Whether nothing may be asked for.
fn offline() -> bool {
    match variable("HF_HUB_OFFLINE") {
        Some(_) => is_true("HF_HUB_OFFLINE"),
        None => is_true("TRANSFORMERS_OFFLINE"),
    }
}

/// The hub and what is here of it.
struct Hub {
    client: Client,
    cache: Cache,
}

impl Hub {
    fn from_environment() -> Result<Self> {
        Ok(Self { client: Client::from_environment()?, cache: Cache::from_environment()? })
    }
}

/// What a person wrote, if it is a name on the hub or a link.
///
/// # Errors
/// A link that leads to no model.
pub fn parse(text: &str) -> Result<Option<Wanted>> {
    // The address matters to links alone.
    let endpoint = if text.contains("://") { http::endpoint()? } else { String::new() };
    Wanted::parse(text, &endpoint)
}

/// The path of a model's file, fetched if it is not here; the first part of a split one. With `update` the hub is asked
/// whether there is a newer version, though the cache has one.
pub fn fetch(wanted: &Wanted, update: bool) -> Result<PathBuf> {
    let name = match wanted {
        Wanted::Hub(name) => name,
        Wanted::Link(link) => return link::get(link),
    };
    if let Pick::File(file) = &name.pick
        && let Some(what) = choose::beside_a_model(file)
    {
        bail!("{file} of {} is {what}, not a model", name.repo);
    }
    let hub = Hub::from_environment()?;
    let found = hub.cache.find(name);
    if let Some(found) = &found
        && found.certain
        && !update
    {
        return Ok(found.path.clone());
    }
    if offline() {
        let found = found.or_else(|| hub.cache.find_any(name)).with_context(|| {
            format!(
                "{} is not in the cache, and HF_HUB_OFFLINE forbids to ask the hub",
                shown(name)
            )
        })?;
        // With the list of the commit's files the hub is not needed.
        if !found.certain {
            say_from_cache("HF_HUB_OFFLINE is set", &found);
        }
        return Ok(found.path);
    }
    let mut listing = match list(&hub, name, found.is_some()) {
        Ok(listing) => listing,
        Err(failure) => {
            let Some(found) = found.or_else(|| hub.cache.find_any(name)) else {
                return Err(failure.into());
            };
            say_from_cache(&failure.message, &found);
            return Ok(found.path);
        }
    };
    let chosen = choose::choose(&listing.files, name)?;
    let known = hub.cache.lengths(&name.repo, &listing.commit);
    let mut first = None;
    for part in choose::parts(&listing.files, &chosen, name)? {
        let length = known.get(&part).copied();
        let (path, length) =
            download::into_cache(&hub, &name.repo, &listing.commit, &part, length, update)?;
        // What lies there may be damaged: only a length that was checked is written down.
        if let Some(length) = length {
            listing.bytes.insert(part, length);
        }
        first.get_or_insert(path);
    }
    hub.cache.remember(name, &listing);
    first.context("the model has no files")
}

/// Says that the hub was not asked, and what was taken instead.
fn say_from_cache(why: &str, found: &Found) {
    output::say(format_args!("{why}; using {} from the cache", found.file));
}

/// A name as a person would write it.
fn shown(name: &Name) -> String {
    let revision =
        name.revision.as_ref().map(|revision| format!("@{revision}")).unwrap_or_default();
    let pick = match &name.pick {
        Pick::Default => String::new(),
        Pick::Tag(pick) | Pick::File(pick) | Pick::Folder(pick) => format!(":{pick}"),
    };
    format!("{}{revision}{pick}", name.repo)
}

/// One file of a repository, by its name; whoever calls checks its bytes.
pub fn fetch_file(repo: &str, file: &str) -> Result<PathBuf> {
    let Some(mut name) = Name::parse(repo) else { bail!("{repo} is no name on the hub") };
    name.pick = Pick::File(file.into());
    fetch(&Wanted::Hub(name), false)
}

/// The commit of a repository's branch and the names of its files.
fn list(hub: &Hub, name: &Name, quick: bool) -> Result<Listing, Failure> {
    #[derive(Deserialize)]
    struct Sibling {
        rfilename: Option<String>,
    }
    #[derive(Deserialize)]
    struct Answer {
        sha: Option<String>,
        siblings: Option<Vec<Sibling>>,
    }
    let revision = url::encode(name.revision(), false);
    let url = format!("{}/api/models/{}/revision/{revision}", hub.client.endpoint, name.repo);
    let text = http::persist(quick, || {
        let mut response = hub.client.ask(&url, Ask::Get(0), true)?;
        let body = response.body_mut().with_config().limit(LONGEST_LIST);
        body.read_to_vec().map_err(|error| match error {
            ureq::Error::BodyExceedsLimit(_) => Failure::lasting(format!(
                "{}: an answer longer than {LONGEST_LIST} bytes",
                url::shown(&url)
            )),
            error => hub.client.broken(&url, 0, &error.into_io()),
        })
    })?;
    let answer: Answer = serde_json::from_slice(&text).map_err(|error| {
        Failure::lasting(format!(
            "{}: the answer is no list of files ({error}); is HF_ENDPOINT a hub, and is there a page to log in between?",
            url::shown(&url)
        ))
    })?;
    let commit = answer.sha.unwrap_or_default();
    if !is_commit(&commit) {
        return Err(Failure::lasting(format!("{}: the answer names no commit", url::shown(&url))));
    }
    let files = answer.siblings.unwrap_or_default().into_iter().filter_map(|file| file.rfilename);
    // A path that leads out of its folder is not believed.
    let files = files.filter(|file| name::is_path(file)).collect();
    Ok(Listing { commit, files, ..Listing::default() })
}

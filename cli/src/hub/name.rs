//! What people write for a model on the hub: names, links as the browser has them, links to other hosts.

use anyhow::{Result, bail};

use super::url::decode;

/// What is to be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// A model on the hub.
    Hub(Name),
    /// A file at a link to another host.
    Link(String),
}

/// A model on the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// `user/repo`.
    pub repo: String,
    /// A branch, a tag or a commit; none for `main`.
    pub revision: Option<String>,
    /// Which of its files.
    pub pick: Pick,
}

/// Which file of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pick {
    /// The one that is taken where none is named.
    Default,
    /// The one of a quantization.
    Tag(String),
    /// The one of this name, with or without its folder.
    File(String),
    /// The one that is taken where none is named, of this folder.
    Folder(String),
}

/// The hosts of the hub itself, whose links are names.
const HOSTS: [&str; 3] = ["huggingface.co", "www.huggingface.co", "hf.co"];

impl Name {
    /// A name without revision or tag.
    #[cfg(test)]
    pub fn of(repo: &str) -> Self {
        Self { repo: repo.into(), revision: None, pick: Pick::Default }
    }

    /// The revision's name: `main` where none is given.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }

    /// `user/repo[@revision][:tag]`; none if it is no such name.
    pub fn parse(text: &str) -> Option<Self> {
        let (repo, tag) = match text.split_once(':') {
            Some((repo, tag)) => (repo, Some(tag)),
            None => (text, None),
        };
        let (repo, revision) = match repo.split_once('@') {
            Some((repo, revision)) => (repo, Some(revision)),
            None => (repo, None),
        };
        if !is_repo(repo) || !revision.is_none_or(is_revision) {
            return None;
        }
        let pick = match tag {
            None => Pick::Default,
            Some(tag) if tag.is_empty() || tag.chars().any(char::is_control) => return None,
            // Ollama's word for "no tag".
            Some(tag) if tag.eq_ignore_ascii_case("latest") => Pick::Default,
            Some(tag) if is_gguf(&tag.to_ascii_lowercase()) => Pick::File(tag.into()),
            Some(tag) if tag.contains(['/', '\\', ':']) => return None,
            Some(tag) => Pick::Tag(tag.into()),
        };
        if matches!(&pick, Pick::File(file) if !is_path(file)) {
            return None;
        }
        Some(Self { repo: repo.into(), revision: revision.map(String::from), pick })
    }
}

impl Wanted {
    /// Takes what a person wrote apart: `user/repo[@revision][:tag]`, `hf.co/user/repo`, `hf://user/repo/file`,
    /// a link to a page or a file of the hub (`endpoint` is another of its addresses), a link to a file elsewhere.
    /// None if it is nothing of these.
    ///
    /// # Errors
    /// A link that leads to no model.
    pub fn parse(text: &str, endpoint: &str) -> Result<Option<Self>> {
        let text = text.trim();
        let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
        match scheme.as_deref() {
            Some("hf") => return of_uri(text, &text["hf://".len()..]).map(Some),
            Some("http" | "https") => {
                if let Some(path) = below(text, endpoint) {
                    return of_page(text, path).map(Some);
                }
                let rest = &text[text.find("://").map_or(0, |at| at + 3)..];
                return match of_host(rest) {
                    Some(path) => of_page(text, path).map(Some),
                    None => Ok(Some(Self::Link(text.into()))),
                };
            }
            Some(scheme) => {
                bail!("{text}: {scheme}:// is not known; links are http:// or https://")
            }
            None => {}
        }
        if let Some(path) = of_host(text) {
            return of_page(text, path).map(Some);
        }
        if let Some(rest) = text.strip_prefix("hf:") {
            return Ok(Name::parse(rest.trim_end_matches('/')).map(Self::Hub));
        }
        // A path to a file that is not there is no name.
        if is_gguf(text) && !text.contains(':') {
            return Ok(None);
        }
        Ok(Name::parse(text.strip_suffix('/').unwrap_or(text)).map(Self::Hub))
    }
}

/// What stands behind a host of the hub; none if the text begins with another.
fn of_host(text: &str) -> Option<&str> {
    let end = text.find(['/', '?', '#']).unwrap_or(text.len());
    let host = text[..end].to_ascii_lowercase();
    let host = host.strip_suffix(":443").unwrap_or(&host);
    HOSTS.contains(&host).then(|| text[end..].trim_start_matches('/'))
}

/// What stands behind the endpoint in a link to it.
fn below<'a>(link: &'a str, endpoint: &str) -> Option<&'a str> {
    let begins = link.get(..endpoint.len())?.eq_ignore_ascii_case(endpoint);
    link[endpoint.len()..].strip_prefix('/').filter(|_| begins)
}

/// A page or a file of the hub by the path of its link.
fn of_page(link: &str, path: &str) -> Result<Wanted> {
    let path = path.split('#').next().unwrap_or_default();
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    // What the hub's page of files shows beside the list.
    let shown = query.split('&').find_map(|field| field.strip_prefix("show_file_info="));
    let shown = shown.filter(|file| !file.is_empty());
    let shown = shown.map(|file| decode(file).unwrap_or_else(|| file.into()));
    let no_model = || {
        format!(
            "{link}: leads to no model; write user/repo, user/repo:QUANT or the link to a .gguf file"
        )
    };
    // A tag may stand behind the repository's name, and hold slashes if it is a file.
    let raw: Vec<&str> = path.trim_matches('/').split('/').collect();
    if raw.len() >= 2 && raw[1].contains(':') {
        let Some(name) = decode(path).and_then(|path| Name::parse(&path)) else {
            bail!(no_model())
        };
        return Ok(Wanted::Hub(name));
    }
    // Decoded part by part: an encoded slash belongs to a part, such as the revision refs%2Fpr%2F1.
    let Some(mut parts) = raw.into_iter().map(decode).collect::<Option<Vec<String>>>() else {
        bail!(no_model())
    };
    match parts[0].as_str() {
        "datasets" | "spaces" | "collections" | "papers" => {
            bail!("{link}: leads to the hub's {}, not to a model", parts[0])
        }
        "models" if parts.len() > 2 => _ = parts.remove(0),
        _ => {}
    }
    if parts.len() == 1 {
        bail!(no_model());
    }
    let Some(name) = Name::parse(&parts[..2].join("/")) else { bail!(no_model()) };
    if parts.len() == 2 {
        return match shown {
            Some(file) => located(link, name.repo, name.revision, Pick::File(file)),
            None => Ok(Wanted::Hub(name)),
        };
    }
    let action = parts[2].clone();
    let mut rest = parts.split_off(3);
    if rest.first().is_some_and(|first| first == "refs") && rest.len() >= 3 {
        // refs/pr/1 and refs/convert/NAME, where the slashes are not encoded.
        let tail = rest.split_off(3);
        rest = vec![rest.join("/")];
        rest.extend(tail);
    }
    let place = rest.get(1..).unwrap_or_default().join("/");
    let pick = match action.as_str() {
        "resolve" | "blob" | "raw" | "blame" if !place.is_empty() => Pick::File(place),
        "tree" => match shown {
            Some(file) => Pick::File(file),
            None if place.is_empty() => Pick::Default,
            None => Pick::Folder(place),
        },
        _ => bail!(no_model()),
    };
    located(link, name.repo, rest.first().cloned(), pick)
}

/// `hf://[models/]user/repo[@revision][/file]`, as huggingface_hub writes it.
fn of_uri(uri: &str, rest: &str) -> Result<Wanted> {
    let rest = rest.trim_matches('/');
    if let Some(kind) = ["datasets/", "spaces/", "buckets/", "kernels/"]
        .iter()
        .find(|kind| rest.starts_with(**kind))
    {
        bail!("{uri}: names one of the hub's {}, not a model", kind.trim_end_matches('/'));
    }
    let rest = rest.strip_prefix("models/").unwrap_or(rest);
    if let Some(name) = Name::parse(rest)
        && !name.revision.as_deref().is_some_and(|revision| revision.contains('/'))
    {
        return Ok(Wanted::Hub(name));
    }
    // A revision of one part ends at the next slash; those of pull requests and conversions have three.
    let parts_of_revision = match rest.split_once('@') {
        Some((_, after)) if ["refs/pr/", "refs/convert/"].iter().any(|p| after.starts_with(p)) => 3,
        _ => 1,
    };
    let mut parts: Vec<&str> = rest.splitn(2 + parts_of_revision, '/').collect();
    let has_place = parts.len() == 2 + parts_of_revision;
    let place = if has_place { parts.pop().unwrap_or_default() } else { "" };
    let Some(name) = Name::parse(&parts.join("/")) else {
        bail!("{uri}: names no model; write hf://user/repo or hf://user/repo/FILE.gguf")
    };
    let place = decode(place).unwrap_or_else(|| place.into());
    let pick = match place.as_str() {
        "" => name.pick,
        _ if is_gguf(&place.to_ascii_lowercase()) => Pick::File(place),
        _ => Pick::Folder(place),
    };
    located(uri, name.repo, name.revision, pick)
}

/// Puts a place together, checking what will be part of a path or an address.
fn located(link: &str, repo: String, revision: Option<String>, pick: Pick) -> Result<Wanted> {
    if !revision.as_deref().is_none_or(is_revision) {
        bail!("{link}: {} is no revision", revision.unwrap_or_default());
    }
    if let Pick::File(place) | Pick::Folder(place) = &pick
        && !is_path(place)
    {
        bail!("{link}: {place} is no path inside a repository");
    }
    if let Pick::File(file) = &pick
        && !is_gguf(&file.to_ascii_lowercase())
    {
        bail!("{link}: {file} is no .gguf file");
    }
    let revision = revision.filter(|revision| revision != "main");
    Ok(Wanted::Hub(Name { repo, revision, pick }))
}

/// Whether a text is `user/repo` as the hub allows it (llama.cpp's `is_valid_repo_id`): letters, digits and `_`,
/// with single `-`, `.` and one `/` between them.
fn is_repo(text: &str) -> bool {
    let mut special = true;
    let mut slashes = 0;
    for c in text.chars() {
        let base = c.is_ascii_alphanumeric() || c == '_';
        if !base && (special || !matches!(c, '/' | '.' | '-')) {
            return false;
        }
        slashes += u32::from(c == '/');
        special = !base;
    }
    !special && slashes == 1 && text.len() <= 256
}

/// Whether a text may name a branch, a tag or a commit: it becomes a path below `refs`.
fn is_revision(text: &str) -> bool {
    is_path(text) && text.len() <= 255
}

/// Whether a path stays inside its folder: no empty or hidden parts, nothing absolute, no backslashes.
pub fn is_path(text: &str) -> bool {
    !text.contains('\\')
        && !text.chars().any(char::is_control)
        && text.split('/').all(|part| !part.is_empty() && !part.starts_with('.'))
}

/// Whether a file is a GGUF file by its name.
pub fn is_gguf(file: &str) -> bool {
    std::path::Path::new(file).extension().is_some_and(|extension| extension == "gguf")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Option<Wanted>, String> {
        Wanted::parse(text, "http://127.0.0.1:81/mirror").map_err(|error| error.to_string())
    }

    #[allow(clippy::unnecessary_wraps, reason = "what `parse` is compared with")]
    fn hub(repo: &str, revision: Option<&str>, pick: Pick) -> Result<Option<Wanted>, String> {
        let revision = revision.map(String::from);
        Ok(Some(Wanted::Hub(Name { repo: repo.into(), revision, pick })))
    }

    #[test]
    fn names() {
        let tag = |tag: &str| Pick::Tag(tag.into());
        for prefix in [
            "",
            "hf.co/",
            "huggingface.co/",
            "https://hf.co/",
            "HTTPS://HuggingFace.co/",
            "hf:",
            "hf://",
        ] {
            for (text, revision, pick) in [
                ("a/b", None, Pick::Default),
                ("a/b/", None, Pick::Default),
                ("a/b:latest", None, Pick::Default),
                ("a/b:q8_0", None, tag("q8_0")),
                ("a/b:UD-Q4_K_XL", None, tag("UD-Q4_K_XL")),
                ("a/b@v1.0:Q8_0", Some("v1.0"), tag("Q8_0")),
                ("a/b@refs/pr/1", Some("refs/pr/1"), Pick::Default),
                ("a/b:m-Q8_0.gguf", None, Pick::File("m-Q8_0.gguf".into())),
                ("a/b:sub/m.gguf", None, Pick::File("sub/m.gguf".into())),
            ] {
                // A path behind @revision is a file in hf:// and on pages.
                if revision.is_some_and(|revision| revision.contains('/'))
                    && !matches!(prefix, "" | "hf:")
                {
                    continue;
                }
                assert_eq!(
                    parse(&format!("{prefix}{text}")),
                    hub("a/b", revision, pick),
                    "{prefix}{text}"
                );
            }
        }
        for bad in [
            "a",
            "a/b/c",
            "../b",
            "a/..",
            "a/b:",
            "a b/c",
            "/b",
            "a/b--c",
            "a/-b",
            "a/b.",
            "a/b@",
            "a/b@../x",
            "a/b:../x.gguf",
            "a/b:x\ny",
            "a/b:c/d",
            "a/b.gguf",
            "models/sub/m.gguf",
            "smollm2:135m",
            "C:\\m.gguf",
        ] {
            assert_eq!(parse(bad), Ok(None), "{bad}");
        }
    }

    #[test]
    fn links_as_the_browser_has_them() {
        let file = |file: &str| Pick::File(file.into());
        for host in [
            "https://huggingface.co",
            "http://hf.co",
            "https://www.huggingface.co",
            "http://127.0.0.1:81/mirror",
        ] {
            for (path, revision, pick) in [
                ("a/b/resolve/main/m-Q8_0.gguf", None, file("m-Q8_0.gguf")),
                ("a/b/blob/main/m-Q8_0.gguf", None, file("m-Q8_0.gguf")),
                ("a/b/raw/main/m.gguf?download=true", None, file("m.gguf")),
                (
                    "a/b/resolve/main/sub/my%20model%20%C3%A9.gguf?x#L1",
                    None,
                    file("sub/my model é.gguf"),
                ),
                ("a/b/blob/0123abc/m.gguf", Some("0123abc"), file("m.gguf")),
                ("a/b/resolve/refs%2Fpr%2F1/m.gguf", Some("refs/pr/1"), file("m.gguf")),
                ("a/b/resolve/refs/pr/1/m.gguf", Some("refs/pr/1"), file("m.gguf")),
                ("a/b/tree/main", None, Pick::Default),
                ("a/b/tree/main/", None, Pick::Default),
                ("a/b/tree/v2/UD-Q4_K_XL", Some("v2"), Pick::Folder("UD-Q4_K_XL".into())),
                ("a/b?library=x", None, Pick::Default),
                ("a/b#model", None, Pick::Default),
                ("a/b?show_file_info=m-Q8_0.gguf", None, file("m-Q8_0.gguf")),
                ("a/b?x=1&show_file_info=d%2Fm.gguf#y?", None, file("d/m.gguf")),
                ("a/b?show_file_info=", None, Pick::Default),
                ("a/b/tree/main?show_file_info=dir%2Fm-F16.gguf", None, file("dir/m-F16.gguf")),
                ("a/b/tree/v2/dir?show_file_info=dir%2Fm.gguf", Some("v2"), file("dir/m.gguf")),
            ] {
                assert_eq!(
                    parse(&format!("{host}/{path}")),
                    hub("a/b", revision, pick),
                    "{host}/{path}"
                );
            }
            for bad in [
                "",
                "a",
                "datasets/a/b",
                "spaces/a/b",
                "models",
                "a/b/discussions/3",
                "a/b/resolve/main/../../x.gguf",
                "a/b/resolve/main/%2e%2e/x.gguf",
                "a/b/resolve/main/README.md",
                "a/b?show_file_info=README.md",
                "a/b?show_file_info=..%2Fx.gguf",
                "a/b/resolve/main",
                "a/b/blob/%2e%2e/x.gguf",
                "a/b/resolve/main/x%5c..%5cy.gguf",
                "a b/c",
                "a/b%zz",
            ] {
                assert!(parse(&format!("{host}/{bad}")).is_err(), "{host}/{bad}");
            }
        }
        assert_eq!(
            parse("hf://models/a/b@v1/sub/m.gguf"),
            hub("a/b", Some("v1"), file("sub/m.gguf"))
        );
        assert_eq!(
            parse("hf://a/b@refs/pr/7/m.gguf"),
            hub("a/b", Some("refs/pr/7"), file("m.gguf"))
        );
        assert_eq!(parse("hf://a/b@refs/pr/7"), hub("a/b", Some("refs/pr/7"), Pick::Default));
        assert_eq!(parse("hf://a/b/Q8_0"), hub("a/b", None, Pick::Folder("Q8_0".into())));
        for elsewhere in [
            "https://example.org/m.gguf",
            "http://127.0.0.1:81/other/m.gguf",
            "https://huggingface.co.x/a/b",
        ] {
            assert_eq!(parse(elsewhere), Ok(Some(Wanted::Link(elsewhere.into()))));
        }
        for bad in ["ftp://example.org/m.gguf", "hf://datasets/a/b", "hf://a"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}

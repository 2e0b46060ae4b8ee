//! Requests to the hub: who is asked as whom, redirects, what can be tried again, and errors in sentences.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::time::Duration;

use serde_json::Value;
use ureq::http::{HeaderMap, Response};
use ureq::{Agent, Body};

use super::token::Login;
use super::variable;

/// The hub's own address.
const HUB: &str = "https://huggingface.co";
/// How many redirects are followed at most.
const REDIRECTS: usize = 20;
/// How often something is tried at most, one after another without success.
const TRIES: u32 = 4;
/// The longest wait that a server may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Why a request, or a download, came to nothing.
#[derive(Debug)]
pub struct Failure {
    /// What, where, and what to do.
    pub message: String,
    /// Whether it may go better another time.
    pub again: bool,
    /// How long the server asks to wait before.
    pub wait: Option<Duration>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl Failure {
    /// One that will be the same another time.
    pub fn lasting(message: String) -> Self {
        Self { message, again: false, wait: None }
    }

    /// One that may pass.
    pub fn passing(message: String) -> Self {
        Self { message, again: true, wait: None }
    }
}

/// How often something may still be tried.
pub struct Tries {
    left: u32,
    wait: Duration,
}

impl Tries {
    /// As many as there are; one alone where there is another way out.
    pub fn new(quick: bool) -> Self {
        Self { left: if quick { 1 } else { TRIES }, wait: Duration::from_secs(1) }
    }

    /// Waits before the next try, longer each time, saying why on stderr; gives the failure back where there is none.
    pub fn wait_after(&mut self, failure: Failure, note: &str) -> Result<(), Failure> {
        self.left = self.left.saturating_sub(1);
        if !failure.again || self.left == 0 {
            return Err(failure);
        }
        let wait = failure.wait.unwrap_or(self.wait);
        if wait > LONGEST_WAIT {
            let message =
                format!("{}; it asks to wait {} s: try again then", failure.message, wait.as_secs());
            return Err(Failure { message, ..failure });
        }
        eprintln!("{}; {note} in {} s", failure.message, wait.as_secs());
        std::thread::sleep(wait);
        self.wait = (self.wait * 2).min(Duration::from_secs(8));
        Ok(())
    }
}

/// Tries something that may pass until it does, or there is no try left.
pub fn persist<T>(quick: bool, mut ask: impl FnMut() -> Result<T, Failure>) -> Result<T, Failure> {
    let mut tries = Tries::new(quick);
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(failure) => tries.wait_after(failure, "trying again")?,
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// The headers alone; a redirect to another host is not followed, as it bears what the hub knows of the file.
    Head,
    /// The headers of where a link leads in the end.
    LinkHead,
    /// The body, from a byte on.
    Get(u64),
}

/// Who asks, and where.
pub struct Client {
    agent: Agent,
    /// The hub's address, without a slash at its end.
    pub endpoint: String,
    login: Result<Login, String>,
    /// How long a server may send nothing before it has answered.
    answer_timeout: Duration,
    /// How long a server may send nothing within a body.
    body_timeout: Duration,
}

/// The hub's address by the environment (`MODEL_ENDPOINT` as llama.cpp has it, `HF_ENDPOINT`).
///
/// # Errors
/// An address that is none.
pub fn endpoint() -> Result<String, Failure> {
    for name in ["MODEL_ENDPOINT", "HF_ENDPOINT"] {
        let Some(value) = variable(name) else { continue };
        let value = value.trim().trim_end_matches('/');
        if value.is_empty() {
            continue;
        }
        if origin(value).is_none_or(|origin| !origin.starts_with("http")) {
            return Err(Failure::lasting(format!(
                "{name} is {value}: expected an address that begins with http:// or https://"
            )));
        }
        return Ok(value.into());
    }
    Ok(HUB.into())
}

/// A time in seconds from the environment.
fn seconds(name: &str, otherwise: u64) -> Result<Duration, Failure> {
    let Some(value) = variable(name) else { return Ok(Duration::from_secs(otherwise)) };
    match value.trim().parse::<f64>() {
        Ok(0.0) => Ok(Duration::from_secs(otherwise)),
        Ok(number) if (0.001..1e6).contains(&number) => Ok(Duration::from_secs_f64(number)),
        _ => Err(Failure::lasting(format!("{name} is {value}: expected a number of seconds"))),
    }
}

impl Client {
    /// By the environment: `HF_ENDPOINT`, `HF_HUB_DOWNLOAD_TIMEOUT` and `HF_HUB_ETAG_TIMEOUT` (10 s each), tokens.
    pub fn from_environment() -> Result<Self, Failure> {
        let answer_timeout = seconds("HF_HUB_ETAG_TIMEOUT", 10)?;
        let agent = Agent::config_builder()
            .timeout_resolve(Some(answer_timeout))
            .timeout_connect(Some(answer_timeout))
            .timeout_per_write(Some(answer_timeout))
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .user_agent(concat!("engine/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Ok(Self {
            agent,
            endpoint: endpoint()?,
            login: Login::from_environment(),
            answer_timeout,
            body_timeout: seconds("HF_HUB_DOWNLOAD_TIMEOUT", 10)?,
        })
    }

    /// Asks for a URL and follows where it points. The token goes to the hub alone, never to another host, nor to
    /// anyone if `trusted` is false.
    pub fn ask(&self, url: &str, ask: Ask, trusted: bool) -> Result<Response<Body>, Failure> {
        let mut url = url.to_string();
        for _ in 0..=REDIRECTS {
            let with_token = trusted && self.is_hub(&url);
            let response = self.one(&url, ask, with_token)?;
            let status = response.status().as_u16();
            if !matches!(status, 301 | 302 | 303 | 307 | 308) {
                return self.judge(&url, response, with_token);
            }
            let location = response.headers().get("location").map(|value| value.as_bytes());
            let Some(target) = location.and_then(|location| join(&url, location)) else {
                return Err(Failure::lasting(format!(
                    "{}: the server answered {status} (moved) without saying where to",
                    shown(&url)
                )));
            };
            // What the hub says of a large file stands on its redirect to where the bytes lie.
            let says_it_all = response.headers().contains_key("x-linked-etag");
            if ask == Ask::Head && (says_it_all || !self.is_same_or_hub(&url, &target)) {
                return Ok(response);
            }
            url = target;
        }
        Err(Failure::lasting(format!("{}: more than {REDIRECTS} redirects, in a circle", shown(&url))))
    }

    /// Whether a URL leads to the hub, or to the address set for it.
    fn is_hub(&self, url: &str) -> bool {
        let of = origin(url);
        of.is_some()
            && [&self.endpoint, HUB, "https://hf.co"].iter().any(|hub| origin(hub) == of)
    }

    fn is_same_or_hub(&self, url: &str, target: &str) -> bool {
        origin(url) == origin(target) || self.is_hub(target)
    }

    /// One request, no redirect followed.
    fn one(&self, url: &str, ask: Ask, with_token: bool) -> Result<Response<Body>, Failure> {
        let mut request = match ask {
            Ask::Get(_) => self.agent.get(url),
            _ => self.agent.head(url),
        };
        if with_token {
            match &self.login {
                Ok(Login::As(token)) => {
                    request = request.header("Authorization", format!("Bearer {}", token.secret));
                }
                Ok(Login::Nobody(_)) => {}
                Err(message) => return Err(Failure::lasting(message.clone())),
            }
        }
        // The bytes of the file as they are: lengths and ranges count them.
        request = request.header("Accept-Encoding", "identity");
        if let Ask::Get(from) = ask
            && from > 0
        {
            request = request.header("Range", format!("bytes={from}-"));
        }
        let timeout = match ask {
            Ask::Get(_) => self.body_timeout,
            _ => self.answer_timeout,
        };
        let request = request.config().timeout_per_read(Some(timeout)).build();
        request.call().map_err(|error| of_network(url, error))
    }

    /// The answer, or what is wrong with it in a sentence.
    fn judge(
        &self,
        url: &str,
        mut response: Response<Body>,
        with_token: bool,
    ) -> Result<Response<Body>, Failure> {
        let status = response.status().as_u16();
        // 416: there is nothing beyond the byte asked for, which the download looks into.
        if matches!(status, 200..=299 | 416) {
            return Ok(response);
        }
        let code = header(response.headers(), "x-error-code").unwrap_or_default();
        let mut wait = None;
        let reason = reason(&mut response);
        let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        let url = shown(url);
        let again = matches!(status, 408 | 429 | 500 | 502..=504);
        let message = match status {
            401 | 403 if !with_token => format!("{url}: not allowed ({status}{reason})"),
            401 | 403 => {
                let who = self.login.as_ref().map_or_else(|why| why.clone(), Login::shown);
                format!(
                    "{url}: not allowed ({status}{reason}); {who}. For a gated repository accept its terms on its page, \
                     then log in with `hf auth login` or set HF_TOKEN to a token that may read it. The hub says the \
                     same of repositories that do not exist"
                )
            }
            404 if code == "RevisionNotFound" => {
                format!("{url}: not found{reason}; the repository has no such branch, tag or commit")
            }
            404 => format!("{url}: not found{reason}"),
            429 => {
                wait = wait_asked(response.headers());
                format!("{url}: too many requests (429{reason})")
            }
            _ => {
                wait = wait_asked(response.headers());
                format!("{url}: the server answered {status}{reason}")
            }
        };
        Err(Failure { message, again, wait })
    }

    /// The sentence for a body that stopped coming.
    pub fn broken(&self, url: &str, got: u64, error: &std::io::Error) -> Failure {
        let why = if error.kind() == ErrorKind::TimedOut || error.to_string().contains("timeout") {
            format!("nothing came for {} s", self.body_timeout.as_secs_f64())
        } else {
            format!("the connection broke ({error})")
        };
        Failure::passing(format!("{}: {why} after {got} bytes", shown(url)))
    }
}

/// A header as text.
pub fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.trim().to_string())
}

/// What the server says of an error, fit for a terminal: the hub's header, or the `error` of its JSON.
fn reason(response: &mut Response<Body>) -> String {
    let said = header(response.headers(), "x-error-message").or_else(|| {
        let text = response.body_mut().with_config().limit(1 << 16).read_to_string().ok()?;
        Some(serde_json::from_str::<Value>(&text).ok()?["error"].as_str()?.to_string())
    });
    let said = said.unwrap_or_default();
    said.chars().filter(|c| !c.is_control()).take(300).collect::<String>().trim().to_string()
}

/// How long a server asks to wait: `Retry-After` in seconds, or the hub's `RateLimit: "api";r=0;t=55`.
fn wait_asked(headers: &HeaderMap) -> Option<Duration> {
    let limit = header(headers, "ratelimit").and_then(|limit| {
        let field = |name: &str| -> Option<u64> {
            let part = limit.split(';').find_map(|part| part.trim().strip_prefix(name))?;
            part.trim().parse().ok()
        };
        (field("r=")? == 0).then(|| field("t="))?
    });
    let seconds = limit.or_else(|| header(headers, "retry-after")?.parse::<u64>().ok())?;
    // A second more, as both sides round.
    Some(Duration::from_secs(if limit.is_some() { seconds.saturating_add(1) } else { seconds }))
}

/// A failure to reach a server, in a sentence.
fn of_network(url: &str, error: ureq::Error) -> Failure {
    let host = origin(url).unwrap_or_default();
    let url = shown(url);
    match error {
        ureq::Error::HostNotFound => Failure::lasting(format!(
            "{url} cannot be reached: the host of {host} is not known; is there a network?"
        )),
        ureq::Error::Timeout(_) => Failure::passing(format!("{url} cannot be reached: no answer in time")),
        ureq::Error::Io(error) => {
            let again = matches!(
                error.kind(),
                ErrorKind::ConnectionReset
                    | ErrorKind::ConnectionAborted
                    | ErrorKind::BrokenPipe
                    | ErrorKind::UnexpectedEof
                    | ErrorKind::TimedOut
                    | ErrorKind::WouldBlock
                    | ErrorKind::Interrupted
            );
            Failure { message: format!("{url} cannot be reached: {error}"), again, wait: None }
        }
        error => Failure::lasting(format!("{url} cannot be reached: {error}")),
    }
}

/// A URL for people: without a password, and without a query, which may hold a signature.
pub fn shown(url: &str) -> String {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let url = &url[..end];
    let Some((scheme, rest)) = url.split_once("://") else { return url.into() };
    let authority = &rest[..rest.find('/').unwrap_or(rest.len())];
    let rest = authority.rfind('@').map_or(rest, |at| &rest[at + 1..]);
    format!("{scheme}://{rest}")
}

/// Scheme, host and port of a URL, in small letters; none if it has none.
pub fn origin(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let authority = authority.rsplit('@').next().unwrap_or(authority).to_ascii_lowercase();
    if authority.is_empty() {
        return None;
    }
    let port = match scheme.as_str() {
        "http" => ":80",
        "https" => ":443",
        _ => return None,
    };
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| {
        !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit())
    });
    Some(if has_port { format!("{scheme}://{authority}") } else { format!("{scheme}://{authority}{port}") })
}

/// Where a redirect leads to: its Location, which may be relative, read against the URL that gave it.
fn join(base: &str, location: &[u8]) -> Option<String> {
    // What may not stand in a URL but is sent nevertheless.
    let mut target = String::new();
    for &byte in location {
        if byte.is_ascii_graphic() { target.push(char::from(byte)) } else { _ = write!(target, "%{byte:02X}") }
    }
    let target = target.split('#').next().unwrap_or_default();
    let path_begins = target.find(['/', '?']).unwrap_or(target.len());
    if let Some(at) = target.find("://")
        && at < path_begins
    {
        let scheme = target[..at].to_ascii_lowercase();
        return matches!(scheme.as_str(), "http" | "https").then(|| format!("{scheme}{}", &target[at..]));
    }
    let (scheme, rest) = base.split_once("://")?;
    if target.starts_with("//") {
        return Some(format!("{scheme}:{target}"));
    }
    let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(authority_end);
    let path = &path[..path.find(['?', '#']).unwrap_or(path.len())];
    let whole = match target.as_bytes() {
        [] => return None,
        [b'/', ..] => target.to_string(),
        [b'?', ..] => format!("{path}{target}"),
        _ => format!("{}/{target}", path.rsplit_once('/').map_or("", |(folder, _)| folder)),
    };
    let (path, query) = match whole.split_once('?') {
        Some((path, query)) => (path, format!("?{query}")),
        None => (whole.as_str(), String::new()),
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').skip(1) {
        match part {
            "." => {}
            ".." => _ = parts.pop(),
            _ => parts.push(part),
        }
    }
    Some(format!("{scheme}://{authority}/{}{query}", parts.join("/")))
}

/// A path percent-encoded, its slashes kept where `slashes` says so.
pub fn encode(text: &str, slashes: bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (slashes && byte == b'/') {
            encoded.push(char::from(byte));
        } else {
            _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// What was percent-encoded; none if it is not well formed, or no UTF-8.
pub fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, tail @ ..] = rest else { return None };
        let digit = |digit: u8| char::from(digit).to_digit(16);
        bytes.push((digit(*high)? * 16 + digit(*low)?) as u8);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_redirects_lead() {
        let base = "https://huggingface.co/old/name/resolve/c0/m.gguf?x=1";
        for (location, target) in [
            ("/u/r/m.gguf", "https://huggingface.co/u/r/m.gguf"),
            ("//cdn.example/x?sig=a/b", "https://cdn.example/x?sig=a/b"),
            ("HTTP://cdn.example/x#y", "http://cdn.example/x"),
            ("n.gguf", "https://huggingface.co/old/name/resolve/c0/n.gguf"),
            ("../../d/./n.gguf", "https://huggingface.co/old/name/d/n.gguf"),
            ("?page=2", "https://huggingface.co/old/name/resolve/c0/m.gguf?page=2"),
            ("/a b\u{e9}?to=https://x/", "https://huggingface.co/a%20b%C3%A9?to=https://x/"),
        ] {
            assert_eq!(join(base, location.as_bytes()).as_deref(), Some(target), "{location}");
        }
        for location in ["", "ftp://x/y", "file:///etc/passwd"] {
            assert_eq!(join(base, location.as_bytes()), None, "{location}");
        }
        assert_eq!(join("http://h", b"x").as_deref(), Some("http://h/x"));
    }

    #[test]
    fn origins() {
        for (url, right) in [
            ("https://HuggingFace.co/a/b", "https://huggingface.co:443"),
            ("http://user:secret@h:81/a@b", "http://h:81"),
            ("http://[::1]/a", "http://[::1]:80"),
            ("http://[::1]:8/a", "http://[::1]:8"),
        ] {
            assert_eq!(origin(url).as_deref(), Some(right), "{url}");
        }
        assert_eq!(origin("http:///x"), None);
        assert_eq!(origin("ftp://h/x"), None);
        assert_eq!(shown("http://user:secret@h:81/a@b?sig=1"), "http://h:81/a@b");
    }

    #[test]
    fn waits_that_servers_ask_for() {
        let headers = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            headers
        };
        let wait = |name, value| wait_asked(&headers(name, value)).map(|wait| wait.as_secs());
        assert_eq!(wait("retry-after", " 7 "), Some(7));
        assert_eq!(wait("retry-after", "soon"), None);
        assert_eq!(wait("ratelimit", "\"api\";r=0;t=55"), Some(56));
        assert_eq!(wait("ratelimit", "\"api\";r=3;t=55"), None);
    }

    /// Whatever a name holds comes back, and what is sent is plain ASCII: every character up to U+2FFF, between others.
    #[test]
    fn encoded_names_come_back() {
        for c in (0..0x3000).filter_map(char::from_u32).chain(['\u{1f642}', '\u{10ffff}']) {
            let text = format!("a/{c}b%41{c}{c}.gguf");
            let encoded = encode(&text, true);
            let plain = |b: u8| b.is_ascii_graphic() && !b"?#+&\"<>\\^`{|}".contains(&b);
            assert!(encoded.bytes().all(plain), "{encoded}");
            assert_eq!(decode(&encoded).as_deref(), Some(text.as_str()));
            assert!(!encode(&text, false).contains('/'));
        }
        for bad in ["%", "%4", "%zz", "%ff", "a%"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }
}

//! Requests to the hub: who is asked as whom, redirects, what can be tried again, and errors in sentences.

use std::io::ErrorKind;
use std::time::Duration;

use serde_json::Value;
use ureq::http::{HeaderMap, Response};
use ureq::{Agent, Body};

use super::token::Login;
use super::url::{join, origin, shown};
use super::variable;

use crate::output;

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
            let message = format!(
                "{}; it asks to wait {} s: try again then",
                failure.message,
                wait.as_secs()
            );
            return Err(Failure { message, ..failure });
        }
        output::say(format_args!("{}; {note} in {} s", failure.message, wait.as_secs()));
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
                let said = location.map(String::from_utf8_lossy).unwrap_or_default();
                let to = if said.contains("://") {
                    format!("to {}, but only http:// and https:// are followed", shown(&said))
                } else {
                    "without saying where to".into()
                };
                return Err(Failure::lasting(format!(
                    "{}: the server answered {status} (moved) {to}",
                    shown(&url)
                )));
            };
            // What the hub says of a large file stands on its redirect to where the bytes lie.
            let has = |name: &str| response.headers().contains_key(name);
            let leaves = origin(&url) != origin(&target) && !self.is_hub(&target);
            if ask == Ask::Head && (has("x-linked-etag") || (leaves && has("etag"))) {
                return Ok(response);
            }
            url = target;
        }
        Err(Failure::lasting(format!(
            "{}: more than {REDIRECTS} redirects, in a circle",
            shown(&url)
        )))
    }

    fn is_hub(&self, url: &str) -> bool {
        leads_to_hub(&self.endpoint, url)
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
        let again = matches!(status, 408 | 429 | 500 | 502..=504 | 520..=524);
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
                format!(
                    "{url}: not found{reason}; the repository has no such branch, tag or commit"
                )
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

/// Whether a URL leads to the hub, or to the address set for it, safely or as that address itself.
fn leads_to_hub(endpoint: &str, url: &str) -> bool {
    let Some(of) = origin(url) else { return false };
    let secure = endpoint.strip_prefix("http://").map(|rest| format!("https://{rest}"));
    let hubs = [Some(endpoint), secure.as_deref(), Some(HUB), Some("https://hf.co")];
    hubs.into_iter().flatten().any(|hub| origin(hub).is_some_and(|hub| hub == of))
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
    let unknown = || {
        Failure::lasting(format!(
            "{url} cannot be reached: the host of {host} is not known; is there a network?"
        ))
    };
    match error {
        ureq::Error::HostNotFound => unknown(),
        // As the system's resolver says it.
        ureq::Error::Io(error) if error.to_string().contains("lookup address") => unknown(),
        ureq::Error::Timeout(_) => {
            Failure::passing(format!("{url} cannot be reached: no answer in time"))
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The token goes where this says.
    #[test]
    fn who_is_the_hub() {
        for (endpoint, url, right) in [
            (HUB, "https://huggingface.co/u/r", true),
            (HUB, "https://HF.co/u/r", true),
            (HUB, "http://huggingface.co/u/r", false),
            (HUB, "https://huggingface.co:444/u/r", false),
            (HUB, "https://huggingface.co.example.org/u/r", false),
            (HUB, "https://x@example.org/huggingface.co", false),
            (HUB, "https://huggingface.co@example.org/", false),
            ("http://mirror.example", "https://mirror.example/u/r", true),
            ("https://mirror.example", "http://mirror.example/u/r", false),
            ("http://127.0.0.1:81/hub", "http://127.0.0.1:81/cdn", true),
            ("http://127.0.0.1:81/hub", "http://127.0.0.1:82/hub", false),
            ("http://127.0.0.1:81/hub", "http://localhost:81/hub", false),
        ] {
            assert_eq!(leads_to_hub(endpoint, url), right, "{endpoint} {url}");
        }
    }

    #[test]
    fn unknown_hosts_are_said_to_be_so() {
        let lookup = "failed to lookup address information: Name or service not known";
        for error in [ureq::Error::HostNotFound, std::io::Error::other(lookup).into()] {
            let failure = of_network("http://nowhere.invalid/x", error);
            assert!(failure.message.contains("is there a network?"), "{failure}");
            assert!(!failure.again);
        }
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
}

//! A stand-in for the hub on loopback, and a folder for one test to pull into.

// Each test program uses a part of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::{Digest, Sha256};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// Names in small letters.
    pub headers: BTreeMap<String, String>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The first byte asked for.
    pub fn from(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// An answer.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    pub status: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Sends so many bytes of the body and closes the connection.
    pub cut: Option<usize>,
    /// Sends so many bytes of the body and then nothing, the connection open.
    pub stall: Option<usize>,
    /// Waits so long before it answers.
    pub delay: Duration,
}

impl Reply {
    pub fn new(status: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { status: status.into(), body: body.into(), ..Self::default() }
    }

    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn to(status: &str, location: impl Into<String>) -> Self {
        Self::new(status, "moved").with("Location", location)
    }
}

pub struct Server {
    pub address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// An address where nobody answers.
    pub fn gone() -> Self {
        Self { address: "http://127.0.0.1:9".into(), requests: Arc::default() }
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// The requests for bytes of files.
    pub fn downloads(&self) -> Vec<Request> {
        let is = |request: &Request| request.method == "GET" && request.path.contains("/resolve/");
        self.requests().into_iter().filter(is).collect()
    }
}

/// Serves until the test ends; `answer` is given the request and how many came before it.
pub fn serve(answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(Mutex::new(Vec::new()));
    let (log, answer) = (requests.clone(), Arc::new(answer));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (log, answer) = (log.clone(), answer.clone());
            std::thread::spawn(move || talk(stream, &log, &*answer));
        }
    });
    Server { address, requests }
}

/// One request a connection: what a test needs, no more.
fn talk(
    mut stream: TcpStream,
    log: &Mutex<Vec<Request>>,
    answer: &dyn Fn(&Request, usize) -> Reply,
) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let first = lines.next()?.ok()?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.to_string(), words.next()?.to_string());
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_string());
    }
    let request = Request { method, path, headers };
    let before = {
        let mut log = log.lock().unwrap();
        log.push(request.clone());
        log.len() - 1
    };
    let reply = answer(&request, before);
    std::thread::sleep(reply.delay);
    let mut head = format!("HTTP/1.1 {}\r\nConnection: close\r\n", reply.status);
    let has = |name: &str| reply.headers.iter().any(|(key, _)| key.eq_ignore_ascii_case(name));
    if !has("content-length") && !has("transfer-encoding") {
        write!(head, "Content-Length: {}\r\n", reply.body.len()).unwrap();
    }
    for (name, value) in &reply.headers {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
    if request.method == "HEAD" {
        return Some(());
    }
    let end = reply.cut.or(reply.stall).unwrap_or(reply.body.len()).min(reply.body.len());
    stream.write_all(&reply.body[..end]).ok()?;
    if reply.stall.is_some() {
        stream.flush().ok()?;
        std::thread::sleep(Duration::from_secs(120));
    }
    Some(())
}

pub fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

/// A path without its percent-encoding.
pub fn decode(path: &str) -> String {
    let (bytes, mut decoded, mut at) = (path.as_bytes(), Vec::new(), 0);
    while at < bytes.len() {
        if bytes[at] == b'%' {
            decoded.push(u8::from_str_radix(&path[at + 1..at + 3], 16).unwrap());
            at += 3;
        } else {
            decoded.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8(decoded).unwrap()
}

/// A repository of the hub.
#[derive(Clone)]
pub struct Repository {
    pub name: String,
    pub commit: String,
    pub files: Vec<(String, Vec<u8>)>,
}

impl Repository {
    pub fn new(files: &[(&str, &[u8])]) -> Self {
        let files =
            files.iter().map(|(name, bytes)| ((*name).to_string(), bytes.to_vec())).collect();
        Self { name: "user/repo".into(), commit: COMMIT.into(), files }
    }

    /// One whose files hold their names.
    pub fn of_names(names: &[&str]) -> Self {
        let files: Vec<(&str, &[u8])> = names.iter().map(|name| (*name, name.as_bytes())).collect();
        Self::new(&files)
    }

    /// What the hub answers: the list, or a file with ranges.
    pub fn answer(&self, request: &Request) -> Reply {
        let api = format!("/api/models/{}/revision/", self.name);
        if request.path.starts_with(&api) {
            let siblings: Vec<_> =
                self.files.iter().map(|(n, _)| serde_json::json!({ "rfilename": n })).collect();
            let body = serde_json::json!({ "sha": self.commit, "siblings": siblings });
            return Reply::new("200 OK", body.to_string());
        }
        let file = request
            .path
            .strip_prefix(&format!("/{}/resolve/{}/", self.name, self.commit))
            .map(decode);
        let Some((_, bytes)) = self.files.iter().find(|(name, _)| Some(name) == file.as_ref())
        else {
            return Reply::new("404 Not Found", "").with("X-Error-Code", "RepoNotFound");
        };
        file_reply(request, bytes)
    }
}

/// A file as the hub gives it, or the range asked for.
pub fn file_reply(request: &Request, bytes: &[u8]) -> Reply {
    let reply = match request.from() {
        None => Reply::new("200 OK", bytes),
        Some(from) if from >= bytes.len() => Reply::new("416 Range Not Satisfiable", ""),
        Some(from) => Reply::new("206 Partial Content", &bytes[from..])
            .with("Content-Range", format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len())),
    };
    reply
        .with("ETag", format!("\"{}\"", hash(bytes)))
        .with("X-Linked-Etag", format!("\"{}\"", hash(bytes)))
        .with("X-Linked-Size", bytes.len().to_string())
}

/// Bytes that differ everywhere.
pub fn bytes(length: usize) -> Vec<u8> {
    (0..length as u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .take(length)
        .collect()
}

/// A folder that a test pulls into, gone when it ends.
pub struct Home(pub PathBuf);

impl Home {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("engine-pull-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// `engine pull` here, from a hub, with nothing else of this machine's settings.
    pub fn command(&self, address: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_engine"));
        command
            .arg("pull")
            .args(arguments)
            .env_clear()
            .env("HOME", self.0.join("home"))
            .env("HF_HOME", &self.0)
            .env("ENGINE_HOME", self.0.join("engine"))
            .env("HF_ENDPOINT", address)
            .env("HF_HUB_DOWNLOAD_TIMEOUT", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub fn pull(&self, server: &Server, name: &str) -> Output {
        self.command(&server.address, &[name]).output().unwrap()
    }

    pub fn pull_with(&self, server: &Server, name: &str, variables: &[(&str, &str)]) -> Output {
        self.command(&server.address, &[name]).envs(variables.iter().copied()).output().unwrap()
    }

    pub fn repo(&self) -> PathBuf {
        self.0.join("hub").join("models--user--repo")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The file that a pull printed, by its name in the repository; panics with what it said instead.
#[track_caller]
pub fn pulled(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    let path = text(&output.stdout);
    let path = path.trim();
    assert!(Path::new(path).is_file(), "{path}");
    path.split_once("/snapshots/").and_then(|(_, rest)| rest.split_once('/')).map_or_else(
        || Path::new(path).file_name().unwrap().to_str().unwrap().to_string(),
        |(_, file)| file.to_string(),
    )
}

/// What a pull that failed said.
#[track_caller]
pub fn refused(output: &Output) -> String {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}\n{}", text(&output.stdout));
    assert!(!said.contains("panicked"), "{said}");
    said
}

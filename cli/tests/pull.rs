//! `engine pull` from a hub: the cache's layout, downloads that resume, hashes that are checked. The hub is a
//! small HTTP server in this process.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// How the server behaves.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Fine,
    /// Answers ranges with the whole file.
    NoRanges,
    /// Breaks the first download after half.
    Breaks,
    /// Sends other bytes than it says.
    Lies,
}

struct Server {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

fn serve(files: HashMap<String, Vec<u8>>, manner: Manner) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(Mutex::new(Vec::new()));
    let log = requests.clone();
    std::thread::spawn(move || {
        let mut broken = false;
        for stream in listener.incoming().flatten() {
            // One request a connection: what a test needs, no more.
            answer(stream, &files, manner, &log, &mut broken);
        }
    });
    Server { address, requests }
}

fn answer(
    mut stream: TcpStream,
    files: &HashMap<String, Vec<u8>>,
    manner: Manner,
    log: &Mutex<Vec<String>>,
    broken: &mut bool,
) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut request = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 || line == "\r\n" {
            break;
        }
        request.push_str(&line.to_lowercase());
    }
    log.lock().unwrap().push(request.clone());
    let mut words = request.split_whitespace();
    let (method, path) = (words.next()?, words.next()?);
    let send = |stream: &mut TcpStream, head: &str, body: &[u8]| {
        let _ =
            stream.write_all(format!("HTTP/1.1 {head}\r\nconnection: close\r\n\r\n").as_bytes());
        let _ = stream.write_all(body);
    };
    if path == "/api/models/user/repo/revision/main" {
        let mut names: Vec<_> = files.keys().collect();
        names.sort();
        let siblings: Vec<_> =
            names.iter().map(|n| serde_json::json!({ "rfilename": n })).collect();
        let body = serde_json::json!({ "sha": COMMIT, "siblings": siblings }).to_string();
        send(&mut stream, &format!("200 OK\r\ncontent-length: {}", body.len()), body.as_bytes());
        return Some(());
    }
    let name = path.strip_prefix(&format!("/user/repo/resolve/{COMMIT}/"))?;
    let file = files.iter().find(|(file, _)| file.to_lowercase() == name).map(|(_, bytes)| bytes);
    let Some(bytes) = file else {
        send(&mut stream, "404 Not Found\r\ncontent-length: 0", b"");
        return Some(());
    };
    let names = format!(
        "etag: \"{0}\"\r\nx-linked-etag: \"{0}\"\r\nx-linked-size: {1}",
        hash(bytes),
        bytes.len()
    );
    if method == "head" {
        send(&mut stream, &format!("200 OK\r\n{names}\r\ncontent-length: {}", bytes.len()), b"");
        return Some(());
    }
    let from = request
        .lines()
        .find_map(|line| {
            line.strip_prefix("range: bytes=")?.trim().strip_suffix('-')?.parse::<usize>().ok()
        })
        .filter(|_| manner != Manner::NoRanges)
        .unwrap_or(0);
    let mut body = bytes[from..].to_vec();
    if manner == Manner::Lies {
        body[0] ^= 1;
    }
    let status = if from > 0 {
        format!(
            "206 Partial Content\r\ncontent-range: bytes {from}-{}/{}",
            bytes.len() - 1,
            bytes.len()
        )
    } else {
        "200 OK".into()
    };
    let length = body.len();
    if manner == Manner::Breaks && !*broken {
        *broken = true;
        body.truncate(length / 2);
    }
    send(&mut stream, &format!("{status}\r\n{names}\r\ncontent-length: {length}"), &body);
    Some(())
}

fn model(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/tiny").join(name);
    std::fs::read(path).unwrap()
}

fn files() -> HashMap<String, Vec<u8>> {
    HashMap::from([
        ("README.md".into(), b"hello".to_vec()),
        ("m-Q4_K_M.gguf".into(), model("llama-w256.Q4_K_M.gguf")),
        ("m-Q8_0.gguf".into(), model("llama.Q8_0.gguf")),
    ])
}

struct Home(PathBuf);

impl Home {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("engine-pull-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn pull(&self, server: &Server, name: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_engine"))
            .args(["pull", name])
            .env("HF_HOME", &self.0)
            .env_remove("HF_HUB_CACHE")
            .env("HF_ENDPOINT", &server.address)
            .env("HF_TOKEN", "secret")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn repo(&self) -> PathBuf {
        self.0.join("hub").join("models--user--repo")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn files_land_in_the_shared_cache() {
    let (server, home) = (serve(files(), Manner::Fine), Home::new("layout"));
    let output = home.pull(&server, "user/repo");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let path = home.repo().join("snapshots").join(COMMIT).join("m-Q4_K_M.gguf");
    assert_eq!(text(&output.stdout).trim(), path.to_str().unwrap());
    assert_eq!(std::fs::read_to_string(home.repo().join("refs/main")).unwrap(), COMMIT);
    let bytes = model("llama-w256.Q4_K_M.gguf");
    let blob = home.repo().join("blobs").join(hash(&bytes));
    assert_eq!(std::fs::read(&blob).unwrap(), bytes);
    #[cfg(unix)]
    assert_eq!(
        std::fs::read_link(&path).unwrap(),
        Path::new("../../blobs").join(hash(&bytes)),
        "a relative link, as huggingface_hub makes"
    );
    let requests = server.requests.lock().unwrap().clone();
    assert!(requests.iter().all(|request| request.contains("authorization: bearer secret")));
    // The second time nothing is asked for.
    assert!(home.pull(&server, "hf.co/user/repo:q4_k_m").status.success());
    assert_eq!(server.requests.lock().unwrap().len(), requests.len());
    assert!(home.pull(&server, "user/repo:Q8_0").status.success());
    let output = home.pull(&server, "user/repo:Q2_K");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("m-Q8_0.gguf"), "{}", text(&output.stderr));
}

#[test]
fn interrupted_downloads_go_on() {
    let (server, home) = (serve(files(), Manner::Breaks), Home::new("resume"));
    let output = home.pull(&server, "user/repo");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("the download goes on"), "{}", text(&output.stderr));
    let output = home.pull(&server, "user/repo");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let half = model("llama-w256.Q4_K_M.gguf").len() / 2;
    let requests = server.requests.lock().unwrap();
    assert!(requests.last().unwrap().contains(&format!("range: bytes={half}-")), "{requests:?}");
    let path = text(&output.stdout);
    let mut got = Vec::new();
    std::fs::File::open(path.trim()).unwrap().read_to_end(&mut got).unwrap();
    assert_eq!(got, model("llama-w256.Q4_K_M.gguf"));
}

/// A server that ignores the range sends everything: what is there must not be appended to.
#[test]
fn a_server_without_ranges_starts_anew() {
    let (server, home) = (serve(files(), Manner::NoRanges), Home::new("no-ranges"));
    let bytes = model("llama-w256.Q4_K_M.gguf");
    let blobs = home.repo().join("blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(blobs.join(format!("{}.incomplete", hash(&bytes))), &bytes[..1000]).unwrap();
    let output = home.pull(&server, "user/repo");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(std::fs::read(blobs.join(hash(&bytes))).unwrap(), bytes);
}

#[test]
fn wrong_bytes_are_refused() {
    let (server, home) = (serve(files(), Manner::Lies), Home::new("lies"));
    let output = home.pull(&server, "user/repo");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("SHA-256"), "{}", text(&output.stderr));
    let left: Vec<_> = std::fs::read_dir(home.repo().join("blobs")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!home.repo().join("snapshots").exists());
}

#[test]
fn unknown_repositories_and_silent_servers_are_errors() {
    let (server, home) = (serve(files(), Manner::Fine), Home::new("unknown"));
    let output = home.pull(&server, "someone/else");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("someone/else"), "{}", text(&output.stderr));
    let gone = Server { address: "http://127.0.0.1:9".into(), requests: Arc::default() };
    let output = home.pull(&gone, "user/repo");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("cannot be reached"), "{}", text(&output.stderr));
}

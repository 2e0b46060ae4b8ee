//! `engine pull` where the way to the hub is not smooth: redirects, stalls, servers that are busy, break off or lie,
//! two programs at once.

mod stand_in;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use stand_in::*;

const NAME: &str = "m-Q4_K_M.gguf";

fn one(content: &[u8]) -> Repository {
    Repository::new(&[("README.md", b"hello"), (NAME, content)])
}

fn is_download(request: &Request) -> bool {
    request.method == "GET" && request.path.contains("/resolve/")
}

/// How many requests for bytes came before, counted by itself.
fn counter() -> impl Fn() -> usize {
    let count = Arc::new(AtomicUsize::new(0));
    move || count.fetch_add(1, Ordering::SeqCst)
}

#[test]
fn renamed_repositories_are_followed() {
    for (at, (status, absolute)) in [
        ("301 Moved Permanently", false),
        ("302 Found", true),
        ("307 Temporary Redirect", false),
        ("308 Permanent Redirect", true),
    ]
    .into_iter()
    .enumerate()
    {
        let (repository, home) = (one(b"a model"), Home::new(&format!("renamed-{at}")));
        let server = serve(move |request, _| {
            if request.header("authorization") != Some("Bearer secret") {
                return Reply::new("401 Unauthorized", "");
            }
            if !request.path.contains("old/name") {
                return repository.answer(request);
            }
            let host = request.header("host").filter(|_| absolute);
            let host = host.map(|host| format!("http://{host}")).unwrap_or_default();
            let path = request.path.replace("old/name", "user/repo");
            Reply::to(status, format!("{host}{path}")).with("ETag", "\"of the redirect\"")
        });
        let output = home.pull_with(&server, "old/name", &[("HF_TOKEN", "secret")]);
        assert_eq!(pulled(&output), NAME, "{status}");
        let blob = home.0.join("hub/models--old--name/blobs").join(hash(b"a model"));
        assert!(blob.exists(), "named after the file, not after the redirect");
        assert_eq!(text(&output.stderr), "");
    }
}

/// The bytes lie on another host, which must not see the token.
#[test]
fn other_hosts_get_no_token() {
    let content = bytes(5000);
    let (of_cdn, repository) = (content.clone(), one(&content));
    let cdn = serve(move |request, _| match request.header("authorization") {
        None if request.path.starts_with("/bytes") => file_reply(request, &of_cdn),
        _ => Reply::new("403 Forbidden", ""),
    });
    let (to, home) = (cdn.address.clone(), Home::new("cdn"));
    let server = serve(move |request, _| {
        let reply = repository.answer(request);
        if !request.path.contains("/resolve/") {
            return reply;
        }
        let kept =
            |name: &str| reply.headers.iter().find(|(key, _)| key == name).unwrap().1.clone();
        Reply::to("302 Found", format!("{to}/bytes?signature=a%2Fb"))
            .with("ETag", "\"xx\"")
            .with("X-Linked-Etag", kept("X-Linked-Etag"))
            .with("X-Linked-Size", kept("X-Linked-Size"))
    });
    let output = home.pull_with(&server, "user/repo", &[("HF_TOKEN", "secret")]);
    assert_eq!(pulled(&output), NAME);
    assert!(server.requests().iter().all(|request| request.header("authorization").is_some()));
    assert_eq!(cdn.requests().len(), 1, "the bytes alone");
    assert_eq!(cdn.requests()[0].path, "/bytes?signature=a%2Fb");
    assert!(home.repo().join("blobs").join(hash(&content)).exists());
}

#[test]
fn redirects_that_lead_nowhere_end() {
    for (at, (location, said)) in [
        (Some("/api/models/user/repo/revision/main"), "redirects"),
        (Some("ftp://example.org/x"), "to ftp://example.org/x, but only http:// and https://"),
        (None, "where to"),
    ]
    .into_iter()
    .enumerate()
    {
        let server = serve(move |_, _| match location {
            Some(location) => Reply::to("307 Temporary Redirect", location),
            None => Reply::new("307 Temporary Redirect", ""),
        });
        let error = refused(&Home::new(&format!("loop-{at}")).pull(&server, "user/repo"));
        assert!(error.contains(said), "{location:?}: {error}");
    }
}

#[test]
fn interrupted_downloads_go_on() {
    let content = bytes(300_000);
    for (at, cut) in [1, 150_000, 299_999].into_iter().enumerate() {
        let (repository, home, count) =
            (one(&content), Home::new(&format!("resume-{at}")), counter());
        let server = serve(move |request, _| {
            let reply = repository.answer(request);
            let first = is_download(request) && count() == 0;
            Reply { cut: first.then_some(cut), ..reply }
        });
        let output = home.pull(&server, "user/repo");
        assert_eq!(pulled(&output), NAME);
        assert!(text(&output.stderr).contains("the download goes on"), "{}", text(&output.stderr));
        let ranges: Vec<_> = server.downloads().iter().map(Request::from).collect();
        assert_eq!(ranges, [None, Some(cut)]);
        assert_eq!(std::fs::read(text(&output.stdout).trim()).unwrap(), content);
    }
}

/// A connection that stays open and sends nothing more.
#[test]
fn stalled_downloads_time_out_and_go_on() {
    let content = bytes(100_000);
    let (repository, home, count) = (one(&content), Home::new("stall"), counter());
    let server = serve(move |request, _| {
        let reply = repository.answer(request);
        let first = is_download(request) && count() == 0;
        Reply { stall: first.then_some(60_000), ..reply }
    });
    let output = home.pull(&server, "user/repo");
    assert_eq!(pulled(&output), NAME);
    assert!(
        text(&output.stderr).contains("nothing came for 1 s after 60000 bytes"),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(std::fs::read(text(&output.stdout).trim()).unwrap(), content);

    // One that never does better ends, and what came is kept.
    let (repository, home) = (one(&content), Home::new("stall-always"));
    let server = serve(move |request, _| {
        let reply = repository.answer(request);
        Reply { stall: is_download(request).then_some(10), ..reply }
    });
    let begin = Instant::now();
    let said =
        refused(&home.pull_with(&server, "user/repo", &[("HF_HUB_DOWNLOAD_TIMEOUT", "0.3")]));
    assert!(begin.elapsed() < Duration::from_secs(40), "{:?}", begin.elapsed());
    assert!(said.contains("try again, the download goes on"), "{said}");
    let blob = home.repo().join("blobs").join(format!("{}.incomplete", hash(&content)));
    assert_eq!(std::fs::read(blob).unwrap(), content[..40]);

    // A server that never answers at all.
    let server = serve(|_, _| Reply { delay: Duration::from_secs(60), ..Reply::default() });
    let output = Home::new("mute").pull_with(
        &server,
        "user/repo",
        &[("HF_HUB_DOWNLOAD_TIMEOUT", "0.2"), ("HF_HUB_ETAG_TIMEOUT", "0.2")],
    );
    assert!(refused(&output).contains("no answer in time"), "{}", text(&output.stderr));
}

#[test]
fn busy_servers_are_asked_again() {
    for (at, (status, name, value)) in [
        ("503 Service Unavailable", "X-Nothing", ""),
        ("429 Too Many Requests", "Retry-After", "0"),
        ("500 Internal Server Error", "Retry-After", "1"),
        ("520 Unknown Error", "Retry-After", "0"),
        ("524 A Timeout Occurred", "Retry-After", "0"),
        ("429 Too Many Requests", "RateLimit", "\"api\";r=0;t=0"),
    ]
    .into_iter()
    .enumerate()
    {
        let (repository, home) = (one(b"a model"), Home::new(&format!("busy-{at}")));
        // The list, the headers and the bytes each fail once.
        let server = serve(move |request, before| match before % 2 {
            0 => Reply::new(status, "busy").with(name, value),
            _ => repository.answer(request),
        });
        assert_eq!(pulled(&home.pull(&server, "user/repo")), NAME, "{status}");
        assert_eq!(server.requests().len(), 6);
    }
    let server = serve(|_, _| Reply::new("429 Too Many Requests", "").with("Retry-After", "3600"));
    let said = refused(&Home::new("busy-long").pull(&server, "user/repo"));
    assert!(said.contains("wait 3600 s"), "{said}");
    assert_eq!(server.requests().len(), 1);
}

/// Bytes as gzip has them, stored as they are.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let pieces: Vec<&[u8]> = bytes.chunks(60_000).collect();
    for (at, piece) in pieces.iter().enumerate() {
        let length = piece.len() as u16;
        out.push(u8::from(at + 1 == pieces.len()));
        out.extend(length.to_le_bytes().into_iter().chain((!length).to_le_bytes()));
        out.extend(*piece);
    }
    let sum = bytes.iter().fold(!0u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg())
        })
    });
    out.extend((!sum).to_le_bytes());
    out.extend((bytes.len() as u32).to_le_bytes());
    out
}

/// What a server sends that is not what was asked for.
#[test]
fn servers_that_answer_oddly() {
    let content = bytes(50_000);
    type Odd = fn(&Request, Reply, &[u8]) -> Reply;
    let odd: [(&str, Odd); 7] = [
        ("ignores ranges", |_, reply, content| Reply {
            status: "200 OK".into(),
            body: content.into(),
            ..reply
        }),
        ("another range", |request, reply, content| match request.from() {
            Some(from) => Reply { headers: Vec::new(), body: content[from - 9..].into(), ..reply }
                .with("Content-Range", format!("bytes {}-49999/50000", from - 9)),
            None => reply,
        }),
        ("no length", |_, reply, _| {
            let mut body = Vec::new();
            for piece in reply.body.chunks(7000) {
                body.extend(format!("{:x}\r\n", piece.len()).bytes());
                body.extend(piece);
                body.extend(b"\r\n");
            }
            body.extend(b"0\r\n\r\n");
            Reply { body, ..reply }.with("Transfer-Encoding", "chunked")
        }),
        ("416 for all ranges", |request, reply, _| match request.from() {
            Some(_) => Reply::new("416 Range Not Satisfiable", ""),
            None => reply,
        }),
        ("etag that is no hash", |_, mut reply, _| {
            reply.headers.retain(|(name, _)| name != "X-Linked-Etag" && name != "ETag");
            reply.with("ETag", "W/\"a/../b:1\"")
        }),
        ("compressed", |_, reply, _| {
            let body = gzip(&reply.body);
            Reply { body, ..reply }.with("Content-Encoding", "gzip")
        }),
        ("as it should", |_, reply, _| reply),
    ];
    for (at, (what, change)) in odd.into_iter().enumerate() {
        // From the beginning, from a part that is right, and from one that is wrong or too long.
        let parts = [
            Vec::new(),
            content[..20_000].to_vec(),
            vec![7; 20_000],
            vec![7; 60_000],
            content.clone(),
        ];
        for (part, there) in parts.into_iter().enumerate() {
            let (repository, home) = (one(&content), Home::new(&format!("odd-{at}-{part}")));
            let right = content.clone();
            let server = serve(move |request, _| {
                let reply = repository.answer(request);
                if request.path.contains("/resolve/") {
                    change(request, reply, &right)
                } else {
                    reply
                }
            });
            let blobs = home.repo().join("blobs");
            std::fs::create_dir_all(&blobs).unwrap();
            if !there.is_empty() {
                std::fs::write(blobs.join(format!("{}.incomplete", hash(&content))), there)
                    .unwrap();
            }
            let output = home.pull(&server, "user/repo");
            assert_eq!(pulled(&output), NAME, "{what} {part}");
            assert_eq!(
                std::fs::read(text(&output.stdout).trim()).unwrap(),
                content,
                "{what} {part}"
            );
            assert!(
                server.requests().iter().all(|r| r.header("accept-encoding") == Some("identity"))
            );
        }
    }
}

#[test]
fn wrong_bytes_are_refused() {
    for (at, lie) in [0usize, 1, 2].into_iter().enumerate() {
        let (repository, home) = (one(&bytes(9000)), Home::new(&format!("lies-{at}")));
        let server = serve(move |request, _| {
            let mut reply = repository.answer(request);
            if is_download(request) {
                match lie {
                    0 => reply.body[0] ^= 1,
                    1 => reply.body.push(0),
                    _ => _ = reply.body.pop(),
                }
            }
            reply
        });
        let said = refused(&home.pull(&server, "user/repo"));
        assert!(said.contains(["SHA-256", "promised", "8999 of 9000"][lie]), "{said}");
        assert!(!home.repo().join("snapshots").exists());
        let blobs: Vec<_> = std::fs::read_dir(home.repo().join("blobs")).unwrap().collect();
        // What is only short may be gone on with.
        assert_eq!(blobs.len(), usize::from(lie == 2), "{blobs:?}");
    }
}

/// Found by a new user: two pulls of one file, of which one died.
#[test]
fn two_pulls_of_one_file_share_a_download() {
    for (at, programs) in [2, 3, 5].into_iter().enumerate() {
        let content = bytes(200_000);
        let (repository, home) = (one(&content), Home::new(&format!("two-{at}")));
        let server = serve(move |request, _| {
            let delay =
                if is_download(request) { Duration::from_millis(1500) } else { Duration::ZERO };
            Reply { delay, ..repository.answer(request) }
        });
        let patient = [("HF_HUB_DOWNLOAD_TIMEOUT", "20")];
        let children: Vec<_> = (0..programs)
            .map(|_| home.command(&server.address, &["user/repo"]).envs(patient).spawn().unwrap())
            .collect();
        let outputs: Vec<_> =
            children.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
        let waited =
            outputs.iter().filter(|output| text(&output.stderr).contains("waiting for it")).count();
        for output in &outputs {
            assert_eq!(pulled(output), NAME);
            assert_eq!(std::fs::read(text(&output.stdout).trim()).unwrap(), content);
        }
        assert_eq!((server.downloads().len(), waited), (1, programs - 1));
    }
}

/// A program that is killed leaves no lock behind, and its part of the file is gone on with.
#[test]
fn a_dead_program_holds_no_lock() {
    let content = bytes(100_000);
    let (repository, home, count) = (one(&content), Home::new("dead"), counter());
    let server = serve(move |request, _| {
        let first = is_download(request) && count() == 0;
        Reply { stall: first.then_some(70_000), ..repository.answer(request) }
    });
    let patient = [("HF_HUB_DOWNLOAD_TIMEOUT", "60")];
    let mut child = home.command(&server.address, &["user/repo"]).envs(patient).spawn().unwrap();
    let incomplete = home.repo().join("blobs").join(format!("{}.incomplete", hash(&content)));
    let begin = Instant::now();
    while std::fs::metadata(&incomplete).map_or(0, |file| file.len()) < 70_000 {
        assert!(begin.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(pulled(&home.pull(&server, "user/repo")), NAME);
    assert_eq!(server.downloads().last().unwrap().from(), Some(70_000));
}

/// A link without an etag: what came of another version of the file is not gone on with.
#[test]
fn downloads_of_changed_files_begin_anew() {
    for dated in [true, false] {
        let (home, gets) = (Home::new(&format!("changed-{dated}")), AtomicUsize::new(0));
        let (old, new) = (bytes(1000), vec![7; 1000]);
        let right = new.clone();
        let host = serve(move |request, _| {
            let get = usize::from(request.method == "GET");
            let before = gets.fetch_add(get, Ordering::SeqCst);
            if get == 1 && before == 1 {
                return Reply::new("404 Not Found", "");
            }
            let (content, day) = if before < 2 { (&old, 1) } else { (&new, 2) };
            let mut reply = file_reply(request, content);
            reply.headers.retain(|(name, _)| name == "Content-Range");
            reply.cut = (before == 0).then_some(400);
            if dated {
                reply = reply.with("Last-Modified", format!("{day} Jan 1970 00:00:00 GMT"));
            }
            reply
        });
        let (hub, link) = (Server::gone(), format!("{}/m.gguf", host.address));
        let said = refused(&home.pull(&hub, &link));
        assert!(said.contains("not found"), "{said}");
        let output = home.pull(&hub, &link);
        assert_eq!(pulled(&output), "m.gguf");
        assert!(std::fs::read(text(&output.stdout).trim()).unwrap() == right, "{dated}");
    }
}

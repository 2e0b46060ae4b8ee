//! `engine pull` from a hub: the cache's layout, which file is taken, what the cache may answer. The hub is a
//! small HTTP server in this process.

mod stand_in;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use stand_in::*;

fn model(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/tiny").join(name);
    std::fs::read(path).unwrap()
}

fn fine(repository: Repository) -> Server {
    serve(move |request, _| repository.answer(request))
}

fn models() -> Repository {
    Repository::new(&[
        ("README.md", b"hello"),
        ("m-BF16.gguf", b"bf16"),
        ("m-Q4_K_M.gguf", &model("llama-w256.Q4_K_M.gguf")),
        ("m-Q8_0.gguf", &model("llama.Q8_0.gguf")),
    ])
}

#[test]
fn files_land_in_the_shared_cache() {
    let (server, home) = (fine(models()), Home::new("layout"));
    let token = [("HF_TOKEN", "secret")];
    let output = home.pull_with(&server, "user/repo", &token);
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
    let requests = server.requests();
    assert!(
        requests.iter().all(|request| request.header("authorization") == Some("Bearer secret"))
    );
    // The second time nothing is asked for.
    assert!(home.pull(&server, "hf.co/user/repo:q4_k_m").status.success());
    assert_eq!(server.requests().len(), requests.len());
    assert!(home.pull(&server, "user/repo:Q8_0").status.success());
    let said = refused(&home.pull(&server, "user/repo:Q2_K"));
    assert!(said.contains("m-Q8_0.gguf"), "{said}");
}

#[test]
fn unknown_repositories_and_silent_servers_are_errors() {
    let (server, home) = (fine(models()), Home::new("unknown"));
    let said = refused(&home.pull(&server, "someone/else"));
    assert!(said.contains("someone/else"), "{said}");
    let said = refused(&home.pull(&Server::gone(), "user/repo"));
    assert!(said.contains("cannot be reached"), "{said}");
}

/// Found by a new user: after one quantization was named, the default is still the default.
#[test]
fn what_lies_in_the_cache_does_not_change_what_a_name_means() {
    for (first, file) in
        [("BF16", "m-BF16.gguf"), ("Q8_0", "m-Q8_0.gguf"), ("m-bf16.gguf", "m-BF16.gguf")]
    {
        let (server, home) = (fine(models()), Home::new(&format!("default-{first}")));
        assert_eq!(pulled(&home.pull(&server, &format!("user/repo:{first}"))), file);
        assert_eq!(pulled(&home.pull(&server, "user/repo")), "m-Q4_K_M.gguf");
        assert_eq!(pulled(&home.pull(&server, &format!("user/repo:{first}"))), file);
    }
}

/// The file that another program left is not all that the hub has.
#[test]
fn files_of_other_programs_are_used() {
    let (server, home) = (fine(models()), Home::new("others"));
    let bytes = model("llama.Q8_0.gguf");
    let snapshot = home.repo().join("snapshots").join(COMMIT);
    std::fs::create_dir_all(home.repo().join("refs")).unwrap();
    std::fs::write(home.repo().join("refs/main"), COMMIT).unwrap();
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::write(snapshot.join("m-Q8_0.gguf"), &bytes).unwrap();
    // A file in the snapshot is not fetched again, a blob is linked.
    assert_eq!(pulled(&home.pull(&server, "user/repo:Q8_0")), "m-Q8_0.gguf");
    assert_eq!(server.downloads().len(), 0);
    std::fs::create_dir_all(home.repo().join("blobs")).unwrap();
    std::fs::write(home.repo().join("blobs").join(hash(b"bf16")), "bf16").unwrap();
    assert_eq!(pulled(&home.pull(&server, "user/repo:BF16")), "m-BF16.gguf");
    assert_eq!(server.downloads().len(), 0);
    // One that was cut short is no blob.
    let blob = home.repo().join("blobs").join(hash(&model("llama-w256.Q4_K_M.gguf")));
    std::fs::write(&blob, "short").unwrap();
    assert_eq!(pulled(&home.pull(&server, "user/repo")), "m-Q4_K_M.gguf");
    assert_eq!(std::fs::read(&blob).unwrap(), model("llama-w256.Q4_K_M.gguf"));
}

/// Found by a reviewer: a file that was cut short in the cache was given out, and its length taken for the right one.
#[test]
fn damaged_files_are_fetched_anew() {
    let bytes = model("llama-w256.Q4_K_M.gguf");
    let (file, update) = ("user/repo:m-Q4_K_M.gguf", "--update");
    for (at, arguments) in [&["user/repo"][..], &["user/repo", update], &[file], &[file, update]]
        .into_iter()
        .enumerate()
    {
        // As this program left the cache, and as huggingface_hub does.
        for ours in [true, false] {
            let (server, home) = (fine(models()), Home::new(&format!("damaged-{at}-{ours}")));
            assert_eq!(pulled(&home.pull(&server, "user/repo")), "m-Q4_K_M.gguf");
            if !ours {
                std::fs::remove_dir_all(home.repo().join(".engine")).unwrap();
            }
            std::fs::write(home.repo().join("blobs").join(hash(&bytes)), &bytes[..1000]).unwrap();
            for _ in 0..2 {
                let output = home.command(&server.address, arguments).output().unwrap();
                assert_eq!(pulled(&output), "m-Q4_K_M.gguf", "{arguments:?} {ours}");
                let read = std::fs::read(text(&output.stdout).trim()).unwrap();
                assert!(read == bytes, "{arguments:?} {ours}: {} bytes", read.len());
            }
            assert_eq!(server.downloads().len(), 2, "{arguments:?} {ours}");
            let list = home.repo().join(".engine").join(format!("{COMMIT}.json"));
            let list: serde_json::Value =
                serde_json::from_slice(&std::fs::read(list).unwrap()).unwrap();
            assert_eq!(list["bytes"]["m-Q4_K_M.gguf"], bytes.len());
        }
    }
}

#[test]
fn folders_are_no_models() {
    let (server, home) = (fine(models()), Home::new("folder"));
    let said = refused(&home.pull(&server, home.0.to_str().unwrap()));
    assert!(said.contains("a folder, not a model"), "{said}");
    let said = refused(&home.pull(&server, home.0.join("gone").to_str().unwrap()));
    assert!(said.contains("no such file"), "{said}");
}

#[test]
fn without_a_network_the_cache_answers() {
    let (server, home) = (fine(models()), Home::new("offline"));
    assert_eq!(pulled(&home.pull(&server, "user/repo:BF16")), "m-BF16.gguf");
    let gone = Server::gone();
    for variables in [&[][..], &[("HF_HUB_OFFLINE", "1")], &[("TRANSFORMERS_OFFLINE", "yes")]] {
        // What the list says is certain.
        let output = home.pull_with(&gone, "user/repo:bf16", variables);
        assert_eq!((pulled(&output), text(&output.stderr)), ("m-BF16.gguf".into(), String::new()));
        // What the hub would not choose is better than nothing, with a word.
        let output = home.pull_with(&gone, "user/repo", variables);
        assert_eq!(pulled(&output), "m-BF16.gguf");
        assert!(
            text(&output.stderr).contains("using m-BF16.gguf from the cache"),
            "{}",
            text(&output.stderr)
        );
        refused(&home.pull_with(&gone, "user/repo:Q8_0", variables));
    }
    let asked = server.requests().len();
    let offline = [("HF_HUB_OFFLINE", "ON")];
    let said = refused(&home.pull_with(&server, "user/repo:Q8_0", &offline));
    assert!(said.contains("HF_HUB_OFFLINE"), "{said}");
    assert_eq!(server.requests().len(), asked);
    // A reference to a commit that is not here.
    std::fs::write(home.repo().join("refs/main"), "feedc0de").unwrap();
    assert_eq!(pulled(&home.pull_with(&gone, "user/repo", &[])), "m-BF16.gguf");
    assert_eq!(pulled(&home.pull(&server, "user/repo")), "m-Q4_K_M.gguf");
}

#[test]
fn a_newer_version_is_fetched_when_asked_for() {
    let home = Home::new("update");
    let old = fine(Repository::new(&[("m-Q8_0.gguf", b"old")]));
    let mut newer = Repository::new(&[("m-Q8_0.gguf", b"new")]);
    newer.commit = "fedcba9876543210fedcba9876543210fedcba98".into();
    let newer = fine(newer);
    let read = |output: &std::process::Output| std::fs::read(text(&output.stdout).trim()).unwrap();
    assert_eq!(read(&home.pull(&old, "user/repo")), b"old");
    assert_eq!(read(&home.pull(&newer, "user/repo")), b"old");
    let output = home.command(&newer.address, &["user/repo", "--update"]).output().unwrap();
    assert_eq!(read(&output), b"new");
    assert_eq!(read(&home.pull(&newer, "user/repo")), b"new");
    assert_eq!(read(&home.pull(&newer, &format!("user/repo@{COMMIT}"))), b"old");
}

/// Names that a URL cannot hold as they are.
#[test]
fn names_are_percent_encoded() {
    let names = [
        "my model Q4_K_M.gguf",
        "a#b-Q8_0.gguf",
        "what?-F16.gguf",
        "100%-Q2_K.gguf",
        "a+b&c-Q3_K_S.gguf",
        "größe-Q5_K_M.gguf",
        "日本/模型-Q6_K.gguf",
        "[x]-IQ4_XS.gguf",
    ];
    let (server, home) = (fine(Repository::of_names(&names)), Home::new("encoded"));
    assert_eq!(pulled(&home.pull(&server, "user/repo")), names[0]);
    for name in names {
        let tag = name.trim_end_matches(".gguf").rsplit([' ', '-']).next().unwrap();
        assert_eq!(pulled(&home.pull(&server, &format!("user/repo:{tag}"))), name);
        assert_eq!(pulled(&home.pull(&server, &format!("user/repo:{name}"))), name);
    }
    for path in server.requests().iter().map(|request| &request.path) {
        assert!(path.bytes().all(|b| b.is_ascii_graphic() && !b"?#+&[]".contains(&b)), "{path}");
    }
}

#[test]
fn links_to_files_are_fetched() {
    let names = [
        "m-Q4_K_M.gguf",
        "my model-Q8_0.gguf",
        "s/m-F16-00001-of-00002.gguf",
        "s/m-F16-00002-of-00002.gguf",
        "mmproj-F16.gguf",
        "imatrix.gguf",
    ];
    let repository = Repository::of_names(&names);
    let (server, home) = (fine(repository.clone()), Home::new("links"));
    let hosts = ["https://huggingface.co".into(), "http://hf.co".into(), server.address.clone()];
    for host in &hosts {
        for (link, file) in [
            ("resolve/main/m-Q4_K_M.gguf", names[0]),
            ("blob/main/my%20model-Q8_0.gguf", names[1]),
            ("resolve/main/m-Q4_K_M.gguf?download=true", names[0]),
            ("blob/main/s/m-F16-00002-of-00002.gguf#L1", names[2]),
            ("tree/main", names[0]),
            ("tree/main/s", names[2]),
        ] {
            assert_eq!(
                pulled(&home.pull(&server, &format!("{host}/user/repo/{link}"))),
                file,
                "{link}"
            );
        }
        assert!(home.repo().join("snapshots").join(COMMIT).join(names[3]).exists());
        for (link, said) in [
            ("resolve/main/mmproj-F16.gguf", "not a model"),
            ("blob/main/imatrix.gguf", "not a model"),
            ("blob/main/gone.gguf", "m-Q4_K_M.gguf"),
            ("blob/main/README.md", "no .gguf file"),
            ("discussions/1", "leads to no model"),
        ] {
            let error = refused(&home.pull(&server, &format!("{host}/user/repo/{link}")));
            assert!(error.contains(said), "{link}: {error}");
        }
    }
    let commit = format!("user/repo/resolve/{COMMIT}/{}", names[0]);
    assert_eq!(pulled(&home.pull(&server, &format!("https://hf.co/{commit}"))), names[0]);
}

/// Links to other hosts: each file in a folder of its own, asked for again whether it has changed.
#[test]
fn links_to_other_hosts_are_fetched() {
    let parts = ["/x/m-00001-of-00002.gguf", "/x/m-00002-of-00002.gguf"];
    let (versions, times) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let host = serve(move |request, _| match request.path.as_str() {
        "/m.gguf?key=1" => file_reply(request, b"a model"),
        "/m%20%C3%A9%20%231.gguf" => file_reply(request, b"encoded"),
        // No etag: a time alone.
        "/dated.gguf" => {
            let asked = usize::from(request.method == "HEAD");
            let version = times.fetch_add(asked, Ordering::Relaxed) + asked;
            Reply::new("200 OK", format!("version {version}"))
                .with("Last-Modified", format!("Thu, 01 Jan 1970 00:00:0{version} GMT"))
        }
        "/moved.gguf" => Reply::to("302 Found", "m.gguf?key=1"),
        "/headless.gguf" if request.method == "HEAD" => Reply::new("405 Method Not Allowed", ""),
        "/headless.gguf" => Reply::new("200 OK", "another"),
        // Another file each time it is asked about.
        "/changes.gguf" => {
            let asked = usize::from(request.method == "HEAD");
            let version = versions.fetch_add(asked, Ordering::Relaxed) + asked;
            file_reply(request, version.to_string().as_bytes())
        }
        path if parts.contains(&path) => file_reply(request, path.as_bytes()),
        _ => Reply::new("404 Not Found", ""),
    });
    let (hub, home) = (fine(models()), Home::new("other-hosts"));
    let token = [("HF_TOKEN", "secret")];
    let pull = |link: &str| home.pull_with(&hub, &format!("{}{link}", host.address), &token);
    let read = |output: &std::process::Output| std::fs::read(text(&output.stdout).trim()).unwrap();
    for (link, right) in
        [("/m.gguf?key=1", "a model"), ("/moved.gguf", "a model"), ("/headless.gguf", "another")]
    {
        for _ in 0..2 {
            let output = pull(link);
            assert!(output.status.success(), "{link}: {}", text(&output.stderr));
            assert_eq!(text(&read(&output)), right);
        }
    }
    let output = pull(parts[1]);
    assert_eq!(pulled(&output), "m-00001-of-00002.gguf");
    let second = Path::new(text(&output.stdout).trim()).with_file_name("m-00002-of-00002.gguf");
    assert_eq!(std::fs::read(second).unwrap(), parts[1].as_bytes());
    assert_ne!(read(&pull("/changes.gguf")), read(&pull("/changes.gguf")));
    assert_ne!(read(&pull("/dated.gguf")), read(&pull("/dated.gguf")));
    let output = pull("/m é %231.gguf");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&read(&output)), "encoded");
    // One that was cut short is fetched anew.
    std::fs::write(text(&output.stdout).trim(), "enc").unwrap();
    assert_eq!(text(&read(&pull("/m é %231.gguf"))), "encoded");
    let said = refused(&pull("/m #1.gguf"));
    assert!(said.contains("is written %23"), "{said}");
    refused(&pull("/gone.gguf"));
    let said = refused(&pull("/mmproj-x.gguf"));
    assert!(said.contains("not a model"), "{said}");
    let said = refused(&pull("/page.html"));
    assert!(said.contains("must lead to a .gguf file"), "{said}");
    assert!(host.requests().iter().all(|request| request.header("authorization").is_none()));
    assert!(hub.requests().is_empty());
}

/// Lists that would lead out of the cache, or are none.
#[test]
fn bad_lists_are_refused() {
    let names = [
        "../../../evil-Q4_K_M.gguf",
        "/etc/evil-Q4_K_M.gguf",
        "a\\..\\evil-Q4_K_M.gguf",
        "a//Q4_K_M.gguf",
    ];
    let (server, home) = (fine(Repository::of_names(&names)), Home::new("evil"));
    for name in ["user/repo", "user/repo:Q4_K_M"] {
        let said = refused(&home.pull(&server, name));
        assert!(said.contains("no files"), "{said}");
    }
    assert!(server.downloads().is_empty());
    for (at, (body, said)) in [
        ("<html>log in</html>", "no list of files"),
        ("[]", "no list of files"),
        ("{\"siblings\": []}", "names no commit"),
        ("{\"sha\": \"../x\", \"siblings\": []}", "names no commit"),
        ("{\"sha\": \"c0ffee\"}", "holds no files"),
        ("{\"sha\": \"c0ffee\", \"siblings\": [{}, {\"rfilename\": null}]}", "holds no files"),
    ]
    .into_iter()
    .enumerate()
    {
        let server = serve(move |_, _| Reply::new("200 OK", body));
        let error = refused(&Home::new(&format!("bad-{at}")).pull(&server, "user/repo"));
        assert!(error.contains(said), "{body}: {error}");
    }
}

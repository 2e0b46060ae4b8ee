//! `engine pull` by its environment: tokens and what a hub says without the right one, places for the cache, addresses.

mod stand_in;

use stand_in::*;

/// Variables, and a place below the test's folder.
type Case<'a> = (&'a [(&'a str, &'a str)], Option<&'a str>);

const NAME: &str = "m-Q4_K_M.gguf";

fn one(content: &[u8]) -> Repository {
    Repository::new(&[(NAME, content)])
}

/// Every place where huggingface_hub looks for a token.
#[test]
fn tokens_are_found_where_a_login_puts_them() {
    let gated = || {
        let repository = one(b"a model");
        serve(move |request, _| match request.header("authorization") {
            Some("Bearer hf_made") => repository.answer(request),
            _ => Reply::new("401 Unauthorized", "{\"error\": \"Invalid credentials\\u001b[31m\"}")
                .with("X-Error-Code", "GatedRepo"),
        })
    };
    let cases: [Case; 8] = [
        (&[("HF_TOKEN", "hf_made")], None),
        (&[("HF_TOKEN", " hf_made\r\n")], None),
        (&[("HF_TOKEN", ""), ("HUGGING_FACE_HUB_TOKEN", "hf_made\n")], None),
        (&[("HF_TOKEN", " \n")], Some("token")),
        (&[], Some("token")),
        (&[("HF_TOKEN_PATH", "~/deep/token")], Some("home/deep/token")),
        (&[("HF_HOME", "")], Some("home/.cache/huggingface/token")),
        (&[("HF_HOME", ""), ("XDG_CACHE_HOME", "~/xdg")], Some("home/xdg/huggingface/token")),
    ];
    for (at, (variables, file)) in cases.into_iter().enumerate() {
        let (server, home) = (gated(), Home::new(&format!("token-{at}")));
        if let Some(file) = file {
            let path = home.0.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "hf_made\n").unwrap();
        }
        assert_eq!(pulled(&home.pull_with(&server, "user/repo", variables)), NAME, "{variables:?}");
    }
    let (server, home) = (gated(), Home::new("token-none"));
    let said = refused(&home.pull(&server, "user/repo"));
    assert!(said.contains("no token was sent") && said.contains("HF_TOKEN"), "{said}");
    assert!(said.contains("Invalid credentials") && !said.contains('\u{1b}'), "{said}");
    let said = refused(&home.pull_with(&server, "user/repo", &[("HF_TOKEN", "hf_other")]));
    assert!(
        said.contains("the token of HF_TOKEN was sent") && !said.contains("hf_other"),
        "{said}"
    );
    std::fs::write(home.0.join("token"), "hf_made").unwrap();
    let said =
        refused(&home.pull_with(&server, "user/repo", &[("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]));
    assert!(said.contains("HF_HUB_DISABLE_IMPLICIT_TOKEN"), "{said}");
    let asked = server.requests().len();
    for bad in ["two words", "grün", "hf_\u{7f}x"] {
        let said = refused(&home.pull_with(&server, "user/repo", &[("HF_TOKEN", bad)]));
        assert!(said.contains("HF_TOKEN holds no token") && !said.contains(bad), "{said}");
    }
    assert_eq!(server.requests().len(), asked);
}

/// What the hub says of a repository that may not be had reaches the person.
#[test]
fn refusals_say_why() {
    for (at, (status, code, message, said)) in [
        ("403 Forbidden", "GatedRepo", "Access to model user/repo is restricted", "is restricted"),
        ("403 Forbidden", "", "Access to this resource is disabled.", "is disabled"),
        ("401 Unauthorized", "RepoNotFound", "Invalid username or password.", "do not exist"),
        ("404 Not Found", "RepoNotFound", "Repository not found", "Repository not found"),
        ("404 Not Found", "RevisionNotFound", "Invalid rev id: v9", "no such branch"),
        ("400 Bad Request", "", "Bad name", "Bad name"),
        ("451 Unavailable For Legal Reasons", "", "Taken down", "Taken down"),
    ]
    .into_iter()
    .enumerate()
    {
        let server = serve(move |_, _| {
            Reply::new(status, "").with("X-Error-Code", code).with("X-Error-Message", message)
        });
        let home = Home::new(&format!("refusal-{at}"));
        let error = refused(&home.pull(&server, "user/repo@v9"));
        assert!(
            error.contains(said) && (error.contains(&status[..3]) || error.contains("not found")),
            "{error}"
        );
        assert_eq!(server.requests().len(), 1, "asked once: {error}");
    }
}

#[test]
fn places_for_the_cache() {
    let cases: [(&[(&str, &str)], &str); 6] = [
        (&[("HF_HUB_CACHE", "~/one"), ("HF_HOME", "~/two")], "home/one"),
        (&[("HUGGINGFACE_HUB_CACHE", "~/one"), ("LLAMA_CACHE", "~/two")], "home/one"),
        (&[("HF_HOME", "~/one"), ("LLAMA_CACHE", "~/two")], "home/one/hub"),
        (&[("HF_HOME", ""), ("LLAMA_CACHE", "~/one")], "home/one"),
        (&[("HF_HOME", ""), ("XDG_CACHE_HOME", "~/one")], "home/one/huggingface/hub"),
        (&[("HF_HOME", "")], "home/.cache/huggingface/hub"),
    ];
    for (at, (variables, place)) in cases.into_iter().enumerate() {
        let (repository, home) = (one(b"a model"), Home::new(&format!("place-{at}")));
        let server = serve(move |request, _| repository.answer(request));
        assert_eq!(pulled(&home.pull_with(&server, "user/repo", variables)), NAME);
        assert!(home.0.join(place).join("models--user--repo").is_dir(), "{variables:?}");
    }
    // A file where the folder should be.
    let (repository, home) = (one(b"a model"), Home::new("place-file"));
    let server = serve(move |request, _| repository.answer(request));
    std::fs::write(home.0.join("hub"), "").unwrap();
    let said = refused(&home.pull(&server, "user/repo"));
    assert!(said.contains("cannot be written") && said.contains("HF_HOME"), "{said}");
}

#[test]
fn addresses_of_hubs() {
    for (at, (name, end)) in
        [("HF_ENDPOINT", "/mirror"), ("HF_ENDPOINT", "/"), ("MODEL_ENDPOINT", "/a/b/")]
            .into_iter()
            .enumerate()
    {
        let (repository, home) = (one(b"a model"), Home::new(&format!("endpoint-{at}")));
        let server = serve(move |request, _| {
            let path =
                request.path.strip_prefix(end.trim_end_matches('/')).unwrap_or("/").to_string();
            repository.answer(&Request { path, ..request.clone() })
        });
        let address = format!("{}{end}", server.address);
        assert_eq!(
            pulled(&home.pull_with(&server, "user/repo", &[(name, &address)])),
            NAME,
            "{address}"
        );
        let link = format!("{}/user/repo/blob/main/{NAME}", address.trim_end_matches('/'));
        assert_eq!(pulled(&home.pull_with(&server, &link, &[(name, &address)])), NAME, "{link}");
    }
    let server = serve(|_, _| Reply::default());
    for bad in ["mirror.example", "ftp://mirror.example", "https://"] {
        let said = refused(&Home::new("endpoint-bad").pull_with(
            &server,
            "user/repo",
            &[("HF_ENDPOINT", bad)],
        ));
        assert!(said.contains("HF_ENDPOINT is"), "{bad}: {said}");
    }
    let variables = [("HF_HUB_DOWNLOAD_TIMEOUT", "soon")];
    let said = refused(&Home::new("timeout-bad").pull_with(&server, "user/repo", &variables));
    assert!(said.contains("HF_HUB_DOWNLOAD_TIMEOUT is soon"), "{said}");
}

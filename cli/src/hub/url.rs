//! Addresses: what is shown of them, where redirects lead, percent-encoding.

use std::fmt::Write as _;

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
    let has_port = authority
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
    Some(if has_port {
        format!("{scheme}://{authority}")
    } else {
        format!("{scheme}://{authority}{port}")
    })
}

/// A URL in which what may not stand there but is written nevertheless is percent-encoded; what is so already stays.
pub fn permitted(url: &[u8]) -> String {
    let mut permitted = String::with_capacity(url.len());
    for &byte in url {
        if byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte) {
            permitted.push(char::from(byte));
        } else {
            _ = write!(permitted, "%{byte:02X}");
        }
    }
    permitted
}

/// Where a redirect leads to: its Location, which may be relative, read against the URL that gave it.
pub fn join(base: &str, location: &[u8]) -> Option<String> {
    let target = permitted(location);
    let target = target.split('#').next().unwrap_or_default();
    let path_begins = target.find(['/', '?']).unwrap_or(target.len());
    if let Some(at) = target.find("://")
        && at < path_begins
    {
        let scheme = target[..at].to_ascii_lowercase();
        return matches!(scheme.as_str(), "http" | "https")
            .then(|| format!("{scheme}{}", &target[at..]));
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
        assert_eq!(
            permitted("http://h/m é {1} %231.gguf?a=<b>".as_bytes()),
            "http://h/m%20%C3%A9%20%7B1%7D%20%231.gguf?a=%3Cb%3E"
        );
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

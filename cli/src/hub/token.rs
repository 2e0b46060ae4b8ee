//! The token that the hub knows a person by: where it lies is huggingface_hub's convention.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::cache::{home, place};
use super::is_true;

/// A token and where it is from.
#[derive(Clone)]
pub struct Token {
    /// What is sent; never shown.
    pub secret: String,
    /// In words, such as `HF_TOKEN`.
    pub from: String,
}

/// What `Token` is used for, or why there is none.
#[derive(Clone)]
pub enum Login {
    /// A token is sent.
    As(Token),
    /// None is sent; a word on where one was looked for.
    Nobody(String),
}

impl Login {
    /// The token of `HF_TOKEN`, `HUGGING_FACE_HUB_TOKEN`, or the file that `hf auth login` writes.
    ///
    /// # Errors
    /// A token that cannot be one, or a file that cannot be read, in a sentence without the token.
    pub fn from_environment() -> Result<Self, String> {
        if is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            return Ok(Self::Nobody(
                "no token was sent, as HF_HUB_DISABLE_IMPLICIT_TOKEN asks".into(),
            ));
        }
        for name in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"] {
            let Some(value) = std::env::var_os(name) else { continue };
            // What is no text cannot be a token; said below without showing it.
            let text = value.to_str().unwrap_or("\u{fffd}");
            if let Some(secret) = clean(text, name)? {
                return Ok(Self::As(Token { secret, from: name.into() }));
            }
        }
        let path = place("HF_TOKEN_PATH").or_else(|| Some(home()?.join("token")));
        let none =
            "no token was sent (HF_TOKEN is not set, and nobody logged in with `hf auth login`)";
        let Some(path) = path else { return Ok(Self::Nobody(none.into())) };
        let from = format!("the file {}", path.display());
        let Some(text) = read(&path, &from)? else { return Ok(Self::Nobody(none.into())) };
        Ok(clean(&text, &from)?
            .map_or_else(|| Self::Nobody(none.into()), |secret| Self::As(Token { secret, from })))
    }

    /// Who was asked as, in words for an error.
    pub fn shown(&self) -> String {
        match self {
            Self::As(token) => format!("the token of {} was sent", token.from),
            Self::Nobody(why) => why.clone(),
        }
    }
}

/// The text of a token's file; none where there is no file.
fn read(path: &Path, from: &str) -> Result<Option<String>, String> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(format!(
            "{from}, where the hub's token lies, cannot be read: {error}; set HF_TOKEN, or HF_HUB_DISABLE_IMPLICIT_TOKEN=1 \
             to go without"
        )),
    }
}

/// A token without white space and line ends around it; none if nothing is left.
fn clean(text: &str, from: &str) -> Result<Option<String>, String> {
    let text: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    if !text.chars().all(|c| c.is_ascii_graphic()) {
        return Err(format!(
            "{from} holds no token: a space, a control character or a letter beyond ASCII is in it; set it anew"
        ));
    }
    Ok(Some(text.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_around_a_token_is_dropped() {
        for text in ["hf_made", " hf_made\n", "hf_made\r\n", "\thf_made \n\n", "hf_\nmade"] {
            assert_eq!(clean(text, "x"), Ok(Some("hf_made".into())), "{text:?}");
        }
        for text in ["", "\n", " \t\r\n"] {
            assert_eq!(clean(text, "x"), Ok(None), "{text:?}");
        }
        for text in ["hf made", "hf_mäde", "hf_\u{1}", "\u{fffd}"] {
            let error = clean(text, "HF_TOKEN").unwrap_err();
            assert!(error.contains("HF_TOKEN") && !error.contains(text), "{error}");
        }
    }
}

//! Numbers as people write them on a command line, among them those that llama.cpp gives a meaning of their own: -1 for
//! "no limit" or "another each time", 0 for "the model's own". What is out of range is refused with what to write.

/// A whole number, or a sentence that begins with what was expected.
fn whole(text: &str, expected: &str) -> Result<i128, String> {
    text.parse().map_err(|_| format!("expected {expected}"))
}

/// A whole number from `least` on; a sentence that says what to write otherwise.
fn at_least(text: &str, least: usize, expected: &str) -> Result<usize, String> {
    match usize::try_from(whole(text, expected)?) {
        Ok(number) if number >= least => Ok(number),
        _ => Err(format!("expected {expected}")),
    }
}

/// The most of something, or no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// As many as there are.
    None,
    /// At most so many.
    Most(usize),
}

impl Limit {
    /// The number, where there is a limit.
    pub fn most(self) -> Option<usize> {
        match self {
            Limit::None => None,
            Limit::Most(most) => Some(most),
        }
    }
}

/// Tokens to generate: -1 is no limit, and so is -2, llama.cpp's "until the context is full": an answer ends there in any
/// case.
pub fn token_limit(text: &str) -> Result<Limit, String> {
    let expected = "a number of tokens (-1: until the model ends)";
    match whole(text, expected)? {
        -2 | -1 => Ok(Limit::None),
        _ => at_least(text, 0, expected).map(Limit::Most),
    }
}

/// A number of things of which there must be one; -1 is all of them.
pub fn limit(text: &str) -> Result<Limit, String> {
    let expected = "a number from 1 on (-1: all)";
    match whole(text, expected)? {
        -1 => Ok(Limit::None),
        _ => at_least(text, 1, expected).map(Limit::Most),
    }
}

/// The K of top-k; 0 and everything below it is no limit, as in llama.cpp.
pub fn top_k(text: &str) -> Result<usize, String> {
    let expected = "a number of tokens (0 or -1: all)";
    if whole(text, expected)? <= 0 { Ok(0) } else { at_least(text, 1, expected) }
}

/// The last tokens that a penalty looks at: 0 is none, -1 all.
pub fn repeat_last(text: &str) -> Result<usize, String> {
    let expected = "a number of tokens (0: none, -1: all)";
    match whole(text, expected)? {
        -1 => Ok(usize::MAX),
        _ => at_least(text, 0, expected),
    }
}

/// Positions of a context; 0 is the model's own.
pub fn positions(text: &str) -> Result<usize, String> {
    at_least(text, 0, "a number of positions (0: the model's own)")
}

/// A number of which there must be at least one.
pub fn count(text: &str) -> Result<usize, String> {
    at_least(text, 1, "a number from 1 on")
}

/// Seconds.
pub fn seconds(text: &str) -> Result<u64, String> {
    at_least(text, 0, "a number of seconds").map(|seconds| seconds as u64)
}

/// Threads of the CPU; none for 0 and below, which llama.cpp takes as "as many as there are cores".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threads(pub Option<usize>);

/// Reads [`Threads`].
pub fn threads(text: &str) -> Result<Threads, String> {
    let expected = "a number of threads from 1 to 1024 (0 or -1: one a core)";
    match whole(text, expected)? {
        ..=0 => Ok(Threads(None)),
        1..=1024 => at_least(text, 1, expected).map(|threads| Threads(Some(threads))),
        _ => Err(format!("expected {expected}")),
    }
}

/// Where random numbers begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seed {
    /// Somewhere else each time.
    Random,
    /// Here.
    Fixed(u64),
}

/// Reads a seed; -1 and llama.cpp's other way to write it, 2^32-1, are another each time.
pub fn seed(text: &str) -> Result<Seed, String> {
    let expected = "a number from 0 to 2^64-1 (-1: another each time)";
    match whole(text, expected)? {
        -1 | 0xffff_ffff => Ok(Seed::Random),
        number => {
            u64::try_from(number).map(Seed::Fixed).map_err(|_| format!("expected {expected}"))
        }
    }
}

/// A finite number.
pub fn number(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err("expected a number such as 0.7".into()),
    }
}

/// How attention is computed: in one pass that never holds all scores, always. Asking for that, or for no way in
/// particular, is taken; asking for the other way is refused.
pub fn flash_attention(text: &str) -> Result<(), String> {
    match text {
        "1" | "on" | "true" | "enabled" | "auto" | "-1" => Ok(()),
        "0" | "off" | "false" | "disabled" => Err(
            "attention is always computed in one pass here (what llama.cpp calls flash attention); write on or auto"
                .into(),
        ),
        _ => Err("expected on or auto".into()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_llama_cpp_writes_for_no_limit() {
        assert_eq!(token_limit("-1"), Ok(Limit::None));
        assert_eq!(token_limit("-2"), Ok(Limit::None));
        assert_eq!(token_limit("0"), Ok(Limit::Most(0)));
        assert_eq!(limit("-1"), Ok(Limit::None));
        assert_eq!(top_k("-1"), Ok(0));
        assert_eq!(top_k("-7"), Ok(0));
        assert_eq!(top_k("40"), Ok(40));
        assert_eq!(repeat_last("-1"), Ok(usize::MAX));
        assert_eq!(positions("0"), Ok(0));
        assert_eq!(threads("-1"), Ok(Threads(None)));
        assert_eq!(threads("3"), Ok(Threads(Some(3))));
        assert_eq!(seed("-1"), Ok(Seed::Random));
        assert_eq!(seed("4294967295"), Ok(Seed::Random));
        assert_eq!(seed("18446744073709551615"), Ok(Seed::Fixed(u64::MAX)));
        assert!(number("NaN").is_err() && number("inf").is_err() && number("").is_err());
    }

    proptest! {
        /// Every text is a value or refused with what to write; numbers come back as they are.
        #[test]
        fn every_text_has_an_answer(text in "-?[0-9]{0,24}|.{0,6}") {
            let results = [
                token_limit(&text).map(|_| ()),
                limit(&text).map(|_| ()),
                top_k(&text).map(|_| ()),
                repeat_last(&text).map(|_| ()),
                positions(&text).map(|_| ()),
                count(&text).map(|_| ()),
                seconds(&text).map(|_| ()),
                threads(&text).map(|_| ()),
                seed(&text).map(|_| ()),
                number(&text).map(|_| ()),
                flash_attention(&text),
            ];
            for error in results.into_iter().filter_map(Result::err) {
                prop_assert!(error.contains("expected") || error.contains("write"), "{error}");
            }
            if let Ok(n) = text.parse::<usize>() && n > 0 {
                prop_assert_eq!(token_limit(&text), Ok(Limit::Most(n)));
                prop_assert_eq!(count(&text), Ok(n));
            }
        }
    }
}

//! llama-bench's options of one dash and several letters, which clap does not have, as long ones.

use std::ffi::OsString;

/// Option as users know it, and our long one.
const NAMES: &[(&str, &str)] =
    &[("-ctk", "--cache-type-k"), ("-ctv", "--cache-type-v"), ("-dev", "--device")];

/// Replaces the listed names; also in the form `-ctk=f16`. Nothing after `--` is touched.
pub fn normalise(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut literal = false;
    arguments
        .map(|argument| {
            literal |= argument == "--";
            let Some(text) = argument.to_str().filter(|_| !literal) else { return argument };
            for (short, long) in NAMES {
                if text == *short {
                    return (*long).into();
                }
                if let Some(value) =
                    text.strip_prefix(short).and_then(|rest| rest.strip_prefix('='))
                {
                    return format!("{long}={value}").into();
                }
            }
            argument
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listed_names_become_long() {
        let given = ["engine", "bench", "-ctk", "f32", "-ctv=f16", "-c", "--", "-ctk"];
        let expected =
            ["engine", "bench", "--cache-type-k", "f32", "--cache-type-v=f16", "-c", "--", "-ctk"];
        assert_eq!(normalise(given.into_iter().map(OsString::from)), expected);
    }
}

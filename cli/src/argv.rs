//! The command line before clap reads it: names as llama.cpp's users type them, and texts that begin with a dash.
//!
//! clap knows options of one dash and one letter, or of two dashes, and takes every argument that begins with a dash for
//! an option. Here the command's own definitions tell options, their values and positional words apart. Then
//! - `-ngl 99`, `-ctk=f16`, `--top_k 3` become what clap knows ([`NAMES`]);
//! - options that only llama.cpp has are taken or refused by name ([`foreign`]);
//! - a word that begins with a dash but has no option's shape (`- item`, `-5 plus 3`, `---`, `-1`) is text: it and all
//!   positional words are put behind a `--`. A mistyped option (`--tmp`) keeps its shape and stays an error.

use std::any::TypeId;
use std::ffi::OsString;
use std::iter::Peekable;
use std::path::PathBuf;
use std::vec::IntoIter;

use clap::{Arg, Command};

use crate::foreign::{self, Fate};
use crate::models::ModelName;

/// An option of one dash and several letters, and the long one that it stands for.
const NAMES: &[(&str, &str)] = &[
    ("-ctk", "cache-type-k"),
    ("-ctv", "cache-type-v"),
    ("-dev", "device"),
    ("-fa", "flash-attn"),
    ("-hf", "hf-repo"),
    ("-hfr", "hf-repo"),
    ("-lm", "load-mode"),
    ("-ngl", "gpu-layers"),
    ("-no-cnv", "raw"),
    ("-oe", "output-err"),
    ("-pg", "pg"),
    ("-st", "single-turn"),
    ("-sys", "system"),
    ("-sysf", "system-file"),
    ("-ub", "ubatch-size"),
];
/// The same, where the long option has this meaning in `bench` alone.
const BENCH_NAMES: &[(&str, &str)] =
    &[("-mmp", "mmap"), ("-npl", "n-parallel"), ("-npp", "n-prompt"), ("-ntg", "n-gen")];

/// The command line as clap is to read it, or why an option is refused.
pub fn normalise(
    arguments: impl Iterator<Item = OsString>,
    root: &mut Command,
) -> Result<Vec<OsString>, String> {
    root.build();
    let given: Vec<OsString> = arguments.collect();
    let mut words = given.clone().into_iter().peekable();
    let mut out: Vec<OsString> = words.next().into_iter().collect();
    // Options of the program itself, up to the command's name.
    let mut walk =
        Walk { command: root, words: &mut words, in_order: Vec::new(), options: Vec::new() };
    let Some(name) = walk.up_to_positional()? else { return Ok(given) };
    out.append(&mut walk.in_order);
    let command = name.to_str().and_then(|name| root.find_subcommand(name));
    let Some(command) = command else { return Ok(given) };
    out.push(name);
    let mut walk = Walk { command, words: &mut words, in_order: Vec::new(), options: Vec::new() };
    let mut positional = Vec::new();
    let mut text_with_dash = false;
    while let Some(word) = walk.up_to_positional()? {
        text_with_dash |= word != "-" && word.as_encoded_bytes().starts_with(b"-");
        positional.push(word.clone());
        walk.in_order.push(word);
    }
    let (in_order, options) = (walk.in_order, walk.options);
    // What stands behind a `--` is positional, all of it.
    let has_terminator = words.peek().is_some();
    if text_with_dash {
        out.extend(options);
        out.push("--".into());
        out.extend(positional);
        out.extend(words.skip(usize::from(has_terminator)));
    } else {
        out.extend(in_order);
        out.extend(words);
    }
    Ok(out)
}

/// A way through the words of one command.
struct Walk<'a> {
    command: &'a Command,
    words: &'a mut Peekable<IntoIter<OsString>>,
    /// Options and their values so far, and what the caller put between them.
    in_order: Vec<OsString>,
    /// Options and their values alone.
    options: Vec<OsString>,
}

impl Walk<'_> {
    /// Passes options and their values; answers the next positional word. Stops before a `--`.
    fn up_to_positional(&mut self) -> Result<Option<OsString>, String> {
        while let Some(word) = self.words.next_if(|word| word != "--") {
            match Shape::of(&word) {
                Shape::Text => return Ok(Some(word)),
                Shape::Opaque => self.keep(word),
                Shape::Option { name, value: Some(value) } if self.is_text(name, value) => {
                    return Ok(Some(word));
                }
                Shape::Option { name, value } => {
                    let (name, value) = (name.to_string(), value.map(ToString::to_string));
                    self.option(&name, value.as_deref(), &word)?;
                }
            }
        }
        Ok(None)
    }

    fn keep(&mut self, word: OsString) {
        self.in_order.push(word.clone());
        self.options.push(word);
    }

    /// Keeps an option under the name that clap knows, and the word after it where that is its value.
    fn option(&mut self, name: &str, value: Option<&str>, word: &OsString) -> Result<(), String> {
        let bench = self.command.get_name() == "bench";
        let is_long = name.starts_with("--");
        let name = if is_long { name.replace('_', "-") } else { name.to_string() };
        let mut names = NAMES.iter().chain(BENCH_NAMES.iter().filter(|_| bench));
        let alias = names.find(|(short, _)| *short == name).map(|(_, long)| *long);
        let long = name.strip_prefix("--").or(alias);
        if let Some(long) = long
            && let Some(argument) = self.long(long)
        {
            let takes_value = argument.get_action().takes_values();
            self.keep(match value {
                Some(value) => format!("--{long}={value}").into(),
                None => format!("--{long}").into(),
            });
            if takes_value && value.is_none() {
                self.keep_next();
            }
            return Ok(());
        }
        // `-mg` is llama.cpp's, not `-m g`; but a letter that the command has is the command's.
        let letters = !is_long
            && alias.is_none()
            && (name.len() == 2 || !foreign::knows(&name, bench))
            && self.letters(&name[1..]);
        if letters {
            self.keep(word.clone());
            if self.last_takes_next(&name[1..], value.is_some()) {
                self.keep_next();
            }
            return Ok(());
        }
        // One of llama.cpp's, or of nobody's.
        let next;
        let value = if value.is_none() && foreign::takes_value(&name, bench) {
            next = self.words.next_if(|word| word != "--");
            next.as_ref().map(|word| word.to_string_lossy().into_owned())
        } else {
            value.map(ToString::to_string)
        };
        match foreign::fate(&name, value.as_deref(), bench) {
            Fate::AsHere => Ok(()),
            Fate::Refused(why) => Err(why),
            Fate::Unknown => {
                let Some(long) = alias else {
                    if !is_long && name.len() > 2 {
                        return Err(self.no_such(&name));
                    }
                    self.keep(word.clone());
                    return Ok(());
                };
                let command = match self.command.get_name() {
                    "engine" => "an option of commands; write it behind one".to_string(),
                    command => format!("`engine {command}` has no such option; see --help"),
                };
                Err(format!("{name} (--{long}): {command}"))
            }
        }
    }

    /// Whether a word is text although it begins as an option and has a `=`: there is white space behind, and no option
    /// of that name, or none that takes such a value. `bench` has no texts.
    fn is_text(&self, name: &str, value: &str) -> bool {
        let command = self.command.get_name();
        if !value.contains(char::is_whitespace) || command == "bench" || command == "engine" {
            return false;
        }
        let is_long = name.starts_with("--");
        let spelled = if is_long { name.replace('_', "-") } else { name.to_string() };
        let alias = NAMES.iter().find(|(short, _)| *short == spelled).map(|(_, long)| *long);
        let mut letters = name[1..].chars();
        let argument = match (spelled.strip_prefix("--").or(alias), letters.next()) {
            (Some(long), _) => self.long(long),
            (None, Some(letter)) if letters.next().is_none() => self.short(letter),
            _ => None,
        };
        let Some(argument) = argument else { return !foreign::knows(&spelled, false) };
        // Numbers and the like hold no white space.
        let kind = argument.get_value_parser().type_id();
        let holds_text = kind == TypeId::of::<String>()
            || kind == TypeId::of::<PathBuf>()
            || kind == TypeId::of::<ModelName>();
        !(argument.get_action().takes_values() && holds_text)
    }

    /// Why a word of one dash and several letters is no option, and what to write.
    fn no_such(&self, name: &str) -> String {
        let long = name[1..].replace('_', "-");
        let dashed = format!("--{long}");
        if self.long(&long).is_some() || foreign::knows(&dashed, self.command.get_name() == "bench")
        {
            return format!("there is no {name}; write {dashed}");
        }
        let first = name[1..].chars().next().and_then(|letter| self.short(letter));
        let value = match first.and_then(Arg::get_short) {
            Some(letter) if first.is_some_and(|first| first.get_action().takes_values()) => {
                format!("; a value of -{letter} is written -{letter}=VALUE")
            }
            _ => String::new(),
        };
        format!(
            "there is no option {name}{value}; a text that begins with a dash may stand behind --"
        )
    }

    fn keep_next(&mut self) {
        if let Some(value) = self.words.next() {
            self.keep(value);
        }
    }

    fn long(&self, long: &str) -> Option<&Arg> {
        self.command.get_arguments().find(|argument| {
            argument.get_long() == Some(long)
                || argument.get_all_aliases().is_some_and(|names| names.contains(&long))
        })
    }

    fn short(&self, letter: char) -> Option<&Arg> {
        self.command.get_arguments().find(|argument| argument.get_short() == Some(letter))
    }

    /// Whether letters behind one dash are options of this command: flags, and at the end one that may take a value.
    fn letters(&self, letters: &str) -> bool {
        for (at, letter) in letters.char_indices() {
            match self.short(letter) {
                None => return false,
                // The rest is its value where it is a number and the option takes one. Texts stand behind a space or a
                // `=`: a mistyped option is none.
                Some(argument) if argument.get_action().takes_values() => {
                    let rest = &letters[at + letter.len_utf8()..];
                    let prompt = letter == 'p' && self.command.get_name() != "bench";
                    let numbers = "nctbsrdp".contains(letter) && !prompt;
                    return rest.is_empty()
                        || numbers && rest.starts_with(|first: char| first.is_ascii_digit());
                }
                Some(_) => {}
            }
        }
        true
    }

    /// Whether the last of these letters takes the next word as its value.
    fn last_takes_next(&self, letters: &str, has_value: bool) -> bool {
        let taker = letters.chars().position(|letter| {
            self.short(letter).is_some_and(|argument| argument.get_action().takes_values())
        });
        !has_value && taker.is_some_and(|at| at + 1 == letters.chars().count())
    }
}

/// What an argument looks like.
enum Shape<'a> {
    /// A name behind one or two dashes, and what stands behind its `=`.
    Option { name: &'a str, value: Option<&'a str> },
    /// An option whose value is no UTF-8: not to be taken apart.
    Opaque,
    /// Anything else.
    Text,
}

impl<'a> Shape<'a> {
    /// An option begins with one or two dashes and a letter, and its name is letters, digits, dashes, underscores and
    /// points.
    fn of(word: &'a OsString) -> Self {
        let bytes = word.as_encoded_bytes();
        let dashes = bytes.iter().take_while(|byte| **byte == b'-').count();
        if !(1..=2).contains(&dashes) || !bytes.get(dashes).is_some_and(u8::is_ascii_alphabetic) {
            return Self::Text;
        }
        let end = bytes.iter().position(|byte| *byte == b'=').unwrap_or(bytes.len());
        let of_a_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        if !bytes[..end].iter().all(of_a_name) {
            return Self::Text;
        }
        match word.to_str() {
            Some(text) => Self::Option { name: &text[..end], value: text.get(end + 1..) },
            None => Self::Opaque,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};
    use proptest::prelude::*;

    use super::*;
    use crate::Cli;

    fn normal(line: &[&str]) -> Result<Vec<String>, String> {
        let words = std::iter::once("engine").chain(line.iter().copied()).map(OsString::from);
        let words = normalise(words, &mut Cli::command())?;
        Ok(words.into_iter().skip(1).map(|word| word.into_string().unwrap()).collect())
    }

    #[test]
    fn listed_names_become_long() {
        for (given, expected) in [
            (
                &["bench", "m", "-ctk", "f32", "-ctv=f16", "-ngl", "-1", "-pg", "8,4"][..],
                &[
                    "bench",
                    "m",
                    "--cache-type-k",
                    "f32",
                    "--cache-type-v=f16",
                    "--gpu-layers",
                    "-1",
                    "--pg",
                    "8,4",
                ][..],
            ),
            (
                &["bench", "-m", "a", "-mmp", "0", "-ub", "4"],
                &["bench", "-m", "a", "--mmap", "0", "--ubatch-size", "4"],
            ),
            (
                &["run", "m", "--top_k", "3", "--n_predict=4"],
                &["run", "m", "--top-k", "3", "--n-predict=4"],
            ),
            (&["run", "m", "-no-cnv", "-sys", "-dev"], &["run", "m", "--raw", "--system", "-dev"]),
            // Nothing behind `--`, and no value, is touched.
            (&["run", "m", "--", "-ctk"], &["run", "m", "--", "-ctk"]),
            (&["run", "m", "--stop", "--top_k"], &["run", "m", "--stop", "--top_k"]),
            (&["--override", "-ctk", "run", "m"], &["--override", "-ctk", "run", "m"]),
            (&["bench", "m", "-n5", "-r2"], &["bench", "m", "-n5", "-r2"]),
            // What is done in any case goes.
            (&["run", "m", "--jinja", "-sm", "none", "x"], &["run", "m", "x"]),
            (&["nonsense", "-ctk"], &["nonsense", "-ctk"]),
            (&[], &[]),
        ] {
            assert_eq!(normal(given).unwrap(), expected);
        }
    }

    #[test]
    fn texts_with_a_dash_go_behind_the_options() {
        for (given, expected) in [
            (
                &["run", "m", "- one", "--raw", "-n", "2"][..],
                &["run", "--raw", "-n", "2", "--", "m", "- one"][..],
            ),
            (&["run", "m", "--raw", "-5 + 3"], &["run", "--raw", "--", "m", "-5 + 3"]),
            (&["run", "m", "---"], &["run", "--", "m", "---"]),
            (&["run", "m", "-1"], &["run", "--", "m", "-1"]),
            (&["run", "m", "--verbose is a word"], &["run", "--", "m", "--verbose is a word"]),
            (
                &["embed", "m", "a", "- b", "--raw", "c"],
                &["embed", "--raw", "--", "m", "a", "- b", "c"],
            ),
            (&["embed", "m", "- b", "--", "--raw"], &["embed", "--", "m", "- b", "--raw"]),
            (&["tokenize", "m", "-ä"], &["tokenize", "--", "m", "-ä"]),
            (&["tokenize", "m", "-"], &["tokenize", "m", "-"]),
            // Text behind a `=` is no value where there is no such option, or none that takes it.
            (&["run", "m", "-x=3, y=4: add"], &["run", "--", "m", "-x=3, y=4: add"]),
            (&["run", "m", "--question=why is it?"], &["run", "--", "m", "--question=why is it?"]),
            (&["run", "m", "-v=ma is wrong"], &["run", "--", "m", "-v=ma is wrong"]),
            (&["run", "m", "-t=2 is it warm?"], &["run", "--", "m", "-t=2 is it warm?"]),
            (&["run", "m", "--system=be brief"], &["run", "m", "--system=be brief"]),
            (&["run", "m", "-p=be brief"], &["run", "m", "-p=be brief"]),
            // A value is no text, whatever it looks like.
            (
                &["run", "m", "--system", "- be brief", "--seed", "-1"],
                &["run", "m", "--system", "- be brief", "--seed", "-1"],
            ),
        ] {
            assert_eq!(normal(given).unwrap(), expected);
        }
        // A mistyped option stays one.
        for line in [&["run", "m", "--tmp", "0"][..], &["run", "m", "--tmp=0", "x"]] {
            assert_eq!(normal(line).unwrap(), line);
        }
    }

    #[test]
    fn what_is_not_here_is_refused_by_name() {
        for (line, words) in [
            (&["run", "m", "--mirostat", "2"][..], &["--mirostat 2", "--top-k"][..]),
            (&["run", "m", "-sm", "row"], &["-sm row", "--device"]),
            (&["bench", "-m", "m", "-sm=row"], &["-sm row"]),
            (&["bench", "-m", "m", "-nkvo", "1"], &["-nkvo 1"]),
            (&["bench", "-m", "m", "-mg", "1"], &["-mg 1", "--device"]),
            (&["run", "m", "-mmp", "0"], &["-mmp 0", "--no-mmap"]),
            (&["run", "m", "--grammar_file", "x"], &["--grammar-file x"]),
            (&["tokenize", "m", "-ngl", "4"], &["-ngl", "engine tokenize"]),
            (&["run", "m", "--poll"], &["--poll", "missing"]),
            (&["run", "m", "-temp", "0"], &["there is no -temp; write --temp"]),
            (&["run", "m", "-top-k", "5"], &["there is no -top-k; write --top-k"]),
            (&["run", "m", "-seed", "5"], &["write --seed"]),
            (&["run", "m", "-ctx", "64"], &["write --ctx"]),
            (&["run", "m", "-poll", "50"], &["there is no -poll; write --poll"]),
            (&["run", "m", "-prompt", "x"], &["there is no -prompt; write --prompt"]),
            (&["run", "m", "-pref"], &["-pref", "-p=VALUE"]),
            (&["run", "m", "-item"], &["-item", "behind --"]),
            (&["bench", "m", "-rn"], &["-rn"]),
        ] {
            let error = normal(line).unwrap_err();
            for word in words {
                assert!(error.contains(word), "{error}");
            }
        }
    }

    /// Names of one dash that llama.cpp has and no command here; they begin with letters that are options.
    #[test]
    fn names_of_llama_cpp_are_no_letters_with_a_value() {
        for name in [
            "-cb", "-cl", "-cmoed", "-cms", "-cram", "-ctkd", "-ctvd", "-ctxcp", "-ncmoed",
            "-ngld", "-ns", "-sps", "-tbd", "-td", "-tgs", "-to", "-dt", "-pps", "-ptc", "-dr",
            "-ofreq", "-fitp", "-nocb", "-devd", "-opt", "-otd", "-Crbd",
        ] {
            for command in ["run", "bench"] {
                let error = normal(&[command, "m", name, "0"]).map_or_else(
                    |why| why,
                    |words| {
                        // Asks for what is done here.
                        assert_eq!(words, [command, "m"], "{name}");
                        name.to_string()
                    },
                );
                assert!(error.starts_with(name), "{name}: {error}");
            }
        }
        assert_eq!(normal(&["run", "m", "-nopo"]).unwrap(), ["run", "m"]);
    }

    fn words() -> impl Strategy<Value = Vec<String>> {
        let word = prop_oneof![
            prop::sample::select(vec![
                "run",
                "bench",
                "embed",
                "tokenize",
                "m.gguf",
                "--",
                "-",
                "-n",
                "-p",
                "-c",
                "-t",
                "-ngl",
                "-fa",
                "-pg",
                "--temp",
                "--seed",
                "-1",
                "0",
                "--raw",
                "--json",
                "--tmp",
                "-v",
                "--stop",
                "--override",
                "-sm",
                "row",
                "layer",
                "--help",
                "",
                "--top_k",
                "-n=4",
                "--jinja",
            ])
            .prop_map(String::from),
            "-{0,3}[a-z =_-]{0,6}",
            any::<String>(),
        ];
        prop::collection::vec(word, 0..8)
    }

    proptest! {
        /// Any list of words is read or refused, and a text with a dash reaches the command as it is.
        #[test]
        fn any_line_is_read_or_refused(line in words(), text in "-([ 0-9*]|--).{0,8}") {
            let line: Vec<&str> = line.iter().map(String::as_str).collect();
            if let Ok(words) = normal(&line) {
                // Parsing must not panic; whether it succeeds is clap's to say.
                let _ = Cli::try_parse_from(std::iter::once("engine".to_string()).chain(words));
            }
            let words = normal(&["tokenize", "m", &text]).unwrap();
            prop_assert_eq!(words, ["tokenize", "--", "m", &text]);
        }
    }
}

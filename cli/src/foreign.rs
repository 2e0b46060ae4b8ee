//! Options of llama.cpp's programs that this one does not have. Where such an option asks for what is done here in any
//! case it is taken in silence, so that a command line that works there works here; where it asks for something else it is
//! refused by name, with what to use instead. None is ignored.

/// The commands that a row is for: llama-bench gives values to some options that are flags elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Any,
    Bench,
    Elsewhere,
}

/// What an option takes, and what of it is what is done here.
#[derive(Debug, Clone, Copy)]
enum Takes {
    /// No value; done here.
    FlagAsHere,
    /// No value; not done here.
    Flag,
    /// A value; these are what is done here.
    Value(&'static [&'static str]),
}

use At::{Any, Bench, Elsewhere};
use Takes::{Flag, FlagAsHere, Value};

/// Names, where, what they take, and why another value is refused.
type Row = (&'static [&'static str], At, Takes, &'static str);

const SPLIT: &str = "layers cannot be divided over several devices; --device names one, and `engine bench` measures one after another";
const SAMPLER: &str = "there is no such sampler; --temp, --top-k, --top-p, --min-p and --repeat-penalty choose a token";
const CPU_PLACE: &str =
    "threads are not bound to cores here; let the system do it (taskset, numactl, nice)";
const ROPE: &str = "the file says how; --override KEY=VALUE reads it with another value (`engine inspect MODEL --metadata` lists them)";
const DRAFT: &str = "there is no speculative decoding";
const HOST: &str = "the weights are on one device, as a whole; --device and --gpu-layers choose it";
const GRAMMAR: &str = "answers cannot be held to a grammar";
const FIT: &str = "nothing is fitted: what does not fit is refused with what would; choose --ctx";
const CHAT: &str = "a chat begins where no prompt is given and stdin is a terminal";
const TEMPLATE: &str =
    "--override tokenizer.chat_template=str:... takes another template; --raw takes none";

const SERVER: &str = "there is no server here";
const OTHER: &str = "no command here does what it is for";

/// llama.cpp's words for no, for yes, and either.
const OFF: &[&str] = &["0", "off", "false", "disabled"];
const ON: &[&str] = &["1", "on", "true", "enabled"];
const EITHER: &[&str] = &["0", "off", "false", "disabled", "1", "on", "true", "enabled"];

const ROWS: &[Row] = &[
    // Where things are computed.
    (&["-sm", "--split-mode"], Any, Value(&["none", "layer"]), SPLIT),
    (&["-mg", "--main-gpu"], Any, Value(&["0"]), "name the device with --device"),
    (&["-ts", "--tensor-split"], Any, Value(&["0", "1"]), SPLIT),
    (
        &["-nkvo", "--no-kv-offload"],
        Bench,
        Value(OFF),
        "the cache lies on the device that computes",
    ),
    (&["-nkvo", "--no-kv-offload"], Elsewhere, Flag, "the cache lies on the device that computes"),
    (&["-kvo", "--kv-offload"], Elsewhere, FlagAsHere, ""),
    (&["-nopo", "--no-op-offload"], Bench, Value(EITHER), "write 0 or 1"),
    (&["--op-offload", "-nopo", "--no-op-offload"], Elsewhere, FlagAsHere, ""),
    (&["--no-host"], Bench, Value(OFF), HOST),
    (&["--no-host"], Elsewhere, Flag, HOST),
    (&["--repack"], Bench, Value(ON), "each device has its own layout of the weights"),
    (&["--repack"], Elsewhere, FlagAsHere, ""),
    (&["-nr", "--no-repack"], Elsewhere, Flag, "each device has its own layout of the weights"),
    (&["-ncmoe", "--n-cpu-moe", "-ncffn", "--n-cpu-ffn"], Any, Value(&["0"]), HOST),
    (&["-cmoe", "--cpu-moe"], Any, Flag, HOST),
    (&["-ot", "--override-tensor"], Any, Value(&["none"]), HOST),
    (&["-fitt", "--fit-target", "-fitc", "--fit-ctx"], Bench, Value(&["0"]), FIT),
    (&["-fitt", "--fit-target", "-fitc", "--fit-ctx"], Elsewhere, Value(&[]), FIT),
    (&["-fit", "--fit"], Any, Value(OFF), FIT),
    (&["-rpc", "--rpc"], Any, Value(&[]), "there is no computing on other machines"),
    (&["--list-devices"], Elsewhere, Flag, "`engine devices` lists them"),
    // How weights are read.
    (
        &["-lm", "--load-mode"],
        Elsewhere,
        Value(&["auto", "mmap"]),
        "--no-mmap reads the weights into memory",
    ),
    (
        &["-lzm", "--lazy-mode"],
        Any,
        Value(&["auto", "off"]),
        "weights are read before the first token",
    ),
    (&["-dio", "--direct-io"], Bench, Value(OFF), "files are read by way of the system's cache"),
    (&["-dio", "--direct-io"], Elsewhere, Flag, "files are read by way of the system's cache"),
    (&["-mmp"], Elsewhere, Value(ON), "--no-mmap reads the weights into memory"),
    (&["--mlock"], Any, Flag, "nothing is locked into memory"),
    (&["--check-tensors"], Any, Flag, "answers that are not finite are found as they are computed"),
    // Threads.
    (&["-tb", "--threads-batch"], Any, Value(&[]), "prompt and answer have the same threads: -t"),
    (&["-C", "--cpu-mask", "-Cb", "--cpu-mask-batch"], Any, Value(&["0x0", "0"]), CPU_PLACE),
    (&["-Cr", "--cpu-range", "-Crb", "--cpu-range-batch"], Any, Value(&[]), CPU_PLACE),
    (&["--cpu-strict", "--cpu-strict-batch"], Any, Value(OFF), CPU_PLACE),
    (&["--prio", "--prio-batch"], Any, Value(&["0"]), CPU_PLACE),
    (&["--poll"], Any, Value(&["50"]), "how threads wait for work is not to be chosen"),
    (&["--poll-batch"], Any, Value(&[]), "how threads wait for work is not to be chosen"),
    (&["--numa"], Any, Value(&[]), CPU_PLACE),
    // Which model.
    (&["-m", "--model"], Any, Value(&[]), "the model is the first word after the command"),
    (&["-hf", "-hfr", "--hf-repo"], Any, Value(&[]), "write user/repo:quant in the model's place"),
    (&["-hff", "--hf-file"], Any, Value(&[]), "write the link to the file in the model's place"),
    (&["-hft", "--hf-token"], Any, Value(&[]), "set HF_TOKEN"),
    (&["-mu", "--model-url"], Any, Value(&[]), "fetch the file, or write user/repo:quant"),
    (&["--offline"], Any, Flag, "a file's path needs no network"),
    (&["--lora", "--lora-scaled", "--control-vector"], Any, Value(&[]), "there are no adapters"),
    (
        &["-mm", "--mmproj", "-mmu", "--mmproj-url", "--image", "--audio", "--video"],
        Any,
        Value(&[]),
        "models read text alone",
    ),
    (&["--no-mmproj"], Any, FlagAsHere, ""),
    (
        &["-md", "--model-draft", "--spec-draft-model", "--draft", "--draft-max", "--spec-type"],
        Any,
        Value(&[]),
        DRAFT,
    ),
    (&["--override-kv"], Any, Value(&[]), "the same is --override KEY=TYPE:VALUE"),
    // The context.
    (
        &["--keep"],
        Any,
        Value(&["0"]),
        "the context is not shifted: where it is full the answer ends",
    ),
    (&["--context-shift"], Any, Flag, "where the context is full the answer ends"),
    (&["--no-context-shift"], Any, FlagAsHere, ""),
    (&["--swa-full"], Any, Flag, "layers with a window keep what the window needs"),
    (&["-np", "--parallel"], Any, Value(&["1"]), "a run is one answer"),
    (&["-kvu", "--kv-unified", "-no-kvu", "--no-kv-unified"], Any, FlagAsHere, ""),
    (
        &["--rope-scaling", "--rope-scale", "--rope-freq-base", "--rope-freq-scale"],
        Any,
        Value(&[]),
        ROPE,
    ),
    (
        &[
            "--yarn-orig-ctx",
            "--yarn-ext-factor",
            "--yarn-attn-factor",
            "--yarn-beta-slow",
            "--yarn-beta-fast",
        ],
        Any,
        Value(&[]),
        ROPE,
    ),
    (&["--pooling", "--attention"], Any, Value(&[]), ROPE),
    (&["-embd", "--embeddings"], Bench, Value(OFF), "`engine embed` makes vectors"),
    (&["--embedding", "--embeddings"], Elsewhere, Flag, "`engine embed` makes vectors"),
    // Choosing tokens.
    (&["--samplers", "--sampler-seq", "--sampling-seq"], Any, Value(&[]), SAMPLER),
    (&["--mirostat"], Any, Value(&["0"]), SAMPLER),
    (&["--mirostat-lr", "--mirostat-ent"], Any, Value(&[]), SAMPLER),
    (&["--top-nsigma", "--top-n-sigma"], Any, Value(&["-1", "-1.0"]), SAMPLER),
    (&["--typical", "--typical-p"], Any, Value(&["1", "1.0"]), SAMPLER),
    (
        &["--xtc-probability", "--dynatemp-range", "--dry-multiplier"],
        Any,
        Value(&["0", "0.0"]),
        SAMPLER,
    ),
    (
        &[
            "--xtc-threshold",
            "--dynatemp-exp",
            "--dry-base",
            "--dry-allowed-length",
            "--dry-penalty-last-n",
            "--dry-sequence-breaker",
        ],
        Any,
        Value(&[]),
        SAMPLER,
    ),
    (&["--presence-penalty", "--frequency-penalty"], Any, Value(&["0", "0.0"]), SAMPLER),
    (&["-l", "--logit-bias"], Any, Value(&[]), SAMPLER),
    (&["-bs", "--backend-sampling"], Any, Flag, "tokens are chosen on the device wherever it can"),
    (&["--ignore-eos"], Any, Flag, "an answer ends where the model ends it"),
    (
        &["--grammar", "--grammar-file", "-j", "--json-schema", "-jf", "--json-schema-file"],
        Any,
        Value(&[]),
        GRAMMAR,
    ),
    // The prompt and the chat.
    (&["-bf", "--binary-file"], Any, Value(&[]), "-f reads a prompt out of a file"),
    (
        &["-e", "--escape"],
        Any,
        Flag,
        "a prompt is taken as it is; the shell writes a newline as $'\\n'",
    ),
    (&["--no-escape"], Any, FlagAsHere, ""),
    (&["-r", "--reverse-prompt"], Elsewhere, Value(&[]), "--stop ends an answer at a text"),
    (
        &["-cnv", "--conversation", "-i", "--interactive", "-if", "--interactive-first"],
        Any,
        Flag,
        CHAT,
    ),
    (
        &["-mli", "--multiline-input"],
        Any,
        Flag,
        "a line is a turn; a prompt of several lines can come from stdin",
    ),
    (&["-sp", "--special"], Any, Flag, "control tokens are not shown; --json lists their ids"),
    (&["--in-prefix", "--in-suffix"], Any, Value(&[]), "write it into the prompt, with --raw"),
    (&["--jinja"], Any, FlagAsHere, ""),
    (&["--no-jinja"], Any, Flag, TEMPLATE),
    (&["--chat-template", "--chat-template-file"], Any, Value(&[]), TEMPLATE),
    (
        &["--reasoning-format", "-rea", "--reasoning", "--reasoning-budget"],
        Any,
        Value(&[]),
        "an answer is shown whole, thoughts included",
    ),
    (&["--prompt-cache"], Any, Value(&[]), "no cache is kept between runs"),
    // What is shown.
    (
        &["-co", "--color"],
        Any,
        Value(&["off", "0", "false", "disabled", "auto"]),
        "nothing is coloured",
    ),
    (
        &["--no-display-prompt", "--simple-io", "--no-perf", "--no-show-timings", "--log-disable"],
        Any,
        FlagAsHere,
        "",
    ),
    (
        &["--display-prompt", "--verbose-prompt"],
        Any,
        Flag,
        "the prompt is not shown again; --json lists its ids",
    ),
    (&["--perf", "--show-timings"], Any, Flag, "--verbose shows timings"),
    (
        &["-lv", "--verbosity", "--log-verbosity", "--log-file"],
        Any,
        Value(&[]),
        "--verbose says more on stderr",
    ),
    (&["--no-warmup"], Elsewhere, FlagAsHere, ""),
    (
        &["--warmup"],
        Elsewhere,
        Flag,
        "kernels are compiled while the weights are read; nothing else is to be warmed up",
    ),
    (
        &["--embd-normalize"],
        Any,
        Value(&["2"]),
        "vectors have length 1; with --raw they are as the model makes them",
    ),
    (&["--ppl-stride"], Any, Value(&["0"]), "chunks lie end to end"),
    // What other programs of llama.cpp are for.
    (&["-cl", "--cache-list"], Any, Flag, "`engine inspect` shows one model"),
    (
        &["-dr", "--docker-repo"],
        Any,
        Value(&[]),
        "write user/repo:quant of the hub in the model's place",
    ),
    (
        &[
            "-cb",
            "--cont-batching",
            "-nocb",
            "--no-cont-batching",
            "-ag",
            "--agent",
            "-no-ag",
            "--no-agent",
        ],
        Any,
        Flag,
        SERVER,
    ),
    (
        &[
            "-cms",
            "--checkpoint-min-step",
            "-cram",
            "--cache-ram",
            "-to",
            "--timeout",
            "-sps",
            "--slot-prompt-similarity",
        ],
        Any,
        Value(&[]),
        SERVER,
    ),
    (&["-ctxcp", "--ctx-checkpoints", "--swa-checkpoints"], Any, Value(&[]), SERVER),
    (&["-cmoed", "--cpu-moe-draft", "--spec-draft-cpu-moe"], Any, Flag, DRAFT),
    (
        &[
            "-hfd",
            "-hfrd",
            "--hf-repo-draft",
            "-td",
            "--threads-draft",
            "-tbd",
            "--threads-batch-draft",
        ],
        Any,
        Value(&[]),
        DRAFT,
    ),
    (&["-Cd", "-Crd", "-Cbd", "-Crbd", "-ctkd", "-ctvd", "-otd", "-devd"], Any, Value(&[]), DRAFT),
    (&["-ncmoed", "--n-cpu-moe-draft", "-ngld", "--gpu-layers-draft"], Any, Value(&[]), DRAFT),
    (&["-lcs", "--lookup-cache-static", "-lcd", "--lookup-cache-dynamic"], Any, Value(&[]), DRAFT),
    (&["-pps", "-tgs"], Any, Flag, OTHER),
    (&["-npp", "-ntg", "-npl"], Elsewhere, Value(&[]), "`engine bench -npl` measures so"),
    (&["-ns", "--sequences"], Any, Value(&[]), "a run is one answer"),
    (&["-dt", "--defrag-thold"], Any, Value(&[]), "the cache is never rearranged"),
    (&["-gan", "--grp-attn-n", "-gaw", "--grp-attn-w"], Any, Value(&[]), ROPE),
    (&["-ptc", "--print-token-count", "-ofreq", "--output-frequency"], Any, Value(&[]), OTHER),
    (&["-fitp", "--fit-print"], Any, Value(OFF), FIT),
    (
        &["-lr", "-lr-min", "-decay-epochs", "-wd", "-val-split", "-epochs", "-opt"],
        Any,
        Value(&[]),
        "nothing is trained here",
    ),
];

/// What becomes of an option that the command does not have.
#[derive(Debug, PartialEq, Eq)]
pub enum Fate {
    /// Not one of llama.cpp's either.
    Unknown,
    /// It asks for what is done here.
    AsHere,
    /// It asks for something else: why, in a sentence.
    Refused(String),
}

/// Whether an option of this name is in the table.
pub fn knows(name: &str, bench: bool) -> bool {
    row(name, bench).is_some()
}

/// Whether an option of this name, which the command does not have, takes a value.
pub fn takes_value(name: &str, bench: bool) -> bool {
    row(name, bench).is_some_and(|(_, _, takes, _)| matches!(takes, Value(_)))
}

/// What becomes of an option of this name with this value.
pub fn fate(name: &str, value: Option<&str>, bench: bool) -> Fate {
    let Some((_, _, takes, why)) = row(name, bench) else { return Fate::Unknown };
    match (takes, value) {
        (FlagAsHere, None) => Fate::AsHere,
        (FlagAsHere, Some(value)) => Fate::Refused(format!("{name}={value}: it takes no value")),
        (Flag, _) => Fate::Refused(format!("{name}: {why}")),
        (Value([_, ..]), None) => Fate::Refused(format!("{name}: a value is missing")),
        // Of llama-bench's lists each value is judged by itself.
        (Value(as_here), Some(values)) if bench && !as_here.is_empty() => {
            match each(values).into_iter().find(|value| !is_among(value, as_here)) {
                None => Fate::AsHere,
                Some(value) => Fate::Refused(format!("{name} {value}: {why}")),
            }
        }
        (Value(as_here), Some(value)) if is_among(value, as_here) => Fate::AsHere,
        (Value(_), value) => {
            let value = value.map_or_else(String::new, |value| format!(" {value}"));
            Fate::Refused(format!("{name}{value}: {why}"))
        }
    }
}

/// Whether a value is among these, as a number where they are fractions.
fn is_among(value: &str, as_here: &[&str]) -> bool {
    let fractions = as_here.iter().any(|known| known.contains('.'));
    let number = |text: &str| text.parse::<f64>().ok().filter(|_| fractions);
    let alike = |known: &str| match (number(known), number(value)) {
        (Some(known), Some(value)) => (known - value).abs() < 1e-9,
        _ => false,
    };
    as_here.iter().any(|known| *known == value || alike(known))
}

/// The values of a list; of a range from a number to another, its numbers.
fn each(values: &str) -> Vec<String> {
    /// A longer range holds in any case a number that is not as here.
    const MOST: u32 = 16;
    let list = values.strip_suffix(',').unwrap_or(values);
    let mut out = Vec::new();
    for part in list.split(',').map(str::trim) {
        let ends =
            part.split_once('-').map(|(first, last)| (first.parse::<u32>(), last.parse::<u32>()));
        match ends {
            Some((Ok(first), Ok(last))) if first <= last && last - first <= MOST => {
                out.extend((first..=last).map(|number| number.to_string()));
            }
            _ => out.push(part.to_string()),
        }
    }
    out
}

fn row(name: &str, bench: bool) -> Option<&'static Row> {
    ROWS.iter().find(|(names, at, ..)| {
        names.contains(&name)
            && match at {
                Any => true,
                Bench => bench,
                Elsewhere => !bench,
            }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_can_be_found_and_says_why() {
        for (names, at, takes, why) in ROWS {
            for name in *names {
                let bench = *at == Bench;
                let (first, ..) = row(name, bench).unwrap();
                assert_eq!(first, names, "{name} stands twice");
                assert!(
                    name.starts_with('-') && takes_value(name, bench) == matches!(takes, Value(_))
                );
                match takes {
                    FlagAsHere => assert_eq!(fate(name, None, bench), Fate::AsHere),
                    Flag => {
                        assert_eq!(
                            fate(name, None, bench),
                            Fate::Refused(format!("{name}: {why}"))
                        );
                    }
                    Value(as_here) => {
                        for value in *as_here {
                            assert_eq!(fate(name, Some(value), bench), Fate::AsHere);
                        }
                        let refused = Fate::Refused(format!("{name} other: {why}"));
                        assert_eq!(fate(name, Some("other"), bench), refused);
                    }
                }
                assert!(matches!(takes, FlagAsHere) || !why.is_empty(), "{name}");
            }
        }
        assert_eq!(fate("--tmp", Some("0"), false), Fate::Unknown);
    }

    #[test]
    fn each_value_of_a_list_is_judged() {
        for (name, values) in [
            ("-nopo", "0,1"),
            ("-sm", "none,layer"),
            ("-nkvo", "0,0"),
            ("-nkvo", "0-0"),
            ("-nkvo", "off,false"),
            ("-embd", "0,0"),
            ("-mg", "0,0"),
            ("--poll", "50,50"),
            ("--repack", "on"),
        ] {
            assert_eq!(fate(name, Some(values), true), Fate::AsHere, "{name} {values}");
        }
        for (name, values, named) in [
            ("-sm", "none,row", "-sm row: "),
            ("-nkvo", "0-1", "-nkvo 1: "),
            ("-nkvo", "0,,0", "-nkvo : "),
            ("--poll", "50,0", "--poll 0: "),
        ] {
            let Fate::Refused(why) = fate(name, Some(values), true) else {
                panic!("{name} {values} is taken")
            };
            assert!(why.starts_with(named), "{why}");
        }
        for (name, value) in
            [("--typical", "1.00"), ("--xtc-probability", "0.000"), ("-fit", "off")]
        {
            assert_eq!(fate(name, Some(value), false), Fate::AsHere, "{name} {value}");
        }
        assert_ne!(fate("--typical", Some("0.9"), false), Fate::AsHere);
        assert_ne!(fate("-sm", Some("none,layer"), false), Fate::AsHere);
    }
}

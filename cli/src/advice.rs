//! What to do about an error, in this program's words: the libraries know no options.

use std::fmt::Write as _;

use engine::{Advice, Error};

/// An error with what to do about it.
pub fn text(error: &anyhow::Error) -> String {
    text_in(error, words)
}

/// The same in other words.
pub fn text_in(error: &anyhow::Error, words: impl Fn(&Advice) -> String) -> String {
    let mut text = format!("{error:#}");
    if let Some(words) = error.chain().find_map(file_error).and_then(file_words) {
        let _ = write!(text, "; {words}");
        return text;
    }
    let Some(cause) = error.chain().find_map(|cause| cause.downcast_ref::<Error>()) else {
        return text;
    };
    // What was given is known by its option.
    if let Error::Sampling { name, value, range } = cause {
        let option = sampling(name);
        return text
            .replace(&cause.to_string(), &format!("{option} {value} is out of range: {range}"));
    }
    if let Some(advice) = cause.advice() {
        let _ = write!(text, "; {}", words(&advice));
    }
    text
}

/// The error of a file, alone or as the engine passes it on.
fn file_error<'a>(cause: &'a (dyn std::error::Error + 'static)) -> Option<&'a gguf::Error> {
    match cause.downcast_ref::<Error>() {
        Some(Error::File(error)) => Some(error),
        _ => cause.downcast_ref(),
    }
}

/// What this program has for an error of a file.
fn file_words(error: &gguf::Error) -> Option<&'static str> {
    use gguf::FileKind::{GitLfsPointer, WebPage, Xml};
    match error {
        gguf::Error::NotGguf { kind: GitLfsPointer | WebPage | Xml, .. } => {
            Some("`engine pull user/repo` fetches a model's file")
        }
        gguf::Error::RoundedTwice { .. } => Some("--allow-requantize rounds twice all the same"),
        _ => None,
    }
}

/// The option of a number of the sampling.
fn sampling(name: &str) -> String {
    match name {
        "temperature" => "--temp".into(),
        _ => format!("--{}", name.replace('_', "-")),
    }
}

/// An advice by this program's options.
pub fn words(advice: &Advice) -> String {
    match advice {
        Advice::UseCpu => "use --device cpu".into(),
        Advice::UseGpu => "name a GPU with --device".into(),
        Advice::StartAgainOrUseCpu => "start again, or use --device cpu".into(),
        Advice::ContextOf { positions, refused } => {
            format!("--ctx {positions} would fit (this context has {refused})")
        }
        Advice::LargerContext { least: Some(least), trained } => {
            format!("use --ctx {least} or more (the model was made for {trained})")
        }
        Advice::LargerContext { least: None, trained } => {
            format!("use a larger --ctx (the model was made for {trained})")
        }
        Advice::SmallerContextOrUseCpu => "use a smaller --ctx or --device cpu".into(),
        Advice::SmallerModelOrOtherDevice => {
            "no context fits: use a smaller quantization, another device, or --device cpu".into()
        }
        Advice::FewerSequences => "free a sequence, or use a larger --ctx".into(),
        Advice::Sampling(name) => format!("give {} another value", sampling(name)),
        Advice::CacheType { keys } => format!("use {} f16", if *keys { "-ctk" } else { "-ctv" }),
        Advice::Embed { file } => format!("engine embed {file} TEXT"),
        Advice::Override { key } => format!("--override {key}=VALUE takes another"),
        Advice::PlainTextOrOtherTemplate => {
            "--raw continues a prompt without it, --override tokenizer.chat_template=TEXT takes another"
                .into()
        }
        Advice::HostClock => {
            "`engine tune --verbose` times each product's kernels by the host's clock".into()
        }
        // The library's own words name no option, and fit any program.
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_names_this_programs_options() {
        let error = |error: Error| text(&anyhow::Error::from(error).context("model.gguf"));
        let full = Error::ContextFull { wanted: 65, positions: 64, trained: 512 };
        assert_eq!(
            error(full),
            "model.gguf: the context is full: 65 positions are needed, the context has 64; give a shorter prompt; use a larger --ctx (the model was made for 512)"
        );
        let range = "0 to 1";
        let sampling = Error::Sampling { name: "top_p", value: 1.5, range };
        assert_eq!(error(sampling), "model.gguf: --top-p 1.5 is out of range: 0 to 1");
        assert_eq!(error(Error::EmptyPrompt), format!("model.gguf: {}", Error::EmptyPrompt));
        assert_eq!(text(&anyhow::anyhow!("no model")), "no model");
        // A file's error, alone and passed on by the engine.
        let pointer = || gguf::Error::NotGguf {
            file: "a.gguf".into(),
            found: "version".into(),
            kind: gguf::FileKind::GitLfsPointer,
        };
        let fetched = format!("{}; `engine pull user/repo` fetches a model's file", pointer());
        assert_eq!(text(&anyhow::Error::from(pointer())), fetched);
        assert_eq!(error(pointer().into()), format!("model.gguf: {fetched}"));
    }
}

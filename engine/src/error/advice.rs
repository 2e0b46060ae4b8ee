//! What to do about an error, apart from the words in which a program says it.

use std::fmt;

/// What to change where something was refused. Its text names no option of any program; a program that has some says it in its
/// own words.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Advice {
    /// Compute on the CPU.
    UseCpu,
    /// Compute on a GPU.
    UseGpu,
    /// Start again, or compute on the CPU.
    StartAgainOrUseCpu,
    /// A context of so many positions would do; and how many the refused one has.
    ContextOf {
        /// Positions.
        positions: usize,
        /// Those of the refused one.
        refused: usize,
    },
    /// A larger context, and how large it must be if that is known.
    LargerContext {
        /// The least positions that do.
        least: Option<usize>,
        /// What the model was made for.
        trained: usize,
    },
    /// A smaller context, or the CPU.
    SmallerContextOrUseCpu,
    /// A smaller quantization, or memory that something else gives back.
    SmallerModel,
    /// A smaller quantization, or another device.
    SmallerModelOrOtherDevice,
    /// End a sequence, or a larger context.
    FewerSequences,
    /// A number of the sampling, by its name in [`crate::select::Sampling`].
    Sampling(&'static str),
    /// Another type of the cache's keys or values.
    CacheType {
        /// Of the keys; else of the values.
        keys: bool,
    },
    /// Ask for the text's embedding.
    Embed {
        /// The model's file.
        file: String,
    },
    /// Give the metadata's key another value.
    Override {
        /// The key.
        key: &'static str,
    },
    /// Continue the text as it is, or give another chat template.
    PlainTextOrOtherTemplate,
    /// Time kernels by the host's clock.
    HostClock,
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UseCpu => f.write_str("use the CPU"),
            Self::UseGpu => f.write_str("use a GPU"),
            Self::StartAgainOrUseCpu => f.write_str("start again, or use the CPU"),
            Self::ContextOf { positions, refused } => {
                write!(f, "a context of {positions} positions would fit (this one has {refused})")
            }
            Self::LargerContext { least: Some(least), trained } => write!(
                f,
                "use a context of {least} positions or more (the model was made for {trained})"
            ),
            Self::LargerContext { least: None, trained } => {
                write!(f, "use a larger context (the model was made for {trained} positions)")
            }
            Self::SmallerContextOrUseCpu => f.write_str("use a smaller context, or the CPU"),
            Self::SmallerModel => f.write_str("use a smaller quantization, or free some memory"),
            Self::SmallerModelOrOtherDevice => {
                f.write_str("use a smaller quantization, another device, or the CPU")
            }
            Self::FewerSequences => f.write_str("free a sequence, or use a larger context"),
            Self::Sampling(name) => write!(f, "give another {name}"),
            Self::CacheType { keys: true } => f.write_str("use f16 for the cache's keys"),
            Self::CacheType { keys: false } => f.write_str("use f16 for the cache's values"),
            Self::Embed { file } => write!(f, "ask for embeddings of {file}"),
            Self::Override { key } => write!(f, "give {key} another value"),
            Self::PlainTextOrOtherTemplate => {
                f.write_str("continue a prompt without it, or give another template")
            }
            Self::HostClock => f.write_str("time kernels by the host's clock"),
        }
    }
}

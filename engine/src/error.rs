//! The one error type of this crate.

mod advice;

pub use advice::Advice;

use crate::step::SequenceId;

/// What went wrong, or the value.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a model could not be loaded or run. A message says what and where; what to do, where that is known, is an [`Advice`], which
/// a program puts in its own words ([`Error::advice`]).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file itself is at fault.
    #[error(transparent)]
    File(#[from] gguf::Error),
    /// The model's architecture is not among those this engine knows.
    #[error("{file}: the architecture {architecture:?} is unknown (known: {known})")]
    UnknownArchitecture {
        /// The model's file.
        file: String,
        /// `general.architecture` as the file has it.
        architecture: String,
        /// The known ones, separated by commas.
        known: String,
    },
    /// The metadata or tensors contradict each other or ask for something that is not supported.
    #[error("{file}: {why}")]
    Model {
        /// The model's file.
        file: String,
        /// What is wrong and what to do.
        why: String,
    },
    /// An embedding model was asked for text, logits or a perplexity.
    #[error(
        "{file} is an embedding model ({architecture}), which makes vectors of texts, not text"
    )]
    NotALanguageModel {
        /// The model's file.
        file: String,
        /// Its architecture.
        architecture: &'static str,
    },
    /// A text does not fit into what an embedding model takes at once.
    #[error(
        "the text has {tokens} tokens, {}",
        if tokens <= most {
            format!("the context has {room} positions")
        } else {
            format!("the model takes {most} at most: shorten the text, or split it and embed the parts")
        }
    )]
    TextTooLong {
        /// Tokens of the text.
        tokens: usize,
        /// Positions that the context has for it.
        room: usize,
        /// Tokens that the model takes at most.
        most: usize,
    },
    /// There is no such device, or it could not be opened.
    #[error("{0}")]
    NoDevice(String),
    /// The device, or its kernels, cannot do what is asked for; another may.
    #[error("{why}")]
    Unsupported {
        /// What it cannot do.
        why: String,
        /// What can.
        advice: Option<Advice>,
    },
    /// A part of this engine ended that should not have: a defect.
    #[error("{0}: a defect of this program, which its makers would like to hear of")]
    Internal(String),
    /// The device went away or refused work while it ran.
    #[error("the device {device} failed: {why}")]
    DeviceLost {
        /// The device's name.
        device: String,
        /// What the driver said.
        why: String,
    },
    /// The model does not fit the device.
    #[error(
        "the model needs {needed} bytes on {device}, {available} are free: {missing} bytes are missing",
        missing = needed.saturating_sub(*available)
    )]
    DoesNotFit {
        /// The device's name.
        device: String,
        /// Bytes the model needs at the chosen context.
        needed: u64,
        /// Bytes that are free.
        available: u64,
        /// What to change.
        advice: Advice,
    },
    /// The driver refused memory that was thought to be free.
    #[error("{device} refused {needed} bytes for {what}: {why}")]
    OutOfMemory {
        /// The device's name.
        device: String,
        /// Bytes asked for in all.
        needed: u64,
        /// What for.
        what: &'static str,
        /// What the driver said.
        why: String,
        /// What to change.
        advice: Advice,
    },
    /// A single buffer is larger than what the device can bind, however much memory it has.
    #[error("{what} takes a buffer of {needed} bytes, and {device} can bind {most} at once")]
    TooLargeToBind {
        /// The device's name.
        device: String,
        /// What the buffer is for.
        what: String,
        /// Bytes of the buffer.
        needed: u64,
        /// The most that the device can bind.
        most: u64,
        /// What to change.
        advice: Advice,
    },
    /// A prompt does not fit the context.
    #[error(
        "the prompt has {tokens} tokens, the context has {positions} positions and one must be left for the answer; shorten the prompt"
    )]
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Positions the context has.
        positions: usize,
        /// The model's own context length.
        trained: usize,
    },
    /// A step does not fit the context.
    #[error(
        "the context is full: {wanted} positions are needed, the context has {positions}; give a shorter prompt"
    )]
    ContextFull {
        /// Positions needed.
        wanted: usize,
        /// Positions the context has.
        positions: usize,
        /// The model's own context length.
        trained: usize,
    },
    /// All sequences together hold as many positions as there is memory for, though none of them is too long.
    #[error(
        "the context's memory is full: its sequences share {pool} positions, in blocks of {block}; {wanted} blocks are needed and {free} are free ({})",
        holders_in_words(holders)
    )]
    PoolFull {
        /// Blocks that the step needs.
        wanted: usize,
        /// Blocks that are free.
        free: usize,
        /// Positions that all sequences share.
        pool: usize,
        /// Positions of a block: a sequence takes whole ones.
        block: usize,
        /// Who holds the others: sequences and their blocks (some of them shared), those with the most first.
        holders: Vec<(SequenceId, usize)>,
    },
    /// The context has as many sequences as it was made for.
    #[error("the context has no place for another sequence; free one")]
    NoSeat,
    /// A step failed that several requests had part in.
    #[error("{0}")]
    SharedStep(std::sync::Arc<Error>),
    /// A step's tokens contradict the state of their sequences.
    #[error("step token {index}: {why}")]
    Step {
        /// Which token of the step.
        index: usize,
        /// What is wrong.
        why: String,
    },
    /// A snapshot that is not of this model, or of a context with other settings.
    #[error("the snapshot is of another model or context")]
    Snapshot,
    /// A prompt without tokens.
    #[error("the prompt has no tokens: give some text (this model adds none of its own)")]
    EmptyPrompt,
    /// The logits hold values that are not finite numbers.
    #[error(
        "the model computed logits that are not finite at position {position} on {device}; {}",
        if device.starts_with("CPU") {
            "the file may be damaged: fetch it again, or try another quantization"
        } else {
            "the file may be damaged, or the device's driver faulty"
        }
    )]
    NotFinite {
        /// The device's name.
        device: String,
        /// The position of the token that the logits belong to.
        position: u32,
    },
    /// A kernel could not be built. A defect of this engine or of a driver.
    #[error(transparent)]
    Kernel(#[from] shaders::Error),
    /// The tokenizer of the file is not known, or cannot be built.
    #[error("{file}: {why}")]
    Tokenizer {
        /// The model's file.
        file: String,
        /// What is wrong and what to do.
        why: String,
    },
    /// The way in which a tokenizer cuts text before it merges is not known.
    #[error("{file}: the pre-tokenizer {name:?} (tokenizer.ggml.pre) is unknown (known: {known})")]
    UnknownPreTokenizer {
        /// The model's file.
        file: String,
        /// As the file has it.
        name: String,
        /// The known ones, separated by commas.
        known: String,
    },
    /// The model's chat template cannot be read at all.
    #[error("the chat template: {why}; it cannot be used")]
    TemplateUnusable {
        /// What is wrong.
        why: String,
    },
    /// The chat template failed or refused the conversation.
    #[error("the chat template: {0}")]
    Template(String),
    /// A number of the sampling is out of range.
    #[error("{name} {value} is out of range: {range}")]
    Sampling {
        /// Its name in [`crate::select::Sampling`].
        name: &'static str,
        /// What was given.
        value: f32,
        /// What may be given.
        range: &'static str,
    },
    /// A model's heads cannot be stored in this type.
    #[error(
        "{} in {kind} need heads of a multiple of 32 elements, this model's have {numbers}",
        if *keys { "keys" } else { "values" }
    )]
    CacheType {
        /// Whether it is of keys; else of values.
        keys: bool,
        /// The type.
        kind: &'static str,
        /// Elements of a head.
        numbers: usize,
    },
    /// An option's value is out of range.
    #[error("{0}")]
    Option(String),
}

/// The first few who hold blocks.
fn holders_in_words(holders: &[(SequenceId, usize)]) -> String {
    const MOST: usize = 4;
    let one = |(id, blocks): &(SequenceId, usize)| format!("sequence {} holds {blocks}", id.0);
    let mut words: Vec<_> = holders.iter().take(MOST).map(one).collect();
    if holders.len() > MOST {
        words.push(format!("{} others hold the rest", holders.len() - MOST));
    }
    words.join(", ")
}

impl Error {
    /// What to do about it, where that is known.
    pub fn advice(&self) -> Option<Advice> {
        match self {
            Self::NotALanguageModel { file, .. } => Some(Advice::Embed { file: file.clone() }),
            Self::TextTooLong { tokens, most, .. } if tokens <= most => {
                Some(Advice::LargerContext { least: Some(*tokens), trained: *most })
            }
            Self::DeviceLost { .. } => Some(Advice::StartAgainOrUseCpu),
            Self::DoesNotFit { advice, .. }
            | Self::OutOfMemory { advice, .. }
            | Self::TooLargeToBind { advice, .. } => Some(advice.clone()),
            Self::Unsupported { advice, .. } => advice.clone(),
            Self::PromptTooLong { tokens, trained, .. } => {
                Some(Advice::LargerContext { least: Some(tokens + 1), trained: *trained })
            }
            Self::ContextFull { trained, .. } => {
                Some(Advice::LargerContext { least: None, trained: *trained })
            }
            Self::PoolFull { .. } => Some(Advice::FewerSequences),
            Self::SharedStep(error) => error.advice(),
            Self::NotFinite { device, .. } if !device.starts_with("CPU") => Some(Advice::UseCpu),
            Self::UnknownPreTokenizer { .. } => {
                Some(Advice::Override { key: "tokenizer.ggml.pre" })
            }
            Self::TemplateUnusable { .. } => Some(Advice::PlainTextOrOtherTemplate),
            Self::Sampling { name, .. } => Some(Advice::Sampling(name)),
            Self::CacheType { keys, .. } => Some(Advice::CacheType { keys: *keys }),
            _ => None,
        }
    }

    /// That something cannot be done here.
    pub(crate) fn unsupported(why: impl Into<String>, advice: impl Into<Option<Advice>>) -> Self {
        Self::Unsupported { why: why.into(), advice: advice.into() }
    }
}

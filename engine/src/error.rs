//! The one error type of this crate.

/// What went wrong, or the value.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a model could not be loaded or run. Every message says what, where and what to do.
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
        "{file} is an embedding model ({architecture}), which makes vectors of texts, not text: engine embed {file} TEXT"
    )]
    NotALanguageModel {
        /// The model's file.
        file: String,
        /// Its architecture.
        architecture: &'static str,
    },
    /// A text does not fit into what an embedding model takes at once.
    #[error("the text has {tokens} tokens, {advice}")]
    TextTooLong {
        /// Tokens of the text.
        tokens: usize,
        /// What there is room for, and what to change.
        advice: String,
    },
    /// There is no such device, or it could not be opened.
    #[error("{0}")]
    NoDevice(String),
    /// The device, or its kernels, cannot do what is asked for; another may.
    #[error("{0}")]
    Unsupported(String),
    /// A part of this engine ended that should not have: a defect.
    #[error("{0}: a defect of this program, which its makers would like to hear of")]
    Internal(String),
    /// The device went away or refused work while it ran.
    #[error("the device {device} failed: {why}; start again, or use --device cpu")]
    DeviceLost {
        /// The device's name.
        device: String,
        /// What the driver said.
        why: String,
    },
    /// The model does not fit the device.
    #[error(
        "the model needs {needed} bytes on {device}, {available} are free: {missing} bytes are missing; {advice}",
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
        advice: String,
    },
    /// The driver refused memory that was thought to be free.
    #[error("{device} refused {needed} bytes for {what}: {why}; {advice}")]
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
        advice: &'static str,
    },
    /// A single buffer is larger than what the device can bind, however much memory it has.
    #[error(
        "{what} takes a buffer of {needed} bytes, and {device} can bind {most} at once; {advice}"
    )]
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
        advice: String,
    },
    /// A prompt does not fit the context.
    #[error(
        "the prompt has {tokens} tokens, the context has {cells} positions and one must be left for the answer; use --ctx {} or more (the model was made for {trained}), or shorten the prompt",
        tokens + 1
    )]
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Positions the context has.
        cells: usize,
        /// The model's own context length.
        trained: usize,
    },
    /// A step does not fit the context.
    #[error(
        "the context is full: {wanted} positions are needed, the context has {cells}; use a larger --ctx (the model was made for {trained}) or a shorter prompt"
    )]
    ContextFull {
        /// Positions needed.
        wanted: usize,
        /// Positions the context has.
        cells: usize,
        /// The model's own context length.
        trained: usize,
    },
    /// All sequences together hold as many positions as there is memory for, though none of them is too long.
    #[error(
        "the context's memory is full: its sequences share {pool} positions, in blocks of {block}, and none is free for position {position} of this one; free a sequence, or use a larger --ctx"
    )]
    PoolFull {
        /// The position that has no place.
        position: usize,
        /// Positions that all sequences share.
        pool: usize,
        /// Positions of a block: a sequence takes whole ones.
        block: usize,
    },
    /// The context has as many sequences as it was made for.
    #[error("the context has no place for another sequence; free one")]
    NoSeat,
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
            "the file may be damaged, or the device's driver faulty: try --device cpu"
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
    /// The chat template failed or refused the conversation.
    #[error("the chat template: {0}")]
    Template(String),
    /// An option's value is out of range.
    #[error("{0}")]
    Option(String),
}

//! The one error type of this crate.

use crate::{FileKind, Format};

/// Why a GGUF file could not be read or written. Every message says what, where and what to do, and names no option of any
/// program.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("{file}: {error}")]
    Io {
        /// The file's path, or a name for bytes in memory.
        file: String,
        /// What the operating system said.
        error: std::io::Error,
    },
    /// The first four bytes are not `GGUF`.
    #[error("{file}: not a GGUF file (it starts with '{found}'): {kind}")]
    NotGguf {
        /// The file's path.
        file: String,
        /// The file's first characters, what cannot be printed as `?`.
        found: String,
        /// What it is by its first bytes.
        kind: FileKind,
    },
    /// A folder stands where a file is needed.
    #[error("{folder}: is a folder, a .gguf file is needed; {looks}")]
    Folder {
        /// The folder's path.
        folder: String,
        /// What is in it, and what to do.
        looks: String,
    },
    /// The version is none of 1, 2, 3.
    #[error(
        "{file}: GGUF version {version} is unknown (known: 1, 2, 3); a newer engine may read it"
    )]
    Version {
        /// The file's path.
        file: String,
        /// The version as read.
        version: u32,
    },
    /// The header contradicts itself or the file's length.
    #[error("{file}: {what} at byte {at}: {why}; the file is damaged or truncated, fetch it again")]
    Malformed {
        /// The file's path.
        file: String,
        /// The thing that was being read.
        what: String,
        /// Where in the file, in bytes.
        at: u64,
        /// What is wrong with it.
        why: String,
    },
    /// A metadata key that is needed is absent.
    #[error("{file}: the metadata key {key} is missing; the file was converted incompletely")]
    MissingKey {
        /// The file's path.
        file: String,
        /// The key.
        key: String,
    },
    /// A metadata key has another type than it must have, or its value is out of range.
    #[error("{file}: the metadata key {key} is {found}, expected {expected}")]
    WrongType {
        /// The file's path.
        file: String,
        /// The key.
        key: String,
        /// The type or value found.
        found: String,
        /// The type or range expected.
        expected: &'static str,
    },
    /// A tensor that is needed is absent.
    #[error("{file}: the tensor {name} is missing; the file is incomplete or of another kind")]
    MissingTensor {
        /// The file's path.
        file: String,
        /// The tensor's name.
        name: String,
    },
    /// A tensor's type has no known layout, or none that this crate decodes.
    #[error(
        "{file}: tensor {name} has type {type_name}, which {why}; get the model in another quantization, Q4_K_M for example"
    )]
    UnsupportedType {
        /// The file's path.
        file: String,
        /// The tensor's name.
        name: String,
        /// The type's name, or `unknown type id N`.
        type_name: String,
        /// Why it can't be used.
        why: &'static str,
    },
    /// Tensor data of a big-endian file was asked for.
    #[error(
        "{file}: the tensor data is big-endian; convert the file with gguf_convert_endian.py first"
    )]
    BigEndianData {
        /// The file's path.
        file: String,
    },
    /// A part of a split model is absent or does not belong.
    #[error("{file}: {why}; all parts of a split model must lie beside each other")]
    Split {
        /// The part's path.
        file: String,
        /// What is wrong.
        why: String,
    },
    /// A tensor has codes already, which are to become others, and nobody said that rounding twice is wanted.
    #[error(
        "cannot write tensor {name}: it is {} already, and rounding twice loses more; start from F16, BF16 or F32",
        format.name()
    )]
    RoundedTwice {
        /// The tensor's name.
        name: String,
        /// The format that it has.
        format: Format,
    },
    /// What was given to the writer cannot be written.
    #[error("cannot write tensor {name}: {why}")]
    Unwritable {
        /// The tensor's name.
        name: String,
        /// What is wrong.
        why: String,
    },
}

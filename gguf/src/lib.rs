//! GGUF: the model file format that llama.cpp and Ollama made common.
//!
//! A file is a header (version, metadata, tensor descriptions) and a data section that holds the
//! tensors' blocks. This crate reads and writes both and knows every block format's layout. It knows
//! bytes: nothing of GPUs, nothing of models.
//!
//! - [`Source`]: bytes with a length, read at positions.
//! - [`Header`]: one file's parsed header. [`Gguf`]: a model's file or files, split files joined.
//! - [`TensorType`], [`Format`]: the table of types, and the formats whose blocks can be decoded.
//! - [`FileType`]: the table of mixes of formats that files have names for.
//! - [`Writer`]: the same format, written.
//! - [`quantize`]: weights into blocks, and whole files in another mix of formats.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

pub mod format;
pub mod quantize;

mod error;
mod file;
mod file_type;
mod parse;
mod source;
mod split;
mod strange;
mod tensor;
mod value;
mod write;

pub use error::Error;
pub use file::Gguf;
pub use file_type::{FILE_TYPES, FileType};
pub use format::{Block, Codes, Format, Instructions, PlainInstructions, Plane, TYPES, TypeInfo};
pub use parse::{Endian, Header, MAX_ARRAY_DEPTH, MAX_DIMENSIONS};
pub use source::{BytesSource, FileSource, Source};
pub use split::{SplitName, split_file_name};
pub use strange::FileKind;
pub use tensor::{TensorInfo, TensorType};
pub use value::{Array, Metadata, StringArray, Value, ValueType};
pub use write::Writer;

/// What went wrong, or the value.
pub type Result<T> = std::result::Result<T, Error>;

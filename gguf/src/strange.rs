//! What a file that is no GGUF really is, by its first bytes: most are common mistakes, each with its own way out.

use std::fmt;

/// How many of the first bytes are looked at.
pub const LOOKED_AT: u64 = 4096;
/// How many of the first characters a message shows.
const SHOWN: usize = 24;

/// What a file that is no GGUF file is. Its text says so, and what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileKind {
    /// A pointer of git-LFS, which stands for the file.
    GitLfsPointer,
    /// The beginning of a GGUF file.
    CutOff,
    /// A GGUF file whose bytes are swapped, the magic too.
    Swapped,
    /// A model in a format of llama.cpp from before GGUF.
    OldModel,
    /// A LoRA adapter in such a format.
    OldAdapter,
    /// A pickle of Python, as PyTorch's older files are.
    Pickle,
    /// A zip archive, as PyTorch's files are.
    Zip,
    /// A zip archive of nothing.
    EmptyZip,
    /// Compressed.
    Compressed {
        /// The program that did it.
        by: &'static str,
        /// The one that undoes it.
        undo: &'static str,
    },
    /// An archive of this kind, `tar` for example.
    Archive(&'static str),
    /// An array of NumPy.
    NumPy,
    /// An HDF5 file.
    Hdf5,
    /// A program.
    Program,
    /// A PDF document.
    Pdf,
    /// A picture.
    Picture,
    /// A safetensors file.
    Safetensors,
    /// An ONNX model.
    Onnx,
    /// A web page.
    WebPage,
    /// An XML document.
    Xml,
    /// JSON.
    Json,
    /// Some text.
    Text,
    /// Nothing but zeros in the first bytes.
    Zeros,
    /// A file of no bytes.
    Empty,
    /// Anything else.
    Unknown,
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GitLfsPointer => {
                "it is a git-LFS pointer, which stands for the model's file and does not hold \
                 it; fetch the file itself, with `git lfs pull` for example"
            }
            Self::CutOff => "it ends inside its header: the download broke off; fetch it again",
            Self::Swapped => {
                "its bytes are swapped; convert the file with gguf_convert_endian.py first"
            }
            Self::OldModel => {
                "it is a model in a format of llama.cpp from before GGUF (ggml, ggmf or ggjt); \
                 fetch the model again as .gguf, or convert it with an old llama.cpp's \
                 convert-llama-ggml-to-gguf.py"
            }
            Self::OldAdapter => {
                "it is a LoRA adapter in a format of llama.cpp from before GGUF; a model is \
                 needed, as .gguf"
            }
            Self::Pickle => {
                "it is a pickle of Python, as PyTorch's older .bin and .pt files are; look for \
                 the same model as .gguf, or convert it with llama.cpp's convert_hf_to_gguf.py"
            }
            Self::Zip => {
                "it is a zip archive, as PyTorch's .bin, .pt and .pth files are; look for the \
                 same model as .gguf, or convert it with llama.cpp's convert_hf_to_gguf.py; an \
                 archive with a .gguf file inside must be unpacked"
            }
            Self::EmptyZip => "it is an empty zip archive; fetch the .gguf file again",
            Self::Compressed { by, undo } => {
                return write!(
                    f,
                    "it is compressed with {by}: unpack it ({undo}) and give the .gguf file inside"
                );
            }
            Self::Archive(of) => {
                return write!(f, "it is a {of} archive: unpack it and give the .gguf file inside");
            }
            Self::NumPy => "it is an array of NumPy, not a model; give a .gguf file",
            Self::Hdf5 => {
                "it is an HDF5 file (Keras), not a GGUF model; look for the same model as .gguf"
            }
            Self::Program => "it is a program; give a .gguf file",
            Self::Pdf => "it is a PDF document; give a .gguf file",
            Self::Picture => "it is a picture; give a .gguf file",
            Self::Safetensors => {
                "it is a safetensors file; look for the same model as .gguf, or convert its \
                 folder with llama.cpp's convert_hf_to_gguf.py"
            }
            Self::Onnx => "it looks like an ONNX model; look for the same model as .gguf",
            Self::WebPage => {
                "it is a web page saved under a model's name: the link was to a page, or the \
                 server sent one instead (a login, an error); fetch the file itself"
            }
            Self::Xml => {
                "it is an XML document, as servers answer with when they refuse a download; \
                 fetch the file again"
            }
            Self::Json => {
                "it is JSON, as servers answer with when they refuse a download, or a model's \
                 settings; give the .gguf file itself"
            }
            Self::Text => "it is a text; give a .gguf file, as llama.cpp writes them",
            Self::Zeros => {
                "it is all zeros where it should begin: the download was not finished; fetch it \
                 again"
            }
            Self::Empty => "it is empty: the download did not begin; fetch it again",
            Self::Unknown => {
                "it is none of the kinds that are known; give a .gguf file, as llama.cpp writes \
                 them"
            }
        })
    }
}

/// What files begin with.
const BEGINNINGS: &[(&[u8], FileKind)] = &[
    (b"version https://git-lfs", FileKind::GitLfsPointer),
    (b"version https://hawser", FileKind::GitLfsPointer),
    (b"GGUF", FileKind::CutOff),
    (b"FUGG", FileKind::Swapped),
    (b"ggml", FileKind::OldModel),
    (b"lmgg", FileKind::OldModel),
    (b"ggmf", FileKind::OldModel),
    (b"fmgg", FileKind::OldModel),
    (b"ggjt", FileKind::OldModel),
    (b"tjgg", FileKind::OldModel),
    (b"ggla", FileKind::OldAdapter),
    (b"algg", FileKind::OldAdapter),
    (b"PK\x03\x04", FileKind::Zip),
    (b"PK\x05\x06", FileKind::EmptyZip),
    (b"\x80\x02", FileKind::Pickle),
    (b"\x80\x03", FileKind::Pickle),
    (b"\x80\x04", FileKind::Pickle),
    (b"\x80\x05", FileKind::Pickle),
    (b"\x1f\x8b", FileKind::Compressed { by: "gzip", undo: "gunzip" }),
    (b"\x28\xb5\x2f\xfd", FileKind::Compressed { by: "zstd", undo: "unzstd" }),
    (b"\xfd7zXZ\0", FileKind::Compressed { by: "xz", undo: "unxz" }),
    (b"BZh", FileKind::Compressed { by: "bzip2", undo: "bunzip2" }),
    (b"\x04\x22\x4d\x18", FileKind::Compressed { by: "lz4", undo: "unlz4" }),
    (b"7z\xbc\xaf\x27\x1c", FileKind::Archive("7z")),
    (b"Rar!", FileKind::Archive("rar")),
    (b"\x93NUMPY", FileKind::NumPy),
    (b"\x89HDF", FileKind::Hdf5),
    (b"\x7fELF", FileKind::Program),
    (b"MZ", FileKind::Program),
    (b"%PDF", FileKind::Pdf),
    (b"\x89PNG", FileKind::Picture),
    (b"\xff\xd8\xff", FileKind::Picture),
];

/// The first characters, what cannot be printed as `?`.
pub fn shown(start: &[u8]) -> String {
    let text = &start[..start.len().min(SHOWN)];
    let printable = |&b: &u8| if b == b' ' || b.is_ascii_graphic() { char::from(b) } else { '?' };
    text.iter().map(printable).collect()
}

/// What a file of `length` bytes that begins so is.
pub fn kind(start: &[u8], length: u64) -> FileKind {
    if start.is_empty() {
        return FileKind::Empty;
    }
    if start.iter().all(|&byte| byte == 0) {
        return FileKind::Zeros;
    }
    if let Some((_, kind)) = BEGINNINGS.iter().find(|(beginning, _)| start.starts_with(beginning)) {
        return *kind;
    }
    if is_safetensors(start, length) {
        return FileKind::Safetensors;
    }
    if start.get(257..262) == Some(b"ustar") {
        return FileKind::Archive("tar");
    }
    // Field 1 of ONNX's ModelProto is the version, field 2 the producer's name: `08 N 12 length name`.
    if let [0x08, 1..=32, 0x12, length, name @ ..] = start
        && name.get(..usize::from(*length)).is_some_and(<[u8]>::is_ascii)
    {
        return FileKind::Onnx;
    }
    let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start).trim_ascii_start();
    let word = text[..text.len().min(64)].to_ascii_lowercase();
    let begins = |beginnings: &[&str]| beginnings.iter().any(|b| word.starts_with(b.as_bytes()));
    if begins(&["<!doctype html", "<html", "<head", "<body", "<script", "<!--"]) {
        return FileKind::WebPage;
    }
    if begins(&["<?xml", "<error"]) {
        return if text.windows(5).any(|w| w.eq_ignore_ascii_case(b"<html")) {
            FileKind::WebPage
        } else {
            FileKind::Xml
        };
    }
    if begins(&["<"]) {
        return FileKind::WebPage;
    }
    if begins(&["{", "["]) {
        return FileKind::Json;
    }
    let is_text = |&b: &u8| b >= b' ' || b.is_ascii_whitespace();
    match std::str::from_utf8(start) {
        Ok(_) if start.iter().all(is_text) => FileKind::Text,
        // A character may be cut at the end of what was read.
        Err(error) if error.error_len().is_none() && start.iter().all(is_text) => FileKind::Text,
        _ => FileKind::Unknown,
    }
}

/// Whether a file begins as safetensors do: the length of a FileKind::Json object in 8 bytes, then the object.
fn is_safetensors(start: &[u8], length: u64) -> bool {
    let Some((header, rest)) = start.split_first_chunk::<8>() else { return false };
    let header = u64::from_le_bytes(*header);
    header >= 2 && header <= length.saturating_sub(8) && rest.trim_ascii_start().starts_with(b"{")
}

/// What a folder given as a model holds, and what to do.
pub fn in_folder(path: &std::path::Path) -> String {
    let mut names: Vec<String> = std::fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let is = |name: &str, extension: &str| {
        std::path::Path::new(name).extension().is_some_and(|of| of.eq_ignore_ascii_case(extension))
    };
    let models: Vec<_> =
        names.iter().filter(|name| is(name, "gguf")).take(3).map(String::as_str).collect();
    if !models.is_empty() {
        return format!("give one of those in it, such as {}", models.join(", "));
    }
    let weights = |name: &String| is(name, "safetensors") || is(name, "bin");
    if names.iter().any(weights) {
        return "it holds a model for other programs; convert it with llama.cpp's convert_hf_to_gguf.py, or look for the same model as .gguf".into();
    }
    "there is none in it".into()
}

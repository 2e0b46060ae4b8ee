//! What a file that is no GGUF really is, by its first bytes: most are common mistakes, each with its own way out.

use crate::{Error, Source};

/// How many of the first bytes are looked at.
const LOOKED_AT: u64 = 4096;
/// How many of the first characters a message shows.
const SHOWN: usize = 24;

/// What kinds of files begin with, and what to say of them.
const BEGINNINGS: &[(&[u8], &str)] = &[
    (b"version https://git-lfs", LFS),
    (b"version https://hawser", LFS),
    (b"GGUF", "it ends inside its header: the download broke off; fetch it again"),
    (b"FUGG", "its bytes are swapped; convert the file with gguf_convert_endian.py first"),
    (b"ggml", OLD),
    (b"lmgg", OLD),
    (b"ggmf", OLD),
    (b"fmgg", OLD),
    (b"ggjt", OLD),
    (b"tjgg", OLD),
    (b"ggla", OLD_ADAPTER),
    (b"algg", OLD_ADAPTER),
    (b"PK\x03\x04", PYTORCH_OR_ZIP),
    (b"PK\x05\x06", "it is an empty zip archive; fetch the .gguf file again"),
    (b"\x80\x02", PYTORCH),
    (b"\x80\x03", PYTORCH),
    (b"\x80\x04", PYTORCH),
    (b"\x80\x05", PYTORCH),
    (b"\x1f\x8b", "it is compressed with gzip: unpack it (gunzip) and give the .gguf file inside"),
    (
        b"\x28\xb5\x2f\xfd",
        "it is compressed with zstd: unpack it (unzstd) and give the .gguf file inside",
    ),
    (b"\xfd7zXZ\0", "it is compressed with xz: unpack it (unxz) and give the .gguf file inside"),
    (b"BZh", "it is compressed with bzip2: unpack it (bunzip2) and give the .gguf file inside"),
    (
        b"\x04\x22\x4d\x18",
        "it is compressed with lz4: unpack it (unlz4) and give the .gguf file inside",
    ),
    (b"7z\xbc\xaf\x27\x1c", "it is a 7z archive: unpack it and give the .gguf file inside"),
    (b"Rar!", "it is a rar archive: unpack it and give the .gguf file inside"),
    (b"\x93NUMPY", "it is an array of NumPy, not a model; give a .gguf file"),
    (b"\x89HDF", "it is an HDF5 file (Keras), not a GGUF model; look for the same model as .gguf"),
    (b"\x7fELF", "it is a program; give a .gguf file"),
    (b"MZ", "it is a program; give a .gguf file"),
    (b"%PDF", "it is a PDF document; give a .gguf file"),
    (b"\x89PNG", "it is a picture; give a .gguf file"),
    (b"\xff\xd8\xff", "it is a picture; give a .gguf file"),
];

const LFS: &str = "it is a git-LFS pointer, which stands for the model's file and does not hold it; fetch the file itself with `git lfs pull`, or with `engine pull user/repo`";
const OLD: &str = "it is a model in a format of llama.cpp from before GGUF (ggml, ggmf or ggjt); fetch the model again as .gguf, or convert it with an old llama.cpp's convert-llama-ggml-to-gguf.py";
const OLD_ADAPTER: &str =
    "it is a LoRA adapter in a format of llama.cpp from before GGUF; a model is needed, as .gguf";
const PYTORCH: &str = "it is a pickle of Python, as PyTorch's older .bin and .pt files are; look for the same model as .gguf, or convert it with llama.cpp's convert_hf_to_gguf.py";
const PYTORCH_OR_ZIP: &str = "it is a zip archive, as PyTorch's .bin, .pt and .pth files are; look for the same model as .gguf, or convert it with llama.cpp's convert_hf_to_gguf.py; an archive with a .gguf file inside must be unpacked";
const SAFETENSORS: &str = "it is a safetensors file; look for the same model as .gguf, or convert its folder with llama.cpp's convert_hf_to_gguf.py";
const PAGE: &str = "it is a web page saved under a model's name: the link was to a page, or the server sent one instead (a login, an error); fetch the file itself, for example with `engine pull user/repo`";
const XML: &str = "it is an XML document, as servers answer with when they refuse a download; fetch the file again, for example with `engine pull user/repo`";
const JSON: &str = "it is JSON, as servers answer with when they refuse a download, or a model's settings; give the .gguf file itself";
const ONNX: &str = "it looks like an ONNX model; look for the same model as .gguf";
const TAR: &str = "it is a tar archive: unpack it and give the .gguf file inside";
const ZEROS: &str =
    "it is all zeros where it should begin: the download was not finished; fetch it again";
const EMPTY: &str = "it is empty: the download did not begin; fetch it again";
const TEXT: &str = "it is a text; give a .gguf file, as llama.cpp writes them";
const UNKNOWN: &str =
    "it is none of the kinds that are known; give a .gguf file, as llama.cpp writes them";

/// The error for a source that does not begin as a GGUF file does.
pub fn error(source: &dyn Source) -> Error {
    let mut start = vec![0; source.len().min(LOOKED_AT) as usize];
    let file = source.name().to_string();
    match source.read_at(0, &mut start) {
        Ok(()) => Error::NotGguf { file, found: shown(&start), looks: looks(&start, source.len()) },
        Err(error) => Error::Io { file, error },
    }
}

/// The first characters, what cannot be printed as `?`.
fn shown(start: &[u8]) -> String {
    let text = &start[..start.len().min(SHOWN)];
    let printable = |&b: &u8| if b == b' ' || b.is_ascii_graphic() { char::from(b) } else { '?' };
    text.iter().map(printable).collect()
}

/// What a file of `length` bytes that begins so is, and what to do.
fn looks(start: &[u8], length: u64) -> &'static str {
    if start.is_empty() {
        return EMPTY;
    }
    if start.iter().all(|&byte| byte == 0) {
        return ZEROS;
    }
    if let Some((_, looks)) = BEGINNINGS.iter().find(|(beginning, _)| start.starts_with(beginning))
    {
        return looks;
    }
    if is_safetensors(start, length) {
        return SAFETENSORS;
    }
    if start.get(257..262) == Some(b"ustar") {
        return TAR;
    }
    // Field 1 of ONNX's ModelProto is the version, field 2 the producer's name: `08 N 12 length name`.
    if let [0x08, 1..=32, 0x12, length, name @ ..] = start
        && name.get(..usize::from(*length)).is_some_and(<[u8]>::is_ascii)
    {
        return ONNX;
    }
    let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start).trim_ascii_start();
    let word = text[..text.len().min(64)].to_ascii_lowercase();
    let begins = |beginnings: &[&str]| beginnings.iter().any(|b| word.starts_with(b.as_bytes()));
    if begins(&["<!doctype html", "<html", "<head", "<body", "<script", "<!--"]) {
        return PAGE;
    }
    if begins(&["<?xml", "<error"]) {
        return if text.windows(5).any(|w| w.eq_ignore_ascii_case(b"<html")) { PAGE } else { XML };
    }
    if begins(&["<"]) {
        return PAGE;
    }
    if begins(&["{", "["]) {
        return JSON;
    }
    let is_text = |&b: &u8| b >= b' ' || b.is_ascii_whitespace();
    match std::str::from_utf8(start) {
        Ok(_) if start.iter().all(is_text) => TEXT,
        // A character may be cut at the end of what was read.
        Err(error) if error.error_len().is_none() && start.iter().all(is_text) => TEXT,
        _ => UNKNOWN,
    }
}

/// Whether a file begins as safetensors do: the length of a JSON object in 8 bytes, then the object.
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

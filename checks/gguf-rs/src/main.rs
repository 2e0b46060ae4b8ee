//! A second opinion on GGUF headers: names, types, shapes and offsets as the crate gguf-rs reads them,
//! against ours. `cargo run -- FILE...`
//!
//! gguf-rs is not used by the engine itself: it has wrong sizes for several types, fails on version 1 and
//! on big-endian files, and makes a million read calls for a large vocabulary.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut wrong = 0;
    for path in std::env::args().skip(1) {
        match compare(&path) {
            Ok(tensors) => println!("{path}: {tensors} tensors alike"),
            Err(why) => {
                wrong += 1;
                println!("{path}: {why}");
            }
        }
    }
    if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn compare(path: &str) -> Result<usize, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let source = gguf::FileSource::open(path).map_err(|error| text(&error))?;
    let ours = gguf::Header::parse(&source).map_err(|error| text(&error))?;
    let mut container = gguf_rs::get_gguf_container(path).map_err(|error| text(&error))?;
    let theirs = container.decode().map_err(|error| text(&error))?;
    let tensors = theirs.tensors();
    if tensors.len() != ours.tensors.len() {
        return Err(format!("{} tensors, gguf-rs has {}", ours.tensors.len(), tensors.len()));
    }
    for (ours_one, theirs_one) in ours.tensors.iter().zip(tensors) {
        // gguf-rs pads shapes with ones.
        let shape: Vec<u64> = theirs_one.shape[..theirs_one.n_dimensions as usize].to_vec();
        let offset = ours_one.start - ours.data_start;
        let same = ours_one.name == theirs_one.name
            && ours_one.tensor_type.0 == theirs_one.kind
            && ours_one.shape == shape
            && offset == theirs_one.offset;
        if !same {
            return Err(format!(
                "{} type {} {:?} at {offset}; gguf-rs has {} type {} {shape:?} at {}",
                ours_one.name,
                ours_one.tensor_type.0,
                ours_one.shape,
                theirs_one.name,
                theirs_one.kind,
                theirs_one.offset
            ));
        }
    }
    Ok(tensors.len())
}

//! Networks whose hidden width is no multiple of 32, which every kernel counts by: their matrices, if they are of floats,
//! are padded with zeros when the file is opened. A padded hidden number is activation(0) * 0 = 0 and meets weights of 0.

use std::sync::Arc;

use gguf::{BytesSource, Format, Gguf};

use super::spec::{FeedForward, LayerSpec, Spec};
use crate::Result;

/// What widths are made multiples of.
const UNIT: usize = 32;

/// Pads the networks of a model that need it, in the Spec and in the file.
pub(super) fn pad_networks(file: &mut Gguf, spec: &mut Spec) -> Result<()> {
    let embedding = spec.embedding;
    for (index, layer) in spec.layers.iter_mut().enumerate() {
        for (suffix, width) in widths(layer) {
            let (old, new) = (*width, width.next_multiple_of(UNIT));
            let up =
                ["ffn_gate", "ffn_up"].map(|name| format!("blk.{index}.{name}{suffix}.weight"));
            let down = format!("blk.{index}.ffn_down{suffix}.weight");
            let biases =
                ["ffn_gate", "ffn_up"].map(|name| format!("blk.{index}.{name}{suffix}.bias"));
            let names = up.iter().chain([&down]);
            if old == new
                || old == 0
                || !names.clone().all(|name| is_floats(file, name, old.saturating_mul(embedding)))
            {
                continue;
            }
            for name in &up {
                pad(file, name, (embedding, old), (embedding, new))?;
            }
            pad(file, &down, (old, embedding), (new, embedding))?;
            for name in &biases {
                if is_floats(file, name, old) {
                    pad(file, name, (old, 1), (new, 1))?;
                }
            }
            *width = new;
        }
    }
    Ok(())
}

/// The hidden widths of a layer, with what their tensors' names end in.
fn widths(layer: &mut LayerSpec) -> Vec<(&'static str, &mut usize)> {
    match &mut layer.feed_forward {
        FeedForward::None => vec![],
        FeedForward::Gated { width } | FeedForward::Plain { width } => vec![("", width)],
        FeedForward::Experts(experts) => {
            experts.shared.iter_mut().map(|shared| ("_shexp", &mut shared.width)).collect()
        }
    }
}

/// Whether the file has such a tensor of so many floats. (A network without a gate has none.)
fn is_floats(file: &Gguf, name: &str, elements: usize) -> bool {
    file.tensor(name).is_some_and(|tensor| {
        tensor.elements() == elements as u64
            && file.format(tensor).is_ok_and(|format| !format.has_codes())
    })
}

/// Replaces a matrix of floats by one with more columns and rows, of zeros.
fn pad(
    file: &mut Gguf,
    name: &str,
    (columns, rows): (usize, usize),
    (new_columns, new_rows): (usize, usize),
) -> Result<()> {
    let tensor = file.require(name)?;
    let format: Format = file.format(tensor)?;
    let bytes = format.block_bytes();
    let mut data = vec![0; columns * rows * bytes];
    file.read(tensor, 0, &mut data)?;
    let mut padded = vec![0; new_columns * new_rows * bytes];
    let old = data.chunks_exact(columns * bytes);
    for (row, old) in padded.chunks_exact_mut(new_columns * bytes).zip(old) {
        row[..old.len()].copy_from_slice(old);
    }
    let shape = vec![new_columns as u64, new_rows as u64];
    file.replace(name, shape, Arc::new(BytesSource::new(name, padded)))?;
    Ok(())
}

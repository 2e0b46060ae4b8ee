//! Widths that kernels do not count by: when a file is opened, its matrices are padded with zeros to the next width that
//! they do. A padded number is 0 wherever it is computed and meets weights of 0 wherever it is read, so results are those
//! of the file; only norms have to know how many numbers there are.
//!
//! Rows that a product reads (the stream, hidden layers, heads side by side, what is compressed) are made multiples of
//! [`UNIT`], heads by themselves of [`HEAD_UNIT`]. Rows can be added to a matrix of any format, columns to floats only;
//! a format of blocks has multiples of 32 already.

mod axes;

use std::sync::Arc;

use gguf::{BytesSource, Format, Gguf, TensorInfo};

use super::{FeedForward, Latent, LayerSpec, Spec};
use crate::{Error, Result};
use axes::{Axis, axes_of};

/// What widths of rows are made multiples of.
const UNIT: usize = 32;
/// What lengths of heads are made multiples of.
const HEAD_UNIT: usize = 8;
/// Matrices may become so many times as large, and this many bytes more: memory stays bounded by the file.
const MOST_GROWTH: (u64, u64) = (4, 64 << 20);

/// Pads what needs it, in the Spec and in the file.
pub(super) fn pad(file: &mut Gguf, spec: &mut Spec) -> Result<()> {
    let old = spec.clone();
    spec.embedding = spec.embedding.next_multiple_of(UNIT);
    // What a row of heads is multiplied with decides whether heads can grow: in all layers alike, some share a cache.
    let outputs = (0..spec.layers.len()).map(|index| format!("blk.{index}.attn_output.weight"));
    let heads_grow =
        outputs.filter_map(|name| file.tensor(&name)).all(|output| has_floats(file, output));
    for layer in &mut spec.layers {
        widen(layer, heads_grow);
    }
    let changes = file
        .tensors
        .iter()
        .filter_map(|tensor| Some((tensor.name.clone(), axes_of(file, tensor, &old, spec)?)))
        .filter(|(_, axes)| axes.iter().any(Axis::grows))
        .collect::<Vec<_>>();
    let (mut before, mut after) = (0u64, 0u64);
    for (name, axes) in &changes {
        let (from, to) = sizes(file, file.require(name)?, axes)?;
        (before, after) = (before.saturating_add(from), after.saturating_add(to));
    }
    if after > before.saturating_mul(MOST_GROWTH.0).saturating_add(MOST_GROWTH.1) {
        return Err(Error::Model {
            file: file.file().into(),
            why: format!(
                "its widths are far from those that can be computed with: {before} bytes of weights would take {after}"
            ),
        });
    }
    for (name, axes) in changes {
        pad_tensor(file, &name, &axes)?;
    }
    Ok(())
}

/// Gives a layer the widths that kernels count by.
fn widen(layer: &mut LayerSpec, heads_grow: bool) {
    (layer.key_numbers, layer.value_numbers) = (layer.key_length, layer.value_length);
    match &mut layer.feed_forward {
        FeedForward::None => {}
        FeedForward::Gated { width } | FeedForward::Plain { width } => widen_to(width, UNIT),
        FeedForward::GatedAndExperts { width, experts } => {
            widen_to(width, UNIT);
            widen_to(&mut experts.width, UNIT);
        }
        FeedForward::Experts(experts) => {
            widen_to(&mut experts.width, UNIT);
            if let Some(shared) = &mut experts.shared {
                widen_to(&mut shared.width, UNIT);
            }
        }
    }
    if !layer.attention {
        return;
    }
    let heads = layer.heads;
    if let Some(latent) = &mut layer.latent {
        widen_latent(latent, heads, heads_grow);
        let Latent { rank, plain, turned, value, compressed, .. } = *latent;
        (layer.key_length, layer.value_length) =
            if compressed { (rank + turned, rank) } else { (plain + turned, value) };
    } else if heads_grow {
        let alike = layer.key_length == layer.value_length;
        widen_heads(&mut layer.value_length, heads);
        widen_to(&mut layer.key_length, HEAD_UNIT);
        // Where v is made of k, or gated like q, both keep one length.
        if alike {
            layer.key_length = layer.value_length;
        }
    }
}

fn widen_latent(latent: &mut Latent, heads: usize, heads_grow: bool) {
    if let Some((_, width)) = &mut latent.query_rank {
        widen_to(width, UNIT);
    }
    widen_to(&mut latent.rank, UNIT);
    widen_to(&mut latent.plain, UNIT);
    widen_to(&mut latent.turned, HEAD_UNIT);
    if heads_grow {
        widen_heads(&mut latent.value, heads);
    }
}

fn widen_to(width: &mut usize, unit: usize) {
    // Numbers out of all range are refused later.
    *width = width.checked_next_multiple_of(unit).unwrap_or(*width);
}

/// The next length of which so many heads make a row that can be multiplied with.
fn widen_heads(length: &mut usize, heads: usize) {
    if *length == 0 || heads == 0 {
        return;
    }
    widen_to(length, HEAD_UNIT);
    let fits = |length: usize| length.saturating_mul(heads).is_multiple_of(UNIT);
    *length = (0..UNIT / HEAD_UNIT)
        .map(|more| *length + more * HEAD_UNIT)
        .find(|&length| fits(length))
        .unwrap_or(*length);
}

fn has_floats(file: &Gguf, tensor: &TensorInfo) -> bool {
    file.format(tensor).is_ok_and(|format| !format.has_codes())
}

/// A tensor's bytes before and after; an error where its format can have no more columns.
fn sizes(file: &Gguf, tensor: &TensorInfo, [columns, rows]: &[Axis; 2]) -> Result<(u64, u64)> {
    let format = file.format(tensor)?;
    if columns.grows() && format.has_codes() {
        return Err(Error::Model {
            file: file.source(tensor).name().into(),
            why: format!(
                "tensor {} has rows of {} weights in {}, which cannot be computed with; use the model in F16 or another quantization",
                tensor.name,
                columns.numbers(),
                format.name()
            ),
        });
    }
    let bytes = row_bytes(format, columns.width()) as u64;
    let after = bytes.saturating_mul(rows.width() as u64);
    Ok((tensor.bytes.unwrap_or(0), after))
}

fn row_bytes(format: Format, columns: usize) -> usize {
    columns / format.block_size() * format.block_bytes()
}

/// Replaces a tensor by one with the zeros that its axes ask for.
fn pad_tensor(file: &mut Gguf, name: &str, [columns, rows]: &[Axis; 2]) -> Result<()> {
    let tensor = file.require(name)?;
    let format = file.format(tensor)?;
    let mut data = vec![0; tensor.bytes.unwrap_or(0) as usize];
    file.read(tensor, 0, &mut data)?;
    let (old, new) = (row_bytes(format, columns.numbers()), row_bytes(format, columns.width()));
    let mut padded = vec![0; new * rows.width()];
    let element = format.block_bytes();
    for (from, to) in rows.pairs() {
        let (from, to) = (&data[from * old..][..old], &mut padded[to * new..][..new]);
        if columns.grows() {
            for (x, y) in columns.pairs() {
                to[y * element..][..element].copy_from_slice(&from[x * element..][..element]);
            }
        } else {
            to.copy_from_slice(from);
        }
    }
    let shape = vec![columns.width() as u64, rows.width() as u64];
    file.replace(name, shape, Arc::new(BytesSource::new(name, padded)))?;
    Ok(())
}

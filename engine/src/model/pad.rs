//! Hidden widths that are no multiple of 32, which every kernel counts by: their matrices, if they are of floats, are
//! padded with zeros when the file is opened. A padded hidden number is 0 (activation(0) * 0 in a network) and meets
//! weights of 0.

use std::sync::Arc;

use gguf::{BytesSource, Gguf};

use super::spec::{FeedForward, LayerSpec, PerLayerInput, Spec};
use crate::Result;

/// What widths are made multiples of.
const UNIT: usize = 32;

/// Pads what needs it, in the Spec and in the file.
pub(super) fn pad(file: &mut Gguf, spec: &mut Spec) -> Result<()> {
    pad_networks(file, spec)?;
    pad_queries(file, spec)?;
    pad_layer_inputs(file, spec)
}

/// The networks.
fn pad_networks(file: &mut Gguf, spec: &mut Spec) -> Result<()> {
    let embedding = spec.embedding;
    for (index, layer) in spec.layers.iter_mut().enumerate() {
        for (suffix, width) in widths(layer) {
            let (old, new) = (*width, width.next_multiple_of(UNIT));
            let name = |part: &str| format!("blk.{index}.{part}{suffix}");
            let gate = file.tensor(&format!("{}.weight", name("ffn_gate"))).is_some();
            let ups =
                if gate { vec![name("ffn_gate"), name("ffn_up")] } else { vec![name("ffn_up")] };
            let down = format!("{}.weight", name("ffn_down"));
            let elements = old.saturating_mul(embedding);
            let all_floats = is_floats(file, &down, elements)
                && ups.iter().all(|up| is_floats(file, &format!("{up}.weight"), elements));
            if old == new || old == 0 || !all_floats {
                continue;
            }
            for up in &ups {
                let shape = [embedding, new];
                pad_matrix(file, &format!("{up}.weight"), (embedding, old), shape.into(), shape)?;
                let bias = format!("{up}.bias");
                if is_floats(file, &bias, old) {
                    pad_matrix(file, &bias, (old, 1), (new, 1), [new, 1])?;
                }
            }
            pad_matrix(file, &down, (old, embedding), (new, embedding), [new, embedding])?;
            *width = new;
        }
    }
    Ok(())
}

/// Queries that are compressed to such a width.
fn pad_queries(file: &mut Gguf, spec: &Spec) -> Result<()> {
    for (index, layer) in spec.layers.iter().enumerate() {
        let Some(latent) = layer.latent else { continue };
        let Some((old, new)) = latent.query_rank else { continue };
        let names = ["attn_q_a", "attn_q_b"].map(|name| format!("blk.{index}.{name}.weight"));
        let width = (latent.plain + latent.turned).saturating_mul(layer.heads);
        let elements = [spec.embedding, width].map(|n| n.saturating_mul(old));
        if old != new && names.iter().zip(elements).all(|(name, n)| is_floats(file, name, n)) {
            let columns = spec.embedding;
            let shape = [columns, new];
            pad_matrix(file, &names[0], (columns, old), shape.into(), shape)?;
            pad_matrix(file, &names[1], (old, width), (new, width), [new, width])?;
        }
    }
    Ok(())
}

/// What each layer is given of the token.
fn pad_layer_inputs(file: &mut Gguf, spec: &Spec) -> Result<()> {
    let Some(PerLayerInput { width: old, padded: new }) = spec.per_layer else { return Ok(()) };
    let (columns, layers) = (spec.embedding, spec.layers.len());
    let all = layers.saturating_mul(old);
    let (table, project) = ("per_layer_token_embd.weight", "per_layer_model_proj.weight");
    let small = is_floats(file, table, all.saturating_mul(spec.vocabulary))
        && is_floats(file, project, all.saturating_mul(columns));
    if old == new || !small {
        return Ok(());
    }
    // Seen as a row a layer, so that each layer's part grows.
    let rows = layers * spec.vocabulary;
    pad_matrix(file, table, (old, rows), (new, rows), [layers * new, spec.vocabulary])?;
    let sizes = (old * columns, layers);
    pad_matrix(file, project, sizes, (new * columns, layers), [columns, layers * new])?;
    for index in 0..layers {
        let [gate, out] = ["inp_gate", "proj"].map(|name| format!("blk.{index}.{name}.weight"));
        if [&gate, &out].iter().all(|name| is_floats(file, name, old.saturating_mul(columns))) {
            let shape = [columns, new];
            pad_matrix(file, &gate, (columns, old), shape.into(), shape)?;
            pad_matrix(file, &out, (old, columns), (new, columns), [new, columns])?;
        }
    }
    Ok(())
}

/// The hidden widths of a layer, with what their tensors' names end in.
fn widths(layer: &mut LayerSpec) -> Vec<(&'static str, &mut usize)> {
    match &mut layer.feed_forward {
        FeedForward::None => vec![],
        FeedForward::Gated { width }
        | FeedForward::Plain { width }
        | FeedForward::GatedAndExperts { width, .. } => vec![("", width)],
        FeedForward::Experts(experts) => {
            experts.shared.iter_mut().map(|shared| ("_shexp", &mut shared.width)).collect()
        }
    }
}

/// Whether the file has such a tensor of so many floats.
fn is_floats(file: &Gguf, name: &str, elements: usize) -> bool {
    file.tensor(name).is_some_and(|tensor| {
        tensor.elements() == elements as u64
            && file.format(tensor).is_ok_and(|format| !format.has_codes())
    })
}

/// Replaces a matrix of floats (columns, rows), or what is seen as one, by one with more columns and rows, of zeros; the
/// tensor then has `shape`.
fn pad_matrix(
    file: &mut Gguf,
    name: &str,
    (columns, rows): (usize, usize),
    (new_columns, new_rows): (usize, usize),
    shape: [usize; 2],
) -> Result<()> {
    let tensor = file.require(name)?;
    let bytes = file.format(tensor)?.block_bytes();
    let mut data = vec![0; columns * rows * bytes];
    file.read(tensor, 0, &mut data)?;
    let mut padded = vec![0; new_columns * new_rows * bytes];
    let old = data.chunks_exact(columns * bytes);
    for (row, old) in padded.chunks_exact_mut(new_columns * bytes).zip(old) {
        row[..old.len()].copy_from_slice(old);
    }
    let shape = shape.map(|n| n as u64).to_vec();
    file.replace(name, shape, Arc::new(BytesSource::new(name, padded)))?;
    Ok(())
}

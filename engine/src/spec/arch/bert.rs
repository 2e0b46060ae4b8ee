//! bert and nomic-bert: encoders, which make a vector of a text (`src/models/bert.cpp` in llama.cpp).
//!
//! Tokens see all others; each branch's sum with the stream is normed, by mean and variance. bert adds a row for the
//! position and has plain GELU networks (the tanh form, as llama.cpp computes it); nomic-bert turns q and k and has gated
//! SiLU.

use super::{Keys, Result, Spec, decoder_with};
use crate::spec::rope::{RopeFactors, RopeStyle};
use crate::spec::{Activation, FeedForward, NormKind, Pooling};

pub(super) fn bert(keys: &Keys) -> Result<Spec> {
    let mut spec = encoder(keys)?;
    spec.activation = Activation::Gelu;
    for layer in &mut spec.layers {
        layer.rope = None;
        layer.feed_forward = FeedForward::Plain { width: layer.feed_forward.width() };
    }
    Ok(spec)
}

pub(super) fn nomic_bert(keys: &Keys) -> Result<Spec> {
    encoder(keys)
}

fn encoder(keys: &Keys) -> Result<Spec> {
    let mut spec = decoder_with(keys, RopeStyle::Halves, NormKind::Layer)?;
    spec.pre_norms = false;
    spec.norm_sums = true;
    // Whatever attention.causal says, as in llama.cpp.
    for layer in &mut spec.layers {
        layer.causal = false;
    }
    spec.positions = keys.file().tensor("position_embd.weight").map(|table| table.rows() as usize);
    spec.ropes[0].factors = RopeFactors::None;
    spec.pooling = spec.pooling.or(Some(Pooling::Mean));
    Ok(spec)
}

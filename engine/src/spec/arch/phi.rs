//! phi2 and phi3: Phi 2, and Phi 3 to 4 with their kind (`src/models/phi2.cpp` and `phi3.cpp` in llama.cpp).
//!
//! phi2 has norms by mean and variance, both branches on the same normed stream, a plain GELU network and biases
//! everywhere. phi3 is as llama with rope on halves, fused matrices (read wherever a file has them), and short and long
//! divisors of its frequencies. phi3's `attention.sliding_window` is ignored, as in llama.cpp.

use super::{Keys, Result, Spec, decoder, decoder_with};
use crate::spec::rope::RopeStyle;
use crate::spec::{Activation, FeedForward, NormKind};

pub(super) fn phi2(keys: &Keys) -> Result<Spec> {
    let mut spec = decoder_with(keys, RopeStyle::Halves, NormKind::Layer)?;
    spec.parallel = true;
    spec.activation = Activation::Gelu;
    for layer in &mut spec.layers {
        layer.feed_forward = FeedForward::Plain { width: layer.feed_forward.width() };
    }
    Ok(spec)
}

pub(super) fn phi3(keys: &Keys) -> Result<Spec> {
    decoder(keys, RopeStyle::Halves)
}

//! starcoder2: StarCoder 2 (`src/models/starcoder2.cpp` in llama.cpp): norms by mean and variance, rope on halves, a
//! plain GELU network, biases everywhere.

use super::{Keys, Result, Spec, decoder_with};
use crate::spec::rope::RopeStyle;
use crate::spec::{Activation, FeedForward, NormKind};

pub(super) fn spec(keys: &Keys) -> Result<Spec> {
    let mut spec = decoder_with(keys, RopeStyle::Halves, NormKind::Layer)?;
    spec.activation = Activation::Gelu;
    for layer in &mut spec.layers {
        layer.feed_forward = FeedForward::Plain { width: layer.feed_forward.width() };
    }
    Ok(spec)
}

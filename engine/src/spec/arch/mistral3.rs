//! mistral3: Mistral Small 3.1 and later, Ministral 3 (`src/models/mistral3.cpp` in llama.cpp).
//!
//! As llama, with YaRN whose ramp and magnitude the file sets, and q growing with the logarithm of the position.

use super::{Keys, Result, Spec, decoder, original_context, with_experts, yarn_magnitude};
use crate::spec::Temperature;
use crate::spec::rope::{RopeScaling, RopeStyle};

pub(super) fn spec(keys: &Keys) -> Result<Spec> {
    let mut spec = decoder(keys, RopeStyle::Interleaved)?;
    let number = |name: &str| -> Result<Option<f64>> { Ok(keys.number(name)?.map(f64::from)) };
    let of_multiplier = number("rope.scaling.yarn_log_multiplier")?.filter(|&l| l != 0.0);
    if let RopeScaling::Yarn { factor, magnitude, beta_fast, beta_slow, .. } =
        &mut spec.ropes[0].scaling
    {
        *beta_fast = number("rope.scaling.yarn_beta_fast")?.unwrap_or(*beta_fast);
        *beta_slow = number("rope.scaling.yarn_beta_slow")?.unwrap_or(*beta_slow);
        if let Some(multiplier) = of_multiplier {
            *magnitude /= yarn_magnitude(*factor, multiplier);
        }
    }
    let scale = keys.number("attention.temperature_scale")?.filter(|&scale| scale != 0.0);
    let length = original_context(keys)?;
    for layer in &mut spec.layers {
        layer.temperature = scale.map(|scale| Temperature { scale, length });
    }
    let width = match keys.count("expert_feed_forward_length")? {
        Some(width) => width,
        None => spec.layers[0].feed_forward.width(),
    };
    with_experts(keys, &mut spec, width, true)?;
    Ok(spec)
}

//! olmo2: OLMo 2 and 3 (`src/models/olmo2.cpp` in llama.cpp).
//!
//! Branches read the stream as it is and their outputs are normed; q and k are normed over all heads at once. OLMo 3
//! has windows; layers with one turn plainly, the others by YaRN.

use super::{Keys, Result, Spec, decoder, with_windows};
use crate::spec::QkNorm;
use crate::spec::rope::{RopeScaling, RopeStyle};

pub(super) fn spec(keys: &Keys) -> Result<Spec> {
    let mut spec = decoder(keys, RopeStyle::Halves)?;
    spec.pre_norms = false;
    spec.post_norms = true;
    spec.qk_norm = QkNorm::Row;
    if let Some(window) = keys.count("attention.sliding_window")?.filter(|&window| window > 0) {
        let mut window_rope = spec.ropes[0].clone();
        window_rope.scaling = RopeScaling::Linear { factor: 1.0, magnitude: 1.0 };
        spec.ropes.push(window_rope);
        with_windows(keys, &mut spec, window, 4, 1)?;
    }
    Ok(spec)
}

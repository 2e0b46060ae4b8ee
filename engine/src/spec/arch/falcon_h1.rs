//! falcon-h1: Falcon H1 (`src/models/falcon-h1.cpp` in llama.cpp): attention and a Mamba-2 mixer side by side in every
//! layer, then gated SiLU. The family's multipliers are in the weights.

use super::{Keys, Result, Spec, decoder, mamba2};
use crate::spec::Recurrent;
use crate::spec::rope::{RopeFactors, RopeStyle};

pub(super) fn spec(keys: &Keys) -> Result<Spec> {
    let mut spec = decoder(keys, RopeStyle::Halves)?;
    // The file may hold divisors, which llama.cpp does not apply.
    spec.ropes[0].factors = RopeFactors::None;
    let mamba = mamba2::mixer(keys)?;
    for layer in &mut spec.layers {
        layer.recurrent = Some(Recurrent::Mamba2(mamba));
    }
    Ok(spec)
}

//! gemma, gemma2 and gemma3: Gemma 1 to 3, text (`src/models/gemma.cpp` and its neighbours in llama.cpp).
//!
//! Scaled embeddings, rope on halves, gated GELU. gemma2 and gemma3 norm before and after both branches and have
//! windows in some layers; gemma2 kernels scores and logits; gemma3 norms q and k, and its windowed layers
//! turn by a rotation of their own.

use super::{Keys, Result, Spec, decoder, with_windows};
use crate::spec::rope::{RopeFactors, RopeScaling, RopeStyle};
use crate::spec::{Activation, QkNorm};

/// Layers of the 27B models, whose scale llama.cpp chooses by this number.
const LAYERS_27B_2: usize = 46;
const LAYERS_27B_3: usize = 62;

pub(super) fn gemma(keys: &Keys) -> Result<Spec> {
    let mut spec = decoder(keys, RopeStyle::Halves)?;
    spec.embedding_scale = (spec.embedding as f32).sqrt();
    spec.activation = Activation::Gelu;
    spec.ropes[0].factors = RopeFactors::None;
    Ok(spec)
}

pub(super) fn gemma2(keys: &Keys) -> Result<Spec> {
    let mut spec = gemma(keys)?;
    spec.post_norms = true;
    spec.logit_softcap = softcap(keys, "final_logit_softcapping", 30.0)?;
    let cap = softcap(keys, "attn_logit_softcapping", 50.0)?;
    for layer in &mut spec.layers {
        layer.softcap = cap;
    }
    scale_27b(&mut spec, LAYERS_27B_2);
    let window = keys.count("attention.sliding_window")?.unwrap_or(4096);
    let mut window_rope = spec.ropes[0].clone();
    window_rope.base = keys.number("rope.freq_base_swa")?.map_or(window_rope.base, f64::from);
    spec.ropes.push(window_rope);
    if window > 0 {
        with_windows(keys, &mut spec, window, 2, 1)?;
    }
    Ok(spec)
}

pub(super) fn gemma3(keys: &Keys) -> Result<Spec> {
    let mut spec = gemma(keys)?;
    spec.post_norms = true;
    spec.qk_norm = QkNorm::Heads;
    spec.logit_softcap = keys.number("final_logit_softcapping")?.filter(|&cap| cap != 0.0);
    scale_27b(&mut spec, LAYERS_27B_3);
    let mut window_rope = spec.ropes[0].clone();
    window_rope.base = keys.number("rope.freq_base_swa")?.map_or(10000.0, f64::from);
    window_rope.scaling = RopeScaling::Linear { factor: 1.0, magnitude: 1.0 };
    spec.ropes.push(window_rope);
    // Without a window no layer has one, and all turn alike.
    if let Some(window) = keys.count("attention.sliding_window")?.filter(|&window| window > 0) {
        with_windows(keys, &mut spec, window, 6, 1)?;
    }
    Ok(spec)
}

/// A cap, if it is not 0.
fn softcap(keys: &Keys, name: &str, default: f32) -> Result<Option<f32>> {
    Ok(Some(keys.number(name)?.unwrap_or(default)).filter(|&cap| cap != 0.0))
}

/// The largest model's scores are scaled by the width of the stream a head, not by the head's length.
fn scale_27b(spec: &mut Spec, layers: usize) {
    if spec.layers.len() == layers {
        for layer in &mut spec.layers {
            layer.attention_scale = 1.0 / ((spec.embedding / layer.heads) as f32).sqrt();
        }
    }
}

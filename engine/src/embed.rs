//! A text's embedding: the states of its tokens made one vector.

use crate::spec::ModelFile;
use crate::spec::{Pooling, Spec};
use crate::step::StepToken;
use crate::{Context, Error, Model, Result};

/// The embedding of a text's ids in an embedding model, as it comes out of the model: not of length 1.
pub fn embed(model: &Model, context: &mut Context, ids: &[u32]) -> Result<Vec<f32>> {
    let spec = &model.file().spec;
    let Some(pooling) = spec.pooling else {
        let why = format!(
            "the architecture {} as in this file gives no embeddings (it has no pooling_type); use an embedding model",
            spec.architecture
        );
        return Err(Error::unsupported(why, None));
    };
    if ids.is_empty() {
        return Err(Error::Option("the text has no tokens: give some text".into()));
    }
    let (positions, chunk) = (context.positions(), context.sizes().chunk);
    check_length(
        spec,
        ids.len(),
        if spec.sees_ahead() { positions.min(chunk) } else { positions },
    )?;
    let sequence = context.sequence()?;
    let mut tokens = StepToken::run(sequence.id(), 0, ids, true);
    // Encoders that norm sums give the states of all tokens in any case.
    if pooling == Pooling::Last && !spec.norm_sums {
        let last = tokens.len() - 1;
        tokens[..last].iter_mut().for_each(|token| token.want_logits = false);
    }
    let mut sum: Vec<f64> = Vec::new();
    let mut rows = 0;
    let outcome = context.step_with(
        &tokens,
        &mut |state| {
            // Zeros fill the width.
            let state = &state[..spec.embedding_numbers];
            rows += 1;
            match pooling {
                Pooling::First if rows > 1 => {}
                Pooling::Mean if rows > 1 => {
                    for (sum, &x) in sum.iter_mut().zip(state) {
                        *sum += f64::from(x);
                    }
                }
                _ => sum = state.iter().map(|&x| f64::from(x)).collect(),
            }
        },
        &mut || false,
    );
    outcome?;
    let count = if pooling == Pooling::Mean { f64::from(rows) } else { 1.0 };
    for x in &mut sum {
        *x /= count;
    }
    let vector = model.projection()?.apply(sum);
    Ok(vector.into_iter().map(|x| x as f32).collect())
}

/// How many numbers a model's embeddings have.
pub fn dimensions(model: &ModelFile) -> usize {
    let layers = ["dense_3.weight", "dense_2.weight"];
    let last = layers.iter().find_map(|name| model.gguf.tensor(name));
    last.map_or(model.spec.embedding_numbers, |tensor| tensor.rows() as usize)
}

/// Refuses a text that is longer than the `room` of a context.
fn check_length(spec: &Spec, tokens: usize, room: usize) -> Result<()> {
    if tokens <= room {
        return Ok(());
    }
    let most = spec.context_length.min(spec.most_positions());
    Err(Error::TextTooLong { tokens, room, most })
}

/// A vector of length 1 in the direction of `vector`.
pub fn normalized(vector: &[f32]) -> Vec<f32> {
    let length = vector.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    vector.iter().map(|&x| (f64::from(x) / length.max(f64::MIN_POSITIVE)) as f32).collect()
}

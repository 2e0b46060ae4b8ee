//! A text's embedding: the states of its tokens made one vector.

use std::sync::{Arc, Mutex, PoisonError};

use crate::scheduler::Scheduler;
use crate::spec::ModelFile;
use crate::spec::{Pooling, Spec};
use crate::{Error, Result};

/// The embedding of a text's ids in an embedding model, as it comes out of the model: not of length 1.
pub fn embed(scheduler: &Scheduler, ids: &[u32]) -> Result<Vec<f32>> {
    let model = scheduler.model();
    let spec = &model.file().spec;
    let Some(pooling) = spec.pooling else {
        let why = format!(
            "the architecture {} as in this file gives no embeddings (it has no pooling_type); use an embedding model",
            spec.architecture
        );
        return Err(Error::unsupported(why, None));
    };
    if ids.is_empty() {
        return Err(Error::EmptyPrompt);
    }
    let (positions, chunk) = (scheduler.positions(), scheduler.chunk());
    check_length(
        spec,
        ids.len(),
        if spec.sees_ahead() { positions.min(chunk) } else { positions },
    )?;
    // Encoders that norm sums give the states of all tokens in any case.
    let only_last = pooling == Pooling::Last && !spec.norm_sums;
    let wanted = (if only_last { ids.len() - 1 } else { 0 }, ids.len());
    let pooled = Arc::new(Mutex::new(Pooled::default()));
    let (of_rows, numbers) = (pooled.clone(), spec.embedding_numbers);
    // Zeros fill the width.
    scheduler.rows(ids.to_vec(), wanted, move |state| {
        of_rows.lock().unwrap_or_else(PoisonError::into_inner).add(&state[..numbers], pooling);
    })?;
    let mut pooled = pooled.lock().unwrap_or_else(PoisonError::into_inner);
    let count = if pooling == Pooling::Mean { f64::from(pooled.rows) } else { 1.0 };
    for x in &mut pooled.sum {
        *x /= count;
    }
    let vector = model.projection()?.apply(std::mem::take(&mut pooled.sum));
    Ok(vector.into_iter().map(|x| x as f32).collect())
}

/// States made one vector.
#[derive(Default)]
struct Pooled {
    sum: Vec<f64>,
    rows: u32,
}

impl Pooled {
    fn add(&mut self, state: &[f32], pooling: Pooling) {
        self.rows += 1;
        match pooling {
            Pooling::First if self.rows > 1 => {}
            Pooling::Mean if self.rows > 1 => {
                for (sum, &x) in self.sum.iter_mut().zip(state) {
                    *sum += f64::from(x);
                }
            }
            _ => self.sum = state.iter().map(|&x| f64::from(x)).collect(),
        }
    }
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

//! How well a model predicts a text, computed as llama.cpp's `llama-perplexity` does: the text in chunks of a context's
//! length, each on its own, of which the second half counts.

use std::sync::{Arc, Mutex, PoisonError};

use crate::scheduler::Scheduler;
use crate::{Error, Result};

/// What was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Perplexity {
    /// e to the mean negative log-probability of the tokens.
    pub value: f64,
    /// Its standard error, tokens taken to be independent.
    pub error: f64,
    /// Tokens that count.
    pub tokens: usize,
    /// Chunks computed.
    pub chunks: usize,
}

/// Sums over tokens.
#[derive(Default)]
struct Sums {
    tokens: usize,
    negative_log: f64,
    squares: f64,
}

impl Sums {
    fn add(&mut self, logits: &[f32], id: u32) {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total: f64 = logits.iter().map(|&logit| f64::from(logit - max).exp()).sum();
        let of_token = total.ln() - f64::from(logits[id as usize] - max);
        self.tokens += 1;
        self.negative_log += of_token;
        self.squares += of_token * of_token;
    }

    fn perplexity(&self, chunks: usize) -> Perplexity {
        let count = self.tokens as f64;
        let mean = self.negative_log / count;
        let value = mean.exp();
        let variance = (self.squares / count - mean * mean).max(0.0);
        let error = value * (variance / (count - 1.0).max(1.0)).sqrt();
        Perplexity { value, error, tokens: self.tokens, chunks }
    }
}

/// Measures a model on the ids of a text, in chunks of `length` tokens of which at most `most` are computed; `on_chunk`
/// gets what is known after each, and how many there will be. Each chunk starts with BOS where the tokenizer adds it.
pub fn measure(
    scheduler: &Scheduler,
    ids: &[u32],
    length: usize,
    most: Option<usize>,
    on_chunk: &mut dyn FnMut(Perplexity, usize),
) -> Result<Perplexity> {
    let model = scheduler.model();
    model.file().language_model()?;
    let tokenizer = model.tokenizer()?;
    if most == Some(0) {
        return Err(Error::Option("no chunk is to be computed: ask for at least one".into()));
    }
    if length < 4 {
        return Err(Error::Option(format!(
            "chunks of {length} tokens are too short to measure: 4 are the least"
        )));
    }
    if length > scheduler.positions() {
        return Err(Error::Option(format!(
            "chunks of {length} tokens do not fit a context of {}",
            scheduler.positions()
        )));
    }
    // llama-perplexity asks for two chunks, so that a short text is not taken for a measurement.
    if ids.len() < 2 * length {
        return Err(Error::Option(format!(
            "the text has {} tokens, at least {} are needed for chunks of {length}: give a longer text or shorter chunks",
            ids.len(),
            2 * length
        )));
    }
    let chunks = (ids.len() / length).min(most.unwrap_or(usize::MAX));
    let first = length / 2;
    let sums = Arc::new(Mutex::new(Sums::default()));
    let known = |sums: &Mutex<Sums>, chunks| {
        sums.lock().unwrap_or_else(PoisonError::into_inner).perplexity(chunks)
    };
    for (index, chunk) in ids.chunks_exact(length).take(chunks).enumerate() {
        let mut fed = chunk.to_vec();
        if tokenizer.add_bos
            && let Some(bos) = tokenizer.bos
        {
            fed[0] = bos;
        }
        let counted = chunk[first + 1..].to_vec();
        let mut next = 0;
        let of_rows = sums.clone();
        scheduler.rows(fed, (first, length - 1), move |logits| {
            if let Some(&id) = counted.get(next) {
                of_rows.lock().unwrap_or_else(PoisonError::into_inner).add(logits, id);
                next += 1;
            }
        })?;
        on_chunk(known(&sums, index + 1), chunks);
    }
    Ok(known(&sums, chunks))
}

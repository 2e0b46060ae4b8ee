//! Which values may share a buffer: memory is known before anything is allocated.

use super::{Plan, Rows};

/// Where each value lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buffers {
    /// The buffer of each value.
    pub buffer_of: Vec<usize>,
    /// The size of each buffer in floats.
    pub floats: Vec<usize>,
}

/// Assigns buffers for steps of up to `tokens` tokens and `outputs` wanted logits.
///
/// Values alive together never share a buffer, and a buffer that the previous op used is not handed out
/// again at once, so that independent ops need no barrier.
pub fn place(plan: &Plan, tokens: usize, outputs: usize) -> Buffers {
    let count = plan.values.len();
    let mut first = vec![usize::MAX; count];
    let mut last = vec![0; count];
    for (index, op) in plan.ops.iter().enumerate() {
        let (reads, writes) = op.uses();
        for value in reads.iter().chain(&writes) {
            first[value.0] = first[value.0].min(index);
            last[value.0] = last[value.0].max(index);
        }
    }
    // The caller reads the logits after the last op (and has written them where no op does).
    last[plan.logits.0] = plan.ops.len();
    first[plan.logits.0] = first[plan.logits.0].min(plan.ops.len());

    let mut order: Vec<usize> = (0..count).filter(|&value| first[value] != usize::MAX).collect();
    order.sort_by_key(|&value| first[value]);
    let mut buffer_of = vec![usize::MAX; count];
    let mut floats: Vec<usize> = Vec::new();
    let mut free_after: Vec<usize> = Vec::new();
    for value in order {
        let rows = match plan.values[value].rows {
            Rows::Tokens => tokens,
            Rows::Outputs => outputs,
        };
        let size = plan.values[value].width * rows;
        // The buffer whose size fits best among those that have rested for an op.
        let best =
            (0..floats.len()).filter(|&buffer| free_after[buffer] + 1 < first[value]).min_by_key(
                |&buffer| (size.saturating_sub(floats[buffer]), floats[buffer].abs_diff(size)),
            );
        let buffer = best.unwrap_or_else(|| {
            floats.push(0);
            free_after.push(0);
            floats.len() - 1
        });
        floats[buffer] = floats[buffer].max(size);
        free_after[buffer] = last[value];
        buffer_of[value] = buffer;
    }
    Buffers { buffer_of, floats }
}

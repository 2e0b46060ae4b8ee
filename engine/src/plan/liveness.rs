//! Which values may share a buffer: memory is known before anything is allocated.

use std::collections::HashMap;

use super::{Plan, Rows, ValueId};

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
/// again at once, so that independent ops need no barrier. What an op changes keeps its buffer, where nothing reads it as
/// it was later: then the op works in place. (Else an executor copies it first.)
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
    let mut before = HashMap::new();
    for op in plan.ops.iter().filter(|op| op.may_work_in_place()) {
        before.extend(op.before().map(|value| (op.result(), value)));
    }
    // The caller reads the logits after the last op (and has written them where no op does).
    last[plan.logits.0] = plan.ops.len();
    first[plan.logits.0] = first[plan.logits.0].min(plan.ops.len());

    let mut order: Vec<usize> = (0..count).filter(|&value| first[value] != usize::MAX).collect();
    // What becomes another is placed before that.
    order.sort_by_key(|&value| (first[value], before.contains_key(&ValueId(value))));
    let mut buffer_of = vec![usize::MAX; count];
    let mut floats: Vec<usize> = Vec::new();
    let mut free_after: Vec<usize> = Vec::new();
    for value in order {
        let dies = |before: &&ValueId| {
            let [was, is] = [before.0, value].map(|id| &plan.values[id]);
            last[before.0] == first[value] && (was.width, was.rows) == (is.width, is.rows)
        };
        if let Some(before) = before.get(&ValueId(value)).filter(dies) {
            let buffer = buffer_of[before.0];
            buffer_of[value] = buffer;
            free_after[buffer] = last[value];
            continue;
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Parts, Value, op};

    /// x1 = 2 x0, x2 = 2 x1, and then the product of x2 with one of them.
    fn plan(read_later: usize) -> Plan {
        let value = Value { name: "x", width: 32, rows: Rows::Tokens };
        let whole = |value| Parts { value: ValueId(value), offset: 0, stride: 32 };
        let scale = |input: usize, out: usize| op::Scale {
            input: ValueId(input),
            factor: 2.0,
            out: ValueId(out),
        };
        let product = op::Gate {
            gate: whole(read_later),
            activation: None,
            input: Some(whole(2)),
            shape: (1, 32),
            before: None,
            out: whole(3),
        };
        Plan {
            ops: vec![scale(0, 1).into(), scale(1, 2).into(), product.into()],
            values: vec![value; 4],
            logits: ValueId(3),
            ..Plan::default()
        }
    }

    #[test]
    fn an_op_works_in_place_where_nothing_reads_what_it_changes() {
        let Buffers { buffer_of, floats } = place(&plan(2), 8, 1);
        assert_eq!((buffer_of[0], buffer_of[1]), (buffer_of[2], buffer_of[2]));
        assert_ne!(buffer_of[3], buffer_of[2]);
        assert_eq!(floats, [256, 256]);
    }

    #[test]
    fn what_lives_on_is_not_written_over() {
        // The first scaled value is read by the product: the second must be elsewhere.
        let Buffers { buffer_of, .. } = place(&plan(1), 8, 1);
        assert_eq!(buffer_of[0], buffer_of[1]);
        assert_ne!(buffer_of[1], buffer_of[2]);
    }
}

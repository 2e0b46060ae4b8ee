//! What the host writes for a step: tables, tokens, outputs, angles, selections.

use super::GpuExecutor;
use super::recording::candidates;
use crate::executor::Selection;
use crate::gpu::choice::Count;
use crate::gpu::dispatch::Scratch;
use crate::gpu::numbers::{Numbers, Range, TOKEN_WORDS};
use crate::kv::{KvTable, Placed, PlacedStep};
use crate::plan::ValueId;
use crate::spec::rope::Rope;
use crate::step::Input;

impl GpuExecutor {
    /// Writes the tables of all sequences where they changed.
    pub(super) fn write_tables(&mut self, table: &KvTable) {
        let table_starts = self.group_table_starts();
        let mut words = vec![0; self.tables_written.len()];
        for (group, &start) in table_starts.iter().enumerate() {
            let length = self.blueprint.groups[group].table_blocks;
            table.write_table(group, |seat, blocks| {
                let out = &mut words[start + seat as usize * length..][..length];
                for (out, block) in out.iter_mut().zip(blocks) {
                    *out = block.unwrap_or(0);
                }
            });
        }
        if words != self.tables_written {
            self.write(Scratch::Tables, 0, bytemuck::cast_slice(&words));
            self.tables_written = words;
        }
    }

    /// Writes the step's numbers: selections, outputs, tokens, angles. Of a few tokens all in one.
    pub(super) fn write_step(&mut self, step: &PlacedStep, selections: &[Selection], count: Count) {
        let table_starts = self.group_table_starts();
        let mut tokens = Vec::with_capacity(step.tokens.len() * TOKEN_WORDS);
        let mut outputs = Vec::new();
        for (index, token) in step.tokens.iter().enumerate() {
            let (id_or_seat, kind) = match token.input {
                Input::Id(id) => (id, 0),
                Input::Pending => (token.seat, 1),
                Input::Row(_) => (0, 2),
            };
            let table_of = |group: usize| {
                table_starts.get(group).map_or(0, |start| {
                    (start + token.seat as usize * self.blueprint.groups[group].table_blocks) as u32
                })
            };
            tokens.extend_from_slice(&[
                id_or_seat,
                kind,
                token.position,
                table_of(0),
                table_of(1),
                token.cells[0],
                token.cells[1],
                token.seat,
            ]);
            if token.want_logits {
                outputs.push(index as u32);
            }
        }
        self.output_rows = outputs.len();
        let counts = [step.tokens.len() as u32, outputs.len() as u32, 0, 0];
        if counts != self.step_written {
            self.write(Scratch::Step, 0, bytemuck::cast_slice(&counts));
            self.step_written = counts;
        }
        let numbers = Numbers::new(&self.blueprint, count);
        let selections: Vec<_> = selections.iter().map(selection_words).collect();
        let angles: Vec<_> =
            self.blueprint.plan.ropes.iter().map(|rope| angles_of(rope, step)).collect();
        let mut parts: Vec<(Range, &[u8])> = Vec::new();
        parts.push((numbers.selections, bytemuck::cast_slice(&selections)));
        parts.push((numbers.outputs, bytemuck::cast_slice(&outputs)));
        parts.push((numbers.tokens, bytemuck::cast_slice(&tokens)));
        for (&range, angles) in numbers.angles.iter().zip(&angles) {
            parts.push((range, bytemuck::cast_slice(angles)));
        }
        parts.retain(|(_, bytes)| !bytes.is_empty());
        if count == Count::Many {
            for (range, bytes) in parts {
                self.write(Scratch::Numbers, range.start, bytes);
            }
            return;
        }
        let mut all = vec![0; numbers.end as usize];
        for (range, bytes) in parts {
            all[range.start as usize..][..bytes.len()].copy_from_slice(bytes);
        }
        self.write(Scratch::Numbers, 0, &all);
    }

    /// Writes the embeddings of tokens that are given as rows where those of ids go, for the segment that makes these: to
    /// others the buffer is that of the stream.
    pub(super) fn write_rows(&mut self, step: &PlacedStep, segment: usize) {
        let plan = &self.blueprint.plan;
        let ops = &plan.ops[self.blueprint.segments[segment].ops.clone()];
        let embeds = |id: &ValueId| ops.iter().any(|op| op.result() == *id);
        let is_row = |token: &Placed| matches!(token.input, Input::Row(_));
        let Some(embedding) = (!step.rows.is_empty()).then(|| plan.embedding()).flatten() else {
            return;
        };
        if !embeds(&embedding) {
            return;
        }
        let width = plan.value(embedding).width;
        let (mut index, mut rest) = (0, step.rows.as_slice());
        // Neighbours (an image's) in one write.
        for run in step.tokens.chunk_by(|a, b| is_row(a) == is_row(b)) {
            if is_row(&run[0]) {
                let (rows, after) = rest.split_at((run.len() * width).min(rest.len()));
                let at = (index * width * 4) as u64;
                let buffer = self.value_buffer(embedding);
                self.gpu.queue.write_buffer(buffer, at, bytemuck::cast_slice(rows));
                self.counts.writes += 1;
                rest = after;
            }
            index += run.len();
        }
    }

    /// Where each group's tables start in the buffer of tables, in words.
    fn group_table_starts(&self) -> Vec<usize> {
        let mut start = 0;
        self.blueprint
            .groups
            .iter()
            .map(|group| {
                let here = start;
                start += group.table_blocks * self.blueprint.sizes.sequences;
                here
            })
            .collect()
    }
}

/// The kernels' `Selection`.
pub(super) fn selection_words(selection: &Selection) -> [u32; 12] {
    let sampling = &selection.sampling;
    [
        selection.row,
        selection.seat,
        selection.stream,
        selection.position,
        sampling.seed as u32,
        (sampling.seed >> 32) as u32,
        candidates(sampling) as u32,
        sampling.temperature.to_bits(),
        sampling.top_p.to_bits(),
        sampling.min_p.to_bits(),
        sampling.repeat_penalty.to_bits(),
        u32::from(sampling.is_greedy()),
    ]
}

/// Cosine and sine of each pair for each token.
fn angles_of(rope: &Rope, step: &PlacedStep) -> Vec<[f32; 2]> {
    let mut angles = Vec::with_capacity(step.tokens.len() * rope.pairs());
    for token in &step.tokens {
        angles.extend(rope.angles(token.position).map(|(cos, sin)| [cos as f32, sin as f32]));
    }
    angles
}

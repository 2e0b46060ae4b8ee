//! How a plan's weights lie in buffers: matrices repacked into planes, those that are multiplied together
//! side by side, those larger than a binding in pieces; vectors as f32 in one buffer.

use std::collections::HashMap;

use gguf::Format;

use super::choice::Kernels;
use crate::error::Advice;
use crate::plan::Plan;
use crate::spec::weights::{Weight, WeightId};
use crate::{Error, Result};

/// Rows of matrices in one buffer, repacked into planes.
#[derive(Debug, Clone, PartialEq)]
pub struct MatrixBuffer {
    /// The format of all rows.
    pub format: Format,
    /// Weights per row.
    pub columns: usize,
    /// Rows in all.
    pub rows: usize,
    /// Where the rows come from: weight, first row, count, in order.
    pub sources: Vec<(WeightId, usize, usize)>,
    /// Where each plane starts, in bytes.
    pub plane_starts: Vec<usize>,
    /// Where the format's table starts, behind the planes, in bytes.
    pub table_start: usize,
    /// The buffer's size.
    pub bytes: usize,
}

impl MatrixBuffer {
    /// The rows of `sources` in a buffer.
    fn new(format: Format, columns: usize, sources: Vec<(WeightId, usize, usize)>) -> Self {
        let rows: usize = sources.iter().map(|(_, _, rows)| rows).sum();
        let blocks = columns * rows / format.block_size();
        let mut plane_starts = Vec::new();
        let mut bytes: usize = 0;
        for plane in format.planes() {
            plane_starts.push(bytes);
            bytes += (blocks * plane.block_bytes).next_multiple_of(16);
        }
        let table_start = bytes;
        bytes += (format.table().len() * 4).next_multiple_of(16);
        Self { format, columns, rows, sources, plane_starts, table_start, bytes }
    }
}

/// Some rows of a linear op's weights: a buffer, and where its product goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Which of [`Layout::matrices`].
    pub buffer: usize,
    /// The first of the buffer's rows in the rows of all the op's weights together.
    pub first_row: usize,
    /// How many rows.
    pub rows: usize,
}

/// Whether a product can take the rows of both from one buffer.
fn alike(a: &Weight, b: &Weight) -> bool {
    a.format == b.format && a.scale == b.scale
}

/// A vector in the buffer of vectors: weights (or zeros where one is missing) end to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VectorRange {
    /// The weights, each with its length.
    pub sources: Vec<(Option<WeightId>, usize)>,
    /// Where it starts, in bytes.
    pub start: usize,
    /// Its length in floats.
    pub length: usize,
}

/// A vector's number in [`Layout::vectors`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VectorId(pub usize);

/// Where all of a plan's weights lie.
#[derive(Debug, Clone)]
pub struct Layout {
    /// The buffers of matrices.
    pub matrices: Vec<MatrixBuffer>,
    /// The vectors in their one buffer.
    pub vectors: Vec<VectorRange>,
    /// The size of the buffer of vectors.
    pub vector_bytes: usize,
    parts: HashMap<Vec<WeightId>, Vec<Part>>,
    vector_ids: HashMap<Vec<(Option<WeightId>, usize)>, VectorId>,
}

/// Rows of a piece of a split matrix come in multiples of this, which keeps every plane aligned.
const PIECE_ROWS: usize = 64;
/// Bindings into the buffer of vectors start at multiples of this: the most any adapter asks for.
const VECTOR_ALIGNMENT: usize = 256;

impl Layout {
    /// Lays out a plan's weights for these kernels.
    pub fn new(plan: &Plan, kernels: &Kernels) -> Result<Self> {
        let mut layout = Self {
            matrices: Vec::new(),
            vectors: Vec::new(),
            vector_bytes: 0,
            parts: HashMap::new(),
            vector_ids: HashMap::new(),
        };
        let limit = usize::try_from(kernels.adapter.max_binding_bytes).unwrap_or(usize::MAX);
        for op in &plan.ops {
            let (weights, experts) = op.matrices();
            if !weights.is_empty() {
                layout.matrix(plan, &weights, experts, limit)?;
            }
            for weight in op.vectors() {
                layout.vector(plan, &[Some(weight)], &[0]);
            }
            let biases = op.biases();
            if biases.iter().any(Option::is_some) {
                let rows: Vec<_> = weights.iter().map(|&w| plan.weight(w).rows).collect();
                layout.vector(plan, &biases, &rows);
            }
        }
        Ok(layout)
    }

    /// Places the rows of `weights`: neighbours of one format in one buffer if the limit allows it; those of an
    /// expert are never parted.
    fn matrix(
        &mut self,
        plan: &Plan,
        weights: &[WeightId],
        experts: usize,
        limit: usize,
    ) -> Result<()> {
        if self.parts.contains_key(weights) {
            return Ok(());
        }
        let parts = if let [weight] = *weights {
            self.pieces(plan, weight, experts, limit)?
        } else if let Some(part) = self.together(plan, weights, limit) {
            vec![part]
        } else {
            let mut runs: Vec<_> =
                weights.chunk_by(|&a, &b| alike(plan.weight(a), plan.weight(b))).collect();
            // All alike, but too large or not aligned.
            if runs.len() == 1 {
                runs = weights.chunks(1).collect();
            }
            let mut parts = Vec::new();
            let mut base = 0;
            for run in runs {
                self.matrix(plan, run, experts, limit)?;
                let shifted = |part: &Part| Part { first_row: part.first_row + base, ..*part };
                parts.extend(self.parts(run).iter().map(shifted));
                base += run.iter().map(|&id| plan.weight(id).rows).sum::<usize>();
            }
            parts
        };
        self.parts.insert(weights.to_vec(), parts);
        Ok(())
    }

    /// Weights in one buffer, if they are alike, every plane of each stays aligned, and the limit allows it.
    fn together(&mut self, plan: &Plan, weights: &[WeightId], limit: usize) -> Option<Part> {
        let first = plan.weight(weights[0]);
        let aligned = |weight: &Weight| {
            let blocks = weight.columns * weight.rows / weight.format.block_size();
            let planes = weight.format.planes();
            planes.iter().all(|plane| (blocks * plane.block_bytes).is_multiple_of(16))
        };
        let fits = |&id: &WeightId| alike(first, plan.weight(id)) && aligned(plan.weight(id));
        if !weights.iter().all(fits) {
            return None;
        }
        let sources = weights.iter().map(|&id| (id, 0, plan.weight(id).rows)).collect();
        let buffer = MatrixBuffer::new(first.format, first.columns, sources);
        if buffer.bytes > limit {
            return None;
        }
        let part = Part { buffer: self.matrices.len(), first_row: 0, rows: buffer.rows };
        self.matrices.push(buffer);
        Some(part)
    }

    /// One weight in as few buffers as the limit allows.
    fn pieces(
        &mut self,
        plan: &Plan,
        id: WeightId,
        experts: usize,
        limit: usize,
    ) -> Result<Vec<Part>> {
        let weight = plan.weight(id);
        let (format, columns) = (weight.format, weight.columns);
        let whole = MatrixBuffer::new(format, columns, vec![(id, 0, weight.rows)]);
        let piece_rows = if whole.bytes <= limit {
            weight.rows
        } else {
            // Each plane may be padded by up to 15 bytes.
            let room = limit.saturating_sub(64 + weight.format.table().len() * 4);
            let whole_rows = if experts > 1 { weight.rows / experts } else { PIECE_ROWS };
            let rows = room / (whole.bytes / weight.rows + 1) / whole_rows * whole_rows;
            if rows == 0 {
                return Err(Error::TooLargeToBind {
                    device: "this device".into(),
                    what: format!("tensor {}, in pieces of {whole_rows} rows,", weight.name),
                    needed: ((whole.bytes / weight.rows + 1) * whole_rows) as u64,
                    most: limit as u64,
                    advice: Advice::UseCpu,
                });
            }
            rows
        };
        let mut parts = Vec::new();
        for first_row in (0..weight.rows).step_by(piece_rows.max(1)) {
            let rows = piece_rows.min(weight.rows - first_row);
            parts.push(Part { buffer: self.matrices.len(), first_row, rows });
            let sources = vec![(id, first_row, rows)];
            self.matrices.push(MatrixBuffer::new(format, columns, sources));
        }
        Ok(parts)
    }

    /// Places vectors end to end; a missing one is zeros of the given length.
    fn vector(&mut self, plan: &Plan, ids: &[Option<WeightId>], lengths: &[usize]) {
        let key = Self::vector_key(plan, ids, lengths);
        if self.vector_ids.contains_key(&key) {
            return;
        }
        let start = self.vector_bytes;
        let length: usize = key.iter().map(|(_, length)| length).sum();
        self.vector_bytes += (length * 4).next_multiple_of(VECTOR_ALIGNMENT);
        self.vector_ids.insert(key.clone(), VectorId(self.vectors.len()));
        self.vectors.push(VectorRange { sources: key, start, length });
    }

    fn vector_key(
        plan: &Plan,
        ids: &[Option<WeightId>],
        lengths: &[usize],
    ) -> Vec<(Option<WeightId>, usize)> {
        let length = |id: &Option<WeightId>, missing: usize| {
            id.map_or(missing, |id| plan.weight(id).columns * plan.weight(id).rows)
        };
        ids.iter().zip(lengths).map(|(id, &missing)| (*id, length(id, missing))).collect()
    }

    /// The parts that hold the rows of these weights, in order.
    pub fn parts(&self, weights: &[WeightId]) -> &[Part] {
        self.parts.get(weights).map_or(&[], Vec::as_slice)
    }

    /// The vector of one weight.
    pub fn vector_of(&self, plan: &Plan, id: WeightId) -> VectorId {
        self.vector_ids[&Self::vector_key(plan, &[Some(id)], &[0])]
    }

    /// The biases of a linear op end to end, if it has any.
    pub fn biases_of(
        &self,
        plan: &Plan,
        weights: &[WeightId],
        biases: &[Option<WeightId>],
    ) -> Option<VectorId> {
        let rows: Vec<_> = weights.iter().map(|&w| plan.weight(w).rows).collect();
        biases
            .iter()
            .any(Option::is_some)
            .then(|| self.vector_ids[&Self::vector_key(plan, biases, &rows)])
    }

    /// The bytes of all buffers.
    pub fn bytes(&self) -> u64 {
        let matrices: usize = self.matrices.iter().map(|matrix| matrix.bytes).sum();
        (matrices + self.vector_bytes) as u64
    }
}

#[cfg(test)]
mod tests;

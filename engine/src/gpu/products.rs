//! The products that the linear ops of a plan become: the one list that lowering and `check` go by.

use super::choice::{Count, Kernels, ProductShape};
use super::layout::{Layout, Part};
use crate::plan::{Epilogue, op};

/// Rows of a buffer that an op multiplies with its input: of several weights where they lie side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Product {
    /// The rows.
    pub part: Part,
    /// Whether they are gate and up, so that a kernel may put together what it multiplies.
    pub gated: bool,
}

impl Product {
    /// Its shape for so many rows of the input.
    pub fn shape(&self, layout: &Layout, count: Count) -> ProductShape {
        let matrix = &layout.matrices[self.part.buffer];
        ProductShape {
            format: matrix.format,
            rows: self.part.rows,
            columns: matrix.columns,
            gated: self.gated,
            count,
        }
    }

    /// The same as lowering asks for its kernel: without gating where the kernel for it cannot.
    #[must_use]
    pub fn as_lowered(self, layout: &Layout, kernels: &Kernels, count: Count) -> Self {
        let gated = self.gated && kernels.product(&self.shape(layout, count)).can_fuse();
        Self { gated, ..self }
    }
}

/// The products of an op.
pub fn of(layout: &Layout, op: &op::Linear) -> Vec<Product> {
    let op::Linear { weights, epilogue, .. } = op;
    let parts = layout.parts(weights);
    let gated = matches!(epilogue, Epilogue::Gated { .. }) && parts.len() == 1;
    parts.iter().map(|&part| Product { part, gated }).collect()
}

//! The kernel `lanewise`, which tests on a software driver take half as long with (docs/decisions.md). No card is given it by
//! default.

use super::{Count, Kernels, ProductKernel, ProductShape};

impl Kernels {
    /// Whether lanes can hand inputs round in clusters of eight.
    pub(super) fn can_lanewise(&self) -> bool {
        self.lanewise && self.subgroups && self.adapter.subgroup_min >= 8
    }

    /// A software driver's kernel for a product.
    pub(super) fn default_lanewise(&self, shape: &ProductShape) -> ProductKernel {
        let rows = if shape.gated { 2 } else { 4 };
        let tokens = if shape.count == Count::One { 1 } else { 4 };
        ProductKernel::Lanewise { lanes: self.subgroup_lanes(), rows, tokens }
    }

    /// The shapes worth measuring for so many tokens.
    pub(super) fn lanewise_candidates(&self, tokens: &[u32]) -> Vec<ProductKernel> {
        let lanes = self.subgroup_lanes();
        let shape = |rows| tokens.iter().map(move |&tokens| (rows, tokens));
        [4, 2, 8, 1]
            .into_iter()
            .flat_map(shape)
            .map(|(rows, tokens)| ProductKernel::Lanewise { lanes, rows, tokens })
            .collect()
    }
}

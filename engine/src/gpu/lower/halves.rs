//! Inputs of products with cooperative matrices: halves, made by a dispatch of their own or by what comes before.

use shaders::Variant;

use super::{Dispatch, Extent, Lowering, ProductKernel, Resource, Scratch};
use crate::plan::{Op, ValueId, op};

impl Lowering<'_> {
    /// Whether the norm whose result is `normed` puts it, as halves, where products with cooperative matrices read them: if
    /// the ops that follow are such products and nothing else reads it.
    pub(super) fn norms_to_halves(&self, normed: ValueId) -> bool {
        let is_norm =
            |op: &Op| matches!(*op, Op::Norm(op::Norm { out, add_to: None, .. }) if out == normed);
        let Some(index) = self.plan().ops.iter().position(is_norm) else { return false };
        let reads = |op: &&Op| op.reads(normed);
        let products = self.plan().ops[index + 1..].iter().take_while(reads);
        let count = products.clone().filter(|op| self.takes_halves(op, normed)).count();
        self.blueprint.are_together(index, index + count)
            && count > 0
            && count == self.plan().ops.iter().filter(reads).count()
    }

    /// Whether all products of an op are of halves of `input`, row by row.
    fn takes_halves(&self, op: &Op, input: ValueId) -> bool {
        let Op::Linear(linear) = op else { return false };
        let op::Linear { input: of, out, .. } = linear;
        *of == input
            && self.plan().value(*out).rows == self.plan().value(input).rows
            && self.products_of(linear).iter().all(|(_, kernel)| kernel.takes_halves())
    }

    /// Where the dispatches from `first` on begin by rounding what the one before made of gate and up, and nothing else
    /// reads that: one that does both.
    pub(super) fn fused_rounding(&self, dispatches: &[Dispatch], first: usize) -> Option<Dispatch> {
        let [gate, rounding, after @ ..] = dispatches.get(first.checked_sub(1)?..)? else {
            return None;
        };
        let bound = |dispatch: &Dispatch, name: &str| {
            let binding = dispatch.bindings.iter().find(|(bound, _)| *bound == name);
            binding.map(|(_, resource)| *resource)
        };
        let value = bound(gate, "out")?;
        let Resource::Value(id) = value else { return None };
        let readers = self.plan().ops.iter().filter(|op| op.reads(id)).count();
        if (gate.variant.kernel, rounding.variant.kernel) != ("gate", "round_halves")
            || bound(rounding, "input") != Some(value)
            || readers != 1
            || after.iter().any(|d| d.bindings.iter().any(|(_, resource)| *resource == value))
        {
            return None;
        }
        let mut fused = rounding.clone();
        fused.variant = fused.variant.define("GATED");
        // Its activation.
        for &define in &gate.variant.defines {
            fused.variant = fused.variant.define(define);
        }
        fused.bindings = fused
            .bindings
            .into_iter()
            .map(|(name, resource)| match name {
                "input" => Some((name, bound(gate, "both")?)),
                _ => Some((name, resource)),
            })
            .collect::<Option<_>>()?;
        Some(fused)
    }
}

/// The input of a product as halves, each of its rows of `width` divided by its largest.
pub(super) fn round_halves(input: ValueId, width: usize, rows: Extent) -> Dispatch {
    let shares = Lowering::shares(width / 4);
    Dispatch {
        variant: Variant::new("round_halves")
            .define_if(shares.ragged, "RAGGED")
            .number("VECTORS", shares.each)
            .constant("LANES", shares.lanes),
        bindings: vec![
            ("input", Resource::Value(input)),
            ("halves", Resource::Scratch(Scratch::Rounded)),
            ("largest", Resource::Scratch(Scratch::RoundedScales)),
        ],
        params: vec![("width4", width as u32 / 4)],
        grid: [rows, Extent::Fixed(1), Extent::Fixed(1)],
        op: 0,
        work: 0,
    }
}

/// A variant of `matmul_cooperative` with its numbers.
pub(super) fn cooperative(variant: Variant, kernel: ProductKernel) -> Variant {
    let ProductKernel::Cooperative { tokens, blocks, groups } = kernel else { return variant };
    variant
        .number("TOKENS", tokens)
        .number("BLOCKS", blocks)
        .number("PARTS", kernel.workgroup_rows() / tokens)
        .number("GROUPS", groups)
        .number("HALF_GROUPS", 2 * groups)
        .number("QUARTERS", 2 * groups)
        .number("INPUT_VECTORS", 4 * groups)
}

//! THE table of kernels: what holds of each, whatever its variant. A new kernel is a file in `wgsl/kernel` and a row here.

use crate::Variant;

/// Whether naga's checks of each access may be left out.
///
/// A trusted kernel takes every index from its grid and its params, clamped to the rows and tokens that exist, and its loops
/// end at counts from params. Where one reads an index from a buffer its text clamps it: `attention` a place in the tables to
/// their entries, what stands there to the blocks that exist, and the positions of tokens, where its rounds end, below 2^31;
/// `matmul` and `matmul_cooperative` with `EXPERTS` the expert and the rows that the list of tiles says (without it the latter
/// reads the inputs of a whole tile of tokens, which its buffer has); `norm` with `GATHER` the row that it norms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// They stay.
    Checked,
    /// They may be left out.
    Trusted,
    /// They may be, but for `EXPERTS`, whose rows are chosen by what a route says.
    TrustedWithoutExperts,
}

/// What multiplies the weights of a kernel's matrix, `params.rows` rows of `params.groups` groups of 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Multiplies {
    /// It has no matrix.
    Nothing,
    /// Lanes, one product each, of floats.
    Floats,
    /// Lanes, four products each, of bytes.
    Bytes,
    /// Matrix units, of halves.
    Matrices,
}

/// What holds of a kernel.
#[derive(Debug)]
struct Facts {
    name: &'static str,
    trust: Trust,
    /// With `INT8` bytes where it says floats.
    multiplies: Multiplies,
}

use Multiplies::{Floats, Matrices, Nothing};
use Trust::{Checked, Trusted, TrustedWithoutExperts};

const fn row(name: &'static str, trust: Trust, multiplies: Multiplies) -> Facts {
    Facts { name, trust, multiplies }
}

const KERNELS: [Facts; 32] = [
    row("add_gated", Checked, Nothing),
    row("attention", Trusted, Nothing),
    row("attention_merge", Trusted, Nothing),
    row("conv", Checked, Nothing),
    row("delta_net", Checked, Nothing),
    row("embed", Checked, Nothing),
    row("expert_lists", Checked, Nothing),
    row("expert_matvec", Checked, Floats),
    row("expert_sum", Checked, Nothing),
    row("gate", Checked, Nothing),
    row("gate_parts", Checked, Nothing),
    row("halves", Checked, Nothing),
    row("lanewise", TrustedWithoutExperts, Floats),
    row("mamba2", Checked, Nothing),
    row("matmul", Trusted, Floats),
    row("matmul_cooperative", Trusted, Matrices),
    row("matvec", TrustedWithoutExperts, Floats),
    row("norm", Trusted, Nothing),
    row("norm_parts", Trusted, Nothing),
    row("qk_rope_store", Checked, Nothing),
    row("roofline_empty", Checked, Nothing),
    row("roofline_matrices", Checked, Nothing),
    row("roofline_memory", Checked, Nothing),
    row("roofline_multiply", Checked, Nothing),
    row("round_halves", Trusted, Nothing),
    row("round_input", Checked, Nothing),
    row("route", Checked, Nothing),
    row("select_largest", Checked, Nothing),
    row("select_penalty", Checked, Nothing),
    row("select_pick", Checked, Nothing),
    row("select_top", Checked, Nothing),
    row("softcap", Checked, Nothing),
];

impl Variant {
    fn facts(&self) -> Option<&'static Facts> {
        KERNELS.iter().find(|facts| facts.name == self.kernel)
    }

    /// Whether naga's checks of each access may be left out: a property of the variant, whose reasons stand in the table of
    /// kernels and whose texts a test holds against them.
    pub fn is_trusted(&self) -> bool {
        self.facts().is_some_and(|facts| match facts.trust {
            Checked => false,
            Trusted => true,
            TrustedWithoutExperts => !self.defines.contains("EXPERTS"),
        })
    }

    /// What multiplies its weights.
    pub fn multiplies(&self) -> Multiplies {
        match self.facts().map_or(Nothing, |facts| facts.multiplies) {
            Floats if self.defines.contains("INT8") => Multiplies::Bytes,
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::KERNELS;

    #[test]
    fn every_kernel_has_its_row() {
        let rows: Vec<_> = KERNELS.iter().map(|facts| facts.name).collect();
        let files: Vec<_> = crate::names_in("kernel").collect();
        assert_eq!(rows, files);
    }
}

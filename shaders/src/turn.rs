//! How much a turn of a product's loop multiplies: what the counts of vendors' compilers are held against.

use naga::{Expression, Literal};

use crate::Kernel;

/// Weights of a group.
const GROUP: u32 = 32;

impl Kernel {
    /// Products of a weight with an input that a lane makes in a turn of its longest innermost loop; none for kernels that
    /// multiply no matrix, or whose loops have no rule here. A kernel whose loop changes changes its rule too: the tests of
    /// vendors' compilers find fewer multiplications in a loop than this says.
    pub fn products_a_turn(&self) -> Option<u32> {
        let number = |name| self.variant.numbers.get(name).copied().unwrap_or(1);
        let defined = |name| self.variant.defines.contains(name);
        match self.variant.kernel {
            "matvec" | "expert_matvec" => {
                // Four neighbours share a group, or with QUADS four groups.
                let weights = if defined("SPLIT") && !defined("QUADS") { GROUP / 4 } else { GROUP };
                Some(number("MATRICES") * number("ROWS") * number("TOKENS") * weights)
            }
            // A turn takes one group along the rows of a tile. Bytes are multiplied in a loop of their own.
            "matmul" if !defined("INT8") => {
                let tile = self.text_constant("TILE_ROWS")? * self.text_constant("TILE_TOKENS")?;
                let (lanes, _) = self.workgroup().ok()?;
                Some(tile * GROUP / lanes[0])
            }
            _ => None,
        }
    }

    /// The value of a `const` of the kernel's text.
    fn text_constant(&self, name: &str) -> Option<u32> {
        let (_, constant) =
            self.module.constants.iter().find(|(_, c)| c.name.as_deref() == Some(name))?;
        match self.module.global_expressions[constant.init] {
            Expression::Literal(Literal::U32(value)) => Some(value),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::Variant;

    #[test]
    fn a_turn_is_read_off_the_variant() {
        let products = |text: &str| text.parse::<Variant>().unwrap().build().unwrap();
        let products = |text: &str| products(text).products_a_turn();
        let matvec = "matvec.q4_k+SPLIT MATRICES=1 ROWS=2 TOKENS=1 LANES=64";
        assert_eq!(products(matvec), Some(16));
        let gated = "matvec.q4_k+GATED+SEVERAL MATRICES=2 ROWS=1 TOKENS=4 LANES=64";
        assert_eq!(products(gated), Some(2 * 4 * 32));
        assert!(products("matmul.q4_k TOKENS=64").is_some_and(|products| products >= 256));
        assert_eq!(products("softcap"), None);
    }
}

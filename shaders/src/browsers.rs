//! The text of a kernel as browsers want it.

use crate::Kernel;

impl Kernel {
    /// The WGSL for a browser's compiler, which wants a line for each extension that naga takes without one, or none
    /// where the kernel is used with what no browser has (cooperative matrices).
    pub fn wgsl_for_browsers(&self) -> Option<String> {
        if self.is_cooperative() {
            return None;
        }
        let enable = if self.uses_subgroups() { "enable subgroups;\n" } else { "" };
        Some(format!("{enable}{}", self.source))
    }
}

#[cfg(test)]
mod tests {
    use crate::Variant;

    #[test]
    fn subgroups_are_enabled_where_they_are_used() {
        let text = |variant: &str| {
            let kernel = variant.parse::<Variant>().unwrap().build().unwrap();
            kernel.wgsl_for_browsers()
        };
        let plain = "norm VECTORS=4";
        assert!(text("norm+SUBGROUP VECTORS=4").unwrap().starts_with("enable subgroups;\n"));
        assert!(!text(plain).unwrap().contains("enable subgroups;"));
        let cooperative = "matmul_cooperative.q4_k TOKENS=128 BLOCKS=2 PARTS=1";
        let step = "GROUPS=2 HALF_GROUPS=4 QUARTERS=4 INPUT_VECTORS=8";
        assert_eq!(text(&format!("{cooperative} {step}")), None);
        assert_eq!(text("round_halves VECTORS=3 LANES=256"), None);
    }
}

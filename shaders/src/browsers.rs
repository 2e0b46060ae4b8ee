//! The text of a kernel as browsers want it.

use crate::Kernel;

impl Kernel {
    /// The WGSL for a browser's compiler, which wants a line for each extension that naga takes without one, or none
    /// where the kernel needs what no browser has (cooperative matrices).
    pub fn wgsl_for_browsers(&self) -> Option<String> {
        if self.is_cooperative() {
            return None;
        }
        let enable = if uses_subgroups(&self.source) { "enable subgroups;\n" } else { "" };
        Some(format!("{enable}{}", self.source))
    }
}

/// Whether a text calls a subgroup's functions or asks for its built-in values. Comments do not count.
fn uses_subgroups(text: &str) -> bool {
    let mut code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    code.any(|line| {
        let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
        let is_call = |word: &str| {
            word.strip_prefix("subgroup")
                .or_else(|| word.strip_prefix("quad"))
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()))
        };
        let asks = line.contains("@builtin(subgroup_") || line.contains("@builtin(num_subgroups");
        asks || words.any(is_call)
    })
}

#[cfg(test)]
mod tests {
    use super::uses_subgroups;
    use crate::Variant;

    #[test]
    fn subgroups_are_enabled_where_they_are_used() {
        let text = |variant: &str| {
            let kernel = variant.parse::<Variant>().unwrap().build().unwrap();
            kernel.wgsl_for_browsers()
        };
        let plain = "norm";
        assert!(text("norm+SUBGROUP").unwrap().starts_with("enable subgroups;\n"));
        assert!(!text(plain).unwrap().contains("enable subgroups;"));
        assert_eq!(text("matmul_cooperative.q4_k LANES=128"), None);
        assert!(uses_subgroups("let a = subgroupAdd(x);"));
        assert!(uses_subgroups("    @builtin(num_subgroups) n: u32,"));
        assert!(!uses_subgroups("let subgroups = 1u; // subgroupAdd(x)"));
    }
}

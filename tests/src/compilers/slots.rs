//! Vector instructions a weight, by AMD's compiler: measured, and held against what was recorded.
//!
//! A lane's product of a weight with one token's input costs at least one instruction; unpacking the weight costs the rest.
//! Where a card has fewer slots a weight than this it waits for arithmetic, not for memory.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use shaders::{Kernel, Variant};

use super::isa::Program;
use super::{CHIPS, Compiled};

/// By how much a kernel may be over what was recorded: a compiler's small changes.
const TOLERANCE: f64 = 1.02;

/// Vector instructions a weight and token, where a kernel's loop is known to make `products` products a turn.
///
/// That loop is the smallest that holds so many multiplications. Where none does, the compiler has left a loop inside it
/// rolled: the one with most multiplications then makes as many turns as they take, and what lies around it is added.
/// None where there is no loop that multiplies.
pub fn slots(program: &Program, products: u32) -> Option<f64> {
    let loops = program.loops();
    let products = f64::from(products);
    if let Some(whole) = loops.iter().find(|one| f64::from(one.turn.multiplies) >= products) {
        return Some(f64::from(whole.turn.vector) / products);
    }
    let innermost = loops.iter().filter(|one| one.is_innermost && one.turn.multiplies > 0);
    let inner = innermost.max_by_key(|one| one.turn.multiplies)?;
    let turns = products / f64::from(inner.turn.multiplies);
    let around = loops.iter().find(|one| inner.is_in(one));
    let rest = around.map_or(0, |outer| outer.turn.vector - inner.turn.vector);
    Some((f64::from(inner.turn.vector) * turns + f64::from(rest)) / products)
}

/// The same of a compiled kernel; none where no rule says what a turn multiplies.
///
/// # Errors
/// If the kernel should have a loop that multiplies, and has none.
pub fn measure(kernel: &Kernel, compiled: &Compiled) -> Result<Option<f64>, String> {
    let Some(products) = kernel.products_a_turn() else { return Ok(None) };
    let slots = slots(&compiled.program(), products * compiled.lanes_counted());
    slots.map(Some).ok_or_else(|| "the compiler left no loop that multiplies".into())
}

/// Vector instructions a weight of each variant, on each of [`CHIPS`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Slots {
    /// By the variant's name.
    pub by_variant: BTreeMap<String, [f64; CHIPS.len()]>,
}

impl Slots {
    /// Reads what [`Slots::to_text`] wrote. Lines that are none are passed over: a variant without a bound is found later.
    pub fn parse(text: &str) -> Self {
        let row = |line: &str| {
            let mut columns = line.split('\t');
            let variant = columns.next()?.to_string();
            let mut slots = [0.0; CHIPS.len()];
            for slot in &mut slots {
                *slot = columns.next()?.trim().parse().ok()?;
            }
            Some((variant, slots))
        };
        Self { by_variant: text.lines().filter_map(row).collect() }
    }

    /// A line a variant, under one that names the chips.
    pub fn to_text(&self) -> String {
        let mut text = format!("variant\t{}\n", CHIPS.join("\t"));
        for (variant, slots) in &self.by_variant {
            let slots = slots.map(|slot| format!("{slot:.2}"));
            let _ = writeln!(text, "{variant}\t{}", slots.join("\t"));
        }
        text
    }

    /// What is wrong with `measured`, if these are the bounds: too many instructions, or no bound; each a line.
    pub fn faults(&self, measured: &Self) -> Vec<String> {
        let mut faults = Vec::new();
        for (variant, slots) in &measured.by_variant {
            let Some(bounds) = self.by_variant.get(variant) else {
                faults.push(format!("{variant}: has no bound; it takes {slots:.2?}"));
                continue;
            };
            for ((chip, slots), bound) in CHIPS.iter().zip(slots).zip(bounds) {
                // Written with two digits.
                if *slots > bound * TOLERANCE + 0.005 {
                    faults.push(format!(
                        "{variant}: {slots:.2} vector instructions a weight on {chip}, recorded were {bound:.2}"
                    ));
                }
            }
        }
        let gone = self.by_variant.keys().filter(|name| !measured.by_variant.contains_key(*name));
        faults.extend(gone.map(|name| format!("{name}: is recorded, and no plan asks for it")));
        faults
    }

    /// How many variants take at least a twentieth less than recorded, so that recording them tightens their bounds.
    pub fn better(&self, measured: &Self) -> usize {
        let is_better = |(variant, slots): (&String, &[f64; CHIPS.len()])| {
            self.by_variant.get(variant).is_some_and(|bounds| {
                bounds.iter().zip(slots).any(|(bound, slots)| *slots < bound * 0.95)
            })
        };
        measured.by_variant.iter().filter(|row| is_better(*row)).count()
    }

    /// The table of `docs/kernels.md`: of each format each kernel's plainest form, chip by chip.
    pub fn table(&self) -> String {
        let columns = ["matvec", "matvec, several tokens", "expert_matvec", "matmul"];
        // The plainest form of a kernel has the fewest defines.
        let mut cells: BTreeMap<&str, [Option<(usize, String)>; 4]> = BTreeMap::new();
        for (name, slots) in &self.by_variant {
            let Ok(variant) = name.parse::<Variant>() else { continue };
            let several = variant.defines.contains("SEVERAL");
            let column = match variant.kernel {
                "matvec" => usize::from(several),
                "expert_matvec" => 2,
                "matmul" => 3,
                _ => continue,
            };
            let row = cells.entry(variant.format.unwrap_or_default()).or_default();
            let length = variant.defines.len();
            if row[column].as_ref().is_none_or(|(shortest, _)| length < *shortest) {
                row[column] = Some((length, slots.map(|slot| format!("{slot:.2}")).join(" / ")));
            }
        }
        let head = columns.map(|column| format!("{column}: {}", CHIPS.join(" / "))).join(" | ");
        let mut table = format!("| format | {head} |\n|---|---|---|---|---|\n");
        for (format, row) in cells {
            let row = row.map(|cell| cell.map_or_else(String::new, |(_, slots)| slots)).join(" | ");
            let _ = writeln!(table, "| {format} | {row} |");
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table_of(rows: &[(&str, [f64; 2])]) -> Slots {
        Slots { by_variant: rows.iter().map(|(name, row)| ((*name).to_string(), *row)).collect() }
    }

    #[test]
    fn a_bound_is_kept_within_two_hundredths() {
        let recorded = table_of(&[("a", [5.0, 4.0]), ("gone", [1.0, 1.0])]);
        let measured = table_of(&[("a", [5.09, 4.2]), ("new", [2.0, 2.0])]);
        let faults = recorded.faults(&measured);
        assert_eq!(faults.len(), 3, "{faults:?}");
        assert!(faults[0].contains("4.20 vector instructions a weight on gfx1100"));
        assert!(faults[1].contains("new") && faults[2].contains("gone"));
        assert_eq!(recorded.better(&table_of(&[("a", [5.0, 3.7])])), 1);
        assert_eq!(Slots::parse(&recorded.to_text()), recorded);
    }

    #[test]
    fn a_rolled_loop_turns_as_often_as_its_products_take() {
        let program = Program::parse(
            "BB1:\n\tv_mov_b32 v0, 0\n\tv_mov_b32 v1, 0\nBB2:\n\tv_fma_f32 v2, v0, v1, v2\n\tv_add_u32 v3, v3, v4\n\
             \ts_cbranch_scc0 BB2\n\ts_branch BB1\n",
        );
        // The inner loop alone, or four turns of it in the outer one.
        assert_eq!(slots(&program, 1), Some(2.0));
        assert_eq!(slots(&program, 4), Some((4.0 * 2.0 + 2.0) / 4.0));
        assert_eq!(slots(&Program::parse("BB0:\n\ts_endpgm"), 4), None);
    }

    #[test]
    fn the_table_has_each_kernel_once() {
        let name = "matvec.q4_k+SPLIT MATRICES=1 ROWS=2 TOKENS=1 LANES=64";
        let gated = "matvec.q4_k+GATED+SPLIT MATRICES=2 ROWS=1 TOKENS=1 LANES=64";
        let table = table_of(&[(name, [6.1, 6.0]), (gated, [7.0, 7.0])]).table();
        assert!(table.ends_with("| q4_k | 6.10 / 6.00 |  |  |  |\n"), "{table}");
        assert_eq!(table.lines().count(), 3);
    }
}

//! Reads the assembly that RADV, Mesa's driver for AMD's chips, gives of a compute shader: blocks, loops, and what a turn of
//! a loop issues.
//!
//! ```text
//! BB3:
//!     s_cbranch_execz BB7                          ; bfa50055
//!     v_fmac_f32_e32 v8, v27, v14                  ; 56101d1b
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;

/// How many instructions go to each unit of a compute unit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mix {
    /// Vector arithmetic (VALU): what bounds a product that is not bound by memory.
    pub vector: u32,
    /// Scalar arithmetic and branches (SALU).
    pub scalar: u32,
    /// Scalar loads (SMEM).
    pub scalar_memory: u32,
    /// Vector loads and stores (VMEM).
    pub vector_memory: u32,
    /// Workgroup memory (LDS).
    pub workgroup_memory: u32,
    /// Waits, hints and what else costs no slot.
    pub other: u32,
    /// What the vector instructions multiply: products of floats, or of bytes in dot products.
    pub multiplies: u32,
}

impl Mix {
    /// Of one instruction.
    fn of(instruction: &str) -> Self {
        let name = instruction.split_whitespace().next().unwrap_or_default();
        let mut mix = Self::default();
        let starts = |starts: &[&str]| starts.iter().any(|start| name.starts_with(start));
        let unit = if name.starts_with("v_") {
            mix.multiplies = instruction.split("::").map(multiplies).sum();
            &mut mix.vector
        } else if starts(&["s_load", "s_buffer_load"]) {
            &mut mix.scalar_memory
        } else if starts(&["s_wait", "s_clause", "s_delay", "s_nop", "s_inst", "s_endpgm"]) {
            &mut mix.other
        } else if name.starts_with("s_") {
            &mut mix.scalar
        } else if starts(&["buffer_", "global_", "flat_", "image_", "scratch_"]) {
            &mut mix.vector_memory
        } else if name.starts_with("ds_") {
            &mut mix.workgroup_memory
        } else {
            &mut mix.other
        };
        *unit = 1;
        mix
    }

    /// Instructions in all.
    pub fn instructions(&self) -> u32 {
        self.vector
            + self.scalar
            + self.scalar_memory
            + self.vector_memory
            + self.workgroup_memory
            + self.other
    }
}

impl fmt::Display for Mix {
    /// By AMD's names of the units.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { vector, scalar, scalar_memory, vector_memory, workgroup_memory, .. } = self;
        write!(
            f,
            "{vector} VALU ({} products), {scalar} SALU, {scalar_memory} SMEM, {vector_memory} VMEM, {workgroup_memory} LDS",
            self.multiplies
        )
    }
}

impl AddAssign for Mix {
    fn add_assign(&mut self, more: Self) {
        self.vector += more.vector;
        self.scalar += more.scalar;
        self.scalar_memory += more.scalar_memory;
        self.vector_memory += more.vector_memory;
        self.workgroup_memory += more.workgroup_memory;
        self.other += more.other;
        self.multiplies += more.multiplies;
    }
}

/// Products that one instruction makes, or one half of a pair that is issued together.
fn multiplies(instruction: &str) -> u32 {
    let name = instruction.split_whitespace().next().unwrap_or_default();
    let name = name.strip_prefix("v_dual_").or_else(|| name.strip_prefix("v_"));
    let starts = |start: &str| name.is_some_and(|name| name.starts_with(start));
    let products = [
        ("dot8", 8),
        ("dot4", 4),
        ("dot2", 2),
        ("pk_fma", 2),
        ("pk_mul_f", 2),
        ("fma", 1),
        ("mac_f", 1),
        ("mad_f", 1),
        ("mad_mix", 1),
        ("mul_f", 1),
        ("mul_legacy_f", 1),
    ];
    products.iter().find(|(start, _)| starts(start)).map_or(0, |(_, count)| *count)
}

/// A loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loop {
    /// Its first block.
    pub header: String,
    /// What a turn issues, where each loop inside it makes one turn.
    pub turn: Mix,
    /// Loops around it.
    pub depth: usize,
    /// Whether it holds no other.
    pub is_innermost: bool,
    /// Where it lies in the text.
    span: (usize, usize),
}

impl Loop {
    /// Whether it lies in another.
    pub fn is_in(&self, other: &Self) -> bool {
        self != other && other.span.0 <= self.span.0 && self.span.1 <= other.span.1
    }
}

/// An instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Instruction {
    issues: Mix,
    /// The block that it may branch to.
    branch: Option<String>,
}

/// A shader's instructions.
#[derive(Debug, Clone, Default)]
pub struct Program {
    instructions: Vec<Instruction>,
    /// Where each block begins.
    blocks: BTreeMap<String, usize>,
}

impl Program {
    /// Reads RADV's assembly.
    pub fn parse(assembly: &str) -> Self {
        let mut program = Self::default();
        for line in assembly.lines() {
            let line = line.split(';').next().unwrap_or_default().trim();
            if let Some(block) = line.strip_suffix(':') {
                program.begin(block);
            } else if line.starts_with(|c: char| c.is_ascii_lowercase()) {
                let mut words = line.split_whitespace();
                let name = words.next().unwrap_or_default();
                let is_branch = name == "s_branch" || name.starts_with("s_cbranch");
                program.push(Mix::of(line), words.next().filter(|_| is_branch));
            }
        }
        program
    }

    /// Adds an instruction.
    pub(super) fn push(&mut self, issues: Mix, branch: Option<&str>) {
        self.instructions.push(Instruction { issues, branch: branch.map(Into::into) });
    }

    /// Begins a block.
    pub(super) fn begin(&mut self, block: &str) {
        self.blocks.insert(block.into(), self.instructions.len());
    }

    /// All instructions.
    pub fn whole(&self) -> Mix {
        self.mix(0, self.instructions.len())
    }

    fn mix(&self, from: usize, to: usize) -> Mix {
        let mut mix = Mix::default();
        for instruction in &self.instructions[from..to] {
            mix += instruction.issues;
        }
        mix
    }

    /// The loops, the shortest first.
    pub fn loops(&self) -> Vec<Loop> {
        // A branch back closes a loop; one with `continue` has several branches to one header.
        let mut ends: BTreeMap<usize, (&str, usize)> = BTreeMap::new();
        for (index, instruction) in self.instructions.iter().enumerate() {
            let target =
                instruction.branch.as_ref().and_then(|name| self.blocks.get_key_value(name));
            if let Some((block, &start)) = target.filter(|(_, start)| **start <= index) {
                ends.insert(start, (block, index + 1));
            }
        }
        let plain = |(&from, &(block, to)): (&usize, &(&str, usize))| Loop {
            header: block.into(),
            turn: self.mix(from, to),
            depth: 0,
            is_innermost: true,
            span: (from, to),
        };
        let flat: Vec<Loop> = ends.iter().map(plain).collect();
        let nested = |this: &Loop| Loop {
            depth: flat.iter().filter(|other| this.is_in(other)).count(),
            is_innermost: !flat.iter().any(|other| other.is_in(this)),
            ..this.clone()
        };
        let mut loops: Vec<Loop> = flat.iter().map(nested).collect();
        loops.sort_by_key(|one| one.turn.instructions());
        loops
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two loops, one in the other, as gfx1100 and Mesa 25 give them: cut short.
    const RECORDED: &str = "
BB0:
\ts_mov_b32 s0, s2                                            ; be800002
\tv_mov_b32_e32 v5, 0                                         ; 7e0a0280
BB1:
\ts_cmp_ge_u32 s4, s5                                         ; bf090504
\ts_cbranch_scc1 BB6                                          ; bfa2001d
BB2:
\ts_mov_b64 s[18:19], exec                                    ; be92017e
\tv_cmpx_le_u32_e32 s0, v0                                    ; 7d960000
\ts_cbranch_execz BB4                                         ; bfa50002
BB3:
\ts_delay_alu instid0(VALU_DEP_2) | instskip(NEXT) | instid1(VALU_DEP_1) ; bf870092
\ts_clause 0x1                                                ; bf850001
\tbuffer_load_b128 v[8:11], v4, s[20:23], 0 offen             ; e05c0000 80450804
\ts_buffer_load_b32 s17, s[12:15], 0x10                       ; f4200446 f8000010
\ts_waitcnt vmcnt(0)                                          ; bf8903f7
\tv_dual_fmac_f32 v8, v27, v14 :: v_dual_mul_f32 v9, v1, v2   ; 56101d1b
\tv_fma_f32 v8, v9, -v29, v8                                  ; d6130008 44223b09
\tv_dot4_i32_iu8 v3, v1, v2, v3 neg_lo:[1,1,0]                ; cc164003 1c0e0501
\tds_load_b128 v[12:15], v3                                   ; dbfc0000
\ts_cbranch_scc0 BB3                                          ; bfa10104
\tv_add_f32_e32 v5, v5, v8                                    ; 060a1105
\ts_branch BB3                                                ; bfa00000
BB4:
\ts_add_i32 s4, s4, 1                                         ; 81048104
\ts_branch BB1                                                ; bfa0ffe0
BB6:
\ts_endpgm                                                    ; bfb00000
";

    #[test]
    fn a_turn_of_the_inner_loop_is_counted() {
        let program = Program::parse(RECORDED);
        let loops = program.loops();
        assert_eq!(loops.len(), 2, "{loops:?}");
        let (inner, outer) = (&loops[0], &loops[1]);
        assert_eq!((inner.header.as_str(), inner.depth, inner.is_innermost), ("BB3", 1, true));
        assert_eq!((outer.header.as_str(), outer.depth, outer.is_innermost), ("BB1", 0, false));
        assert!(inner.is_in(outer) && !outer.is_in(inner) && !inner.is_in(inner));
        // Up to the last branch back. The pair of fmac and mul is one instruction and two products.
        let turn = Mix {
            vector: 4,
            scalar: 2,
            scalar_memory: 1,
            vector_memory: 1,
            workgroup_memory: 1,
            other: 3,
            multiplies: 2 + 1 + 4,
        };
        assert_eq!(inner.turn, turn);
        assert_eq!(program.whole().vector, 6);
        assert_eq!(program.whole().instructions(), 22);
    }

    #[test]
    fn a_text_without_loops_has_none() {
        assert_eq!(Program::parse("").loops(), []);
        assert_eq!(Program::parse("BB0:\n\ts_endpgm").loops(), []);
    }
}

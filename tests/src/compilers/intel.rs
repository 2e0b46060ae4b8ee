//! Reads the assembly that ANV, Mesa's driver for Intel's chips, gives of a compute shader.
//!
//! ```text
//! LABEL5:
//! mad(16)         g9<1>F     g83<8,8,1>F     g3<8,8,1>F      g81<1,1,1>F { align1 1H @1 $7.dst };
//! send(16)        g9UD       g65UD           nullUD          0x64803500                0x03000000
//!                            ugm MsgDesc: ( load, a32, d32, V4 ) BTI 3 base_offset 0  { align1 1H $8 };
//! while(16)       JIP:  LABEL5                                    { align1 1H };
//! ```
//!
//! Here [`Mix`] counts lanes in place of instructions: an instruction of 16 lanes takes a unit of eight two clocks, so that
//! one of eight lanes costs half as much.

use super::isa::{Mix, Program};

/// The driver's name of its assembly.
pub const ASSEMBLY: &str = "GEN Assembly";

/// Reads the assembly.
pub fn parse(assembly: &str) -> Program {
    let mut program = Program::default();
    for line in assembly.lines() {
        if let Some(block) = line.strip_suffix(':').filter(|name| name.starts_with("LABEL")) {
            program.begin(block);
            continue;
        }
        // Behind a predicate, `(+f0.0)`, an instruction is its name, its flag's condition, its lanes.
        let instruction = line.strip_prefix('(').and_then(|rest| rest.split_once(") "));
        let instruction = instruction.map_or(line, |(_, rest)| rest);
        let Some((name, rest)) = instruction.split_once('(') else { continue };
        let lanes = rest.split_once(')').and_then(|(lanes, _)| lanes.parse().ok());
        let Some(lanes) = lanes.filter(|_| name.starts_with(|c: char| c.is_ascii_lowercase()))
        else {
            continue;
        };
        let is_back = name == "while";
        let target = rest.split_once("JIP:").and_then(|(_, rest)| rest.split_whitespace().next());
        program.push(of(name, rest, lanes), target.filter(|_| is_back));
    }
    program
}

/// What an instruction of so many lanes issues.
fn of(name: &str, rest: &str, lanes: u32) -> Mix {
    let mut mix = Mix::default();
    let name = name.split('.').next().unwrap_or_default();
    let unit = match name {
        "send" | "sends" | "sendc" => &mut mix.vector_memory,
        "sync bar" | "sync nop" | "sync allwr" | "sync allrd" | "nop" | "illegal" => &mut mix.other,
        "if" | "else" | "endif" | "do" | "while" | "break" | "cont" | "halt" | "jmpi" | "call"
        | "ret" => &mut mix.scalar,
        // What is the same for all lanes is computed once.
        _ if lanes == 1 => &mut mix.scalar,
        _ => &mut mix.vector,
    };
    *unit = lanes;
    let floats = rest.split_once('<').is_some_and(|(_, rest)| {
        rest.split_whitespace().next().is_some_and(|region| region.ends_with('F'))
    });
    mix.multiplies = match name {
        "dp4a" => 4 * lanes,
        "mad" | "mul" | "mac" | "madm" if floats => lanes,
        _ => 0,
    };
    mix
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of Mesa 25's, for an A770: cut short.
    const RECORDED: &str = "
mov(16)         g49<1>UD        0x00000000UD                    { align1 1H };

LABEL5:
cmp.l.f0.0(16)  null<1>UD       g124<8,8,1>UD   0x00000400UD    { align1 1H };
(+f0.0) break(16) JIP:  LABEL4  UIP:  LABEL4                    { align1 1H };
sync nop(1)                     null<0,1,0>UB                   { align1 WE_all 1N $5.dst };
mul(16)         g4<1>F          g2<1,1,0>F      0x33800000F  /* 5.96046e-08F */ { align1 1H F@1 compacted };
(+f0.0) sel(16) g6<1>UD         g4<1,1,0>UD     g1<1,1,0>UD     { align1 1H A@1 compacted };
mul(8)          g4<1>D          g2<1,1,0>D      g3<1,1,0>D      { align1 1H };
add(1)          g4<1>D          g2<0,1,0>D      64D             { align1 WE_all 1N };
send(16)        g1UD            g11UD           nullUD          0x64803500                0x03000000
                            ugm MsgDesc: ( load, a32, d32, V4, L1STATE_L3MOCS dst_len = 8, src0_len = 2 )  BTI 3  base_offset 0  { align1 1H $7 };
mad(16)         g75<1>F         g81<8,8,1>F     g5<8,8,1>F      g13<1,1,1>F { align1 1H @1 $7.dst };
dp4a(16)        g75<1>D         g81<8,8,1>D     g5<8,8,1>D      g13<1,1,1>D { align1 1H @1 $7.dst };

LABEL4:
while(16)       JIP:  LABEL5                                    { align1 1H };
mov(16)         g51<1>F         g35<1,1,0>F                     { align1 1H compacted };
";

    #[test]
    fn a_turn_is_counted_in_lanes() {
        let program = parse(RECORDED);
        let loops = program.loops();
        assert_eq!(loops.len(), 1, "{loops:?}");
        let turn = Mix {
            vector: 16 + 16 + 16 + 8 + 16 + 16,
            scalar: 16 + 16 + 1,
            vector_memory: 16,
            other: 1,
            multiplies: 16 + 16 + 4 * 16,
            ..Mix::default()
        };
        assert_eq!((loops[0].header.as_str(), loops[0].turn), ("LABEL5", turn));
        assert_eq!(program.whole().vector, turn.vector + 2 * 16);
    }
}

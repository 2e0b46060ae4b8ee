// out[token] = table[id of token] * scale, where it has an id (without one the host has written its row); with ADD added to
// what is there; with POSITION the row of the token's position, with FIRST always the first.
//
// Shapes: table [vocabulary, 32 * groups] in a block format; out [tokens, 32 * groups] f32.
// Threads: x over the groups of 32 weights, y over tokens.
#import shared/step
#import shared/weights

struct Params {
    groups: u32,
    // The rows of the table that this buffer holds: a table larger than a binding comes in pieces.
    first_row: u32,
    rows: u32,
    vocabulary: u32,
    scale: f32,
    plane1: u32,
    plane2: u32,
    plane3: u32,
    table: u32,
}

@group(0) @binding(1) var<storage, read> tokens: array<Token>;
@group(0) @binding(2) var<storage, read> selected: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(4) var<uniform> params: Params;

#import format

override LANES: u32 = 64u;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = workgroup.x * LANES + lane;
    if group >= params.groups {
        return;
    }
    let token = tokens[workgroup.y];
#ifdef FIRST
    var id = 0u;
#else
#ifdef POSITION
    var id = token.position;
#else
    var id = token.id_or_seat;
    if token.kind == 1u {
        id = selected[token.id_or_seat];
    }
#ifndef ADD
    if token.kind == 2u {
        return;
    }
#endif
#endif
#endif
    id = min(id, params.vocabulary - 1u);
    if id < params.first_row || id >= params.first_row + params.rows {
        return;
    }
    let w = decode_group((id - params.first_row) * params.groups + group);
    let at = (workgroup.y * params.groups + group) * 8u;
#unroll k 8
#ifdef ADD
    out[at + {k}u] += w[{k}] * params.scale;
#else
    out[at + {k}u] = w[{k}] * params.scale;
#endif
#end
}

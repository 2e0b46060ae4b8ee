enable f16;
enable wgpu_cooperative_matrix;
// Multiplies cooperative matrices of 16 x 16 halves in registers, sums in f32, eight that do not wait for each other: the
// most that a kernel can multiply by matrix units in its time.
//
// Shapes: out [256 * workgroups] f32.
// Threads: x over workgroups, each of which does 8 * 16^3 * turns multiplications with additions, shared out to its
// subgroups, whatever their size: turns is a multiple of their number.

struct Params {
    turns: u32,
}

@group(0) @binding(0) var<storage, read_write> out: array<f32>;
@group(0) @binding(1) var<uniform> params: Params;

// 256: a lane an element of a matrix.
override LANES: u32 = 256u;

var<workgroup> factors: array<f16, 256>;
var<workgroup> sums: array<f32, 256>;

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(num_subgroups) subgroups: u32,
) {
    factors[lane] = f16(f32(lane & 15u) * 0.01);
    workgroupBarrier();
    let a = coopLoad<coop_mat16x16<f16, A>>(&factors[0], 16u);
    let b = coopLoad<coop_mat16x16<f16, B>>(&factors[0], 16u);
#unroll s 8
    var sum{s} = coop_mat16x16<f32, C>();
#end
    for (var turn = 0u; turn < params.turns; turn += subgroups) {
#unroll s 8
        sum{s} = coopMultiplyAdd(a, b, sum{s});
#end
    }
#unroll s 8
    // One after the other into the same place: only that none is left out counts.
    workgroupBarrier();
    coopStore(sum{s}, &sums[0], 16u);
#end
    workgroupBarrier();
    out[workgroup.x * LANES + lane] = sums[lane];
}

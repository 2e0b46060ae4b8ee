// The KEEP largest of each 1024 candidates, sorted: a pass of the search for the largest of all. The first
// pass (FIRST) reads logits, the others what the pass before has kept.
//
// Shapes: FIRST: logits [count] f32, else candidates [count] of (bits of the logit, id); kept [KEEP * workgroups]
// likewise; flags [1] u32, set to 1 if a logit is no finite number.
// Threads: a workgroup of 256 sorts 1024 candidates (bitonic), the larger logit first, of equal ones the
// smaller id.

struct Params {
    count: u32,
}

#ifdef FIRST
@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read_write> flags: array<u32>;
#else
@group(0) @binding(0) var<storage, read> candidates: array<vec2<u32>>;
#endif
@group(0) @binding(2) var<storage, read_write> kept: array<vec2<u32>>;
@group(0) @binding(3) var<uniform> params: Params;

override KEEP: u32 = 64u;
const LANES: u32 = 256u;
const COUNT: u32 = 1024u;

var<workgroup> logit_of: array<f32, 1024>;
var<workgroup> id_of: array<u32, 1024>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    for (var i = lane; i < COUNT; i += LANES) {
        let index = workgroup.x * COUNT + i;
        var logit = -3.4e38;
        var id = 0xffffffffu;
        if index < params.count {
#ifdef FIRST
            logit = logits[index];
            id = index;
            // By bits: a compiler may assume that there are no NaNs.
            if (bitcast<u32>(logit) & 0x7f800000u) == 0x7f800000u {
                flags[0] = 1u;
                logit = -3.4e38;
            }
#else
            let candidate = candidates[index];
            logit = bitcast<f32>(candidate.x);
            id = candidate.y;
#endif
        }
        logit_of[i] = logit;
        id_of[i] = id;
    }
    for (var size = 2u; size <= COUNT; size = size * 2u) {
        for (var stride = size / 2u; stride > 0u; stride = stride / 2u) {
            workgroupBarrier();
            for (var pair = lane; pair < COUNT / 2u; pair += LANES) {
                let a = 2u * stride * (pair / stride) + pair % stride;
                let b = a + stride;
                let falling = (a & size) == 0u;
                let a_first = logit_of[a] > logit_of[b] || (logit_of[a] == logit_of[b] && id_of[a] < id_of[b]);
                if a_first != falling {
                    let logit = logit_of[a];
                    let id = id_of[a];
                    logit_of[a] = logit_of[b];
                    id_of[a] = id_of[b];
                    logit_of[b] = logit;
                    id_of[b] = id;
                }
            }
        }
    }
    workgroupBarrier();
    for (var i = lane; i < KEEP; i += LANES) {
        kept[workgroup.x * KEEP + i] = vec2<u32>(bitcast<u32>(logit_of[i]), id_of[i]);
    }
}

// The KEEP largest of each 1024 candidates, sorted: a pass of the search for the largest of all.
//
// Shapes: FIRST: logits [rows, count] f32, else candidates [selections, room] of (bits of the logit, id), of which the first
// `count` are; kept likewise, the first `KEEP * workgroups`; flags [selections] u32, set to 1 if a logit is no finite number.
// Threads: x over the candidates, y over selections. A workgroup of 256 sorts 1024 candidates (bitonic).
#import shared/candidates

override KEEP: u32 = 64u;
const LANES: u32 = 256u;
const COUNT: u32 = 1024u;

var<workgroup> sorted: array<Candidate, COUNT>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    for (var i = lane; i < COUNT; i += LANES) {
        sorted[i] = candidate_at(workgroup.y, workgroup.x * COUNT + i);
    }
    for (var size = 2u; size <= COUNT; size = size * 2u) {
        for (var stride = size / 2u; stride > 0u; stride = stride / 2u) {
            workgroupBarrier();
            for (var pair = lane; pair < COUNT / 2u; pair += LANES) {
                let a = 2u * stride * (pair / stride) + pair % stride;
                let b = a + stride;
                let falling = (a & size) == 0u;
                if comes_first(sorted[a], sorted[b]) != falling {
                    let other = sorted[a];
                    sorted[a] = sorted[b];
                    sorted[b] = other;
                }
            }
        }
    }
    workgroupBarrier();
    for (var i = lane; i < KEEP; i += LANES) {
        keep(workgroup.y, workgroup.x * KEEP + i, sorted[i]);
    }
}

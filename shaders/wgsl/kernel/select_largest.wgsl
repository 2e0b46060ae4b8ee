// The largest of each 1024 candidates: a pass of the search for the largest of all, where no more are wanted.
//
// Shapes: FIRST: logits [rows, count] f32, else candidates [selections, room] of (bits of the logit, id), of which the first
// `count` are; kept likewise, the first `workgroups`; flags [selections] u32, set to 1 if a logit is no finite number.
// Threads: x over the candidates, y over selections. Of a workgroup of 64 each finds the largest of 16 candidates, eight the largest of eight of those, one
// that of all.
#import shared/candidates

const LANES: u32 = 64u;
const COUNT: u32 = 1024u;

var<workgroup> found: array<Candidate, LANES>;

// The one that comes first among eight neighbours of `found`.
fn first_of_eight(start: u32) -> Candidate {
    var best = found[start];
    for (var i = 1u; i < 8u; i++) {
        let other = found[start + i];
        if comes_first(other, best) {
            best = other;
        }
    }
    return best;
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = workgroup.x * COUNT + lane;
    var best = candidate_at(workgroup.y, first);
    for (var i = LANES; i < COUNT; i += LANES) {
        let other = candidate_at(workgroup.y, first + i);
        if comes_first(other, best) {
            best = other;
        }
    }
    found[lane] = best;
    workgroupBarrier();
    if lane < 8u {
        best = first_of_eight(lane * 8u);
    }
    workgroupBarrier();
    if lane < 8u {
        found[lane] = best;
    }
    workgroupBarrier();
    if lane == 0u {
        keep(workgroup.y, workgroup.x, first_of_eight(0u));
    }
}

// Makes recent ids less likely: positive logits are divided by the penalty, others multiplied. Each id once.
//
// Shapes: logits [rows, vocabulary] f32; recent [seats, 65] u32: how many ids there have been, then a ring of the last 64.
// Threads: a workgroup of 64 a selection, a lane an id.
#import shared/selection

struct Params {
    vocabulary: u32,
}

@group(0) @binding(0) var<storage, read_write> logits: array<f32>;
@group(0) @binding(1) var<storage, read> recent: array<u32>;
@group(0) @binding(2) var<storage, read> selections: array<Selection>;
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let selection = selections[workgroup.y];
    let ids = selection.seat * RECENT_WORDS + 1u;
    let count = min(recent[ids - 1u], 64u);
    if lane >= count || selection.penalty == 1.0 {
        return;
    }
    let id = min(recent[ids + lane], params.vocabulary - 1u);
    for (var i = 0u; i < lane; i++) {
        if recent[ids + i] == id {
            return;
        }
    }
    let at = selection.row * params.vocabulary + id;
    let logit = logits[at];
    logits[at] = select(logit / selection.penalty, logit * selection.penalty, logit <= 0.0);
}

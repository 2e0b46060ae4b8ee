// Makes recent ids less likely: positive logits are divided by the penalty, others multiplied. Each id once.
//
// Shapes: logits [vocabulary] f32; recent [65] u32: how many ids there have been, then a ring of the last 64.
// Threads: one workgroup of 64, a lane an id.
#import shared/selection

struct Params {
    vocabulary: u32,
}

@group(0) @binding(0) var<storage, read_write> logits: array<f32>;
@group(0) @binding(1) var<storage, read> recent: array<u32>;
@group(0) @binding(2) var<storage, read> selection: Selection;
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) lane: u32) {
    let count = min(recent[0], 64u);
    if lane >= count || selection.penalty == 1.0 {
        return;
    }
    let id = min(recent[1u + lane], params.vocabulary - 1u);
    for (var i = 0u; i < lane; i++) {
        if recent[1u + i] == id {
            return;
        }
    }
    let logit = logits[id];
    logits[id] = select(logit / selection.penalty, logit * selection.penalty, logit <= 0.0);
}

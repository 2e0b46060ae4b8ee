// Chooses `used` of `experts` for each token by their logits: the best, with their weights.
//
// Weights: with SOFTMAX over all experts, with SIGMOID of each, else the logits, a softmax over the chosen. With BIAS the
// choice is by weight + bias. With GROUPS only experts of the best groups can be chosen, a group's score being the sum
// of its two best. With NORMALIZE the weights of the chosen are divided by their sum, at least 2^-14; then all are
// multiplied by `scale`. Of equals the first is chosen.
// Shapes: logits [tokens, experts] f32; out [tokens, used, 2]: an expert's number and its weight's bits.
// Threads: a workgroup of 64 a token, lanes stride over the experts; what is short one lane does alone.

struct Params {
    experts: u32,
    used: u32,
    groups: u32,
    groups_used: u32,
    scale: f32,
}

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<u32>;
@group(0) @binding(2) var<uniform> params: Params;
#ifdef BIAS
@group(0) @binding(3) var<storage, read> bias: array<f32>;
#endif
#ifdef SCALES
// What an expert's weight is multiplied by.
@group(0) @binding(4) var<storage, read> scales: array<f32>;
#endif

const LANES: u32 = 64u;
const LOWEST: f32 = -3e38;

var<workgroup> weight_of: array<f32, 1024>;
// What is chosen by; LOWEST in a group that is not.
var<workgroup> value_of: array<f32, 1024>;
var<workgroup> best_value: array<f32, 64>;
var<workgroup> chosen: array<u32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = workgroup.x * params.experts;
#ifdef SOFTMAX
    var most = LOWEST;
    for (var e = lane; e < params.experts; e += LANES) {
        most = max(most, logits[first + e]);
    }
    best_value[lane] = most;
    workgroupBarrier();
    for (var i = 0u; i < LANES; i += 4u) {
        most = max(most, max(max(best_value[i], best_value[i + 1u]), max(best_value[i + 2u], best_value[i + 3u])));
    }
    workgroupBarrier();
    var sum = 0.0;
    for (var e = lane; e < params.experts; e += LANES) {
        let power = exp(logits[first + e] - most);
        weight_of[e] = power;
        sum += power;
    }
    best_value[lane] = sum;
    workgroupBarrier();
    var total = 0.0;
    for (var i = 0u; i < LANES; i += 4u) {
        total += (best_value[i] + best_value[i + 1u]) + (best_value[i + 2u] + best_value[i + 3u]);
    }
#endif
    for (var e = lane; e < params.experts; e += LANES) {
#ifdef SOFTMAX
        let weight = weight_of[e] / total;
#else
#ifdef SIGMOID
        let weight = 1.0 / (1.0 + exp(-logits[first + e]));
#else
        let weight = logits[first + e];
#endif
#endif
        weight_of[e] = weight;
#ifdef BIAS
        value_of[e] = weight + bias[e];
#else
        value_of[e] = weight;
#endif
    }
    workgroupBarrier();
#ifdef GROUPS
    if lane == 0u {
        let per_group = params.experts / params.groups;
        // Scores of groups lie where the chosen come later.
        for (var g = 0u; g < params.groups; g++) {
            var best = LOWEST;
            var second = LOWEST;
            for (var e = g * per_group; e < (g + 1u) * per_group; e++) {
                let value = value_of[e];
                second = max(second, min(best, value));
                best = max(best, value);
            }
            best_value[g] = best + second;
            chosen[g] = 0u;
        }
        for (var n = 0u; n < params.groups_used; n++) {
            var best = 0u;
            var value = LOWEST;
            for (var g = 0u; g < params.groups; g++) {
                if chosen[g] == 0u && best_value[g] > value {
                    best = g;
                    value = best_value[g];
                }
            }
            chosen[best] = 1u;
        }
        for (var e = 0u; e < params.experts; e++) {
            if chosen[e / per_group] == 0u {
                value_of[e] = LOWEST;
            }
        }
    }
    workgroupBarrier();
#endif
    // An expert's place is the number of those before it: all at once, without a round for each that is chosen. Where some
    // are no numbers, places may be left; they keep an expert that exists.
    for (var n = lane; n < params.used; n += LANES) {
        chosen[n] = min(n, params.experts - 1u);
    }
    workgroupBarrier();
    for (var e = lane; e < params.experts; e += LANES) {
        let value = value_of[e];
        var place = 0u;
        for (var i = 0u; i < params.experts; i++) {
            let other = value_of[i];
            place += u32(other > value || (other == value && i < e));
        }
        if place < params.used {
            chosen[place] = e;
        }
    }
    workgroupBarrier();
    if lane == 0u {
#ifdef SOFTMAX
        let highest = 0.0;
#else
        // The first chosen has the largest logit.
        let highest = weight_of[chosen[0]];
#endif
        var sum_of_chosen = 0.0;
        for (var n = 0u; n < params.used; n++) {
#ifdef OF_CHOSEN
            best_value[n] = exp(weight_of[chosen[n]] - highest);
#else
            best_value[n] = weight_of[chosen[n]];
#endif
            sum_of_chosen += best_value[n];
        }
#ifdef OF_CHOSEN
        let factor = params.scale / sum_of_chosen;
#else
#ifdef NORMALIZE
        let factor = params.scale / max(sum_of_chosen, 0.00006103515625);
#else
        let factor = params.scale;
#endif
#endif
        for (var n = 0u; n < params.used; n++) {
            let to = (workgroup.x * params.used + n) * 2u;
            out[to] = chosen[n];
#ifdef SCALES
            out[to + 1u] = bitcast<u32>(best_value[n] * factor * scales[chosen[n]]);
#else
            out[to + 1u] = bitcast<u32>(best_value[n] * factor);
#endif
        }
    }
}

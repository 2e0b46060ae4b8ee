// Chooses an id among sorted candidates: top-k, top-p, min-p, temperature, draw. The random number is
// Philox 4x32-10 of (seed, stream, position), the same as on the host.
//
// Shapes: candidates [selections, room] of (bits of the logit, id), the largest logit first, of which the first `count` are;
// flags [selections] u32; selected [2, seats] u32: ids, then the flags of the rows that they were chosen from; recent
// [seats, 65] u32: how many ids there have been, then a ring of the last 64.
// Threads: one a selection. The candidates are at most 256.
#import shared/selection

struct Params {
    count: u32,
    room: u32,
    vocabulary: u32,
    seats: u32,
}

@group(0) @binding(0) var<storage, read> candidates: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read_write> selected: array<u32>;
@group(0) @binding(2) var<storage, read_write> recent: array<u32>;
@group(0) @binding(3) var<storage, read> selections: array<Selection>;
@group(0) @binding(4) var<storage, read_write> flags: array<u32>;
@group(0) @binding(5) var<uniform> params: Params;

// The high and low words of a product.
fn multiply_wide(a: u32, b: u32) -> vec2<u32> {
    let a_low = a & 0xffffu;
    let a_high = a >> 16u;
    let b_low = b & 0xffffu;
    let b_high = b >> 16u;
    let low = a_low * b_low;
    let middle = a_high * b_low + (low >> 16u);
    let middle2 = a_low * b_high + (middle & 0xffffu);
    return vec2<u32>(a_high * b_high + (middle >> 16u) + (middle2 >> 16u), a * b);
}

fn uniform_random(position: u32, stream: u32, seed: vec2<u32>) -> f32 {
    var counter = vec4<u32>(position, stream, 0u, 0u);
    var key = seed;
    for (var round = 0u; round < 10u; round++) {
        let a = multiply_wide(counter.x, 0xd2511f53u);
        let b = multiply_wide(counter.z, 0xcd9e8d57u);
        counter = vec4<u32>(b.x ^ counter.y ^ key.x, b.y, a.x ^ counter.w ^ key.y, a.y);
        key += vec2<u32>(0x9e3779b9u, 0xbb67ae85u);
    }
    return f32(counter.x >> 8u) / 16777216.0;
}

fn logit(index: u32) -> f32 {
    return bitcast<f32>(candidates[index].x);
}

// Chooses among the candidates that start at `first`.
fn pick(selection: Selection, first: u32) -> u32 {
    if selection.greedy == 1u {
        return candidates[first].y;
    }
    let largest = logit(first);
    var kept = min(selection.top_k, params.count);
    var total = 0.0;
    for (var i = 0u; i < kept; i++) {
        total += exp(logit(first + i) - largest);
    }
    if selection.top_p < 1.0 {
        var sum = 0.0;
        for (var i = 0u; i < kept; i++) {
            sum += exp(logit(first + i) - largest) / total;
            if sum >= selection.top_p {
                kept = i + 1u;
                break;
            }
        }
    }
    if selection.min_p > 0.0 {
        let least = largest + log(selection.min_p);
        for (var i = 1u; i < kept; i++) {
            if logit(first + i) < least {
                kept = i;
                break;
            }
        }
    }
    var weights = 0.0;
    for (var i = 0u; i < kept; i++) {
        weights += exp((logit(first + i) - largest) / selection.temperature);
    }
    let seed = vec2<u32>(selection.seed_low, selection.seed_high);
    let goal = uniform_random(selection.position, selection.stream, seed) * weights;
    var sum = 0.0;
    for (var i = 0u; i < kept; i++) {
        sum += exp((logit(first + i) - largest) / selection.temperature);
        if sum > goal {
            return candidates[first + i].y;
        }
    }
    return candidates[first + kept - 1u].y;
}

@compute @workgroup_size(1)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>) {
    let selection = selections[workgroup.y];
    let id = min(pick(selection, workgroup.y * params.room), params.vocabulary - 1u);
    selected[selection.seat] = id;
    selected[params.seats + selection.seat] = flags[workgroup.y];
    flags[workgroup.y] = 0u;
    let ids = selection.seat * RECENT_WORDS + 1u;
    let count = recent[ids - 1u];
    recent[ids + count % 64u] = id;
    recent[ids - 1u] = count + 1u;
}

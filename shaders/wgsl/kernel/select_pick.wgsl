// Chooses an id among sorted candidates: top-k, top-p, min-p, temperature, draw. The random number is
// Philox 4x32-10 of (seed, sequence, position), the same as on the host.
//
// Shapes: candidates [count] of (bits of the logit, id), the largest logit first; selected [ring] u32; recent
// [65] u32: how many ids there have been, then a ring of the last 64.
// Threads: one. The candidates are at most 256.
#import shared/selection

struct Params {
    count: u32,
    vocabulary: u32,
}

@group(0) @binding(0) var<storage, read> candidates: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read_write> selected: array<u32>;
@group(0) @binding(2) var<storage, read_write> recent: array<u32>;
@group(0) @binding(3) var<storage, read> selection: Selection;
@group(0) @binding(4) var<uniform> params: Params;

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

fn uniform_random(position: u32, sequence: u32, seed: vec2<u32>) -> f32 {
    var counter = vec4<u32>(position, sequence, 0u, 0u);
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

fn pick() -> u32 {
    if selection.greedy == 1u {
        return candidates[0].y;
    }
    let largest = logit(0u);
    var kept = min(selection.top_k, params.count);
    var total = 0.0;
    for (var i = 0u; i < kept; i++) {
        total += exp(logit(i) - largest);
    }
    if selection.top_p < 1.0 {
        var sum = 0.0;
        for (var i = 0u; i < kept; i++) {
            sum += exp(logit(i) - largest) / total;
            if sum >= selection.top_p {
                kept = i + 1u;
                break;
            }
        }
    }
    if selection.min_p > 0.0 {
        let least = largest + log(selection.min_p);
        for (var i = 1u; i < kept; i++) {
            if logit(i) < least {
                kept = i;
                break;
            }
        }
    }
    var weights = 0.0;
    for (var i = 0u; i < kept; i++) {
        weights += exp((logit(i) - largest) / selection.temperature);
    }
    let seed = vec2<u32>(selection.seed_low, selection.seed_high);
    let goal = uniform_random(selection.position, selection.sequence, seed) * weights;
    var sum = 0.0;
    for (var i = 0u; i < kept; i++) {
        sum += exp((logit(i) - largest) / selection.temperature);
        if sum > goal {
            return candidates[i].y;
        }
    }
    return candidates[kept - 1u].y;
}

@compute @workgroup_size(1)
fn main() {
    let id = min(pick(), params.vocabulary - 1u);
    selected[selection.ring] = id;
    let count = recent[0];
    recent[1u + count % 64u] = id;
    recent[0] = count + 1u;
}

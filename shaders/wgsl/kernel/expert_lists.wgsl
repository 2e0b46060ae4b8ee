// Puts the pairs of all tokens in the order of the experts they chose, and cuts them into tiles of one expert each, for
// matmul and matmul_cooperative with EXPERTS.
//
// Shapes: routes [tokens, used, 2]: an expert's number and its weight; tiles: their count, then of each its expert,
// its first pair in the order, its pairs (at most TILE); from `order` on the pairs in order.
// Threads: one workgroup of 256: they count, one makes the tiles, they place the pairs.
#import shared/step

struct Params {
    experts: u32,
    used: u32,
    order: u32,
}

@group(0) @binding(0) var<storage, read> routes: array<u32>;
@group(0) @binding(1) var<storage, read_write> tiles: array<u32>;
@group(0) @binding(2) var<uniform> params: Params;
@group(0) @binding(3) var<uniform> step: Step;

const LANES: u32 = 256u;
// As many pairs as the products' tiles have tokens.
const TILE: u32 = {TOKENS}u;

// Pairs of each expert; then where its next pair goes.
var<workgroup> places: array<atomic<u32>, 1024>;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) lane: u32) {
    let pairs = step.tokens * params.used;
    for (var e = lane; e < 1024u; e += LANES) {
        atomicStore(&places[e], 0u);
    }
    workgroupBarrier();
    for (var pair = lane; pair < pairs; pair += LANES) {
        atomicAdd(&places[min(routes[2u * pair], params.experts - 1u)], 1u);
    }
    workgroupBarrier();
    if lane == 0u {
        var count = 0u;
        var first = 0u;
        for (var e = 0u; e < params.experts; e++) {
            let of_expert = atomicLoad(&places[e]);
            atomicStore(&places[e], first);
            for (var done = 0u; done < of_expert; done += TILE) {
                tiles[1u + count * 3u] = e;
                tiles[2u + count * 3u] = first + done;
                tiles[3u + count * 3u] = min(of_expert - done, TILE);
                count++;
            }
            first += of_expert;
        }
        tiles[0] = count;
    }
    workgroupBarrier();
    for (var pair = lane; pair < pairs; pair += LANES) {
        let place = atomicAdd(&places[min(routes[2u * pair], params.experts - 1u)], 1u);
        tiles[params.order + place] = pair;
    }
}

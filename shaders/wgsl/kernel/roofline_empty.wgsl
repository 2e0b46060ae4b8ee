// Does nothing: what a dispatch costs by itself. With WRITES it may write what the next one may write, so that one
// waits for the other.
//
// Shapes: out [1] u32.
// Threads: one workgroup of LANES.

struct Params {
    never: u32,
}

#ifdef WRITES
@group(0) @binding(0) var<storage, read_write> out: array<u32>;
#endif
@group(0) @binding(1) var<uniform> params: Params;

override LANES: u32 = 64u;

@compute @workgroup_size(LANES)
fn main(@builtin(local_invocation_index) lane: u32) {
#ifdef WRITES
    // One lane's: FXC refuses a store that lanes race for.
    if params.never == 1u && lane == 0u {
        out[0] = 1u;
    }
#endif
}

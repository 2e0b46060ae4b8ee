// A convolution over the tokens of each sequence, channel by channel, in place: y[t] = sum over taps i of w[i] x[t - taps + 1
// + i], plus a bias with BIAS, through an activation with ACTIVATED. What comes before the step lies in the state, and 0
// before a sequence's start. With SEES_AHEAD y[t] is what stands above for t + AHEAD, and 0 comes after the last token of a
// sequence, all of whose tokens are in the step.
//
// Shapes: values [tokens, row] f32, channels from column offset on; weight [channels, TAPS]; state [sequences, TAPS - 1,
// channels].
// Threads: a lane a channel (x) of a sequence (y), through all tokens.
#import shared/step
#import shared/activation

struct Params {
    row: u32,
    offset: u32,
    channels: u32,
}

@group(0) @binding(0) var<storage, read_write> values: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read_write> state: array<f32>;
@group(0) @binding(3) var<storage, read> tokens: array<Token>;
@group(0) @binding(4) var<uniform> params: Params;
@group(0) @binding(5) var<uniform> step: Step;
#ifdef BIAS
@group(0) @binding(6) var<storage, read> bias: array<f32>;
#endif

override LANES: u32 = 64u;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let channel = workgroup.x * LANES + lane;
    if channel >= params.channels {
        return;
    }
    let first = workgroup.y * {BEFORE}u * params.channels + channel;
    // The oldest input first, this token's last.
    var inputs: array<f32, {TAPS}>;
#unroll i BEFORE
    inputs[{i}] = state[first + {i}u * params.channels];
#end
#ifdef SEES_AHEAD
    // Where the sums of the last AHEAD tokens go, and how many tokens there were.
    var places: array<u32, {AHEAD}>;
    var seen = 0u;
    let turns = step.tokens + {AHEAD}u;
#else
    let turns = step.tokens;
#endif
    for (var t = 0u; t < turns; t++) {
#ifdef SEES_AHEAD
        let is_token = t < step.tokens;
#else
        let is_token = true;
#endif
        var at = 0u;
        inputs[{BEFORE}] = 0.0;
        if is_token {
            if tokens[t].seat != workgroup.y {
                continue;
            }
            if tokens[t].position == 0u {
#unroll i BEFORE
                inputs[{i}] = 0.0;
#end
            }
            at = t * params.row + params.offset + channel;
            inputs[{BEFORE}] = values[at];
        }
#ifdef SEES_AHEAD
        // What comes after the last token is no part of the state.
        if t == step.tokens {
#unroll i BEFORE
            state[first + {i}u * params.channels] = inputs[{i}];
#end
        }
#endif
#ifdef BIAS
        var y = bias[channel];
#else
        var y = 0.0;
#endif
#unroll i TAPS
        y = fma(weight[channel * {TAPS}u + {i}u], inputs[{i}], y);
#end
#unroll i BEFORE
        inputs[{i}] = inputs[{i} + 1];
#end
#ifdef ACTIVATED
        y = activate(y);
#endif
#ifdef SEES_AHEAD
        let place = seen % {AHEAD}u;
        if seen >= {AHEAD}u {
            values[places[place]] = y;
        }
        places[place] = at;
        seen++;
#else
        values[at] = y;
#endif
    }
#ifndef SEES_AHEAD
#unroll i BEFORE
    state[first + {i}u * params.channels] = inputs[{i}];
#end
#endif
}

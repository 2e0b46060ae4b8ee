//! Ops that go through each sequence token by token, with a state: convolutions, Mamba 2, the gated delta rule. Channels
//! and heads are shared out, each through all tokens.

use super::{CpuExecutor, PlacedStep};
use crate::cpu::math::{activate, exp};
use crate::cpu::slots::Slots;
use crate::plan::{StateId, op};
use crate::spec::Activation;

/// ln(1 + e^x); x itself above 20, as llama.cpp has it.
fn softplus(x: f32) -> f32 {
    if x > 20.0 { x } else { x.exp().ln_1p() }
}

/// The rows of each sequence of a step, in order.
fn texts_of(step: &PlacedStep) -> Vec<Vec<usize>> {
    let mut texts: Vec<Vec<usize>> = Vec::new();
    for (row, token) in step.tokens.iter().enumerate() {
        match texts.iter_mut().find(|rows| step.tokens[rows[0]].seat == token.seat) {
            Some(rows) => rows.push(row),
            None => texts.push(vec![row]),
        }
    }
    texts
}

/// Channels of a convolution that a thread takes at once.
const CHANNELS: usize = 64;

impl CpuExecutor {
    /// A state's buffer, taken out; it goes back by assignment.
    fn take_state(&mut self, state: StateId) -> Vec<f32> {
        std::mem::take(&mut self.states[state.0])
    }

    pub(super) fn conv(&mut self, op: &op::Conv, step: &PlacedStep) {
        let &op::Conv {
            offset,
            channels,
            taps,
            ahead,
            weight,
            bias,
            activation,
            state,
            out: value,
            ..
        } = op;
        let mut buffer = self.take(value);
        let mut states = self.take_state(state);
        let stride = self.blueprint.plan.value(value).width;
        let weights = self.weights.vector(weight);
        let bias = bias.map(|bias| self.weights.vector(bias));
        let cells = Slots::new(&mut buffer, 1);
        let kept = Slots::new(&mut states, 1);
        let texts = if ahead > 0 { texts_of(step) } else { Vec::new() };
        self.team.share(channels, CHANNELS, &|range| {
            for channel in range {
                let weights = &weights[channel * taps..][..taps];
                for (index, token) in step.tokens.iter().enumerate() {
                    let place =
                        |tap: usize| (token.seat as usize * (taps - 1) + tap) * channels + channel;
                    cells.with(index * stride + offset + channel, |cell| {
                        let x = cell[0];
                        let mut y = bias.map_or(0.0, |bias| bias[channel]) + weights[taps - 1] * x;
                        for (tap, weight) in weights[..taps - 1].iter().enumerate() {
                            let before = kept.with(place(tap), |kept| {
                                if token.position == 0 { 0.0 } else { kept[0] }
                            });
                            y += weight * before;
                            // Everything moves by one; what this token gave comes last.
                            if tap > 0 {
                                kept.with(place(tap - 1), |kept| kept[0] = before);
                            }
                        }
                        kept.with(place(taps - 2), |kept| kept[0] = x);
                        cell[0] = activation.map_or(y, |activation| activate(y, activation));
                    });
                }
                // Where taps see later tokens, a text is one step: each token's sum is that of one `ahead` behind it,
                // and 0 comes after the last.
                for rows in &texts {
                    let cell = |row: usize| row * stride + offset + channel;
                    for (&row, &later) in rows.iter().zip(&rows[ahead.min(rows.len())..]) {
                        let y = cells.with(cell(later), |later| later[0]);
                        cells.with(cell(row), |cell| cell[0] = y);
                    }
                    let seat = step.tokens[rows[0]].seat as usize;
                    let before = |tap: usize| {
                        kept.with((seat * (taps - 1) + tap) * channels + channel, |kept| kept[0])
                    };
                    // How many zeros the last tokens' sums have at their end.
                    let short = ahead.saturating_sub(rows.len());
                    for (zeros, &row) in
                        (1 + short..).zip(&rows[rows.len().saturating_sub(ahead)..])
                    {
                        let known = taps - zeros;
                        let sum: f32 = (0..known)
                            .map(|tap| weights[tap] * before(taps - 1 - known + tap))
                            .sum();
                        let y = bias.map_or(0.0, |bias| bias[channel]) + sum;
                        let y = activation.map_or(y, |activation| activate(y, activation));
                        cells.with(cell(row), |cell| cell[0] = y);
                    }
                }
            }
        });
        self.states[state.0] = states;
        self.put(value, buffer);
    }

    pub(super) fn mamba2(&mut self, op: &op::Mamba2, step: &PlacedStep) {
        let &op::Mamba2 { input: value, mamba, a, d, dt_bias, state, out } = op;
        let mut result = self.take(out);
        let mut states = self.take_state(state);
        let (inner, n, length) = (mamba.inner(), mamba.state, mamba.head_size);
        let stride = self.blueprint.plan.value(value).width;
        let input = self.value(value);
        let [a, d, dt_bias] = [a, d, dt_bias].map(|id| self.weights.vector(id));
        let outputs = Slots::new(&mut result, length);
        let memories = Slots::new(&mut states, n * length);
        self.team.share(mamba.heads, 1, &|range| {
            for head in range {
                let group = head / (mamba.heads / mamba.groups);
                for (index, token) in step.tokens.iter().enumerate() {
                    let row = &input[index * stride..][..stride];
                    let x = &row[inner + head * length..][..length];
                    let b = &row[2 * inner + group * n..][..n];
                    let c = &row[2 * inner + (mamba.groups + group) * n..][..n];
                    let dt = row[2 * inner + 2 * mamba.groups * n + head];
                    let delta = softplus(dt + dt_bias[head]);
                    let decay = exp(delta * a[head]);
                    memories.with(token.seat as usize * mamba.heads + head, |memory| {
                        if token.position == 0 {
                            memory.fill(0.0);
                        }
                        outputs.with(index * mamba.heads + head, |y| {
                            for (y, x) in y.iter_mut().zip(x) {
                                *y = d[head] * x;
                            }
                            for (i, memory) in memory.chunks_exact_mut(length).enumerate() {
                                let add = delta * b[i];
                                for ((m, y), x) in memory.iter_mut().zip(y.iter_mut()).zip(x) {
                                    *m = *m * decay + add * x;
                                    *y += *m * c[i];
                                }
                            }
                        });
                    });
                }
            }
        });
        self.states[state.0] = states;
        self.put(out, result);
    }

    pub(super) fn delta_net(&mut self, op: &op::DeltaNet, step: &PlacedStep) {
        let &op::DeltaNet { qkv, gates, gates_by_key_head, net, a, dt_bias, state, out } = op;
        let mut result = self.take(out);
        let mut states = self.take_state(state);
        let (size, heads) = (net.size, net.value_heads);
        let per_key = heads / net.key_heads;
        let (rows, gates) = (self.value(qkv), self.value(gates));
        let [a, dt_bias] = [a, dt_bias].map(|id| self.weights.vector(id));
        let scale = 1.0 / (size as f32).sqrt();
        let outputs = Slots::new(&mut result, size);
        let memories = Slots::new(&mut states, size * size);
        self.team.share(heads, 1, &|range| {
            let mut change = vec![0.0; size];
            for head in range {
                let key_head = if net.grouped { head / per_key } else { head % net.key_heads };
                let (beta_at, alpha_at) = if gates_by_key_head {
                    let first = head / per_key * 2 * per_key + head % per_key;
                    (first, first + per_key)
                } else {
                    (head, heads + head)
                };
                for (index, token) in step.tokens.iter().enumerate() {
                    let row = &rows[index * net.channels()..][..net.channels()];
                    let q = &row[key_head * size..][..size];
                    let k = &row[(net.key_heads + key_head) * size..][..size];
                    let v = &row[(2 * net.key_heads + head) * size..][..size];
                    let gates = &gates[index * 2 * heads..][..2 * heads];
                    let beta = activate(gates[beta_at], Activation::Sigmoid);
                    let growth = a[head] * softplus(gates[alpha_at] + dt_bias[head]);
                    let decay = exp(growth);
                    memories.with(token.seat as usize * heads + head, |memory| {
                        if token.position == 0 {
                            memory.fill(0.0);
                        }
                        // v less what the decayed memory knows of it.
                        change.copy_from_slice(v);
                        for (memory, k) in memory.chunks_exact_mut(size).zip(k) {
                            for (m, change) in memory.iter_mut().zip(&mut change) {
                                *m *= decay;
                                *change -= *m * k;
                            }
                        }
                        outputs.with(index * heads + head, |y| {
                            y.fill(0.0);
                            for ((memory, k), q) in memory.chunks_exact_mut(size).zip(k).zip(q) {
                                let (k, q) = (k * beta, q * scale);
                                for ((m, y), change) in
                                    memory.iter_mut().zip(y.iter_mut()).zip(&change)
                                {
                                    *m += k * change;
                                    *y += *m * q;
                                }
                            }
                        });
                    });
                }
            }
        });
        self.states[state.0] = states;
        self.put(out, result);
    }
}

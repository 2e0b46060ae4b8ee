//! Ops whose layers carry a state from token to token.

use super::{Reference, Values, activate, softplus};
use crate::plan::{StateId, op};
use crate::spec::Activation;
use crate::spec::weights::WeightId;
use crate::step::StepToken;

impl Reference {
    pub(super) fn conv(&mut self, op: &op::Conv, tokens: &[StepToken], values: &mut Values) {
        let op::Conv {
            offset, channels, taps, ahead, weight, bias, activation, state, out, ..
        } = op;
        for (token, row) in tokens.iter().zip(&mut values[out.0]) {
            // The last inputs, the oldest first.
            let mut before = self.take_state(token, *state);
            let weight = &self.weights[weight.0];
            for channel in 0..*channels {
                let x = row[offset + channel];
                let mut y = bias.map_or(0.0, |bias| f64::from(self.weights[bias.0][channel]));
                for tap in 0..*taps {
                    let input = before.get(tap * channels + channel).copied().unwrap_or(x);
                    y += f64::from(weight[channel * taps + tap]) * input;
                }
                before.push(x);
                row[offset + channel] = activation.map_or(y, |a| activate(y, a));
            }
            before.drain(..*channels);
            self.states.insert((token.sequence, state.0), before);
        }
        if *ahead > 0 {
            self.look_ahead(op, tokens, &mut values[out.0]);
        }
    }

    pub(super) fn mamba2(&mut self, op: &op::Mamba2, tokens: &[StepToken], values: &mut Values) {
        let op::Mamba2 { input, mamba, a, d, dt_bias, state, out } = op;
        let (inner, n, groups) = (mamba.inner(), mamba.state, mamba.groups);
        let mut mixed = Vec::new();
        for (token, row) in tokens.iter().zip(&values[input.0]) {
            let mut memory = self.take_state(token, *state);
            let vector = |id: &WeightId, head: usize| f64::from(self.weights[id.0][head]);
            let x = &row[inner..2 * inner];
            let (b, rest) = row[2 * inner..].split_at(groups * n);
            let (c, dt) = rest.split_at(groups * n);
            let mut y = vec![0.0; inner];
            for head in 0..mamba.heads {
                let delta = softplus(dt[head] + vector(dt_bias, head));
                let decay = (delta * vector(a, head)).exp();
                let group = head / (mamba.heads / groups);
                for p in 0..mamba.head_size {
                    let at = head * mamba.head_size + p;
                    let mut sum = vector(d, head) * x[at];
                    for i in 0..n {
                        let cell = &mut memory[(head * n + i) * mamba.head_size + p];
                        *cell = *cell * decay + delta * x[at] * b[group * n + i];
                        sum += *cell * c[group * n + i];
                    }
                    y[at] = sum;
                }
            }
            self.states.insert((token.sequence, state.0), memory);
            mixed.push(y);
        }
        values[out.0] = mixed;
    }

    pub(super) fn delta_net(
        &mut self,
        op: &op::DeltaNet,
        tokens: &[StepToken],
        values: &mut Values,
    ) {
        let op::DeltaNet { qkv, gates, gates_by_key_head, net, a, dt_bias, state, out } = op;
        let size = net.size;
        let per_key = net.value_heads / net.key_heads;
        let mut mixed = Vec::new();
        for (index, token) in tokens.iter().enumerate() {
            let mut memory = self.take_state(token, *state);
            let (row, gates) = (&values[qkv.0][index], &values[gates.0][index]);
            let mut y = vec![0.0; net.inner()];
            for head in 0..net.value_heads {
                let key_head = if net.grouped { head / per_key } else { head % net.key_heads };
                let q = &row[key_head * size..][..size];
                let k = &row[(net.key_heads + key_head) * size..][..size];
                let v = &row[(2 * net.key_heads + head) * size..][..size];
                let (beta, alpha) = if *gates_by_key_head {
                    let first = head / per_key * 2 * per_key + head % per_key;
                    (gates[first], gates[first + per_key])
                } else {
                    (gates[head], gates[net.value_heads + head])
                };
                let beta = activate(beta, Activation::Sigmoid);
                let vector = |id: &WeightId| f64::from(self.weights[id.0][head]);
                let decay = (vector(a) * softplus(alpha + vector(dt_bias))).exp();
                let memory = &mut memory[head * size * size..][..size * size];
                for m in memory.iter_mut() {
                    *m *= decay;
                }
                for j in 0..size {
                    let known: f64 = (0..size).map(|i| memory[i * size + j] * k[i]).sum();
                    let change = beta * (v[j] - known);
                    let mut sum = 0.0;
                    for i in 0..size {
                        memory[i * size + j] += k[i] * change;
                        sum += memory[i * size + j] * q[i];
                    }
                    y[head * size + j] = sum / (size as f64).sqrt();
                }
            }
            self.states.insert((token.sequence, state.0), memory);
            mixed.push(y);
        }
        values[out.0] = mixed;
    }

    /// Moves the sums of a convolution to the tokens `ahead` before; 0 comes after a text's last token.
    fn look_ahead(&self, op: &op::Conv, tokens: &[StepToken], rows: &mut [Vec<f64>]) {
        let op::Conv { offset, channels, taps, ahead, weight, bias, activation, state, .. } = op;
        for (first, token) in tokens.iter().enumerate() {
            let is_of_text = |row: &usize| tokens[*row].sequence == token.sequence;
            if (0..first).any(|row| is_of_text(&row)) {
                continue;
            }
            let text: Vec<usize> = (first..tokens.len()).filter(is_of_text).collect();
            let before = &self.states[&(token.sequence, state.0)];
            for (place, &row) in text.iter().enumerate() {
                let later = text.get(place + ahead).copied();
                // How many taps lie behind the text's end.
                let beyond = (place + ahead + 1).saturating_sub(text.len());
                for channel in 0..*channels {
                    rows[row][offset + channel] = if let Some(later) = later {
                        rows[later][offset + channel]
                    } else {
                        let mut y =
                            bias.map_or(0.0, |bias| f64::from(self.weights[bias.0][channel]));
                        for tap in 0..taps - beyond {
                            let input = before[(beyond - 1 + tap) * channels + channel];
                            y += f64::from(self.weights[weight.0][channel * taps + tap]) * input;
                        }
                        activation.map_or(y, |a| activate(y, a))
                    };
                }
            }
        }
    }

    /// A sequence's state before a token, taken out: zeros at its start.
    fn take_state(&mut self, token: &StepToken, state: StateId) -> Vec<f64> {
        let kept = self.states.remove(&(token.sequence, state.0));
        let zeros = || vec![0.0; self.plan.states[state.0]];
        kept.filter(|_| token.position > 0).unwrap_or_else(zeros)
    }
}

//! Mixers that go through a sequence step by step.

use super::Builder;
use crate::Result;
use crate::plan::{Epilogue, Op, Parts, StateId, ValueId, op};
use crate::spec::{Activation, DeltaNet, Mamba2, NormKind};

impl Builder<'_> {
    pub(super) fn state(&mut self, floats: usize) -> StateId {
        self.states.push(floats);
        StateId(self.states.len() - 1)
    }

    /// A convolution of layer `index` over `channels` columns of `value` from `offset` on, of which `ahead` taps see later
    /// tokens.
    pub(super) fn conv(
        &mut self,
        (index, name): (usize, &str),
        value: ValueId,
        (offset, channels): (usize, usize),
        (taps, ahead): (usize, usize),
        activation: Option<Activation>,
    ) -> Result<()> {
        let (weight, bias) = {
            let name = format!("blk.{index}.{name}");
            let weight = self.weights.require(&format!("{name}.weight"), taps, channels)?;
            (weight, self.weights.optional(&format!("{name}.bias"), channels, 1)?)
        };
        let state = self.state((taps - 1) * channels);
        self.push(op::Conv {
            value,
            offset,
            channels,
            taps,
            ahead,
            weight,
            bias,
            activation,
            state,
        });
        Ok(())
    }

    pub(super) fn short_conv(
        &mut self,
        index: usize,
        taps: usize,
        read: ValueId,
        x: ValueId,
    ) -> Result<()> {
        // Where tokens see those behind them, the taps lie around each token (llama.cpp's `build_shortconv_block`).
        let ahead = if self.spec.layers[index].causal { 0 } else { (taps - 1) / 2 };
        let width = self.spec.embedding;
        let all = self.value("b, c and x", 3 * width);
        let part = [("shortconv.in_proj", 3 * width)];
        self.linear(index, read, (None, &part), (1.0, Epilogue::Store), all)?;
        let at = |number: usize| Parts { value: all, offset: number * width, stride: width };
        let (b, c, inner) = (at(0), at(1), at(2));
        let shape = (1, width);
        let multiply = |gate, out| {
            Op::Gate(op::Gate { gate, activation: None, input: Some(inner), shape, out })
        };
        self.ops.push(multiply(b, inner));
        self.conv((index, "shortconv.conv"), all, (2 * width, width), (taps, ahead), None)?;
        let mixed = self.value("mixed", width);
        self.ops.push(multiply(c, Parts { value: mixed, offset: 0, stride: width }));
        self.close_branch(index, mixed, "shortconv.out_proj", "post_attention_norm", x)
    }

    pub(super) fn mamba2(
        &mut self,
        index: usize,
        mamba: Mamba2,
        read: ValueId,
        x: ValueId,
    ) -> Result<()> {
        let (inner, channels) = (mamba.inner(), mamba.channels());
        let all = self.value("z, x, B, C and dt", inner + channels + mamba.heads);
        let part = [("ssm_in", inner + channels + mamba.heads)];
        self.linear(index, read, (None, &part), (1.0, Epilogue::Store), all)?;
        let silu = Some(Activation::Silu);
        self.conv((index, "ssm_conv1d"), all, (inner, channels), (mamba.taps, 0), silu)?;
        let mut vector =
            |name: &str| self.weights.require(&format!("blk.{index}.{name}"), mamba.heads, 1);
        let (a, d, dt_bias) = (vector("ssm_a")?, vector("ssm_d")?, vector("ssm_dt.bias")?);
        let state = self.state(mamba.heads * mamba.state * mamba.head_size);
        let mixed = self.value("mixed", inner);
        self.push(op::Mamba2 { value: all, mamba, a, d, dt_bias, state, out: mixed });
        let whole = Parts { value: mixed, offset: 0, stride: inner };
        self.push(op::Gate {
            gate: Parts { value: all, offset: 0, stride: inner },
            activation: silu,
            input: Some(whole),
            shape: (1, inner),
            out: whole,
        });
        let (parts, width) = (mamba.groups, inner / mamba.groups);
        let name = format!("blk.{index}.ssm_norm.weight");
        if let Some(weight) = self.weights.optional(&name, width, parts)? {
            self.norm_parts(
                Parts { stride: width, ..whole },
                (parts, width),
                NormKind::Rms,
                Some(weight),
            );
        }
        self.close_branch(index, mixed, "ssm_out", "post_attention_norm", x)
    }

    pub(super) fn delta_net(
        &mut self,
        index: usize,
        net: DeltaNet,
        read: ValueId,
        x: ValueId,
    ) -> Result<()> {
        let (channels, inner, heads) = (net.channels(), net.inner(), net.value_heads);
        let qkv = self.value("qkv", channels);
        let part = [("attn_qkv", channels)];
        self.linear(index, read, (None, &part), (1.0, Epilogue::Store), qkv)?;
        let silu = Some(Activation::Silu);
        self.conv((index, "ssm_conv1d"), qkv, (0, channels), (net.taps, 0), silu)?;
        let heads_of = |value| Parts { value, offset: 0, stride: net.size };
        self.norm_parts(heads_of(qkv), (2 * net.key_heads, net.size), NormKind::L2, None);
        let gates = self.value("beta and alpha", 2 * heads);
        let split = [("ssm_beta", heads), ("ssm_alpha", heads)];
        let gates_by_key_head = self.is_fused(index, "ssm_ba", "ssm_beta");
        self.linear(index, read, (Some("ssm_ba"), &split), (1.0, Epilogue::Store), gates)?;
        let mut vector =
            |name: &str| self.weights.require(&format!("blk.{index}.{name}"), heads, 1);
        let (a, dt_bias) = (vector("ssm_a")?, vector("ssm_dt.bias")?);
        let state = self.state(heads * net.size * net.size);
        let mixed = self.value("mixed", inner);
        self.push(op::DeltaNet {
            qkv,
            gates,
            gates_by_key_head,
            net,
            a,
            dt_bias,
            state,
            out: mixed,
        });
        let name = format!("blk.{index}.ssm_norm.weight");
        let weight = self.weights.require(&name, net.size, 1)?;
        self.norm_parts(heads_of(mixed), (heads, net.size), NormKind::Rms, Some(weight));
        let z = self.value("z", inner);
        self.linear(index, read, (None, &[("attn_gate", inner)]), (1.0, Epilogue::Store), z)?;
        let whole = Parts { value: mixed, offset: 0, stride: inner };
        self.push(op::Gate {
            gate: Parts { value: z, offset: 0, stride: inner },
            activation: Some(Activation::Silu),
            input: Some(whole),
            shape: (1, inner),
            out: whole,
        });
        self.close_branch(index, mixed, "ssm_out", "post_attention_norm", x)
    }
}

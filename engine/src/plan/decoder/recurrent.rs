//! Mixers that go through a sequence step by step.

use super::{Builder, Matrices};
use crate::Result;
use crate::plan::{Epilogue, Parts, StateId, ValueId, op};
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
    ) -> Result<ValueId> {
        let (weight, bias) = {
            let name = format!("blk.{index}.{name}");
            let weight = self.weights.require(&format!("{name}.weight"), taps, channels)?;
            (weight, self.weights.optional(&format!("{name}.bias"), channels, 1)?)
        };
        let state = self.state((taps - 1) * channels);
        let out = self.next(value);
        self.push(op::Conv {
            input: value,
            offset,
            channels,
            taps,
            ahead,
            weight,
            bias,
            activation,
            state,
            out,
        });
        Ok(out)
    }

    pub(super) fn short_conv(
        &mut self,
        index: usize,
        taps: usize,
        read: ValueId,
        x: ValueId,
    ) -> Result<ValueId> {
        // Where tokens see those behind them, the taps lie around each token (llama.cpp's `build_shortconv_block`).
        let ahead = if self.spec.layers[index].causal { 0 } else { (taps - 1) / 2 };
        let width = self.spec.embedding;
        let part = [("shortconv.in_proj", 3 * width)];
        let all = self.plain_products(index, read, &part, "b, c and x")?;
        let at = |value, number: usize| Parts { value, offset: number * width, stride: width };
        let shape = (1, width);
        let all = self.gate_parts((at(all, 0), None), at(all, 2), shape);
        let name = (index, "shortconv.conv");
        let all = self.conv(name, all, (2 * width, width), (taps, ahead), None)?;
        let mixed = self.value("mixed", width);
        self.push(op::Gate {
            gate: at(all, 1),
            activation: None,
            input: Some(at(all, 2)),
            shape,
            before: None,
            out: at(mixed, 0),
        });
        self.close_branch(index, mixed, "shortconv.out_proj", "post_attention_norm", x)
    }

    pub(super) fn mamba2(
        &mut self,
        index: usize,
        mamba: Mamba2,
        read: ValueId,
        x: ValueId,
    ) -> Result<ValueId> {
        let (inner, channels) = (mamba.inner(), mamba.channels());
        let part = [("ssm_in", inner + channels + mamba.heads)];
        let all = self.plain_products(index, read, &part, "z, x, B, C and dt")?;
        let silu = Some(Activation::Silu);
        let all =
            self.conv((index, "ssm_conv1d"), all, (inner, channels), (mamba.taps, 0), silu)?;
        let mut vector =
            |name: &str| self.weights.require(&format!("blk.{index}.{name}"), mamba.heads, 1);
        let (a, d, dt_bias) = (vector("ssm_a")?, vector("ssm_d")?, vector("ssm_dt.bias")?);
        let state = self.state(mamba.heads * mamba.state * mamba.head_size);
        let mixed = self.value("mixed", inner);
        self.push(op::Mamba2 { input: all, mamba, a, d, dt_bias, state, out: mixed });
        let [z, whole] = [all, mixed].map(|value| Parts { value, offset: 0, stride: inner });
        let mut mixed = self.gate_parts((z, silu), whole, (1, inner));
        let (parts, width) = (mamba.groups, inner / mamba.groups);
        let name = format!("blk.{index}.ssm_norm.weight");
        if let Some(weight) = self.weights.optional(&name, width, parts)? {
            let at = Parts { value: mixed, offset: 0, stride: width };
            mixed = self.norm_parts(at, (parts, width), NormKind::Rms, Some(weight));
        }
        self.close_branch(index, mixed, "ssm_out", "post_attention_norm", x)
    }

    pub(super) fn delta_net(
        &mut self,
        index: usize,
        net: DeltaNet,
        read: ValueId,
        x: ValueId,
    ) -> Result<ValueId> {
        let (channels, inner, heads) = (net.channels(), net.inner(), net.value_heads);
        let qkv = self.plain_products(index, read, &[("attn_qkv", channels)], "qkv")?;
        let silu = Some(Activation::Silu);
        let qkv = self.conv((index, "ssm_conv1d"), qkv, (0, channels), (net.taps, 0), silu)?;
        let heads_of = |value| Parts { value, offset: 0, stride: net.size };
        let shape = (2 * net.key_heads, net.size);
        let qkv = self.norm_parts(heads_of(qkv), shape, NormKind::L2, None);
        let split = [("ssm_beta", heads), ("ssm_alpha", heads)];
        let gates_by_key_head = self.is_fused(index, "ssm_ba", "ssm_beta");
        let matrices = Matrices { fused: Some("ssm_ba"), names_and_rows: &split };
        let how = (1.0, Epilogue::Store);
        let gates = self.products(index, read, matrices, how, "beta and alpha")?;
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
        let shape = (heads, net.size);
        let mixed = self.norm_parts(heads_of(mixed), shape, NormKind::Rms, Some(weight));
        let z = self.plain_products(index, read, &[("attn_gate", inner)], "z")?;
        let [z, whole] = [z, mixed].map(|value| Parts { value, offset: 0, stride: inner });
        let mixed = self.gate_parts((z, silu), whole, (1, inner));
        self.close_branch(index, mixed, "ssm_out", "post_attention_norm", x)
    }
}

//! Spec -> Plan: the whole decoder, written once for every architecture.

use super::{Epilogue, KvLayer, KvLayerId, Op, Parts, Plan, RopeId, Rows, StateId, Value, ValueId};
use crate::Error;
use crate::Result;
use crate::model::ModelFile;
use crate::model::rope::{Rope, RopeFactors, RopeSpec};
use crate::model::spec::{
    Activation, DeltaNet, Experts, FeedForward, LayerSpec, Mamba2, NormKind, QkNorm, Recurrent,
    SharedExpert, Spec,
};
use crate::model::weights::{WeightFinder, WeightId, read_f32};

/// Plans the model for a context of `cells` positions a sequence.
pub(super) fn plan(model: &ModelFile, cells: usize) -> Result<Plan> {
    let spec = &*model.spec;
    let mut build = Builder {
        spec,
        weights: WeightFinder::new(&model.gguf),
        ops: Vec::new(),
        values: Vec::new(),
        kv_layers: Vec::new(),
        states: Vec::new(),
    };
    let ropes =
        spec.ropes.iter().map(|rope| build_rope(model, rope, cells)).collect::<Result<Vec<_>>>()?;

    let table = build.weights.require("token_embd.weight", spec.embedding, spec.vocabulary)?;
    let x = build.value("x", spec.embedding);
    build.ops.push(Op::Embed { table, scale: spec.embedding_scale, out: x });
    for (index, layer) in spec.layers.iter().enumerate() {
        build.layer(index, layer, x)?;
    }
    let last = build.output_value("last", spec.embedding);
    build.norm(x, spec.output_norm, false, last)?;
    let head = build.weights.optional("output.weight", spec.embedding, spec.vocabulary)?;
    let bias = build.weights.optional("output.bias", spec.vocabulary, 1)?;
    let logits = build.output_value("logits", spec.vocabulary);
    build.ops.push(Op::Linear {
        input: last,
        weights: vec![head.unwrap_or(table)],
        biases: vec![bias],
        factor: spec.logit_scale,
        epilogue: Epilogue::Store,
        out: logits,
    });
    if let Some(cap) = spec.logit_softcap {
        build.ops.push(Op::Softcap { value: logits, cap });
    }
    Ok(Plan {
        ops: build.ops,
        values: build.values,
        weights: build.weights.into_weights(),
        ropes,
        kv_layers: build.kv_layers,
        states: build.states,
        logits,
    })
}

/// A rotation with the file's divisors of its frequencies.
fn build_rope(model: &ModelFile, spec: &RopeSpec, cells: usize) -> Result<Rope> {
    let RopeFactors::File { original_context } = spec.factors else {
        return Ok(Rope::new(spec, None));
    };
    let long = if cells > original_context { "long" } else { "short" };
    let names = ["rope_freqs.weight".to_string(), format!("rope_factors_{long}.weight")];
    let Some(name) = names.iter().find(|name| model.gguf.tensor(name).is_some()) else {
        return Ok(Rope::new(spec, None));
    };
    let pairs = spec.dimensions / 2;
    let mut finder = WeightFinder::new(&model.gguf);
    finder.require(name, pairs, 1)?;
    let factors = read_f32(&model.gguf, name)?;
    if factors.iter().any(|factor| !factor.is_finite() || *factor == 0.0) {
        return Err(Error::Model {
            file: model.gguf.file().into(),
            why: format!(
                "tensor {name} holds a divisor of 0 or one that is not finite; the file is damaged"
            ),
        });
    }
    Ok(Rope::new(spec, Some(&factors)))
}

struct Builder<'a> {
    spec: &'a Spec,
    weights: WeightFinder<'a>,
    ops: Vec<Op>,
    values: Vec<Value>,
    kv_layers: Vec<KvLayer>,
    states: Vec<usize>,
}

impl Builder<'_> {
    fn push_value(&mut self, name: &'static str, width: usize, rows: Rows) -> ValueId {
        self.values.push(Value { name, width, rows });
        ValueId(self.values.len() - 1)
    }

    fn value(&mut self, name: &'static str, width: usize) -> ValueId {
        self.push_value(name, width, Rows::Tokens)
    }

    fn output_value(&mut self, name: &'static str, width: usize) -> ValueId {
        self.push_value(name, width, Rows::Outputs)
    }

    /// A norm between branches: `NAME.weight`, and `NAME.bias` where the file has one.
    fn norm(&mut self, input: ValueId, name: &str, add: bool, out: ValueId) -> Result<()> {
        let width = self.values[input.0].width;
        // One family's files lack the suffix.
        let with_suffix = format!("{name}.weight");
        let bare = !self.weights.has(&with_suffix) && self.weights.has(name);
        let weight = self.weights.require(if bare { name } else { &with_suffix }, width, 1)?;
        let bias = match self.spec.norm {
            NormKind::Layer => self.weights.optional(&format!("{name}.bias"), width, 1)?,
            NormKind::Rms | NormKind::L2 => None,
        };
        let (kind, epsilon) = (self.spec.norm, self.spec.norm_epsilon);
        self.ops.push(Op::Norm { input, kind, weight, bias, epsilon, add, out });
        Ok(())
    }

    /// The matrices `names` of layer `index` and their biases, applied side by side. If the file has one matrix
    /// of the name `fused` instead, that one.
    fn linear(
        &mut self,
        index: usize,
        input: ValueId,
        (fused, names_and_rows): (Option<&str>, &[(&str, usize)]),
        (factor, epilogue): (f32, Epilogue),
        out: ValueId,
    ) -> Result<()> {
        let columns = self.values[input.0].width;
        let rows = names_and_rows.iter().map(|(_, rows)| rows).sum();
        let fused = fused.map(|name| [(name, rows)]);
        let parts = match &fused {
            Some(one) if self.is_fused(index, one[0].0, names_and_rows[0].0) => one.as_slice(),
            _ => names_and_rows,
        };
        let mut weights = Vec::new();
        let mut biases = Vec::new();
        for &(name, rows) in parts {
            let (weight, bias) = self.weight_and_bias(index, name, columns, rows)?;
            weights.push(weight);
            biases.push(bias);
        }
        self.ops.push(Op::Linear { input, weights, biases, factor, epilogue, out });
        Ok(())
    }

    /// Whether a layer has the one matrix `fused` rather than several of which `first` is the first.
    fn is_fused(&self, index: usize, fused: &str, first: &str) -> bool {
        let has = |name: &str| self.weights.has(&format!("blk.{index}.{name}.weight"));
        has(fused) && !has(first)
    }

    fn weight_and_bias(
        &mut self,
        index: usize,
        name: &str,
        columns: usize,
        rows: usize,
    ) -> Result<(WeightId, Option<WeightId>)> {
        let weight = self.weights.require(&format!("blk.{index}.{name}.weight"), columns, rows)?;
        let bias = self.weights.optional(&format!("blk.{index}.{name}.bias"), rows, 1)?;
        Ok((weight, bias))
    }

    /// A branch's last product: added to the residual stream `x`, through a norm where the Spec has
    /// one there.
    fn close_branch(
        &mut self,
        index: usize,
        input: ValueId,
        name: &str,
        post_norm: &str,
        x: ValueId,
    ) -> Result<()> {
        let width = self.spec.embedding;
        let (part, factor) = ([(name, width)], self.spec.residual_scale);
        if !self.spec.post_norms {
            return self.linear(index, input, (None, &part), (factor, Epilogue::AddTo), x);
        }
        let branch = self.value("branch", width);
        self.linear(index, input, (None, &part), (factor, Epilogue::Store), branch)?;
        self.norm(branch, &format!("blk.{index}.{post_norm}"), true, x)
    }

    /// What a branch reads: the stream, normed where the Spec norms it there.
    fn open_branch(&mut self, index: usize, name: &str, x: ValueId) -> Result<ValueId> {
        if !self.spec.pre_norms {
            return Ok(x);
        }
        let normed = self.value("normed", self.spec.embedding);
        self.norm(x, &format!("blk.{index}.{name}"), false, normed)?;
        Ok(normed)
    }

    /// One block: attention and feed-forward network, each added to the stream.
    fn layer(&mut self, index: usize, layer: &LayerSpec, x: ValueId) -> Result<()> {
        let read = self.open_branch(index, "attn_norm", x)?;
        if layer.attention {
            self.attention(index, layer, read, x)?;
        }
        match layer.recurrent {
            None => {}
            Some(Recurrent::ShortConv { taps }) => self.short_conv(index, taps, read, x)?,
            Some(Recurrent::Mamba2(mamba)) => self.mamba2(index, mamba, read, x)?,
            Some(Recurrent::DeltaNet(net)) => self.delta_net(index, net, read, x)?,
        }
        if layer.feed_forward == FeedForward::None {
            return Ok(());
        }
        let read =
            if self.spec.parallel { read } else { self.open_branch(index, self.spec.ffn_norm, x)? };
        self.feed_forward(index, &layer.feed_forward, read, x)
    }

    fn attention(
        &mut self,
        index: usize,
        layer: &LayerSpec,
        read: ValueId,
        x: ValueId,
    ) -> Result<()> {
        let kv = KvLayer {
            heads: layer.heads,
            kv_heads: layer.kv_heads,
            key_length: layer.key_length,
            value_length: layer.value_length,
            window: layer.window,
        };
        let kv_layer = KvLayerId(self.kv_layers.len());
        self.kv_layers.push(kv);
        let epsilon = self.spec.norm_epsilon;
        let qkv = self.value("qkv", kv.qkv_width());
        let parts = [
            ("attn_q", kv.query_width()),
            ("attn_k", kv.key_width()),
            ("attn_v", kv.value_width()),
        ];
        let gate = if layer.query_gate {
            Some(self.gated_qkv(index, &kv, read, qkv)?)
        } else {
            self.linear(index, read, (Some("attn_qkv"), &parts), (1.0, Epilogue::Store), qkv)?;
            None
        };
        let (q_norm, k_norm) = self.qk_norms(index, &kv, qkv)?;
        self.ops.push(Op::QkRopeStore {
            qkv,
            layer: kv_layer,
            q_norm,
            k_norm,
            epsilon,
            rope: layer.rope.map(RopeId),
            temperature: layer.temperature,
        });
        let heads = self.value("heads", layer.heads * layer.value_length);
        let sinks = if layer.sinks {
            let name = format!("blk.{index}.attn_sinks.weight");
            Some(self.weights.require(&name, layer.heads, 1)?)
        } else {
            None
        };
        self.ops.push(Op::Attention {
            qkv,
            layer: kv_layer,
            scale: layer.attention_scale,
            softcap: layer.softcap,
            sinks,
            out: heads,
        });
        if let Some(gate) = gate {
            let plain = Parts { value: heads, offset: 0, stride: kv.value_length };
            self.ops.push(Op::Gate {
                gate,
                activation: Some(Activation::Sigmoid),
                input: Some(plain),
                shape: (kv.heads, kv.value_length),
                out: plain,
            });
        }
        self.close_branch(index, heads, "attn_output", "post_attention_norm", x)
    }

    /// q, k and v where the matrix of q gives each head's q and then its gate; answers the gates.
    fn gated_qkv(
        &mut self,
        index: usize,
        kv: &KvLayer,
        read: ValueId,
        qkv: ValueId,
    ) -> Result<Parts> {
        let q_and_gate = self.value("q and gate", 2 * kv.query_width());
        let q = [("attn_q", 2 * kv.query_width())];
        self.linear(index, read, (None, &q), (1.0, Epilogue::Store), q_and_gate)?;
        let k_and_v = self.value("k and v", kv.key_width() + kv.value_width());
        let parts = [("attn_k", kv.key_width()), ("attn_v", kv.value_width())];
        self.linear(index, read, (None, &parts), (1.0, Epilogue::Store), k_and_v)?;
        let length = kv.key_length;
        let of_q = Parts { value: q_and_gate, offset: 0, stride: 2 * length };
        let to = Parts { value: qkv, offset: 0, stride: length };
        self.copy(of_q, (kv.heads, length), to);
        let width = kv.key_width() + kv.value_width();
        let of_kv = Parts { value: k_and_v, offset: 0, stride: width };
        let to = Parts { value: qkv, offset: kv.query_width(), stride: width };
        self.copy(of_kv, (1, width), to);
        Ok(Parts { offset: length, ..of_q })
    }

    fn copy(&mut self, gate: Parts, shape: (usize, usize), out: Parts) {
        self.ops.push(Op::Gate { gate, activation: None, input: None, shape, out });
    }

    fn state(&mut self, floats: usize) -> StateId {
        self.states.push(floats);
        StateId(self.states.len() - 1)
    }

    /// A convolution of layer `index` over `channels` columns of `value` from `offset` on.
    fn conv(
        &mut self,
        (index, name): (usize, &str),
        value: ValueId,
        (offset, channels): (usize, usize),
        taps: usize,
        activation: Option<Activation>,
    ) -> Result<()> {
        let (weight, bias) = {
            let name = format!("blk.{index}.{name}");
            let weight = self.weights.require(&format!("{name}.weight"), taps, channels)?;
            (weight, self.weights.optional(&format!("{name}.bias"), channels, 1)?)
        };
        let state = self.state((taps - 1) * channels);
        self.ops.push(Op::Conv { value, offset, channels, taps, weight, bias, activation, state });
        Ok(())
    }

    fn short_conv(&mut self, index: usize, taps: usize, read: ValueId, x: ValueId) -> Result<()> {
        let width = self.spec.embedding;
        let all = self.value("b, c and x", 3 * width);
        let part = [("shortconv.in_proj", 3 * width)];
        self.linear(index, read, (None, &part), (1.0, Epilogue::Store), all)?;
        let at = |number: usize| Parts { value: all, offset: number * width, stride: width };
        let (b, c, inner) = (at(0), at(1), at(2));
        let shape = (1, width);
        let multiply =
            |gate, out| Op::Gate { gate, activation: None, input: Some(inner), shape, out };
        self.ops.push(multiply(b, inner));
        self.conv((index, "shortconv.conv"), all, (2 * width, width), taps, None)?;
        let mixed = self.value("mixed", width);
        self.ops.push(multiply(c, Parts { value: mixed, offset: 0, stride: width }));
        self.close_branch(index, mixed, "shortconv.out_proj", "post_attention_norm", x)
    }

    fn mamba2(&mut self, index: usize, mamba: Mamba2, read: ValueId, x: ValueId) -> Result<()> {
        let (inner, channels) = (mamba.inner(), mamba.channels());
        let all = self.value("z, x, B, C and dt", inner + channels + mamba.heads);
        let part = [("ssm_in", inner + channels + mamba.heads)];
        self.linear(index, read, (None, &part), (1.0, Epilogue::Store), all)?;
        let silu = Some(Activation::Silu);
        self.conv((index, "ssm_conv1d"), all, (inner, channels), mamba.taps, silu)?;
        let mut vector =
            |name: &str| self.weights.require(&format!("blk.{index}.{name}"), mamba.heads, 1);
        let (a, d, dt_bias) = (vector("ssm_a")?, vector("ssm_d")?, vector("ssm_dt.bias")?);
        let state = self.state(mamba.heads * mamba.state * mamba.head_size);
        let mixed = self.value("mixed", inner);
        self.ops.push(Op::Mamba2 { value: all, mamba, a, d, dt_bias, state, out: mixed });
        let whole = Parts { value: mixed, offset: 0, stride: inner };
        self.ops.push(Op::Gate {
            gate: Parts { value: all, offset: 0, stride: inner },
            activation: silu,
            input: Some(whole),
            shape: (1, inner),
            out: whole,
        });
        let (parts, width) = (mamba.groups, inner / mamba.groups);
        let name = format!("blk.{index}.ssm_norm.weight");
        if let Some(weight) = self.weights.optional(&name, width, parts)? {
            self.norm_parts(mixed, parts, width, NormKind::Rms, Some(weight));
        }
        self.close_branch(index, mixed, "ssm_out", "post_attention_norm", x)
    }

    /// Norms `parts` parts of `width` columns each, from the first on.
    fn norm_parts(
        &mut self,
        value: ValueId,
        parts: usize,
        width: usize,
        kind: NormKind,
        weight: Option<WeightId>,
    ) {
        let epsilon = self.spec.norm_epsilon;
        self.ops.push(Op::NormParts { value, offset: 0, parts, width, kind, weight, epsilon });
    }

    fn delta_net(&mut self, index: usize, net: DeltaNet, read: ValueId, x: ValueId) -> Result<()> {
        let (channels, inner, heads) = (net.channels(), net.inner(), net.value_heads);
        let qkv = self.value("qkv", channels);
        let part = [("attn_qkv", channels)];
        self.linear(index, read, (None, &part), (1.0, Epilogue::Store), qkv)?;
        self.conv((index, "ssm_conv1d"), qkv, (0, channels), net.taps, Some(Activation::Silu))?;
        self.norm_parts(qkv, 2 * net.key_heads, net.size, NormKind::L2, None);
        let gates = self.value("beta and alpha", 2 * heads);
        let split = [("ssm_beta", heads), ("ssm_alpha", heads)];
        let gates_by_key_head = self.is_fused(index, "ssm_ba", "ssm_beta");
        self.linear(index, read, (Some("ssm_ba"), &split), (1.0, Epilogue::Store), gates)?;
        let mut vector =
            |name: &str| self.weights.require(&format!("blk.{index}.{name}"), heads, 1);
        let (a, dt_bias) = (vector("ssm_a")?, vector("ssm_dt.bias")?);
        let state = self.state(heads * net.size * net.size);
        let mixed = self.value("mixed", inner);
        self.ops.push(Op::DeltaNet {
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
        self.norm_parts(mixed, heads, net.size, NormKind::Rms, Some(weight));
        let z = self.value("z", inner);
        self.linear(index, read, (None, &[("attn_gate", inner)]), (1.0, Epilogue::Store), z)?;
        let whole = Parts { value: mixed, offset: 0, stride: inner };
        self.ops.push(Op::Gate {
            gate: Parts { value: z, offset: 0, stride: inner },
            activation: Some(Activation::Silu),
            input: Some(whole),
            shape: (1, inner),
            out: whole,
        });
        self.close_branch(index, mixed, "ssm_out", "post_attention_norm", x)
    }

    /// The norms of q and k: the factors of those that go with rope, ops for the others.
    fn qk_norms(
        &mut self,
        index: usize,
        kv: &KvLayer,
        qkv: ValueId,
    ) -> Result<(Option<WeightId>, Option<WeightId>)> {
        let names = ["attn_q_norm", "attn_k_norm"].map(|name| format!("blk.{index}.{name}.weight"));
        let parts = [(0, kv.heads), (kv.query_width(), kv.kv_heads)];
        let mut found = [None, None];
        for ((name, (offset, heads)), found) in names.iter().zip(parts).zip(&mut found) {
            let (kind, parts, width, rows) = match self.spec.qk_norm {
                QkNorm::None => continue,
                QkNorm::Heads => {
                    *found = Some(self.weights.require(name, kv.key_length, 1)?);
                    continue;
                }
                QkNorm::Row => (NormKind::Rms, 1, heads * kv.key_length, 1),
                QkNorm::LayerHeads => (NormKind::Layer, heads, kv.key_length, heads),
            };
            let weight = Some(self.weights.require(name, width, rows)?);
            let epsilon = self.spec.norm_epsilon;
            self.ops.push(Op::NormParts {
                value: qkv,
                offset,
                parts,
                width,
                kind,
                weight,
                epsilon,
            });
        }
        Ok((found[0], found[1]))
    }

    fn feed_forward(
        &mut self,
        index: usize,
        network: &FeedForward,
        read: ValueId,
        x: ValueId,
    ) -> Result<()> {
        let activation = self.spec.activation;
        match network {
            FeedForward::None => Ok(()),
            FeedForward::Gated { width } => {
                let names = ["ffn_gate", "ffn_up"];
                let hidden = self.gated(index, (Some("ffn_up"), names), read, *width)?;
                self.close_branch(index, hidden, "ffn_down", "post_ffw_norm", x)
            }
            FeedForward::Plain { width } => {
                let hidden = self.value("hidden", *width);
                let part = [("ffn_up", *width)];
                let epilogue = Epilogue::Activated(activation);
                self.linear(index, read, (None, &part), (1.0, epilogue), hidden)?;
                self.close_branch(index, hidden, "ffn_down", "post_ffw_norm", x)
            }
            FeedForward::Experts(experts) => self.experts(index, experts, read, x),
        }
    }

    /// activation(gate) * up.
    fn gated(
        &mut self,
        index: usize,
        (fused, names): (Option<&str>, [&str; 2]),
        read: ValueId,
        width: usize,
    ) -> Result<ValueId> {
        let hidden = self.value("hidden", width);
        let both = self.value("gate and up", 2 * width);
        let parts = names.map(|name| (name, width));
        let epilogue = Epilogue::Gated { activation: self.spec.activation, both };
        self.linear(index, read, (fused, &parts), (1.0, epilogue), hidden)?;
        Ok(hidden)
    }

    /// A mixture of experts, and the one that every token passes.
    fn experts(
        &mut self,
        index: usize,
        experts: &Experts,
        read: ValueId,
        x: ValueId,
    ) -> Result<()> {
        let (routing, width, columns) = (experts.routing, experts.width, self.spec.embedding);
        let (count, used) = (routing.count, routing.used);
        let logits = self.value("expert logits", count);
        let part = [("ffn_gate_inp", count)];
        self.linear(index, read, (None, &part), (1.0, Epilogue::Store), logits)?;
        let name = format!("blk.{index}.exp_probs_b.bias");
        let bias = self.weights.optional(&name, count, 1)?;
        let routes = self.value("routes", 2 * used);
        self.ops.push(Op::Route { logits, bias, routing, out: routes });

        let fused = [("ffn_gate_up_exps", 2 * width)];
        let split = [("ffn_gate_exps", width), ("ffn_up_exps", width)];
        let parts =
            if self.is_fused(index, fused[0].0, split[0].0) { &fused[..] } else { &split[..] };
        let (mut weights, mut biases) = (Vec::new(), Vec::new());
        for &(name, rows) in parts {
            let (weight, bias) = self.weight_and_bias(index, name, columns, rows * count)?;
            weights.push(weight);
            biases.push(bias);
        }
        let hidden = self.value("hidden", used * width);
        let both = self.value("gate and up", used * 2 * width);
        let activation = self.spec.activation;
        self.ops.push(Op::ExpertsGated {
            input: read,
            routes,
            routing,
            weights,
            biases,
            activation,
            both,
            out: hidden,
        });
        let (weight, bias) =
            self.weight_and_bias(index, "ffn_down_exps", width, columns * count)?;
        let parts = self.value("expert products", used * columns);
        let factor = self.spec.residual_scale;
        self.ops.push(Op::ExpertsDown {
            input: hidden,
            routes,
            routing,
            weight,
            bias,
            factor,
            parts,
            out: x,
        });
        match experts.shared {
            Some(shared) => self.shared_expert(index, shared, read, x),
            None => Ok(()),
        }
    }

    fn shared_expert(
        &mut self,
        index: usize,
        shared: SharedExpert,
        read: ValueId,
        x: ValueId,
    ) -> Result<()> {
        let names = ["ffn_gate_shexp", "ffn_up_shexp"];
        let hidden = self.gated(index, (None, names), read, shared.width)?;
        let (down, factor) = ([("ffn_down_shexp", self.spec.embedding)], self.spec.residual_scale);
        if !shared.gated {
            return self.linear(index, hidden, (None, &down), (factor, Epilogue::AddTo), x);
        }
        let output = self.value("shared expert", self.spec.embedding);
        self.linear(index, hidden, (None, &down), (1.0, Epilogue::Store), output)?;
        let gate = self.value("shared gate", 1);
        let part = [("ffn_gate_inp_shexp", 1)];
        self.linear(index, read, (None, &part), (1.0, Epilogue::Store), gate)?;
        let activation = Activation::Sigmoid;
        self.ops.push(Op::AddGated { gate, activation, input: output, factor, out: x });
        Ok(())
    }
}

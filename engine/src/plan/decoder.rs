//! Spec -> Plan: the whole decoder, written once for every architecture.

use super::{Epilogue, KvLayer, KvLayerId, Op, Plan, RopeId, Rows, Value, ValueId};
use crate::Error;
use crate::Result;
use crate::model::ModelFile;
use crate::model::rope::{Rope, RopeFactors, RopeSpec};
use crate::model::spec::{
    Activation, Experts, FeedForward, LayerSpec, NormKind, QkNorm, SharedExpert, Spec,
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
    build.norm(x, "output_norm", false, last)?;
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
        let weight = self.weights.require(&format!("{name}.weight"), width, 1)?;
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
        self.attention(index, layer, read, x)?;
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
        self.linear(index, read, (Some("attn_qkv"), &parts), (1.0, Epilogue::Store), qkv)?;
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
        self.close_branch(index, heads, "attn_output", "post_attention_norm", x)
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

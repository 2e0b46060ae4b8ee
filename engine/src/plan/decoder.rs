//! Spec -> Plan: the whole decoder, written once for every architecture.

mod attention;
mod feed_forward;
mod inputs;
mod latent;
mod recurrent;

use std::ops::Range;

use super::{Epilogue, KvLayer, KvLayerId, Op, Parts, Plan, Rows, Value, ValueId, op};
use crate::Error;
use crate::Result;
use crate::spec::ModelFile;
use crate::spec::rope::{Rope, RopeFactors, RopeSpec};
use crate::spec::weights::{Weight, WeightFinder, WeightId, read_f32};
use crate::spec::{Activation, FeedForward, LayerSpec, NormKind, Recurrent, Spec};

/// Plans the model for a context of `positions` positions a sequence, with the weights numbered as in `weights`.
pub(super) fn plan(model: &ModelFile, positions: usize, weights: Vec<Weight>) -> Result<Plan> {
    let spec = &*model.spec;
    let mut build = Builder {
        spec,
        weights: WeightFinder::with_found(&model.gguf, weights),
        ops: Vec::new(),
        layers: Vec::new(),
        values: Vec::new(),
        kv_layers: Vec::new(),
        kv_layer_of: Vec::new(),
        states: Vec::new(),
        positions,
    };
    let ropes = spec
        .ropes
        .iter()
        .map(|rope| build_rope(model, rope, positions))
        .collect::<Result<Vec<_>>>()?;

    let table = build.weights.require("token_embd.weight", spec.embedding, spec.vocabulary)?;
    let mut x = build.value("x", spec.embedding);
    build.push(op::Embed { table, scale: spec.embedding_scale, out: x });
    if spec.norm_sums {
        x = build.finish_embedding(x)?;
    }
    let layer_inputs = match spec.per_layer {
        Some(input) => Some((input, build.layer_inputs(input, x)?)),
        None => None,
    };
    for (index, layer) in spec.layers.iter().enumerate() {
        let first = build.ops.len();
        x = build.layer(index, layer, x)?;
        if let Some((input, values)) = layer_inputs {
            x = build.layer_input(index, input, values, x)?;
        }
        let name = format!("blk.{index}.layer_output_scale.weight");
        if model.gguf.tensor(&name).is_some_and(|tensor| tensor.elements() == 1) {
            let factor = read_f32(&model.gguf, &name)?[0];
            let out = build.next(x);
            build.push(op::Scale { input: x, factor, out });
            x = out;
        }
        build.layers.push(first..build.ops.len());
    }
    if spec.pooling.is_some() {
        // The states themselves are wanted: all tokens want their "logits".
        let mut out = x;
        if !spec.norm_sums {
            out = build.output_value("last", spec.embedding);
            build.norm(x, spec.output_norm, None, out)?;
        }
        return Ok(build.plan(ropes, out));
    }
    let last = build.output_value("last", spec.embedding);
    build.norm(x, spec.output_norm, None, last)?;
    let head = build.weights.optional("output.weight", spec.embedding, spec.vocabulary)?;
    let bias = build.weights.optional("output.bias", spec.vocabulary, 1)?;
    let mut logits = build.output_value("logits", spec.vocabulary);
    build.push(op::Linear {
        input: last,
        weights: vec![head.unwrap_or(table)],
        biases: vec![bias],
        factor: spec.logit_scale,
        epilogue: Epilogue::Store,
        before: None,
        offset: 0,
        out: logits,
    });
    if let Some(cap) = spec.logit_softcap {
        let out = build.next(logits);
        build.push(op::Softcap { input: logits, cap, out });
        logits = out;
    }
    Ok(build.plan(ropes, logits))
}

/// A rotation with the file's divisors of its frequencies.
fn build_rope(model: &ModelFile, spec: &RopeSpec, positions: usize) -> Result<Rope> {
    let RopeFactors::File { original_context } = spec.factors else {
        return Ok(Rope::new(spec, None));
    };
    let long = if positions > original_context { "long" } else { "short" };
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

/// Matrices of a layer by their names and rows; or, where a file has that instead, the one of the name `fused`, which holds
/// all their rows.
#[derive(Clone, Copy)]
struct Matrices<'a> {
    fused: Option<&'a str>,
    names_and_rows: &'a [(&'a str, usize)],
}

struct Builder<'a> {
    spec: &'a Spec,
    weights: WeightFinder<'a>,
    ops: Vec<Op>,
    layers: Vec<Range<usize>>,
    values: Vec<Value>,
    kv_layers: Vec<KvLayer>,
    /// The cache that each layer so far reads, if it has attention.
    kv_layer_of: Vec<Option<KvLayerId>>,
    states: Vec<usize>,
    /// Positions a sequence.
    positions: usize,
}

impl Builder<'_> {
    fn plan(self, ropes: Vec<Rope>, logits: ValueId) -> Plan {
        Plan {
            ops: self.ops,
            layers: self.layers,
            values: self.values,
            weights: self.weights.into_weights(),
            ropes,
            kv_layers: self.kv_layers,
            states: self.states,
            logits,
        }
    }

    fn push(&mut self, op: impl Into<Op>) {
        self.ops.push(op.into());
    }

    /// What a value becomes.
    fn next(&mut self, value: ValueId) -> ValueId {
        let Value { name, width, rows } = self.values[value.0];
        self.push_value(name, width, rows)
    }

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
    fn norm(
        &mut self,
        input: ValueId,
        name: &str,
        add_to: Option<ValueId>,
        out: ValueId,
    ) -> Result<()> {
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
        let count = self.spec.embedding_numbers;
        self.push(op::Norm { input, kind, weight, bias, epsilon, count, add_to, out });
        Ok(())
    }

    /// A stream with a norm of a branch added.
    fn add_norm(&mut self, input: ValueId, name: &str, x: ValueId) -> Result<ValueId> {
        let out = self.next(x);
        self.norm(input, name, Some(x), out)?;
        Ok(out)
    }

    /// The products of `input` with matrices of layer `index` side by side, in a value of that name.
    fn products(
        &mut self,
        index: usize,
        input: ValueId,
        matrices: Matrices,
        (factor, epilogue): (f32, Epilogue),
        name: &'static str,
    ) -> Result<ValueId> {
        let rows: usize = matrices.names_and_rows.iter().map(|(_, rows)| rows).sum();
        let gated = matches!(epilogue, Epilogue::Gated { .. });
        let out = self.value(name, if gated { rows / 2 } else { rows });
        self.linear(index, input, matrices, (factor, epilogue), (None, out))?;
        Ok(out)
    }

    /// The same with the products as they are.
    fn plain_products(
        &mut self,
        index: usize,
        input: ValueId,
        names_and_rows: &[(&str, usize)],
        name: &'static str,
    ) -> Result<ValueId> {
        let matrices = Matrices { fused: None, names_and_rows };
        self.products(index, input, matrices, (1.0, Epilogue::Store), name)
    }

    /// The stream `x` with a product added.
    fn add_product(
        &mut self,
        index: usize,
        input: ValueId,
        part: (&str, usize),
        factor: f32,
        x: ValueId,
    ) -> Result<ValueId> {
        let out = self.next(x);
        let matrices = Matrices { fused: None, names_and_rows: &[part] };
        self.linear(index, input, matrices, (factor, Epilogue::AddTo), (Some(x), out))?;
        Ok(out)
    }

    /// Matrices of layer `index` and their biases, applied side by side.
    fn linear(
        &mut self,
        index: usize,
        input: ValueId,
        Matrices { fused, names_and_rows }: Matrices,
        (factor, epilogue): (f32, Epilogue),
        (before, out): (Option<ValueId>, ValueId),
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
        let offset = 0;
        self.push(op::Linear { input, weights, biases, factor, epilogue, before, offset, out });
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
    /// one there. Answers the stream from there on, as all below that are given it.
    fn close_branch(
        &mut self,
        index: usize,
        input: ValueId,
        name: &str,
        post_norm: &str,
        x: ValueId,
    ) -> Result<ValueId> {
        let (part, factor) = ((name, self.spec.embedding), self.spec.residual_scale);
        if !self.spec.post_norms {
            return self.add_product(index, input, part, factor, x);
        }
        let matrices = Matrices { fused: None, names_and_rows: &[part] };
        let branch = self.products(index, input, matrices, (factor, Epilogue::Store), "branch")?;
        self.add_norm(branch, &format!("blk.{index}.{post_norm}"), x)
    }

    /// What a branch reads: the stream, normed where the Spec norms it there.
    fn open_branch(&mut self, index: usize, name: &str, x: ValueId) -> Result<ValueId> {
        if !self.spec.pre_norms {
            return Ok(x);
        }
        let normed = self.value("normed", self.spec.embedding);
        self.norm(x, &format!("blk.{index}.{name}"), None, normed)?;
        Ok(normed)
    }

    /// One block: attention and feed-forward network, each added to the stream.
    fn layer(&mut self, index: usize, layer: &LayerSpec, mut x: ValueId) -> Result<ValueId> {
        let read = self.open_branch(index, "attn_norm", x)?;
        self.kv_layer_of.push(None);
        if layer.attention {
            x = self.attention(index, layer, read, x)?;
        }
        x = match layer.recurrent {
            None => x,
            Some(Recurrent::ShortConv { taps }) => self.short_conv(index, taps, read, x)?,
            Some(Recurrent::Mamba2(mamba)) => self.mamba2(index, mamba, read, x)?,
            Some(Recurrent::DeltaNet(net)) => self.delta_net(index, net, read, x)?,
        };
        if layer.feed_forward == FeedForward::None {
            return Ok(x);
        }
        if self.spec.norm_sums {
            let x = self.norm_sum(index, "attn_output_norm", x)?;
            let x = self.feed_forward(index, &layer.feed_forward, x, x)?;
            return self.norm_sum(index, "layer_output_norm", x);
        }
        if let FeedForward::GatedAndExperts { width, experts } = &layer.feed_forward {
            return self.gated_and_experts(index, *width, experts, x);
        }
        let read =
            if self.spec.parallel { read } else { self.open_branch(index, self.spec.ffn_norm, x)? };
        self.feed_forward(index, &layer.feed_forward, read, x)
    }

    /// The norm of a stream to which a branch was added.
    fn norm_sum(&mut self, index: usize, name: &str, x: ValueId) -> Result<ValueId> {
        let normed = self.next(x);
        self.norm(x, &format!("blk.{index}.{name}"), None, normed)?;
        Ok(normed)
    }

    /// Parts of a value copied to parts of another, whose rest stays; the first of them gets a value of that name and width.
    fn copy(&mut self, from: Parts, shape: (usize, usize), to: (Target, usize, usize)) -> ValueId {
        let (target, offset, stride) = to;
        let (before, value) = match target {
            Target::New(name, width) => (None, self.value(name, width)),
            Target::Onto(value) => (Some(value), self.next(value)),
        };
        let out = Parts { value, offset, stride };
        self.push(op::Gate { gate: from, activation: None, input: None, shape, before, out });
        value
    }

    /// activation(gate) * input, which is all of a value that nothing else reads.
    fn gate_parts(
        &mut self,
        (gate, activation): (Parts, Option<Activation>),
        input: Parts,
        shape: (usize, usize),
    ) -> ValueId {
        let out = Parts { value: self.next(input.value), ..input };
        let before = Some(input.value);
        self.push(op::Gate { gate, activation, input: Some(input), shape, before, out });
        out.value
    }

    /// Norms parts of rows.
    fn norm_parts(
        &mut self,
        at: Parts,
        (parts, width): (usize, usize),
        kind: NormKind,
        weight: Option<WeightId>,
    ) -> ValueId {
        self.norm_counted_parts(at, (parts, width, width), kind, weight)
    }

    /// The same where `count` columns of a part are numbers.
    fn norm_counted_parts(
        &mut self,
        at: Parts,
        (parts, width, count): (usize, usize, usize),
        kind: NormKind,
        weight: Option<WeightId>,
    ) -> ValueId {
        let Parts { value: input, offset, stride } = at;
        let epsilon = self.spec.norm_epsilon;
        let out = self.next(input);
        self.push(op::NormParts {
            input,
            offset,
            parts,
            width,
            stride,
            kind,
            weight,
            epsilon,
            count,
            out,
        });
        out
    }
}

/// Where a copy goes.
#[derive(Clone, Copy)]
enum Target {
    /// To a value of that name and width, which holds nothing yet.
    New(&'static str, usize),
    /// Into what this is.
    Onto(ValueId),
}

//! Spec -> Plan: the whole decoder, written once for every architecture.

use super::{Epilogue, KvLayer, KvLayerId, Op, Plan, RopeId, Rows, Value, ValueId};
use crate::Error;
use crate::Result;
use crate::model::ModelFile;
use crate::model::rope::{Rope, RopeFactors, RopeSpec};
use crate::model::spec::{LayerSpec, Spec};
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
    build.norm(x, "output_norm.weight", false, last)?;
    let head = build.weights.optional("output.weight", spec.embedding, spec.vocabulary)?;
    let bias = build.weights.optional("output.bias", spec.vocabulary, 1)?;
    let logits = build.output_value("logits", spec.vocabulary);
    build.ops.push(Op::Linear {
        input: last,
        weights: vec![head.unwrap_or(table)],
        biases: vec![bias],
        epilogue: Epilogue::Store,
        out: logits,
    });
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

    fn norm(&mut self, input: ValueId, name: &str, add: bool, out: ValueId) -> Result<()> {
        let weight = self.weights.require(name, self.values[input.0].width, 1)?;
        self.ops.push(Op::Norm { input, weight, epsilon: self.spec.norm_epsilon, add, out });
        Ok(())
    }

    /// The matrices `names` of layer `index` and their biases, applied side by side.
    fn linear(
        &mut self,
        index: usize,
        input: ValueId,
        names_and_rows: &[(&str, usize)],
        epilogue: Epilogue,
        out: ValueId,
    ) -> Result<()> {
        let columns = self.values[input.0].width;
        let mut weights = Vec::new();
        let mut biases = Vec::new();
        for (name, rows) in names_and_rows {
            weights.push(self.weights.require(
                &format!("blk.{index}.{name}.weight"),
                columns,
                *rows,
            )?);
            biases.push(self.weights.optional(&format!("blk.{index}.{name}.bias"), *rows, 1)?);
        }
        self.ops.push(Op::Linear { input, weights, biases, epilogue, out });
        Ok(())
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
        if !self.spec.sandwich_norms {
            return self.linear(index, input, &[(name, width)], Epilogue::AddTo, x);
        }
        let branch = self.value("branch", width);
        self.linear(index, input, &[(name, width)], Epilogue::Store, branch)?;
        self.norm(branch, &format!("blk.{index}.{post_norm}.weight"), true, x)
    }

    /// One block: attention and feed-forward network, each on the normed stream, added to it.
    fn layer(&mut self, index: usize, layer: &LayerSpec, x: ValueId) -> Result<()> {
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

        let normed = self.value("normed", self.spec.embedding);
        self.norm(x, &format!("blk.{index}.attn_norm.weight"), false, normed)?;
        let qkv = self.value("qkv", kv.qkv_width());
        let parts = [
            ("attn_q", kv.query_width()),
            ("attn_k", kv.key_width()),
            ("attn_v", kv.value_width()),
        ];
        self.linear(index, normed, &parts, Epilogue::Store, qkv)?;
        let (q_norm, k_norm) = if self.spec.qk_norm {
            let mut norm = |name: &str| -> Result<Option<WeightId>> {
                let name = format!("blk.{index}.{name}.weight");
                self.weights.require(&name, layer.key_length, 1).map(Some)
            };
            (norm("attn_q_norm")?, norm("attn_k_norm")?)
        } else {
            (None, None)
        };
        let rope = RopeId(layer.rope);
        self.ops.push(Op::QkRopeStore { qkv, layer: kv_layer, q_norm, k_norm, epsilon, rope });
        let heads = self.value("heads", layer.heads * layer.value_length);
        let scale = layer.attention_scale;
        self.ops.push(Op::Attention { qkv, layer: kv_layer, scale, out: heads });
        self.close_branch(index, heads, "attn_output", "post_attention_norm", x)?;

        let normed = self.value("normed", self.spec.embedding);
        self.norm(x, &format!("blk.{index}.ffn_norm.weight"), false, normed)?;
        let hidden = self.value("hidden", layer.feed_forward);
        let both = self.value("gate and up", 2 * layer.feed_forward);
        let parts = [("ffn_gate", layer.feed_forward), ("ffn_up", layer.feed_forward)];
        let epilogue = Epilogue::Gated { activation: self.spec.activation, both };
        self.linear(index, normed, &parts, epilogue, hidden)?;
        self.close_branch(index, hidden, "ffn_down", "post_ffw_norm", x)
    }
}

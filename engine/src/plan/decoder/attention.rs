//! Attention: queries, keys and values of a layer, what is done to them, and what becomes of the heads.

use super::{Builder, Matrices};
use crate::Result;
use crate::plan::{Epilogue, KvLayer, KvLayerId, Parts, RopeId, ValueId, op};
use crate::spec::weights::WeightId;
use crate::spec::{Activation, LayerSpec, NormKind, QkNorm};

impl Builder<'_> {
    pub(super) fn attention(
        &mut self,
        index: usize,
        layer: &LayerSpec,
        read: ValueId,
        x: ValueId,
    ) -> Result<ValueId> {
        let kv = KvLayer {
            heads: layer.heads,
            kv_heads: layer.kv_heads,
            key_length: layer.key_length,
            value_length: layer.value_length,
            window: layer.window,
        };
        let earlier = layer.reads_layer.and_then(|layer| self.kv_layer_of[layer]);
        let kv_layer = earlier.unwrap_or(KvLayerId(self.kv_layers.len()));
        if earlier.is_none() {
            self.kv_layers.push(kv);
        }
        self.kv_layer_of[index] = Some(kv_layer);
        let epsilon = self.spec.norm_epsilon;
        let parts = [
            ("attn_q", kv.query_width()),
            ("attn_k", kv.key_width()),
            ("attn_v", kv.value_width()),
        ];
        let (mut gate, mut v, mut turn_from) = (None, None, 0);
        let qkv = if layer.query_gate {
            let (qkv, of_q) = self.gated_qkv(index, &kv, read)?;
            gate = Some(of_q);
            qkv
        } else if let Some(latent) = layer.latent {
            turn_from = if latent.compressed { latent.rank } else { latent.plain };
            self.latent_qkv(index, &kv, latent, read)?
        } else if earlier.is_some() {
            self.query_alone(index, &kv, read)?
        } else if self.lacks_values(index) {
            // v is k before its norm and rope.
            self.keys_as_values(index, &kv, &parts[..2], read)?
        } else if self.has_values_apart(index, layer) {
            let qk = self.plain_products(index, read, &parts[..2], "qkv")?;
            v = Some(self.plain_products(index, read, &parts[2..], "v")?);
            qk
        } else {
            let matrices = Matrices { fused: Some("attn_qkv"), names_and_rows: &parts };
            self.products(index, read, matrices, (1.0, Epilogue::Store), "qkv")?
        };
        let (qkv, v) = self.value_norm(layer, &kv, (qkv, v), earlier.is_some());
        let (qkv, [q_norm, k_norm]) = self.qk_norms(index, (layer, &kv), qkv, earlier.is_some())?;
        let turned = self.next(qkv);
        self.push(op::QkRopeStore {
            qkv,
            v,
            layer: kv_layer,
            q_norm,
            k_norm,
            epsilon,
            count: layer.key_numbers,
            rope: layer.rope.map(RopeId),
            turn_from,
            store: earlier.is_none(),
            temperature: layer.temperature,
            out: turned,
        });
        let heads = self.value("heads", layer.heads * layer.value_length);
        let sinks = if layer.sinks {
            let name = format!("blk.{index}.attn_sinks.weight");
            Some(self.weights.require(&name, layer.heads, 1)?)
        } else {
            None
        };
        self.push(op::Attention {
            qkv: turned,
            layer: kv_layer,
            scale: layer.attention_scale,
            softcap: layer.softcap,
            sinks,
            causal: layer.causal,
            out: heads,
        });
        let mut heads = match layer.latent.filter(|latent| latent.compressed) {
            Some(latent) => self.head_linear(index, "attn_v_b", heads, (kv.heads, latent.value))?,
            None => heads,
        };
        if let Some(gate) = gate {
            let plain = Parts { value: heads, offset: 0, stride: kv.value_length };
            let shape = (kv.heads, kv.value_length);
            heads = self.gate_parts((gate, Some(Activation::Sigmoid)), plain, shape);
        }
        self.close_branch(index, heads, "attn_output", "post_attention_norm", x)
    }

    /// Whether v becomes a value of its own: where its matrix is of another format than k's, so that it takes a kernel
    /// of its own, which then need not wait for the one that writes q and k.
    fn has_values_apart(&self, index: usize, layer: &LayerSpec) -> bool {
        let [k, v] = ["attn_k", "attn_v"].map(|name| format!("blk.{index}.{name}.weight"));
        let plain = !layer.query_gate && layer.latent.is_none() && layer.reads_layer.is_none();
        plain && !self.is_fused(index, "attn_qkv", "attn_q") && self.weights.differ(&k, &v)
    }

    /// The norm of v, where there is one.
    fn value_norm(
        &mut self,
        layer: &LayerSpec,
        kv: &KvLayer,
        (qkv, v): (ValueId, Option<ValueId>),
        reads_layer: bool,
    ) -> (ValueId, Option<ValueId>) {
        if !self.spec.value_norm || reads_layer {
            return (qkv, v);
        }
        let stride = kv.value_length;
        let behind = (qkv, kv.query_width() + kv.key_width());
        let (value, offset) = v.map_or(behind, |v| (v, 0));
        let at = Parts { value, offset, stride };
        let normed = self.norm_parts(at, (kv.kv_heads, layer.value_numbers), NormKind::Rms, None);
        if v.is_some() { (qkv, Some(normed)) } else { (normed, None) }
    }

    /// The norms of q and k: the factors of those that go with rope, ops for the others.
    fn qk_norms(
        &mut self,
        index: usize,
        (layer, kv): (&LayerSpec, &KvLayer),
        mut qkv: ValueId,
        reads_layer: bool,
    ) -> Result<(ValueId, [Option<WeightId>; 2])> {
        let names = ["attn_q_norm", "attn_k_norm"].map(|name| format!("blk.{index}.{name}.weight"));
        let parts = [(0, kv.heads), (kv.query_width(), kv.kv_heads)];
        let mut found = [None, None];
        let mut first = None;
        for ((name, (offset, heads)), found) in names.iter().zip(parts).zip(&mut found) {
            let (stride, numbers) = (kv.key_length, layer.key_numbers);
            let (kind, parts, width, count, stride) = match self.spec.qk_norm {
                QkNorm::None => continue,
                // Without keys of its own a layer norms q alone; the kernel wants both factors.
                QkNorm::Heads if reads_layer && offset > 0 => {
                    *found = first;
                    continue;
                }
                QkNorm::Heads => {
                    *found = Some(self.weights.require(name, kv.key_length, 1)?);
                    first = first.or(*found);
                    continue;
                }
                // Zeros may lie between the heads: they add nothing to the squares.
                QkNorm::Row => (NormKind::Rms, 1, heads * stride, heads * numbers, heads * stride),
                // Each head's numbers alone, without the zeros behind them.
                QkNorm::LayerHeads => (NormKind::Layer, heads, numbers, numbers, stride),
            };
            let weight = Some(self.weights.require(name, width, parts)?);
            let at = Parts { value: qkv, offset, stride };
            qkv = self.norm_counted_parts(at, (parts, width, count), kind, weight);
        }
        Ok((qkv, found))
    }
}

//! Queries, keys and values that do not come as one product side by side: gated, compressed, of another layer.

use super::{Builder, Target};
use crate::Result;
use crate::plan::{KvLayer, Parts, ValueId, op};
use crate::spec::{Latent, NormKind};

impl Builder<'_> {
    /// q, k and v where the matrix of q gives each head's q and then its gate; answers the gates too.
    pub(super) fn gated_qkv(
        &mut self,
        index: usize,
        kv: &KvLayer,
        read: ValueId,
    ) -> Result<(ValueId, Parts)> {
        let q = [("attn_q", 2 * kv.query_width())];
        let q_and_gate = self.plain_products(index, read, &q, "q and gate")?;
        let parts = [("attn_k", kv.key_width()), ("attn_v", kv.value_width())];
        let k_and_v = self.plain_products(index, read, &parts, "k and v")?;
        let length = kv.key_length;
        let of_q = Parts { value: q_and_gate, offset: 0, stride: 2 * length };
        let qkv = Target::New("qkv", kv.qkv_width());
        let qkv = self.copy(of_q, (kv.heads, length), (qkv, 0, length));
        let width = kv.key_width() + kv.value_width();
        let of_kv = Parts { value: k_and_v, offset: 0, stride: width };
        let qkv = self.copy(of_kv, (1, width), (Target::Onto(qkv), kv.query_width(), width));
        Ok((qkv, Parts { offset: length, ..of_q }))
    }

    /// q of a layer that reads another's keys and values.
    pub(super) fn query_alone(
        &mut self,
        index: usize,
        kv: &KvLayer,
        read: ValueId,
    ) -> Result<ValueId> {
        let width = kv.query_width();
        let value = self.plain_products(index, read, &[("attn_q", width)], "q")?;
        let from = Parts { value, offset: 0, stride: width };
        Ok(self.copy(from, (1, width), (Target::New("qkv", kv.qkv_width()), 0, width)))
    }

    /// Whether a layer has keys but no values: those are the keys then.
    pub(super) fn lacks_values(&self, index: usize) -> bool {
        let has = |name: &str| self.weights.has(&format!("blk.{index}.{name}.weight"));
        has("attn_k") && !has("attn_v")
    }

    /// q and k, and k once more as v.
    pub(super) fn keys_as_values(
        &mut self,
        index: usize,
        kv: &KvLayer,
        q_and_k: &[(&str, usize)],
        read: ValueId,
    ) -> Result<ValueId> {
        let (q, k) = (kv.query_width(), kv.key_width());
        let value = self.plain_products(index, read, q_and_k, "q and k")?;
        let at = |offset| Parts { value, offset, stride: 0 };
        let qkv = Target::New("qkv", kv.qkv_width());
        let qkv = self.copy(at(0), (1, q + k), (qkv, 0, 0));
        Ok(self.copy(at(q), (1, k), (Target::Onto(qkv), q + k, 0)))
    }

    /// A matrix for each head applied to the heads' parts; answers `[heads, rows]`.
    pub(super) fn head_linear(
        &mut self,
        index: usize,
        name: &str,
        input: ValueId,
        (heads, rows): (usize, usize),
    ) -> Result<ValueId> {
        let columns = self.values[input.0].width / heads;
        let name = format!("blk.{index}.{name}.weight");
        let weight = self.weights.require(&name, columns, rows * heads)?;
        let out = self.value("heads", heads * rows);
        self.push(op::HeadLinear { input, heads, weight, out });
        Ok(out)
    }

    /// q, k and v of compressed attention. Compressed in the cache, q's plain part goes through `attn_k_b`, so that it
    /// meets what is compressed itself; old files decompress keys and values by `attn_kv_b`.
    pub(super) fn latent_qkv(
        &mut self,
        index: usize,
        kv: &KvLayer,
        latent: Latent,
        read: ValueId,
    ) -> Result<ValueId> {
        let Latent { rank, plain, turned, value, .. } = latent;
        let (heads, length) = (kv.heads, plain + turned);
        let part = |value, offset, stride| Parts { value, offset, stride };
        let q = if let Some((width, padded)) = latent.query_rank {
            let low = [("attn_q_a", padded)];
            let low = self.plain_products(index, read, &low, "compressed q")?;
            let name = format!("blk.{index}.attn_q_a_norm.weight");
            let weight = self.weights.require(&name, width, 1)?;
            let low = self.norm_parts(part(low, 0, width), (1, width), NormKind::Rms, Some(weight));
            self.plain_products(index, low, &[("attn_q_b", heads * length)], "q")?
        } else {
            self.plain_products(index, read, &[("attn_q", heads * length)], "q")?
        };
        let low = [("attn_kv_a_mqa", rank + turned)];
        let low = self.plain_products(index, read, &low, "compressed k and v")?;
        let name = format!("blk.{index}.attn_kv_a_norm.weight");
        let numbers = latent.rank_numbers;
        let weight = self.weights.require(&name, numbers, 1)?;
        let low = self.norm_parts(part(low, 0, rank), (1, numbers), NormKind::Rms, Some(weight));

        let (k_at, v_at) = (kv.query_width(), kv.query_width() + kv.key_width());
        let qkv = Target::New("qkv", kv.qkv_width());
        if latent.compressed {
            let q_plain = (Target::New("plain q", heads * plain), 0, plain);
            let q_plain = self.copy(part(q, 0, length), (heads, plain), q_plain);
            let met = self.head_linear(index, "attn_k_b", q_plain, (heads, rank))?;
            let qkv = self.copy(part(met, 0, rank), (heads, rank), (qkv, 0, kv.key_length));
            let to = (Target::Onto(qkv), rank, kv.key_length);
            let qkv = self.copy(part(q, plain, length), (heads, turned), to);
            let to = (Target::Onto(qkv), k_at, 0);
            let qkv = self.copy(part(low, 0, 0), (1, rank + turned), to);
            return Ok(self.copy(part(low, 0, 0), (1, rank), (Target::Onto(qkv), v_at, 0)));
        }
        let qkv = self.copy(part(q, 0, length), (heads, length), (qkv, 0, length));
        let latents = (Target::New("latents", rank), 0, 0);
        let latents = self.copy(part(low, 0, 0), (1, rank), latents);
        let both = plain + value;
        let whole = [("attn_kv_b", heads * both)];
        let whole = self.plain_products(index, latents, &whole, "k and v")?;
        let to = (Target::Onto(qkv), k_at, length);
        let qkv = self.copy(part(whole, 0, both), (heads, plain), to);
        // The part that turns is the same for all heads.
        let to = (Target::Onto(qkv), k_at + plain, length);
        let qkv = self.copy(part(low, rank, 0), (heads, turned), to);
        let to = (Target::Onto(qkv), v_at, value);
        Ok(self.copy(part(whole, plain, both), (heads, value), to))
    }
}

//! Queries, keys and values that do not come as one product side by side: gated, compressed, of another layer.

use super::Builder;
use crate::Result;
use crate::plan::{Epilogue, KvLayer, Parts, ValueId, op};
use crate::spec::{Latent, NormKind};

impl Builder<'_> {
    /// q, k and v where the matrix of q gives each head's q and then its gate; answers the gates.
    pub(super) fn gated_qkv(
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

    /// q of a layer that reads another's keys and values.
    pub(super) fn query_alone(
        &mut self,
        index: usize,
        kv: &KvLayer,
        read: ValueId,
        qkv: ValueId,
    ) -> Result<()> {
        let width = kv.query_width();
        let q = self.value("q", width);
        self.linear(index, read, (None, &[("attn_q", width)]), (1.0, Epilogue::Store), q)?;
        let from = Parts { value: q, offset: 0, stride: width };
        self.copy(from, (1, width), Parts { value: qkv, ..from });
        Ok(())
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
        (q_and_k, read): (&[(&str, usize)], ValueId),
        qkv: ValueId,
    ) -> Result<()> {
        let (q, k) = (kv.query_width(), kv.key_width());
        let both = self.value("q and k", q + k);
        self.linear(index, read, (None, q_and_k), (1.0, Epilogue::Store), both)?;
        let at = |value, offset| Parts { value, offset, stride: 0 };
        self.copy(at(both, 0), (1, q + k), at(qkv, 0));
        self.copy(at(both, q), (1, k), at(qkv, q + k));
        Ok(())
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
        qkv: ValueId,
    ) -> Result<()> {
        let Latent { rank, plain, turned, value, .. } = latent;
        let (heads, length, store) = (kv.heads, plain + turned, Epilogue::Store);
        let part = |value, offset, stride| Parts { value, offset, stride };
        let q = self.value("q", heads * length);
        if let Some((width, padded)) = latent.query_rank {
            let low = self.value("compressed q", padded);
            self.linear(index, read, (None, &[("attn_q_a", padded)]), (1.0, store), low)?;
            let name = format!("blk.{index}.attn_q_a_norm.weight");
            let weight = self.weights.require(&name, width, 1)?;
            self.norm_parts(part(low, 0, width), (1, width), NormKind::Rms, Some(weight));
            let names = [("attn_q_b", heads * length)];
            self.linear(index, low, (None, &names), (1.0, store), q)?;
        } else {
            let names = [("attn_q", heads * length)];
            self.linear(index, read, (None, &names), (1.0, store), q)?;
        }
        let low = self.value("compressed k and v", rank + turned);
        self.linear(index, read, (None, &[("attn_kv_a_mqa", rank + turned)]), (1.0, store), low)?;
        let name = format!("blk.{index}.attn_kv_a_norm.weight");
        let numbers = latent.rank_numbers;
        let weight = self.weights.require(&name, numbers, 1)?;
        self.norm_parts(part(low, 0, rank), (1, numbers), NormKind::Rms, Some(weight));

        let (k_at, v_at) = (kv.query_width(), kv.query_width() + kv.key_width());
        if latent.compressed {
            let q_plain = self.value("plain q", heads * plain);
            self.copy(part(q, 0, length), (heads, plain), part(q_plain, 0, plain));
            let met = self.head_linear(index, "attn_k_b", q_plain, (heads, rank))?;
            self.copy(part(met, 0, rank), (heads, rank), part(qkv, 0, kv.key_length));
            let to = part(qkv, rank, kv.key_length);
            self.copy(part(q, plain, length), (heads, turned), to);
            self.copy(part(low, 0, 0), (1, rank + turned), part(qkv, k_at, 0));
            self.copy(part(low, 0, 0), (1, rank), part(qkv, v_at, 0));
            return Ok(());
        }
        self.copy(part(q, 0, length), (heads, length), part(qkv, 0, length));
        let latents = self.value("latents", rank);
        self.copy(part(low, 0, 0), (1, rank), part(latents, 0, 0));
        let both = plain + value;
        let whole = self.value("k and v", heads * both);
        let names = [("attn_kv_b", heads * both)];
        self.linear(index, latents, (None, &names), (1.0, store), whole)?;
        self.copy(part(whole, 0, both), (heads, plain), part(qkv, k_at, length));
        // The part that turns is the same for all heads.
        self.copy(part(low, rank, 0), (heads, turned), part(qkv, k_at + plain, length));
        self.copy(part(whole, plain, both), (heads, value), part(qkv, v_at, value));
        Ok(())
    }
}

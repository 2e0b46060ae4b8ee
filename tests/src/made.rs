//! Models made from a seed: a tiny golden's metadata with other widths and keys, weights by a generator. What llama.cpp
//! computes of them is kept in `goldens/cases/widths`, made by `make/widths.py`.

use gguf::{Format, Gguf, TensorType, Value, Writer};
use serde::Deserialize;

use crate::golden::folder;
use crate::random::Random;

/// The widths of a made model; none: as the base has them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Widths {
    /// Of the stream.
    pub embedding: usize,
    /// Query heads, heads of keys and values.
    pub heads: Option<(usize, usize)>,
    /// Numbers of a head, of keys and of values.
    pub head: Option<(usize, usize)>,
    /// Of a network, or of gate and up together where they are one.
    pub hidden: Option<usize>,
    /// Of an expert.
    pub expert: Option<usize>,
    /// Of the expert that every token passes.
    pub shared: Option<usize>,
    /// What q is compressed to, what k and v are.
    pub ranks: Option<(usize, usize)>,
    /// Of a compressed model's head: what does not turn, what turns, its value.
    pub latent: Option<(usize, usize, usize)>,
    /// What a layer is given of the token.
    pub layer_input: Option<usize>,
    /// How many experts a layer has.
    pub experts: Option<usize>,
    /// How many taps a short convolution has.
    pub taps: Option<usize>,
}

/// A model to be made.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// Its name.
    pub name: &'static str,
    /// The golden whose metadata and tensors' names it has.
    pub base: &'static str,
    /// The format of its matrices.
    pub format: Format,
    /// Its widths.
    pub widths: Widths,
    /// Keys of the architecture that differ.
    pub keys: Vec<(&'static str, Value)>,
    /// Tensors that the base has not, and whether they are matrices in the recipe's format.
    pub extra: Vec<(&'static str, Vec<u64>, bool)>,
}

/// What llama.cpp computes of a made model.
#[derive(Debug, Deserialize)]
pub struct Made {
    /// The ids fed.
    pub ids: Vec<u32>,
    /// Log-probabilities after the last; empty for a model of embeddings.
    pub logits: Vec<f64>,
    /// The vector of the text; empty for a language model.
    pub vector: Vec<f64>,
}

impl Recipe {
    /// A model with the widths and keys of its base but for the stream's.
    #[must_use]
    pub fn new(name: &'static str, base: &'static str, format: Format, widths: Widths) -> Self {
        Self { name, base, format, widths, keys: Vec::new(), extra: Vec::new() }
    }

    /// With a key of the architecture set.
    #[must_use]
    pub fn key(mut self, name: &'static str, value: Value) -> Self {
        self.keys.push((name, value));
        self
    }

    /// With one more tensor.
    #[must_use]
    pub fn tensor(mut self, name: &'static str, shape: &[u64], matrix: bool) -> Self {
        self.extra.push((name, shape.to_vec(), matrix));
        self
    }

    /// The file's bytes, matrices in `format`: the recipe's own, or F32 with the same numbers.
    ///
    /// # Panics
    /// If the base is missing, or a tensor cannot be written.
    pub fn file(&self, format: Format) -> Vec<u8> {
        let base = Gguf::open(folder().join("tiny").join(format!("{}.gguf", self.base)))
            .unwrap_or_else(|error| panic!("{error}"));
        let architecture = base.metadata.text("general.architecture").expect("a name").into_owned();
        let mut writer = Writer::new();
        for (key, value) in base.metadata.iter() {
            writer.set(key, value.clone());
        }
        for (name, value) in self.width_keys().into_iter().chain(self.keys.clone()) {
            writer.set(format!("{architecture}.{name}"), value);
        }
        let of_base = base.tensors.iter().map(|tensor| {
            let mut shape = self.shape(&base, &tensor.name, &tensor.shape);
            if let Some(experts) = self.widths.experts
                && is_of_experts(&tensor.name)
                && let Some(count) = shape.last_mut()
            {
                *count = experts as u64;
            }
            (tensor.name.clone(), shape, tensor.tensor_type != TensorType(Format::F32.id()))
        });
        let extra = self
            .extra
            .iter()
            .map(|(name, shape, matrix)| ((*name).to_string(), shape.clone(), *matrix));
        for (name, shape, matrix) in of_base.chain(extra) {
            let weights = self.weights(&name, &shape, matrix);
            let as_kept = if matrix { format } else { Format::F32 };
            let data = as_kept.quantize(&weights).expect("floats");
            writer
                .tensor(&name, &shape, TensorType(as_kept.id()), data)
                .unwrap_or_else(|error| panic!("{error}"));
        }
        writer.to_bytes()
    }

    /// The keys that say the widths.
    fn width_keys(&self) -> Vec<(&'static str, Value)> {
        let w = self.widths;
        let mut keys = vec![("embedding_length", w.embedding)];
        if let Some((heads, kv_heads)) = w.heads {
            keys.extend([("attention.head_count", heads), ("attention.head_count_kv", kv_heads)]);
        }
        if let Some((key, value)) = w.head {
            keys.extend([("attention.key_length", key), ("attention.value_length", value)]);
        }
        if let (Some((_, rank)), Some((plain, turned, value))) = (w.ranks, w.latent) {
            keys.extend([
                ("rope.dimension_count", turned),
                ("attention.key_length", rank + turned),
                ("attention.value_length", rank),
                ("attention.key_length_mla", plain + turned),
                ("attention.value_length_mla", value),
                ("attention.head_count_kv", 1),
                ("attention.kv_lora_rank", rank),
                ("attention.q_lora_rank", w.ranks.map_or(0, |(query, _)| query)),
            ]);
        }
        let rest = [
            ("feed_forward_length", w.hidden),
            ("expert_feed_forward_length", w.expert),
            ("expert_shared_feed_forward_length", w.shared),
            ("embedding_length_per_layer_input", w.layer_input),
            ("expert_count", w.experts),
            ("shortconv.l_cache", w.taps),
        ];
        keys.extend(rest.into_iter().filter_map(|(name, width)| Some((name, width?))));
        keys.into_iter().map(|(name, n)| (name, Value::U32(n as u32))).collect()
    }

    /// What becomes of a tensor's shape.
    fn shape(&self, base: &Gguf, name: &str, old: &[u64]) -> Vec<u64> {
        let w = self.widths;
        let e = w.embedding;
        let base_name = name.trim_end_matches(".weight").trim_end_matches(".bias");
        let part = base_name
            .rsplit_once("blk.")
            .map_or(base_name, |(_, rest)| rest.split_once('.').map_or(rest, |(_, part)| part));
        let fused = |name: &str| base.tensor(&format!("blk.0.{name}.weight")).is_none();
        // A bias has its matrix's rows.
        let matrix = base.tensor(&name.replace(".bias", ".weight"));
        let matrix = matrix.filter(|_| !base_name.contains("norm"));
        let of_matrix = matrix.map_or(old, |matrix| matrix.shape.as_slice());
        let at = |index: usize| of_matrix.get(index).map_or(1, |&n| n as usize);
        let (key, value) = w.head.unwrap_or((0, 0));
        let (heads, kv_heads) = w.heads.unwrap_or((0, 0));
        let heads_of = |new: usize, old: usize| if w.head.is_some() { new } else { old };
        // Columns and rows of the matrix; a bias has its rows.
        let (columns, rows) = match part {
            "attn_q" if w.latent.is_some() => {
                let (plain, turned, _) = w.latent.unwrap_or_default();
                (e, heads * (plain + turned))
            }
            "attn_q_a" => (e, w.ranks.map_or(at(1), |(query, _)| query)),
            "attn_q_a_norm" => (w.ranks.map_or(at(0), |(query, _)| query), 1),
            "attn_q_b" => {
                let (plain, turned, _) = w.latent.unwrap_or_default();
                (w.ranks.unwrap_or_default().0, heads * (plain + turned))
            }
            "attn_kv_a_mqa" => (e, w.ranks.unwrap_or_default().1 + w.latent.unwrap_or_default().1),
            "attn_kv_a_norm" => (w.ranks.unwrap_or_default().1, 1),
            "attn_k_b" => (w.latent.unwrap_or_default().0, w.ranks.unwrap_or_default().1),
            "attn_v_b" => (w.ranks.unwrap_or_default().1, w.latent.unwrap_or_default().2),
            "attn_output" if w.latent.is_some() => (heads * w.latent.unwrap_or_default().2, e),
            "attn_q" => {
                let gated = at(1)
                    == 2 * base
                        .tensor(&name.replace("attn_q", "attn_output"))
                        .map_or(0, |t| t.row_length() as usize);
                (e, heads_of(heads * key * if gated { 2 } else { 1 }, at(1)))
            }
            "attn_k" => (e, heads_of(kv_heads * key, at(1))),
            "attn_v" => (e, heads_of(kv_heads * value, at(1))),
            "attn_qkv" if name.contains("attn_qkv") && base.tensor("blk.0.ssm_a").is_none() => {
                (e, heads_of(heads * key + kv_heads * (key + value), at(1)))
            }
            "attn_output" => (heads_of(heads * value, at(0)), e),
            "attn_q_norm" if at(0) > 64 => (heads_of(heads * key, at(0)), 1),
            "attn_k_norm" if at(0) >= 64 && self.base.starts_with("olmo") => {
                (heads_of(kv_heads * key, at(0)), 1)
            }
            "attn_q_norm" | "attn_k_norm" => (heads_of(key, at(0)), 1),
            "attn_sinks" => (w.heads.map_or(at(0), |(heads, _)| heads), 1),
            "ffn_up" if fused("ffn_gate") && self.base == "glm4" => {
                (e, 2 * w.hidden.unwrap_or(at(1) / 2))
            }
            "ffn_gate" | "ffn_up" => (e, w.hidden.unwrap_or(at(1))),
            "ffn_down" => (w.hidden.unwrap_or(at(0)), e),
            "ffn_gate_exps" | "ffn_up_exps" => (e, w.expert.unwrap_or(at(1))),
            "ffn_gate_up_exps" => (e, w.expert.map_or(at(1), |width| 2 * width)),
            "ffn_down_exps" if !ends_in(name, "scale") => (w.expert.unwrap_or(at(0)), e),
            "ffn_gate_shexp" | "ffn_up_shexp" => (e, w.shared.unwrap_or(at(1))),
            "ffn_down_shexp" => (w.shared.unwrap_or(at(0)), e),
            "shortconv.conv" => (w.taps.unwrap_or(at(0)), e),
            "shortconv.in_proj" => (e, 3 * e),
            "per_layer_token_embd" => (w.layer_input.map_or(at(0), |n| at(0) / 16 * n), at(1)),
            "per_layer_model_proj" => (e, w.layer_input.map_or(at(1), |n| at(1) / 16 * n)),
            "per_layer_proj_norm" => (w.layer_input.unwrap_or(at(0)), 1),
            "inp_gate" => (e, w.layer_input.unwrap_or(at(1))),
            "proj" => (w.layer_input.unwrap_or(at(0)), e),
            "ssm_out" | "shortconv.out_proj" => (if part == "ssm_out" { at(0) } else { e }, e),
            part if part.starts_with("ssm_")
                && !["ssm_in", "ssm_ba", "ssm_alpha", "ssm_beta"].contains(&part) =>
            {
                return old.to_vec();
            }
            "output" | "ffn_gate_inp" if ends_in(name, "bias") => return old.to_vec(),
            "rope_freqs" | "exp_probs_b" | "layer_output_scale" | "ffn_down_exps.scale" => {
                return old.to_vec();
            }
            _ => (if at(0) == 128 { e } else { at(0) }, at(1)),
        };
        let of_norm = part.contains("norm");
        if ends_in(name, "bias") && !of_norm {
            let mut shape = old.to_vec();
            shape[0] = rows as u64;
            return shape;
        }
        let new = [columns as u64, rows as u64];
        let mut shape = old.to_vec();
        for (new, old) in new.into_iter().zip(shape.iter_mut()) {
            *old = new;
        }
        if let ("attn_k_b" | "attn_v_b", [_, _, each]) = (part, shape.as_mut_slice()) {
            *each = heads as u64;
        }
        shape
    }

    /// Numbers by the tensor's name: matrices of about 1 / sqrt(columns), factors about 1, the rest small; rounded to the
    /// recipe's format, so that every format holds the same.
    fn weights(&self, name: &str, shape: &[u64], matrix: bool) -> Vec<f32> {
        let count: u64 = shape.iter().product();
        let seed =
            name.bytes().chain(self.name.bytes()).fold(0xcbf2_9ce4_8422_2325u64, |hash, b| {
                (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
            });
        let mut random = Random(seed | 1);
        let mut uniform = || (random.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
        let columns = shape[0] as f32;
        let (middle, spread) = match name {
            _ if name.ends_with("ssm_a") => (-1.0, 0.5),
            _ if name.contains("norm") && !ends_in(name, "bias") => (1.0, 0.3),
            _ if name.contains("scale") || name.contains("rope_freqs") => (1.0, 0.2),
            "token_embd.weight" => (0.0, 1.0),
            _ if matrix || shape.len() > 1 => (0.0, 2.0 / columns.sqrt()),
            _ => (0.0, 0.2),
        };
        let weights: Vec<f32> = (0..count).map(|_| middle + spread * uniform()).collect();
        if !matrix {
            return weights;
        }
        let blocks = self.format.quantize(&weights).expect("floats");
        let mut rounded = vec![0.0; weights.len()];
        self.format.decode(&blocks, &mut rounded);
        rounded
    }
}

/// What llama.cpp computes of a recipe.
///
/// # Panics
/// If it is missing: a missing golden is a failure.
pub fn golden(name: &str) -> Made {
    let path = folder().join("cases/widths").join(format!("{name}.json"));
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("golden {}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("golden {}: {error}", path.display()))
}

/// Whether the last dimension of a tensor counts experts.
fn is_of_experts(name: &str) -> bool {
    ["_exps.", "ffn_gate_inp.", "exp_probs_b."].iter().any(|part| name.contains(part))
}

/// Whether a tensor's name ends in a part.
fn ends_in(name: &str, part: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, last)| last == part)
}

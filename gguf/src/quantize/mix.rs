//! Which format each tensor of a model gets: one format is meant, but some tensors matter more than others.
//!
//! The rules are those of llama.cpp's `llama-quantize` without an importance matrix (`llama_tensor_get_type_impl`,
//! `tensor_allows_quantization` and `tensor_type_fallback` in llama-quant.cpp).

use std::collections::HashMap;

use crate::{FILE_TYPES, Format, Gguf, Result, TensorInfo};

/// A file type that can be made: its row of [`FILE_TYPES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mix {
    /// The name, in capitals: `Q4_K_M`.
    pub name: &'static str,
    /// What the file then says of itself, `general.file_type`.
    pub file_type: u32,
    /// The format of the tensors that no rule names.
    pub format: Format,
}

/// What `llama-quantize` calls the middle one of three.
const ALIASES: &[(&str, &str)] =
    &[("Q3_K", "Q3_K_M"), ("Q4_K", "Q4_K_M"), ("Q5_K", "Q5_K_M"), ("MXFP4", "MXFP4_MOE")];

impl Mix {
    /// All mixes, in the table's order.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> {
        FILE_TYPES.iter().filter_map(|row| {
            row.format.map(|format| Self { name: row.name, file_type: row.id, format })
        })
    }

    /// The mix of a name, in capitals or not; none where there is no such file type, or where it is only read.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = name.to_uppercase();
        let name =
            ALIASES.iter().find(|(alias, _)| *alias == name).map_or(&*name, |(_, name)| name);
        Self::all().find(|mix| mix.name == name)
    }

    /// The format that each tensor gets, in the file's order; none for those that stay as they are.
    pub fn formats(&self, file: &Gguf) -> Result<Vec<Option<Format>>> {
        let model = Model::of(file);
        let formats = file.tensors.iter().map(|tensor| {
            if !may_change(tensor) {
                return None;
            }
            let wanted = if self.format.has_codes() {
                fitting(self.choose(&model, tensor), tensor.row_length())
            } else {
                self.format
            };
            Some(wanted)
        });
        Ok(formats.collect())
    }

    fn choose(&self, model: &Model, tensor: &TensorInfo) -> Format {
        use Format::{IQ4_NL, IQ4_XS, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, Q8_0};
        let (name, format) = (tensor.name.as_str(), self.format);
        let is = |names: &[&str]| names.contains(&self.name);
        let eight = model.experts == 8;
        let place = model.places.get(name).copied().unwrap_or_default();
        let embedding = matches!(name, "token_embd.weight" | "per_layer_token_embd.weight");
        if name == "output.weight" || (embedding && model.tied) {
            let fits = tensor.row_length().is_multiple_of(format.block_size() as u64);
            return if is(&["MXFP4_MOE"]) || !fits || format == Q8_0 { Q8_0 } else { Q6_K };
        }
        if is(&["MXFP4_MOE"]) {
            let experts = tensor.shape.get(2).is_some_and(|&count| count > 1);
            return if experts { format } else { Q8_0 };
        }
        if embedding {
            return if is(&["TQ1_0", "TQ2_0", "Q2_0"]) { Q4_K } else { format };
        }
        match Kind::of(name) {
            Kind::Value => {
                let chosen = match self.name {
                    "Q2_K" => {
                        if model.heads_per_group >= 4 {
                            Q4_K
                        } else {
                            Q3_K
                        }
                    }
                    "Q3_K_M" => {
                        if place.index < 2 {
                            Q5_K
                        } else {
                            Q4_K
                        }
                    }
                    "Q3_K_L" => Q5_K,
                    "IQ4_NL" | "IQ4_XS" if model.heads_per_group >= 4 => Q5_K,
                    "Q4_K_M" | "Q5_K_M" if place.matters() => Q6_K,
                    "Q4_K_S" if place.index < 4 => Q5_K,
                    _ => format,
                };
                match chosen {
                    _ if eight => Q8_0,
                    Q3_K | Q4_K if model.seventy_billion => Q5_K,
                    chosen => chosen,
                }
            }
            Kind::Key if eight => Q8_0,
            Kind::Down => match self.name {
                "Q2_K" => Q3_K,
                "Q3_K_M" => {
                    if place.index < place.count / 16 {
                        Q5_K
                    } else {
                        Q4_K
                    }
                }
                "Q3_K_L" => Q5_K,
                "Q4_K_M" | "Q5_K_M" if place.matters() => Q6_K,
                "IQ4_NL" | "IQ4_XS" | "Q4_K_S" if place.index < place.count / 8 => Q5_K,
                _ => format,
            },
            Kind::Output if eight => {
                let small = matches!(format, Q2_K | Q3_K | Q4_K | IQ4_NL | IQ4_XS);
                if small && !is(&["Q3_K_L"]) { Q5_K } else { format }
            }
            Kind::Output => match self.name {
                "Q2_K" => Q3_K,
                "Q3_K_M" => Q4_K,
                "Q3_K_L" => Q5_K,
                _ => format,
            },
            Kind::Key | Kind::Other => format,
        }
    }
}

/// What rules are about.
#[derive(PartialEq, Eq, Hash, Clone, Copy)]
enum Kind {
    /// Values, alone or fused with queries and keys, or what MLA makes values of.
    Value,
    Key,
    /// The attention's output.
    Output,
    /// The feed-forward network's last matrix, of experts too.
    Down,
    Other,
}

impl Kind {
    fn of(name: &str) -> Self {
        let has = |part: &str| name.contains(part);
        if has("attn_qkv.weight") || has("attn_kv_b.weight") || has("attn_v.weight") {
            Self::Value
        } else if has("attn_k.weight") {
            Self::Key
        } else if has("attn_output.weight") {
            Self::Output
        } else if has("ffn_down") {
            Self::Down
        } else {
            Self::Other
        }
    }
}

/// Which of so many tensors of its kind one is.
#[derive(Clone, Copy, Default)]
struct Place {
    index: usize,
    count: usize,
}

impl Place {
    /// The first and last eighths and every third of the others get more bits.
    fn matters(self) -> bool {
        let Self { index, count } = self;
        index < count / 8 || index >= 7 * count / 8 || (index - count / 8) % 3 == 2
    }
}

/// What rules ask of a model.
struct Model {
    experts: u32,
    /// Query heads that share a head of keys and values.
    heads_per_group: u32,
    /// A llama of 80 layers, whose values eight heads share.
    seventy_billion: bool,
    /// No output matrix: the embeddings serve.
    tied: bool,
    places: HashMap<String, Place>,
}

impl Model {
    fn of(file: &Gguf) -> Self {
        let metadata = &file.metadata;
        let architecture = metadata.text("general.architecture").unwrap_or_default();
        // Some models have a number for each layer; rules want the first.
        let number = |key: &str| {
            let value = metadata.get(&format!("{architecture}.{key}"));
            let first = value.and_then(|value| match value.as_array() {
                Some(array) => array.get(0).and_then(|value| value.as_u64()),
                None => value.as_u64(),
            });
            first.map_or(0, |number| u32::try_from(number).unwrap_or(u32::MAX))
        };
        let (heads, layers) = (number("attention.head_count"), number("block_count"));
        let shared = match number("attention.head_count_kv") {
            0 => heads,
            shared => shared,
        };
        let experts = number("expert_count");
        let mut places = HashMap::new();
        for kind in [Kind::Value, Kind::Down] {
            let mut of_kind: Vec<(Option<usize>, &str)> = file
                .tensors
                .iter()
                .filter(|tensor| Kind::of(&tensor.name) == kind)
                .map(|tensor| (layer(&tensor.name), tensor.name.as_str()))
                .collect();
            of_kind.sort_unstable();
            let count = if kind == Kind::Down { layers as usize } else { of_kind.len() };
            for (rank, &(layer, name)) in of_kind.iter().enumerate() {
                let by_layer = kind == Kind::Down && experts > 1;
                let index = layer.filter(|_| by_layer).unwrap_or(rank);
                places.insert(name.to_owned(), Place { index, count });
            }
        }
        Self {
            experts,
            heads_per_group: heads / shared.max(1),
            seventy_billion: architecture == "llama" && layers == 80 && shared != heads,
            tied: file.tensor("output.weight").is_none(),
            places,
        }
    }
}

/// The layer of `blk.N.…`.
fn layer(name: &str) -> Option<usize> {
    name.strip_prefix("blk.")?.split('.').next()?.parse().ok()
}

/// What stays as it is: vectors, norms, routers, and small or delicate matrices.
fn may_change(tensor: &TensorInfo) -> bool {
    const STAY: &[&str] = &[
        "_norm.weight",
        "ffn_gate_inp.weight",
        "altup",
        "laurel",
        "per_layer_model_proj",
        "position_embd",
        "token_types",
        "ssm_conv1d",
        "shortconv.conv.weight",
        "attn_rel_b.weight",
    ];
    // As ggml counts dimensions: those of one at the end do not.
    let dimensions = tensor.shape.iter().rposition(|&length| length > 1).map_or(1, |last| last + 1);
    dimensions >= 2
        && tensor.name.ends_with("weight")
        && !STAY.iter().any(|part| tensor.name.contains(part))
}

/// The format itself, or one of smaller blocks that rows of `row` weights are made of.
pub fn fitting(format: Format, row: u64) -> Format {
    let fits = |format: Format| row.is_multiple_of(format.block_size() as u64);
    if fits(format) {
        return format;
    }
    let smaller = match format {
        Format::IQ4_XS
        | Format::IQ3_S
        | Format::IQ3_XXS
        | Format::IQ2_S
        | Format::IQ2_XS
        | Format::IQ2_XXS
        | Format::IQ1_S
        | Format::IQ1_M => Format::IQ4_NL,
        Format::Q2_K
        | Format::Q3_K
        | Format::TQ1_0
        | Format::TQ2_0
        | Format::Q2_0
        | Format::Q1_0 => Format::Q4_0,
        Format::Q4_K => Format::Q5_0,
        Format::Q5_K => Format::Q5_1,
        Format::Q6_K => Format::Q8_0,
        other => other,
    };
    if fits(smaller) { smaller } else { Format::F16 }
}

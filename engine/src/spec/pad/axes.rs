//! What a tensor's columns and rows are made of, by its name.

use gguf::{Gguf, TensorInfo};

use super::super::{FeedForward, LayerSpec, QkNorm, Spec};

/// Numbers that go together: as many as the file has, and with the zeros behind them; so often one after another.
#[derive(Debug, Clone, Copy)]
struct Run {
    numbers: usize,
    width: usize,
    count: usize,
}

/// One dimension of a matrix: runs one after another, all of them `times` times.
#[derive(Debug, Clone)]
pub struct Axis {
    runs: Vec<Run>,
    times: usize,
}

impl Axis {
    fn of(numbers: usize, width: usize) -> Self {
        Self { runs: vec![Run { numbers, width, count: 1 }], times: 1 }
    }

    /// As it is in the file.
    fn whole(numbers: u64) -> Self {
        Self::of(numbers as usize, numbers as usize)
    }

    fn times(mut self, times: usize) -> Self {
        match self.runs.as_mut_slice() {
            [run] => run.count = run.count.saturating_mul(times),
            _ => self.times = self.times.saturating_mul(times),
        }
        self
    }

    /// Axes of one kind of run each, one after another.
    fn joined<const N: usize>(axes: [Axis; N]) -> Self {
        Self { runs: axes.into_iter().flat_map(|axis| axis.runs).collect(), times: 1 }
    }

    fn sum(&self, of: impl Fn(&Run) -> usize) -> usize {
        let each = self.runs.iter().map(|run| of(run).saturating_mul(run.count));
        each.fold(0, usize::saturating_add).saturating_mul(self.times)
    }

    /// How many there are in the file.
    pub fn numbers(&self) -> usize {
        self.sum(|run| run.numbers)
    }

    /// How many there are with the zeros.
    pub fn width(&self) -> usize {
        self.sum(|run| run.width)
    }

    /// Whether there are zeros to be added.
    pub fn grows(&self) -> bool {
        self.runs.iter().any(|run| run.width > run.numbers)
    }

    /// Where each number is in the file, and where it goes.
    pub fn pairs(&self) -> impl Iterator<Item = (usize, usize)> {
        let all = std::iter::repeat_n(&self.runs, self.times).flatten();
        let all = all.flat_map(|run| std::iter::repeat_n(*run, run.count));
        all.scan((0, 0), |(from, to), run| {
            let start = (*from, *to);
            (*from, *to) = (*from + run.numbers, *to + run.width);
            Some((0..run.numbers).map(move |i| (start.0 + i, start.1 + i)))
        })
        .flatten()
    }
}

/// The columns and rows of a tensor of a model whose widths become those of `new`; none where the tensor is as it must
/// be, or has another shape than its name says (the plan will say so).
pub fn axes_of(file: &Gguf, tensor: &TensorInfo, old: &Spec, new: &Spec) -> Option<[Axis; 2]> {
    let (base, is_bias) = match tensor.name.strip_suffix(".bias") {
        Some(base) => (base, true),
        None => (tensor.name.strip_suffix(".weight").unwrap_or(&tensor.name), false),
    };
    let stream = || Axis::of(old.embedding, new.embedding);
    let (columns, rows) = (tensor.row_length(), tensor.rows());
    let any = || Axis::whole(rows);
    let layer_inputs = || {
        let input = old.per_layer?;
        Some(Axis::of(input.width, input.padded).times(old.layers.len()))
    };
    let [of_columns, of_rows] = match base {
        _ if is_norm_of_stream(base) => [stream(), any()],
        "token_embd" | "output_norm" | "token_embd_norm" | "position_embd" | "token_types" => {
            [stream(), any()]
        }
        "output" if !is_bias => [stream(), any()],
        "per_layer_model_proj" => [stream(), layer_inputs()?],
        "per_layer_token_embd" => [layer_inputs()?, any()],
        _ => {
            let (index, name) = base.strip_prefix("blk.")?.split_once('.')?;
            let index: usize = index.parse().ok()?;
            let (old_layer, new_layer) = (old.layers.get(index)?, new.layers.get(index)?);
            let widths = Widths { old, stream: stream(), from: old_layer, to: new_layer };
            let fused =
                name == "ffn_up" && file.tensor(&format!("blk.{index}.ffn_gate.weight")).is_none();
            let of_block = widths.of_block(name, fused && gated(old_layer))?;
            if is_bias { of_block.bias(columns, rows) } else { of_block.matrix(columns, rows) }
        }
    };
    let fits = of_columns.numbers() as u64 == columns && of_rows.numbers() as u64 == rows;
    fits.then_some([of_columns, of_rows])
}

/// Whether a tensor of a block has a number for each of the stream's, weight and bias alike.
fn is_norm_of_stream(base: &str) -> bool {
    let names = [
        "attn_norm",
        "ffn_norm",
        "post_attention_norm",
        "post_ffw_norm",
        "post_ffw_norm_1",
        "post_ffw_norm_2",
        "pre_ffw_norm_2",
        "post_norm",
        "attn_output_norm",
        "layer_output_norm",
        "ffn_gate_inp.scale",
    ];
    let name = base.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
    name.is_some_and(|(_, name)| names.contains(&name))
}

fn gated(layer: &LayerSpec) -> bool {
    matches!(layer.feed_forward, FeedForward::Gated { .. } | FeedForward::GatedAndExperts { .. })
}

/// What a matrix reads and gives; none: as it is in the file. Rows may be there several times, for experts.
struct Block {
    reads: Option<Axis>,
    gives: Option<Axis>,
}

impl Block {
    fn matrix(self, columns: u64, rows: u64) -> [Axis; 2] {
        let gives = match self.gives {
            None => Axis::whole(rows),
            Some(axis) => {
                let each = axis.numbers().max(1);
                axis.times(rows as usize / each)
            }
        };
        [self.reads.unwrap_or_else(|| Axis::whole(columns)), gives]
    }

    fn bias(self, columns: u64, rows: u64) -> [Axis; 2] {
        [self.gives.unwrap_or_else(|| Axis::whole(columns)), Axis::whole(rows)]
    }
}

/// The widths of a layer, in the file and with zeros.
struct Widths<'a> {
    old: &'a Spec,
    stream: Axis,
    from: &'a LayerSpec,
    to: &'a LayerSpec,
}

impl Widths<'_> {
    fn of_block(&self, name: &str, gate_in_up: bool) -> Option<Block> {
        let stream = || Some(self.stream.clone());
        let from_stream = |gives: Option<Axis>| Some(Block { reads: stream(), gives });
        let to_stream = |reads: Option<Axis>| Some(Block { reads, gives: stream() });
        let layer_input = || self.old.per_layer.map(|input| Axis::of(input.width, input.padded));
        match name {
            "ffn_gate_inp" | "ffn_gate_inp_shexp" | "attn_gate" | "ssm_in" | "ssm_ba"
            | "ssm_alpha" | "ssm_beta" => from_stream(None),
            "ssm_out" => to_stream(None),
            "shortconv.in_proj" => from_stream(Some(self.stream.clone().times(3))),
            "shortconv.out_proj" => to_stream(stream()),
            "shortconv.conv" => Some(Block { reads: None, gives: stream() }),
            "inp_gate" => from_stream(Some(layer_input()?)),
            "proj" => to_stream(Some(layer_input()?)),
            _ if name.starts_with("ffn_") => self.of_network(name, gate_in_up),
            _ => self.of_attention(name),
        }
    }

    fn of_network(&self, name: &str, gate_in_up: bool) -> Option<Block> {
        let (from, to) = (&self.from.feed_forward, &self.to.feed_forward);
        let experts = || Some((from.experts()?, to.experts()?));
        let hidden = match name {
            "ffn_gate" | "ffn_up" | "ffn_down" => match (from, to) {
                (FeedForward::Experts(_) | FeedForward::None, _) => return None,
                _ => Axis::of(from.width(), to.width()),
            },
            "ffn_gate_shexp" | "ffn_up_shexp" | "ffn_down_shexp" => {
                let (from, to) = experts()?;
                Axis::of(from.shared?.width, to.shared?.width)
            }
            "ffn_gate_exps" | "ffn_up_exps" | "ffn_down_exps" | "ffn_gate_up_exps" => {
                let (from, to) = experts()?;
                Axis::of(from.width, to.width)
            }
            _ => return None,
        };
        let stream = Some(self.stream.clone());
        Some(if name.starts_with("ffn_down") {
            Block { reads: Some(hidden), gives: stream }
        } else {
            let both = gate_in_up || name == "ffn_gate_up_exps";
            Block { reads: stream, gives: Some(hidden.times(if both { 2 } else { 1 })) }
        })
    }

    fn of_attention(&self, name: &str) -> Option<Block> {
        let (from, to) = (self.from, self.to);
        if !from.attention {
            // A delta net's q, k and v have widths of their own.
            let reads = Some(self.stream.clone());
            return (name == "attn_qkv").then_some(Block { reads, gives: None });
        }
        let key = || Axis::of(from.key_length, to.key_length);
        let value = || Axis::of(from.value_length, to.value_length);
        let stream = || Some(self.stream.clone());
        let from_stream = |gives: Axis| Some(Block { reads: stream(), gives: Some(gives) });
        if let (Some(from), Some(to)) = (from.latent, to.latent) {
            let heads = self.from.heads;
            let rank = || Axis::of(from.rank, to.rank);
            let plain = || Axis::of(from.plain, to.plain);
            let turned = || Axis::of(from.turned, to.turned);
            let value = || Axis::of(from.value, to.value);
            let query = || Axis::joined([plain(), turned()]).times(heads);
            let query_rank = || Some(Axis::of(from.query_rank?.0, to.query_rank?.1));
            return match name {
                "attn_q" => from_stream(query()),
                "attn_q_a" => from_stream(query_rank()?),
                "attn_q_b" => Some(Block { reads: query_rank(), gives: Some(query()) }),
                "attn_kv_a_mqa" => from_stream(Axis::joined([rank(), turned()])),
                "attn_k_b" => Some(Block { reads: Some(plain()), gives: Some(rank()) }),
                "attn_v_b" => Some(Block { reads: Some(rank()), gives: Some(value()) }),
                "attn_kv_b" => {
                    let gives = Axis::joined([plain(), value()]).times(heads);
                    Some(Block { reads: Some(rank()), gives: Some(gives) })
                }
                "attn_output" => Some(Block { reads: Some(value().times(heads)), gives: stream() }),
                _ => None,
            };
        }
        let (heads, kv_heads) = (from.heads, from.kv_heads);
        let query = || key().times(if from.query_gate { 2 * heads } else { heads });
        match name {
            "attn_q" => from_stream(query()),
            "attn_k" => from_stream(key().times(kv_heads)),
            "attn_v" => from_stream(value().times(kv_heads)),
            "attn_qkv" => {
                from_stream(Axis::joined([query(), key().times(kv_heads), value().times(kv_heads)]))
            }
            "attn_output" => Some(Block { reads: Some(value().times(heads)), gives: stream() }),
            "attn_q_norm" | "attn_k_norm" => {
                let heads = if name == "attn_q_norm" { heads } else { kv_heads };
                let reads = match self.old.qk_norm {
                    QkNorm::Heads => key(),
                    QkNorm::Row => key().times(heads),
                    // These have each head's numbers alone.
                    QkNorm::None | QkNorm::LayerHeads => return None,
                };
                Some(Block { reads: Some(reads), gives: None })
            }
            _ => None,
        }
    }
}

//! What no golden covers, made out of what goldens do: files rewritten so that another architecture, or another way of
//! keeping the same weights, must give the same logits.

use std::sync::Arc;

use engine::ContextOptions;
use engine::GpuOptions;
use engine::KvType;
use engine::ModelFile;
use engine::Precision;
use engine::SequenceId;
use engine::internals::cpu::InstructionSet;
use engine::internals::plan::Plan;
use engine_tests::devices::{cpu_context, gpu, gpu_context};
use engine_tests::golden::Tiny;
use engine_tests::stepper::{Cut, check_sequence};
use gguf::{BytesSource, Format, Gguf, TensorType, Value, Writer};

/// A golden's file with its architecture renamed, keys changed, and tensors replaced: `tensor` answers none for a tensor to
/// be left out, or what stands in its place.
type Tensors = Vec<(String, Vec<u64>, TensorType, Vec<u8>)>;

fn rewritten(
    golden: &Tiny,
    architecture: &str,
    keys: &[(&str, Option<Value>)],
    tensor: impl Fn(&str, &[u64], TensorType, Vec<u8>) -> Tensors,
) -> ModelFile {
    let file = Gguf::open(golden.path()).unwrap();
    let old = file.metadata.str("general.architecture").unwrap().unwrap().to_string();
    let mut writer = Writer::new();
    for (key, value) in file.metadata.iter() {
        let name = match key.strip_prefix(&format!("{old}.")) {
            Some(rest) if keys.iter().any(|(key, _)| *key == rest) => continue,
            Some(rest) => format!("{architecture}.{rest}"),
            None => key.to_string(),
        };
        if key == "general.architecture" {
            writer.set("general.architecture", Value::String(architecture.into()));
        } else {
            writer.set(&name, value.clone());
        }
    }
    for (key, value) in keys {
        if let Some(value) = value {
            writer.set(format!("{architecture}.{key}"), value.clone());
        }
    }
    for info in &file.tensors {
        let mut data = vec![0; info.bytes.unwrap() as usize];
        file.read(info, 0, &mut data).unwrap();
        for (name, shape, kind, data) in tensor(&info.name, &info.shape, info.tensor_type, data) {
            writer.tensor(name, &shape, kind, data).unwrap();
        }
    }
    let source = Arc::new(BytesSource::new(&golden.file, writer.to_bytes()));
    ModelFile::from_gguf(Gguf::from_sources(vec![source]).unwrap()).unwrap()
}

/// Checks a model against a golden on GPU and CPU.
fn check(golden: &Tiny, model: &ModelFile) {
    let options = ContextOptions {
        positions: Some(golden.n_ctx),
        sequences: golden.sequences.len(),
        key_type: KvType::F32,
        value_type: KvType::F32,
        ..ContextOptions::default()
    };
    let gpu = gpu(&GpuOptions::default());
    let cpu = cpu_context(model, &options, InstructionSet::detect(), Precision::F32);
    for mut context in [gpu_context(&gpu, model, &options), cpu] {
        for (index, sequence) in golden.sequences.iter().enumerate() {
            let id = SequenceId(index as u32);
            check_sequence(&mut context, golden, sequence, id, Cut::Whole, KvType::F32);
        }
    }
}

fn same(name: &str, shape: &[u64], kind: TensorType, data: Vec<u8>) -> Tensors {
    vec![(name.into(), shape.to_vec(), kind, data)]
}

/// granitemoe is Mixtral with four factors (ARCHITECTURES: granite): with all of them 1 it must be Mixtral.
#[test]
fn granitemoe_without_its_factors_is_mixtral() {
    let golden = Tiny::load("mixtral");
    let one = || Some(Value::F32(1.0));
    let keys = [("logit_scale", one()), ("embedding_scale", one()), ("residual_scale", one())];
    check(&golden, &rewritten(&golden, "granitemoe", &keys, same));
}

/// Experts' gate and up in one tensor, each expert's gate before its up.
#[test]
fn fused_experts_are_the_split_ones() {
    let golden = Tiny::load("mixtral");
    let file = Gguf::open(golden.path()).unwrap();
    let model = rewritten(&golden, "llama", &[], |name, shape, kind, data| {
        if name.ends_with("ffn_up_exps.weight") {
            return vec![];
        }
        let Some(start) = name.strip_suffix("ffn_gate_exps.weight") else {
            return same(name, shape, kind, data);
        };
        let up_info = file.require(&format!("{start}ffn_up_exps.weight")).unwrap();
        let mut up = vec![0; data.len()];
        file.read(up_info, 0, &mut up).unwrap();
        let each = data.len() / shape[2] as usize;
        let both = data.chunks(each).zip(up.chunks(each)).flat_map(|(gate, up)| [gate, up]);
        let shape = vec![shape[0], 2 * shape[1], shape[2]];
        vec![(
            format!("{start}ffn_gate_up_exps.weight"),
            shape,
            kind,
            both.flatten().copied().collect(),
        )]
    });
    check(&golden, &model);
}

/// q, k and v in one tensor.
#[test]
fn fused_qkv_is_the_split_one() {
    let golden = Tiny::load("qwen3");
    let file = Gguf::open(golden.path()).unwrap();
    let model = rewritten(&golden, "qwen3", &[], |name, shape, kind, mut data| {
        if name.ends_with("attn_k.weight") || name.ends_with("attn_v.weight") {
            return vec![];
        }
        let Some(start) = name.strip_suffix("attn_q.weight") else {
            return same(name, shape, kind, data);
        };
        let mut rows = shape[1];
        for part in ["attn_k.weight", "attn_v.weight"] {
            let info = file.require(&format!("{start}{part}")).unwrap();
            let mut more = vec![0; info.bytes.unwrap() as usize];
            file.read(info, 0, &mut more).unwrap();
            data.extend(more);
            rows += info.shape[1];
        }
        vec![(format!("{start}attn_qkv.weight"), vec![shape[0], rows], kind, data)]
    });
    check(&golden, &model);
}

/// DeepSeek's old files keep keys and values to be decompressed (`attn_kv_b`) instead of `attn_k_b` and `attn_v_b`:
/// per head k's rows, then v's, k_b being transposed.
#[test]
fn decompressed_keys_and_values_are_the_compressed_ones() {
    for name in ["deepseek2-lite", "deepseek2-v3"] {
        let golden = Tiny::load(name);
        let file = Gguf::open(golden.path()).unwrap();
        let floats = |name: &str| -> (Vec<u64>, Vec<f32>) {
            let info = file.require(name).unwrap();
            let mut data = vec![0; info.bytes.unwrap() as usize];
            file.read(info, 0, &mut data).unwrap();
            let mut out = vec![0.0; info.elements() as usize];
            file.format(info).unwrap().decode(&data, &mut out);
            (info.shape.clone(), out)
        };
        let heads = 4;
        let keys = [
            ("attention.key_length_mla", None),
            ("attention.value_length_mla", None),
            ("attention.key_length", Some(Value::U32(48))),
            ("attention.value_length", Some(Value::U32(32))),
            ("attention.head_count_kv", Some(Value::U32(heads))),
        ];
        let model = rewritten(&golden, "deepseek2", &keys, |name, shape, kind, data| {
            if name.ends_with("attn_v_b.weight") {
                return vec![];
            }
            let Some(start) = name.strip_suffix("attn_k_b.weight") else {
                return same(name, shape, kind, data);
            };
            let (k_shape, k) = floats(name);
            let (v_shape, v) = floats(&format!("{start}attn_v_b.weight"));
            let (plain, rank, value) =
                (k_shape[0] as usize, k_shape[1] as usize, v_shape[1] as usize);
            let mut rows = Vec::new();
            for head in 0..heads as usize {
                for i in 0..plain {
                    rows.extend((0..rank).map(|r| k[(head * rank + r) * plain + i]));
                }
                rows.extend_from_slice(&v[head * value * rank..][..value * rank]);
            }
            let shape = vec![rank as u64, u64::from(heads) * (plain + value) as u64];
            let data = bytemuck::cast_slice(&rows).to_vec();
            vec![(format!("{start}attn_kv_b.weight"), shape, TensorType(Format::F32.id()), data)]
        });
        check(&golden, &model);
    }
}

/// `NAME.scale` multiplies a product: weights halved and a scale of 2 give the same.
#[test]
fn scales_multiply_products() {
    let golden = Tiny::load("qwen2");
    let model = rewritten(&golden, "qwen2", &[], |name, shape, kind, mut data| {
        let Some(start) = name
            .strip_suffix(".weight")
            .filter(|_| name.contains("attn_v.") || name.contains("ffn_down"))
        else {
            return same(name, shape, kind, data);
        };
        assert_eq!(kind.name(), "F16");
        for bytes in data.chunks_exact_mut(2) {
            let half = half::f16::from_le_bytes([bytes[0], bytes[1]]);
            let halved = half::f16::from_f32(half.to_f32() / 2.0);
            bytes.copy_from_slice(&halved.to_le_bytes());
        }
        let scale = (format!("{start}.scale"), vec![1], TensorType(0), 2f32.to_le_bytes().to_vec());
        vec![(name.into(), shape.to_vec(), kind, data), scale]
    });
    check(&golden, &model);
}

/// Factors of each expert's first products are refused, not passed over.
#[test]
fn factors_that_are_not_applied_are_refused() {
    let golden = Tiny::load("qwen3moe-w256.Q4_K_M");
    let model = rewritten(&golden, "qwen3moe", &[], |name, shape, kind, data| {
        let mut tensors = same(name, shape, kind, data);
        if name == "blk.1.ffn_up_exps.weight" {
            let count = shape[2];
            let ones = std::iter::repeat_n(1f32.to_le_bytes(), count as usize).flatten().collect();
            tensors.push(("blk.1.ffn_up_exps.scale".into(), vec![count], TensorType(0), ones));
        }
        tensors
    });
    let error = Plan::new(&model, 64).unwrap_err().to_string();
    assert!(error.contains("blk.1.ffn_up_exps.scale"), "{error}");
}

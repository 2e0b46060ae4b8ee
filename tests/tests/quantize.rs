//! What we quantize against what ggml's quantiser makes of the same weights.

use engine_tests::golden::folder;
use gguf::quantize::Mix;
use gguf::{BytesSource, Format, Gguf, TensorType, Value, Writer};

/// The weights of `quants/source.f32`: normal, heavy tails, zeros, constants, sparse, huge, tiny and subnormal ones.
fn source() -> Vec<f32> {
    let bytes = std::fs::read(folder().join("quants/source.f32")).unwrap();
    bytemuck::pod_collect_to_vec(&bytes)
}

/// `quants-plain` is what `quantize_row_*_ref` (IQ4_NL: `quantize_iq4_nl`) of ggml (autumn 2026, built without fused multiplication) wrote.
#[test]
fn blocks_are_ggmls_bit_for_bit() {
    let source = source();
    let mut compared = Vec::new();
    for &format in Format::ALL {
        let Some(ours) = format.quantize(&source) else { continue };
        let name = format.name();
        let plain = folder().join(format!("quants-plain/{name}.bin"));
        let theirs =
            if plain.exists() { plain } else { folder().join(format!("quants/{name}.bin")) };
        let theirs = std::fs::read(theirs).unwrap();
        assert_eq!(ours.len(), theirs.len());
        let size = format.block_bytes();
        for (block, (ours, theirs)) in ours.chunks(size).zip(theirs.chunks(size)).enumerate() {
            assert_eq!(ours, theirs, "{name}, block {block}");
        }
        compared.push(name);
    }
    println!("{} formats: {}", compared.len(), compared.join(", "));
    assert_eq!(compared.len(), 21);
}

/// The tensors of the models that llama-quantize made: every mix chooses the types that it chose.
#[test]
fn mixes_are_llama_quantizes() {
    let mut compared = 0;
    for entry in std::fs::read_dir(folder().join("tiny")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let mix = name.split_once('.').and_then(|(_, mix)| Mix::from_name(mix));
        let Some(mix) = mix.filter(|_| path.extension().unwrap() == "gguf") else { continue };
        let file = Gguf::open(&path).unwrap();
        // MXFP4 of everything is not a mix of llama-quantize's.
        if file.metadata.u32("general.file_type").unwrap() != Some(mix.file_type) {
            println!("{name}: another mix");
            continue;
        }
        for (tensor, format) in file.tensors.iter().zip(mix.formats(&file).unwrap()) {
            let chosen = format.map_or(tensor.tensor_type, |format| TensorType(format.id()));
            let (chosen, theirs) = (chosen.name(), tensor.tensor_type.name());
            assert_eq!(chosen, theirs, "{name}: {}", tensor.name);
        }
        println!("{name}: {} tensors", file.tensors.len());
        compared += 1;
    }
    assert!(compared >= 15, "{compared}");
}

fn quantized(file: &Gguf, mix: Mix) -> Gguf {
    let mut bytes = Vec::new();
    let rewrite = file.quantize(mix, false).unwrap();
    rewrite.write("memory", &mut bytes, &mut |_| ()).unwrap();
    Gguf::from_sources(vec![std::sync::Arc::new(BytesSource::new("memory", bytes))]).unwrap()
}

/// A whole file: metadata kept, every tensor's blocks those of its weights alone, whatever its place in the file.
#[test]
fn files_hold_what_their_tensors_became() {
    let file = Gguf::open(folder().join("tiny/llama.gguf")).unwrap();
    for mix in Mix::all() {
        let ours = quantized(&file, mix);
        let same = |key: &str| assert_eq!(ours.metadata.get(key), file.metadata.get(key), "{key}");
        same("tokenizer.ggml.tokens");
        same("llama.embedding_length");
        assert_eq!(ours.metadata.u32("general.file_type").unwrap(), Some(mix.file_type));
        for (tensor, before) in ours.tensors.iter().zip(&file.tensors) {
            let read = |file: &Gguf, tensor: &gguf::TensorInfo| {
                let mut bytes = vec![0; tensor.bytes.unwrap() as usize];
                file.read(tensor, 0, &mut bytes).unwrap();
                bytes
            };
            let (new, old) = (ours.format(tensor).unwrap(), file.format(before).unwrap());
            let mut weights = vec![0.0; before.elements() as usize];
            old.decode(&read(&file, before), &mut weights);
            let expected =
                if new == old { read(&file, before) } else { new.quantize(&weights).unwrap() };
            assert!(read(&ours, tensor) == expected, "{}: {}", mix.name, tensor.name);
        }
    }
}

#[test]
fn what_cannot_be_quantized_is_refused() {
    let quantized_already = Gguf::open(folder().join("tiny/llama.Q8_0.gguf")).unwrap();
    let mix = Mix::from_name("q4_0").unwrap();
    let error = quantized_already.quantize(mix, false).err().unwrap();
    assert!(matches!(error, gguf::Error::RoundedTwice { format: Format::Q8_0, .. }), "{error}");
    assert!(quantized_already.quantize(mix, true).is_ok());
    assert!(Mix::from_name("IQ2_XXS").is_none());

    let mut writer = Writer::new();
    writer.set("general.architecture", Value::String(b"llama".to_vec()));
    let mut weights = vec![1.0f32; 64];
    weights[40] = f32::NAN;
    let data = bytemuck::cast_slice(&weights).to_vec();
    writer.tensor("a.weight", &[32, 2], TensorType(0), data).unwrap();
    let source = BytesSource::new("memory", writer.to_bytes());
    let file = Gguf::from_sources(vec![std::sync::Arc::new(source)]).unwrap();
    let rewrite = file.quantize(mix, false).unwrap();
    let error = rewrite.write("memory", &mut Vec::new(), &mut |_| ()).err().unwrap().to_string();
    assert!(error.contains("a.weight") && error.contains("NaN"), "{error}");
}

//! Files that were changed at random, through everything that reads them: an error or a working model, never a
//! panic.

use std::sync::Arc;

use engine::ModelFile;
use engine::Precision;
use engine::internals::blueprint::Blueprint;
use engine::internals::cpu::{CpuExecutor, CpuLoops, CpuWeights, InstructionSet};
use engine::{Context, ContextOptions};
use engine::{EncodeOptions, Tokenizer};
use engine::{SequenceId, StepToken};
use engine_tests::golden::Tiny;
use engine_tests::random::Random;
use gguf::{BytesSource, Gguf, Header};

/// Reads a file as far as it goes; the error's text where it does not go on.
fn use_file(bytes: Vec<u8>) -> Result<(), String> {
    let text = |error: engine::Error| error.to_string();
    let source = Arc::new(BytesSource::new("mutated.gguf", bytes));
    let file = Gguf::from_sources(vec![source]).map_err(|error| error.to_string())?;
    let tokenizer = Tokenizer::from_metadata(&file.metadata).map_err(text)?;
    let ids = tokenizer.encode("Hello wörld <s>", EncodeOptions::default()).map_err(text)?;
    tokenizer.decode(&ids);
    let model = ModelFile::from_gguf(file).map_err(text)?;
    let options =
        ContextOptions { positions: Some(64), chunk: 16, outputs: Some(1), ..Default::default() };
    let blueprint = Blueprint::new(&model, &options).map_err(text)?;
    let device =
        engine::Device::Cpu { threads: 1, set: InstructionSet::detect(), memory_limit: None };
    let memory = engine::internals::model::predict(&model, &device, &options, Precision::F32)
        .map_err(text)?;
    // What a mutated size asks for is refused where it does not fit; here anything large is.
    if memory.total() > 1 << 28 {
        return Err("would not fit".into());
    }
    let weights = CpuWeights::load(&model.gguf, &blueprint.plan).map_err(text)?;
    let loops = CpuLoops { threads: 1, set: InstructionSet::detect(), precision: Precision::F32 };
    let executor = CpuExecutor::new(weights, blueprint.clone(), loops);
    let mut context = Context::new(&model.spec, &blueprint, Box::new(executor));
    let ids: Vec<u32> =
        ids.into_iter().take(20).filter(|&id| (id as usize) < model.spec.vocabulary).collect();
    context.step(&StepToken::run(SequenceId(0), 0, &ids, false)).map_err(text)?;
    Ok(())
}

#[test]
fn mutated_models_are_errors_or_models() {
    let mut random = Random(20_261_123);
    let (mut refused, mut worked) = (0, 0);
    for name in ["llama.Q4_0", "gemma3.Q4_0", "llama31"] {
        let good = std::fs::read(Tiny::load(name).path()).unwrap();
        use_file(good.clone()).unwrap();
        let header = Header::parse(&BytesSource::new("x", good.clone())).unwrap();
        // Most keys that matter stand before the vocabulary, tensors after it.
        let places = [(0, 900), (header.data_start as usize - 2500, header.data_start as usize)];
        for round in 0..400 {
            let mut bad = good.clone();
            for _ in 0..=random.below(3) {
                let (from, to) = places[round % 2];
                let at = from + random.below(to - from);
                match random.below(4) {
                    0 => bad[at] = random.below(256) as u8,
                    1 => bad[at] = bad[at].wrapping_add(1),
                    2 => bad[at] = 0,
                    _ => bad[at..at + 4].fill(0xff),
                }
            }
            match use_file(bad) {
                Ok(()) => worked += 1,
                Err(error) => {
                    assert!(!error.is_empty());
                    refused += 1;
                }
            }
        }
    }
    println!("{refused} refused, {worked} worked");
    assert!(refused > 300 && worked > 50, "{refused} refused, {worked} worked");
}

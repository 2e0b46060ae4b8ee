//! Several texts continued side by side in one context: a step computes the next token of each.
//!
//! ```text
//! cargo run --release -p engine --example batch -- MODEL.gguf "Once upon a time" "The capital of France is"
//! ```

use engine::EncodeOptions;
use engine::Sampling;
use engine::{ContextOptions, Device, DeviceOptions, LoadOptions, Model};
use engine::{Input, Sequence, StepToken};

/// Tokens that each text is continued by.
const COUNT: usize = 24;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("which model? give a .gguf file")?;
    let texts: Vec<String> = arguments.collect();
    if texts.is_empty() {
        return Err("which texts? give at least one".into());
    }
    let device = Device::open(&DeviceOptions::default())?;
    let options = ContextOptions {
        positions: Some(512),
        sequences: texts.len(),
        ..ContextOptions::default()
    };
    let model = Model::load(&[device], &path, &LoadOptions::from(options.clone()))?;
    let tokenizer = model.tokenizer()?;
    let mut context = model.context(&options)?;

    let special = EncodeOptions { add_special: true, parse_special: false };
    let mut ids: Vec<Vec<u32>> = Vec::new();
    let mut sequences: Vec<Sequence> = Vec::new();
    let mut step = Vec::new();
    for (number, text) in texts.iter().enumerate() {
        ids.push(tokenizer.encode(text, special)?);
        sequences.push(context.sequence()?);
        step.extend(StepToken::run(sequences[number].id(), 0, &ids[number], false));
    }
    let greedy = Sampling::greedy();
    for _ in 0..COUNT {
        // A row of logits for each sequence, in the order of the step's tokens.
        let rows = context.step(&step)?;
        step.clear();
        for (number, logits) in rows.iter().enumerate() {
            let (sequence, position) = (sequences[number].id(), ids[number].len() as u32);
            let id = greedy.choose(logits, &ids[number], sequence.0, position);
            ids[number].push(id);
            step.push(StepToken { input: Input::Id(id), sequence, position, want_logits: true });
        }
    }
    for ids in &ids {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| tokenizer.piece(id)).copied().collect();
        println!("{}\n", String::from_utf8_lossy(&bytes).trim());
    }
    Ok(())
}

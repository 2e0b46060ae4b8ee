//! How near texts are to the first, by an embedding model.
//!
//! ```text
//! cargo run --release -p engine --example embed -- MODEL.gguf "a cat" "a kitten" "a truck"
//! ```

use engine::EncodeOptions;
use engine::{
    ContextOptions, Device, DeviceOptions, LoadOptions, Model, Scheduler, embed, normalized,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("which model? give a .gguf file of an embedding model")?;
    let texts: Vec<String> = arguments.collect();
    let device = Device::open(&DeviceOptions::default())?;
    let model = Model::load(&[device], &path, &LoadOptions::default())?;
    let tokenizer = model.tokenizer()?;
    let scheduler = Scheduler::start(&model, &ContextOptions::default())?;
    let special = EncodeOptions { add_special: true, parse_special: false };
    let mut first: Option<Vec<f32>> = None;
    for text in &texts {
        let ids = tokenizer.encode(text, special)?;
        let vector = normalized(&embed(&scheduler, &ids)?);
        let first = first.get_or_insert_with(|| vector.clone());
        // Of vectors of length 1 the product is the cosine of their angle.
        let nearness: f32 = first.iter().zip(&vector).map(|(a, b)| a * b).sum();
        println!("{nearness:.4}  {text}");
    }
    Ok(())
}

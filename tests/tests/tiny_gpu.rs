//! The GPU executor against llama.cpp, on every tiny model.

use engine::ContextOptions;
use engine::GpuOptions;
use engine::KvType;
use engine::ModelFile;
use engine::SequenceId;
use engine_tests::devices::{card, gpu, gpu_context_with};
use engine_tests::golden::{Tiny, tiny_names};
use engine_tests::stepper::{Cut, check_sequence};

#[test]
fn gpu_equals_llama_cpp() {
    let gpu = gpu(&GpuOptions::default());
    println!("on {} ({})", gpu.name, gpu.driver);
    for name in tiny_names() {
        let golden = Tiny::load(&name);
        let model = ModelFile::open(golden.path()).unwrap();
        // Kernels as the adapter likes them, and as a graphics card would.
        for (kv, kernels) in [(KvType::F32, gpu.kernels.clone()), (KvType::F16, card(&gpu.kernels))]
        {
            let options = ContextOptions {
                positions: Some(golden.n_ctx),
                sequences: golden.sequences.len(),
                key_type: kv,
                value_type: kv,
                ..ContextOptions::default()
            };
            let mut context = gpu_context_with(&gpu, &kernels, &model, &options);
            let mut worst = 0f64;
            for (index, sequence) in golden.sequences.iter().enumerate() {
                let cut = [Cut::Chunks(1), Cut::Chunks(5), Cut::Whole][index % 3];
                let id = SequenceId(index as u32);
                let seen = check_sequence(&mut context, &golden, sequence, id, cut, kv);
                worst = worst.max(seen);
            }
            println!("{name} {}: {worst:.2e}", kv.name());
        }
    }
}

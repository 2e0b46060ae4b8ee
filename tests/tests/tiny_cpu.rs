//! The CPU executor against llama.cpp, on every tiny model.

use engine::ContextOptions;
use engine::KvType;
use engine::ModelFile;
use engine::Precision;
use engine::SequenceId;
use engine::internals::cpu::InstructionSet;
use engine_tests::devices::cpu_context;
use engine_tests::golden::{Tiny, tiny_names};
use engine_tests::stepper::{Cut, check_sequence};

#[test]
fn cpu_equals_llama_cpp() {
    for name in tiny_names() {
        let golden = Tiny::load(&name);
        let model = ModelFile::open(golden.path()).unwrap();
        for kv in [KvType::F32, KvType::F16] {
            let options = ContextOptions {
                positions: Some(golden.n_ctx),
                sequences: golden.sequences.len(),
                key_type: kv,
                value_type: kv,
                ..ContextOptions::default()
            };
            for set in InstructionSet::available() {
                let mut context = cpu_context(&model, &options, set, Precision::F32);
                let mut worst = 0f64;
                for (index, sequence) in golden.sequences.iter().enumerate() {
                    let cut = [Cut::Chunks(1), Cut::Chunks(5), Cut::Whole][index % 3];
                    let id = SequenceId(index as u32);
                    let seen = check_sequence(&mut context, &golden, sequence, id, cut, kv);
                    worst = worst.max(seen);
                }
                println!("{name} {} {}: {worst:.2e}", kv.name(), set.name());
            }
        }
    }
}

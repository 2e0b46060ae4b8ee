//! The reference against llama.cpp, on every tiny model.

use engine::KvType;
use engine::SequenceId;
use engine_tests::golden::{Tiny, tiny_names};
use engine_tests::stepper::{Cut, check_sequence, reference};

#[test]
fn reference_equals_llama_cpp() {
    for name in tiny_names() {
        let golden = Tiny::load(&name);
        for kv in [KvType::F32, KvType::F16] {
            let mut worst = 0f64;
            let mut stepper = reference(&golden, kv);
            for (index, sequence) in golden.sequences.iter().enumerate() {
                let id = SequenceId(index as u32);
                worst = worst.max(check_sequence(
                    &mut stepper,
                    &golden,
                    sequence,
                    id,
                    [Cut::Whole, Cut::Chunks(5), Cut::Whole][index % 3],
                    kv,
                ));
            }
            println!("{name} {}: {worst:.2e}", kv.name());
        }
    }
}

//! The two real models against llama.cpp's exact computation.

use std::sync::atomic::AtomicBool;

use engine::KvType;
use engine::Sampling;
use engine::SequenceId;
use engine::internals::chat::{Template, TemplateInputs};
use engine::internals::perplexity::measure;
use engine::internals::select::log_softmax;
use engine::{
    Context, ContextOptions, Device, GenerateOptions, Goal, LoadOptions, Model, Scheduler, Session,
    StepToken,
};
use engine::{EncodeOptions, Tokenizer};
use engine_tests::devices::{cpu_device, gpu};
use engine_tests::real::{
    Allowed, Distance, GEMMA3, RealModel, SMOLLM2, check_teacher_forced, check_tokenizer, full_tier,
};
use engine_tests::requests::{submit, wait};
use gguf::Gguf;

/// The prompts that the GPU computes in the default tier.
const FOUR: [&str; 4] = ["plain_short", "json", "chat_special", "cjk"];
/// The prompts that are continued freely.
const FREE: [&str; 3] = ["plain_short", "plain_sentence", "code_python"];

#[test]
fn tokenizers_and_templates() {
    for real in [SMOLLM2, GEMMA3] {
        let golden = real.load();
        let start = std::time::Instant::now();
        let file = Gguf::open(real.path()).unwrap();
        let header = start.elapsed();
        println!("{}: header of {} tensors in {header:?}", real.file, file.tensors.len());
        let tokenizer = Tokenizer::from_metadata(&file.metadata).unwrap();
        check_tokenizer(&golden, &tokenizer);
        // The base model has no template; what the golden has for it is llama.cpp's own fallback, ChatML,
        // where this engine continues plain text.
        let template = Template::from_metadata(&file.metadata).unwrap();
        assert_eq!(template.is_some(), real.golden == SMOLLM2.golden);
        for chat in golden.chat.iter().filter(|_| template.is_some()) {
            let rendered =
                template.as_ref().unwrap().render(&chat.messages, true, &TemplateInputs::default());
            assert_eq!(rendered.unwrap(), chat.prompt);
        }
        println!("{}: {} texts", real.golden, golden.prompts.len() + golden.tokenize.len());
    }
}

fn options(kv: KvType) -> ContextOptions {
    ContextOptions {
        positions: Some(1024),
        key_type: kv,
        value_type: kv,
        ..ContextOptions::default()
    }
}

fn check(real: &RealModel, device: Device, prompts: Option<&[&str]>) {
    let golden = real.load();
    let load = LoadOptions::from(options(KvType::F32));
    let model = Model::load(&[device], real.path(), &load).unwrap();
    for kv in [KvType::F32, KvType::F16] {
        let mut context: Context = model.context(&options(kv)).unwrap();
        let mut distance = Distance::default();
        let mut count = 0;
        for prompt in &golden.prompts {
            if prompts.is_some_and(|prompts| !prompts.contains(&prompt.id.as_str())) {
                continue;
            }
            let sequence = SequenceId(0);
            context.free(sequence);
            distance.add(check_teacher_forced(&mut context, prompt, sequence, &Allowed::f32(kv)));
            count += 1;
        }
        assert!(count >= 4);
        println!(
            "{} {} on {}: {count} prompts; distance from exact: ours max {:.4} mean {:.5}, llama.cpp's default max {:.4} mean {:.5}",
            real.golden,
            kv.name(),
            context.device_name(),
            distance.ours_max,
            distance.ours_sum / distance.ours_count as f64,
            distance.native_max,
            distance.native_sum / distance.native_count.max(1) as f64,
        );
    }
    let scheduler = Scheduler::start(&model, &options(KvType::F32)).unwrap();
    let mut session = Session::new(&scheduler).unwrap();
    for prompt in golden.prompts.iter().filter(|prompt| FREE.contains(&prompt.id.as_str())) {
        free_run(&mut session, prompt);
    }
}

/// Generates greedily; equal to the golden up to the first near tie.
fn free_run(session: &mut Session, prompt: &engine_tests::real::Prompt) {
    session.push_text(&prompt.text).unwrap();
    assert_eq!(session.prompt(), prompt.tokens);
    let greedy = GenerateOptions {
        sampling: Sampling::greedy(),
        max_tokens: Some(64),
        stop: vec![],
        run_ahead: true,
    };
    let generation = session.generate(&greedy, &AtomicBool::new(false), &mut |_| ()).unwrap();
    let exact = &prompt.exact;
    let sure = exact.top2_gap.iter().position(|&gap| gap <= 0.02).unwrap_or(exact.chosen_ids.len());
    assert!(sure > 0, "{}", prompt.id);
    assert_eq!(generation.tokens[..sure], exact.chosen_ids[..sure], "{}", prompt.id);
    if sure == exact.chosen_ids.len() {
        assert_eq!(generation.tokens, exact.chosen_ids);
        assert_eq!(generation.stop.name() == "eos", exact.stop_type == "eos");
    }
    println!("{}: {sure} of {} tokens alike", prompt.id, exact.chosen_ids.len());
}

#[test]
fn smollm2_on_the_cpu() {
    check(&SMOLLM2, cpu_device(), None);
}

#[test]
fn gemma3_on_the_cpu() {
    check(&GEMMA3, cpu_device(), None);
}

/// Sixteen requests at once answer as each alone; where an answer parts, the two ids are a near tie by the lone run's own logits,
/// and that is so in less than a hundredth of the answers. The prompts are pieces of a text, `count` of them.
fn beside_each_other(real: &RealModel, device: Device, count: usize) {
    let text = std::fs::read_to_string(engine_tests::golden::folder().join("real/gpl-3.txt"));
    let load = LoadOptions::from(options(KvType::F16));
    let model = Model::load(&[device], real.path(), &load).unwrap();
    let tokenizer = model.tokenizer().unwrap();
    let ids = tokenizer.encode(&text.unwrap(), EncodeOptions::default()).unwrap();
    let prompts: Vec<_> =
        (0..count).map(|number| &ids[number * 53..][..4 + number * 7 % 45]).collect();
    let of = |sequences: usize| ContextOptions {
        positions: Some(128),
        pool: Some(128 * sequences),
        sequences,
        ..options(KvType::F16)
    };
    let goal = || Goal::Generate {
        sampling: Sampling::greedy(),
        stream: 0,
        max_tokens: Some(16),
        run_ahead: true,
    };
    let lone = Scheduler::start(&model, &of(1)).unwrap();
    let alone: Vec<_> =
        prompts.iter().map(|prompt| wait(submit(&lone, prompt, goal())).ids).collect();
    let together = Scheduler::start(&model, &of(16)).unwrap();
    let all: Vec<_> = prompts.iter().map(|prompt| submit(&together, prompt, goal())).collect();
    let mut context = model.context(&of(1)).unwrap();
    let mut parted = 0;
    for ((prompt, alone), answer) in prompts.iter().zip(&alone).zip(all.into_iter().map(wait)) {
        let Some(at) = alone.iter().zip(&answer.ids).position(|(a, b)| a != b) else {
            assert_eq!(*alone, answer.ids);
            continue;
        };
        parted += 1;
        let sequence = context.sequence().unwrap();
        let forced = [prompt, &alone[..at]].concat();
        let rows = context.step(&StepToken::run(sequence.id(), 0, &forced, false)).unwrap();
        let [a, b] = [alone[at], answer.ids[at]].map(|id| log_softmax(&rows[0])[id as usize]);
        println!("an answer parts at {at}, by {:.2e}", a - b);
        assert!((a - b).abs() < 1e-3, "{a} {b} at {at}");
    }
    println!("{} on {}: {parted} of {count} answers part", real.golden, together.device_name());
    assert!(parted * 100 <= count);
}

#[test]
fn answers_beside_each_other_on_the_cpu() {
    beside_each_other(&SMOLLM2, cpu_device(), if full_tier() { 128 } else { 32 });
}

#[test]
fn answers_beside_each_other_on_the_gpu() {
    let device = Device::Gpu(gpu(&engine::GpuOptions::default()));
    beside_each_other(&SMOLLM2, device, if full_tier() { 128 } else { 16 });
}

fn gpu_prompts() -> Option<&'static [&'static str]> {
    if full_tier() { None } else { Some(&FOUR) }
}

#[test]
fn smollm2_on_the_gpu() {
    check(&SMOLLM2, Device::Gpu(gpu(&engine::GpuOptions::default())), gpu_prompts());
}

#[test]
fn gemma3_on_the_gpu() {
    check(&GEMMA3, Device::Gpu(gpu(&engine::GpuOptions::default())), gpu_prompts());
}

/// The exact perplexities of gpl-3.txt, chunks of 512, and how far a cache of bytes may be from them.
const PERPLEXITIES: [(RealModel, f64); 2] = [(SMOLLM2, 18.3001), (GEMMA3, 13.8288)];

#[test]
fn perplexities_are_the_exact_ones() {
    let text = std::fs::read_to_string(engine_tests::golden::folder().join("real/gpl-3.txt"));
    let text = text.unwrap();
    for (real, exact) in PERPLEXITIES {
        for (kv, bound) in [(KvType::F32, 0.001), (KvType::Q8_0, 0.005)] {
            let options = ContextOptions { positions: Some(512), ..options(kv) };
            let load = LoadOptions::from(options.clone());
            let model = Model::load(&[cpu_device()], real.path(), &load).unwrap();
            let tokenizer = model.tokenizer().unwrap();
            let special = EncodeOptions { add_special: true, parse_special: false };
            let ids = tokenizer.encode(&text, special).unwrap();
            let scheduler = Scheduler::start(&model, &options).unwrap();
            let measured = measure(&scheduler, &ids, 512, None, &mut |_, _| ()).unwrap();
            let off = measured.value / exact - 1.0;
            println!("{} {}: {:.4}, {off:+.5} of exact", real.file, kv.name(), measured.value);
            assert_eq!(measured.chunks, 14);
            assert!(off.abs() <= bound, "{} {}: {}", real.file, kv.name(), measured.value);
        }
    }
}

//! Generation: the loop that runs ahead on the GPU against the one that reads logits, every kind of stop, and
//! a second turn after each.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use engine::Sampling;
use engine::{
    Advice, ContextOptions, Device, GenerateOptions, Generation, LoadOptions, Model, Scheduler,
    Session, StepToken, Stop,
};
use engine_tests::devices::{cpu_device, gpu};
use engine_tests::golden::Tiny;

fn session(model: &Arc<Model>, cells: usize) -> Session {
    let options = ContextOptions { positions: Some(cells), ..ContextOptions::default() };
    Session::new(&Scheduler::start(model, &options).unwrap()).unwrap()
}

fn load(device: Device, name: &str) -> Arc<Model> {
    let golden = Tiny::load(name);
    Model::load(&[device], golden.path(), &LoadOptions::default()).unwrap()
}

fn gpu_device() -> Device {
    Device::Gpu(gpu(&engine::GpuOptions::default()))
}

fn options(sampling: Sampling, max_tokens: usize) -> GenerateOptions {
    GenerateOptions { sampling, max_tokens: Some(max_tokens), stop: vec![], run_ahead: true }
}

fn generate(session: &mut Session, ids: &[u32], options: &GenerateOptions) -> Generation {
    session.push_ids(ids.to_vec());
    session.generate(options, &AtomicBool::new(false), &mut |_| ()).unwrap()
}

/// The same logits, the same random numbers: the same ids, but where a draw falls on an edge.
#[test]
fn running_ahead_chooses_what_the_host_chooses() {
    for name in ["llama", "gemma3"] {
        let model = load(gpu_device(), name);
        let mut session = session(&model, 512);
        let penal = Sampling { repeat_penalty: 1.3, ..Sampling::default() };
        let samplings = [
            Sampling::greedy(),
            Sampling { repeat_penalty: 1.5, ..Sampling::greedy() },
            Sampling {
                temperature: 1.0,
                top_k: 256,
                top_p: 1.0,
                min_p: 0.0,
                seed: 3,
                ..penal.clone()
            },
            Sampling {
                temperature: 1.7,
                top_k: 100,
                top_p: 0.9,
                min_p: 0.02,
                seed: 1 << 40,
                ..penal.clone()
            },
            Sampling { temperature: 0.7, top_k: 5, seed: 9, ..penal },
        ];
        for sampling in samplings {
            let (mut alike, mut all) = (0, 0);
            for seed in 0..6 {
                let ids: Vec<u32> = (0..90).map(|i| 3 + (i * 31 + seed * 17) % 500).collect();
                let mut options = options(sampling.clone(), 40);
                let ahead = generate(&mut session, &ids, &options).tokens;
                options.run_ahead = false;
                let host = generate(&mut session, &ids, &options).tokens;
                let same = ahead.iter().zip(&host).take_while(|(a, b)| a == b).count();
                // After one different id everything differs: count up to there.
                alike += same;
                all += (same + 1).min(host.len().max(ahead.len()));
            }
            println!("{name} {sampling:?}: {alike} of {all}");
            let lost = if sampling.is_greedy() { 0 } else { 2 };
            assert!(all - alike <= lost, "{name} {sampling:?}: {alike} of {all}");
        }
        assert!(session.has_template() || name != "nothing");
    }
}

/// After any end the next turn is as in a fresh session.
#[test]
fn every_stop_and_then_a_second_turn() {
    for device in [cpu_device(), gpu_device()] {
        let model = load(device, "gemma3");
        let prompt: Vec<u32> = (0..40).map(|i| 5 + i * 11 % 490).collect();
        let second: Vec<u32> = prompt.iter().copied().chain([9, 8, 7]).collect();
        let plain = options(Sampling::greedy(), 12);
        let fresh = generate(&mut session(&model, 256), &second, &plain).tokens;
        let free = generate(&mut session(&model, 256), &prompt, &plain);
        assert_eq!(free.stop, Stop::Length);
        assert_eq!(free.tokens.len(), 12);
        assert_eq!(free.prompt_tokens, 40);

        for run_ahead in [true, false] {
            let mut session = session(&model, 256);
            let plain = GenerateOptions { run_ahead, ..plain.clone() };
            assert_eq!(generate(&mut session, &prompt, &plain).tokens, free.tokens);
            let again = generate(&mut session, &second, &plain);
            assert_eq!(again.tokens, fresh, "after length");
            assert!(again.prompt_tokens < 10, "the prefix is kept: {}", again.prompt_tokens);

            // A stop string in the middle of the text.
            let text = &free.text;
            let middle = text.char_indices().nth(text.chars().count() / 2).unwrap().0;
            let stop = text[middle..].chars().take(2).collect::<String>();
            let stopping =
                GenerateOptions { stop: vec!["never".into(), stop.clone()], ..plain.clone() };
            let stopped = generate(&mut session, &prompt, &stopping);
            assert_eq!(stopped.stop, Stop::StopString);
            assert_eq!(stopped.text, text[..text.find(&stop).unwrap()]);
            assert_eq!(
                generate(&mut session, &second, &plain).tokens,
                fresh,
                "after a stop string"
            );

            // Cancelled after some text.
            let cancel = AtomicBool::new(false);
            let pieces = AtomicUsize::new(0);
            session.push_ids(prompt.clone());
            let cancelled = session
                .generate(&plain, &cancel, &mut |_| {
                    if pieces.fetch_add(1, Ordering::Relaxed) == 2 {
                        cancel.store(true, Ordering::Relaxed);
                    }
                })
                .unwrap();
            assert_eq!(cancelled.stop, Stop::Cancelled);
            assert!(free.text.starts_with(&cancelled.text) && cancelled.tokens.len() < 12);
            assert_eq!(generate(&mut session, &second, &plain).tokens, fresh, "after a cancel");

            // Cancelled before it began.
            session.push_ids(vec![4; 50]);
            let none = session.generate(&plain, &AtomicBool::new(true), &mut |_| ()).unwrap();
            assert_eq!((none.stop, none.tokens.len()), (Stop::Cancelled, 0));
            assert_eq!(generate(&mut session, &second, &plain).tokens, fresh, "after nothing");

            // No tokens wanted.
            let zero = generate(
                &mut session,
                &prompt,
                &GenerateOptions { max_tokens: Some(0), ..plain.clone() },
            );
            assert_eq!((zero.stop, zero.tokens.len()), (Stop::Length, 0));
        }

        // The context's end.
        for run_ahead in [true, false] {
            let mut session = session(&model, 64);
            let unlimited = GenerateOptions { max_tokens: None, run_ahead, ..plain.clone() };
            let full = generate(&mut session, &prompt, &unlimited);
            if full.stop == Stop::ContextFull {
                // Every position is used, and one more id was chosen from the last.
                assert_eq!(full.tokens.len(), 64 - 40 + 1);
            } else {
                assert_eq!(full.stop, Stop::End);
            }
            let full_again = generate(&mut session, &prompt, &unlimited);
            assert_eq!(full_again.tokens, full.tokens);
            session.push_ids(vec![5; 64]);
            let error = session.generate(&plain, &AtomicBool::new(false), &mut |_| ()).unwrap_err();
            assert!(matches!(error.advice(), Some(Advice::LargerContext { .. })), "{error}");
            session.push_ids(vec![]);
            let error = session.generate(&plain, &AtomicBool::new(false), &mut |_| ()).unwrap_err();
            assert!(error.to_string().contains("no tokens"), "{error}");
        }
    }
}

/// An end-of-generation id ends the answer and is among the tokens.
#[test]
fn the_end_token_ends_the_answer() {
    for device in [cpu_device(), gpu_device()] {
        let model = load(device, "llama");
        let mut session = session(&model, 512);
        let mut ended = 0;
        for seed in 0..40 {
            let hot = Sampling {
                temperature: 3.0,
                top_k: 256,
                top_p: 1.0,
                min_p: 0.0,
                seed,
                ..Sampling::default()
            };
            let generation = generate(&mut session, &[1, 20 + seed as u32], &options(hot, 60));
            if generation.stop == Stop::End {
                ended += 1;
                let end = *generation.tokens.last().unwrap();
                assert!(session.tokenizer().is_end(end));
                assert!(
                    generation.tokens[..generation.tokens.len() - 1]
                        .iter()
                        .all(|&id| !session.tokenizer().is_end(id))
                );
            }
        }
        println!("{ended} of 40 ended");
        assert!(ended > 0);
    }
}

/// Sessions of a scheduler share nothing but what begins alike: in turns each answers as it does alone, however many there are.
#[test]
fn sessions_of_a_scheduler_do_not_mix() {
    let model = load(cpu_device(), "llama");
    let options = |max_tokens| options(Sampling::greedy(), max_tokens);
    let alone = |ids: &[u32]| generate(&mut session(&model, 64), ids, &options(8)).tokens;
    let shared = ContextOptions { positions: Some(64), sequences: 2, ..ContextOptions::default() };
    let scheduler = Scheduler::start(&model, &shared).unwrap();
    let mut sessions: Vec<_> = (0..3).map(|_| Session::new(&scheduler).unwrap()).collect();
    let texts: [&[u32]; 3] = [&[1, 5, 9, 30], &[1, 8, 8, 2, 40], &[1, 60, 61]];
    let start = generate(&mut sessions[0], texts[0], &options(2)).tokens;
    for (session, text) in sessions.iter_mut().zip(texts).rev() {
        assert_eq!(generate(session, text, &options(8)).tokens, alone(text));
    }
    assert_eq!(alone(texts[0])[..start.len()], start);
}

/// A handle's drop gives its sequence's place back.
#[test]
fn a_dropped_sequence_gives_its_place_back() {
    let model = load(cpu_device(), "llama");
    let options = ContextOptions { positions: Some(64), sequences: 2, ..ContextOptions::default() };
    let mut context = model.context(&options).unwrap();
    let (first, second) = (context.sequence().unwrap(), context.sequence().unwrap());
    assert!(matches!(context.sequence(), Err(engine::Error::NoSeat)));
    let free = context.free_blocks();
    context.step(&StepToken::run(first.id(), 0, &[1, 2], false)).unwrap();
    assert_eq!(context.free_blocks(), free - 1);
    drop(first);
    let third = context.sequence().unwrap();
    assert_eq!((context.length(third.id()), context.free_blocks()), (0, free));
    assert!(context.sequence().is_err());
    drop((second, third));
}

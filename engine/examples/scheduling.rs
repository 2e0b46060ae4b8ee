//! What the scheduler makes of requests that come together: how long a second prompt takes that begins as the first, and how long
//! an answer waits while a long prompt comes in.
//!
//! `cargo run --release --example scheduling -- model.gguf [device]`

use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use engine::{
    ContextOptions, Device, DeviceOptions, Goal, Listener, LoadOptions, Model, Request, Sampling,
    Scheduler, Stop, Ticket,
};

/// Sends when each id came, and what of the prompt was computed and what was held.
struct Clock(Sender<Event>);

enum Event {
    Prompt { computed: usize, held: usize },
    Id(Instant),
}

impl Listener for Clock {
    fn prompt_computed(&mut self, computed: usize, held: usize) {
        let _ = self.0.send(Event::Prompt { computed, held });
    }

    fn row(&mut self, _row: &[f32]) {}

    fn take(&mut self, _id: u32) -> Option<Stop> {
        let _ = self.0.send(Event::Id(Instant::now()));
        None
    }

    fn finish(&mut self, outcome: engine::Result<Stop>) {
        if let Err(error) = outcome {
            eprintln!("{error}");
        }
    }
}

fn submit(
    scheduler: &Scheduler,
    prompt: Vec<u32>,
    most: usize,
) -> engine::Result<(Ticket, Receiver<Event>)> {
    let (sender, events) = mpsc::channel();
    let goal = Goal::Generate {
        sampling: Sampling::greedy(),
        stream: 0,
        max_tokens: Some(most),
        run_ahead: true,
    };
    Ok((scheduler.submit(Request { prompt, goal }, Box::new(Clock(sender)))?, events))
}

/// Ids that mean nothing: `count` of them, others for each `number`.
fn ids(number: usize, count: usize, vocabulary: usize) -> impl Iterator<Item = u32> {
    (0..count).map(move |i| ((i * 7919 + number * 104_729 + 5) % vocabulary) as u32)
}

/// When the ids of an answer came, its end waited for.
fn times(events: &Receiver<Event>) -> Vec<Instant> {
    let at = |event| match event {
        Event::Id(at) => Some(at),
        Event::Prompt { computed, held } => {
            println!("  {computed} tokens of the prompt computed, {held} held");
            None
        }
    };
    events.iter().filter_map(at).collect()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("which model? give a .gguf file")?;
    let device = Device::open(&DeviceOptions { name: arguments.next(), ..Default::default() })?;
    println!("{path} on {}", device.name());
    let context = ContextOptions {
        positions: Some(4608),
        pool: Some(9216),
        sequences: 2,
        ..ContextOptions::default()
    };
    let model = Model::load(&[device], &path, &LoadOptions::from(context.clone()))?;
    let vocabulary = model.file().spec.vocabulary;
    let scheduler = Scheduler::start(&model, &context)?;
    times(&submit(&scheduler, ids(9, 600, vocabulary).collect(), 4)?.1);

    println!("two prompts, of which the first 1,000 tokens are the same:");
    for end in [1, 2] {
        let prompt = ids(0, 1000, vocabulary).chain(ids(end, 8, vocabulary)).collect();
        let start = Instant::now();
        let (_ticket, events) = submit(&scheduler, prompt, 1)?;
        let first = times(&events).into_iter().next().ok_or("no id came")?;
        println!("  first id after {:.3} s", first.duration_since(start).as_secs_f64());
    }

    println!("an answer, beside which a prompt of 4,000 tokens comes in:");
    let (answer, answered) = submit(&scheduler, ids(3, 16, vocabulary).collect(), 400)?;
    let mut came = Vec::new();
    while came.len() < 32 {
        if let Event::Id(at) = answered.recv()? {
            came.push(at);
        }
    }
    let start = Instant::now();
    let (_prompt, read) = submit(&scheduler, ids(4, 4000, vocabulary).collect(), 1)?;
    let end = times(&read).into_iter().next().ok_or("no id came")?;
    drop(answer);
    came.extend(times(&answered));
    let waits = |from: Instant, to: Instant| -> Vec<Duration> {
        let mut waits: Vec<_> = came
            .windows(2)
            .filter(|pair| pair[1] > from && pair[0] < to)
            .map(|pair| pair[1] - pair[0])
            .collect();
        waits.sort();
        waits
    };
    let (alone, beside) = (waits(came[0], start), waits(start, end));
    println!(
        "  alone a token each {:.1} ms (median); beside it {} tokens, the longest wait {:.1} ms, the median {:.1}",
        alone[alone.len() / 2].as_secs_f64() * 1e3,
        beside.len(),
        beside.last().map_or(0.0, Duration::as_secs_f64) * 1e3,
        beside[beside.len() / 2].as_secs_f64() * 1e3,
    );
    println!(
        "  the prompt's first id after {:.2} s, in chunks of {} tokens",
        end.duration_since(start).as_secs_f64(),
        context.chunk
    );
    Ok(())
}

//! `engine bench -npl`: several requests at once through the scheduler, as llama-batched-bench measures them.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use engine::{
    ContextOptions, Goal, Listener, LoadOptions, Model, Request, Sampling, Scheduler, Stop, Ticket,
};
use serde_json::{Value, json};

use super::Subject;
use super::measure::{Setting, made_up_ids};
use crate::{models, output};

/// What is measured of each model.
pub struct Tests {
    /// Numbers of requests at once.
    pub parallel: Vec<usize>,
    /// Tokens of each prompt.
    pub prompts: Vec<usize>,
    /// Tokens of each answer.
    pub answers: Vec<usize>,
    /// Repetitions, of which the fastest counts.
    pub repetitions: usize,
    /// Whether JSON is printed.
    pub json: bool,
}

/// One line of the table.
struct Line {
    prompt: usize,
    answer: usize,
    parallel: usize,
    /// Until every prompt was computed.
    prompt_time: Duration,
    /// From there to the end.
    answer_time: Duration,
    /// Ids that came after every prompt was computed.
    late_ids: usize,
}

/// Measures and prints.
pub fn run(subjects: &[Subject], settings: &[Setting], tests: &Tests) -> Result<ExitCode> {
    let mut all = Vec::new();
    for subject in subjects {
        for setting in settings {
            let lines = measure_all(subject, setting, tests)?;
            let device = setting.device.name();
            all.extend(lines.iter().map(|line| line.json(&subject.path, &device)));
        }
    }
    if tests.json {
        output::print_json(&json!({ "results": all }))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// All lines of a model on a device, printed as they come. It is loaded for the largest of them.
fn measure_all(subject: &Subject, setting: &Setting, tests: &Tests) -> Result<Vec<Line>> {
    let mut cases = Vec::new();
    for &prompt in &tests.prompts {
        for &answer in &tests.answers {
            cases.extend(tests.parallel.iter().map(|&parallel| ((prompt, answer), parallel)));
        }
    }
    let tokens = |((prompt, answer), parallel): (Lengths, usize)| (prompt + answer) * parallel;
    let Some(&(lengths, parallel)) = cases.iter().max_by_key(|&&case| tokens(case)) else {
        bail!("there is nothing to measure: a prompt and an answer of one token at least");
    };
    let load = LoadOptions {
        precision: setting.precision,
        map: setting.map,
        ..LoadOptions::from(options(setting, lengths, parallel))
    };
    let model = models::load_file(&setting.device, subject.file.clone(), &load)?;
    if !tests.json {
        let device = setting.device.name();
        output::print_text(&format!("{} on {device}\n\n{HEAD}\n", subject.path))?;
    }
    let mut lines = Vec::new();
    for (lengths, parallel) in cases {
        let options = options(setting, lengths, parallel);
        let mut best: Option<Line> = None;
        for _ in 0..tests.repetitions {
            let line = measure(&model, &options, lengths, parallel)?;
            if best.as_ref().is_none_or(|best| line.time() < best.time()) {
                best = Some(line);
            }
        }
        let Some(line) = best else { continue };
        if !tests.json {
            output::print_text(&line.text())?;
        }
        lines.push(line);
    }
    Ok(lines)
}

/// Tokens of a prompt and of an answer.
type Lengths = (usize, usize);

const HEAD: &str = "|    PP |    TG |    B |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |      T s |    S t/s |\n|-------|-------|------|--------|----------|----------|----------|----------|----------|----------|";

/// The context of so many requests.
fn options(setting: &Setting, (prompt, answer): Lengths, parallel: usize) -> ContextOptions {
    let positions = prompt + answer;
    ContextOptions {
        positions: Some(positions),
        pool: Some(positions * parallel),
        sequences: parallel,
        chunk: setting.batch.min(setting.ubatch),
        outputs: Some(parallel),
        key_type: setting.key_type,
        value_type: setting.value_type,
    }
}

/// Counts what comes of a request, and ends it never.
struct Counter(Sender<Event>);

enum Event {
    Id(Instant),
    End(engine::Result<Stop>),
}

impl Listener for Counter {
    fn prompt_computed(&mut self, _computed: usize, _cached: usize) {}

    fn row(&mut self, _row: &[f32]) {}

    fn take(&mut self, _id: u32) -> Option<Stop> {
        // Whoever measures waits for the end.
        let _ = self.0.send(Event::Id(Instant::now()));
        None
    }

    fn finish(&mut self, outcome: engine::Result<Stop>) {
        let _ = self.0.send(Event::End(outcome));
    }
}

/// One run of so many requests at once, whose prompts have nothing in common.
fn measure(
    model: &Arc<Model>,
    options: &ContextOptions,
    (prompt, answer): Lengths,
    parallel: usize,
) -> Result<Line> {
    let scheduler = Scheduler::start(model, options)?;
    let vocabulary = model.file().spec.vocabulary;
    // The first steps of a context make its kernels ready.
    let warm_up = (0..parallel).map(|number| {
        submit(&scheduler, made_up_ids(number..number + prompt.min(16), vocabulary), answer.min(3))
    });
    for (_ticket, events) in warm_up.collect::<Result<Vec<_>>>()? {
        ended(&events)?;
    }
    let start = Instant::now();
    let requests = (0..parallel)
        .map(|number| {
            let ids = made_up_ids(number * prompt..(number + 1) * prompt, vocabulary);
            submit(&scheduler, ids, answer)
        })
        .collect::<Result<Vec<_>>>()?;
    let mut firsts = Vec::new();
    let mut times = Vec::new();
    for (_ticket, events) in &requests {
        let of_one = ended(events)?;
        firsts.extend(of_one.first().copied());
        times.extend(of_one);
    }
    let last_first = firsts.into_iter().max().ok_or_else(|| anyhow!("no id came"))?;
    let end = times.iter().copied().max().unwrap_or(last_first);
    Ok(Line {
        prompt,
        answer,
        parallel,
        prompt_time: last_first - start,
        answer_time: end - last_first,
        late_ids: times.iter().filter(|&&time| time > last_first).count(),
    })
}

/// Asks for an answer of so many tokens.
fn submit(
    scheduler: &Scheduler,
    prompt: Vec<u32>,
    most: usize,
) -> Result<(Ticket, mpsc::Receiver<Event>)> {
    let (sender, events) = mpsc::channel();
    let goal = Goal::Generate {
        sampling: Sampling::greedy(),
        stream: 0,
        max_tokens: Some(most),
        run_ahead: true,
    };
    let ticket = scheduler.submit(Request { prompt, goal }, Box::new(Counter(sender)))?;
    Ok((ticket, events))
}

/// When each id of a request came.
fn ended(events: &mpsc::Receiver<Event>) -> Result<Vec<Instant>> {
    let mut times = Vec::new();
    loop {
        match events.recv()? {
            Event::Id(at) => times.push(at),
            Event::End(outcome) => {
                outcome?;
                return Ok(times);
            }
        }
    }
}

impl Line {
    fn time(&self) -> Duration {
        self.prompt_time + self.answer_time
    }

    /// Tokens a second of prompts, of answers, and of both.
    fn speeds(&self) -> [f64; 3] {
        let per = |tokens: usize, time: Duration| match time {
            Duration::ZERO => 0.0,
            time => tokens as f64 / time.as_secs_f64(),
        };
        let all = (self.prompt + self.answer) * self.parallel;
        [
            per(self.prompt * self.parallel, self.prompt_time),
            per(self.late_ids, self.answer_time),
            per(all, self.time()),
        ]
    }

    fn text(&self) -> String {
        let [prompts, answers, all] = self.speeds();
        format!(
            "| {:5} | {:5} | {:4} | {:6} | {:8.3} | {prompts:8.2} | {:8.3} | {answers:8.2} | {:8.3} | {all:8.2} |\n",
            self.prompt,
            self.answer,
            self.parallel,
            (self.prompt + self.answer) * self.parallel,
            self.prompt_time.as_secs_f64(),
            self.answer_time.as_secs_f64(),
            self.time().as_secs_f64(),
        )
    }

    fn json(&self, model: &str, device: &str) -> Value {
        let [prompts, answers, all] = self.speeds();
        json!({
            "model": model,
            "device": device,
            "pp": self.prompt,
            "tg": self.answer,
            "pl": self.parallel,
            "n_kv": (self.prompt + self.answer) * self.parallel,
            "t_pp": self.prompt_time.as_secs_f64(),
            "speed_pp": prompts,
            "t_tg": self.answer_time.as_secs_f64(),
            "speed_tg": answers,
            "t": self.time().as_secs_f64(),
            "speed": all,
        })
    }
}

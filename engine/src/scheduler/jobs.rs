//! Requests in the scheduler: those that wait, those that run, and what of them a step computes.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Flags, Goal, Listener, Request};
use crate::answer::Stop;
use crate::context::Choice;
use crate::executor::all_finite;
use crate::kv::BLOCK;
use crate::select::Sampling;
use crate::sequence::Sequence;
use crate::step::{Input, SequenceId, StepToken};
use crate::{Error, Result};

/// A request with what became of it so far.
pub(super) struct Job {
    /// Tells it from all others.
    pub number: u64,
    goal: Goal,
    /// The prompt and the answer so far.
    pub ids: Vec<u32>,
    prompt_tokens: usize,
    /// Rows that were handed over.
    rows: usize,
    /// Whether its listener knows that the prompt was computed.
    prompt_told: bool,
    /// Tokens that were held when it was first admitted.
    cached: Option<usize>,
    /// Whether it waits for one that computes what it begins with.
    pub waits_to_share: bool,
    listener: Box<dyn Listener>,
    flags: Arc<Flags>,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { goal, ids, prompt_tokens, .. } = self;
        f.debug_struct("Job")
            .field("goal", goal)
            .field("tokens", &ids.len())
            .field("prompt_tokens", prompt_tokens)
            .finish_non_exhaustive()
    }
}

impl Job {
    /// A request that nobody has begun.
    pub fn new(request: Request, listener: Box<dyn Listener>, flags: Arc<Flags>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            goal: request.goal,
            prompt_tokens: request.prompt.len(),
            ids: request.prompt,
            rows: 0,
            prompt_told: false,
            cached: None,
            waits_to_share: false,
            listener,
            flags,
        }
    }

    /// Whether whoever asked wants no more of it.
    pub fn is_cancelled(&self) -> bool {
        self.flags.cancelled.load(Ordering::Relaxed)
    }

    /// Tells the listener of the end.
    pub fn finish(mut self, outcome: Result<Stop>) {
        self.flags.finished.store(true, Ordering::Relaxed);
        self.listener.finish(outcome);
    }

    /// Blocks for what is known of it, and one more where it may have so many positions.
    pub fn blocks(&self, positions: usize) -> usize {
        (self.ids.len() + BLOCK).min(positions.max(self.ids.len())).div_ceil(BLOCK)
    }

    /// Ids chosen so far.
    fn chosen(&self) -> usize {
        self.ids.len() - self.prompt_tokens
    }

    /// What of it may be held already, and one token more: rows are computed anew.
    pub fn may_be_held(&self) -> &[u32] {
        match self.goal {
            Goal::Rows { from, .. } => &self.ids[..=from + self.rows],
            Goal::Generate { .. } => &self.ids,
        }
    }

    /// Whether a row is wanted for the token at a position.
    fn wants_row(&self, position: usize) -> bool {
        // (After it was held up, not those again that were handed over.)
        matches!(self.goal, Goal::Rows { from, to } if (from + self.rows..to).contains(&position))
    }
}

/// A request that has a sequence.
#[derive(Debug)]
pub(super) struct Running {
    pub job: Job,
    pub sequence: Sequence,
    /// Tokens whose computation has begun.
    computed: usize,
    /// Choices in the air.
    in_air: usize,
    /// Whether the device knows its ids so far.
    told: bool,
    /// Whether a copy of it is to be kept before its prompt's last token.
    pub wants_copy: bool,
    /// The step that it last had part in.
    last_step: u64,
}

/// One step: tokens, and for whom ids are chosen.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub tokens: Vec<StepToken>,
    /// Numbers of requests, and the tokens that they choose behind: on the device.
    chosen: Vec<(u64, usize)>,
    /// The same for each row of logits that the host reads, in order.
    rows: Vec<(u64, usize)>,
    /// How many tokens each request has in it.
    parts: Vec<(u64, usize)>,
}

impl Batch {
    /// Whether the host reads nothing but ids of it.
    pub fn can_fly(&self) -> bool {
        self.rows.is_empty() && !self.chosen.is_empty()
    }
}

/// What of the context a step is made by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// Tokens of a step, and rows.
    pub step: (usize, usize),
    /// Positions of a sequence.
    pub positions: usize,
    /// Whether a prompt is one step.
    pub is_whole: bool,
    /// Whether copies are kept at the ends of prompts.
    pub keeps_copies: bool,
}

/// All requests.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    /// Those that have no sequence, the first first.
    pub waiting: VecDeque<Job>,
    /// Those that have, the oldest first.
    pub running: Vec<Running>,
    /// Those that ended, whose sequences are to be handed back.
    pub ended: Vec<(Sequence, Vec<u32>)>,
    steps: u64,
}

impl Running {
    /// Ids that are known or on their way.
    fn expected(&self) -> usize {
        self.job.ids.len() + self.in_air
    }

    /// Whether what is known of it, and on its way, is all that it may have.
    fn is_complete(&self) -> bool {
        let Goal::Generate { max_tokens, .. } = &self.job.goal else { return true };
        max_tokens.is_some_and(|most| self.job.chosen() + self.in_air >= most)
    }

    /// Tokens that can be begun now.
    fn ready(&self, positions: usize) -> usize {
        // The last id of all is not computed.
        let end = if self.is_complete() && self.expected() > self.job.prompt_tokens {
            self.expected() - 1
        } else {
            self.expected()
        };
        end.min(positions).saturating_sub(self.computed)
    }

    /// Whether it is at its prompt, or at what it had before it was held up.
    pub fn reads(&self) -> bool {
        self.computed + 1 < self.job.ids.len()
    }

    /// Whether no id is wanted behind its prompt, and that is computed.
    fn ends_without_answer(&self) -> bool {
        matches!(self.job.goal, Goal::Generate { max_tokens: Some(0), .. })
            && self.computed >= self.job.prompt_tokens
    }

    /// Whether any id was chosen for it.
    pub fn has_answered(&self) -> bool {
        self.job.chosen() > 0
    }

    /// Blocks that it will take for what is known of it, and one more.
    pub fn outstanding(&self, positions: usize) -> usize {
        self.job.blocks(positions) - self.computed.div_ceil(BLOCK)
    }

    /// The ids whose keys and values the context holds, or will when what was begun is done.
    pub fn held(&self) -> &[u32] {
        &self.job.ids[..self.computed.min(self.job.ids.len())]
    }

    /// How ids are chosen on the device.
    pub fn sampling(&self) -> Option<(&Sampling, u32)> {
        match &self.job.goal {
            Goal::Generate { sampling, stream, .. } => Some((sampling, *stream)),
            Goal::Rows { .. } => None,
        }
    }

    /// Whether the device may choose its ids.
    fn may_fly(&self) -> bool {
        matches!(self.job.goal, Goal::Generate { run_ahead: true, .. })
    }

    /// Tells the listener, once, that the prompt was computed.
    fn tell_prompt(&mut self) {
        if !self.job.prompt_told {
            self.job.prompt_told = true;
            let cached = self.job.cached.unwrap_or(0).min(self.job.prompt_tokens);
            self.job.listener.prompt_computed(self.job.prompt_tokens - cached, cached);
        }
    }
}

impl Jobs {
    /// Whether nothing waits or runs.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Takes a request into those that run, with `cached` of its tokens in the sequence.
    /// `can_copy` says whether a copy of it could be kept.
    pub fn admit(&mut self, mut job: Job, sequence: Sequence, cached: usize, can_copy: bool) {
        job.cached.get_or_insert(cached);
        // What was found needs no copy, nor does what is computed again, or for rows.
        let is_new = cached + 1 < job.prompt_tokens && job.chosen() == 0;
        let wants_copy = can_copy && is_new && matches!(job.goal, Goal::Generate { .. });
        self.running.push(Running {
            job,
            sequence,
            computed: cached,
            in_air: 0,
            told: false,
            wants_copy,
            last_step: 0,
        });
    }

    /// Whether a running request is computing what this one begins with, so that it had better wait.
    pub fn is_shared_soon(&self, job: &Job, room: &Room) -> bool {
        // What forgets is shared by copies, what is one step not at all.
        if room.keeps_copies || room.is_whole {
            return false;
        }
        let ids = job.may_be_held();
        let ids = &ids[..ids.len() - 1];
        self.running.iter().filter(|running| running.reads()).any(|running| {
            let common = ids.iter().zip(&running.job.ids).take_while(|(a, b)| a == b).count();
            common / BLOCK > running.computed / BLOCK
        })
    }

    /// Whether one that waits to share could be admitted now, or one that runs is at its end without an answer.
    pub fn has_news(&self, room: &Room) -> bool {
        let mut waits = self.waiting.iter().filter(|job| job.waits_to_share);
        waits.any(|job| !self.is_shared_soon(job, room))
            || self.running.iter().any(Running::ends_without_answer)
    }

    /// Takes the sequence of the youngest that runs, and has it wait before all others. None if it is alone.
    pub fn hold_up_youngest(&mut self) -> Option<(Sequence, Vec<u32>)> {
        if self.running.len() < 2 {
            return None;
        }
        let running = self.running.pop()?;
        let ids = running.held().to_vec();
        self.waiting.push_front(running.job);
        Some((running.sequence, ids))
    }

    /// Ends the request at a place of those that run.
    pub fn end(&mut self, index: usize, outcome: Result<Stop>) {
        let running = self.running.remove(index);
        // What computed something wrong is not kept.
        let held = if outcome.is_ok() { running.held().to_vec() } else { Vec::new() };
        running.job.finish(outcome);
        self.ended.push((running.sequence, held));
    }

    /// Whether any that runs or waits was cancelled.
    pub fn has_cancelled(&self) -> bool {
        self.running.iter().any(|running| running.job.is_cancelled())
            || self.waiting.iter().any(Job::is_cancelled)
    }

    /// Ends those that were cancelled.
    pub fn end_cancelled(&mut self) {
        while let Some(index) = self.running.iter().position(|r| r.job.is_cancelled()) {
            self.end(index, Ok(Stop::Cancelled));
        }
        for job in std::mem::take(&mut self.waiting) {
            if job.is_cancelled() {
                job.finish(Ok(Stop::Cancelled));
            } else {
                self.waiting.push_back(job);
            }
        }
    }

    /// The next step: a token of each that is at its answer, then pieces of prompts. `on_device` says which samplings the
    /// device chooses by; without it all rows come to the host.
    pub fn plan(&self, room: &Room, on_device: &dyn Fn(&Sampling) -> bool) -> Batch {
        let mut batch = Batch::default();
        let mut answers: Vec<_> = self.running.iter().filter(|running| !running.reads()).collect();
        // Where a step has not room for all of them, they take turns.
        answers.sort_by_key(|running| running.last_step);
        let prompts = self.running.iter().filter(|running| running.reads());
        for running in answers.into_iter().chain(prompts) {
            batch.add(running, room, on_device);
        }
        batch
    }

    /// Notes that a step was begun.
    pub fn depart(&mut self, batch: &Batch) {
        self.steps += 1;
        let step = self.steps;
        for &(number, tokens) in &batch.parts {
            if let Some(running) = self.find(number) {
                running.computed += tokens;
                running.last_step = step;
            }
        }
        for &(number, _) in &batch.chosen {
            if let Some(running) = self.find(number) {
                running.in_air += 1;
                running.told = true;
            }
        }
    }

    fn find(&mut self, number: u64) -> Option<&mut Running> {
        self.running.iter_mut().find(|running| running.job.number == number)
    }

    /// What is chosen on the device behind a step.
    pub fn choices<'a>(&'a self, batch: &Batch) -> Vec<Choice<'a>> {
        let of = |&(number, token): &(u64, usize)| {
            let running = self.running.iter().find(|running| running.job.number == number)?;
            let (sampling, stream) = running.sampling()?;
            let recent = (!running.told).then_some(running.job.ids.as_slice());
            Some(Choice { token, sampling, stream, recent })
        };
        batch.chosen.iter().filter_map(of).collect()
    }

    /// Hands on the ids that came of a step. Those who ended meanwhile are passed over.
    pub fn arrive(&mut self, batch: &Batch, ids: &[Option<u32>], room: &Room, device: &str) {
        for (&(number, token), &id) in batch.chosen.iter().zip(ids) {
            let Some(index) = self.running.iter().position(|running| running.job.number == number)
            else {
                continue;
            };
            self.running[index].in_air -= 1;
            let position = batch.tokens[token].position;
            if let Some(id) = id {
                self.take(index, id, room);
            } else {
                let device = device.to_string();
                self.end(index, Err(Error::NotFinite { device, position }));
            }
        }
    }

    /// Hands on a row of logits, the one of so many among those that the host reads.
    pub fn take_row(
        &mut self,
        batch: &Batch,
        row: usize,
        logits: &[f32],
        room: &Room,
        device: &str,
    ) {
        let Some(&(number, token)) = batch.rows.get(row) else { return };
        let Some(index) = self.running.iter().position(|running| running.job.number == number)
        else {
            return;
        };
        let running = &mut self.running[index];
        if !all_finite(logits) {
            let (device, position) = (device.to_string(), batch.tokens[token].position);
            return self.end(index, Err(Error::NotFinite { device, position }));
        }
        match &running.job.goal {
            Goal::Rows { from, to } => {
                let last = to.min(&running.job.prompt_tokens).saturating_sub(*from);
                running.job.listener.row(logits);
                running.job.rows += 1;
                if running.job.rows == last {
                    running.tell_prompt();
                    self.end(index, Ok(Stop::Length));
                }
            }
            Goal::Generate { sampling, stream, .. } => {
                let next = running.job.ids.len() as u32;
                let id = sampling.choose(logits, &running.job.ids, *stream, next);
                self.take(index, id, room);
            }
        }
    }

    /// An id for one that runs.
    fn take(&mut self, index: usize, id: u32, room: &Room) {
        let running = &mut self.running[index];
        running.tell_prompt();
        let position = running.job.ids.len();
        running.job.ids.push(id);
        let stop = running.job.listener.take(id);
        let is_complete = running.is_complete() && running.in_air == 0;
        let is_full = position >= room.positions;
        let stop =
            stop.or(is_complete.then_some(Stop::Length)).or(is_full.then_some(Stop::ContextFull));
        if let Some(stop) = stop {
            self.end(index, Ok(stop));
        }
    }

    /// Ends those of which nothing more is wanted though no id came: no token of an answer was asked for.
    pub fn end_without_answer(&mut self) {
        while let Some(index) = self.running.iter().position(Running::ends_without_answer) {
            self.running[index].tell_prompt();
            self.end(index, Ok(Stop::Length));
        }
    }

    /// Numbers and ids of the sequences that run.
    pub fn sequences(&self) -> Vec<(SequenceId, &[u32])> {
        self.running.iter().map(|running| (running.sequence.id(), running.held())).collect()
    }
}

impl Batch {
    /// Adds what of a request the step has room for.
    fn add(&mut self, running: &Running, room: &Room, on_device: &dyn Fn(&Sampling) -> bool) {
        let mut left = room.step.0 - self.tokens.len();
        let mut rows_left = room.step.1 - self.chosen.len() - self.rows.len();
        let ready = running.ready(room.positions);
        if running.reads() && running.wants_copy {
            // The copy is made before the last token, which is then computed in any case.
            left = left.min(ready.saturating_sub(1));
        }
        if room.is_whole && ready > left {
            return;
        }
        let first = running.computed;
        let mut tokens = 0;
        for position in first..first + ready.min(left) {
            let known = running.job.ids.get(position);
            let is_last = position + 1 == running.expected();
            let chooses = is_last && running.sampling().is_some() && !running.is_complete();
            let want_logits = chooses || running.job.wants_row(position);
            if want_logits && rows_left == 0 {
                break;
            }
            if want_logits {
                rows_left -= 1;
                let flies = running.sampling().is_some_and(|(sampling, _)| on_device(sampling));
                if chooses && flies && running.may_fly() {
                    self.chosen.push((running.job.number, self.tokens.len()));
                } else {
                    self.rows.push((running.job.number, self.tokens.len()));
                }
            }
            self.tokens.push(StepToken {
                input: known.map_or(Input::Pending, |&id| Input::Id(id)),
                sequence: running.sequence.id(),
                position: position as u32,
                want_logits,
            });
            tokens += 1;
        }
        if tokens > 0 {
            self.parts.push((running.job.number, tokens));
        }
    }
}

//! The turns of the scheduler's loop: what came, who is admitted, one step, what came of it.

use std::sync::Arc;

#[cfg(test)]
use super::jobs::Job;
use super::jobs::{Batch, Jobs, Room};
use super::mailbox::Mailbox;
use crate::answer::Stop;
use crate::kv::BLOCK;
use crate::select::Sampling;
use crate::{Context, Error, Result};

/// A context and all that is asked of it.
#[derive(Debug)]
pub(super) struct Turns {
    context: Context,
    jobs: Jobs,
    room: Room,
    device: String,
    /// Who was not admitted, and how many ran and how many blocks were free then.
    refused: Option<(u64, usize, usize)>,
}

impl Turns {
    /// Over a context; where a prompt `is_whole` it is computed in one step.
    pub fn new(context: Context, is_whole: bool) -> Self {
        let room = Room {
            step: context.step_room(),
            positions: context.positions(),
            is_whole,
            keeps_copies: context.forgets() && !is_whole,
        };
        let device = context.device_name();
        Self { context, jobs: Jobs::default(), room, device, refused: None }
    }

    /// Serves what comes, until the mailbox is closed.
    pub fn run(mut self, mailbox: &Mailbox) {
        while let Some(new) = mailbox.take(self.jobs.is_empty()) {
            self.jobs.waiting.extend(new);
            self.turn(&|| mailbox.is_rung());
        }
        self.jobs.waiting.extend(mailbox.rest());
        self.stop();
    }

    /// Ends all that runs or waits.
    fn stop(&mut self) {
        while !self.jobs.running.is_empty() {
            self.jobs.end(0, Ok(Stop::Cancelled));
        }
        self.jobs.waiting.drain(..).for_each(|job| job.finish(Ok(Stop::Cancelled)));
        self.hand_back();
    }

    /// Takes a request.
    #[cfg(test)]
    pub fn put(&mut self, job: Job) {
        self.jobs.waiting.push_back(job);
    }

    /// Whether nothing waits or runs.
    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Blocks that are free.
    #[cfg(test)]
    pub fn free_blocks(&self) -> usize {
        self.context.free_blocks()
    }

    /// Gives up what was kept.
    #[cfg(test)]
    pub fn forget_kept(&mut self) {
        self.context.forget_kept();
    }

    /// One turn: a step, or as many as follow one another in the air until something changes or `is_rung`.
    pub fn turn(&mut self, is_rung: &dyn Fn() -> bool) {
        self.jobs.end_cancelled();
        self.hand_back();
        self.admit();
        let outcome = self.step(is_rung);
        if let Err(error) = outcome {
            self.fail(error);
        }
        self.jobs.end_without_answer();
        self.hand_back();
    }

    /// Ends all that runs with an error, and gives up what was kept: nobody knows what the device still holds.
    fn fail(&mut self, error: Error) {
        if self.jobs.running.len() == 1 {
            self.jobs.end(0, Err(error));
        } else {
            let error = Arc::new(error);
            while !self.jobs.running.is_empty() {
                self.jobs.end(0, Err(Error::SharedStep(error.clone())));
            }
        }
        self.hand_back();
        self.context.forget_kept();
    }

    /// Gives the sequences of those who ended to the cache.
    fn hand_back(&mut self) {
        for (sequence, ids) in self.jobs.ended.drain(..) {
            // Of what is one step nothing can be shared.
            self.context.keep(sequence, if self.room.is_whole { &[] } else { &ids });
        }
    }

    /// Admits those that wait, the first first, as long as there is a seat and there are blocks for all that is known of those
    /// that run and one block more for each. Who begins as one that is being computed waits for that.
    fn admit(&mut self) {
        let mut index = 0;
        while let Some(job) = self.jobs.waiting.get(index) {
            let shares = self.jobs.is_shared_soon(job, &self.room);
            let state = (job.number, self.jobs.running.len(), self.context.free_blocks());
            self.jobs.waiting[index].waits_to_share = shares;
            if shares {
                index += 1;
                continue;
            }
            if self.refused == Some(state) || !self.admit_one(index) {
                return;
            }
        }
    }

    /// Admits the one at a place of those that wait, if there is room.
    fn admit_one(&mut self, index: usize) -> bool {
        let Some(job) = self.jobs.waiting.remove(index) else { return false };
        self.refused = None;
        let is_alone = self.jobs.running.is_empty();
        let found = if self.room.is_whole {
            self.context.sequence().map(|sequence| (sequence, 0))
        } else {
            self.context.sequence_like(job.may_be_held(), &self.jobs.sequences())
        };
        match found {
            Ok((sequence, cached)) => {
                let positions = self.room.positions;
                let running = self.jobs.running.iter();
                let claimed: usize = running.map(|running| running.outstanding(positions)).sum();
                let needed = claimed + job.blocks(positions) - cached / BLOCK;
                if !is_alone && !self.context.make_blocks(needed) {
                    self.context.keep(sequence, &job.ids[..cached]);
                    let free = self.context.free_blocks();
                    self.refused = Some((job.number, self.jobs.running.len(), free));
                    self.jobs.waiting.insert(index, job);
                    return false;
                }
                let can_copy = self.room.keeps_copies && self.context.can_keep_copy();
                self.jobs.admit(job, sequence, cached, can_copy);
            }
            // All seats are taken.
            Err(Error::NoSeat) if !is_alone => {
                self.jobs.waiting.insert(index, job);
                return false;
            }
            Err(error) => job.finish(Err(error)),
        }
        true
    }

    /// Plans a step that there is room for: who is youngest gives way.
    fn plan(&mut self) -> Result<Batch> {
        loop {
            let context = &self.context;
            let batch = self.jobs.plan(&self.room, &|sampling| context.can_select(sampling));
            let error = match self.context.make_room(&batch.tokens) {
                Ok(()) => return Ok(batch),
                Err(error @ (Error::PoolFull { .. } | Error::NoSeat)) => error,
                Err(error) => return Err(error),
            };
            if let Some((sequence, ids)) = self.jobs.hold_up_youngest() {
                self.context.keep(sequence, &ids);
            } else if self.jobs.running.first().is_some_and(|running| running.has_answered()) {
                // It has the whole pool.
                self.jobs.end(0, Ok(Stop::ContextFull));
            } else {
                self.jobs.end(0, Err(error));
            }
            self.hand_back();
        }
    }

    /// One step, or several of which each is begun before the ids of the last are here.
    fn step(&mut self, is_rung: &dyn Fn() -> bool) -> Result<()> {
        self.keep_copies()?;
        let mut batch = self.plan()?;
        if batch.tokens.is_empty() {
            if !self.jobs.running.is_empty() {
                // Rather an error than a loop without end.
                let why = "a request that runs has nothing to compute".into();
                self.jobs.end(0, Err(Error::Internal(why)));
            }
            return Ok(());
        }
        let (room, device) = (self.room, &self.device);
        if !(batch.can_fly() && self.context.runs_ahead()) {
            let choices = self.jobs.choices(&batch);
            let (ids, rows) = self.context.step_and_choose(&batch.tokens, &choices)?;
            self.jobs.depart(&batch);
            self.jobs.arrive(&batch, &ids, &room, device);
            for (index, row) in rows.chunks_exact(self.context.row_length()).enumerate() {
                self.jobs.take_row(&batch, index, row, &room, device);
            }
            return Ok(());
        }
        // A block more for each, where what was kept holds it: in the air nothing gives way.
        self.context.make_blocks(self.jobs.running.len());
        // These do not change in the air.
        let samplings = self.selectable();
        let mut flight = self.context.begin(&batch.tokens, &self.jobs.choices(&batch))?;
        self.jobs.depart(&batch);
        loop {
            let changes = is_rung()
                || !self.jobs.ended.is_empty()
                || self.jobs.has_cancelled()
                || self.jobs.has_news(&room)
                || self.jobs.running.iter().any(|running| running.wants_copy);
            let next = if changes {
                Batch::default()
            } else {
                self.jobs.plan(&room, &|sampling| samplings.contains(sampling))
            };
            if !(next.can_fly() && flight.has_room(&next.tokens)) {
                let ids = flight.land()?;
                self.jobs.arrive(&batch, &ids, &room, device);
                return Ok(());
            }
            let choices = self.jobs.choices(&next);
            let pair = flight.follow(&next.tokens, &choices)?;
            self.jobs.depart(&next);
            let (ids, left) = pair.land()?;
            self.jobs.arrive(&batch, &ids, &room, device);
            (flight, batch) = (left, next);
        }
    }

    /// The samplings of those that run by which the device can choose.
    fn selectable(&self) -> Vec<Sampling> {
        let all = self.jobs.running.iter().filter_map(|running| running.sampling());
        all.map(|(sampling, _)| sampling)
            .filter(|sampling| self.context.can_select(sampling))
            .cloned()
            .collect()
    }

    /// Keeps copies of prompts that are computed but for their last token.
    fn keep_copies(&mut self) -> Result<()> {
        for running in &mut self.jobs.running {
            if running.wants_copy && !running.reads() {
                running.wants_copy = false;
                self.context.keep_copy(running.sequence.id(), &running.job.ids)?;
            }
        }
        Ok(())
    }
}

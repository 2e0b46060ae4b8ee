//! The loops of a generation: a prompt, then one id after another, until something ends it.

use crate::answer::Stop;
use crate::context::RunAhead;
use crate::select::Sampling;
use crate::step::{SequenceId, StepToken};
use crate::{Context, Result};

/// What is to be generated.
pub(crate) struct Task<'a> {
    pub sequence: SequenceId,
    /// The ids whose keys and values the context holds: a start of the prompt, and then all that was computed.
    pub cached: &'a mut Vec<u32>,
    /// The ids before the answer.
    pub prompt: &'a [u32],
    pub sampling: &'a Sampling,
    /// The most ids.
    pub max_tokens: Option<usize>,
    /// Asked between tokens, and between pieces of a long prompt.
    pub cancelled: &'a dyn Fn() -> bool,
}

/// Who hears of a generation.
pub(crate) trait Listener {
    /// So many of the prompt's ids were computed (those that the context held are not counted).
    fn prompt_computed(&mut self, tokens: usize);

    /// Takes an id; says why the generation ends with it, if it does.
    fn take(&mut self, id: u32) -> Option<Stop>;
}

/// Generates, with ids chosen on the device where `run_ahead` and the device allow it.
pub(crate) fn generate(
    context: &mut Context,
    task: &mut Task,
    run_ahead: bool,
    listener: &mut dyn Listener,
) -> Result<Stop> {
    if run_ahead && context.can_select(task.sampling) {
        ahead(context, task, listener)
    } else {
        on_host(context, task, listener)
    }
}

impl Task<'_> {
    /// Keeps what the context holds of the prompt and answers the steps for the rest. The last token is computed in any case:
    /// its logits are wanted.
    fn prompt_steps(&mut self, context: &mut Context) -> Vec<StepToken> {
        let common = self.cached.iter().zip(self.prompt).take_while(|(a, b)| a == b).count();
        let keep = context.truncate(self.sequence, common.min(self.prompt.len() - 1));
        self.cached.truncate(keep);
        StepToken::run(self.sequence, keep, &self.prompt[keep..], false)
    }

    /// Notes that the first `done` of the prompt's steps were computed.
    fn prompt_computed(&mut self, done: usize, listener: &mut dyn Listener) {
        let keep = self.cached.len();
        self.cached.extend_from_slice(&self.prompt[keep..keep + done]);
        listener.prompt_computed(done);
    }

    /// Whether an answer of so many ids is as long as it may be.
    fn is_long(&self, ids: usize) -> bool {
        self.max_tokens.is_some_and(|most| ids >= most)
    }
}

/// The loop that reads logits and chooses here.
fn on_host(context: &mut Context, task: &mut Task, listener: &mut dyn Listener) -> Result<Stop> {
    let positions = context.positions();
    let steps = task.prompt_steps(context);
    let mut logits = Vec::new();
    let done =
        context.step_with(&steps, &mut |row| copy(&mut logits, row), &mut || (task.cancelled)())?;
    task.prompt_computed(done, listener);
    if task.is_long(0) {
        return Ok(Stop::Length);
    }
    let mut recent = task.prompt.to_vec();
    let mut count = 0;
    while !(task.cancelled)() && done == steps.len() {
        let position = task.cached.len();
        let id = task.sampling.choose(&logits, &recent, task.sequence.0, position as u32);
        recent.push(id);
        count += 1;
        let stop = listener.take(id).or(task.is_long(count).then_some(Stop::Length));
        if let Some(stop) = stop.or((position >= positions).then_some(Stop::ContextFull)) {
            return Ok(stop);
        }
        let step = StepToken::run(task.sequence, position, &[id], true);
        context.step_with(&step, &mut |row| copy(&mut logits, row), &mut || false)?;
        task.cached.push(id);
    }
    Ok(Stop::Cancelled)
}

/// The loop that runs ahead: the device chooses ids and computes the next step before the last id has come here. What was
/// computed beyond the end is undone.
fn ahead(context: &mut Context, task: &mut Task, listener: &mut dyn Listener) -> Result<Stop> {
    let positions = context.positions();
    let steps = task.prompt_steps(context);
    let mut run = RunAhead::new(context, task.sequence, task.sampling, task.prompt);
    let (done, first) = run.start(&steps, &mut || (task.cancelled)())?;
    let Some(mut pending) = first.filter(|_| !task.is_long(0)) else {
        task.prompt_computed(done, listener);
        return Ok(if done == steps.len() { Stop::Length } else { Stop::Cancelled });
    };
    // For the time that the prompt takes; the id is taken below.
    run.wait(&mut pending)?;
    task.prompt_computed(done, listener);
    let mut count = 0;
    while !(task.cancelled)() {
        let position = task.cached.len();
        // One more than the id that is on its way.
        let next = if position < positions && !task.is_long(count + 1) {
            Some(run.next(&pending)?)
        } else {
            None
        };
        let id = run.wait(&mut pending)?;
        count += 1;
        let stop = listener.take(id).or(task.is_long(count).then_some(Stop::Length));
        match (stop, next) {
            (None, Some(next)) => pending = next,
            (stop, _) => {
                context.truncate(task.sequence, position);
                return Ok(stop.unwrap_or(Stop::ContextFull));
            }
        }
        task.cached.push(id);
    }
    // The last step's id was not taken.
    Ok(Stop::Cancelled)
}

/// Makes `logits` a copy of `row` in the same memory.
fn copy(logits: &mut Vec<f32>, row: &[f32]) {
    logits.clear();
    logits.extend_from_slice(row);
}

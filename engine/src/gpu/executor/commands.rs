//! A step's commands: encoded when the step comes, or, where one is like the one before, ahead of it, while the device is
//! still at work. Encoding some 300 dispatches takes the host a good part of what a card takes to compute them.

use std::ops::Range;
use std::sync::Arc;

use super::{GpuExecutor, Recorded};
use crate::gpu::choice::FEW;

/// Dispatches of a prompt that are submitted before the rest is encoded: enough to keep a card busy meanwhile.
const FIRST_PIECE: usize = 32;

/// What is encoded for a step.
pub(super) struct Work {
    /// The plan's dispatches.
    pub recording: Arc<Vec<Recorded>>,
    /// Those that choose ids from the logits, and for how many rows.
    pub choice: Option<(Arc<Vec<Recorded>>, u32)>,
    /// Rows of logits that are copied to where the host reads them, one behind another.
    pub brought: Vec<Range<u32>>,
    /// Tokens of the step.
    pub tokens: u32,
    /// Tokens whose logits are wanted.
    pub outputs: u32,
}

impl Work {
    /// Whether the same commands do for both.
    fn is_like(&self, other: &Self) -> bool {
        let choice = match (&self.choice, &other.choice) {
            (Some((choice, rows)), Some((other, of_other))) => {
                Arc::ptr_eq(choice, other) && rows == of_other
            }
            (None, None) => true,
            _ => false,
        };
        let numbers = (self.tokens, self.outputs) == (other.tokens, other.outputs);
        let brought = self.brought == other.brought;
        numbers && choice && brought && Arc::ptr_eq(&self.recording, &other.recording)
    }
}

/// Commands of a whole step, not yet submitted.
pub(super) struct Encoded {
    work: Work,
    commands: wgpu::CommandBuffer,
    dispatches: usize,
}

/// Commands of some dispatches.
struct Piece {
    commands: wgpu::CommandBuffer,
    /// Where the next piece begins.
    end: usize,
    dispatches: usize,
}

impl GpuExecutor {
    /// Submits a step's dispatches behind `before`, in as many pieces as their work asks for, and before `after`. Answers
    /// the last submission.
    pub(super) fn submit_step(
        &mut self,
        work: Work,
        before: Option<wgpu::CommandBuffer>,
        after: Option<wgpu::CommandBuffer>,
    ) -> wgpu::SubmissionIndex {
        let mut buffers: Vec<_> = before.into_iter().collect();
        let mut first = 0;
        let mut pieces = 0;
        if let Some(ahead) = self.ahead.take().filter(|ahead| ahead.work.is_like(&work)) {
            self.counts.dispatches += ahead.dispatches;
            buffers.push(ahead.commands);
            first = work.recording.len();
            pieces = 1;
        }
        while pieces == 0 || first < work.recording.len() {
            if pieces > 0 {
                self.submit(std::mem::take(&mut buffers));
            }
            // A prompt's first dispatches go ahead: the device begins while the others are encoded.
            let is_prompt = self.gpu.is_card && work.tokens as usize > FEW;
            let most = if pieces == 0 && is_prompt { FIRST_PIECE } else { usize::MAX };
            let piece = self.encode(&work, first, most);
            self.counts.dispatches += piece.dispatches;
            buffers.push(piece.commands);
            first = piece.end;
            pieces += 1;
        }
        buffers.extend(after);
        let submission = self.submit(buffers);
        // A token of each sequence is mostly followed by another. (Of several segments the next comes first.)
        let is_whole = self.blueprint.segments.len() == 1;
        if work.tokens == work.outputs && pieces == 1 && is_whole {
            let Piece { commands, dispatches, .. } = self.encode(&work, 0, usize::MAX);
            self.ahead = Some(Encoded { work, commands, dispatches });
        }
        submission
    }

    /// Encodes a step's dispatches from `first` on, as many as a submission may take, at most `most_dispatches`; behind the
    /// last of all what is done with the logits.
    fn encode(&self, work: &Work, first: usize, most_dispatches: usize) -> Piece {
        let mut encoder = self.encoder();
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        let most = self.submit_work();
        let (mut amount, mut end, mut dispatches) = (0, first, 0);
        for recorded in &work.recording[first..] {
            end += 1;
            dispatches += usize::from(recorded.encode(&mut pass, work.tokens, work.outputs));
            amount += recorded.work * u64::from(work.tokens);
            if amount > most || end - first == most_dispatches {
                break;
            }
        }
        let is_last = end == work.recording.len();
        if let Some((choice, rows)) = work.choice.as_ref().filter(|_| is_last) {
            for recorded in choice.iter() {
                recorded.encode(&mut pass, 1, *rows);
            }
        }
        drop(pass);
        if is_last {
            self.copy_logits(&work.brought, &mut encoder);
        }
        Piece { commands: encoder.finish(), end, dispatches }
    }
}

//! What a caller asks an executor to compute: a list of tokens.

/// A conversation's number in a context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequenceId(pub u32);

/// Where a token's id comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// From the caller.
    Id(u32),
    /// From the device, by [`Flight::follow`](crate::Flight::follow) alone: the id that it chose last for the sequence, and
    /// that the host may not have read yet.
    Pending,
    /// From the caller, not as an id but as what becomes of one: the row of so many among those given with the step (of an
    /// image, for example). It is not scaled as embeddings of ids are.
    Row(u32),
}

/// One token of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepToken {
    /// The token's id.
    pub input: Input,
    /// The sequence that it continues.
    pub sequence: SequenceId,
    /// Its position in the sequence, from 0.
    pub position: u32,
    /// Whether its logits are wanted.
    pub want_logits: bool,
}

impl StepToken {
    /// The tokens `ids` of one sequence from `position` on; logits are wanted of the last, or of `all`.
    pub fn run(sequence: SequenceId, position: usize, ids: &[u32], all: bool) -> Vec<StepToken> {
        ids.iter()
            .enumerate()
            .map(|(index, &id)| StepToken {
                input: Input::Id(id),
                sequence,
                position: (position + index) as u32,
                want_logits: all || index + 1 == ids.len(),
            })
            .collect()
    }
}

//! A sequence of a context that somebody owns: a handle whose drop gives its place back.

use std::sync::{Arc, Mutex, PoisonError};

use crate::step::SequenceId;

/// Sequences whose handles are gone, for their context to free before its next step. Shared, so that a handle may be dropped
/// wherever it is, also while the context is at work.
#[derive(Debug, Clone, Default)]
pub(crate) struct Dropped(Arc<Mutex<Vec<SequenceId>>>);

impl Dropped {
    /// Takes all of them.
    pub fn take(&self) -> Vec<SequenceId> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A sequence of tokens in a context. Dropping it frees its keys, values and place.
#[derive(Debug)]
pub struct Sequence {
    id: SequenceId,
    dropped: Dropped,
    /// Whether its context frees it when it is dropped.
    is_freed: bool,
}

impl Sequence {
    pub(crate) fn new(id: SequenceId, dropped: Dropped) -> Self {
        Self { id, dropped, is_freed: true }
    }

    /// Its number, for the tokens of a step.
    pub fn id(&self) -> SequenceId {
        self.id
    }

    /// Whether it is of the context that frees its sequences by this list.
    pub(crate) fn is_of(&self, dropped: &Dropped) -> bool {
        Arc::ptr_eq(&self.dropped.0, &dropped.0)
    }

    /// The number alone: the context has it back.
    pub(crate) fn into_id(mut self) -> SequenceId {
        self.is_freed = false;
        self.id
    }
}

impl Drop for Sequence {
    fn drop(&mut self) {
        if self.is_freed {
            self.dropped.0.lock().unwrap_or_else(PoisonError::into_inner).push(self.id);
        }
    }
}

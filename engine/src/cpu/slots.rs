//! A slice that several threads write, each its own part.

use std::ops::Range;

/// Disjoint runs of a slice that several threads write.
pub(super) struct Slots<'a, T> {
    start: *mut T,
    length: usize,
    run: usize,
    marker: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: runs are handed out only to the one caller that names them (see `with`).
unsafe impl<T: Send> Sync for Slots<'_, T> {}

impl<'a, T> Slots<'a, T> {
    /// Runs of `run` elements.
    pub fn new(slice: &'a mut [T], run: usize) -> Self {
        Self {
            start: slice.as_mut_ptr(),
            length: slice.len(),
            run,
            marker: std::marker::PhantomData,
        }
    }

    /// Calls `write` with run `index`. No two threads may name the same run at once: the callers share out
    /// rows, or heads of tokens, each of which is one thread's.
    #[inline(always)]
    pub fn with<R>(&self, index: usize, write: impl FnOnce(&mut [T]) -> R) -> R {
        self.with_range(index..index + 1, write)
    }

    /// Calls `write` with neighbouring runs, by the same rule.
    #[inline(always)]
    pub fn with_range<R>(&self, runs: Range<usize>, write: impl FnOnce(&mut [T]) -> R) -> R {
        assert!(runs.start <= runs.end && runs.end * self.run <= self.length);
        // SAFETY: the range is inside the slice, which is borrowed mutably for 'a; by the rule above no
        // other reference to it exists.
        write(unsafe {
            let start = self.start.add(runs.start * self.run);
            std::slice::from_raw_parts_mut(start, runs.len() * self.run)
        })
    }
}

//! A slice that several threads write, each its own part.

/// Disjoint runs of a slice that several threads write.
pub(super) struct Slots<'a, T> {
    start: *mut T,
    length: usize,
    run: usize,
    marker: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: `with` hands out a run only to the one caller that names it (see there).
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
        assert!((index + 1) * self.run <= self.length);
        // SAFETY: the range is inside the slice, which is borrowed mutably for 'a; by the rule above no
        // other reference to it exists.
        write(unsafe { std::slice::from_raw_parts_mut(self.start.add(index * self.run), self.run) })
    }
}

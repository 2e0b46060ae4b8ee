//! Threads that stay: a team shares out an op's items among its threads and waits for those that took part.
//!
//! A thread that another process keeps from running is not waited for, unless it has begun: on a busy machine the
//! others do its share.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Turns of the loop in which a waiting thread looks for work before it sleeps.
const SPINS: usize = 20_000;

/// A closure that threads run, its lifetime erased: [`Team::run`] does not return before every thread that has begun
/// is done with it, and none begins later.
type Job = &'static (dyn Fn(usize) + Sync);

/// In [`Shared::state`]: helpers may begin the job.
const OPEN: u64 = 1 << 31;
/// In [`Shared::state`]: how many have.
const BEGUN: u64 = OPEN - 1;

/// Which job a state is of: it counts them.
fn generation(state: u64) -> u64 {
    state >> 32
}

struct Shared {
    /// The job's number above 32 bits, [`OPEN`], and how many helpers have begun it.
    state: AtomicU64,
    /// Helpers that have begun the job and are done with it.
    done: AtomicUsize,
    stop: AtomicBool,
    panicked: AtomicBool,
    job: Mutex<Option<Job>>,
    wake: Condvar,
}

/// Threads that work together on one op at a time.
pub struct Team {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
}

crate::opaque::opaque_debug!(Team { helpers });

impl Team {
    /// A team of `threads` threads, the caller's included.
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            done: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            job: Mutex::new(None),
            wake: Condvar::new(),
        });
        let helpers = (1..threads.max(1))
            .filter_map(|index| {
                let shared = shared.clone();
                let name = format!("engine-{index}");
                // Fewer threads than asked for are slower, not wrong.
                std::thread::Builder::new().name(name).spawn(move || help(&shared, index)).ok()
            })
            .collect();
        Self { shared, helpers }
    }

    /// The number of threads.
    pub fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Runs `work` on this thread and on those that come before it is done, each with its number.
    fn run(&self, work: &(dyn Fn(usize) + Sync)) {
        let shared = &*self.shared;
        // SAFETY: only the lifetime is erased; `finish` below closes the job and waits, also if `work` panics
        // here, until no helper uses the closure any more.
        let job = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), Job>(work) };
        {
            let mut slot = shared.job.lock().unwrap_or_else(PoisonError::into_inner);
            *slot = Some(job);
            shared.done.store(0, Ordering::Relaxed);
            let next = generation(shared.state.load(Ordering::Relaxed)) + 1;
            shared.state.store(next << 32 | OPEN, Ordering::Release);
        }
        shared.wake.notify_all();
        struct Finish<'a>(&'a Shared);
        impl Drop for Finish<'_> {
            fn drop(&mut self) {
                let mut spins = 0;
                let begun = (self.0.state.fetch_and(!OPEN, Ordering::AcqRel) & BEGUN) as usize;
                while self.0.done.load(Ordering::Acquire) < begun {
                    spins += 1;
                    if spins < SPINS {
                        std::hint::spin_loop();
                    } else {
                        std::thread::yield_now();
                    }
                }
            }
        }
        let finish = Finish(shared);
        work(0);
        drop(finish);
        assert!(!shared.panicked.swap(false, Ordering::Relaxed), "a helper thread panicked");
    }

    /// Shares out `items` items in runs of up to `grain`, as threads become free.
    pub fn share(
        &self,
        items: usize,
        grain: usize,
        work: &(dyn Fn(std::ops::Range<usize>) + Sync),
    ) {
        let grain = grain.max(1);
        if items <= grain {
            work(0..items);
            return;
        }
        let next = AtomicUsize::new(0);
        self.run(&|_| {
            loop {
                let start = next.fetch_add(grain, Ordering::Relaxed);
                if start >= items {
                    return;
                }
                work(start..items.min(start + grain));
            }
        });
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        {
            let _slot = self.shared.job.lock().unwrap_or_else(PoisonError::into_inner);
            let next = generation(self.shared.state.load(Ordering::Relaxed)) + 1;
            self.shared.state.store(next << 32, Ordering::Release);
        }
        self.shared.wake.notify_all();
        for helper in self.helpers.drain(..) {
            // A helper catches its panics; joining cannot fail otherwise.
            let _ = helper.join();
        }
    }
}

/// A helper's life: wait for a job, run it, say so.
fn help(shared: &Shared, index: usize) {
    let mut seen = 0;
    loop {
        let mut spins = 0;
        while generation(shared.state.load(Ordering::Acquire)) == seen && spins < SPINS {
            std::hint::spin_loop();
            spins += 1;
        }
        let job = {
            let mut slot = shared.job.lock().unwrap_or_else(PoisonError::into_inner);
            while generation(shared.state.load(Ordering::Acquire)) == seen {
                slot = shared.wake.wait(slot).unwrap_or_else(PoisonError::into_inner);
            }
            // A job is put in its slot and opened under the lock, so the two belong together.
            let begin = |state: u64| (state & OPEN != 0).then_some(state + 1);
            let begun = shared.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, begin);
            seen = generation(begun.unwrap_or_else(|closed| closed));
            if begun.is_ok() { *slot } else { None }
        };
        if shared.stop.load(Ordering::Acquire) {
            return;
        }
        let Some(job) = job else { continue };
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            job(index);
        }));
        if result.is_err() {
            shared.panicked.store(true, Ordering::Relaxed);
        }
        shared.done.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_done_once() {
        for threads in [1, 2, 5] {
            let team = Team::new(threads);
            assert_eq!(team.threads(), threads);
            for round in 0..200 {
                let done: Vec<AtomicUsize> = (0..97).map(|_| AtomicUsize::new(0)).collect();
                team.share(97, 1 + round % 13, &|range| {
                    for item in range {
                        done[item].fetch_add(1, Ordering::Relaxed);
                    }
                });
                assert!(done.iter().all(|done| done.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn a_panic_in_a_helper_reaches_the_caller() {
        let team = Team::new(3);
        let helped = AtomicBool::new(false);
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            team.run(&|index| {
                helped.fetch_or(index > 0, Ordering::Relaxed);
                assert!(index == 0, "on purpose");
                while !helped.load(Ordering::Relaxed) {
                    std::thread::yield_now();
                }
            });
        }));
        assert!(caught.is_err());
        team.run(&|_| ());
    }
}

//! Threads that stay: a team runs one closure on all its threads and waits for them, once an op.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Turns of the loop in which a waiting thread looks for work before it sleeps.
const SPINS: usize = 20_000;

/// A closure that all threads run, its lifetime erased: [`Team::run`] does not return before every thread is
/// done with it.
type Job = &'static (dyn Fn(usize) + Sync);

struct Shared {
    /// Counts jobs; a change means a new one.
    generation: AtomicUsize,
    /// Helpers that have not finished the job.
    running: AtomicUsize,
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

impl Team {
    /// A team of `threads` threads, the caller's included.
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            generation: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
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

    /// Runs `work` on every thread, with its number, and waits for all.
    pub fn run(&self, work: &(dyn Fn(usize) + Sync)) {
        let shared = &*self.shared;
        // SAFETY: only the lifetime is erased; `finish` below waits, also if `work` panics here, until no
        // helper uses the closure any more.
        let job = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), Job>(work) };
        {
            let mut slot = shared.job.lock().unwrap_or_else(PoisonError::into_inner);
            *slot = Some(job);
            shared.running.store(self.helpers.len(), Ordering::Release);
            shared.generation.fetch_add(1, Ordering::Release);
        }
        shared.wake.notify_all();
        struct Finish<'a>(&'a Shared);
        impl Drop for Finish<'_> {
            fn drop(&mut self) {
                let mut spins = 0;
                while self.0.running.load(Ordering::Acquire) > 0 {
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
            self.shared.generation.fetch_add(1, Ordering::Release);
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
        while shared.generation.load(Ordering::Acquire) == seen && spins < SPINS {
            std::hint::spin_loop();
            spins += 1;
        }
        let job = {
            let mut slot = shared.job.lock().unwrap_or_else(PoisonError::into_inner);
            while shared.generation.load(Ordering::Acquire) == seen {
                slot = shared.wake.wait(slot).unwrap_or_else(PoisonError::into_inner);
            }
            seen = shared.generation.load(Ordering::Acquire);
            *slot
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
        shared.running.fetch_sub(1, Ordering::Release);
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
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            team.run(&|index| assert!(index == 0, "on purpose"));
        }));
        assert!(caught.is_err());
        team.run(&|_| ());
    }
}

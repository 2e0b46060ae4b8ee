//! Where requests wait for the scheduler's thread.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::jobs::Job;
use crate::Error;

/// Requests that came, and a bell for the thread that sleeps when it has nothing to do.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    letters: Mutex<Letters>,
    bell: Condvar,
}

#[derive(Debug, Default)]
struct Letters {
    jobs: Vec<Job>,
    /// Whether something happened that the thread has not looked at.
    rung: bool,
    closed: bool,
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Letters> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a request in; answers whether anybody will take it.
    pub fn put(&self, job: Job) -> bool {
        let mut letters = self.lock();
        if letters.closed {
            return false;
        }
        letters.jobs.push(job);
        letters.rung = true;
        self.bell.notify_all();
        true
    }

    /// Says that something happened: a request was cancelled.
    pub fn ring(&self) {
        self.lock().rung = true;
        self.bell.notify_all();
    }

    /// Takes no more requests, and ends the thread.
    pub fn close(&self) {
        let mut letters = self.lock();
        letters.closed = true;
        letters.rung = true;
        self.bell.notify_all();
    }

    /// Closes it when dropped, and ends what came and was not taken.
    pub fn closed_at_the_end(&self) -> Closed<'_> {
        Closed(self)
    }

    /// Takes what came and was not taken.
    pub fn rest(&self) -> Vec<Job> {
        std::mem::take(&mut self.lock().jobs)
    }

    /// Takes what came, waiting for something if `idle`. None: it is closed.
    pub fn take(&self, idle: bool) -> Option<Vec<Job>> {
        let mut letters = self.lock();
        while idle && !letters.rung {
            letters = self.bell.wait(letters).unwrap_or_else(PoisonError::into_inner);
        }
        letters.rung = false;
        (!letters.closed).then(|| std::mem::take(&mut letters.jobs))
    }

    /// Whether something happened since requests were taken.
    pub fn is_rung(&self) -> bool {
        self.lock().rung
    }
}

/// Closes a mailbox when dropped.
pub(super) struct Closed<'a>(&'a Mailbox);

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.0.close();
        for job in self.0.rest() {
            job.finish(Err(Error::Internal("the thread of the scheduler ended".into())));
        }
    }
}

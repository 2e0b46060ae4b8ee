//! Requests to a scheduler, and what is heard of them.

use std::sync::mpsc::{self, Receiver};

use engine::{Error, Goal, Listener, Request, Scheduler, Stop, Ticket};

/// Sends what it hears.
struct Sender {
    sender: mpsc::Sender<Heard>,
    /// The id that ends the answer.
    end: Option<u32>,
}

/// What a listener hears.
#[derive(Debug)]
pub enum Heard {
    /// Tokens of the prompt that were computed, and that were held.
    Prompt {
        /// Computed.
        computed: usize,
        /// Held.
        cached: usize,
    },
    /// An id.
    Id(u32),
    /// The end.
    End(Result<Stop, String>),
}

impl Listener for Sender {
    fn prompt_computed(&mut self, computed: usize, cached: usize) {
        let _ = self.sender.send(Heard::Prompt { computed, cached });
    }

    fn row(&mut self, _row: &[f32]) {}

    fn take(&mut self, id: u32) -> Option<Stop> {
        let _ = self.sender.send(Heard::Id(id));
        (Some(id) == self.end).then_some(Stop::End)
    }

    fn finish(&mut self, outcome: engine::Result<Stop>) {
        let _ = self.sender.send(Heard::End(outcome.map_err(|error| error.to_string())));
    }
}

/// An answer: its ids, and the tokens of the prompt that were computed for it and held before.
#[derive(Debug, PartialEq)]
pub struct Answer {
    /// Its ids.
    pub ids: Vec<u32>,
    /// Tokens of the prompt that were computed, and that were held.
    pub prompt: (usize, usize),
}

/// A request under way.
pub type UnderWay = (Ticket, Receiver<Heard>);

/// Asks for it.
pub fn submit(scheduler: &Scheduler, prompt: &[u32], goal: Goal) -> UnderWay {
    submit_until(scheduler, prompt, goal, None)
}

/// The same, with an id that ends the answer.
pub fn submit_until(
    scheduler: &Scheduler,
    prompt: &[u32],
    goal: Goal,
    end: Option<u32>,
) -> UnderWay {
    let (sender, heard) = mpsc::channel();
    let request = Request { prompt: prompt.to_vec(), goal };
    (scheduler.submit(request, Box::new(Sender { sender, end })).unwrap(), heard)
}

/// Waits for the end, which is that as many ids came as were wanted, or the model ended.
pub fn wait((_ticket, heard): UnderWay) -> Answer {
    let mut answer = Answer { ids: Vec::new(), prompt: (0, 0) };
    loop {
        match heard.recv().expect("the scheduler ended") {
            Heard::Prompt { computed, cached } => answer.prompt = (computed, cached),
            Heard::Id(id) => answer.ids.push(id),
            Heard::End(outcome) => {
                assert!(matches!(outcome, Ok(Stop::Length | Stop::End)), "{outcome:?}");
                return answer;
            }
        }
    }
}

/// Why a request is refused.
pub fn refusal(scheduler: &Scheduler, prompt: Vec<u32>, goal: Goal) -> Error {
    let (sender, _heard) = mpsc::channel();
    let request = Request { prompt, goal };
    let refused = scheduler.submit(request, Box::new(Sender { sender, end: None }));
    refused.expect_err("it is taken")
}

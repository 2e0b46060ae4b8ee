//! Steps whose ids the device chooses, begun before the ids of the last have come here: at most two in the air.
//!
//! The order is in the types. A [`Flight`] holds the context, so that no other step can begin; [`Flight::follow`] makes of it a
//! [`Pair`], of which the first has to land before another follows.
//!
//! ```
//! # fn f(flight: engine::Flight, tokens: &[engine::StepToken]) -> engine::Result<()> {
//! let pair = flight.follow(tokens, &[])?;
//! let (ids, flight) = pair.land()?;
//! let pair = flight.follow(tokens, &[])?;
//! # Ok(())
//! # }
//! ```
//! ```compile_fail,E0599
//! # fn f(flight: engine::Flight, tokens: &[engine::StepToken]) -> engine::Result<()> {
//! let pair = flight.follow(tokens, &[])?;
//! let three = pair.follow(tokens, &[])?; // Two are in the air.
//! # Ok(())
//! # }
//! ```

use super::Context;
use crate::executor::Selection;
use crate::select::Sampling;
use crate::step::{Input, StepToken};
use crate::{Error, Result};

/// That an id is chosen on the device from the logits of a step's token.
#[derive(Debug, Clone, Copy)]
pub struct Choice<'a> {
    /// Which of the step's tokens: one that wants logits.
    pub token: usize,
    /// How; one that the device [can choose by](Context::can_select).
    pub sampling: &'a Sampling,
    /// Which of the seed's streams of random numbers is drawn from.
    pub stream: u32,
    /// The sequence's ids so far, for penalties: before the first choice for it. Later ones the device knows.
    pub recent: Option<&'a [u32]>,
}

/// A step in the air. The ids that it chooses are not here yet.
#[derive(Debug)]
#[must_use = "a step that is begun has to land"]
pub struct Flight<'a> {
    context: &'a mut Context,
}

/// Two steps in the air.
#[derive(Debug)]
#[must_use = "a step that is begun has to land"]
pub struct Pair<'a> {
    context: &'a mut Context,
}

impl Context {
    /// Computes a step that the device takes at once and has an id chosen for each choice. Answers the ids, none where a logit
    /// was no finite number, and the rows of the other tokens that want logits, one behind another.
    ///
    /// # Errors
    /// If the step is refused or the device fails.
    pub fn step_and_choose(
        &mut self,
        tokens: &[StepToken],
        choices: &[Choice],
    ) -> Result<(Vec<Option<u32>>, Vec<f32>)> {
        self.free_dropped();
        self.check_inputs(tokens, &[])?;
        self.executor.forget_selected();
        self.launch(tokens, choices)?;
        let ids = if choices.is_empty() { Vec::new() } else { self.executor.selected()? };
        let wanted = tokens.iter().filter(|token| token.want_logits).count();
        let rows = if wanted > choices.len() { self.executor.logits()? } else { Vec::new() };
        if wanted == 0 {
            self.executor.keep_pace()?;
        }
        Ok((ids, rows))
    }

    /// Numbers of a row that a token gives: logits over the vocabulary, or an embedding model's state.
    pub fn row_length(&self) -> usize {
        self.row
    }

    /// Begins a step that the device takes at once and that ends in choices: all tokens that want logits are chosen for.
    ///
    /// # Errors
    /// If the step is refused or the device fails.
    pub fn begin<'a>(&'a mut self, tokens: &[StepToken], choices: &[Choice]) -> Result<Flight<'a>> {
        self.free_dropped();
        self.check_inputs(tokens, &[])?;
        check_choices(tokens, choices)?;
        self.executor.forget_selected();
        self.launch(tokens, choices)?;
        Ok(Flight { context: self })
    }

    /// How many tokens, and how many that want logits, the device takes at once.
    pub fn step_room(&self) -> (usize, usize) {
        (self.sizes.chunk, self.sizes.outputs)
    }

    /// Begins a step.
    fn launch(&mut self, tokens: &[StepToken], choices: &[Choice]) -> Result<()> {
        let most = self.piece(tokens);
        if tokens.is_empty() || most < tokens.len() {
            let why = format!("the device takes {most} of {} tokens at once", tokens.len());
            return Err(Error::Step { index: most, why });
        }
        if choices.len() > self.sizes.selections() {
            let why = format!(
                "{} ids are to be chosen, the device chooses {} at once",
                choices.len(),
                self.sizes.selections()
            );
            return Err(Error::Step { index: 0, why });
        }
        let mut selections = Vec::with_capacity(choices.len());
        for choice in choices {
            let Some(token) = tokens.get(choice.token).filter(|token| token.want_logits) else {
                let why = "an id is to be chosen where no logits are wanted".into();
                return Err(Error::Step { index: choice.token, why });
            };
            let of_sequence = |other: &&Choice| {
                tokens.get(other.token).is_some_and(|other| other.sequence == token.sequence)
            };
            if choices.iter().filter(of_sequence).count() > 1 {
                let why = "two ids are to be chosen for one sequence".into();
                return Err(Error::Step { index: choice.token, why });
            }
            let before = tokens[..choice.token].iter().filter(|token| token.want_logits).count();
            selections.push(Selection {
                sampling: choice.sampling.clone(),
                row: before as u32,
                seat: 0,
                stream: choice.stream,
                position: token.position + 1,
            });
        }
        self.make_room(tokens)?;
        let placed = self.table.prepare(tokens)?;
        for (selection, choice) in selections.iter_mut().zip(choices) {
            selection.seat = placed.tokens[choice.token].seat;
            if let Some(recent) = choice.recent {
                self.executor.set_recent(selection.seat, recent);
            }
        }
        if selections.is_empty() {
            return self.executor.step(&self.table, &placed);
        }
        self.executor.step_and_select(&self.table, &placed, &selections)
    }
}

/// Refuses a step whose logits nobody would read.
fn check_choices(tokens: &[StepToken], choices: &[Choice]) -> Result<()> {
    let wanted = tokens.iter().filter(|token| token.want_logits).count();
    if wanted != choices.len() || choices.is_empty() {
        let why = format!("{wanted} tokens want logits, {} ids are to be chosen", choices.len());
        return Err(Error::Step { index: 0, why });
    }
    Ok(())
}

impl<'a> Flight<'a> {
    /// Begins the next step: tokens whose id the step in the air chooses are [`Input::Pending`]. If it is refused the step in
    /// the air is lost with the error.
    ///
    /// # Errors
    /// If the step is refused or the device fails.
    pub fn follow(self, tokens: &[StepToken], choices: &[Choice]) -> Result<Pair<'a>> {
        let context = self.context;
        let known: Vec<_> =
            tokens.iter().filter(|token| token.input != Input::Pending).copied().collect();
        context.check_inputs(&known, &[])?;
        check_choices(tokens, choices)?;
        context.launch(tokens, choices)?;
        Ok(Pair { context })
    }

    /// Whether there is room for a step, without taking any from what was handed back.
    pub fn has_room(&self, tokens: &[StepToken]) -> bool {
        let table = &self.context.table;
        table.demand(tokens).is_ok_and(|demand| table.has_room(&demand).is_ok())
    }

    /// Waits for the ids; none where a logit was no finite number.
    ///
    /// # Errors
    /// If the device fails.
    pub fn land(self) -> Result<Vec<Option<u32>>> {
        self.context.executor.selected()
    }
}

impl<'a> Pair<'a> {
    /// Waits for the ids of the first, and leaves the other in the air.
    ///
    /// # Errors
    /// If the device fails.
    pub fn land(self) -> Result<(Vec<Option<u32>>, Flight<'a>)> {
        let ids = self.context.executor.selected()?;
        Ok((ids, Flight { context: self.context }))
    }
}

//! The scheduler over a device that computes nothing but remembers everything: an answer's next id is made of all ids that its
//! token sees through the table, so that a block lost, or shared wrongly, changes it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::jobs::Job;
use super::turn::Turns;
use super::{Flags, Goal, Listener, Request};
use crate::answer::Stop;
use crate::blueprint::Blueprint;
use crate::executor::{Executor, Memory, Selection, nothing_selected};
use crate::kv::{BLOCK, KvTable, PlacedStep};
use crate::plan::ValueId;
use crate::select::Sampling;
use crate::spec::{ModelFile, Spec};
use crate::step::Input;
use crate::{Context, ContextOptions, Error, Result};

/// Ids are below it.
const IDS: u64 = 500;

/// What of a token is remembered in its cell.
type Cell = Option<(u32, u32)>;

/// What the device did.
#[derive(Debug, Default)]
struct Log {
    /// Tokens of each step.
    steps: Vec<usize>,
    /// Steps that brought ids to the host, and rows of logits.
    selections: usize,
    rows: usize,
    /// The most steps in the air.
    in_air: usize,
}

struct Remembering {
    /// By group and cell: position and id.
    cells: Vec<Vec<Cell>>,
    windows: Vec<Option<usize>>,
    table_blocks: Vec<usize>,
    /// By seat: all ids of its sequence, where the model has states.
    states: Option<Vec<Vec<u32>>>,
    last: Vec<u32>,
    /// What the wanted tokens of the last step see.
    seen: Vec<u32>,
    left: Vec<u32>,
    selected: Vec<Vec<Option<u32>>>,
    flies: bool,
    log: Arc<Mutex<Log>>,
    /// Steps until it fails.
    fails_after: Option<usize>,
    /// The selection, counted from the first, of which a logit is no number.
    no_number: Option<usize>,
    chosen: usize,
}

/// The id behind ids that a full and a windowed layer see.
fn id_behind(full: &[u32], window: Option<&[u32]>) -> u32 {
    let mix = |sum: u64, id: &u32| {
        (sum.rotate_left(7) ^ u64::from(*id)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    };
    let sum = full.iter().fold(1, mix);
    (window.unwrap_or(&[]).iter().fold(sum, mix) >> 20).checked_rem(IDS).unwrap_or(0) as u32
}

/// The answer to a prompt that runs alone.
fn expected(prompt: &[u32], most: usize, positions: usize, window: Option<usize>) -> Vec<u32> {
    let mut ids = prompt.to_vec();
    while ids.len() - prompt.len() < most && ids.len() <= positions {
        let seen = window.map(|window| &ids[ids.len().saturating_sub(window)..]);
        ids.push(id_behind(&ids, seen));
    }
    ids.split_off(prompt.len())
}

impl Executor for Remembering {
    fn run(&mut self, table: &KvTable, step: &PlacedStep, _segment: usize) -> Result<()> {
        if let Some(left) = &mut self.fails_after {
            *left = left.checked_sub(1).ok_or_else(|| Error::DeviceLost {
                device: "a test's".into(),
                why: "it was told to".into(),
            })?;
        }
        for copy in &step.copies {
            let cells = &mut self.cells[copy.group];
            let from = copy.from as usize * BLOCK;
            cells.copy_within(from..from + BLOCK, copy.to as usize * BLOCK);
        }
        let mut tables = vec![std::collections::HashMap::new(); self.cells.len()];
        for (group, tables) in tables.iter_mut().enumerate() {
            table.write_table(group, |seat, blocks| {
                tables.insert(seat, blocks.to_vec());
            });
        }
        self.seen.clear();
        for token in &step.tokens {
            let id = match token.input {
                Input::Id(id) => id,
                Input::Pending => self.last[token.seat as usize],
                Input::Row(_) => unreachable!("no test gives rows"),
            };
            for (cells, &cell) in self.cells.iter_mut().zip(&token.cells) {
                cells[cell as usize] = Some((token.position, id));
            }
            if let Some(states) = &mut self.states {
                let state = &mut states[token.seat as usize];
                if token.position == 0 {
                    state.clear();
                }
                assert_eq!(state.len(), token.position as usize, "a state of other tokens");
                state.push(id);
            }
            if !token.want_logits {
                continue;
            }
            let sees = |group: usize| -> Vec<u32> {
                let end = token.position as usize + 1;
                let start = self.windows[group].map_or(0, |window| end.saturating_sub(window));
                let cell_of = |position: usize| {
                    let entry = position / BLOCK % self.table_blocks[group];
                    let block = tables[group][&token.seat][entry].expect("a block is missing");
                    let cell = self.cells[group][block as usize * BLOCK + position % BLOCK];
                    let (at, id) = cell.expect("a cell that nobody wrote");
                    assert_eq!(at as usize, position, "another position's cell");
                    id
                };
                (start..end).map(cell_of).collect()
            };
            let window = (self.cells.len() > 1).then(|| sees(1));
            self.seen.push(id_behind(&sees(0), window.as_deref()));
        }
        self.left = (0..self.seen.len() as u32).collect();
        self.log.lock().unwrap().steps.push(step.tokens.len());
        Ok(())
    }

    fn segments(&self) -> usize {
        1
    }

    fn logits(&mut self) -> Result<Vec<f32>> {
        let mut rows = vec![0.0; self.left.len() * IDS as usize];
        for (row, &index) in rows.chunks_exact_mut(IDS as usize).zip(&self.left) {
            row[self.seen[index as usize] as usize] = 1.0;
        }
        self.log.lock().unwrap().rows += self.left.len();
        Ok(rows)
    }

    fn can_select(&self, sampling: &Sampling) -> bool {
        sampling.is_greedy()
    }

    fn is_asynchronous(&self) -> bool {
        self.flies
    }

    fn select(&mut self, selections: &[Selection]) -> Result<()> {
        let mut ids = Vec::new();
        for selection in selections {
            let id = self.seen[selection.row as usize];
            self.last[selection.seat as usize] = id;
            self.left.retain(|&row| row != selection.row);
            ids.push((self.no_number != Some(self.chosen)).then_some(id));
            self.chosen += 1;
        }
        self.selected.push(ids);
        let mut log = self.log.lock().unwrap();
        log.selections += 1;
        log.in_air = log.in_air.max(self.selected.len());
        Ok(())
    }

    fn forget_selected(&mut self) {
        self.selected.clear();
    }

    fn selected(&mut self) -> Result<Vec<Option<u32>>> {
        if self.selected.is_empty() {
            return Err(nothing_selected());
        }
        Ok(self.selected.remove(0))
    }

    fn read_block(&mut self, _group: usize, _block: u32) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn write_block(&mut self, _group: usize, _block: u32, _bytes: &[u8]) -> Result<()> {
        Ok(())
    }

    fn copy_state(&mut self, from: u32, to: u32) -> Result<()> {
        if let Some(states) = &mut self.states {
            states[to as usize] = states[from as usize].clone();
        }
        Ok(())
    }

    fn read_state(&mut self, _seat: u32) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn write_state(&mut self, _seat: u32, _bytes: &[u8]) -> Result<()> {
        Ok(())
    }

    fn write_value(&mut self, _id: ValueId, _rows: &[f32]) -> Result<()> {
        Ok(())
    }

    fn read_value(&mut self, _id: ValueId, _floats: usize) -> Result<Vec<f32>> {
        Ok(Vec::new())
    }

    fn device_name(&self) -> String {
        "a test's".into()
    }

    fn memory(&self) -> Memory {
        Memory::default()
    }
}

/// A model whose plan the contexts are of.
fn model(name: &str) -> ModelFile {
    crate::synthetic::open(name).unwrap()
}

struct Setup {
    turns: Turns,
    log: Arc<Mutex<Log>>,
    window: Option<usize>,
    blocks: usize,
}

/// What a test's device does.
#[derive(Clone, Copy, Default)]
struct Manner {
    flies: bool,
    fails_after: Option<usize>,
    no_number: Option<usize>,
    is_whole: bool,
}

const FLIES: Manner = Manner { flies: true, fails_after: None, no_number: None, is_whole: false };

fn setup(model: &ModelFile, options: &ContextOptions, manner: Manner) -> Setup {
    let Manner { flies, fails_after, no_number, is_whole } = manner;
    let blueprint = Blueprint::new(model, options).unwrap();
    let log = Arc::new(Mutex::new(Log::default()));
    let groups = &blueprint.groups;
    let has_states = !blueprint.plan.states.is_empty();
    let device = Remembering {
        cells: groups.iter().map(|group| vec![None; group.cells()]).collect(),
        windows: groups.iter().map(|group| group.window).collect(),
        table_blocks: groups.iter().map(|group| group.table_blocks).collect(),
        states: has_states.then(|| vec![Vec::new(); options.sequences]),
        last: vec![0; options.sequences],
        seen: Vec::new(),
        left: Vec::new(),
        selected: Vec::new(),
        flies,
        log: log.clone(),
        fails_after,
        no_number,
        chosen: 0,
    };
    // Rows as short as may be.
    let spec = Spec { vocabulary: IDS as usize, ..(*model.spec).clone() };
    let context = Context::new(&spec, &blueprint, Box::new(device));
    let window = groups.iter().find_map(|group| group.window);
    Setup { turns: Turns::new(context, is_whole), log, window, blocks: groups[0].blocks }
}

/// What became of a request.
#[derive(Debug, Default)]
struct Told {
    ids: Vec<u32>,
    /// The largest of each row.
    rows: Vec<u32>,
    prompt: Option<(usize, usize)>,
    /// Steps that the device had begun when the prompt was told, and at the end.
    prompt_step: usize,
    end_step: usize,
    outcome: Option<std::result::Result<Stop, String>>,
}

struct Note {
    told: Arc<Mutex<Told>>,
    /// Ends with the id of this number.
    stops_at: Option<usize>,
    log: Arc<Mutex<Log>>,
}

impl Listener for Note {
    fn prompt_computed(&mut self, computed: usize, cached: usize) {
        let mut told = self.told.lock().unwrap();
        told.prompt_step = self.log.lock().unwrap().steps.len();
        let before = told.prompt.replace((computed, cached));
        assert_eq!(before, None, "told twice");
    }

    fn row(&mut self, row: &[f32]) {
        let largest = row.iter().position(|&x| x == 1.0).unwrap();
        self.told.lock().unwrap().rows.push(largest as u32);
    }

    fn take(&mut self, id: u32) -> Option<Stop> {
        let mut told = self.told.lock().unwrap();
        assert!(told.outcome.is_none(), "an id behind the end");
        told.ids.push(id);
        (Some(told.ids.len()) == self.stops_at).then_some(Stop::End)
    }

    fn finish(&mut self, outcome: Result<Stop>) {
        let outcome = outcome.map_err(|error| error.to_string());
        let mut told = self.told.lock().unwrap();
        told.end_step = self.log.lock().unwrap().steps.len();
        let before = told.outcome.replace(outcome);
        assert!(before.is_none(), "ended twice");
    }
}

/// A request that a test made.
struct Asked {
    prompt: Vec<u32>,
    most: usize,
    stops_at: Option<usize>,
    told: Arc<Mutex<Told>>,
    flags: Arc<Flags>,
}

fn ask(
    setup: &mut Setup,
    prompt: Vec<u32>,
    most: usize,
    greedy: bool,
    stops_at: Option<usize>,
) -> Asked {
    let told = Arc::new(Mutex::new(Told::default()));
    let flags = Arc::new(Flags::default());
    // One that the device does not choose by: the host draws from logits that are all but one alike.
    let sampling = if greedy {
        Sampling::greedy()
    } else {
        Sampling { temperature: 1e-3, top_k: 0, ..Sampling::default() }
    };
    let goal = Goal::Generate { sampling, stream: 0, max_tokens: Some(most), run_ahead: true };
    let note = Note { told: told.clone(), stops_at, log: setup.log.clone() };
    let request = Request { prompt: prompt.clone(), goal };
    setup.turns.put(Job::new(request, Box::new(note), flags.clone()));
    Asked { prompt, most, stops_at, told, flags }
}

/// Asks for the rows of some tokens of a prompt.
fn ask_rows(setup: &mut Setup, prompt: Vec<u32>, (from, to): (usize, usize)) -> Arc<Mutex<Told>> {
    let told = Arc::new(Mutex::new(Told::default()));
    let note = Note { told: told.clone(), stops_at: None, log: setup.log.clone() };
    let request = Request { prompt, goal: Goal::Rows { from, to } };
    setup.turns.put(Job::new(request, Box::new(note), Arc::default()));
    told
}

/// The largest of each of these rows.
fn expected_rows(prompt: &[u32], (from, to): (usize, usize), window: Option<usize>) -> Vec<u32> {
    let behind = |end: usize| {
        let seen = window.map(|window| &prompt[end.saturating_sub(window)..end]);
        id_behind(&prompt[..end], seen)
    };
    (from + 1..=to).map(behind).collect()
}

fn options(positions: usize, pool: usize, sequences: usize, chunk: usize) -> ContextOptions {
    ContextOptions {
        positions: Some(positions),
        pool: Some(pool),
        sequences,
        chunk,
        outputs: Some(sequences),
        ..ContextOptions::default()
    }
}

fn ids(seed: u32, length: usize) -> Vec<u32> {
    (0..length as u32).map(|i| (seed * 31 + i * 7 + i * i * seed) % IDS as u32).collect()
}

/// Turns until nothing waits or runs; a test that does not end is stopped.
fn run(turns: &mut Turns) {
    for _ in 0..20_000 {
        if turns.is_idle() {
            return;
        }
        turns.turn(&|| false);
    }
    panic!("the scheduler does not come to an end");
}

#[test]
fn requests_beside_each_other_answer_as_alone() {
    for name in ["llama-1b/2:q4_0", "gemma3-4b/6:q4_0"] {
        let model = model(name);
        for count in [1, 3, 16] {
            for (flies, greedy) in [(true, true), (false, true), (true, false)] {
                let mut setup =
                    setup(&model, &options(512, 8192, count, 64), Manner { flies, ..FLIES });
                let asked: Vec<_> = (0..count)
                    .map(|i| ask(&mut setup, ids(i as u32, 3 + i * 17), 20, greedy, None))
                    .collect();
                run(&mut setup.turns);
                for asked in &asked {
                    let told = asked.told.lock().unwrap();
                    assert_eq!(told.outcome, Some(Ok(Stop::Length)));
                    assert_eq!(told.ids, expected(&asked.prompt, 20, 512, setup.window), "{name}");
                }
                let log = setup.log.lock().unwrap();
                assert!(log.steps.iter().all(|&tokens| tokens <= 64));
                // All sequences' next tokens are one step; nothing but ids comes to the host.
                assert_eq!(log.rows > 0, !greedy);
                assert_eq!(log.in_air, if flies && greedy { 2 } else { usize::from(greedy) });
            }
        }
    }
}

#[test]
fn a_long_prompt_holds_answers_up_for_a_chunk_at_most() {
    let model = model("llama-1b/2:q4_0");
    let mut setup = setup(&model, &options(2048, 4096, 2, 64), FLIES);
    let first = ask(&mut setup, ids(1, 10), 60, true, None);
    setup.turns.turn(&|| true);
    let second = ask(&mut setup, ids(2, 1000), 5, true, None);
    let before = setup.log.lock().unwrap().steps.len();
    while second.told.lock().unwrap().prompt.is_none() {
        let ids = first.told.lock().unwrap().ids.len();
        setup.turns.turn(&|| true);
        assert!(first.told.lock().unwrap().ids.len() > ids, "no token in a turn");
    }
    let log = setup.log.lock().unwrap();
    // 63 tokens of the prompt beside each token of the answer.
    assert_eq!(log.steps[before..].iter().filter(|&&tokens| tokens == 64).count(), 1000 / 63);
}

#[test]
fn what_begins_alike_is_computed_once() {
    let model = model("llama-1b/2:q4_0");
    let mut setup = setup(&model, &options(2048, 8192, 4, 512), FLIES);
    let start = ids(7, 1000);
    let with = |end: &[u32]| [&start[..], end].concat();
    let first = ask(&mut setup, with(&[1, 2]), 8, true, None);
    run(&mut setup.turns);
    assert_eq!(first.told.lock().unwrap().prompt, Some((1002, 0)));
    // One that ended: shared but for the block that both write to.
    let second = ask(&mut setup, with(&[3, 4, 5]), 8, true, None);
    run(&mut setup.turns);
    assert_eq!(second.told.lock().unwrap().prompt, Some((3, 1000)));
    // The first goes on: what it said and all before is held.
    let told = first.told.lock().unwrap();
    let turn = [&first.prompt[..], &told.ids, &[9, 9]].concat();
    let third = ask(&mut setup, turn, 8, true, None);
    run(&mut setup.turns);
    // Its last id was never computed.
    assert_eq!(third.told.lock().unwrap().prompt, Some((3, 1009)));
    // Three at once that nobody has asked before: two wait until the first has computed what they share.
    let start = ids(8, 640);
    let asked: Vec<_> =
        (0..3).map(|i| ask(&mut setup, [&start[..], &[i]].concat(), 4, true, None)).collect();
    run(&mut setup.turns);
    let computed: usize =
        asked.iter().map(|asked| asked.told.lock().unwrap().prompt.unwrap().0).sum();
    assert_eq!(computed, 643);
    for asked in asked.iter().chain([&second, &third]) {
        let told = asked.told.lock().unwrap();
        assert_eq!(told.ids, expected(&asked.prompt, asked.most, 2048, None));
    }
}

/// Rows are computed however much is held of the prompt: before the first of them.
#[test]
fn rows_are_computed_again() {
    let model = model("llama-1b/2:q4_0");
    let mut setup = setup(&model, &options(512, 1024, 2, 64), FLIES);
    for held in [0, 100] {
        let told = ask_rows(&mut setup, ids(5, 300), (100, 299));
        run(&mut setup.turns);
        let told = told.lock().unwrap();
        assert_eq!(told.outcome, Some(Ok(Stop::Length)));
        assert_eq!(told.prompt, Some((300 - held, held)));
        assert_eq!(told.rows, expected_rows(&ids(5, 300), (100, 299), None));
    }
}

/// Of windows, whose rings forget, a copy before the prompt's last token does for another answer to the same prompt.
#[test]
fn rings_are_kept_at_the_ends_of_prompts() {
    let model = model("gemma3-4b/6:q4_0");
    let mut setup = setup(&model, &options(4096, 8192, 3, 128), FLIES);
    assert_eq!(setup.window, Some(1024));
    let prompt = ids(3, 2000);
    let first = ask(&mut setup, prompt.clone(), 400, true, None);
    run(&mut setup.turns);
    let again = ask(&mut setup, prompt, 400, true, None);
    run(&mut setup.turns);
    assert_eq!(first.told.lock().unwrap().prompt, Some((2000, 0)));
    assert_eq!(again.told.lock().unwrap().prompt, Some((1, 1999)));
    for asked in [&first, &again] {
        let ids = &asked.told.lock().unwrap().ids;
        assert_eq!(*ids, expected(&asked.prompt, 400, 4096, setup.window));
    }
}

#[test]
fn who_is_youngest_gives_way_and_is_computed_again() {
    let model = model("llama-1b/2:q4_0");
    // Two prompts and their answers are more than the pool.
    let mut setup = setup(&model, &options(512, 512, 2, 64), FLIES);
    let first = ask(&mut setup, ids(1, 200), 200, true, None);
    let second = ask(&mut setup, ids(2, 200), 200, true, None);
    run(&mut setup.turns);
    for asked in [&first, &second] {
        let told = asked.told.lock().unwrap();
        assert_eq!(told.outcome, Some(Ok(Stop::Length)));
        assert_eq!(told.ids, expected(&asked.prompt, 200, 512, None));
    }
    // One alone that wants more than there is ends where the pool does.
    let greedy_one = ask(&mut setup, ids(3, 500), 200, true, None);
    run(&mut setup.turns);
    let told = greedy_one.told.lock().unwrap();
    assert_eq!(told.outcome, Some(Ok(Stop::ContextFull)));
    assert_eq!(told.ids, expected(&greedy_one.prompt, 200, 512, None));
}

#[test]
fn a_device_that_fails_fails_all_that_run_and_none_that_come() {
    let model = model("llama-1b/2:q4_0");
    let mut setup =
        setup(&model, &options(512, 2048, 4, 64), Manner { fails_after: Some(6), ..FLIES });
    let asked: Vec<_> = (0..4).map(|i| ask(&mut setup, ids(i, 20), 20, true, None)).collect();
    run(&mut setup.turns);
    for asked in &asked {
        let told = asked.told.lock().unwrap();
        assert!(matches!(&told.outcome, Some(Err(why)) if why.contains("it was told to")));
    }
    assert_eq!(setup.turns.free_blocks(), setup.blocks);
}

/// Who waits for a shared prefix, or wants no answer, goes on while others answer in the air.
#[test]
fn nobody_waits_for_the_end_of_another() {
    let model = model("llama-1b/2:q4_0");
    let mut setup = setup(&model, &options(2048, 8192, 4, 64), FLIES);
    let start = ids(7, 640);
    let with = |end: u32| [&start[..], &[end]].concat();
    let first = ask(&mut setup, with(1), 300, true, None);
    let second = ask(&mut setup, with(2), 300, true, None);
    let none = ask(&mut setup, ids(9, 100), 0, true, None);
    run(&mut setup.turns);
    let [first, second, none] = [first, second, none].map(|asked| {
        let told = asked.told.lock().unwrap();
        assert_eq!(told.ids, expected(&asked.prompt, asked.most, 2048, None));
        (told.prompt, told.prompt_step, told.end_step)
    });
    assert_eq!((first.0, second.0), (Some((641, 0)), Some((1, 640))));
    assert!(second.1 < first.1 + 8, "{second:?} behind {first:?}");
    assert!(none.2 < first.1 + 8, "{none:?} behind {first:?}");
}

/// Text of which tokens see later ones is one step, also where layers have windows.
#[test]
fn a_prompt_of_one_step_is_computed() {
    let model = model("gemma3-4b/6:q4_0");
    let whole = Manner { is_whole: true, ..FLIES };
    let mut setup = setup(&model, &options(512, 1024, 2, 512), whole);
    let told: Vec<_> = (1..5).map(|i| ask_rows(&mut setup, ids(i, 200), (0, 200))).collect();
    run(&mut setup.turns);
    for (told, seed) in told.iter().zip(1..) {
        let window = setup.window;
        assert_eq!(told.lock().unwrap().rows, expected_rows(&ids(seed, 200), (0, 200), window));
    }
    assert_eq!(setup.turns.free_blocks(), setup.blocks);
}

/// A logit that is no number ends its request alone, and nothing that it computed is used again.
#[test]
fn what_is_no_number_ends_one_request() {
    let model = model("llama-1b/2:q4_0");
    for flies in [true, false] {
        let manner = Manner { flies, no_number: Some(7), ..FLIES };
        let mut setup = setup(&model, &options(512, 2048, 3, 64), manner);
        let asked: Vec<_> = (0..3).map(|i| ask(&mut setup, ids(i, 75), 20, true, None)).collect();
        run(&mut setup.turns);
        let failed = |asked: &&Asked| matches!(asked.told.lock().unwrap().outcome, Some(Err(_)));
        assert_eq!(asked.iter().filter(failed).count(), 1);
        for first in &asked {
            let failed = failed(&first);
            let again = ask(&mut setup, first.prompt.clone(), 20, true, None);
            run(&mut setup.turns);
            let told = again.told.lock().unwrap();
            assert_eq!(told.ids, expected(&again.prompt, 20, 512, None));
            assert_eq!(told.prompt, Some(if failed { (75, 0) } else { (1, 74) }));
        }
    }
}

/// One thing that happens to the scheduler.
#[derive(Debug, Clone)]
enum Happening {
    /// A request: which of some beginnings it has and how much of it, what follows, how long an answer, how it is chosen, and
    /// where the listener ends it.
    Ask {
        start: u32,
        common: usize,
        own: usize,
        most: usize,
        greedy: bool,
        stops_at: Option<usize>,
    },
    /// Rows of a prompt: which beginning it has and how much of it, what follows, and which share of it comes before the first.
    Rows { start: u32, common: usize, own: usize, before: usize },
    /// One of those asked is cancelled.
    Cancel(usize),
    /// So many turns.
    Turns(usize),
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let ask = (
        0..3_u32,
        0..300_usize,
        1..80_usize,
        0..90_usize,
        any::<bool>(),
        proptest::option::of(1..40_usize),
    )
        .prop_map(|(start, common, own, most, greedy, stops_at)| Happening::Ask {
            start,
            common,
            own,
            most,
            greedy,
            stops_at,
        });
    let any = prop_oneof![
        3 => ask,
        1 => (0..3_u32, 0..300_usize, 1..80_usize, 0..8_usize).prop_map(
            |(start, common, own, before)| Happening::Rows { start, common, own, before }
        ),
        1 => (0..64_usize).prop_map(Happening::Cancel),
        3 => (1..12_usize).prop_map(Happening::Turns),
    ];
    proptest::collection::vec(any, 1..40)
}

/// Whatever comes, however small the pool, in whatever order: every answer is its own, every block is free in the end.
#[test]
fn no_block_is_lost_or_shared_wrongly_and_no_answer_changes() {
    for name in ["llama-1b/2:q4_0", "gemma3-4b/6:q4_0", "qwen35"] {
        let model = if name == "qwen35" { recurrent() } else { model(name) };
        let cases = Config { cases: 60, failure_persistence: None, ..Config::default() };
        let mut runner = TestRunner::new(cases);
        let strategy = (happenings(), 2..6_usize, 6..40_usize, any::<bool>());
        runner
            .run(&strategy, |(happenings, sequences, blocks, flies)| {
                check(&model, &happenings, sequences, blocks * BLOCK, flies);
                Ok(())
            })
            .unwrap();
    }
}

/// A model whose layers carry states.
fn recurrent() -> ModelFile {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/goldens/tiny/qwen35.gguf");
    ModelFile::open(path).unwrap()
}

fn check(model: &ModelFile, happenings: &[Happening], sequences: usize, pool: usize, flies: bool) {
    let positions = 448.min(pool);
    let mut setup =
        setup(model, &options(positions, pool, sequences, 96), Manner { flies, ..FLIES });
    let mut all: Vec<Asked> = Vec::new();
    let mut rows = Vec::new();
    for happening in happenings {
        match happening.clone() {
            Happening::Ask { start, common, own, most, greedy, stops_at } => {
                let mut prompt = ids(start + 50, common);
                prompt.extend(ids(all.len() as u32 + 100, own));
                prompt.truncate(positions - 1);
                all.push(ask(&mut setup, prompt, most, greedy, stops_at));
            }
            Happening::Rows { start, common, own, before } => {
                let prompt = [ids(start + 50, common), ids(rows.len() as u32 + 200, own)].concat();
                let range = (prompt.len() * before / 8, prompt.len());
                rows.push((prompt.clone(), range, ask_rows(&mut setup, prompt, range)));
            }
            Happening::Cancel(index) => {
                if let Some(asked) = all.get(index) {
                    asked.flags.cancelled.store(true, Ordering::Relaxed);
                }
            }
            // Now and then something comes while a step is in the air.
            Happening::Turns(turns) => (0..turns).for_each(|i| setup.turns.turn(&|| i % 3 == 0)),
        }
    }
    run(&mut setup.turns);
    for asked in &all {
        let told = asked.told.lock().unwrap();
        let whole = expected(&asked.prompt, asked.most, positions, setup.window);
        let whole = &whole[..whole.len().min(asked.stops_at.unwrap_or(usize::MAX))];
        match &told.outcome {
            Some(Ok(Stop::Cancelled)) => assert!(asked.flags.cancelled.load(Ordering::Relaxed)),
            Some(Ok(Stop::Length | Stop::End)) => assert_eq!(told.ids, whole),
            Some(Ok(Stop::ContextFull)) => {
                assert!(told.ids.len() + asked.prompt.len() >= positions);
            }
            other => panic!("{other:?}"),
        }
        assert!(whole.starts_with(&told.ids), "{:?} of {whole:?}", told.ids);
    }
    for (prompt, range, told) in rows {
        let told = told.lock().unwrap();
        assert_eq!(told.outcome, Some(Ok(Stop::Length)));
        assert_eq!(told.rows, expected_rows(&prompt, range, setup.window));
    }
    setup.turns.forget_kept();
    assert_eq!(setup.turns.free_blocks(), setup.blocks, "blocks are lost");
}

//! The first use of an adapter, driver and version checks exactly the kernels that a plan uses, on data of
//! the plan's shapes, against the reference. A kernel that computes wrongly is replaced by the next one
//! (without subgroups, without tiles) and named; the verdict is kept in the cache folder.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use super::adapter::Gpu;
use super::lower::{Caps, FEW};
use crate::executor::Sizes;
use crate::model::rope::RopeStyle;
use crate::plan::{Epilogue, Op, Plan, Rows};
use crate::probe::{AttentionCase, LinearCase, Probe, choose_both};
use crate::select::Sampling;
use crate::{Error, Result, cache};

/// What the self-test found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What kernels may use.
    pub caps: Caps,
    /// What was found wrong and how it was replaced, for stderr.
    pub warnings: Vec<String>,
    /// Whether the verdict is an earlier run's.
    pub from_cache: bool,
}

/// Rows of a matrix that are checked: a tile and a little more, so that every place in a tile counts.
const ROWS: usize = 72;
/// Tokens that are checked where there are many: a tile and one more.
const TOKENS: usize = 33;

/// Checks the kernels that a plan uses; `remember` looks for an earlier verdict first and keeps this one.
pub fn run(gpu: &Arc<Gpu>, plan: &Plan, sizes: &Sizes, remember: bool) -> Result<Verdict> {
    let cases = cases(plan, sizes);
    let file = if remember { verdict_file(gpu, &cases, plan.vocabulary()) } else { None };
    if let Some(caps) = file.as_ref().and_then(|file| read_verdict(file, gpu)) {
        let warnings = describe(gpu, &caps, "an earlier self-test");
        return Ok(Verdict { caps, warnings, from_cache: true });
    }
    let mut warnings = Vec::new();
    let mut last = None;
    for caps in candidates(gpu) {
        match first_failure(gpu, &cases, &caps)? {
            None => {
                let choice = selection_failure(gpu, plan.vocabulary(), &caps)?;
                warnings.extend(choice.iter().map(|failure| format!("{}: {failure}", gpu.name)));
                let caps = Caps { selection: choice.is_none(), ..caps };
                warnings.extend(describe(gpu, &caps, "the self-test"));
                if let Some(file) = file {
                    keep_verdict(&file, &caps);
                }
                return Ok(Verdict { caps, warnings, from_cache: false });
            }
            Some(failure) => {
                warnings.push(format!("{}: {failure}", gpu.name));
                last = Some(failure);
            }
        }
    }
    Err(Error::DeviceLost {
        device: gpu.name.clone(),
        why: format!(
            "every kernel for one of the model's operations computes wrongly on it ({}); its driver {} is at fault",
            last.unwrap_or_default(),
            gpu.driver
        ),
    })
}

/// What kernels may use, the best first.
fn candidates(gpu: &Gpu) -> Vec<Caps> {
    let mut all = vec![gpu.caps.clone()];
    for (subgroups, tiles) in [(false, true), (true, false), (false, false)] {
        let caps = Caps {
            subgroups: subgroups && gpu.caps.subgroups,
            tiles: tiles && gpu.caps.tiles,
            ..gpu.caps.clone()
        };
        if !all.contains(&caps) {
            all.push(caps);
        }
    }
    all
}

/// What is left out, in words.
fn describe(gpu: &Gpu, caps: &Caps, who: &str) -> Vec<String> {
    let mut words = Vec::new();
    if gpu.caps.subgroups && !caps.subgroups {
        words.push("subgroups");
    }
    if gpu.caps.tiles && !caps.tiles {
        words.push("tiles");
    }
    if gpu.caps.selection && !caps.selection {
        words.push("the choice of ids");
    }
    if words.is_empty() {
        return Vec::new();
    }
    vec![format!(
        "{} ({}): after {who} kernels with {} are not used",
        gpu.name,
        gpu.driver,
        words.join(" and ")
    )]
}

/// One thing to be checked.
#[derive(Debug, Clone, PartialEq)]
enum Case {
    Linear(LinearCase),
    Norm(usize, bool),
    Embed(gguf::Format, usize),
    Attention(AttentionCase),
}

impl Case {
    fn probe(&self) -> Result<Probe> {
        match self {
            Case::Linear(case) => Probe::linear(case),
            Case::Norm(width, add) => Probe::norm(*width, 3, *add),
            Case::Embed(format, columns) => Probe::embed(*format, *columns, ROWS, 5),
            Case::Attention(case) => Probe::attention(case),
        }
    }

    fn name(&self) -> String {
        match self {
            Case::Linear(case) => {
                let formats: BTreeSet<_> =
                    case.weights.iter().map(|(format, _)| format.name()).collect();
                let formats: Vec<_> = formats.into_iter().collect();
                let kernel = if case.tokens > FEW { "matmul" } else { "matvec" };
                format!("{kernel} {} of {} columns", formats.join(", "), case.columns)
            }
            Case::Norm(width, _) => format!("norm of {width}"),
            Case::Embed(format, columns) => format!("embed {} of {columns}", format.name()),
            Case::Attention(case) => format!("attention with heads of {}", case.layer.key_length),
        }
    }
}

/// The distinct things that a plan computes, in small.
fn cases(plan: &Plan, sizes: &Sizes) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut add = |case: Case| {
        if !cases.contains(&case) {
            cases.push(case);
        }
    };
    let mut norms = None;
    for op in &plan.ops {
        match op {
            Op::Embed { table, out, .. } => {
                add(Case::Embed(plan.weight(*table).format, plan.value(*out).width));
            }
            Op::Norm { out, add: added, .. } => add(Case::Norm(plan.value(*out).width, *added)),
            Op::Linear { input, weights, biases, epilogue, out } => {
                let many_too = plan.value(*out).rows == Rows::Tokens || sizes.outputs > FEW;
                let epilogue = match *epilogue {
                    // Which value it is makes no difference to the kernel.
                    Epilogue::Gated { activation, .. } => {
                        Epilogue::Gated { activation, both: crate::plan::ValueId(2) }
                    }
                    other => other,
                };
                for tokens in [2, TOKENS] {
                    if tokens > FEW && !(many_too && sizes.chunk > FEW) {
                        continue;
                    }
                    let rows = |id| plan.weight(id).rows.min(ROWS);
                    add(Case::Linear(LinearCase {
                        weights: weights
                            .iter()
                            .map(|&id| (plan.weight(id).format, rows(id)))
                            .collect(),
                        columns: plan.value(*input).width,
                        tokens,
                        bias: biases.iter().any(Option::is_some),
                        epilogue,
                    }));
                }
            }
            Op::QkRopeStore { q_norm, rope, .. } => norms = Some((q_norm.is_some(), *rope)),
            Op::Attention { layer, scale, .. } => {
                let (qk_norm, rope) = norms.unwrap_or((false, crate::plan::RopeId(0)));
                let rope = plan.ropes.get(rope.0);
                let mut layer = *plan.kv_layer(*layer);
                layer.window = layer.window.map(|_| 24);
                add(Case::Attention(AttentionCase {
                    layer,
                    tokens: 70,
                    history: 0,
                    style: rope.map_or(RopeStyle::Halves, |rope| rope.style),
                    turned: rope.map_or(layer.key_length, |rope| rope.pairs() * 2),
                    qk_norm,
                    key_type: sizes.key_type,
                    value_type: sizes.value_type,
                    scale: *scale,
                }));
            }
        }
    }
    cases
}

/// The first case that comes out wrong, in words.
fn first_failure(gpu: &Arc<Gpu>, cases: &[Case], caps: &Caps) -> Result<Option<String>> {
    for case in cases {
        let probe = case.probe()?;
        let worst = probe.worst(&probe.on_gpu(gpu, caps)?);
        if worst > 1.0 {
            let with = if caps.subgroups { " with subgroups" } else { "" };
            return Ok(Some(format!(
                "the kernel {}{with} is off by {worst:.1} times its bound",
                case.name()
            )));
        }
    }
    Ok(None)
}

/// What goes wrong when ids are chosen on the device: compared with the host's choice from the same logits.
fn selection_failure(gpu: &Arc<Gpu>, vocabulary: usize, caps: &Caps) -> Result<Option<String>> {
    let greedy = Sampling { repeat_penalty: 1.2, ..Sampling::greedy() };
    let drawn = |top_k, seed| Sampling { top_k, seed, repeat_penalty: 1.2, ..Sampling::default() };
    let mut wrong = 0;
    for sampling in [greedy, drawn(40, 1), drawn(256, 2), drawn(40, 3)] {
        let (ours, host) = choose_both(gpu, vocabulary, caps, &sampling)?;
        wrong += usize::from(ours != Some(host));
    }
    // A draw may fall on an edge between two ids; two of them do not.
    Ok((wrong > 1).then(|| format!("the choice of ids is wrong {wrong} times of 4")))
}

/// Where the verdict on these cases lies: adapter, driver, version and cases make its name.
fn verdict_file(gpu: &Gpu, cases: &[Case], vocabulary: usize) -> Option<PathBuf> {
    let version = env!("CARGO_PKG_VERSION");
    let what = format!("{} {} {version} {vocabulary} {cases:?}", gpu.name, gpu.driver);
    // FNV-1a: stable between runs, and nobody gains by a collision.
    let hash = what.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    Some(cache::folder()?.join("self-test").join(format!("{hash:016x}")))
}

fn read_verdict(file: &PathBuf, gpu: &Gpu) -> Option<Caps> {
    let text = fs::read_to_string(file).ok()?;
    let mut words = text.split_whitespace();
    let mut flag = |name: &str| match words.next()?.strip_prefix(name)? {
        "=true" => Some(true),
        "=false" => Some(false),
        _ => None,
    };
    let (subgroups, tiles, selection) = (flag("subgroups")?, flag("tiles")?, flag("selection")?);
    Some(Caps {
        subgroups: subgroups && gpu.caps.subgroups,
        tiles: tiles && gpu.caps.tiles,
        selection: selection && gpu.caps.selection,
        ..gpu.caps.clone()
    })
}

/// Keeps a verdict; where it cannot be written the next run tests again.
fn keep_verdict(file: &PathBuf, caps: &Caps) {
    let text =
        format!("subgroups={} tiles={} selection={}\n", caps.subgroups, caps.tiles, caps.selection);
    if let Some(folder) = file.parent()
        && fs::create_dir_all(folder).is_ok()
    {
        let _ = fs::write(file, text);
    }
}

//! The first use of an adapter, driver and version checks exactly the kernels that a plan uses, on data of
//! the plan's shapes, against the reference. A kernel that computes wrongly is replaced by the next one
//! (without subgroups, without tiles) and named; the verdict is kept in the cache folder.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use super::probe::{AttentionCase, ExpertsCase, LinearCase, OpCase, Probe, choose_both};
use crate::blueprint::Blueprint;
use crate::executor::Precision;
use crate::gpu::Gpu;
use crate::gpu::choice::{Count, Kernels, ProductKernel};
use crate::gpu::layout::Layout;
use crate::gpu::products;
use crate::plan::{Epilogue, Op, Rows, op};
use crate::select::Sampling;
use crate::spec::rope::RopeStyle;
use crate::spec::{NormKind, Routing};
use crate::{Error, Result, cache};

/// What the self-test found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What kernels may use.
    pub kernels: Kernels,
    /// What was found wrong and how it was replaced, for stderr.
    pub warnings: Vec<String>,
    /// Whether the verdict is an earlier run's.
    pub from_cache: bool,
}

/// Rows of a matrix that are checked at least.
const ROWS: usize = 72;
/// Tokens that are checked at least where there are many.
const TOKENS: usize = 33;

/// Checks the kernels that a plan uses of these; `remember` looks for an earlier verdict first and keeps
/// this one.
pub fn run(
    gpu: &Arc<Gpu>,
    blueprint: &Blueprint,
    kernels: &Kernels,
    remember: bool,
) -> Result<Verdict> {
    let plan = &blueprint.plan;
    let file = if remember {
        verdict_file(gpu, &cases(blueprint, kernels)?, plan.vocabulary())
    } else {
        None
    };
    if let Some(found) = file.as_ref().and_then(|file| read_verdict(file, kernels)) {
        let warnings = describe(gpu, &found, "an earlier self-test");
        return Ok(Verdict { kernels: found, warnings, from_cache: true });
    }
    let mut warnings = Vec::new();
    let mut kernels = kernels.clone();
    while let Some(failure) = first_failure(gpu, &cases(blueprint, &kernels)?, &kernels)? {
        let Some(fewer) = without(&kernels, &failure.case) else {
            return Err(Error::DeviceLost {
                device: gpu.name.clone(),
                why: format!(
                    "every kernel for one of the model's operations computes wrongly on it ({}); its driver {} is at fault",
                    failure.what, gpu.driver
                ),
            });
        };
        warnings.push(format!("{}: {}", gpu.name, failure.what));
        kernels = fewer;
    }
    let choice = selection_failure(gpu, plan.vocabulary(), &kernels)?;
    warnings.extend(choice.iter().map(|failure| format!("{}: {failure}", gpu.name)));
    let kernels = Kernels { selection: choice.is_none(), ..kernels };
    warnings.extend(describe(gpu, &kernels, "the self-test"));
    if let Some(file) = file {
        keep_verdict(&file, &kernels);
    }
    Ok(Verdict { kernels, warnings, from_cache: false })
}

/// What may still be used where a case came out wrong: with halves converted by integers, without the kernel, else without
/// subgroups.
fn without(kernels: &Kernels, case: &Case) -> Option<Kernels> {
    let reads_weights = !matches!(case, Case::Norm(..) | Case::Attention(_));
    // Converted by themselves halves were right; within a kernel a compiler may do it otherwise.
    let reads_halves = reads_weights || matches!(case, Case::Attention(_));
    if reads_halves && kernels.native_halves {
        return Some(Kernels { native_halves: false, ..kernels.clone() });
    }
    match case {
        Case::Linear(_, ProductKernel::Lanewise { .. }) => {
            Some(Kernels { lanewise: false, ..kernels.clone() })
        }
        Case::Linear(_, ProductKernel::Cooperative { .. }) => Some(without_matrices(kernels)),
        Case::Experts(experts)
            if Count::of(experts.tokens) == Count::Many
                && matches!(
                    kernels.expert_tiles(experts.columns),
                    ProductKernel::Cooperative { .. }
                ) =>
        {
            Some(without_matrices(kernels))
        }
        Case::Linear(_, ProductKernel::Matmul { .. }) => {
            Some(Kernels { tiles: false, ..kernels.clone() })
        }
        Case::Embed(..) => None,
        _ => kernels.subgroups.then(|| Kernels { subgroups: false, ..kernels.clone() }),
    }
}

/// Without matrix units, whose products are the only ones of halves.
fn without_matrices(kernels: &Kernels) -> Kernels {
    let all = Kernels { cooperative: false, ..kernels.clone() };
    Kernels { precision: all.possible(kernels.precision), ..all }
}

/// The class by which a kernel's results are bounded: what multiplies no halves is exact beside one that does.
fn bounded_by(kernels: &Kernels, kernel: ProductKernel) -> Precision {
    match (kernels.precision, kernel) {
        (Precision::F16Tiles, ProductKernel::Cooperative { .. }) => Precision::F16Tiles,
        (Precision::F16Tiles, _) => Precision::F32,
        (precision, _) => precision,
    }
}

/// What is left out, in words.
fn describe(gpu: &Gpu, kernels: &Kernels, who: &str) -> Vec<String> {
    let mut words = Vec::new();
    if gpu.kernels.subgroups && !kernels.subgroups {
        words.push("subgroups");
    }
    if gpu.kernels.native_halves && !kernels.native_halves {
        words.push("halves converted by the driver");
    }
    if gpu.kernels.lanewise && !kernels.lanewise {
        words.push("rows by lane");
    }
    if gpu.kernels.cooperative && !kernels.cooperative {
        words.push("cooperative matrices");
    }
    if gpu.kernels.tiles && !kernels.tiles {
        words.push("tiles");
    }
    if gpu.kernels.selection && !kernels.selection {
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
    Linear(LinearCase, ProductKernel),
    Norm((usize, usize), NormKind, bool),
    Embed(gguf::Format, usize),
    Attention(AttentionCase),
    Experts(ExpertsCase),
    Other(OpCase),
}

impl Case {
    fn probe(&self) -> Result<Probe> {
        match self {
            Case::Linear(case, _) => Probe::linear(case),
            Case::Norm(width, kind, add) => Probe::norm(*width, 3, *kind, *add),
            Case::Embed(format, columns) => Probe::embed(*format, *columns, ROWS, 5),
            Case::Attention(case) => Probe::attention(case),
            Case::Experts(case) => Probe::experts(case),
            Case::Other(case) => Probe::op(case),
        }
    }

    fn name(&self) -> String {
        match self {
            Case::Linear(case, kernel) => {
                let formats: BTreeSet<_> =
                    case.weights.iter().map(|(format, _)| format.name()).collect();
                let formats: Vec<_> = formats.into_iter().collect();
                format!("{} {} of {} columns", kernel.name(), formats.join(", "), case.columns)
            }
            Case::Norm((width, _), ..) => format!("norm of {width}"),
            Case::Embed(format, columns) => format!("embed {} of {columns}", format.name()),
            Case::Attention(case) => format!(
                "attention with heads of {} over {} positions",
                case.layer.key_length,
                case.history + case.tokens
            ),
            Case::Experts(case) => {
                format!("experts {} of {} columns", case.format.name(), case.columns)
            }
            Case::Other(case) => case.name(),
        }
    }
}

/// The distinct things that a plan computes with these kernels, in small.
fn cases(blueprint: &Blueprint, kernels: &Kernels) -> Result<Vec<Case>> {
    let Blueprint { plan, sizes, .. } = blueprint;
    let layout = Layout::new(plan, kernels)?;
    let mut cases: Vec<Case> = Vec::new();
    let mut add = |case: Case| {
        if !cases.contains(&case) {
            cases.push(case);
        }
    };
    // Whether v is apart, whether q and k are normed, and how they turn.
    let mut stored = (false, false, None);
    let mut experts: Option<Routing> = None;
    for (index, op) in plan.ops.iter().enumerate() {
        // Several products may follow a norm.
        let beside = |other: &&Op| match (op, other) {
            (Op::Linear(op::Linear { input, .. }), Op::Linear(op::Linear { input: other, .. })) => {
                input == other
            }
            _ => false,
        };
        let before = plan.ops[..index].iter().rev().find(|other| !beside(other));
        let normed = matches!(before, Some(Op::Norm(op::Norm { add_to: None, .. })));
        match op {
            Op::Embed(op::Embed { table, out, .. }) => {
                add(Case::Embed(plan.weight(*table).format, plan.value(*out).width));
            }
            Op::Norm(op::Norm { out, kind, count, add_to, .. }) => {
                add(Case::Norm((plan.value(*out).width, *count), *kind, add_to.is_some()));
            }
            Op::Linear(linear) => {
                let op::Linear { biases, epilogue, out, .. } = linear;
                let most = match plan.value(*out).rows {
                    Rows::Tokens => sizes.chunk,
                    Rows::Outputs => sizes.outputs,
                };
                let gated = matches!(epilogue, Epilogue::Gated { .. });
                let epilogue = match *epilogue {
                    // Which value it is makes no difference to the kernel.
                    Epilogue::Gated { activation, .. } => {
                        Epilogue::Gated { activation, both: crate::plan::ValueId(2) }
                    }
                    other => other,
                };
                let all = products::of(&layout, linear);
                for (product, tokens) in
                    all.iter().flat_map(|product| [1, 5, TOKENS].map(|tokens| (product, tokens)))
                {
                    if tokens > most {
                        continue;
                    }
                    let matrix = &layout.matrices[product.part.buffer];
                    let columns = matrix.columns;
                    let kernel = kernels.product(&product.shape(&layout, Count::of(tokens)));
                    // Of many tokens a tile and a little more, so that every place in a tile counts.
                    let (rows, tokens) = match Count::of(tokens) {
                        Count::Many => (
                            ROWS.max(kernel.workgroup_rows() as usize + 8),
                            tokens.max(kernel.workgroup_tokens() as usize + 1).min(most),
                        ),
                        _ => (ROWS, tokens),
                    };
                    let case = LinearCase {
                        weights: matrix
                            .sources
                            .iter()
                            .map(|&(_, _, all)| (matrix.format, all.min(rows)))
                            .collect(),
                        columns,
                        tokens,
                        bias: biases.iter().any(Option::is_some),
                        epilogue: if gated && !product.gated { Epilogue::Store } else { epilogue },
                        norm: normed,
                        precision: bounded_by(kernels, kernel),
                    };
                    add(Case::Linear(case, kernel));
                }
            }
            Op::QkRopeStore(op::QkRopeStore { v, q_norm, rope, .. }) => {
                stored = (v.is_some(), q_norm.is_some(), *rope);
            }
            Op::Attention(op::Attention { layer, scale, softcap, sinks, .. }) => {
                let (v_apart, qk_norm, rope) = stored;
                let rope = rope.map(|rope| &plan.ropes[rope.0]);
                let mut layer = *plan.kv_layer(*layer);
                layer.window = layer.window.map(|_| 24);
                // A prompt; a token behind a few; one, and a few, behind so many that they are split.
                let far = kernels.split_from as usize + 70;
                for (tokens, history) in [(70, 0), (1, 40), (1, far), (4, far)] {
                    add(Case::Attention(AttentionCase {
                        layer,
                        tokens,
                        history,
                        style: rope.map_or(RopeStyle::Halves, |rope| rope.style),
                        turned: rope.map_or(0, |rope| rope.pairs() * 2),
                        qk_norm,
                        v_apart,
                        key_type: sizes.key_type,
                        value_type: sizes.value_type,
                        scale: *scale,
                        softcap: *softcap,
                        sinks: sinks.is_some(),
                    }));
                }
            }
            Op::Route(op::Route { routing, .. }) => {
                experts = Some(*routing);
            }
            Op::ExpertsGated(op::ExpertsGated { input, weights, biases, activation, .. }) => {
                let Some(routing) = &experts else { continue };
                let format = plan.weight(weights[0]).format;
                for tokens in [2, TOKENS] {
                    add(Case::Experts(ExpertsCase {
                        format,
                        columns: plan.value(*input).width,
                        width: 64,
                        tokens,
                        routing: routing.in_small(),
                        bias: biases.iter().any(Option::is_some),
                        activation: *activation,
                        fused: weights.len() == 1,
                        precision: match (Count::of(tokens), kernels.precision) {
                            (Count::Many, _) => {
                                bounded_by(kernels, kernels.expert_tiles(plan.value(*input).width))
                            }
                            (_, Precision::F16Tiles) => Precision::F32,
                            (_, precision) => precision,
                        },
                    }));
                }
            }
            // Checked with the experts' first half.
            Op::ExpertsDown(_) => {}
            other => {
                let cases = [1, 5].map(|tokens| OpCase::of(plan, other, tokens.min(sizes.chunk)));
                cases.into_iter().flatten().for_each(|case| add(Case::Other(case)));
            }
        }
    }
    Ok(cases)
}

/// A case that came out wrong.
struct Failure {
    case: Case,
    /// What is wrong, in words.
    what: String,
}

/// The first case that comes out wrong.
fn first_failure(gpu: &Arc<Gpu>, cases: &[Case], kernels: &Kernels) -> Result<Option<Failure>> {
    for case in cases {
        let probe = case.probe()?;
        let forced = match case {
            Case::Linear(_, kernel) => Some(*kernel),
            _ => None,
        };
        let worst = probe.worst(&probe.on_gpu(gpu, &Kernels { forced, ..kernels.clone() })?);
        if worst > 1.0 {
            let with = if kernels.subgroups { " with subgroups" } else { "" };
            let what =
                format!("the kernel {}{with} is off by {worst:.1} times its bound", case.name());
            return Ok(Some(Failure { case: case.clone(), what }));
        }
    }
    Ok(None)
}

/// What goes wrong when ids are chosen on the device: compared with the host's choice from the same logits.
fn selection_failure(
    gpu: &Arc<Gpu>,
    vocabulary: usize,
    kernels: &Kernels,
) -> Result<Option<String>> {
    let greedy = Sampling { repeat_penalty: 1.2, ..Sampling::greedy() };
    let drawn = |top_k, seed| Sampling { top_k, seed, repeat_penalty: 1.2, ..Sampling::default() };
    let differs = |sampling| -> Result<bool> {
        let (ours, host) = choose_both(gpu, vocabulary, kernels, &sampling)?;
        Ok(ours != Some(host))
    };
    if differs(greedy)? {
        return Ok(Some("the choice of the likeliest id is wrong".into()));
    }
    let mut wrong = 0;
    for sampling in [drawn(40, 1), drawn(256, 2), drawn(40, 3)] {
        wrong += usize::from(differs(sampling)?);
    }
    // A draw may fall on an edge between two ids; two of them do not.
    Ok((wrong > 1).then(|| format!("the choice of ids is wrong {wrong} times of 3")))
}

/// Where the verdict on these cases lies: API, adapter, driver, version and cases make its name.
fn verdict_file(gpu: &Gpu, cases: &[Case], vocabulary: usize) -> Option<PathBuf> {
    let version = env!("CARGO_PKG_VERSION");
    let what = format!("{} {version} {vocabulary} {cases:?}", gpu.identity());
    let hash = cache::hash(&what);
    Some(cache::folder()?.join("self-test").join(format!("{hash:016x}")))
}

fn read_verdict(file: &PathBuf, kernels: &Kernels) -> Option<Kernels> {
    let text = fs::read_to_string(file).ok()?;
    let mut words = text.split_whitespace();
    let mut flag = |name: &str, offered: bool| match words.next()?.strip_prefix(name)? {
        "=true" => Some(offered),
        "=false" => Some(false),
        _ => None,
    };
    Some(Kernels {
        subgroups: flag("subgroups", kernels.subgroups)?,
        native_halves: flag("halves", kernels.native_halves)?,
        lanewise: flag("lanewise", kernels.lanewise)?,
        cooperative: flag("cooperative", kernels.cooperative)?,
        tiles: flag("tiles", kernels.tiles)?,
        selection: flag("selection", kernels.selection)?,
        ..kernels.clone()
    })
}

/// Keeps a verdict; where it cannot be written the next run tests again.
fn keep_verdict(file: &PathBuf, kernels: &Kernels) {
    let text = format!(
        "subgroups={} halves={} lanewise={} cooperative={} tiles={} selection={}\n",
        kernels.subgroups,
        kernels.native_halves,
        kernels.lanewise,
        kernels.cooperative,
        kernels.tiles,
        kernels.selection
    );
    if let Some(folder) = file.parent()
        && fs::create_dir_all(folder).is_ok()
    {
        let _ = fs::write(file, text);
    }
}

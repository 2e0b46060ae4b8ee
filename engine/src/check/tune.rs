//! Measures the kernels for a plan's products on an adapter, and keeps which is the fastest.
//!
//! Each product shape of the plan gets a plan of its own with several matrices of that shape, so that
//! caches hold no more of them than they do in a real step; every candidate computes it, and the one of the best
//! median wins, where it still is clearly faster than the default when the two take turns. Times are the device's own
//! where it gives timestamps, else the host's less those of a step with one product: what a submit costs would
//! otherwise count as the product's. The verdict lies in the cache folder, by adapter, driver and version.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gguf::{BytesSource, Format, Gguf, TensorType, Writer};
use serde::{Deserialize, Serialize};

use crate::blueprint::{Blueprint, Sizes};
use crate::executor::{Executor, Precision};
use crate::gpu::choice::{Count, Family, Kernels, ProductKernel, ProductShape};
use crate::gpu::executor::compile;
use crate::gpu::layout::Layout;
use crate::gpu::lower::{Lowering, StepClass};
use crate::gpu::{Gpu, GpuExecutor, GpuWeights, products};
use crate::kv::{KvTable, KvType, PlacedStep};
use crate::plan::{Epilogue, Op, Plan, Rows, Value, ValueId, op};
use crate::profile::median;
use crate::spec::Activation;
use crate::spec::weights::{Weight, WeightId};
use crate::step::{SequenceId, StepToken};
use crate::{Result, cache};

/// What a kernel took for a product.
#[derive(Debug, Clone)]
pub struct Measurement {
    /// The product.
    pub shape: ProductShape,
    /// The kernel.
    pub kernel: ProductKernel,
    /// Seconds a product: the median.
    pub seconds: f64,
    /// Bytes of the matrix as it lies on the device.
    pub bytes: usize,
    /// Rows of the input.
    pub tokens: usize,
}

impl Measurement {
    /// Bytes of weights read a second, in units of 10^9.
    pub fn gigabytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.seconds / 1e9
    }

    /// Multiply-adds a second, in units of 10^9.
    pub fn giga_multiply_adds(&self) -> f64 {
        (self.shape.rows * self.shape.columns * self.tokens) as f64 / self.seconds / 1e9
    }
}

/// Rows of a matrix that are measured at most: more take longer and say no more.
const MOST_ROWS: usize = 16_384;
/// Bytes of matrices that a product is measured over, about: more than most caches.
const MATRIX_BYTES: usize = 96 << 20;
/// The most matrices of a shape.
const MOST_MATRICES: usize = 24;
/// The same for cards, whose caches hold up to 96 MiB.
const CARD_MATRIX_BYTES: usize = 256 << 20;
/// The most matrices of a shape there.
const MOST_CARD_MATRICES: usize = 256;
/// How long a card works before anything is measured: until then its clocks rise.
const WARM_UP: Duration = Duration::from_secs(1);
/// The most matrices that many tokens are multiplied with: they take long, and caches matter little.
const MOST_OF_MANY: usize = 8;
/// Tokens that stand for one, a few and many.
const TOKENS: [usize; 3] = [1, 4, 64];
/// The same for cards: fewer than a prompt's step has do not fill them.
const CARD_TOKENS: [usize; 3] = [1, 4, 512];
/// How much faster than the default a kernel must be to take its place.
const GAIN: f64 = 1.03;
/// Times that a winner and the default are measured in turns.
const TURNS: std::ops::RangeInclusive<usize> = 5..=50;

/// The product shapes that lowering makes of a plan, the largest first. Of the head's no more than one row: a step seldom
/// wants more logits.
///
/// # Errors
/// As [`Layout::new`].
pub fn shapes(plan: &Plan, kernels: &Kernels) -> Result<Vec<ProductShape>> {
    let layout = Layout::new(plan, kernels)?;
    let mut shapes = Vec::new();
    for op in &plan.ops {
        let Op::Linear(linear) = op else { continue };
        for product in products::of(&layout, linear) {
            for count in [Count::One, Count::Few, Count::Many] {
                if count != Count::One && plan.value(linear.out).rows == Rows::Outputs {
                    continue;
                }
                // Where the kernel does not gate, that which gates and that which does not are both to be measured.
                for product in [product, product.as_lowered(&layout, kernels, count)] {
                    let shape = product.shape(&layout, count);
                    if !shapes.contains(&shape) {
                        shapes.push(shape);
                    }
                }
            }
        }
    }
    // The largest first: they take the most of a step. What is measured over the same matrices goes together, decode
    // first: it is what a person waits for.
    shapes.sort_by_key(|shape| {
        let ProductShape { format, rows, columns, gated, count } = *shape;
        (std::cmp::Reverse(rows * columns), columns, format.id(), gated, count)
    });
    Ok(shapes)
}

/// The shape that is measured for another: of no more rows than say something.
pub fn measured_shape(shape: &ProductShape) -> ProductShape {
    ProductShape { rows: shape.rows.min(MOST_ROWS), ..*shape }
}

/// A plan that multiplies with matrices of one shape, one after the other, ready on the device.
struct Bench {
    gpu: Arc<Gpu>,
    /// The shape asked for, of any number of input rows.
    of: ProductShape,
    /// The same with no more rows than are measured.
    shape: ProductShape,
    weights: GpuWeights,
    plan: Arc<Plan>,
    matrices: usize,
    bytes: usize,
}

impl Bench {
    /// Makes matrices of `shape` on the device.
    fn new(gpu: &Arc<Gpu>, shape: ProductShape) -> Result<Self> {
        let of = shape;
        let shape = measured_shape(&shape);
        let bytes = shape.format.bytes(shape.rows * shape.columns);
        let (all, most) = if gpu.is_card {
            (CARD_MATRIX_BYTES, MOST_CARD_MATRICES)
        } else {
            (MATRIX_BYTES, MOST_MATRICES)
        };
        let matrices = (all / bytes.max(1)).clamp(2, most);
        let parts = if shape.gated { 2 } else { 1 };
        let rows = shape.rows / parts;
        let mut writer = Writer::new();
        let mut list = Vec::new();
        let mut ops = Vec::new();
        let data = shape.format.sample(1, shape.columns * rows);
        for _ in 0..matrices {
            let mut ids = Vec::new();
            for _ in 0..parts {
                let name = format!("w{}", list.len());
                let dimensions = [shape.columns as u64, rows as u64];
                writer.tensor(&name, &dimensions, TensorType(shape.format.id()), data.clone())?;
                ids.push(WeightId(list.len()));
                list.push(Weight {
                    name,
                    format: shape.format,
                    columns: shape.columns,
                    rows,
                    scale: 1.0,
                });
            }
            let epilogue = if shape.gated {
                Epilogue::Gated { activation: Activation::Silu, both: ValueId(2) }
            } else {
                Epilogue::Store
            };
            let (input, out) = (ValueId(0), ValueId(1));
            ops.push(Op::Linear(op::Linear {
                input,
                biases: vec![None; parts],
                weights: ids,
                factor: 1.0,
                epilogue,
                before: None,
                offset: 0,
                out,
            }));
        }
        let value = |name, width| Value { name, width, rows: Rows::Tokens };
        let plan = Arc::new(Plan {
            ops,
            values: vec![
                value("input", shape.columns),
                value("out", rows),
                value("both", shape.rows),
            ],
            weights: list,
            logits: ValueId(1),
            ..Plan::default()
        });
        let source = BytesSource::new("measurement", writer.to_bytes());
        let file = Gguf::from_sources(vec![Arc::new(source)])?;
        let weights =
            GpuWeights::load(gpu.clone(), &file, &plan, gpu.kernels.clone(), &mut |_, _| ())?;
        Ok(Self { gpu: gpu.clone(), of, shape, weights, plan, matrices, bytes })
    }

    /// Whether its matrices are those of `shape`.
    fn is_of(&self, shape: &ProductShape) -> bool {
        ProductShape { count: self.of.count, ..*shape } == self.of
    }

    /// How many rows of input stand for `count`.
    fn tokens(&self, count: Count) -> usize {
        (if self.gpu.is_card { CARD_TOKENS } else { TOKENS })[count as usize]
    }

    /// The sizes of a context for steps of `tokens`.
    fn sizes(tokens: usize) -> Sizes {
        let kind = KvType::F32;
        Sizes {
            positions: tokens,
            pool: tokens,
            sequences: 1,
            chunk: tokens,
            outputs: 1,
            key_type: kind,
            value_type: kind,
        }
    }

    /// Compiles kernels on several threads.
    fn compile(&self, kernels: &Kernels, count: Count, tried: &[ProductKernel]) -> Result<()> {
        let tokens = self.tokens(count);
        let blueprint = Blueprint::of(self.plan.clone(), Self::sizes(tokens));
        let mut all = Vec::new();
        for &kernel in tried {
            let kernels = Kernels { forced: Some(kernel), ..kernels.clone() };
            let class = StepClass::of(tokens, 0);
            let layout = &self.weights.layout;
            all.extend(
                Lowering { blueprint: &blueprint, layout, kernels: &kernels, class }.lower()?,
            );
        }
        compile(&self.gpu, &all)
    }

    /// Makes a kernel ready to multiply `count` rows of input.
    fn ready(&self, kernels: &Kernels, kernel: ProductKernel, count: Count) -> Result<Ready> {
        let weights = Arc::new(
            self.weights.with_kernels(Kernels { forced: Some(kernel), ..kernels.clone() }),
        );
        let tokens = self.tokens(count);
        let blueprint = |products: usize| {
            let ops = self.plan.ops[..products].to_vec();
            let plan = Plan { ops, ..(*self.plan).clone() };
            Blueprint::of(plan, Self::sizes(tokens))
        };
        let most = if count == Count::Many { MOST_OF_MANY } else { usize::MAX };
        let products = self.matrices.min(most);
        let one = if self.gpu.need_timestamps().is_ok() {
            None
        } else {
            Some(GpuExecutor::new(weights.clone(), blueprint(1))?)
        };
        let blueprint = blueprint(products);
        let mut table = blueprint.table(tokens);
        let executor = GpuExecutor::new(weights, blueprint)?;
        let rows: Vec<_> = StepToken::run(SequenceId(0), 0, &vec![0; tokens], false)
            .into_iter()
            .map(|token| StepToken { want_logits: false, ..token })
            .collect();
        let prepared = table.prepare(&rows)?;
        let (shape, bytes) = (ProductShape { count, ..self.shape }, self.bytes);
        let result = Measurement { shape, kernel, seconds: 0.0, bytes, tokens };
        Ok(Ready { executor, one, products, table, prepared, result })
    }

    /// Measures a kernel for `count` rows of input: after a first run, and more for as long as `warm_up`, runs until
    /// `patience` is over, at least three unless it is much slower than `best` seconds.
    fn measure(
        &self,
        kernels: &Kernels,
        (kernel, count): (ProductKernel, Count),
        best: Option<f64>,
        (warm_up, patience): (Duration, Duration),
    ) -> Result<Measurement> {
        let mut ready = self.ready(kernels, kernel, count)?;
        let start = Instant::now();
        ready.seconds()?;
        while start.elapsed() < warm_up {
            ready.seconds()?;
        }
        let start = Instant::now();
        let mut samples = vec![ready.seconds()?];
        let hopeless = best.is_some_and(|best| samples[0] > 1.5 * best);
        while !hopeless && (samples.len() < 3 || start.elapsed() < patience) && samples.len() < 100
        {
            samples.push(ready.seconds()?);
        }
        Ok(ready.measured(samples))
    }

    /// Measures two kernels in turns until `patience` is over: clocks that rise and noise are both's.
    fn measure_in_turns(
        &self,
        kernels: &Kernels,
        two: [ProductKernel; 2],
        count: Count,
        patience: Duration,
    ) -> Result<[Measurement; 2]> {
        let [first, second] = two;
        let (mut first, mut second) =
            (self.ready(kernels, first, count)?, self.ready(kernels, second, count)?);
        first.seconds()?;
        second.seconds()?;
        let mut samples = [Vec::new(), Vec::new()];
        let start = Instant::now();
        for turn in 1..=*TURNS.end() {
            samples[0].push(first.seconds()?);
            samples[1].push(second.seconds()?);
            if turn >= *TURNS.start() && start.elapsed() >= patience {
                break;
            }
        }
        let [of_first, of_second] = samples;
        Ok([first.measured(of_first), second.measured(of_second)])
    }
}

/// A kernel that is ready to run.
struct Ready {
    executor: GpuExecutor,
    /// The same with one product, where the device's clock cannot be read.
    one: Option<GpuExecutor>,
    /// How many products a step has.
    products: usize,
    table: KvTable,
    prepared: PlacedStep,
    /// What is measured, still without its time.
    result: Measurement,
}

impl Ready {
    /// Runs it: the seconds of a product.
    fn seconds(&mut self) -> Result<f64> {
        let products = self.products as f64;
        let Some(one) = &mut self.one else {
            let profile = self.executor.time_dispatches(&self.table, &self.prepared)?;
            let all: f64 = profile.dispatches.iter().map(|timed| timed.nanoseconds).sum();
            return Ok(all / 1e9 / products);
        };
        let host = |executor: &mut GpuExecutor| -> Result<f64> {
            let start = Instant::now();
            executor.step(&self.table, &self.prepared)?;
            executor.logits()?;
            Ok(start.elapsed().as_secs_f64())
        };
        let (one, all) = (host(one)?, host(&mut self.executor)?);
        // A disturbed first one says nothing.
        Ok(if one < all { (all - one) / (products - 1.0) } else { all / products })
    }

    fn measured(self, samples: Vec<f64>) -> Measurement {
        Measurement { seconds: median(samples.into_iter()), ..self.result }
    }
}

/// Measures the kernels that would be chosen for a product with `shape`'s matrices, for each of `counts` rows of input,
/// as [`tune`] measures.
pub fn measure(
    gpu: &Arc<Gpu>,
    shape: ProductShape,
    counts: &[Count],
    kernels: &Kernels,
) -> Result<Vec<Measurement>> {
    let bench = Bench::new(gpu, shape)?;
    let patience = Duration::from_millis(200);
    let of = |&count: &Count| {
        let kernel = kernels.product(&ProductShape { count, ..shape });
        bench.measure(kernels, (kernel, count), None, (Duration::ZERO, patience))
    };
    counts.iter().map(of).collect()
}

/// Measures the candidates for each of `shapes` within `limit`; `report` hears of every measurement, of a winner and the
/// default in the end once more. Answers the fastest of each shape; shapes for which no time was left keep their default and are left out.
pub fn tune(
    gpu: &Arc<Gpu>,
    shapes: &[ProductShape],
    kernels: &Kernels,
    limit: Duration,
    report: &mut dyn FnMut(&Measurement),
) -> Result<BTreeMap<ProductShape, ProductKernel>> {
    let mut start = Instant::now();
    let mut verdict = BTreeMap::new();
    let mut last: Option<Bench> = None;
    // As many as compile at a time.
    let together =
        std::thread::available_parallelism().map_or(1, std::num::NonZero::get).clamp(2, 8);
    for (index, &shape) in shapes.iter().enumerate() {
        // What is left is shared by the shapes that are left.
        let share = limit.saturating_sub(start.elapsed()) / (shapes.len() - index) as u32;
        if share.is_zero() {
            break;
        }
        let began = Instant::now();
        let bench = match last.take().filter(|bench| bench.is_of(&shape)) {
            Some(bench) => bench,
            None => Bench::new(gpu, shape)?,
        };
        let mut best: Option<Measurement> = None;
        let candidates = kernels.candidates(&shape);
        for (number, &kernel) in candidates.iter().enumerate() {
            if best.is_some() && began.elapsed() >= share {
                break;
            }
            if number % together == 0 {
                let next = &candidates[number..candidates.len().min(number + together)];
                bench.compile(kernels, shape.count, next)?;
            }
            if index == 0 && number == 0 && kernels.adapter.family != Family::Software {
                let times = (WARM_UP, Duration::ZERO);
                bench.measure(kernels, (kernel, shape.count), None, times)?;
                start += WARM_UP;
            }
            let seconds = best.as_ref().map(|best| best.seconds);
            let times = (Duration::ZERO, share / 40);
            let measured = bench.measure(kernels, (kernel, shape.count), seconds, times)?;
            report(&measured);
            if best.as_ref().is_none_or(|best| measured.seconds < best.seconds) {
                best = Some(measured);
            }
        }
        if let Some(best) = best {
            let mut kernel = best.kernel;
            // The default stays unless another is clearly faster when both are measured anew: noise must not choose.
            if kernel != candidates[0] {
                let both = [candidates[0], kernel];
                let [default, other] =
                    bench.measure_in_turns(kernels, both, shape.count, share / 10)?;
                report(&default);
                report(&other);
                if default.seconds < GAIN * other.seconds {
                    kernel = candidates[0];
                }
            }
            verdict.insert(shape, kernel);
        }
        last = Some(bench);
    }
    Ok(verdict)
}

/// A line of the file that keeps a verdict.
#[derive(Serialize, Deserialize)]
struct Kept {
    format: u32,
    rows: usize,
    columns: usize,
    gated: bool,
    count: Count,
    precision: String,
    kernel: ProductKernel,
}

/// Where the verdicts of this API, adapter, driver and version lie; none without a cache folder.
pub fn file(gpu: &Gpu) -> Option<PathBuf> {
    let what = format!("{} {}", gpu.identity(), env!("CARGO_PKG_VERSION"));
    let name = format!("{:016x}.json", cache::hash(&what));
    Some(cache::folder()?.join("tune").join(name))
}

fn read_all(gpu: &Gpu) -> Vec<Kept> {
    file(gpu)
        .and_then(|file| fs::read_to_string(file).ok())
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default()
}

/// What `tune` found earlier on this adapter for a precision; nothing where it never ran.
pub fn read(gpu: &Gpu, precision: Precision) -> BTreeMap<ProductShape, ProductKernel> {
    let of_class = read_all(gpu).into_iter().filter(|kept| kept.precision == precision.name());
    let entry = |kept: Kept| {
        let format = *Format::ALL.iter().find(|format| format.id() == kept.format)?;
        let Kept { rows, columns, gated, count, kernel, .. } = kept;
        Some((ProductShape { format, rows, columns, gated, count }, kernel))
    };
    of_class.filter_map(entry).collect()
}

/// Keeps a verdict in place of earlier ones on the same shapes. Answers the file, or none where there is no cache
/// folder.
pub fn keep(
    gpu: &Gpu,
    precision: Precision,
    verdict: &BTreeMap<ProductShape, ProductKernel>,
) -> std::io::Result<Option<PathBuf>> {
    let Some(file) = file(gpu) else { return Ok(None) };
    let mut all = read(gpu, precision);
    all.extend(verdict.iter().map(|(shape, kernel)| (*shape, *kernel)));
    let mut kept = read_all(gpu);
    kept.retain(|kept| kept.precision != precision.name());
    kept.extend(all.into_iter().map(|(shape, kernel)| {
        let ProductShape { format, rows, columns, gated, count } = shape;
        let precision = precision.name().to_string();
        Kept { format: format.id(), rows, columns, gated, count, precision, kernel }
    }));
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&file, serde_json::to_string_pretty(&kept)?)?;
    Ok(Some(file))
}

//! Which kernel multiplies a matrix, in which shape: what an adapter may use, defaults by its maker, and what
//! `engine tune` measured.

mod lanewise;

use std::collections::BTreeMap;

use gguf::Format;
use serde::{Deserialize, Serialize};
use shaders::Multiplies;

pub use super::facts::{Adapter, Family};
use crate::executor::Precision;

/// The most parts that a context's cells are split into for attention.
pub const MOST_PARTS: u32 = 64;

/// Which kernels an adapter is asked for: what its facts allow, less what the self-test took away, with what tuning found and
/// tests force; and how exactly they compute, which is the model's choice.
#[allow(clippy::struct_excessive_bools, reason = "independent abilities, each its own")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernels {
    /// What they run on.
    pub adapter: Adapter,
    /// Whether subgroup operations may be used.
    pub subgroups: bool,
    /// Whether many rows are multiplied by tiles; if not, row by row.
    pub tiles: bool,
    /// Whether `lanewise` may be used.
    pub lanewise: bool,
    /// Whether `matmul_cooperative` may be used.
    pub cooperative: bool,
    /// Whether attention has many loads in flight, by loops unrolled: a card waits for its memory, a software driver for
    /// its compiler.
    pub unrolls: bool,
    /// Whether ids are chosen on the device.
    pub selection: bool,
    /// Whether `unpack2x16float` gives every half exactly, the subnormal too.
    pub native_halves: bool,
    /// How exactly products are computed.
    pub precision: Precision,
    /// Attention of few tokens over this many positions is split into parts.
    pub split_from: u32,
    /// What was measured to be the fastest.
    pub tuned: BTreeMap<ProductShape, ProductKernel>,
    /// A kernel that is used wherever it can be, for tests and measurements.
    pub forced: Option<ProductKernel>,
}

/// How many rows a step's value has: decides between kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Count {
    /// One.
    One,
    /// Two to [`FEW`].
    Few,
    /// More.
    Many,
}

/// Up to this many rows are [`Count::Few`].
pub const FEW: usize = 8;

/// The most tokens of a tile of cooperative matrices.
pub const MOST_TILE_TOKENS: usize = 128;

impl Count {
    /// Of a number of rows.
    pub fn of(rows: usize) -> Self {
        match rows {
            0 | 1 => Self::One,
            2..=FEW => Self::Few,
            _ => Self::Many,
        }
    }
}

/// A matrix product, as far as the choice of its kernel goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProductShape {
    /// The matrix's format.
    pub format: Format,
    /// Its rows (of gate and up together).
    pub rows: usize,
    /// Its columns.
    pub columns: usize,
    /// Whether gate and up are one dispatch with their activation.
    pub gated: bool,
    /// Rows of the input.
    pub count: Count,
}

impl ProductShape {
    /// Whether a gap between dispatches, of about 3 us, is longer than a card of 1 TB/s takes to read the matrix.
    fn is_small(&self) -> bool {
        self.format.bytes(self.rows * self.columns) <= 3 << 20
    }
}

/// What a lane of a mat-vec kernel takes of a row in a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Take {
    /// A group: 32 neighbouring weights.
    Group,
    /// A quarter of a group, so that four lanes share it.
    Quarter,
    /// A quarter of each of four neighbouring groups, whose scales are decoded once; of one token, or it takes more
    /// registers than there are.
    Quad,
}

impl Take {
    /// The name that the kernel's text asks for.
    pub fn define(self) -> Option<&'static str> {
        match self {
            Self::Group => None,
            Self::Quarter => Some("SPLIT"),
            Self::Quad => Some("QUADS"),
        }
    }
}

/// A kernel in a shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kernel", rename_all = "lowercase")]
pub enum ProductKernel {
    /// The lanes of a workgroup share the columns of a few rows.
    Matvec {
        /// Lanes of a workgroup.
        lanes: u32,
        /// Rows of a workgroup.
        rows: u32,
        /// Tokens of a workgroup.
        tokens: u32,
        /// What a lane takes in a turn.
        take: Take,
    },
    /// Each lane has rows of its own.
    Lanewise {
        /// Lanes of a workgroup.
        lanes: u32,
        /// Rows of a lane.
        rows: u32,
        /// Tokens of a lane.
        tokens: u32,
    },
    /// Tiles in workgroup memory.
    Matmul {
        /// Tokens of a tile, and half the lanes of a workgroup: 32 or 64.
        tokens: u32,
    },
    /// Tiles of halves, multiplied by the adapter's matrix units.
    Cooperative {
        /// Tokens of a tile, and half the lanes of a workgroup: 64 or 128.
        tokens: u32,
        /// Blocks of eight matrices of sums that a subgroup may have to keep.
        blocks: u32,
        /// Groups of columns that a step takes: 1 or 2.
        groups: u32,
    },
}

impl ProductKernel {
    /// The kernel's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Matvec { .. } => "matvec",
            Self::Lanewise { .. } => "lanewise",
            Self::Matmul { .. } => "matmul",
            Self::Cooperative { .. } => "matmul_cooperative",
        }
    }

    /// Whether it can apply an activation to gate and up, or norm its input.
    pub fn can_fuse(self) -> bool {
        matches!(self, Self::Matvec { .. } | Self::Lanewise { .. })
    }

    /// Whether its inputs are halves, rounded before.
    pub fn takes_halves(self) -> bool {
        matches!(self, Self::Cooperative { .. })
    }

    /// What multiplies, where products with this format are computed so exactly.
    pub fn multiplies(self, precision: Precision, format: Format) -> Multiplies {
        if self.takes_halves() {
            Multiplies::Matrices
        } else if precision.rounds_inputs(format) {
            Multiplies::Bytes
        } else {
            Multiplies::Floats
        }
    }

    /// Rows of a workgroup.
    pub fn workgroup_rows(self) -> u32 {
        match self {
            Self::Matvec { rows, .. } => rows,
            Self::Lanewise { lanes, rows, .. } => lanes * rows,
            Self::Matmul { .. } => 64,
            Self::Cooperative { .. } => 128,
        }
    }

    /// Tokens of a workgroup.
    pub fn workgroup_tokens(self) -> u32 {
        match self {
            Self::Matvec { tokens, .. }
            | Self::Lanewise { tokens, .. }
            | Self::Matmul { tokens }
            | Self::Cooperative { tokens, .. } => tokens,
        }
    }
}

impl Kernels {
    /// All kernels of class f32 that run on any such adapter: no matrix units, halves as the driver converts them.
    pub fn new(adapter: Adapter) -> Self {
        let is_software = adapter.family == Family::Software;
        Self {
            adapter,
            subgroups: adapter.has_subgroups,
            tiles: true,
            lanewise: true,
            cooperative: false,
            unrolls: !is_software,
            selection: true,
            native_halves: true,
            precision: Precision::F32,
            // Two rounds of attention one after the other take as long as merging parts; lavapipe's rounds are cheaper.
            split_from: if is_software { 512 } else { 128 },
            tuned: BTreeMap::new(),
            forced: None,
        }
    }

    /// The class of precision that products are computed in where this one is asked for: `F32` in place of `F16Tiles`
    /// without matrix units.
    pub fn possible(&self, precision: Precision) -> Precision {
        let halves = precision == Precision::F16Tiles;
        if halves && !self.cooperative { Precision::F32 } else { precision }
    }

    /// Whether a kernel may be used here.
    pub fn allows(&self, kernel: ProductKernel, shape: &ProductShape) -> bool {
        let one = shape.count == Count::One;
        let several = kernel.workgroup_tokens() > 1;
        let fits = match kernel {
            ProductKernel::Matvec { take, .. } => {
                self.can_take(take, shape.format, shape.columns) && (take != Take::Quad || !several)
            }
            ProductKernel::Lanewise { lanes, .. } => self.can_lanewise() && lanes >= 8,
            ProductKernel::Matmul { tokens } => self.tiles && [32, 64].contains(&tokens) && !one,
            ProductKernel::Cooperative { tokens, groups, .. } => {
                self.cooperative(shape.columns, tokens, groups) == Some(kernel)
                    && self.precision == Precision::F16Tiles
                    && shape.count == Count::Many
            }
        };
        fits && !(one && several)
    }

    /// Whether a product's kernel should norm its input itself. That saves a dispatch and costs every workgroup a
    /// second read of the norm's factors: worth it where a gap between dispatches costs more.
    pub fn fuses_norm(&self, shape: &ProductShape) -> bool {
        let pays = self.adapter.family == Family::Software || shape.is_small();
        pays && self.product(shape).can_fuse()
    }

    /// Into how many parts the cells of a long context are split, where `tiles` workgroups a token would work on them
    /// otherwise: as many as give each core about four, where wgpu does not tell the cores.
    pub fn attention_parts(&self, tiles: u32, count: Count) -> u32 {
        let workgroups = match self.adapter.family {
            Family::Software => 16,
            Family::Intel | Family::Apple | Family::Other => 128,
            // An H100 has 132 multiprocessors, an RX 7900 XTX 96 compute units.
            Family::Nvidia | Family::Amd => 512,
        };
        let tokens = if count == Count::One { 1 } else { 4 };
        (workgroups / (tiles * tokens).max(1)).clamp(1, MOST_PARTS)
    }

    /// Whether a lane of a mat-vec kernel may take so much of rows in a format.
    fn can_take(&self, take: Take, format: Format, columns: usize) -> bool {
        // Rounding to bytes needs a whole group's inputs in a lane.
        let parts = format.has_codes() && !self.precision.rounds_inputs(format);
        match take {
            Take::Group => true,
            Take::Quarter => parts,
            Take::Quad => parts && columns.is_multiple_of(128),
        }
    }

    /// What a lane takes of rows in a format, by default; of a product that `may_norm` its input.
    pub fn take(&self, format: Format, columns: usize, tokens: u32, may_norm: bool) -> Take {
        let quads = match self.adapter.family {
            Family::Software => false,
            // Four groups a lane halve the width of Intel's instructions, mostly. By its compiler they pay where scales are
            // dear to unpack, and where inputs are normed of some others (docs/kernels.md; no card has run them).
            Family::Intel => match format {
                Format::Q4_K | Format::Q5_K | Format::Q6_K => true,
                Format::Q4_0 | Format::Q5_0 | Format::Q8_0 | Format::IQ4_NL | Format::MXFP4 => {
                    may_norm
                }
                _ => false,
            },
            _ => true,
        };
        let quads = quads && tokens == 1;
        let best = if quads { Take::Quad } else { Take::Quarter };
        [best, Take::Quarter]
            .into_iter()
            .find(|&take| self.can_take(take, format, columns))
            .unwrap_or(Take::Group)
    }

    /// Cooperative matrices in tiles of so many tokens, where they may be used. Subgroups may be of any size up to 64,
    /// each compiled kernel's of its own: with more than 16 matrices of sums each they would not fit into registers.
    fn cooperative(&self, columns: usize, tokens: u32, groups: u32) -> Option<ProductKernel> {
        // Two tiles of halves, padded, and four matrices of sums.
        let bytes = (128 + tokens) * (64 * groups + 16) + 4096;
        let fits = self.subgroups
            && self.adapter.subgroup_max <= 64
            && [64, 128].contains(&tokens)
            // Their inputs lie in whole tiles, as long as this.
            && tokens as usize <= MOST_TILE_TOKENS
            && [1, 2].contains(&groups)
            && bytes <= self.adapter.max_workgroup_bytes
            && (columns / 32).is_multiple_of(groups as usize);
        // Of blocks of 32 rows for 64 tokens there is one for 32 lanes.
        let blocks = self.adapter.subgroup_max.div_ceil(32);
        (self.cooperative && fits).then_some(ProductKernel::Cooperative { tokens, blocks, groups })
    }

    /// The tiles that multiply many rows of input. Larger ones decode and read less; of the rows of a small matrix they
    /// make too few workgroups to fill a card.
    fn default_tiles(&self, shape: &ProductShape) -> ProductKernel {
        let halves = self.precision == Precision::F16Tiles && shape.count == Count::Many;
        let tokens = if shape.rows < 4096 { 64 } else { 128 };
        [2, 1]
            .into_iter()
            .find_map(|groups| self.cooperative(shape.columns, tokens, groups))
            .filter(|_| halves)
            .unwrap_or(ProductKernel::Matmul { tokens: if shape.rows <= 1024 { 32 } else { 64 } })
    }

    /// The tiles that multiply many pairs of experts.
    pub fn expert_tiles(&self, columns: usize) -> ProductKernel {
        // Few pairs choose one expert: larger tiles would be emptier.
        let halves = self.precision == Precision::F16Tiles;
        [2, 1]
            .into_iter()
            .find_map(|groups| self.cooperative(columns, 64, groups))
            .filter(|_| halves)
            .unwrap_or(ProductKernel::Matmul { tokens: 32 })
    }

    /// Pairs of such a tile, whatever the columns: pairs are cut into tiles once for all products of a layer.
    pub fn expert_tile_pairs(&self) -> u32 {
        // What fits for two groups of columns fits for one.
        self.expert_tiles(32).workgroup_tokens()
    }

    /// The lanes of a subgroup, where one workgroup should be one.
    fn subgroup_lanes(&self) -> u32 {
        if self.subgroups { self.adapter.subgroup_max.clamp(8, 64) } else { 32 }
    }

    /// The kernel for a product: what was measured, else the default.
    pub fn product(&self, shape: &ProductShape) -> ProductKernel {
        match self.forced.as_ref().or_else(|| self.tuned.get(shape)) {
            Some(&kernel) if self.allows(kernel, shape) => kernel,
            _ => self.default_product(shape),
        }
    }

    /// What a kernel's text must define for the precision of a format's products.
    pub fn precision_define(&self, format: Format) -> Option<&'static str> {
        // matmul_cooperative has nothing but halves.
        self.precision.rounds_inputs(format).then_some("INT8")
    }

    /// The default of the adapter's maker, from what llama.cpp's Vulkan, Metal and WebGPU back ends chose
    /// after measuring on many cards.
    pub fn default_product(&self, shape: &ProductShape) -> ProductKernel {
        let lanes = self.subgroup_lanes();
        let tiles = self.tiles && shape.count == Count::Many;
        let tiled = self.default_tiles(shape);
        if tiles && tiled.takes_halves() {
            return tiled;
        }
        if self.adapter.family == Family::Software && self.can_lanewise() {
            return self.default_lanewise(shape);
        }
        if tiles {
            return tiled;
        }
        let several = if shape.count == Count::One { 1 } else { 4 };
        let take = self.take(shape.format, shape.columns, several, shape.is_small());
        // Whole groups of four tokens' inputs are more than Intel's 128 registers; with floats, than the 132 that older
        // compilers give AMD's.
        let crowded = match self.adapter.family {
            Family::Intel => take == Take::Group,
            Family::Amd => !shape.format.has_codes(),
            _ => false,
        };
        let tokens = if crowded { several.min(2) } else { several };
        // A core holds 64 subgroups of NVIDIA's and 32 workgroups; Apple's likes two subgroups a workgroup as well. What
        // takes quads has registers for 32 subgroups a core, and one to a workgroup waits for no other (an H100, docs/decisions.md).
        let lanes = match self.adapter.family {
            Family::Nvidia if take == Take::Quad => lanes,
            Family::Nvidia | Family::Apple => lanes * 2,
            _ => lanes,
        };
        let rows: u32 = match (self.adapter.family, shape.format) {
            (Family::Software, _) => 8,
            // What a lane holds of the inputs serves two rows.
            _ if take == Take::Quad => 2,
            (Family::Other, _) => 4,
            (_, Format::F32) => 1,
            _ => 2,
        };
        // Long rows of small matrices need more lanes to fill the card. Not on Intel: eight subgroups of 16 wait twice a row
        // for each other, for four turns of work.
        let most_rows = if take == Take::Quad { 4096 } else { 8192 };
        let wide = self.adapter.family == Family::Nvidia
            && shape.rows <= most_rows
            && shape.columns >= 1024;
        let wanted = if wide { 128 } else { lanes };
        // More lanes than a row has turns for would stand idle.
        let turns = shape.columns / if take == Take::Quarter { 8 } else { 32 };
        let lanes = wanted.min((turns as u32).next_power_of_two()).max(self.subgroup_lanes());
        let rows = if shape.gated { rows.div_ceil(2) } else { rows };
        ProductKernel::Matvec { lanes, rows, tokens, take }
    }

    /// The kernels worth measuring for a product, the default first.
    pub fn candidates(&self, shape: &ProductShape) -> Vec<ProductKernel> {
        let mut all = vec![self.default_product(shape)];
        let lanes = self.subgroup_lanes();
        let tokens: &[u32] = match shape.count {
            Count::One => &[1],
            Count::Few => &[2, 4, 8],
            Count::Many => &[4, 8],
        };
        if self.adapter.family == Family::Software {
            all.extend(self.lanewise_candidates(tokens));
        }
        if shape.count != Count::Many {
            for lanes in [lanes, lanes * 2, lanes * 4] {
                for rows in [2, 4, 1, 8] {
                    for &tokens in tokens {
                        for take in [Take::Quad, Take::Quarter, Take::Group] {
                            all.push(ProductKernel::Matvec { lanes, rows, tokens, take });
                        }
                    }
                }
            }
        }
        all.extend([64, 32].map(|tokens| ProductKernel::Matmul { tokens }));
        all.extend(
            [(128, 2), (64, 2), (128, 1), (64, 1)]
                .into_iter()
                .filter_map(|(tokens, groups)| self.cooperative(shape.columns, tokens, groups)),
        );
        // More sums and inputs than this do not stay in registers: a lane keeps a group of each token, or a quarter of
        // one. As the compilers for gfx1100 and Intel's chips say (tests/compilers asks them); NVIDIA's lanes have 255.
        let most = |take: Take| match (self.adapter.family, take) {
            (Family::Intel, Take::Quarter) => 48,
            (Family::Intel, _) => 39,
            (Family::Amd, Take::Quarter) => 95,
            (Family::Amd, _) => 79,
            _ => 192,
        };
        let registers = |kernel: &ProductKernel| match *kernel {
            ProductKernel::Matvec { rows, tokens, take, .. } => {
                let sums = rows * tokens * if shape.gated { 2 } else { 1 };
                let inputs = tokens * if take == Take::Quarter { 8 } else { 32 };
                sums <= 32 && sums + inputs <= most(take)
            }
            // Only software drivers get these.
            ProductKernel::Lanewise { rows, tokens, .. } => {
                rows * tokens * if shape.gated { 2 } else { 1 } <= 32
            }
            ProductKernel::Matmul { .. } | ProductKernel::Cooperative { .. } => true,
        };
        let mut seen = std::collections::BTreeSet::new();
        let default = all[0];
        all.retain(|kernel| {
            let fits = registers(kernel) || *kernel == default;
            self.allows(*kernel, shape) && fits && seen.insert(*kernel)
        });
        all
    }
}

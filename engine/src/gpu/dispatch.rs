//! What a dispatch is: a kernel, what it binds, its numbers, its grid.

use shaders::Variant;

use super::layout::VectorId;
use crate::plan::{KvLayerId, RopeId, Rows, StateId, ValueId};

/// What a dispatch binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resource {
    /// One of `Layout::matrices`.
    Matrix(usize),
    /// A vector.
    Vector(VectorId),
    /// An activation.
    Value(ValueId),
    /// The keys of a layer.
    Keys(KvLayerId),
    /// The values of a layer.
    Values(KvLayerId),
    /// The step's tokens.
    Tokens,
    /// Which tokens' logits are wanted.
    Outputs,
    /// Cosines and sines of the step's tokens.
    Angles(RopeId),
    /// How the next ids are chosen.
    Selections,
    /// A state of all sequences.
    State(StateId),
    /// A buffer that the context has once.
    Scratch(Scratch),
}

/// A number of workgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Always so many.
    Fixed(u32),
    /// One for each so many rows of a value.
    Per(Rows, u32),
    /// So many for each token.
    Times(u32),
    /// As many tiles as pairs of a token and an expert can make: `used` a token, `per` a tile, and one begun for each expert.
    Tiles {
        /// Pairs a token.
        used: u32,
        /// Pairs a tile.
        per: u32,
        /// Experts.
        experts: u32,
    },
}

impl Extent {
    /// The number for a step of `tokens` tokens, of which `outputs` want logits.
    pub fn count(self, tokens: u32, outputs: u32) -> u32 {
        match self {
            Extent::Fixed(n) => n,
            Extent::Per(Rows::Tokens, per) => tokens.div_ceil(per),
            Extent::Per(Rows::Outputs, per) => outputs.div_ceil(per),
            Extent::Times(n) => tokens * n,
            Extent::Tiles { used, per, experts } => {
                // Every expert that has pairs may leave one tile begun.
                (tokens * used) / per + experts.min(tokens * used)
            }
        }
    }
}

/// One dispatch.
#[derive(Debug, Clone, PartialEq)]
pub struct Dispatch {
    /// The kernel.
    pub variant: Variant,
    /// What it binds, by the kernel's names.
    pub bindings: Vec<(&'static str, Resource)>,
    /// The numbers of its `params`, by the kernel's names, as bits.
    pub params: Vec<(&'static str, u32)>,
    /// Workgroups.
    pub grid: [Extent; 3],
    /// The op it belongs to.
    pub op: usize,
    /// Multiply-adds for each row of its input, about.
    pub work: u64,
}

/// A buffer that a context has once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scratch {
    /// The numbers of a step, as `Numbers` lays them out.
    Numbers,
    /// Which blocks hold the sequences' positions.
    Tables,
    /// The id last selected on the GPU for each seat, and whether a logit was no finite number.
    Selected,
    /// The counts of the step.
    Step,
    /// Where logits come to the host.
    LogitsReadback,
    /// Where a block of all layers comes to the host.
    BlockReadback,
    /// Where a block, or a state, waits on its way to another place in the same buffer.
    BlockCopy,
    /// Candidates for the next id; the rounds of a choice take turns between these and the others.
    Candidates,
    /// The other candidates.
    OtherCandidates,
    /// What workgroups made of parts of the cells: sums.
    PartSums,
    /// The same: maxima and totals.
    PartMaxima,
    /// Pairs of a token and an expert, cut into tiles.
    ExpertTiles,
    /// A product's input rounded to bytes or halves.
    Rounded,
    /// What these were divided by.
    RoundedScales,
    /// The last ids of each seat's sequence, and how many there were.
    Recent,
    /// Set where a logit that a selection reads is no finite number.
    Flags,
    /// Where selected ids come to the host, with what follows them in their buffer.
    IdReadback,
    /// Where those of the step after it come.
    OtherIdReadback,
}

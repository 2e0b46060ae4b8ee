//! Keys and values: their type, and the table that finds a position's cell.

mod cache;
mod kind;
mod table;

pub use cache::PrefixCache;
pub use kind::KvType;
pub use table::{BlockCopy, Demand, Group, KvTable, Placed, PlacedStep};

/// Positions per block: the unit in which cells are given out, shared and copied.
pub const BLOCK: usize = 64;

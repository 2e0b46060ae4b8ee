//! Keys and values: their type, and the table that finds a position's cell.

mod kind;
mod table;

pub use kind::KvType;
pub use table::{BlockCopy, Group, KvTable, Placed, PlacedStep};

/// Positions per block: the unit in which cells are given out, shared and copied.
pub const BLOCK: usize = 64;

//! Activations made ready for products.

use super::byte_tiles::{ByteKernel, BytePanel};
use super::slots::Slots;
use super::team::Team;
use super::tile::{GROUP, HALF, round};
use super::vector::{InstructionSet, Plain};

/// From this many tokens on, tokens are multiplied by tiles.
const TILED_FROM: usize = 7;

/// How inputs are rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rounding {
    None,
    /// To bytes, each 16 with one scale.
    Bytes,
    /// The same, but some of the weights are floats, which are not multiplied with bytes.
    BytesAsFloats,
}

/// How activations lie.
#[derive(Clone, Copy)]
pub(super) enum Layout {
    /// Few tokens: row by row; with `rounded` their bytes too.
    Rows { rounded: bool },
    /// Many tokens: panels of as many as a vector has lanes, one vector for each column.
    Floats,
    /// Many tokens rounded to bytes, which the kernel multiplies.
    Bytes(ByteKernel),
}

impl Default for Layout {
    fn default() -> Self {
        Self::Rows { rounded: false }
    }
}

/// Activations made ready for products.
#[derive(Default)]
pub(super) struct Panels {
    /// Rows of activations.
    pub tokens: usize,
    pub columns: usize,
    pub layout: Layout,
    /// Rows, or panels of floats, of which the last is padded with zeros.
    pub floats: Vec<f32>,
    /// Rows: the sum of each 16 inputs, for weights with offsets.
    pub sums: Vec<f32>,
    /// Rows: the bytes and their scales.
    pub bytes: Vec<i8>,
    pub scales: Vec<f32>,
    /// Panels of bytes.
    pub byte_panels: Vec<BytePanel>,
}

impl Panels {
    /// A token's part of one of the rows of few tokens, in runs of `N`: groups, or what belongs to each.
    #[inline(always)]
    pub fn groups<'a, T, const N: usize>(&self, rows: &'a [T], token: usize) -> &'a [[T; N]] {
        let groups = self.columns / GROUP;
        &rows.as_chunks().0[token * groups..][..groups]
    }

    /// Makes rows of `columns` floats ready.
    pub fn fill(
        &mut self,
        set: InstructionSet,
        team: &Team,
        input: &[f32],
        columns: usize,
        rounding: Rounding,
    ) {
        let rounded = rounding != Rounding::None;
        self.columns = columns;
        self.tokens = input.len() / columns;
        let lanes = set.lanes();
        let panels = self.tokens.div_ceil(lanes);
        let rows = |panel: usize| {
            &input[panel * lanes * columns..][..lanes.min(self.tokens - panel * lanes) * columns]
        };
        let kernel = ByteKernel::of(set).filter(|_| rounding == Rounding::Bytes);
        if self.tokens < TILED_FROM {
            self.layout = Layout::Rows { rounded };
            self.fill_rows(input, rounded);
        } else if let Some(kernel) = kernel {
            self.layout = Layout::Bytes(kernel);
            // Panels of longer prompts stay, with their memory.
            let most = panels.max(self.byte_panels.len());
            self.byte_panels.resize_with(most, BytePanel::default);
            let slots = Slots::new(&mut self.byte_panels, 1);
            team.share(panels, 1, &|range| {
                for panel in range {
                    slots.with(panel, |slot| slot[0].fill(set, rows(panel), columns));
                }
            });
        } else {
            self.layout = Layout::Floats;
            self.floats.resize(panels * columns * lanes, 0.0);
            let slots = Slots::new(&mut self.floats, columns * lanes);
            team.share(panels, 1, &|range| {
                for panel in range {
                    slots.with(panel, |out| fill_floats(rows(panel), columns, lanes, rounded, out));
                }
            });
        }
    }

    fn fill_rows(&mut self, input: &[f32], rounded: bool) {
        self.floats.clear();
        self.floats.extend_from_slice(input);
        if rounded {
            self.bytes.clear();
            self.scales.clear();
            for half in self.floats.as_chunks_mut().0 {
                let (bytes, scale) = round::<Plain>(half);
                self.bytes.extend_from_slice(&bytes);
                self.scales.push(scale);
                *half = bytes.map(|byte| f32::from(byte) * scale);
            }
        }
        self.sums.clear();
        self.sums.extend(self.floats.chunks_exact(HALF).map(|x| x.iter().sum::<f32>()));
    }
}

/// Up to `lanes` rows side by side; lanes without a row are zeros.
fn fill_floats(rows: &[f32], columns: usize, lanes: usize, rounded: bool, panel: &mut [f32]) {
    if rows.len() < lanes * columns {
        panel.fill(0.0);
    }
    for (lane, row) in rows.chunks_exact(columns).enumerate() {
        if rounded {
            for (half, out) in row.as_chunks().0.iter().zip(panel.chunks_exact_mut(HALF * lanes)) {
                let (bytes, scale) = round::<Plain>(half);
                for (byte, out) in bytes.into_iter().zip(out.chunks_exact_mut(lanes)) {
                    out[lane] = f32::from(byte) * scale;
                }
            }
        } else {
            for (&x, out) in row.iter().zip(panel.chunks_exact_mut(lanes)) {
                out[lane] = x;
            }
        }
    }
}

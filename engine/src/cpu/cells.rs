//! The keys or values of a layer in main memory.

use crate::kv::KvType;

/// Keys or values of one layer: head after head, cell after cell.
pub(super) struct Cells {
    kind: KvType,
    heads: usize,
    length: usize,
    head_words: usize,
    words: Vec<u32>,
}

impl Cells {
    /// Room for `cells` cells of `heads` heads of `length` elements.
    pub fn new(kind: KvType, cells: usize, heads: usize, length: usize) -> Self {
        let head_words = kind.head_words(length);
        Self { kind, heads, length, head_words, words: vec![0; cells * heads * head_words] }
    }

    /// Writes all heads of a cell.
    pub fn store(&mut self, cell: usize, row: &[f32]) {
        let words = self.cell_words();
        let words = self.words[cell * words..][..words].chunks_exact_mut(self.head_words);
        for (head, words) in row.chunks_exact(self.length).zip(words) {
            self.kind.store(head, words);
        }
    }

    /// A head of a cell, as f32 in `out`.
    pub fn load(&self, cell: usize, head: usize, out: &mut [f32]) {
        let at = (cell * self.heads + head) * self.head_words;
        self.kind.load(&self.words[at..at + self.head_words], out);
    }

    /// Words of a cell.
    fn cell_words(&self) -> usize {
        self.heads * self.head_words
    }

    /// Copies `count` cells.
    pub fn copy(&mut self, from: usize, to: usize, count: usize) {
        let words = self.cell_words();
        self.words.copy_within(from * words..(from + count) * words, to * words);
    }

    /// The bytes of `count` cells.
    pub fn bytes(&self, cell: usize, count: usize) -> &[u8] {
        let words = self.cell_words();
        bytemuck::cast_slice(&self.words[cell * words..(cell + count) * words])
    }

    /// Writes what [`Cells::bytes`] gave.
    pub fn set_bytes(&mut self, cell: usize, count: usize, bytes: &[u8]) {
        let words = self.cell_words();
        let to = &mut self.words[cell * words..(cell + count) * words];
        bytemuck::cast_slice_mut::<_, u8>(to).copy_from_slice(bytes);
    }
}

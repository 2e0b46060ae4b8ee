//! Streams weights from the file to the device: several threads read and repack pieces, straight into the
//! device's buffers where the memory is shared, else through a ring of staging buffers, while earlier pieces
//! are copied. Host memory stays at the ring and the threads' pieces, whatever the model's size.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use gguf::{Format, Gguf};

use crate::gpu::device::Gpu;
use crate::gpu::layout::Layout;
use crate::plan::Plan;
use crate::spec::weights::read_f32;
use crate::{Error, Result};

/// Staging buffers in the ring.
const RING: usize = 6;
/// Bytes of a staging buffer, and of a piece: six of them are 24 MiB in flight.
const PIECE_BYTES: usize = 4 << 20;
/// Bytes of a piece that a thread reads, repacks and writes at a time: they stay in its core's cache.
const CACHED_BYTES: usize = 256 << 10;
/// The most threads that read and repack.
const MOST_THREADS: usize = 4;

/// What a thread reads and repacks at once.
enum Piece<'a> {
    /// Neighbouring blocks of a tensor.
    Blocks {
        /// Which of the layout's matrices.
        matrix: usize,
        tensor: &'a gguf::TensorInfo,
        /// The first block in the tensor.
        from: usize,
        /// The first block in the matrix.
        to: usize,
        count: usize,
    },
    /// Words that are ready: a matrix's table, or floats of the buffer of vectors; from a byte on.
    Words { matrix: Option<usize>, to: usize, words: Vec<u32> },
}

/// A run of bytes: where it starts in a buffer, where it goes, how long it is: a multiple of 16 bytes, as wgpu copies words.
struct Run {
    from: usize,
    to: usize,
    length: usize,
}

/// The buffers of matrices, and that of vectors.
type Buffers<'a> = (&'a [wgpu::Buffer], &'a wgpu::Buffer);

/// A staging buffer and its mapped bytes.
type Staging = (wgpu::Buffer, wgpu::BufferViewMut);

/// What a thread answers: which buffer the piece is for, its runs, and the staging buffer that holds them (none
/// if they are in place).
struct Filled {
    matrix: Option<usize>,
    runs: Vec<Run>,
    staging: Option<wgpu::Buffer>,
}

/// Fills the buffers of matrices and vectors.
pub(super) fn upload(
    gpu: &Arc<Gpu>,
    file: &Gguf,
    plan: &Plan,
    layout: &Layout,
    buffers: Buffers,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    let mut pieces = pieces(file, plan, layout)?;
    let total = layout.bytes();
    let mut done = 0;
    let in_place = in_place(gpu, file);
    if repeats(file) {
        repeat(gpu, file, layout, buffers, &pieces)?;
        pieces.retain(|piece| matches!(piece, Piece::Words { .. }));
    }
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| -> Result<()> {
        let (give, take) = channel::<(Piece, Option<Staging>)>();
        let take = Arc::new(Mutex::new(take));
        let (answer, answers) = channel::<Result<Filled>>();
        for _ in 0..threads.min(MOST_THREADS) {
            let (take, answer) = (take.clone(), answer.clone());
            scope.spawn(move || work(file, layout, buffers, &take, &answer));
        }
        drop(answer);
        let mut ring = Ring::new(gpu.clone(), if in_place { 0 } else { RING });
        let mut waiting = 0;
        let mut finish = |ring: &mut Ring, waiting: &mut usize| -> Result<()> {
            let lost = || Error::Internal("a thread that loads weights has ended".into());
            let filled = answers.recv().map_err(|_| lost())??;
            *waiting -= 1;
            if let Some(staging) = filled.staging {
                ring.submit(staging, place(buffers, filled.matrix), &filled.runs);
            }
            done += filled.runs.iter().map(|run| run.length as u64).sum::<u64>();
            progress(done.min(total), total);
            Ok(())
        };
        for piece in pieces {
            while waiting >= RING || (!in_place && ring.is_empty() && waiting > 0) {
                finish(&mut ring, &mut waiting)?;
            }
            let staging = if in_place { None } else { Some(ring.next()?) };
            if give.send((piece, staging)).is_err() {
                break;
            }
            waiting += 1;
        }
        drop(give);
        while waiting > 0 {
            finish(&mut ring, &mut waiting)?;
        }
        ring.finish()
    })?;
    if in_place {
        for buffer in buffers.0.iter().chain([buffers.1]) {
            buffer.unmap();
        }
    }
    progress(total, total);
    gpu.check()
}

/// Whether a piece of a format stands for all of them.
fn repeats(file: &Gguf) -> bool {
    !file.sources.is_empty() && file.sources.iter().all(|source| source.repeats())
}

/// Whether weights are written straight into the device's buffers, which are then created mapped.
pub(super) fn in_place(gpu: &Gpu, file: &Gguf) -> bool {
    gpu.unified && !repeats(file)
}

/// Where a matrix lies, or the vectors.
fn place((matrices, vectors): Buffers<'_>, matrix: Option<usize>) -> &wgpu::Buffer {
    matrix.map_or(vectors, |index| &matrices[index])
}

/// Fills matrices from one piece of each format, copied on the device as often as it takes.
fn repeat(
    gpu: &Arc<Gpu>,
    file: &Gguf,
    layout: &Layout,
    buffers: Buffers,
    pieces: &[Piece],
) -> Result<()> {
    let mut templates: HashMap<Format, (wgpu::Buffer, Vec<Run>)> = HashMap::new();
    let (mut blocks, mut repacked) = (Vec::new(), Vec::new());
    for piece in pieces {
        let &Piece::Blocks { matrix: index, tensor, to, count, .. } = piece else { continue };
        let matrix = &layout.matrices[index];
        let format = matrix.format;
        let (template, runs) = match templates.entry(format) {
            Entry::Occupied(made) => made.into_mut(),
            Entry::Vacant(place) => {
                // As long as the longest piece of the format; a short tensor's blocks over and over.
                let of_format = |piece: &Piece| match piece {
                    Piece::Blocks { matrix, count, .. }
                        if layout.matrices[*matrix].format == format =>
                    {
                        Some(*count)
                    }
                    _ => None,
                };
                let most = pieces.iter().filter_map(of_format).max().unwrap_or(count);
                blocks.resize(count * format.block_bytes(), 0);
                file.read(tensor, 0, &mut blocks)?;
                let bytes = most * format.block_bytes();
                let all: Vec<u8> = blocks.iter().copied().cycle().take(bytes).collect();
                let runs = repack(format, &all, most, &mut repacked);
                let usage = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
                let buffer = gpu.buffer("template", repacked.len() as u64, usage);
                gpu.queue.write_buffer(&buffer, 0, &repacked);
                place.insert((buffer, runs))
            }
        };
        let mut encoder =
            gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        for ((run, plane), start) in runs.iter().zip(format.planes()).zip(&matrix.plane_starts) {
            let length = (count * plane.block_bytes).next_multiple_of(16);
            let run = Run { from: run.from, to: start + to * plane.block_bytes, length };
            copy(&mut encoder, template, place(buffers, Some(index)), &run);
        }
        gpu.queue.submit([encoder.finish()]);
    }
    gpu.wait()
}

/// Copies a run from one buffer to another.
fn copy(encoder: &mut wgpu::CommandEncoder, from: &wgpu::Buffer, to: &wgpu::Buffer, run: &Run) {
    encoder.copy_buffer_to_buffer(from, run.from as u64, to, run.to as u64, run.length as u64);
}

/// Where the planes of `count` repacked blocks lie, one after the other; where they go is not said yet.
fn plane_runs(format: Format, count: usize) -> Vec<Run> {
    let mut from = 0;
    let run = |plane: &gguf::Plane| {
        let length = (count * plane.block_bytes).next_multiple_of(16);
        from += length;
        Run { from: from - length, to: 0, length }
    };
    format.planes().iter().map(run).collect()
}

/// Repacks `count` blocks into their planes, one after the other; answers where each plane starts.
fn repack(format: Format, blocks: &[u8], count: usize, repacked: &mut Vec<u8>) -> Vec<Run> {
    let runs = plane_runs(format, count);
    repacked.clear();
    repacked.resize(runs.iter().map(|run| run.length).sum(), 0);
    let mut rest = repacked.as_mut_slice();
    let mut parts: Vec<&mut [u8]> = Vec::new();
    for (run, plane) in runs.iter().zip(format.planes()) {
        let (part, after) = rest.split_at_mut(run.length);
        parts.push(&mut part[..count * plane.block_bytes]);
        rest = after;
    }
    format.repack(blocks, &mut parts);
    runs
}

/// All of a layout in pieces.
fn pieces<'a>(file: &'a Gguf, plan: &Plan, layout: &Layout) -> Result<Vec<Piece<'a>>> {
    let mut pieces = Vec::new();
    for (index, matrix) in layout.matrices.iter().enumerate() {
        let format = matrix.format;
        let plane_bytes: usize = format.planes().iter().map(|plane| plane.block_bytes).sum();
        // A multiple of 16 blocks keeps every plane's part of a piece aligned to 16 bytes.
        let most = (PIECE_BYTES - 64) / plane_bytes.max(format.block_bytes()) / 16 * 16;
        let mut to = 0;
        for &(weight, first_row, rows) in &matrix.sources {
            let weight = plan.weight(weight);
            let tensor = file.require(&weight.name)?;
            let row_blocks = weight.columns / format.block_size();
            let end = row_blocks * rows;
            for done in (0..end).step_by(most) {
                let count = most.min(end - done);
                let from = row_blocks * first_row + done;
                pieces.push(Piece::Blocks { matrix: index, tensor, from, to: to + done, count });
            }
            to += end;
        }
        if !format.table().is_empty() {
            let (to, words) = (matrix.table_start, format.table().to_vec());
            pieces.push(Piece::Words { matrix: Some(index), to, words });
        }
    }
    for vector in &layout.vectors {
        let mut values = Vec::with_capacity(vector.length);
        for (weight, length) in &vector.sources {
            match weight {
                Some(id) => values.extend(read_f32(file, &plan.weight(*id).name)?),
                None => values.resize(values.len() + length, 0.0),
            }
        }
        for (index, chunk) in values.chunks(PIECE_BYTES / 4).enumerate() {
            let to = vector.start + index * PIECE_BYTES;
            let words = chunk.iter().map(|value| value.to_bits()).collect();
            pieces.push(Piece::Words { matrix: None, to, words });
        }
    }
    Ok(pieces)
}

/// A thread's life: takes pieces until there are no more.
fn work(
    file: &Gguf,
    layout: &Layout,
    buffers: Buffers,
    take: &Mutex<Receiver<(Piece, Option<Staging>)>>,
    answer: &Sender<Result<Filled>>,
) {
    let (mut blocks, mut repacked) = (Vec::new(), Vec::new());
    loop {
        let next = take.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((piece, staging)) = next else { return };
        let filled = fill(file, layout, buffers, &piece, staging, &mut blocks, &mut repacked);
        // Nobody listens any more after an error elsewhere.
        if answer.send(filled).is_err() {
            return;
        }
    }
}

/// Reads and repacks a piece and writes it to its staging buffer, or to its place.
fn fill(
    file: &Gguf,
    layout: &Layout,
    buffers: Buffers,
    piece: &Piece,
    mut staging: Option<Staging>,
    blocks: &mut Vec<u8>,
    repacked: &mut Vec<u8>,
) -> Result<Filled> {
    let (matrix, runs) = match *piece {
        Piece::Words { matrix, to, ref words } => {
            repacked.clear();
            repacked.extend_from_slice(bytemuck::cast_slice(words));
            repacked.resize(repacked.len().next_multiple_of(16), 0);
            let run = Run { from: 0, to, length: repacked.len() };
            write(staging.as_mut(), place(buffers, matrix), &run, 0, repacked)?;
            (matrix, vec![run])
        }
        Piece::Blocks { matrix: index, tensor, from, to, count } => {
            let matrix = &layout.matrices[index];
            let (format, block_bytes) = (matrix.format, matrix.format.block_bytes());
            let mut runs = plane_runs(format, count);
            let starts = format.planes().iter().zip(&matrix.plane_starts);
            for (run, (plane, start)) in runs.iter_mut().zip(starts) {
                run.to = start + to * plane.block_bytes;
            }
            // A multiple of 16 blocks, as a piece is.
            let most = (CACHED_BYTES / block_bytes / 16 * 16).max(16);
            for done in (0..count).step_by(most) {
                let part = most.min(count - done);
                blocks.resize(part * block_bytes, 0);
                file.read(tensor, ((from + done) * block_bytes) as u64, blocks)?;
                let planes = repack(format, blocks, part, repacked);
                for ((run, plane), layout) in runs.iter().zip(planes).zip(format.planes()) {
                    let bytes = &repacked[plane.from..][..plane.length];
                    let place = place(buffers, Some(index));
                    write(staging.as_mut(), place, run, done * layout.block_bytes, bytes)?;
                }
            }
            (Some(index), runs)
        }
    };
    Ok(Filled { matrix, runs, staging: staging.map(|(buffer, _)| buffer) })
}

/// Writes a part of a run, from byte `at` of it on, to the staging buffer or else to its place.
fn write(
    staging: Option<&mut Staging>,
    place: &wgpu::Buffer,
    run: &Run,
    at: usize,
    bytes: &[u8],
) -> Result<()> {
    if let Some((_, view)) = staging {
        view.slice(run.from + at..run.from + at + bytes.len()).copy_from_slice(bytes);
        return Ok(());
    }
    let from = (run.to + at) as u64;
    let view = place.get_mapped_range_mut(from..from + bytes.len() as u64);
    let mut view = view.map_err(|error| Error::Internal(format!("a mapped buffer: {error}")))?;
    view.copy_from_slice(bytes);
    Ok(())
}

/// A ring of mapped staging buffers: the oldest is waited for when all are in flight.
struct Ring {
    gpu: Arc<Gpu>,
    free: Vec<wgpu::Buffer>,
    /// The maps under way, oldest first.
    pending: std::collections::VecDeque<(wgpu::Buffer, Receiver<bool>)>,
}

impl Ring {
    fn new(gpu: Arc<Gpu>, count: usize) -> Self {
        let free = (0..count)
            .map(|_| {
                gpu.device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some("staging"),
                    size: PIECE_BYTES as u64,
                    usage: wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC,
                    mapped_at_creation: true,
                })
            })
            .collect();
        Self { gpu, free, pending: std::collections::VecDeque::new() }
    }

    /// Whether no buffer is free or in flight: all are with threads.
    fn is_empty(&self) -> bool {
        self.free.is_empty() && self.pending.is_empty()
    }

    /// A mapped buffer.
    fn next(&mut self) -> Result<Staging> {
        let buffer = match self.free.pop() {
            Some(buffer) => buffer,
            None => self.oldest()?,
        };
        let view = buffer.get_mapped_range_mut(..);
        let view = view.map_err(|error| self.lost(&error.to_string()))?;
        Ok((buffer, view))
    }

    fn lost(&self, why: &str) -> Error {
        Error::DeviceLost { device: self.gpu.name.clone(), why: why.into() }
    }

    /// Waits for the oldest buffer in flight to be mapped again.
    fn oldest(&mut self) -> Result<wgpu::Buffer> {
        let Some((buffer, mapped)) = self.pending.pop_front() else {
            return Err(self.lost("no staging buffer is in flight"));
        };
        loop {
            match mapped.try_recv() {
                Ok(true) => return Ok(buffer),
                Ok(false) => return Err(self.lost("a staging buffer could not be mapped")),
                Err(_) => self.gpu.wait()?,
            }
        }
    }

    /// Copies runs of a filled buffer to the device.
    fn submit(&mut self, staging: wgpu::Buffer, to: &wgpu::Buffer, runs: &[Run]) {
        staging.unmap();
        let mut encoder =
            self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        for run in runs {
            copy(&mut encoder, &staging, to, run);
        }
        self.gpu.queue.submit([encoder.finish()]);
        let (send, receive) = channel();
        staging.map_async(wgpu::MapMode::Write, .., move |result| {
            // The receiver may be gone after an error.
            let _ = send.send(result.is_ok());
        });
        self.pending.push_back((staging, receive));
    }

    fn finish(mut self) -> Result<()> {
        while !self.pending.is_empty() {
            self.oldest()?;
        }
        self.gpu.check()
    }
}

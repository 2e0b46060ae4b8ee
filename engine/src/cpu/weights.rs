//! A plan's weights in host memory: the file mapped, or read where it cannot be.

use std::sync::Arc;

use gguf::{Gguf, Source};

use crate::plan::Plan;
use crate::spec::weights::{WeightId, read_f32};
use crate::{Error, Result};

/// Where a file's bytes are.
enum Bytes {
    Mapped(memmap2::Mmap),
    Read(Vec<u8>),
}

impl Bytes {
    fn of(source: &dyn Source, map: bool) -> Result<Self> {
        let io = |error| Error::File(gguf::Error::Io { file: source.name().into(), error });
        if let Some(path) = source.path().filter(|_| map) {
            let file = std::fs::File::open(path).map_err(io)?;
            // SAFETY: the map is only read. A file truncated by another process while it is mapped would
            // end this one by a signal; that is the price of not reading a model twice, and documented.
            return Ok(Self::Mapped(unsafe { memmap2::Mmap::map(&file) }.map_err(io)?));
        }
        let mut bytes = vec![0; source.len() as usize];
        source.read_at(0, &mut bytes).map_err(io)?;
        Ok(Self::Read(bytes))
    }

    fn slice(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Read(bytes) => bytes,
        }
    }
}

/// A plan's weights as ggml's blocks, in place. Contexts of the model share them.
pub struct CpuWeights {
    files: Vec<Bytes>,
    /// File, start and length of each weight's blocks.
    ranges: Vec<(usize, usize, usize)>,
    /// Weights used as vectors, as f32; empty for the others.
    vectors: Vec<Vec<f32>>,
    total: u64,
}

crate::opaque::opaque_debug!(CpuWeights { total });

impl CpuWeights {
    /// Maps the files.
    pub fn load(file: &Gguf, plan: &Plan) -> Result<Arc<Self>> {
        Self::load_by(file, plan, true)
    }

    /// Maps the files, or reads them into memory of this process.
    pub fn load_by(file: &Gguf, plan: &Plan, map: bool) -> Result<Arc<Self>> {
        let files = file
            .sources
            .iter()
            .map(|source| Bytes::of(source.as_ref(), map))
            .collect::<Result<Vec<_>>>()?;
        let mut ranges = Vec::new();
        for weight in &plan.weights {
            let tensor = file.require(&weight.name)?;
            let (start, length) = (tensor.start as usize, weight.bytes());
            if files[tensor.file].slice().len() < start + length {
                let error = std::io::ErrorKind::UnexpectedEof.into();
                let name = file.source(tensor).name().into();
                return Err(Error::File(gguf::Error::Io { file: name, error }));
            }
            ranges.push((tensor.file, start, length));
        }
        let mut vectors = vec![Vec::new(); plan.weights.len()];
        for id in vector_weights(plan) {
            vectors[id.0] = read_f32(file, &plan.weight(id).name)?;
        }
        let total = plan.weights.iter().map(|weight| weight.bytes() as u64).sum();
        Ok(Arc::new(Self { files, ranges, vectors, total }))
    }

    /// The blocks of a weight.
    pub fn blocks(&self, id: WeightId) -> &[u8] {
        let (file, start, length) = self.ranges[id.0];
        &self.files[file].slice()[start..start + length]
    }

    /// A weight used as a vector.
    pub fn vector(&self, id: WeightId) -> &[f32] {
        &self.vectors[id.0]
    }

    /// Bytes of all weights.
    pub fn bytes(&self) -> u64 {
        self.total
    }
}

/// The weights that ops use as vectors.
fn vector_weights(plan: &Plan) -> Vec<WeightId> {
    plan.ops
        .iter()
        .flat_map(|op| op.vectors().into_iter().chain(op.biases().into_iter().flatten()))
        .collect()
}

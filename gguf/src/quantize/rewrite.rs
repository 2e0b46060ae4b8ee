//! A whole file in another mix of formats, streamed: one stretch of one tensor is in memory at a time.

use std::io::Write;

use super::mix::Mix;
use crate::{Error, Format, Gguf, Result, TensorInfo, TensorType, Value, Writer};

/// Weights in memory at once, about: 16 MiB as floats.
const STRETCH: usize = 4 << 20;

/// What [`Gguf::quantize`] will write.
#[derive(Debug)]
pub struct Rewrite<'a> {
    file: &'a Gguf,
    /// For each tensor the format it has and gets; none where its bytes are copied.
    changes: Vec<Option<(Format, Format)>>,
    writer: Writer,
}

impl Gguf {
    /// Prepares this file's rewriting in a mix of formats, metadata and tensors in their order. A split file becomes one.
    ///
    /// Blocks that are decoded to be made again lose twice: `requantize` says that this is wanted, without it they are an
    /// error.
    pub fn quantize(&self, mix: Mix, requantize: bool) -> Result<Rewrite<'_>> {
        let mut writer = Writer::new();
        for (key, value) in self.metadata.iter().filter(|(key, _)| !key.starts_with("split.")) {
            writer.set(key, value.clone());
        }
        writer.set("general.quantization_version", Value::U32(2));
        writer.set("general.file_type", Value::U32(mix.file_type));
        let mut changes = Vec::with_capacity(self.tensors.len());
        for (tensor, wanted) in self.tensors.iter().zip(mix.formats(self)?) {
            let change = match wanted {
                Some(wanted) => {
                    Some((self.format(tensor)?, wanted)).filter(|(old, new)| old != new)
                }
                None => None,
            };
            if let Some((old, new)) = change {
                if old.has_codes() && !requantize {
                    return Err(Error::RoundedTwice { name: tensor.name.clone(), format: old });
                }
                if !new.can_quantize() {
                    return Err(Error::Unwritable {
                        name: tensor.name.clone(),
                        why: format!("{} needs an importance matrix", new.name()),
                    });
                }
            } else if tensor.bytes.is_none() || self.endian == crate::Endian::Big {
                // The error that says so.
                self.format(tensor)?;
            }
            let tensor_type = change.map_or(tensor.tensor_type, |(_, new)| TensorType(new.id()));
            writer.tensor_without_data(&tensor.name, &tensor.shape, tensor_type)?;
            changes.push(change);
        }
        Ok(Rewrite { file: self, changes, writer })
    }
}

impl Rewrite<'_> {
    /// The tensors with the types that they get.
    pub fn tensors(&self) -> impl Iterator<Item = (&TensorInfo, TensorType)> {
        self.file.tensors.iter().zip(&self.changes).map(|(tensor, change)| {
            (tensor, change.map_or(tensor.tensor_type, |(_, new)| TensorType(new.id())))
        })
    }

    /// Writes the file to `out`, which messages call `name`; `progress` gets the bytes read so far.
    pub fn write(
        &self,
        name: &str,
        out: &mut impl Write,
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let io = |error| Error::Io { file: name.into(), error };
        out.write_all(&self.writer.header()).map_err(io)?;
        let (alignment, mut read) = (self.writer.alignment() as u64, 0);
        for (tensor, change) in self.file.tensors.iter().zip(&self.changes) {
            let bytes = tensor.bytes.unwrap_or(0);
            // Stretches end where a block of both formats does: at the end of a row.
            let row = match change {
                Some((old, _)) => old.bytes(tensor.row_length() as usize) as u64,
                None => 1,
            };
            let stretch = match change {
                Some(_) => (STRETCH as u64 / tensor.row_length().max(1)).max(1) * row,
                None => STRETCH as u64,
            };
            let (mut at, mut written, mut blocks) = (0, 0u64, Vec::new());
            while at < bytes {
                blocks.resize(stretch.min(bytes - at) as usize, 0);
                self.file.read(tensor, at, &mut blocks)?;
                let made = match *change {
                    Some((old, new)) => convert(tensor, old, new, &blocks)?,
                    None => std::mem::take(&mut blocks),
                };
                out.write_all(&made).map_err(io)?;
                at += stretch.min(bytes - at);
                written += made.len() as u64;
                progress(read + at);
            }
            read += bytes;
            let padding = written.next_multiple_of(alignment) - written;
            out.write_all(&vec![0; padding as usize]).map_err(io)?;
        }
        out.flush().map_err(io)
    }
}

/// Blocks of one format as blocks of another, on all processors.
fn convert(tensor: &TensorInfo, old: Format, new: Format, blocks: &[u8]) -> Result<Vec<u8>> {
    let unwritable = |why: String| Error::Unwritable { name: tensor.name.clone(), why };
    let part = |blocks: &[u8]| {
        let mut weights = vec![0.0; blocks.len() / old.block_bytes() * old.block_size()];
        old.decode(blocks, &mut weights);
        if let Some(weight) = weights.iter().find(|weight| !weight.is_finite()) {
            return Err(unwritable(format!(
                "it has a weight that is {weight}; the file is damaged"
            )));
        }
        new.quantize(&weights)
            .ok_or_else(|| unwritable(format!("{} needs an importance matrix", new.name())))
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let row = old.bytes(tensor.row_length() as usize).max(1);
    let share = (blocks.len() / row).div_ceil(threads).max(1) * row;
    let parts: Vec<Result<Vec<u8>>> = std::thread::scope(|scope| {
        let workers: Vec<_> =
            blocks.chunks(share).map(|blocks| scope.spawn(|| part(blocks))).collect();
        let joined = workers.into_iter().map(std::thread::ScopedJoinHandle::join);
        joined.map(|part| part.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    Ok(parts.into_iter().collect::<Result<Vec<_>>>()?.concat())
}

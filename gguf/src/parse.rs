//! A header's bytes into metadata and tensor descriptions.
//!
//! Nothing is allocated from a number in the file before that number was checked against the bytes
//! that remain.

use std::collections::HashSet;

use crate::strange;
use crate::value::{Array, Metadata, StringArray, Value, ValueType};
use crate::{Error, Result, Source, TensorInfo, TensorType};

/// How deeply arrays may be nested in arrays.
pub const MAX_ARRAY_DEPTH: u32 = 8;
/// How many dimensions a tensor may have (ggml's limit).
pub const MAX_DIMENSIONS: u32 = 4;
/// The alignment of tensor data where the file does not say (`general.alignment`).
const DEFAULT_ALIGNMENT: u32 = 32;
/// How many bytes of the source are read at a time.
const READ_BYTES: u64 = 1 << 20;

/// The byte order of a file's header and data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endian {
    /// Least significant byte first: nearly every file.
    Little,
    /// Most significant byte first.
    Big,
}

/// The parsed header of one file.
#[derive(Debug, Clone)]
pub struct Header {
    /// The format's version: 1, 2 or 3.
    pub version: u32,
    /// The byte order.
    pub endian: Endian,
    /// Keys and values.
    pub metadata: Metadata,
    /// The tensors in the file's order, their ranges checked against the source's length.
    pub tensors: Vec<TensorInfo>,
    /// Where the data section starts, in bytes.
    pub data_start: u64,
    /// The alignment of tensor data in bytes.
    pub alignment: u32,
}

impl Header {
    /// Parses the header of `source`.
    pub fn parse(source: &dyn Source) -> Result<Self> {
        Parser { source, buffer: Vec::new(), base: 0, at: 0, endian: Endian::Little, version: 3 }
            .header()
    }
}

/// A window of the source and a place in it.
struct Parser<'a> {
    source: &'a dyn Source,
    /// Bytes of the source from `base` on.
    buffer: Vec<u8>,
    base: u64,
    /// The place in `buffer`.
    at: usize,
    endian: Endian,
    version: u32,
}

macro_rules! number {
    ($name:ident, $type:ty) => {
        fn $name(&mut self, what: &str) -> Result<$type> {
            const N: usize = size_of::<$type>();
            let mut bytes = [0; N];
            bytes.copy_from_slice(self.take(N as u64, what)?);
            Ok(match self.endian {
                Endian::Little => <$type>::from_le_bytes(bytes),
                Endian::Big => <$type>::from_be_bytes(bytes),
            })
        }
    };
}

impl Parser<'_> {
    number!(u8, u8);
    number!(i8, i8);
    number!(u16, u16);
    number!(i16, i16);
    number!(u32, u32);
    number!(i32, i32);
    number!(u64, u64);
    number!(i64, i64);
    number!(f32, f32);
    number!(f64, f64);

    fn position(&self) -> u64 {
        self.base + self.at as u64
    }

    fn remaining(&self) -> u64 {
        self.source.len() - self.position()
    }

    fn malformed(&self, what: impl Into<String>, why: impl Into<String>) -> Error {
        Error::Malformed {
            file: self.source.name().into(),
            what: what.into(),
            at: self.position(),
            why: why.into(),
        }
    }

    /// The next `n` bytes. `n` is checked against the source's length before anything is allocated.
    fn take(&mut self, n: u64, what: &str) -> Result<&[u8]> {
        if n > self.remaining() {
            let why = format!("needs {n} bytes, the file has {} left", self.remaining());
            return Err(self.malformed(what, why));
        }
        let n = n as usize;
        if self.buffer.len() - self.at < n {
            self.buffer.drain(..self.at);
            self.base += self.at as u64;
            self.at = 0;
            let have = self.buffer.len();
            let read_from = self.base + have as u64;
            let missing = (n - have) as u64;
            let read = missing.max(READ_BYTES).min(self.source.len() - read_from);
            self.buffer.resize(have + read as usize, 0);
            self.source
                .read_at(read_from, &mut self.buffer[have..])
                .map_err(|error| Error::Io { file: self.source.name().into(), error })?;
        }
        self.at += n;
        Ok(&self.buffer[self.at - n..self.at])
    }

    /// A count or length: 32 bits in version 1, else 64.
    fn length(&mut self, what: &str) -> Result<u64> {
        if self.version == 1 { self.u32(what).map(u64::from) } else { self.u64(what) }
    }

    /// A count of things that take at least `min_bytes` each.
    fn count(&mut self, min_bytes: u64, what: &str) -> Result<usize> {
        let count = self.length(what)?;
        if count.checked_mul(min_bytes).is_none_or(|bytes| bytes > self.remaining()) {
            let why = format!("{count} items cannot fit into the {} bytes left", self.remaining());
            return Err(self.malformed(what, why));
        }
        Ok(count as usize)
    }

    fn bytes(&mut self, what: &str) -> Result<&[u8]> {
        let length = self.length(what)?;
        self.take(length, what)
    }

    /// A key or name. Bytes that are no UTF-8 become U+FFFD: nothing that this program asks for has any.
    fn text(&mut self, what: &str) -> Result<(String, bool)> {
        let text = String::from_utf8_lossy(self.bytes(what)?);
        let changed = matches!(text, std::borrow::Cow::Owned(_));
        Ok((text.into_owned(), changed))
    }

    fn header(mut self) -> Result<Header> {
        let file = self.source.name().to_string();
        let mut magic = vec![0; self.source.len().min(4) as usize];
        self.source
            .read_at(0, &mut magic)
            .map_err(|error| Error::Io { file: file.clone(), error })?;
        if magic != b"GGUF" || self.source.len() == 4 {
            return Err(not_gguf(self.source));
        }
        self.take(4, "the magic")?;
        let version = self.u32("the version")?;
        // A version is a small number: read the wrong way round, its low half is zero.
        let (version, endian) = if version & 0xffff == 0 && version != 0 {
            (version.swap_bytes(), Endian::Big)
        } else {
            (version, Endian::Little)
        };
        if !(1..=3).contains(&version) {
            return Err(Error::Version { file, version });
        }
        self.version = version;
        self.endian = endian;

        // A tensor: name length, dimension count, type, offset. A key: name length, type, one byte.
        let length = ValueType::String.min_bytes(version);
        let tensor_count = self.count(length + 4 + 4 + 8, "the tensor count")?;
        let key_count = self.count(length + 4 + 1, "the metadata count")?;

        let mut metadata = Metadata::new(file);
        for index in 0..key_count {
            let (mut key, changed) = self.text(&format!("metadata key {index}"))?;
            let value = self.value(&key)?;
            // Different bytes may have become the same text.
            while changed && metadata.get(&key).is_some() {
                key.push(char::REPLACEMENT_CHARACTER);
            }
            if metadata.get(&key).is_some() {
                return Err(self.malformed(format!("metadata key {key}"), "occurs twice"));
            }
            metadata.insert(key, value);
        }
        let alignment = metadata.u32("general.alignment")?.unwrap_or(DEFAULT_ALIGNMENT);
        if !alignment.is_power_of_two() {
            let why = format!("{alignment} is not a power of two");
            return Err(self.malformed("general.alignment", why));
        }

        let mut tensors = Vec::with_capacity(tensor_count);
        let mut names = HashSet::with_capacity(tensor_count);
        for index in 0..tensor_count {
            let (mut tensor, changed) = self.tensor(index)?;
            while changed && names.contains(&tensor.name) {
                tensor.name.push(char::REPLACEMENT_CHARACTER);
            }
            if !names.insert(tensor.name.clone()) {
                return Err(self.malformed(format!("tensor {}", tensor.name), "occurs twice"));
            }
            tensors.push(tensor);
        }
        let data_start = self
            .position()
            .checked_next_multiple_of(alignment.into())
            .ok_or_else(|| self.malformed("the data section", "starts beyond 2^64 bytes"))?;
        self.place(&mut tensors, data_start, alignment)?;
        Ok(Header { version, endian, metadata, tensors, data_start, alignment })
    }

    /// One tensor's description, and whether its name had bytes that are no UTF-8; `start` is still relative to the data
    /// section.
    fn tensor(&mut self, index: usize) -> Result<(TensorInfo, bool)> {
        let (name, changed) = self.text(&format!("the name of tensor {index}"))?;
        let what = format!("tensor {name}");
        let dimensions = self.u32(&what)?;
        if dimensions > MAX_DIMENSIONS {
            let why = format!("has {dimensions} dimensions, at most {MAX_DIMENSIONS} are allowed");
            return Err(self.malformed(what, why));
        }
        let mut shape = Vec::with_capacity(dimensions as usize);
        for _ in 0..dimensions {
            shape.push(self.length(&what)?);
        }
        // A tensor without elements is one, a marker: it has no bytes.
        let elements = shape
            .iter()
            .try_fold(1u64, |product, &n| product.checked_mul(n))
            .filter(|&n| n < 1 << 60)
            .ok_or_else(|| self.malformed(&what, format!("has the impossible shape {shape:?}")))?;
        let tensor_type = TensorType(self.u32(&what)?);
        let bytes = match tensor_type.info() {
            Some(info) if info.block_size > 0 => {
                let row = shape.first().copied().unwrap_or(1);
                if row % u64::from(info.block_size) != 0 {
                    let why = format!(
                        "has rows of {row} elements, which is no multiple of the {} of a {} block",
                        info.block_size, info.name
                    );
                    return Err(self.malformed(what, why));
                }
                Some(elements / u64::from(info.block_size) * u64::from(info.block_bytes))
            }
            _ => None,
        };
        let start = self.u64(&what)?;
        Ok((TensorInfo { name, shape, tensor_type, file: 0, start, bytes }, changed))
    }

    /// Makes every tensor's start absolute and checks that all lie in the file, apart from each other.
    fn place(&self, tensors: &mut [TensorInfo], data_start: u64, alignment: u32) -> Result<()> {
        let len = self.source.len();
        for tensor in tensors.iter_mut() {
            let what = || format!("tensor {}", tensor.name);
            if tensor.start % u64::from(alignment) != 0 {
                let why = format!("its offset {} is not aligned to {alignment}", tensor.start);
                return Err(self.malformed(what(), why));
            }
            let end = data_start
                .checked_add(tensor.start)
                .and_then(|start| start.checked_add(tensor.bytes.unwrap_or(0)))
                .filter(|&end| end <= len || tensor.bytes == Some(0));
            if end.is_none() {
                let why = format!(
                    "lies at {} + {} in the data section at {data_start}, beyond the file's {len} bytes",
                    tensor.start,
                    tensor.bytes.unwrap_or(0),
                );
                return Err(self.malformed(what(), why));
            }
            tensor.start += data_start;
        }
        let mut by_start: Vec<&TensorInfo> = tensors.iter().collect();
        by_start.sort_by_key(|tensor| (tensor.start, tensor.bytes));
        for pair in by_start.windows(2) {
            if pair[0].start + pair[0].bytes.unwrap_or(0) > pair[1].start {
                let what = format!("tensor {}", pair[1].name);
                return Err(self.malformed(what, format!("overlaps tensor {}", pair[0].name)));
            }
        }
        Ok(())
    }

    fn value_type(&mut self, key: &str) -> Result<ValueType> {
        let id = self.u32(key)?;
        ValueType::from_id(id).ok_or_else(|| {
            self.malformed(
                format!("metadata key {key}"),
                format!("has the unknown value type {id}"),
            )
        })
    }

    /// Any byte but 0 is true, as for llama.cpp.
    fn boolean(&mut self, key: &str) -> Result<bool> {
        Ok(self.u8(key)? != 0)
    }

    fn value(&mut self, key: &str) -> Result<Value> {
        Ok(match self.value_type(key)? {
            ValueType::U8 => Value::U8(self.u8(key)?),
            ValueType::I8 => Value::I8(self.i8(key)?),
            ValueType::U16 => Value::U16(self.u16(key)?),
            ValueType::I16 => Value::I16(self.i16(key)?),
            ValueType::U32 => Value::U32(self.u32(key)?),
            ValueType::I32 => Value::I32(self.i32(key)?),
            ValueType::F32 => Value::F32(self.f32(key)?),
            ValueType::Bool => Value::Bool(self.boolean(key)?),
            ValueType::String => Value::String(self.bytes(key)?.to_vec()),
            ValueType::Array => Value::Array(self.array(key, 1)?),
            ValueType::U64 => Value::U64(self.u64(key)?),
            ValueType::I64 => Value::I64(self.i64(key)?),
            ValueType::F64 => Value::F64(self.f64(key)?),
        })
    }

    /// `count` numbers of N bytes each, taken at once: a vocabulary's scores are a quarter of a million.
    fn numbers<const N: usize, T>(
        &mut self,
        count: usize,
        key: &str,
        little: fn([u8; N]) -> T,
        big: fn([u8; N]) -> T,
    ) -> Result<Vec<T>> {
        let read = if self.endian == Endian::Little { little } else { big };
        let bytes = self.take((count * N) as u64, key)?;
        Ok(bytes.as_chunks::<N>().0.iter().map(|bytes| read(*bytes)).collect())
    }

    fn many<T>(
        &mut self,
        count: usize,
        mut read: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        (0..count).map(|_| read(self)).collect()
    }

    fn array(&mut self, key: &str, depth: u32) -> Result<Array> {
        if depth > MAX_ARRAY_DEPTH {
            let why = format!("nests arrays deeper than {MAX_ARRAY_DEPTH}");
            return Err(self.malformed(format!("metadata key {key}"), why));
        }
        let element = self.value_type(key)?;
        let n = self.count(element.min_bytes(self.version), key)?;
        Ok(match element {
            ValueType::U8 => {
                Array::U8(self.numbers(n, key, u8::from_le_bytes, u8::from_be_bytes)?)
            }
            ValueType::I8 => {
                Array::I8(self.numbers(n, key, i8::from_le_bytes, i8::from_be_bytes)?)
            }
            ValueType::U16 => {
                Array::U16(self.numbers(n, key, u16::from_le_bytes, u16::from_be_bytes)?)
            }
            ValueType::I16 => {
                Array::I16(self.numbers(n, key, i16::from_le_bytes, i16::from_be_bytes)?)
            }
            ValueType::U32 => {
                Array::U32(self.numbers(n, key, u32::from_le_bytes, u32::from_be_bytes)?)
            }
            ValueType::I32 => {
                Array::I32(self.numbers(n, key, i32::from_le_bytes, i32::from_be_bytes)?)
            }
            ValueType::F32 => {
                Array::F32(self.numbers(n, key, f32::from_le_bytes, f32::from_be_bytes)?)
            }
            ValueType::Bool => Array::Bool(self.many(n, |p| p.boolean(key))?),
            ValueType::String => {
                let mut strings = StringArray::new();
                for _ in 0..n {
                    strings.push(self.bytes(key)?);
                }
                Array::String(strings)
            }
            ValueType::Array => Array::Array(self.many(n, |p| p.array(key, depth + 1))?),
            ValueType::U64 => {
                Array::U64(self.numbers(n, key, u64::from_le_bytes, u64::from_be_bytes)?)
            }
            ValueType::I64 => {
                Array::I64(self.numbers(n, key, i64::from_le_bytes, i64::from_be_bytes)?)
            }
            ValueType::F64 => {
                Array::F64(self.numbers(n, key, f64::from_le_bytes, f64::from_be_bytes)?)
            }
        })
    }
}

/// The error for a source that does not begin as a GGUF file does.
fn not_gguf(source: &dyn Source) -> Error {
    let mut start = vec![0; source.len().min(strange::LOOKED_AT) as usize];
    let file = source.name().to_string();
    match source.read_at(0, &mut start) {
        Ok(()) => Error::NotGguf {
            file,
            found: strange::shown(&start),
            kind: strange::kind(&start, source.len()),
        },
        Err(error) => Error::Io { file, error },
    }
}

//! Writes GGUF files: any version, either byte order, every value type.

use std::io::{self, Write};

use crate::parse::Endian;
use crate::value::{Array, Value};
use crate::{Error, Metadata, Result, TensorType};

/// A tensor to be written.
struct Tensor {
    name: String,
    shape: Vec<u64>,
    tensor_type: TensorType,
    /// None where only the header is wanted.
    data: Option<Vec<u8>>,
    bytes: usize,
}

/// Collects metadata and tensors, then writes a file.
///
/// Block data is written as given: for big-endian files the caller swaps it.
pub struct Writer {
    version: u32,
    endian: Endian,
    metadata: Metadata,
    tensors: Vec<Tensor>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Writer")
            .field("version", &self.version)
            .field("tensors", &self.tensors.len())
            .finish_non_exhaustive()
    }
}

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

impl Writer {
    /// A little-endian file of version 3.
    pub fn new() -> Self {
        Self {
            version: 3,
            endian: Endian::Little,
            metadata: Metadata::new("new file"),
            tensors: Vec::new(),
        }
    }

    /// Sets version (1 to 3) and byte order.
    #[must_use]
    pub fn version(mut self, version: u32, endian: Endian) -> Self {
        self.version = version;
        self.endian = endian;
        self
    }

    /// Adds or replaces a metadata key.
    pub fn set(&mut self, key: impl Into<String>, value: Value) -> &mut Self {
        self.metadata.insert(key, value);
        self
    }

    /// Adds a tensor: dimensions innermost first, data as the type's blocks.
    pub fn tensor(
        &mut self,
        name: impl Into<String>,
        shape: &[u64],
        tensor_type: TensorType,
        data: Vec<u8>,
    ) -> Result<&mut Self> {
        let name = name.into();
        let elements: u64 = shape.iter().product();
        if let Some(info) = tensor_type.info().filter(|info| info.block_size > 0) {
            let expected = elements / u64::from(info.block_size) * u64::from(info.block_bytes);
            if data.len() as u64 != expected {
                let why = format!("{} bytes given, its shape needs {expected}", data.len());
                return Err(Error::Unwritable { name, why });
            }
        }
        let bytes = data.len();
        let (shape, data) = (shape.to_vec(), Some(data));
        self.tensors.push(Tensor { name, shape, tensor_type, data, bytes });
        Ok(self)
    }

    /// Adds a tensor of a known type whose data comes from elsewhere: for [`Writer::header`].
    pub fn tensor_without_data(
        &mut self,
        name: impl Into<String>,
        shape: &[u64],
        tensor_type: TensorType,
    ) -> Result<&mut Self> {
        let name = name.into();
        let elements: u64 = shape.iter().product();
        let Some(info) = tensor_type.info().filter(|info| info.block_size > 0) else {
            return Err(Error::Unwritable { name, why: "its type is unknown".into() });
        };
        let bytes = (elements / u64::from(info.block_size) * u64::from(info.block_bytes)) as usize;
        self.tensors.push(Tensor { name, shape: shape.to_vec(), tensor_type, data: None, bytes });
        Ok(self)
    }

    /// The file's bytes; up to the first tensor without data, if there is one.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // Writing to memory cannot fail.
        let _ = self.write(&mut bytes);
        bytes
    }

    pub(crate) fn alignment(&self) -> usize {
        self.metadata.get("general.alignment").and_then(Value::as_u64).unwrap_or(32) as usize
    }

    /// The bytes before the tensors' data, padded to the alignment.
    pub fn header(&self) -> Vec<u8> {
        let alignment = self.alignment();
        let mut header = Encoder { bytes: Vec::new(), endian: self.endian, version: self.version };
        header.bytes.extend_from_slice(b"GGUF");
        header.u32(self.version);
        header.length(self.tensors.len());
        header.length(self.metadata.len());
        for (key, value) in self.metadata.iter() {
            header.string(key.as_bytes());
            header.u32(value.value_type() as u32);
            header.value(value);
        }
        let mut offset = 0;
        for tensor in &self.tensors {
            header.string(tensor.name.as_bytes());
            header.u32(tensor.shape.len() as u32);
            for &dimension in &tensor.shape {
                header.length(dimension as usize);
            }
            header.u32(tensor.tensor_type.0);
            header.u64(offset as u64);
            offset = (offset + tensor.bytes).next_multiple_of(alignment);
        }
        header.bytes.resize(header.bytes.len().next_multiple_of(alignment), 0);
        header.bytes
    }

    /// Writes the file. A tensor without data is an error.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let alignment = self.alignment();
        out.write_all(&self.header())?;
        for tensor in &self.tensors {
            let data = tensor.data.as_ref().ok_or_else(|| {
                let why = format!("tensor {} was added without data", tensor.name);
                io::Error::new(io::ErrorKind::InvalidInput, why)
            })?;
            out.write_all(data)?;
            let padding = data.len().next_multiple_of(alignment) - data.len();
            out.write_all(&vec![0; padding])?;
        }
        Ok(())
    }
}

/// Bytes in a file's byte order and version.
struct Encoder {
    bytes: Vec<u8>,
    endian: Endian,
    version: u32,
}

impl Encoder {
    /// Appends a number given as little-endian bytes.
    fn number<const N: usize>(&mut self, mut little: [u8; N]) {
        if self.endian == Endian::Big {
            little.reverse();
        }
        self.bytes.extend_from_slice(&little);
    }

    fn u32(&mut self, value: u32) {
        self.number(value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.number(value.to_le_bytes());
    }

    fn length(&mut self, length: usize) {
        if self.version == 1 { self.u32(length as u32) } else { self.u64(length as u64) }
    }

    fn string(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::U8(v) => self.number(v.to_le_bytes()),
            Value::I8(v) => self.number(v.to_le_bytes()),
            Value::U16(v) => self.number(v.to_le_bytes()),
            Value::I16(v) => self.number(v.to_le_bytes()),
            Value::U32(v) => self.number(v.to_le_bytes()),
            Value::I32(v) => self.number(v.to_le_bytes()),
            Value::F32(v) => self.number(v.to_le_bytes()),
            Value::Bool(v) => self.number([u8::from(*v)]),
            Value::String(v) => self.string(v),
            Value::Array(v) => self.array(v),
            Value::U64(v) => self.number(v.to_le_bytes()),
            Value::I64(v) => self.number(v.to_le_bytes()),
            Value::F64(v) => self.number(v.to_le_bytes()),
        }
    }

    fn array(&mut self, array: &Array) {
        self.u32(array.element_type() as u32);
        self.length(array.len());
        match array {
            Array::String(strings) => strings.iter().for_each(|string| self.string(string)),
            Array::Array(arrays) => arrays.iter().for_each(|array| self.array(array)),
            numbers => {
                for value in (0..numbers.len()).filter_map(|index| numbers.get(index)) {
                    self.value(&value);
                }
            }
        }
    }
}

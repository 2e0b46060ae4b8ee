//! The tensors that a plan uses, found by name and checked against the shape that the Spec expects.

use gguf::{Format, Gguf};

use crate::{Error, Result};

/// A weight's number in its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WeightId(pub usize);

/// One tensor that a plan uses: `rows` rows of `columns` weights.
#[derive(Debug, Clone)]
pub struct Weight {
    /// The tensor's name.
    pub name: String,
    /// The format of its blocks.
    pub format: Format,
    /// Weights per row.
    pub columns: usize,
    /// Rows.
    pub rows: usize,
    /// What products with it are multiplied by (the tensor `NAME.scale` of one number).
    pub scale: f32,
}

impl Weight {
    /// The bytes of its blocks in the file.
    pub fn bytes(&self) -> usize {
        self.format.bytes(self.columns * self.rows)
    }

    /// The bytes of one row's blocks.
    pub fn row_bytes(&self) -> usize {
        self.format.bytes(self.columns)
    }
}

/// Tensors of many factors that plans read as vectors.
const FACTORS_OF_THEIR_OWN: [&str; 2] = ["ffn_down_exps.scale", "ffn_gate_inp.scale"];

/// Finds weights in a file and numbers them in the order of use.
#[derive(Debug)]
pub struct WeightFinder<'a> {
    file: &'a Gguf,
    found: Vec<Weight>,
}

impl<'a> WeightFinder<'a> {
    /// Nothing found yet.
    pub fn new(file: &'a Gguf) -> Self {
        Self::with_found(file, Vec::new())
    }

    /// These found already, in the order of their numbers.
    pub fn with_found(file: &'a Gguf, found: Vec<Weight>) -> Self {
        Self { file, found }
    }

    /// The file searched.
    pub fn file(&self) -> &'a Gguf {
        self.file
    }

    /// All weights found, by their ids.
    pub fn into_weights(self) -> Vec<Weight> {
        self.found
    }

    /// The weight of a name if the file has it, with the shape `[columns, rows]` (one row: a vector).
    pub fn optional(
        &mut self,
        name: &str,
        columns: usize,
        rows: usize,
    ) -> Result<Option<WeightId>> {
        if let Some(known) = self.found.iter().position(|weight| weight.name == name) {
            return Ok(Some(WeightId(known)));
        }
        let Some(tensor) = self.file.tensor(name) else { return Ok(None) };
        let expected = [columns as u64, rows as u64];
        // A vector may be several rows in the file: biases of experts.
        let vector = rows == 1 && tensor.elements() == expected[0];
        if !vector && (tensor.row_length() != expected[0] || tensor.rows() != expected[1]) {
            return Err(Error::Model {
                file: self.file.source(tensor).name().into(),
                why: format!(
                    "tensor {name} has the shape {:?}, the metadata asks for {expected:?}; the file is damaged or was converted wrongly",
                    tensor.shape
                ),
            });
        }
        let format = self.file.format(tensor)?;
        let scale = self.scale(name)?;
        self.found.push(Weight { name: name.into(), format, columns, rows, scale });
        Ok(Some(WeightId(self.found.len() - 1)))
    }

    /// The factor that the file has for a matrix, else 1.
    fn scale(&self, name: &str) -> Result<f32> {
        let Some(name) = name.strip_suffix(".weight").map(|name| format!("{name}.scale")) else {
            return Ok(1.0);
        };
        let Some(tensor) = self.file.tensor(&name) else { return Ok(1.0) };
        if tensor.elements() == 1 {
            return Ok(read_f32(self.file, &name)?[0]);
        }
        if FACTORS_OF_THEIR_OWN.iter().any(|of| name.ends_with(of)) {
            return Ok(1.0);
        }
        Err(Error::Model {
            file: self.file.source(tensor).name().into(),
            why: format!(
                "tensor {name} has {} factors; this engine applies one factor a matrix, and factors of each expert to their last products (ffn_down_exps.scale) only: use a file in another quantization",
                tensor.elements()
            ),
        })
    }

    /// The rows of a tensor, if the file has it.
    pub fn rows(&self, name: &str) -> Option<usize> {
        self.file.tensor(name).map(|tensor| tensor.rows() as usize)
    }

    /// Whether the file has both tensors, as weights that one matrix cannot hold.
    pub fn differ(&self, one: &str, other: &str) -> bool {
        match (self.file.tensor(one), self.file.tensor(other)) {
            (Some(a), Some(b)) => a.tensor_type != b.tensor_type,
            _ => false,
        }
    }

    /// Whether the file has a tensor.
    pub fn has(&self, name: &str) -> bool {
        self.file.tensor(name).is_some()
    }

    /// The weight of a name, which must be there.
    pub fn require(&mut self, name: &str, columns: usize, rows: usize) -> Result<WeightId> {
        match self.optional(name, columns, rows)? {
            Some(id) => Ok(id),
            None => Err(Error::File(gguf::Error::MissingTensor {
                file: self.file.file().into(),
                name: name.into(),
            })),
        }
    }
}

/// Reads a whole tensor as f32: for vectors and small tables.
pub fn read_f32(file: &Gguf, name: &str) -> Result<Vec<f32>> {
    let tensor = file.require(name)?;
    let format = file.format(tensor)?;
    let mut blocks = vec![0; tensor.bytes.unwrap_or(0) as usize];
    file.read(tensor, 0, &mut blocks)?;
    let mut values = vec![0.0; tensor.elements() as usize];
    format.decode(&blocks, &mut values);
    Ok(values)
}

//! What some embedding models have behind the pooling.

use super::ModelFile;
use super::weights::read_f32;
use crate::{Error, Result};

/// The layers that some files have behind the pooling: `dense_2`, which may have a bias, then `dense_3`.
pub(crate) struct Projection(Vec<Dense>);

/// Weights `[rows, columns]`, and a number for each row, or none at all.
struct Dense {
    matrix: Vec<f32>,
    bias: Vec<f32>,
}

impl Projection {
    /// Reads the layers of a file; none is the identity.
    pub(crate) fn read(file: &ModelFile) -> Result<Self> {
        let (gguf, mut width) = (&file.gguf, file.spec.embedding_numbers);
        let mut layers = Vec::new();
        for name in ["dense_2", "dense_3"] {
            let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
            let Some(tensor) = gguf.tensor(&weight) else { continue };
            if tensor.row_length() != width as u64 || tensor.elements() == 0 {
                return Err(Error::Model {
                    file: gguf.source(tensor).name().into(),
                    why: format!(
                        "tensor {weight} has the shape {:?} for vectors of {width}; the file is damaged or was converted wrongly",
                        tensor.shape
                    ),
                });
            }
            width = tensor.rows() as usize;
            let bias = match gguf.tensor(&bias) {
                Some(_) => read_f32(gguf, &bias)?,
                None => Vec::new(),
            };
            layers.push(Dense { matrix: read_f32(gguf, &weight)?, bias });
        }
        Ok(Self(layers))
    }

    /// A pooled vector through the layers.
    pub(crate) fn apply(&self, mut vector: Vec<f64>) -> Vec<f64> {
        for Dense { matrix, bias } in &self.0 {
            let product = matrix.chunks_exact(vector.len()).enumerate().map(|(row, weights)| {
                let sum: f64 = weights.iter().zip(&vector).map(|(&w, x)| f64::from(w) * x).sum();
                sum + bias.get(row).map_or(0.0, |&bias| f64::from(bias))
            });
            vector = product.collect();
        }
        vector
    }
}

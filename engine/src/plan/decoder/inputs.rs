//! What goes into layers besides the stream, and what becomes of embeddings before the first.

use super::{Builder, Matrices};
use crate::plan::{Epilogue, Parts, RowOf, ValueId, op};
use crate::spec::{NormKind, PerLayerInput};
use crate::{Error, Result};

impl Builder<'_> {
    /// What BERT adds to an embedding: the first kind of token, the position; then the norm.
    pub(super) fn finish_embedding(&mut self, mut x: ValueId) -> Result<ValueId> {
        let width = self.spec.embedding;
        for (name, row) in [("token_types", RowOf::First), ("position_embd", RowOf::Position)] {
            let name = format!("{name}.weight");
            let Some(rows) = self.weights.rows(&name) else { continue };
            if row == RowOf::Position && rows < self.positions {
                return Err(Error::Option(format!(
                    "the model knows {rows} positions, the context has {}: at most {rows} can be used",
                    self.positions
                )));
            }
            let table = self.weights.require(&name, width, rows)?;
            let out = self.next(x);
            self.push(op::AddRow { table, row, scale: 1.0, add_to: x, out });
            x = out;
        }
        let normed = self.next(x);
        self.norm(x, "token_embd_norm", None, normed)?;
        Ok(normed)
    }

    /// What each layer is given of the token (gemma4): a norm of a product of the embedding, plus a row of the token's;
    /// their common factor 1 / sqrt(2) is applied where they are used.
    pub(super) fn layer_inputs(&mut self, input: PerLayerInput, x: ValueId) -> Result<ValueId> {
        let (width, layers) = (self.spec.embedding, self.spec.layers.len());
        let all = self.value("layer inputs", layers * input.padded);
        let name = "per_layer_model_proj.weight";
        let project = self.weights.require(name, width, layers * input.padded)?;
        self.push(op::Linear {
            input: x,
            weights: vec![project],
            biases: vec![None],
            factor: 1.0 / (self.spec.embedding_numbers as f32).sqrt(),
            epilogue: Epilogue::Store,
            before: None,
            offset: 0,
            out: all,
        });
        let weight = self.weights.require("per_layer_proj_norm.weight", input.width, 1)?;
        let at = Parts { value: all, offset: 0, stride: input.padded };
        let normed = self.norm_parts(at, (layers, input.width), NormKind::Rms, Some(weight));
        let (rows, columns) = (self.spec.vocabulary, layers * input.padded);
        let table = self.weights.require("per_layer_token_embd.weight", columns, rows)?;
        let scale = (input.width as f32).sqrt();
        let out = self.next(normed);
        self.push(op::AddRow { table, row: RowOf::Id, scale, add_to: normed, out });
        Ok(out)
    }

    /// y += norm(proj(activation(gate y) * input of the layer)).
    pub(super) fn layer_input(
        &mut self,
        index: usize,
        input: PerLayerInput,
        values: ValueId,
        x: ValueId,
    ) -> Result<ValueId> {
        let width = input.padded;
        let (gate, proj) = ([("inp_gate", width)], [("proj", self.spec.embedding)]);
        let gate_matrix = Matrices { fused: None, names_and_rows: &gate };
        let epilogue = Epilogue::Activated(self.spec.activation);
        let gate = self.products(index, x, gate_matrix, (1.0, epilogue), "layer gate")?;
        let whole = Parts { value: gate, offset: 0, stride: width };
        let of_layer = Parts { value: values, offset: index * width, stride: width };
        let gated = self.gate_parts((of_layer, None), whole, (1, width));
        let proj = Matrices { fused: None, names_and_rows: &proj };
        let how = (std::f32::consts::FRAC_1_SQRT_2, Epilogue::Store);
        let branch = self.products(index, gated, proj, how, "branch")?;
        self.add_norm(branch, &format!("blk.{index}.post_norm"), x)
    }
}

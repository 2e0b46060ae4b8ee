//! What goes into layers besides the stream, and what becomes of embeddings before the first.

use super::Builder;
use crate::plan::{Epilogue, Parts, RowOf, ValueId, op};
use crate::spec::{NormKind, PerLayerInput};
use crate::{Error, Result};

impl Builder<'_> {
    /// What BERT adds to an embedding: the first kind of token, the position; then the norm.
    pub(super) fn finish_embedding(&mut self, x: ValueId) -> Result<ValueId> {
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
            self.push(op::AddRow { table, row, scale: 1.0, out: x });
        }
        let normed = self.value("x", width);
        self.norm(x, "token_embd_norm", false, normed)?;
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
            out: all,
        });
        let weight = self.weights.require("per_layer_proj_norm.weight", input.width, 1)?;
        let at = Parts { value: all, offset: 0, stride: input.padded };
        self.norm_parts(at, (layers, input.width), NormKind::Rms, Some(weight));
        let (rows, columns) = (self.spec.vocabulary, layers * input.padded);
        let table = self.weights.require("per_layer_token_embd.weight", columns, rows)?;
        let scale = (input.width as f32).sqrt();
        self.push(op::AddRow { table, row: RowOf::Id, scale, out: all });
        Ok(all)
    }

    /// y += norm(proj(activation(gate y) * input of the layer)).
    pub(super) fn layer_input(
        &mut self,
        index: usize,
        input: PerLayerInput,
        values: ValueId,
        x: ValueId,
    ) -> Result<()> {
        let width = input.padded;
        let gate = self.value("layer gate", width);
        let part = [("inp_gate", width)];
        let epilogue = Epilogue::Activated(self.spec.activation);
        self.linear(index, x, (None, &part), (1.0, epilogue), gate)?;
        let whole = Parts { value: gate, offset: 0, stride: width };
        let of_layer = Parts { value: values, offset: index * width, stride: width };
        self.push(op::Gate {
            gate: whole,
            activation: None,
            input: Some(of_layer),
            shape: (1, width),
            out: whole,
        });
        let branch = self.value("branch", self.spec.embedding);
        let (part, factor) = ([("proj", self.spec.embedding)], std::f32::consts::FRAC_1_SQRT_2);
        self.linear(index, gate, (None, &part), (factor, Epilogue::Store), branch)?;
        self.norm(branch, &format!("blk.{index}.post_norm"), true, x)
    }
}

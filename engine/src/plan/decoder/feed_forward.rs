//! Feed-forward networks and mixtures of experts.

use super::Builder;
use crate::Result;
use crate::plan::{Epilogue, ValueId, op};
use crate::spec::{Activation, Experts, FeedForward, NormKind, SharedExpert};

impl Builder<'_> {
    pub(super) fn feed_forward(
        &mut self,
        index: usize,
        network: &FeedForward,
        read: ValueId,
        x: ValueId,
    ) -> Result<()> {
        let activation = self.spec.activation;
        match network {
            FeedForward::None | FeedForward::GatedAndExperts { .. } => Ok(()),
            FeedForward::Gated { width } => {
                let names = ["ffn_gate", "ffn_up"];
                let hidden = self.gated(index, (Some("ffn_up"), names), read, *width)?;
                self.close_branch(index, hidden, "ffn_down", "post_ffw_norm", x)
            }
            FeedForward::Plain { width } => {
                let hidden = self.value("hidden", *width);
                let part = [("ffn_up", *width)];
                let epilogue = Epilogue::Activated(activation);
                self.linear(index, read, (None, &part), (1.0, epilogue), hidden)?;
                self.close_branch(index, hidden, "ffn_down", "post_ffw_norm", x)
            }
            FeedForward::Experts(experts) => self.experts(index, experts, (read, 1.0), read, x),
        }
    }

    /// activation(gate) * up.
    pub(super) fn gated(
        &mut self,
        index: usize,
        (fused, names): (Option<&str>, [&str; 2]),
        read: ValueId,
        width: usize,
    ) -> Result<ValueId> {
        let hidden = self.value("hidden", width);
        let both = self.value("gate and up", 2 * width);
        let parts = names.map(|name| (name, width));
        let epilogue = Epilogue::Gated { activation: self.spec.activation, both };
        self.linear(index, read, (fused, &parts), (1.0, epilogue), hidden)?;
        Ok(hidden)
    }

    /// A mixture of experts, and the one that every token passes.
    pub(super) fn experts(
        &mut self,
        index: usize,
        experts: &Experts,
        (router_input, router_factor): (ValueId, f32),
        read: ValueId,
        x: ValueId,
    ) -> Result<()> {
        let (routing, width, columns) = (experts.routing, experts.width, self.spec.embedding);
        let (count, used) = (routing.count, routing.used);
        let logits = self.value("expert logits", count);
        let part = [("ffn_gate_inp", count)];
        let how = (router_factor, Epilogue::Store);
        self.linear(index, router_input, (None, &part), how, logits)?;
        let name = format!("blk.{index}.exp_probs_b.bias");
        let bias = self.weights.optional(&name, count, 1)?;
        let routes = self.value("routes", 2 * used);
        let name = format!("blk.{index}.ffn_down_exps.scale");
        let scales = self.weights.optional(&name, count, 1)?;
        self.push(op::Route { logits, bias, routing, scales, out: routes });

        let fused = [("ffn_gate_up_exps", 2 * width)];
        let split = [("ffn_gate_exps", width), ("ffn_up_exps", width)];
        let parts =
            if self.is_fused(index, fused[0].0, split[0].0) { &fused[..] } else { &split[..] };
        let (mut weights, mut biases) = (Vec::new(), Vec::new());
        for &(name, rows) in parts {
            let (weight, bias) = self.weight_and_bias(index, name, columns, rows * count)?;
            weights.push(weight);
            biases.push(bias);
        }
        let hidden = self.value("hidden", used * width);
        let both = self.value("gate and up", used * 2 * width);
        let activation = self.spec.activation;
        self.push(op::ExpertsGated {
            input: read,
            routes,
            routing,
            weights,
            biases,
            activation,
            both,
            out: hidden,
        });
        let (weight, bias) =
            self.weight_and_bias(index, "ffn_down_exps", width, columns * count)?;
        let parts = self.value("expert products", used * columns);
        let factor = self.spec.residual_scale;
        self.push(op::ExpertsDown {
            input: hidden,
            routes,
            routing,
            weight,
            bias,
            factor,
            parts,
            out: x,
        });
        match experts.shared {
            Some(shared) => self.shared_expert(index, shared, read, x),
            None => Ok(()),
        }
    }

    pub(super) fn shared_expert(
        &mut self,
        index: usize,
        shared: SharedExpert,
        read: ValueId,
        x: ValueId,
    ) -> Result<()> {
        let names = ["ffn_gate_shexp", "ffn_up_shexp"];
        let hidden = self.gated(index, (None, names), read, shared.width)?;
        let (down, factor) = ([("ffn_down_shexp", self.spec.embedding)], self.spec.residual_scale);
        if !shared.gated {
            return self.linear(index, hidden, (None, &down), (factor, Epilogue::AddTo), x);
        }
        let output = self.value("shared expert", self.spec.embedding);
        self.linear(index, hidden, (None, &down), (1.0, Epilogue::Store), output)?;
        let gate = self.value("shared gate", 1);
        let part = [("ffn_gate_inp_shexp", 1)];
        self.linear(index, read, (None, &part), (1.0, Epilogue::Store), gate)?;
        let activation = Activation::Sigmoid;
        self.push(op::AddGated { gate, activation, input: output, factor, out: x });
        Ok(())
    }

    /// x += norm(norm(network) + norm(experts)), the router reading x by a norm of its own (gemma4).
    pub(super) fn gated_and_experts(
        &mut self,
        index: usize,
        width: usize,
        experts: &Experts,
        x: ValueId,
    ) -> Result<()> {
        let embedding = self.spec.embedding;
        let name = |name: &str| format!("blk.{index}.{name}");
        let read = self.open_branch(index, "ffn_norm", x)?;
        let hidden = self.gated(index, (Some("ffn_up"), ["ffn_gate", "ffn_up"]), read, width)?;
        let dense = self.value("branch", embedding);
        let down = [("ffn_down", embedding)];
        self.linear(index, hidden, (None, &down), (1.0, Epilogue::Store), dense)?;
        let sum = self.value("both branches", embedding);
        self.norm(dense, &name("post_ffw_norm_1"), false, sum)?;

        let routed = self.value("router input", embedding);
        let weight = self.weights.require(&name("ffn_gate_inp.scale"), embedding, 1)?;
        let (kind, epsilon) = (NormKind::Rms, self.spec.norm_epsilon);
        let (input, bias, add) = (x, None, false);
        let count = self.spec.embedding_numbers;
        self.push(op::Norm { input, kind, weight, bias, epsilon, count, add, out: routed });
        let read = self.open_branch(index, "pre_ffw_norm_2", x)?;
        // Experts add to what they are given: zeros.
        let of_experts = self.value("branch", embedding);
        self.push(op::Scale { value: of_experts, factor: 0.0 });
        let factor = 1.0 / (count as f32).sqrt();
        self.experts(index, experts, (routed, factor), read, of_experts)?;
        self.norm(of_experts, &name("post_ffw_norm_2"), true, sum)?;
        self.norm(sum, &name("post_ffw_norm"), true, x)
    }
}

//! Feed-forward networks and mixtures of experts.

use super::{Builder, Matrices};
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
    ) -> Result<ValueId> {
        let activation = self.spec.activation;
        match network {
            FeedForward::None | FeedForward::GatedAndExperts { .. } => Ok(x),
            FeedForward::Gated { width } => {
                let names = ["ffn_gate", "ffn_up"];
                let hidden = self.gated(index, (Some("ffn_up"), names), read, *width)?;
                self.close_branch(index, hidden, "ffn_down", "post_ffw_norm", x)
            }
            FeedForward::Plain { width } => {
                let up = Matrices { fused: None, names_and_rows: &[("ffn_up", *width)] };
                let epilogue = Epilogue::Activated(activation);
                let hidden = self.products(index, read, up, (1.0, epilogue), "hidden")?;
                self.close_branch(index, hidden, "ffn_down", "post_ffw_norm", x)
            }
            FeedForward::Experts(experts) => {
                self.experts(index, experts, (read, 1.0), read, Some(x))
            }
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
        let both = self.value("gate and up", 2 * width);
        let matrices = Matrices { fused, names_and_rows: &names.map(|name| (name, width)) };
        let epilogue = Epilogue::Gated { activation: self.spec.activation, both };
        self.products(index, read, matrices, (1.0, epilogue), "hidden")
    }

    /// A mixture of experts, and the one that every token passes, added to `x` where that is given.
    pub(super) fn experts(
        &mut self,
        index: usize,
        experts: &Experts,
        (router_input, router_factor): (ValueId, f32),
        read: ValueId,
        x: Option<ValueId>,
    ) -> Result<ValueId> {
        let (routing, width, columns) = (experts.routing, experts.width, self.spec.embedding);
        let (count, used) = (routing.count, routing.used);
        let router = Matrices { fused: None, names_and_rows: &[("ffn_gate_inp", count)] };
        let how = (router_factor, Epilogue::Store);
        let logits = self.products(index, router_input, router, how, "expert logits")?;
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
        let out = match x {
            Some(x) => self.next(x),
            None => self.value("branch", columns),
        };
        self.push(op::ExpertsDown {
            input: hidden,
            routes,
            routing,
            weight,
            bias,
            factor,
            parts,
            add_to: x,
            out,
        });
        match experts.shared {
            Some(shared) => self.shared_expert(index, shared, read, out),
            None => Ok(out),
        }
    }

    pub(super) fn shared_expert(
        &mut self,
        index: usize,
        shared: SharedExpert,
        read: ValueId,
        x: ValueId,
    ) -> Result<ValueId> {
        let names = ["ffn_gate_shexp", "ffn_up_shexp"];
        let hidden = self.gated(index, (None, names), read, shared.width)?;
        let (down, factor) = (("ffn_down_shexp", self.spec.embedding), self.spec.residual_scale);
        if !shared.gated {
            return self.add_product(index, hidden, down, factor, x);
        }
        let input = self.plain_products(index, hidden, &[down], "shared expert")?;
        let part = [("ffn_gate_inp_shexp", 1)];
        let gate = self.plain_products(index, read, &part, "shared gate")?;
        let (activation, out) = (Activation::Sigmoid, self.next(x));
        self.push(op::AddGated { gate, activation, input, factor, add_to: x, out });
        Ok(out)
    }

    /// x += norm(norm(network) + norm(experts)), the router reading x by a norm of its own (gemma4).
    pub(super) fn gated_and_experts(
        &mut self,
        index: usize,
        width: usize,
        experts: &Experts,
        x: ValueId,
    ) -> Result<ValueId> {
        let embedding = self.spec.embedding;
        let name = |name: &str| format!("blk.{index}.{name}");
        let read = self.open_branch(index, "ffn_norm", x)?;
        let hidden = self.gated(index, (Some("ffn_up"), ["ffn_gate", "ffn_up"]), read, width)?;
        let dense = self.plain_products(index, hidden, &[("ffn_down", embedding)], "branch")?;
        let sum = self.value("both branches", embedding);
        self.norm(dense, &name("post_ffw_norm_1"), None, sum)?;

        let routed = self.value("router input", embedding);
        let weight = self.weights.require(&name("ffn_gate_inp.scale"), embedding, 1)?;
        let (kind, epsilon) = (NormKind::Rms, self.spec.norm_epsilon);
        let (input, bias, add_to) = (x, None, None);
        let count = self.spec.embedding_numbers;
        self.push(op::Norm { input, kind, weight, bias, epsilon, count, add_to, out: routed });
        let read = self.open_branch(index, "pre_ffw_norm_2", x)?;
        let factor = 1.0 / (count as f32).sqrt();
        let of_experts = self.experts(index, experts, (routed, factor), read, None)?;
        let sum = self.add_norm(of_experts, &name("post_ffw_norm_2"), sum)?;
        self.add_norm(sum, &name("post_ffw_norm"), x)
    }
}

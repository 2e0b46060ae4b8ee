//! Mixtures of experts.

use super::{Reference, Values, gated, multiply, route};
use crate::plan::op;
use crate::spec::Routing;
use crate::spec::weights::WeightId;

impl Reference {
    pub(super) fn route(&mut self, op: &op::Route, values: &mut Values) {
        let op::Route { routing, .. } = op;
        let one_more = Routing { used: routing.used + 1, ..*routing };
        let mut margin = self.margin;
        let (bias, scales) = [op.bias, op.scales].map(|id| id.map(|id| self.weight(id))).into();
        let rows = values[op.logits.0].iter().map(|logits| {
            if let [.., last, next] = route(logits, None, &one_more).as_slice() {
                margin = margin.min((logits[last.0] - logits[next.0]).abs());
            }
            let scale = |e: usize| scales.map_or(1.0, |all| f64::from(all[e]));
            let chosen = route(logits, bias, routing);
            chosen.into_iter().flat_map(|(e, w)| [e as f64, w * scale(e)]).collect()
        });
        values[op.out.0] = rows.collect();
        self.margin = margin;
    }

    pub(super) fn experts_gated(&self, op: &op::ExpertsGated, values: &mut Values) {
        let rows = values[op.input.0].iter().zip(&values[op.routes.0]);
        let hidden = rows.map(|(x, routes)| {
            let each = routes.chunks_exact(2).map(|route| {
                let mut both = Vec::new();
                for (weight, bias) in op.weights.iter().zip(&op.biases) {
                    both.extend(self.expert(*weight, *bias, route[0], &op.routing, x));
                }
                gated(&both, op.activation)
            });
            each.flatten().collect()
        });
        values[op.out.0] = hidden.collect();
    }

    pub(super) fn experts_down(&self, op: &op::ExpertsDown, values: &mut Values) {
        let rows = values[op.input.0].iter().zip(&values[op.routes.0]);
        let sums = rows.map(|(hidden, routes)| {
            let mut sum = vec![0.0; self.plan.value(op.out).width];
            let pairs = hidden.chunks_exact(hidden.len() / op.routing.used);
            for (hidden, route) in pairs.zip(routes.chunks_exact(2)) {
                let product = self.expert(op.weight, op.bias, route[0], &op.routing, hidden);
                for (sum, y) in sum.iter_mut().zip(product) {
                    *sum += f64::from(op.factor) * route[1] * y;
                }
            }
            sum
        });
        let sums: Vec<Vec<f64>> = sums.collect();
        match op.add_to {
            Some(_) => Self::add_to(values, op.out, &sums),
            None => values[op.out.0] = sums,
        }
    }

    /// The product of one expert's part of a weight with `x`.
    fn expert(
        &self,
        weight: WeightId,
        bias: Option<WeightId>,
        expert: f64,
        routing: &Routing,
        x: &[f64],
    ) -> Vec<f64> {
        let part = |weights: &'_ [f32]| {
            let length = weights.len() / routing.count;
            expert as usize * length..(expert as usize + 1) * length
        };
        let matrix = &self.weights[weight.0];
        let bias = bias.map(|bias| &self.weights[bias.0]);
        let bias = bias.map(|bias| &bias[part(bias)]);
        multiply(&matrix[part(matrix)], x, f64::from(self.plan.weight(weight).scale), bias)
    }
}

//! Ops that go through each sequence token by token, and products of parts, to dispatches.

use shaders::Variant;

use super::{Dispatch, Extent, LANES, Lowering, Resource, Scratch, activated};
use crate::plan::op;

impl Lowering<'_> {
    fn vector_named(
        &self,
        name: &'static str,
        id: crate::spec::weights::WeightId,
    ) -> (&'static str, Resource) {
        (name, Resource::Vector(self.layout.vector_of(self.plan(), id)))
    }

    pub(super) fn conv(&self, op: &op::Conv) -> Dispatch {
        let &op::Conv {
            offset,
            channels,
            taps,
            ahead,
            weight,
            bias,
            activation,
            state,
            out: value,
            ..
        } = op;
        let mut variant = Variant::new("conv")
            .define_if(bias.is_some(), "BIAS")
            .define_if(activation.is_some(), "ACTIVATED")
            .number("TAPS", taps as u32)
            .number("BEFORE", taps as u32 - 1)
            .constant("LANES", LANES);
        if let Some(activation) = activation {
            variant = activated(variant, activation);
        }
        if ahead > 0 {
            variant = variant.define_if(true, "SEES_AHEAD").number("AHEAD", ahead as u32);
        }
        let mut bindings = vec![
            ("values", Resource::Value(value)),
            self.vector_named("weight", weight),
            ("state", Resource::State(state)),
            ("tokens", Resource::Tokens),
            ("step", Resource::Scratch(Scratch::Step)),
        ];
        bindings.extend(bias.map(|bias| self.vector_named("bias", bias)));
        Dispatch {
            variant,
            bindings,
            params: vec![
                ("row", self.plan().value(value).width as u32),
                ("offset", offset as u32),
                ("channels", channels as u32),
            ],
            grid: [
                Extent::Fixed((channels as u32).div_ceil(LANES)),
                Extent::Fixed(self.sizes().sequences as u32),
                Extent::Fixed(1),
            ],
            op: 0,
            work: 0,
        }
    }

    pub(super) fn mamba2(&self, op: &op::Mamba2) -> Dispatch {
        let &op::Mamba2 { input, mamba, a, d, dt_bias, state, out } = op;
        Dispatch {
            variant: Variant::new("mamba2").constant("LANES", LANES),
            bindings: vec![
                ("values", Resource::Value(input)),
                self.vector_named("a", a),
                self.vector_named("d", d),
                self.vector_named("dt_bias", dt_bias),
                ("state", Resource::State(state)),
                ("tokens", Resource::Tokens),
                ("out", Resource::Value(out)),
                ("step", Resource::Scratch(Scratch::Step)),
            ],
            params: vec![
                ("heads", mamba.heads as u32),
                ("head_size", mamba.head_size as u32),
                ("states", mamba.state as u32),
                ("groups", mamba.groups as u32),
            ],
            grid: self.by_head(mamba.heads),
            op: 0,
            work: 0,
        }
    }

    pub(super) fn delta_net(&self, op: &op::DeltaNet) -> Dispatch {
        let &op::DeltaNet { qkv, gates, gates_by_key_head, net, a, dt_bias, state, out } = op;
        Dispatch {
            variant: Variant::new("delta_net")
                .define_if(net.grouped, "GROUPED")
                .define_if(gates_by_key_head, "BY_KEY_HEAD")
                .constant("LANES", (net.size as u32).clamp(32, 256)),
            bindings: vec![
                ("qkv", Resource::Value(qkv)),
                ("gates", Resource::Value(gates)),
                self.vector_named("a", a),
                self.vector_named("dt_bias", dt_bias),
                ("state", Resource::State(state)),
                ("tokens", Resource::Tokens),
                ("out", Resource::Value(out)),
                ("step", Resource::Scratch(Scratch::Step)),
            ],
            params: vec![
                ("heads", net.value_heads as u32),
                ("key_heads", net.key_heads as u32),
                ("size", net.size as u32),
            ],
            grid: self.by_head(net.value_heads),
            op: 0,
            work: 0,
        }
    }

    /// A workgroup a head of a sequence.
    fn by_head(&self, heads: usize) -> [Extent; 3] {
        [
            Extent::Fixed(heads as u32),
            Extent::Fixed(self.sizes().sequences as u32),
            Extent::Fixed(1),
        ]
    }
}

//! What ops read and write: one list an op, from which everything that must know follows: lifetimes, layouts, probes.

use super::op::{Epilogue, Op, Parts, StateId, ValueId};
use crate::spec::weights::WeightId;

/// What an op does with what an operand names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Reads a value.
    Reads,
    /// Reads the value that becomes the result: both may be one piece of memory, if nothing reads it later.
    Becomes,
    /// Writes a value that no other op uses: room to work in.
    Room,
    /// Writes the op's result.
    Result,
    /// Multiplies rows with a matrix, of so many experts' rows (else 1), or takes rows of it. Several should lie side by side.
    Matrix(usize),
    /// Adds a vector to what comes of a matrix: of the matrix with the same place among the op's.
    Bias,
    /// Takes a weight for a vector of floats.
    Vector,
    /// Reads a state and writes it.
    State,
}

/// What an operand names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Id {
    /// A value.
    Value(ValueId),
    /// A weight.
    Weight(WeightId),
    /// A state.
    State(StateId),
}

/// An operand of an op.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operand {
    /// What is done with it.
    pub role: Role,
    /// Its place among those of its field.
    pub place: usize,
    /// What it names.
    pub id: Id,
}

/// Fields that name things.
trait Names {
    /// Calls `f` with the place of each among the field's, and what it names.
    fn each(&self, f: &mut dyn FnMut(usize, Id));

    /// The same; what is named becomes what `f` answers.
    fn rename(&mut self, f: &mut dyn FnMut(Id) -> Id);
}

macro_rules! names {
    ($($name:ident $id:ident)*) => {
        $(impl Names for $name {
            fn each(&self, f: &mut dyn FnMut(usize, Id)) {
                f(0, Id::$id(*self));
            }

            fn rename(&mut self, f: &mut dyn FnMut(Id) -> Id) {
                if let Id::$id(id) = f(Id::$id(*self)) {
                    *self = id;
                }
            }
        })*
    };
}

names! { ValueId Value WeightId Weight StateId State }

impl Names for Parts {
    fn each(&self, f: &mut dyn FnMut(usize, Id)) {
        self.value.each(f);
    }

    fn rename(&mut self, f: &mut dyn FnMut(Id) -> Id) {
        self.value.rename(f);
    }
}

impl Names for Epilogue {
    fn each(&self, f: &mut dyn FnMut(usize, Id)) {
        if let Epilogue::Gated { both, .. } = self {
            both.each(f);
        }
    }

    fn rename(&mut self, f: &mut dyn FnMut(Id) -> Id) {
        if let Epilogue::Gated { both, .. } = self {
            both.rename(f);
        }
    }
}

impl<T: Names> Names for Option<T> {
    fn each(&self, f: &mut dyn FnMut(usize, Id)) {
        if let Some(one) = self {
            one.each(f);
        }
    }

    fn rename(&mut self, f: &mut dyn FnMut(Id) -> Id) {
        if let Some(one) = self {
            one.rename(f);
        }
    }
}

impl<T: Names> Names for Vec<T> {
    fn each(&self, f: &mut dyn FnMut(usize, Id)) {
        for (place, one) in self.iter().enumerate() {
            one.each(&mut |_, id| f(place, id));
        }
    }

    fn rename(&mut self, f: &mut dyn FnMut(Id) -> Id) {
        for one in self {
            one.rename(f);
        }
    }
}

/// The operands of each op: fields with their roles, in the order in which they are used.
macro_rules! operands {
    ($($op:ident($it:pat) { $($field:ident: $role:expr),* $(,)? })*) => {
        impl Op {
            /// Calls `f` with what the op reads and writes, in the order in which it does.
            pub fn each_operand(&self, f: &mut dyn FnMut(Operand)) {
                match self {
                    $(Op::$op(op) => {
                        let $it = op;
                        $({
                            let role = $role;
                            op.$field.each(&mut |place, id| f(Operand { role, place, id }));
                        })*
                    })*
                }
            }

            /// The op over other ids: what `new` makes of each.
            #[must_use]
            pub fn renumbered(&self, new: &mut dyn FnMut(Id) -> Id) -> Self {
                let mut renumbered = self.clone();
                match &mut renumbered {
                    $(Op::$op(op) => {
                        $(op.$field.rename(new);)*
                    })*
                }
                renumbered
            }
        }
    };
}

operands! {
    Embed(_) { table: Role::Matrix(1), out: Role::Result }
    Norm(_) { input: Role::Reads, weight: Role::Vector, bias: Role::Vector, add_to: Role::Becomes, out: Role::Result }
    AddRow(_) { table: Role::Matrix(1), add_to: Role::Becomes, out: Role::Result }
    Scale(_) { input: Role::Becomes, out: Role::Result }
    HeadLinear(op) { input: Role::Reads, weight: Role::Matrix(op.heads), out: Role::Result }
    NormParts(_) { input: Role::Becomes, weight: Role::Vector, out: Role::Result }
    Linear(_) {
        input: Role::Reads,
        weights: Role::Matrix(1),
        biases: Role::Bias,
        epilogue: Role::Room,
        before: Role::Becomes,
        out: Role::Result,
    }
    QkRopeStore(_) { qkv: Role::Becomes, v: Role::Reads, q_norm: Role::Vector, k_norm: Role::Vector, out: Role::Result }
    Attention(_) { qkv: Role::Reads, sinks: Role::Vector, out: Role::Result }
    Route(_) { logits: Role::Reads, bias: Role::Vector, scales: Role::Vector, out: Role::Result }
    ExpertsGated(op) {
        input: Role::Reads,
        routes: Role::Reads,
        weights: Role::Matrix(op.routing.count),
        biases: Role::Bias,
        both: Role::Room,
        out: Role::Result,
    }
    ExpertsDown(op) {
        input: Role::Reads,
        routes: Role::Reads,
        weight: Role::Matrix(op.routing.count),
        bias: Role::Bias,
        parts: Role::Room,
        add_to: Role::Becomes,
        out: Role::Result,
    }
    AddGated(_) { gate: Role::Reads, input: Role::Reads, add_to: Role::Becomes, out: Role::Result }
    Gate(_) { gate: Role::Reads, input: Role::Reads, before: Role::Becomes, out: Role::Result }
    Conv(_) {
        input: Role::Becomes,
        weight: Role::Vector,
        bias: Role::Vector,
        state: Role::State,
        out: Role::Result,
    }
    Mamba2(_) { input: Role::Reads, a: Role::Vector, d: Role::Vector, dt_bias: Role::Vector, state: Role::State, out: Role::Result }
    DeltaNet(_) {
        qkv: Role::Reads,
        gates: Role::Reads,
        a: Role::Vector,
        dt_bias: Role::Vector,
        state: Role::State,
        out: Role::Result,
    }
    Softcap(_) { input: Role::Becomes, out: Role::Result }
}

impl Op {
    /// The values that the op reads, and those that it writes.
    pub fn uses(&self) -> (Vec<ValueId>, Vec<ValueId>) {
        let (mut reads, mut writes) = (Vec::new(), Vec::new());
        self.each_operand(&mut |Operand { role, id, .. }| {
            let Id::Value(id) = id else { return };
            match role {
                Role::Reads | Role::Becomes => reads.push(id),
                _ => writes.push(id),
            }
        });
        (reads, writes)
    }

    /// Whether the op reads a value.
    pub fn reads(&self, value: ValueId) -> bool {
        let mut found = false;
        self.each_operand(&mut |Operand { role, id, .. }| {
            found |= matches!(role, Role::Reads | Role::Becomes) && id == Id::Value(value);
        });
        found
    }

    /// The op's result.
    pub fn result(&self) -> ValueId {
        self.value_as(Role::Result)
            .unwrap_or_else(|| unreachable!("the table gives every op its result"))
    }

    /// The value that becomes the op's result, where it is one that the op changes.
    pub fn before(&self) -> Option<ValueId> {
        self.value_as(Role::Becomes)
    }

    /// Whether the op may write its result over what that was before: if it reads each element where it writes it.
    pub fn may_work_in_place(&self) -> bool {
        let mut reads_otherwise = false;
        self.each_operand(&mut |Operand { role, id, .. }| {
            reads_otherwise |= role == Role::Reads && self.before().map(Id::Value) == Some(id);
        });
        match self {
            // Gates go element by element.
            Op::Gate(op) => op.reads_what_it_writes_in_place(),
            _ => !reads_otherwise,
        }
    }

    fn value_as(&self, wanted: Role) -> Option<ValueId> {
        let mut found = None;
        self.each_operand(&mut |Operand { role, id, .. }| {
            if let (true, Id::Value(id)) = (role == wanted, id) {
                found = Some(id);
            }
        });
        found
    }

    /// The matrices that rows are multiplied with, which should lie side by side, and how many experts' rows they are (else 1).
    pub fn matrices(&self) -> (Vec<WeightId>, usize) {
        let (mut all, mut experts) = (Vec::new(), 1);
        self.each_operand(&mut |Operand { role, id, .. }| {
            if let (Role::Matrix(of), Id::Weight(id)) = (role, id) {
                all.push(id);
                experts = of;
            }
        });
        (all, experts)
    }

    /// The weights used as vectors of floats, but for biases.
    pub fn vectors(&self) -> Vec<WeightId> {
        let mut all = Vec::new();
        self.each_operand(&mut |Operand { role, id, .. }| {
            if let (Role::Vector, Id::Weight(id)) = (role, id) {
                all.push(id);
            }
        });
        all
    }

    /// The bias of each of the [`Op::matrices`], where it has one.
    pub fn biases(&self) -> Vec<Option<WeightId>> {
        let mut all = vec![None; self.matrices().0.len()];
        self.each_operand(&mut |Operand { role, place, id }| {
            if let (Role::Bias, Id::Weight(id)) = (role, id) {
                all[place] = Some(id);
            }
        });
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::op;

    fn linear() -> Op {
        let weights = vec![WeightId(4), WeightId(5)];
        let biases = vec![None, Some(WeightId(6))];
        let epilogue = Epilogue::AddTo;
        let (input, before, out) = (ValueId(1), Some(ValueId(2)), ValueId(3));
        op::Linear { input, weights, biases, factor: 1.0, epilogue, before, offset: 0, out }.into()
    }

    #[test]
    fn an_ops_operands_say_what_it_reads_and_writes() {
        let op = linear();
        assert_eq!(op.uses(), (vec![ValueId(1), ValueId(2)], vec![ValueId(3)]));
        assert_eq!((op.before(), op.result()), (Some(ValueId(2)), ValueId(3)));
        assert_eq!(op.matrices(), (vec![WeightId(4), WeightId(5)], 1));
        assert_eq!(op.biases(), [None, Some(WeightId(6))]);
        assert_eq!(op.vectors(), []);
        assert!(op.reads(ValueId(2)) && !op.reads(ValueId(3)));
    }

    #[test]
    fn renumbering_reaches_every_operand() {
        let renumbered = linear().renumbered(&mut |id| match id {
            Id::Value(id) => Id::Value(ValueId(id.0 + 10)),
            Id::Weight(id) => Id::Weight(WeightId(id.0 + 20)),
            Id::State(id) => Id::State(id),
        });
        assert_eq!(renumbered.uses(), (vec![ValueId(11), ValueId(12)], vec![ValueId(13)]));
        assert_eq!(renumbered.matrices().0, [WeightId(24), WeightId(25)]);
        assert_eq!(renumbered.biases(), [None, Some(WeightId(26))]);
    }

    #[test]
    fn an_op_works_in_place_only_if_it_reads_where_it_writes() {
        assert!(linear().may_work_in_place());
        let Op::Linear(linear) = linear() else { unreachable!() };
        // It multiplies all of what it would write over.
        assert!(!Op::from(op::Linear { before: Some(linear.input), ..linear }).may_work_in_place());
        let part = |value, offset| Parts { value: ValueId(value), offset, stride: 8 };
        let gate = |gate, out| {
            let (activation, input, before) = (None, None, Some(ValueId(0)));
            Op::from(op::Gate { gate, activation, input, shape: (1, 8), before, out })
        };
        // The same columns, columns apart, columns that overlap.
        assert!(gate(part(0, 0), part(1, 0)).may_work_in_place());
        assert!(gate(part(0, 0), part(1, 8)).may_work_in_place());
        assert!(!gate(part(0, 0), part(1, 4)).may_work_in_place());
        assert!(gate(part(2, 0), part(1, 4)).may_work_in_place());
    }
}

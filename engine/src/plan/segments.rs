//! Plans cut where the device changes: each device computes its segments, and values cross between them.

use std::collections::HashMap;
use std::ops::Range;

use super::{KvLayerId, Op, Plan, ValueId, op};

/// Neighbouring ops of a plan that one device computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The ops.
    pub ops: Range<usize>,
    /// The device's number.
    pub device: usize,
    /// The values that its ops read and others write, in the order in which they are read.
    pub reads: Vec<ValueId>,
    /// The layers whose keys and values it stores.
    pub kv_layers: Vec<KvLayerId>,
}

impl Plan {
    /// The segments of a plan whose layer i is computed on device `device_of[i]`; what comes before the first layer is of
    /// that one's device, what comes after the last of the last's. Without layers all is one segment, on device 0.
    pub fn segments(&self, device_of: &[usize]) -> Vec<Segment> {
        let mut cuts: Vec<(usize, usize)> = Vec::new();
        for (layer, &device) in self.layers.iter().zip(device_of) {
            if cuts.last().is_none_or(|&(_, last)| last != device) {
                cuts.push((if cuts.is_empty() { 0 } else { layer.start }, device));
            }
        }
        if cuts.is_empty() {
            cuts.push((0, 0));
        }
        let ends = cuts.iter().skip(1).map(|&(start, _)| start).chain([self.ops.len()]);
        let written_by: HashMap<ValueId, usize> =
            self.ops.iter().enumerate().map(|(index, op)| (op.result(), index)).collect();
        let segment = |((start, device), end)| {
            let ops: Range<usize> = start..end;
            let mut reads = Vec::new();
            let mut kv_layers = Vec::new();
            for op in &self.ops[ops.clone()] {
                let of_others = |value: &ValueId| {
                    written_by.get(value).is_some_and(|index| !ops.contains(index))
                };
                for value in op.uses().0.into_iter().filter(of_others) {
                    if !reads.contains(&value) {
                        reads.push(value);
                    }
                }
                if let Op::QkRopeStore(op::QkRopeStore { layer, store: true, .. }) = *op {
                    kv_layers.push(layer);
                }
            }
            Segment { ops, device, reads, kv_layers }
        };
        cuts.iter().copied().zip(ends).map(segment).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::blueprint::{Blueprint, ContextOptions};
    use crate::plan::Op;

    #[test]
    fn a_plan_is_cut_where_the_device_changes() {
        let model = crate::synthetic::open("gemma3-4b/4:q4_0").unwrap();
        let plan = Blueprint::new(&model, &ContextOptions::default()).unwrap().plan;
        assert_eq!(plan.layers.len(), 4);
        let whole = plan.segments(&[3; 4]);
        let [one] = whole.as_slice() else { panic!("{whole:?}") };
        assert_eq!((one.ops.clone(), one.device), (0..plan.ops.len(), 3));
        assert_eq!((one.reads.len(), one.kv_layers.len()), (0, 4));

        let cut = plan.segments(&[0, 0, 1, 0]);
        let devices: Vec<_> = cut.iter().map(|segment| segment.device).collect();
        assert_eq!(devices, [0, 1, 0]);
        // Side by side, at the starts of layers; each but the first reads the stream alone.
        assert_eq!(cut[0].ops, 0..plan.layers[2].start);
        assert_eq!(cut[1].ops, plan.layers[2].clone());
        assert_eq!(cut[2].ops, plan.layers[3].start..plan.ops.len());
        assert_eq!(cut[0].reads, []);
        for segment in &cut[1..] {
            let [stream] = segment.reads.as_slice() else { panic!("{segment:?}") };
            let writer = plan.ops.iter().position(|op| op.result() == *stream);
            assert_eq!(writer, Some(segment.ops.start - 1));
        }
        assert!(matches!(plan.ops[0], Op::Embed(_)));
        let layers: Vec<_> = cut.iter().map(|segment| segment.kv_layers.len()).collect();
        assert_eq!(layers, [2, 1, 1]);
    }
}

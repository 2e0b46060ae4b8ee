//! The dispatches that choose the next ids.

use shaders::Variant;

use super::{Dispatch, Extent, Resource, Scratch};
use crate::blueprint::Blueprint;
use crate::plan::Rows;

/// Candidates that a workgroup of `select_top` sorts, or finds the largest of.
const SORTED: usize = 1024;
/// The most candidates that an id can be chosen among on the GPU.
pub const MOST_CANDIDATES: usize = 256;

/// How many candidates each workgroup keeps, for a top-k.
pub fn kept_candidates(top_k: usize) -> usize {
    match top_k {
        1 => 1,
        2..=64 => 64,
        _ => MOST_CANDIDATES,
    }
}

/// The most candidates of a row that a pass leaves, for the size of their buffers.
pub fn candidate_room(vocabulary: usize) -> usize {
    vocabulary.div_ceil(SORTED) * MOST_CANDIDATES
}

/// The dispatches that choose ids from rows of logits, a selection a workgroup of the grid's y, keeping `keep` candidates a
/// workgroup; with a penalty for recent ids or without.
pub fn lower_selection(blueprint: &Blueprint, keep: usize, penalised: bool) -> Vec<Dispatch> {
    let Blueprint { plan, sizes, .. } = blueprint;
    let candidates =
        |which: usize| Resource::Scratch([Scratch::Candidates, Scratch::OtherCandidates][which]);
    let grid = |workgroups: usize| {
        let selections = Extent::Per(Rows::Outputs, 1);
        [Extent::Fixed(workgroups as u32), selections, Extent::Fixed(1)]
    };
    let vocabulary = ("vocabulary", plan.vocabulary() as u32);
    let room = ("room", candidate_room(plan.vocabulary()) as u32);
    let penalty = || Dispatch {
        variant: Variant::new("select_penalty"),
        bindings: vec![
            ("logits", Resource::Value(plan.logits)),
            ("recent", Resource::Scratch(Scratch::Recent)),
            ("selections", Resource::Selections),
        ],
        params: vec![vocabulary],
        grid: grid(1),
        op: plan.ops.len(),
        work: 0,
    };
    let mut dispatches: Vec<_> = penalised.then(penalty).into_iter().collect();
    let search = match keep {
        1 => Variant::new("select_largest"),
        _ => Variant::new("select_top").constant("KEEP", keep as u32),
    };
    let mut count = plan.vocabulary();
    let mut to = 0;
    let mut first = true;
    loop {
        let workgroups = count.div_ceil(SORTED);
        let mut bindings = vec![("kept", candidates(to))];
        if first {
            bindings.push(("logits", Resource::Value(plan.logits)));
            bindings.push(("flags", Resource::Scratch(Scratch::Flags)));
            bindings.push(("selections", Resource::Selections));
        } else {
            bindings.push(("candidates", candidates(1 - to)));
        }
        dispatches.push(Dispatch {
            variant: search.clone().define_if(first, "FIRST"),
            bindings,
            params: vec![("count", count as u32), room],
            grid: grid(workgroups),
            op: plan.ops.len(),
            work: 0,
        });
        count = workgroups * keep;
        if workgroups == 1 {
            break;
        }
        first = false;
        to = 1 - to;
    }
    dispatches.push(Dispatch {
        variant: Variant::new("select_pick"),
        bindings: vec![
            ("candidates", candidates(to)),
            ("selected", Resource::Scratch(Scratch::Selected)),
            ("recent", Resource::Scratch(Scratch::Recent)),
            ("selections", Resource::Selections),
            ("flags", Resource::Scratch(Scratch::Flags)),
        ],
        params: vec![
            ("count", keep.min(plan.vocabulary()) as u32),
            room,
            vocabulary,
            ("seats", sizes.sequences as u32),
        ],
        grid: grid(1),
        op: plan.ops.len(),
        work: 0,
    });
    dispatches
}

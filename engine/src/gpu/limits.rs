//! What the kernels hold of a model: one beyond it is refused before anything of it is loaded, and runs on the CPU.

use crate::error::Advice;
use crate::plan::{Op, Plan, op};
use crate::{Error, Result};

/// The longest head that lies in workgroup memory (`qk_rope_store.wgsl`).
const LONGEST_HEAD: usize = 1024;
/// The elements of a head that attention takes at once (`attention.wgsl`).
const HEAD_MULTIPLE: usize = 8;
/// The most experts of a layer (`route.wgsl`, `expert_lists.wgsl`).
const MOST_EXPERTS: usize = 1024;
/// The most experts that a token passes, and the most groups that they are chosen out of (`route.wgsl`).
const MOST_CHOSEN: usize = 64;
/// The most taps of a convolution, each an input that a lane keeps in registers (`conv.wgsl`).
const MOST_TAPS: usize = 8;

/// Checks that the kernels hold a plan's ops.
///
/// # Errors
/// They do not hold one; the CPU does.
pub fn check_limits(plan: &Plan) -> Result<()> {
    match plan.ops.iter().find_map(|op| beyond(plan, op)) {
        Some(why) => Err(Error::unsupported(why, Advice::UseCpu)),
        None => Ok(()),
    }
}

/// Why the kernels do not hold an op.
fn beyond(plan: &Plan, op: &Op) -> Option<String> {
    match op {
        Op::QkRopeStore(op::QkRopeStore { layer, .. }) => {
            let kv = plan.kv_layer(*layer);
            let longest = kv.key_length.max(kv.value_length);
            (longest > LONGEST_HEAD).then(|| {
                format!(
                    "heads of {longest} elements are longer than the {LONGEST_HEAD} that the GPU kernels hold"
                )
            })
        }
        Op::Attention(op::Attention { layer, .. }) => {
            let kv = plan.kv_layer(*layer);
            let (keys, values) = (kv.key_length, kv.value_length);
            [keys, values].iter().any(|n| !n.is_multiple_of(HEAD_MULTIPLE)).then(|| {
                format!(
                    "heads of {keys} and {values} elements are no multiples of {HEAD_MULTIPLE}, which the GPU kernels need"
                )
            })
        }
        Op::Route(op::Route { routing, .. }) => {
            let (count, used, groups) = (routing.count, routing.used, routing.groups);
            if count > MOST_EXPERTS || used > MOST_CHOSEN {
                return Some(format!(
                    "{used} of {count} experts are more than the {MOST_CHOSEN} of {MOST_EXPERTS} that the GPU kernels hold"
                ));
            }
            (groups > MOST_CHOSEN).then(|| {
                format!(
                    "{groups} groups of experts are more than the {MOST_CHOSEN} that the GPU kernels hold"
                )
            })
        }
        Op::Conv(op::Conv { taps, .. }) => (*taps > MOST_TAPS).then(|| {
            format!(
                "a convolution with {taps} taps is longer than the {MOST_TAPS} that the GPU kernels hold"
            )
        }),
        _ => None,
    }
}

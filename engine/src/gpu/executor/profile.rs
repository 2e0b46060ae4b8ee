//! A step with a pass for each dispatch, so that the device's clock can be read around it; and in one pass, whole and
//! without each of its kernels.

use std::collections::BTreeMap;

use shaders::Variant;

use super::{GpuExecutor, Recorded};
use crate::executor::Executor as _;
use crate::gpu::lower::cost::Costs;
use crate::kv::{KvTable, PlacedStep};
use crate::profile::{DispatchTime, StepProfile};
use crate::{Error, Result};

/// The most dispatches whose two times go into one set of queries.
const SET: usize = wgpu::QUERY_SET_MAX_QUERIES as usize / 2;

impl GpuExecutor {
    /// Computes a step and times its dispatches, each apart.
    pub(crate) fn time_dispatches(
        &mut self,
        table: &KvTable,
        step: &PlacedStep,
    ) -> Result<StepProfile> {
        self.profile_dispatches(table, step, false)
    }

    /// The same, `in_one_pass` too, whole and without each kernel.
    pub(super) fn profile_dispatches(
        &mut self,
        table: &KvTable,
        step: &PlacedStep,
        in_one_pass: bool,
    ) -> Result<StepProfile> {
        self.gpu.need_timestamps()?;
        if self.blueprint.segments.len() > 1 {
            return Err(Error::unsupported("a step over several devices is not timed", None));
        }
        let (class, recording, copies) = self.begin(table, (step, 0), &[])?;
        self.submit(copies);
        let dispatches = self.lower(class)?;
        let (tokens, outputs) = (step.tokens.len() as u32, self.output_rows as u32);
        let grid = |index: usize| recording[index].grid.map(|extent| extent.count(tokens, outputs));
        let counted: Vec<usize> =
            (0..recording.len()).filter(|&index| grid(index).iter().all(|&n| n > 0)).collect();
        self.counts.dispatches = counted.len();
        let most = self.submit_work();
        let period = f64::from(self.gpu.queue.get_timestamp_period());
        let all = counted.iter().map(|&index| (&recording[index], &dispatches[index].variant));
        let all: Vec<_> = all.collect();
        // First: what is computed without a kernel is wrong, and computed again below.
        let (whole, without) = if in_one_pass {
            self.time_passes(&all, (tokens, outputs), period)?
        } else {
            (0.0, BTreeMap::new())
        };
        let mut ticks: Vec<[u64; 2]> = Vec::with_capacity(counted.len());
        for counted in counted.chunks(SET) {
            let queries = self.gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("profile"),
                ty: wgpu::QueryType::Timestamp,
                count: 2 * counted.len() as u32,
            });
            let mut encoder = self.encoder();
            let mut work = 0;
            for (number, &index) in counted.iter().enumerate() {
                let recorded = &recording[index];
                let [x, y, z] = grid(index);
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                    label: None,
                    timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                        query_set: &queries,
                        beginning_of_pass_write_index: Some(2 * number as u32),
                        end_of_pass_write_index: Some(2 * number as u32 + 1),
                    }),
                });
                pass.set_pipeline(&recorded.pipeline.pipeline);
                pass.set_bind_group(0, &recorded.bind_group, &[]);
                pass.dispatch_workgroups(x, y, z);
                drop(pass);
                work += recorded.work * u64::from(tokens);
                if work > most {
                    work = 0;
                    let full = std::mem::replace(&mut encoder, self.encoder());
                    self.gpu.queue.submit([full.finish()]);
                }
            }
            ticks.extend(self.read_ticks(encoder, &queries, counted.len())?);
        }
        self.gpu.check()?;
        let costs = Costs {
            plan: &self.blueprint.plan,
            layout: &self.weights.layout,
            sizes: &self.blueprint.sizes,
            step,
        };
        let between = |from: u64, to: u64| to.saturating_sub(from) as f64 * period;
        let timed = counted.iter().zip(&ticks).map(|(&index, &[begin, end])| DispatchTime {
            variant: dispatches[index].variant.clone(),
            op: self.blueprint.plan.ops[dispatches[index].op].name(),
            nanoseconds: between(begin, end),
            cost: costs.of(&dispatches[index]),
        });
        let span = match (ticks.first(), ticks.last()) {
            (Some(first), Some(last)) => between(first[0], last[1]),
            _ => 0.0,
        };
        Ok(StepProfile { dispatches: timed.collect(), span, whole, without })
    }

    /// Nanoseconds of a step in one pass, whole and without each variant. Recurrent states are as before afterwards.
    fn time_passes(
        &mut self,
        all: &[(&Recorded, &Variant)],
        (tokens, outputs): (u32, u32),
        period: f64,
    ) -> Result<(f64, BTreeMap<Variant, f64>)> {
        let seats = 0..self.blueprint.sizes.sequences as u32;
        let states: Result<Vec<_>> = seats.clone().map(|seat| self.read_state(seat)).collect();
        let states = states?;
        let recorded = all.iter().map(|(recorded, _)| *recorded);
        let whole = self.time_pass(recorded, tokens, outputs)? as f64 * period;
        let mut without = BTreeMap::new();
        for &(_, variant) in all {
            if without.contains_key(variant) {
                continue;
            }
            let others = all.iter().filter(|(_, other)| *other != variant);
            let ticks = self.time_pass(others.map(|(recorded, _)| *recorded), tokens, outputs)?;
            without.insert(variant.clone(), ticks as f64 * period);
        }
        for (seat, state) in seats.zip(&states) {
            self.write_state(seat, state)?;
        }
        Ok((whole, without))
    }

    /// Computes dispatches in one pass, or in as many as a step's work is cut into; answers the clock's ticks from its
    /// begin to its end.
    fn time_pass<'a>(
        &self,
        dispatches: impl Iterator<Item = &'a Recorded>,
        tokens: u32,
        outputs: u32,
    ) -> Result<u64> {
        let queries = self.gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("profile"),
            ty: wgpu::QueryType::Timestamp,
            count: 2,
        });
        let most = self.submit_work();
        let mut encoder = self.encoder();
        let mut dispatches = dispatches.peekable();
        let mut begin = Some(0);
        while dispatches.peek().is_some() {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: None,
                timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                    query_set: &queries,
                    beginning_of_pass_write_index: begin.take(),
                    end_of_pass_write_index: Some(1),
                }),
            });
            let mut work = 0;
            for recorded in dispatches.by_ref() {
                recorded.encode(&mut pass, tokens, outputs);
                work += recorded.work * u64::from(tokens);
                if work > most {
                    break;
                }
            }
            drop(pass);
            if dispatches.peek().is_some() {
                let full = std::mem::replace(&mut encoder, self.encoder());
                self.gpu.queue.submit([full.finish()]);
            }
        }
        if begin.is_some() {
            return Ok(0);
        }
        let ticks = self.read_ticks(encoder, &queries, 1)?;
        Ok(ticks[0][1].saturating_sub(ticks[0][0]))
    }

    /// Submits what is left and reads the begin and end of `count` dispatches, in the clock's ticks.
    fn read_ticks(
        &self,
        mut encoder: wgpu::CommandEncoder,
        queries: &wgpu::QuerySet,
        count: usize,
    ) -> Result<Vec<[u64; 2]>> {
        use wgpu::BufferUsages as Usage;
        let bytes = count as u64 * 16;
        let resolved = self.gpu.buffer("profile", bytes, Usage::QUERY_RESOLVE | Usage::COPY_SRC);
        let readback = self.gpu.buffer("readback", bytes, Usage::MAP_READ | Usage::COPY_DST);
        encoder.resolve_query_set(queries, 0..2 * count as u32, &resolved, 0);
        encoder.copy_buffer_to_buffer(&resolved, 0, &readback, 0, bytes);
        self.gpu.queue.submit([encoder.finish()]);
        self.gpu.read_mapped(&readback, bytes)
    }
}

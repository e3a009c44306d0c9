//! GPU time by kernel, from timestamps around each dispatch.

use std::collections::BTreeMap;

use super::{Gpu, Kernel};

/// The cost of one kernel so far.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
#[non_exhaustive]
pub struct KernelTime {
    /// Number of dispatches.
    pub calls: u64,
    /// GPU time in seconds.
    pub seconds: f64,
    /// Floating-point operations.
    pub flops: f64,
}

/// GPU time by kernel.
pub type KernelTimes = BTreeMap<Kernel, KernelTime>;

/// Most dispatches of one submit that are timed; later ones are not. Metal allows few query sets
/// per device, so every submit in flight has one of this size.
const CAPACITY: u32 = 512;

/// The timestamps of one submit.
#[derive(Debug)]
pub(super) struct SubmitTimer {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    readable: wgpu::Buffer,
    timed: Vec<(Kernel, f64)>,
}

impl SubmitTimer {
    pub(super) fn new(gpu: &Gpu) -> Self {
        let buffer = |label, usage| {
            gpu.device().create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size: u64::from(CAPACITY) * 16,
                usage,
                mapped_at_creation: false,
            })
        };
        Self {
            queries: gpu.device().create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("kernel times"),
                ty: wgpu::QueryType::Timestamp,
                count: CAPACITY * 2,
            }),
            resolved: buffer("timestamps", wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC),
            readable: buffer("timestamps read", wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ),
            timed: Vec::new(),
        }
    }

    /// The queries for the next pass, if there is room.
    pub(super) fn writes(&mut self, kernel: &Kernel, flops: f64) -> Option<wgpu::ComputePassTimestampWrites<'_>> {
        let index = self.timed.len() as u32;
        if index >= CAPACITY {
            return None;
        }
        self.timed.push((kernel.clone(), flops));
        Some(wgpu::ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: Some(index * 2),
            end_of_pass_write_index: Some(index * 2 + 1),
        })
    }

    /// Encodes the read-back at the end of the submit.
    pub(super) fn resolve(&self, encoder: &mut wgpu::CommandEncoder) {
        let count = self.timed.len() as u32 * 2;
        if count > 0 {
            encoder.resolve_query_set(&self.queries, 0..count, &self.resolved, 0);
            encoder.copy_buffer_to_buffer(&self.resolved, 0, &self.readable, 0, u64::from(count) * 8);
        }
    }

    /// Adds the times of a finished submit and makes the timer ready for the next.
    pub(super) fn collect(&mut self, gpu: &Gpu, times: &mut KernelTimes) -> super::Result<()> {
        if self.timed.is_empty() {
            return Ok(());
        }
        self.readable.map_async(wgpu::MapMode::Read, .., |_| {});
        gpu.poll(wgpu::PollType::wait_indefinitely())?;
        let period = f64::from(gpu.queue().get_timestamp_period()) * 1e-9;
        if let Ok(view) = self.readable.get_mapped_range(..) {
            let stamps: &[u64] = bytemuck::cast_slice(&view);
            for ((kernel, flops), pair) in self.timed.drain(..).zip(stamps.chunks_exact(2)) {
                let entry = times.entry(kernel).or_default();
                entry.calls += 1;
                entry.seconds += pair[1].saturating_sub(pair[0]) as f64 * period;
                entry.flops += flops;
            }
        }
        self.timed.clear();
        self.readable.unmap();
        Ok(())
    }
}

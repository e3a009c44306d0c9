//! Dispatches in order, split into short submits.
//!
//! A submit that holds the GPU for long freezes the desktop and, past two seconds, makes Windows reset the driver. So the
//! stream estimates what it has recorded from the measured speed of what ran before, submits when a time budget is
//! reached, and keeps few submits in flight, which is also what makes pausing and cancelling quick.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::timing::SubmitTimer;
use super::{Dispatch, ElementType, Gpu, GpuError, KernelTimes, Result, Tensor};

/// How a stream submits.
#[derive(Clone, Debug)]
pub struct StreamOptions {
    /// Longest GPU time of one submit: 8 to 16 ms beside a window, 100 ms without one.
    pub budget: Duration,
    /// Time every dispatch on the GPU (where the device can).
    pub timed: bool,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self { budget: Duration::from_millis(100), timed: false }
    }
}

/// Submits in flight at most: one running, one waiting, so that the GPU never idles between them.
const IN_FLIGHT: usize = 2;
/// Every dispatch costs at least this, in floating-point operations: launching is not free.
const LAUNCH_FLOPS: f64 = 1e5;
/// Speed assumed before anything was measured, in FLOP/s: slow, so that the first submits are short.
const FIRST_RATE: f64 = 5e9;
/// Weight of the newest speed measurement.
const RATE_SMOOTHING: f64 = 0.2;
/// How many times the known speed one submit may seem to reach.
const MOST_GROWTH: f64 = 2.0;

struct InFlight {
    index: wgpu::SubmissionIndex,
    flops: f64,
    timer: Option<SubmitTimer>,
}

/// An ordered stream of GPU work. Dropping it drops what was not submitted.
pub struct Stream {
    gpu: Gpu,
    options: StreamOptions,
    encoder: Option<wgpu::CommandEncoder>,
    recorded_flops: f64,
    /// Measured speed in FLOP/s.
    rate: f64,
    in_flight: VecDeque<InFlight>,
    last_completion: Instant,
    timer: Option<SubmitTimer>,
    spare_timers: Vec<SubmitTimer>,
    times: KernelTimes,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("gpu", &self.gpu).field("rate", &self.rate).finish_non_exhaustive()
    }
}

impl Stream {
    /// A stream on a device.
    pub fn new(gpu: &Gpu, options: StreamOptions) -> Self {
        Self {
            gpu: gpu.clone(),
            options,
            encoder: None,
            recorded_flops: 0.0,
            rate: FIRST_RATE,
            in_flight: VecDeque::new(),
            last_completion: Instant::now(),
            timer: None,
            spare_timers: Vec::new(),
            times: KernelTimes::new(),
        }
    }

    /// Does work that is timed: the gate is asked before it, and does not hold it within.
    ///
    /// # Errors
    /// Those of the gate and of the work.
    pub fn in_one_go<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.gpu.pass_gate()?;
        let ungated = self.gpu.ungated();
        let gated = std::mem::replace(&mut self.gpu, ungated);
        let done = work(self);
        self.gpu = gated;
        done
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Floating-point operations that one dispatch may hold so that it fits a submit's budget at the measured speed.
    pub fn dispatch_budget(&self) -> f64 {
        (self.rate * self.options.budget.as_secs_f64()).max(LAUNCH_FLOPS)
    }

    /// A tensor with undefined contents (NaN under [`super::GpuOptions::poison`]).
    pub fn empty(&mut self, what: &str, shape: &[usize], element_type: ElementType) -> Result<Tensor> {
        let tensor = self.allocate(what, shape, element_type)?;
        if self.gpu.options().poison {
            self.write_bytes(&tensor, &vec![0xff; tensor.bytes() as usize])?;
        }
        Ok(tensor)
    }

    /// A tensor of zeros.
    pub fn zeros(&mut self, what: &str, shape: &[usize], element_type: ElementType) -> Result<Tensor> {
        let tensor = self.allocate(what, shape, element_type)?;
        self.clear(&tensor);
        Ok(tensor)
    }

    /// An f32 tensor with these values.
    pub fn upload(&mut self, what: &str, values: &[f32], shape: &[usize]) -> Result<Tensor> {
        if values.len() != shape.iter().product::<usize>() {
            return Err(GpuError::shape("upload", format!("{} values for shape {shape:?}", values.len())));
        }
        let tensor = self.allocate(what, shape, ElementType::F32)?;
        self.write_bytes(&tensor, bytemuck::cast_slice(values))?;
        Ok(tensor)
    }

    /// Memory for a tensor. Where there is none, what is recorded may hold buffers that nobody needs any more: they are free once it
    /// has run.
    fn allocate(&mut self, what: &str, shape: &[usize], element_type: ElementType) -> Result<Tensor> {
        match self.gpu.empty(what, shape, element_type) {
            Err(GpuError::OutOfMemory { .. }) => {
                self.finish()?;
                self.gpu.release_free_memory();
                self.gpu.empty(what, shape, element_type)
            }
            allocated => allocated,
        }
    }

    /// Writes bytes in stream order: through a staging buffer, because the queue's own writes would overtake what is
    /// recorded but not submitted.
    fn write_bytes(&mut self, tensor: &Tensor, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let size = (bytes.len() as u64).next_multiple_of(4);
        let staging = self.gpu.device().create_buffer(&wgpu::BufferDescriptor {
            label: Some("staging"),
            size,
            usage: wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: true,
        });
        match staging.get_mapped_range_mut(..) {
            Ok(mut view) => view.slice(..bytes.len()).copy_from_slice(bytes),
            Err(error) => {
                self.gpu.check()?;
                return Err(GpuError::Device(error.to_string()));
            }
        }
        staging.unmap();
        self.encoder().copy_buffer_to_buffer(&staging, 0, tensor.buffer(), tensor.offset(), size);
        Ok(())
    }

    /// Sets a tensor to zero.
    pub fn clear(&mut self, tensor: &Tensor) {
        self.encoder().clear_buffer(tensor.buffer(), tensor.offset(), Some(tensor.bytes().next_multiple_of(4)));
    }

    /// A copy of a tensor as it is at this point of the stream.
    pub fn copy_of(&mut self, tensor: &Tensor) -> Result<Tensor> {
        let copy = self.empty("copy", tensor.shape(), tensor.element_type())?;
        self.copy(tensor, &copy)?;
        Ok(copy)
    }

    /// Copies a tensor's bytes into another of the same size.
    pub fn copy(&mut self, from: &Tensor, to: &Tensor) -> Result<()> {
        if from.bytes() != to.bytes() || from.element_type() != to.element_type() {
            return Err(GpuError::shape("copy", format!("{:?} into {:?}", from.shape(), to.shape())));
        }
        self.encoder().copy_buffer_to_buffer(from.buffer(), from.offset(), to.buffer(), to.offset(), from.bytes());
        Ok(())
    }

    /// Records one dispatch.
    pub fn dispatch(&mut self, call: &Dispatch) -> Result<()> {
        let compiled = self.gpu.compiled(call.kernel)?;
        let params = self.gpu.params(call.params);
        let mut entries = vec![wgpu::BindGroupEntry { binding: 0, resource: params.as_entire_binding() }];
        for &(binding, tensor) in call.tensors {
            let bytes = tensor.bytes().next_multiple_of(16).min(tensor.buffer().size() - tensor.offset());
            let limit = self.gpu.caps().max_binding;
            if tensor.offset() % 256 != 0 {
                let message = format!("binding {binding} of {} starts at byte {}", call.kernel, tensor.offset());
                return Err(GpuError::shape("dispatch", message));
            }
            if bytes > limit {
                return Err(GpuError::BindingTooLarge { kernel: call.kernel.to_string(), bytes, limit });
            }
            entries.push(wgpu::BindGroupEntry {
                binding,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: tensor.buffer(),
                    offset: tensor.offset(),
                    size: std::num::NonZeroU64::new(bytes),
                }),
            });
        }
        let group = self.gpu.device().create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(call.kernel.shader()),
            layout: &compiled.layout,
            entries: &entries,
        });
        self.begin_timing();
        let mut encoder = self.take_encoder();
        let timestamp_writes = self.timer.as_mut().and_then(|timer| timer.writes(call.kernel, call.flops));
        let mut pass = encoder
            .begin_compute_pass(&wgpu::ComputePassDescriptor { label: Some(call.kernel.shader()), timestamp_writes });
        pass.set_pipeline(&compiled.pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(call.groups[0], call.groups[1], call.groups[2]);
        drop(pass);
        self.encoder = Some(encoder);
        self.recorded_flops += call.flops + LAUNCH_FLOPS;
        if self.recorded_flops >= self.dispatch_budget() {
            self.submit()?;
        }
        Ok(())
    }

    /// Submits what is recorded and waits until all of it is done.
    pub fn finish(&mut self) -> Result<()> {
        self.submit()?;
        while !self.in_flight.is_empty() {
            self.retire_oldest()?;
        }
        self.gpu.check()
    }

    /// Reads an f32 tensor back; waits for everything recorded before.
    pub fn read(&mut self, tensor: &Tensor) -> Result<Vec<f32>> {
        Ok(self.read_all(&[tensor])?.swap_remove(0))
    }

    /// Reads several f32 tensors back with one wait, which is what makes reading slow.
    pub fn read_all(&mut self, tensors: &[&Tensor]) -> Result<Vec<Vec<f32>>> {
        if tensors.iter().any(|tensor| tensor.element_type() != ElementType::F32) {
            return Err(GpuError::shape("read", "only f32 tensors are read back"));
        }
        let values = self.read_joined(tensors)?;
        let mut rest = values.as_slice();
        Ok(tensors.iter().filter_map(|tensor| rest.split_off(..tensor.len())).map(<[f32]>::to_vec).collect())
    }

    /// The values of f32 tensors, one after another.
    fn read_joined(&mut self, tensors: &[&Tensor]) -> Result<Vec<f32>> {
        let size = tensors.iter().map(|tensor| tensor.bytes()).sum();
        if size == 0 {
            return Ok(Vec::new());
        }
        let readable = self.gpu.device().create_buffer(&wgpu::BufferDescriptor {
            label: Some("read back"),
            size,
            usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
            mapped_at_creation: false,
        });
        let mut to = 0;
        for tensor in tensors {
            self.encoder().copy_buffer_to_buffer(tensor.buffer(), tensor.offset(), &readable, to, tensor.bytes());
            to += tensor.bytes();
        }
        self.finish()?;
        readable.map_async(wgpu::MapMode::Read, .., |_| {});
        // DirectX tells of a lost device at a submit only, and until then all waiting succeeds.
        self.gpu.queue().submit([]);
        self.gpu.poll(wgpu::PollType::wait_indefinitely())?;
        self.gpu.check()?;
        let view = readable.get_mapped_range(..).map_err(|error| GpuError::Device(error.to_string()))?;
        Ok(bytemuck::pod_collect_to_vec(&view[..]))
    }

    /// GPU time by kernel since the last call; waits for everything recorded before. Empty unless timed.
    pub fn take_times(&mut self) -> Result<KernelTimes> {
        self.finish()?;
        Ok(std::mem::take(&mut self.times))
    }

    fn submit(&mut self) -> Result<()> {
        let Some(mut encoder) = self.encoder.take() else {
            return Ok(());
        };
        self.gpu.pass_gate()?;
        while self.in_flight.len() >= IN_FLIGHT {
            self.retire_oldest()?;
        }
        if self.in_flight.is_empty() {
            self.last_completion = Instant::now();
        }
        if let Some(timer) = &self.timer {
            timer.resolve(&mut encoder);
        }
        let index = self.gpu.queue().submit([encoder.finish()]);
        let flops = std::mem::take(&mut self.recorded_flops);
        self.in_flight.push_back(InFlight { index, flops, timer: self.timer.take() });
        self.gpu.check()
    }

    /// Waits for the oldest submit and learns the speed from it.
    fn retire_oldest(&mut self) -> Result<()> {
        let Some(done) = self.in_flight.pop_front() else {
            return Ok(());
        };
        self.gpu.poll(wgpu::PollType::Wait { submission_index: Some(done.index), timeout: None })?;
        self.gpu.check()?;
        let seconds = self.last_completion.elapsed().as_secs_f64();
        self.last_completion = Instant::now();
        // Tiny submits measure the driver's latency, not the GPU's speed.
        if done.flops > 10.0 * LAUNCH_FLOPS && seconds > 0.0 {
            self.rate = learned(self.rate, done.flops / seconds);
        }
        if let Some(mut timer) = done.timer {
            timer.collect(&self.gpu, &mut self.times)?;
            self.spare_timers.push(timer);
        }
        Ok(())
    }

    fn begin_timing(&mut self) {
        if self.options.timed && self.gpu.caps().timestamps && self.timer.is_none() {
            self.timer = Some(self.spare_timers.pop().unwrap_or_else(|| SubmitTimer::new(&self.gpu)));
        }
    }

    fn take_encoder(&mut self) -> wgpu::CommandEncoder {
        let label = wgpu::CommandEncoderDescriptor { label: Some("stream") };
        self.encoder.take().unwrap_or_else(|| self.gpu.device().create_command_encoder(&label))
    }

    fn encoder(&mut self) -> &mut wgpu::CommandEncoder {
        let encoder = self.take_encoder();
        self.encoder.insert(encoder)
    }
}

/// The speed to count on after a submit that seemed to run at `measured`. What was done before anybody waited for it (the host
/// compiled, or paused) seems infinitely fast: believed, it would make submits that a watchdog ends.
fn learned(rate: f64, measured: f64) -> f64 {
    rate + RATE_SMOOTHING * (measured.min(MOST_GROWTH * rate) - rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_learned_speed_follows_but_does_not_leap() {
        assert_eq!(learned(1e12, 1e12), 1e12);
        assert!(learned(1e12, 1e15) <= 1.2e12, "one submit that was long done");
        let mut rate = FIRST_RATE;
        let submits = (1..).find(|_| {
            rate = learned(rate, 1e13);
            rate > 5e12
        });
        assert!(submits < Some(50), "a fast device is known after {submits:?} submits");
        assert!(learned(1e12, 1e10) < 0.81e12, "a slow one at once");
    }
}

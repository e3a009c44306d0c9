//! Dispatches in order, split into short submits.
//!
//! A long submit freezes the desktop, and after two seconds Windows resets the driver. So the
//! stream estimates the GPU time of the recorded work from the speed of earlier submits, and
//! submits when a time budget is reached. It keeps few submits in flight, so that pausing and
//! cancelling are quick.

use std::collections::VecDeque;
use std::time::Instant;

use super::arguments::Bound;
use super::marks::Marks;
use super::timing::SubmitTimer;
use super::{Dispatch, Element, ElementType, Gpu, GpuError, Kernel, KernelTimes, Result, StreamOptions, Tensor};

/// Most submits in flight: one running and one waiting, so that the GPU never idles between them.
const IN_FLIGHT: usize = 2;
/// The cost of launching a dispatch, in floating-point operations.
const LAUNCH_FLOPS: f64 = 1e5;
/// Speed in FLOP/s that is assumed before the first measurement: slow, so that the first submits
/// are short.
const FIRST_RATE: f64 = 5e9;
/// Weight of the newest speed measurement.
const RATE_SMOOTHING: f64 = 0.2;
/// Most uploads, and bytes of them, before the recorded work is submitted. Drivers have corrupted
/// what many pending uploads wrote.
const MOST_UPLOADS: (u32, u64) = (64, 256 << 20);
/// The most that one measurement counts for, as a multiple of the known speed.
const MOST_GROWTH: f64 = 2.0;

struct InFlight {
    index: wgpu::SubmissionIndex,
    flops: f64,
    timer: Option<SubmitTimer>,
}

/// An ordered stream of GPU work. Dropping it drops the work that was not submitted.
pub struct Stream {
    gpu: Gpu,
    options: StreamOptions,
    encoder: Option<wgpu::CommandEncoder>,
    recorded_flops: f64,
    /// Uploads that are recorded, and their bytes.
    uploads: (u32, u64),
    /// The traces of submits, made with the first one.
    marks: Option<Marks>,
    /// Measured speed in FLOP/s.
    rate: f64,
    in_flight: VecDeque<InFlight>,
    last_completion: Instant,
    timer: Option<SubmitTimer>,
    spare_timers: Vec<SubmitTimer>,
    times: KernelTimes,
    /// What a trace has noted so far; `None` unless the stream is traced.
    trace: Option<Vec<Note>>,
}

/// A place in the recorded work, and a tensor that says something about this place.
#[derive(Debug)]
pub struct Note {
    /// Names the place for people, for example `block 6, feed-forward`.
    pub place: String,
    /// What is known of the place.
    pub tensor: Tensor,
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
            uploads: (0, 0),
            marks: None,
            rate: FIRST_RATE,
            in_flight: VecDeque::new(),
            last_completion: Instant::now(),
            timer: None,
            spare_timers: Vec::new(),
            times: KernelTimes::new(),
            trace: None,
        }
    }

    /// Starts a trace. Until [`Stream::take_trace`] the operations of a model note what they made
    /// (`ops::mark`). A trace is for finding errors: it adds work, and changes no result.
    pub fn start_trace(&mut self) {
        self.trace = Some(Vec::new());
    }

    /// Whether a trace is under way.
    pub fn is_traced(&self) -> bool {
        self.trace.is_some()
    }

    /// Adds to the trace, if one is under way.
    pub fn note(&mut self, place: String, tensor: Tensor) {
        if let Some(trace) = &mut self.trace {
            trace.push(Note { place, tensor });
        }
    }

    /// Ends the trace. The notes are in the order of the recorded work.
    pub fn take_trace(&mut self) -> Vec<Note> {
        self.trace.take().unwrap_or_default()
    }

    /// Does work whose time is measured. The gate is asked once before the work, and cannot pause
    /// it halfway.
    ///
    /// # Errors
    /// The errors of the gate and of the work.
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

    /// Floating-point operations of a dispatch that fills a submit's budget at the measured speed.
    pub fn dispatch_budget(&self) -> f64 {
        (self.rate * self.options.budget.as_secs_f64()).max(LAUNCH_FLOPS)
    }

    /// A tensor with undefined contents (NaN under [`super::GpuOptions::poison`]).
    ///
    /// # Errors
    /// There is not enough memory, or the device failed.
    pub fn empty(&mut self, what: &str, shape: &[usize], element_type: ElementType) -> Result<Tensor> {
        let tensor = self.allocate(what, shape, element_type)?;
        if self.gpu.options().poison {
            self.write_bytes(&tensor, &vec![0xff; tensor.bytes() as usize])?;
        }
        Ok(tensor)
    }

    /// A tensor of zeros.
    ///
    /// # Errors
    /// There is not enough memory, or the device failed.
    pub fn zeros(&mut self, what: &str, shape: &[usize], element_type: ElementType) -> Result<Tensor> {
        let tensor = self.allocate(what, shape, element_type)?;
        self.clear(&tensor);
        Ok(tensor)
    }

    /// A tensor with these values, of their type.
    ///
    /// # Errors
    /// The number of values is not the shape's, there is not enough memory, or the device failed.
    pub fn upload<T: Element>(&mut self, what: &str, values: &[T], shape: &[usize]) -> Result<Tensor> {
        if values.len() != shape.iter().product::<usize>() {
            return Err(GpuError::shape("upload", format!("{} values for shape {shape:?}", values.len())));
        }
        let tensor = self.allocate(what, shape, T::TYPE)?;
        self.write_bytes(&tensor, bytemuck::cast_slice(values))?;
        Ok(tensor)
    }

    /// Memory for a tensor. If there is not enough, the recorded work runs first: it may hold
    /// buffers that are free after it.
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

    /// Writes bytes in stream order. They go through a staging buffer, because the queue's own
    /// writes would overtake recorded work.
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
                // A lost device is only reported while somebody polls it.
                self.gpu.poll(wgpu::PollType::Poll)?;
                self.gpu.check()?;
                return Err(GpuError::Device(error.to_string()));
            }
        }
        staging.unmap();
        self.encoder().copy_buffer_to_buffer(&staging, 0, tensor.buffer(), tensor.offset(), size);
        self.uploads = (self.uploads.0 + 1, self.uploads.1 + size);
        if self.uploads.0 >= MOST_UPLOADS.0 || self.uploads.1 >= MOST_UPLOADS.1 {
            self.submit()?;
        }
        Ok(())
    }

    /// Sets a tensor to zero.
    pub fn clear(&mut self, tensor: &Tensor) {
        self.encoder().clear_buffer(tensor.buffer(), tensor.offset(), Some(tensor.bytes().next_multiple_of(4)));
    }

    /// A copy of a tensor as it is at this point of the stream.
    ///
    /// # Errors
    /// There is not enough memory, or the device failed.
    pub fn copy_of(&mut self, tensor: &Tensor) -> Result<Tensor> {
        let copy = self.empty("copy", tensor.shape(), tensor.element_type())?;
        self.copy(tensor, &copy)?;
        Ok(copy)
    }

    /// Copies the elements of a tensor into another of the same type and size.
    ///
    /// # Errors
    /// Types or sizes differ.
    pub fn copy(&mut self, from: &Tensor, to: &Tensor) -> Result<()> {
        if from.bytes() != to.bytes() || from.element_type() != to.element_type() {
            return Err(GpuError::shape("copy", format!("{:?} into {:?}", from.shape(), to.shape())));
        }
        self.encoder().copy_buffer_to_buffer(from.buffer(), from.offset(), to.buffer(), to.offset(), from.bytes());
        Ok(())
    }

    /// Records one dispatch.
    ///
    /// # Errors
    /// The arguments do not fit the kernel, a binding is larger than the device allows, the gate
    /// ends the work, or the device failed.
    pub fn dispatch(&mut self, call: &Dispatch) -> Result<()> {
        if !call.arguments.interface().serves(call.kernel.shader(), call.kernel.defines()) {
            let message = format!("{} does not take {:?}", call.kernel, call.arguments);
            return Err(GpuError::shape("dispatch", message));
        }
        let compiled = self.gpu.compiled(call.kernel)?;
        let params = self.gpu.params(call.arguments.params());
        let bound = call.arguments.bound();
        let mut entries = vec![wgpu::BindGroupEntry { binding: 0, resource: params.as_entire_binding() }];
        for bound in &bound {
            entries.push(self.entry(call.kernel, bound)?);
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

    /// The binding of a tensor.
    fn entry<'a>(&self, kernel: &Kernel, bound: &Bound<'a>) -> Result<wgpu::BindGroupEntry<'a>> {
        let (tensor, slot) = (bound.tensor, bound.slot);
        let bytes = tensor.bytes().next_multiple_of(16).min(tensor.buffer().size() - tensor.offset());
        let limit = self.gpu.caps().max_binding;
        if tensor.offset() % 256 != 0 {
            let message = format!("{} of {kernel} starts at byte {}", slot.name, tensor.offset());
            return Err(GpuError::shape("dispatch", message));
        }
        if !bound.stand_in && !slot.elements.take(tensor.element_type()) {
            let message = format!("{} of {kernel} cannot be {:?}", slot.name, tensor.element_type());
            return Err(GpuError::shape("dispatch", message));
        }
        if bytes > limit {
            return Err(GpuError::BindingTooLarge { kernel: kernel.to_string(), bytes, limit });
        }
        Ok(wgpu::BindGroupEntry {
            binding: slot.binding,
            resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer: tensor.buffer(),
                offset: tensor.offset(),
                size: std::num::NonZeroU64::new(bytes),
            }),
        })
    }

    /// Submits the recorded work, and waits until all of it is done.
    ///
    /// # Errors
    /// The gate ends the work, or the device failed.
    pub fn finish(&mut self) -> Result<()> {
        self.submit()?;
        while !self.in_flight.is_empty() {
            self.retire_oldest()?;
        }
        self.gpu.check()
    }

    /// Reads an f32 tensor back, after everything recorded before.
    ///
    /// # Errors
    /// The tensor is of another type, the gate ends the work, the device failed, or work that was
    /// submitted before was not done.
    pub fn read(&mut self, tensor: &Tensor) -> Result<Vec<f32>> {
        Ok(self.read_all(&[tensor])?.swap_remove(0))
    }

    /// Reads several tensors of one type back with a single wait, which costs more than the copies.
    ///
    /// # Errors
    /// A tensor is of another type, the gate ends the work, or the device failed.
    pub fn read_all<T: Element>(&mut self, tensors: &[&Tensor]) -> Result<Vec<Vec<T>>> {
        if let Some(other) = tensors.iter().find(|tensor| tensor.element_type() != T::TYPE) {
            return Err(GpuError::shape("read", format!("{:?} as {:?}", other.element_type(), T::TYPE)));
        }
        let values = self.read_joined(tensors)?;
        let mut rest = values.as_slice();
        Ok(tensors.iter().filter_map(|tensor| rest.split_off(..tensor.len())).map(<[T]>::to_vec).collect())
    }

    /// The values of tensors, one tensor after another.
    fn read_joined<T: Element>(&mut self, tensors: &[&Tensor]) -> Result<Vec<T>> {
        let size = tensors.iter().map(|tensor| tensor.bytes()).sum();
        if size == 0 {
            return Ok(Vec::new());
        }
        let readable = self.gpu.device().create_buffer(&wgpu::BufferDescriptor {
            label: Some("read back"),
            size: size + Marks::BYTES,
            usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
            mapped_at_creation: false,
        });
        let mut to = 0;
        for tensor in tensors {
            self.encoder().copy_buffer_to_buffer(tensor.buffer(), tensor.offset(), &readable, to, tensor.bytes());
            to += tensor.bytes();
        }
        let mut encoder = self.take_encoder();
        let expected = self.marks().read(&mut encoder, &readable, size);
        self.encoder = Some(encoder);
        self.finish()?;
        readable.map_async(wgpu::MapMode::Read, .., |_| {});
        // DirectX reports a lost device at the next submit only. Until then all waiting succeeds.
        self.gpu.queue().submit([]);
        self.gpu.poll(wgpu::PollType::wait_indefinitely())?;
        self.gpu.check()?;
        let view = readable.get_mapped_range(..).map_err(|error| GpuError::Device(error.to_string()))?;
        Marks::check(&view[size as usize..], expected)?;
        Ok(bytemuck::pod_collect_to_vec(&view[..size as usize]))
    }

    /// GPU time by kernel since the last call. Waits for everything recorded before. Empty unless
    /// the stream is timed.
    ///
    /// # Errors
    /// The gate ends the work, or the device failed.
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
        self.marks().leave(&mut encoder);
        self.uploads = (0, 0);
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
        // The time of a tiny submit is the driver's latency, and says nothing about the GPU's
        // speed.
        if done.flops > 10.0 * LAUNCH_FLOPS && seconds > 0.0 {
            self.rate = learned(self.rate, done.flops / seconds);
        }
        if let Some(mut timer) = done.timer {
            timer.collect(&self.gpu, &mut self.times)?;
            self.spare_timers.push(timer);
        }
        Ok(())
    }

    fn marks(&mut self) -> &mut Marks {
        self.marks.get_or_insert_with(|| Marks::new(&self.gpu))
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

/// The speed to assume after a submit that seemed to run at `measured`. While the host compiles or
/// pauses, a submit may end before anybody waits for it, and then seems infinitely fast. A speed
/// learned from that would make submits so long that a watchdog ends them.
fn learned(rate: f64, measured: f64) -> f64 {
    rate + RATE_SMOOTHING * (measured.min(MOST_GROWTH * rate) - rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A submit that the driver drops is an error of the next read-back, and of no later one. Here
    /// the stream forgets one in place of the driver.
    #[test]
    fn dropped_work_is_noticed() {
        let gpu = Gpu::open(&crate::gpu::GpuOptions::checked()).expect("tests need an adapter");
        let mut cx = Stream::new(&gpu, StreamOptions::default());
        let tensor = cx.upload("x", &[1.0_f32; 4], &[4]).unwrap();
        assert_eq!(cx.read(&tensor).unwrap(), [1.0; 4]);
        let other = cx.upload("y", &[2.0_f32; 4], &[4]).unwrap();
        // Its mark is counted, but the encoder never reaches the queue.
        let mut dropped = cx.take_encoder();
        cx.marks.as_mut().unwrap().leave(&mut dropped);
        drop(dropped);
        assert!(matches!(cx.read(&other), Err(GpuError::NotDone(1))));
        assert_eq!(cx.read(&tensor).unwrap(), [1.0; 4]);
    }

    /// Many uploads are submitted on the way, and arrive.
    #[test]
    fn many_uploads_arrive() {
        let gpu = Gpu::open(&crate::gpu::GpuOptions::checked()).expect("tests need an adapter");
        let mut cx = Stream::new(&gpu, StreamOptions::default());
        let values = |i: u32| [i, i + 1, i + 2, i + 3];
        let tensors: Vec<Tensor> = (0..200).map(|i| cx.upload("many", &values(i), &[4]).unwrap()).collect();
        assert!(cx.uploads.0 < MOST_UPLOADS.0);
        let read: Vec<Vec<u32>> = cx.read_all(&tensors.iter().collect::<Vec<_>>()).unwrap();
        assert!((0..200).all(|i| read[i as usize] == values(i)));
    }

    #[test]
    fn the_learned_speed_follows_but_does_not_leap() {
        assert_eq!(learned(1e12, 1e12), 1e12);
        assert!(learned(1e12, 1e15) <= 1.2e12, "a submit that ended before the wait");
        let mut rate = FIRST_RATE;
        let submits = (1..).find(|_| {
            rate = learned(rate, 1e13);
            rate > 5e12
        });
        assert!(submits < Some(50), "a fast device is known after {submits:?} submits");
        assert!(learned(1e12, 1e10) < 0.81e12, "a slow device is known at once");
    }
}

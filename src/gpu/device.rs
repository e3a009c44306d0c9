//! An opened device.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::adapter::{self, vulkan_memory};
use super::kernel::CompiledKernel;
use super::pool::{MemoryUse, Pool};
use super::{Caps, Choices, ElementType, GpuError, GpuOptions, Kernel, Result, Tensor};

/// A callback before weights are written, a kernel is compiled, or work is submitted. It may block
/// (pause) or fail (cancel).
pub type Gate = Arc<dyn Fn() -> Result<()> + Send + Sync>;

/// An opened device. Cheap to clone; all clones are the same device.
#[derive(Clone)]
pub struct Gpu {
    inner: Arc<Inner>,
    gate: Option<Gate>,
    passed_over: Vec<String>,
}

struct Inner {
    device: wgpu::Device,
    queue: wgpu::Queue,
    info: wgpu::AdapterInfo,
    caps: Caps,
    options: GpuOptions,
    /// Whether this program opened the device, and not the caller.
    own: bool,
    pool: Arc<Pool>,
    choices: Choices,
    kernels: Mutex<HashMap<Kernel, Arc<CompiledKernel>>>,
    params: Mutex<HashMap<Vec<u8>, wgpu::Buffer>>,
    failure: Arc<Mutex<Option<GpuError>>>,
    /// Bytes of weights written since the driver was last made to drain its staging memory.
    pending_upload: AtomicU64,
    /// A shader, a text in it, and what stands there instead.
    #[cfg(test)]
    sabotage: Mutex<Option<[&'static str; 3]>>,
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gpu").field("adapter", &self.inner.info.name).field("caps", &self.inner.caps).finish()
    }
}

/// Size in bytes of the memory blocks that small tensors share: the smallest that wgpu's allocator
/// has.
const BLOCK: u64 = 4 << 20;

/// Waits for a device.
///
/// # Errors
/// The device is lost, or refuses to wait.
pub(super) fn poll(device: &wgpu::Device, poll: wgpu::PollType) -> Result<()> {
    // wgpu panics when Vulkan reports a lost device to the thread that waits.
    match catch_unwind(AssertUnwindSafe(|| device.poll(poll))) {
        Ok(polled) => polled.map(drop).map_err(|error| GpuError::Device(error.to_string())),
        Err(_) => Err(GpuError::Lost("while the program waited for it".into())),
    }
}

impl Gpu {
    /// Opens the adapter that the options name.
    ///
    /// # Errors
    /// There is no such adapter, or it refuses.
    pub fn open(options: &GpuOptions) -> Result<Self> {
        Self::open_tested(options, |_| Ok(()))
    }

    /// Opens the first adapter that works, in the order of [`GpuOptions::adapter`]: it opens a
    /// device, and the device passes `test`. Adapters that do not work are passed over, with
    /// [warnings](Self::warnings).
    ///
    /// # Errors
    /// There is no such adapter, or none works.
    pub fn open_tested(options: &GpuOptions, test: impl Fn(&Self) -> Result<()>) -> Result<Self> {
        let mut failures = Vec::new();
        for adapter in adapter::candidates(options.adapter.as_deref())? {
            let opened = Self::open_adapter(&adapter, options).and_then(|gpu| test(&gpu).map(|()| gpu));
            match opened {
                Ok(mut gpu) => {
                    let passed =
                        |(label, error): (String, GpuError)| format!("{label} is passed over: {}", chain(&error));
                    gpu.passed_over = failures.into_iter().map(passed).collect();
                    return Ok(gpu);
                }
                Err(error) => failures.push((adapter::label(&adapter.get_info()), error)),
            }
        }
        if failures.len() > 1 {
            let reasons = failures.iter().map(|(label, error)| format!("{label}: {}", chain(error)));
            return Err(GpuError::NoneWorks(reasons.collect::<Vec<_>>().join("; ")));
        }
        Err(failures.pop().map_or(GpuError::NoAdapter, |(_, error)| error))
    }

    fn open_adapter(adapter: &wgpu::Adapter, options: &GpuOptions) -> Result<Self> {
        let (features, limits) = adapter::requested(adapter, options.tier);
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("ditscope"),
            required_features: features,
            required_limits: limits,
            // Tensors larger than the smallest block get memory of their own. Larger blocks would
            // leave gaps between weights of equal size: a sixth of all memory with Wan2.1-1.3B.
            memory_hints: wgpu::MemoryHints::Manual { suballocated_device_memory_block_size: BLOCK..BLOCK },
            ..Default::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))
            .map_err(|source| GpuError::RequestDevice { adapter: adapter.get_info().name, source })?;
        Ok(Self::of_device(device, queue, options.clone(), true))
    }

    /// Opens the adapter of this device anew, with the same options. For devices that were lost.
    ///
    /// # Errors
    /// The adapter is gone or refuses, or the caller opened the device.
    pub fn reopen(&self) -> Result<Self> {
        if !self.inner.own {
            return Err(GpuError::Device("the device was opened by the caller".into()));
        }
        let identity = |info: &wgpu::AdapterInfo| {
            (info.backend, info.name.clone(), info.vendor, info.device, info.device_pci_bus_id.clone())
        };
        let wanted = identity(&self.inner.info);
        let same = |adapter: &wgpu::Adapter| identity(&adapter.get_info()) == wanted;
        let adapter = adapter::sorted_adapters()?.into_iter().find(same).ok_or(GpuError::NoAdapter)?;
        Self::open_adapter(&adapter, &self.inner.options)
    }

    /// The adapters that were passed over before this one, with reasons.
    pub fn warnings(&self) -> &[String] {
        &self.passed_over
    }

    /// Uses a device that the caller opened. The device should have the adapter's own limits and,
    /// where present, the features SUBGROUP and TIMESTAMP_QUERY. `options.adapter` is ignored, and
    /// `options.tier` changes no limits. Replaces the device's error handler and its device-lost
    /// callback.
    pub fn from_wgpu(device: wgpu::Device, queue: wgpu::Queue, options: GpuOptions) -> Self {
        Self::of_device(device, queue, options, false)
    }

    fn of_device(device: wgpu::Device, queue: wgpu::Queue, options: GpuOptions, own: bool) -> Self {
        let failure: Arc<Mutex<Option<GpuError>>> = Arc::default();
        let first = failure.clone();
        let remember = move |error: GpuError| {
            let mut known = first.lock().unwrap_or_else(PoisonError::into_inner);
            // A lost device also reports invalid buffers. The loss is what the user must know.
            if known.is_none() || matches!(error, GpuError::Lost(_)) {
                *known = Some(error);
            }
        };
        let lost = remember.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            remember(match error {
                wgpu::Error::OutOfMemory { .. } => GpuError::OutOfMemory { what: "internal use".into(), bytes: 0 },
                other => GpuError::Device(other.to_string()),
            });
        }));
        device.set_device_lost_callback(move |reason, message| lost(GpuError::Lost(format!("{reason:?} {message}"))));
        let info = device.adapter_info();
        let memory = vulkan_memory!(device);
        let caps = Caps { memory, ..Caps::new(device.features(), &device.limits(), &info, &options) };
        let choices = Choices::new(options.choices.clone(), adapter::key(&info, options.tier));
        let inner = Inner {
            device,
            queue,
            info,
            caps,
            options,
            own,
            pool: Arc::default(),
            choices,
            kernels: Mutex::default(),
            params: Mutex::default(),
            failure,
            pending_upload: AtomicU64::new(0),
            #[cfg(test)]
            sabotage: Mutex::default(),
        };
        Self { inner: Arc::new(inner), gate: None, passed_over: Vec::new() }
    }

    /// The same device for work that `gate` may pause or cancel. Other handles keep their gates.
    pub fn gated(&self, gate: Gate) -> Self {
        Self { gate: Some(gate), ..self.clone() }
    }

    /// The same device without the gate.
    pub(super) fn ungated(&self) -> Self {
        Self { gate: None, ..self.clone() }
    }

    /// Asks the gate. Without a gate everything may go on.
    pub(super) fn pass_gate(&self) -> Result<()> {
        self.gate.as_ref().map_or(Ok(()), |gate| gate())
    }

    /// The abilities of the device.
    pub fn caps(&self) -> &Caps {
        &self.inner.caps
    }

    /// The adapter's name.
    pub fn adapter_name(&self) -> &str {
        &self.inner.info.name
    }

    /// The interface: Vulkan, Metal or Dx12.
    pub fn backend(&self) -> String {
        format!("{:?}", self.inner.info.backend)
    }

    /// Name and version of the driver.
    pub fn driver(&self) -> String {
        adapter::driver(&self.inner.info)
    }

    /// The remembered choices among kernel variants.
    pub fn choices(&self) -> &Choices {
        &self.inner.choices
    }

    /// GPU memory held by this device's tensors.
    pub fn memory(&self) -> MemoryUse {
        self.inner.pool.usage()
    }

    /// Restarts the count of the peak, so that it belongs to one job.
    pub fn reset_peak_memory(&self) {
        self.inner.pool.reset_peak();
    }

    /// Returns free pooled memory to the driver.
    pub fn release_free_memory(&self) {
        self.inner.pool.release_free();
    }

    /// Returns and clears the first error that the driver reported outside any call.
    ///
    /// # Errors
    /// That error. A lost device stays lost: [`GpuError::Lost`] is never cleared.
    pub fn check(&self) -> Result<()> {
        if matches!(&*lock(&self.inner.failure), Some(GpuError::Device(_))) {
            // A lost device also reports invalid buffers, and its loss only while somebody polls
            // it.
            self::poll(&self.inner.device, wgpu::PollType::Poll).ok();
        }
        let mut failure = lock(&self.inner.failure);
        if let Some(GpuError::Lost(reason)) = &*failure {
            return Err(GpuError::Lost(reason.clone()));
        }
        failure.take().map_or(Ok(()), Err)
    }

    /// Why the device was lost, if it was. A loss shows as other errors too, and is only reported
    /// while somebody polls the device. Waits for at most five seconds.
    pub fn loss(&self) -> Option<String> {
        let timeout = Some(std::time::Duration::from_secs(5));
        self::poll(&self.inner.device, wgpu::PollType::Wait { submission_index: None, timeout }).ok();
        match &*lock(&self.inner.failure) {
            Some(GpuError::Lost(reason)) => Some(reason.clone()),
            _ => None,
        }
    }

    /// Destroys the device, as a driver reset would. All later work fails with [`GpuError::Lost`].
    /// For tests.
    pub fn destroy(&self) {
        self.inner.device.destroy();
    }

    /// Refuses all memory after so many more buffers, as a device does whose memory is taken.
    /// `u64::MAX` ends this. For tests.
    pub fn refuse_memory_after(&self, buffers: u64) {
        self.inner.pool.refuse_after(buffers);
    }

    /// A weight tensor with these little-endian elements. The length of `bytes` is the tensor's,
    /// rounded up to whole `u32`s.
    ///
    /// # Errors
    /// `bytes` has another length, the gate ends the work, or the device fails.
    pub fn upload_weight(
        &self,
        what: &str,
        bytes: &[u8],
        shape: &[usize],
        element_type: ElementType,
    ) -> Result<Tensor> {
        /// Most bytes of staging memory before the driver is made to drain it. Many undrained
        /// writes have been seen to corrupt the first tensors.
        const DRAIN: u64 = 32 << 20;
        let length = shape.iter().product::<usize>() as u64 * element_type.size();
        if bytes.len() as u64 != length.next_multiple_of(4) {
            return Err(GpuError::shape(
                "upload_weight",
                format!("{} bytes for {shape:?} {element_type:?}", bytes.len()),
            ));
        }
        self.pass_gate()?;
        let allocation = self.inner.pool.allocate_fresh(&self.inner.device, length, what)?;
        let tensor = Tensor::new(allocation, shape, element_type);
        for (i, chunk) in bytes.chunks(DRAIN as usize).enumerate() {
            self.inner.queue.write_buffer(tensor.buffer(), i as u64 * DRAIN, chunk);
            // The number of writes matters too, so that small ones count as more than their bytes.
            let cost = (chunk.len() as u64).max(DRAIN / 64);
            if self.inner.pending_upload.fetch_add(cost, Ordering::Relaxed) + cost >= DRAIN {
                self.inner.pending_upload.store(0, Ordering::Relaxed);
                self.wait()?;
            }
        }
        Ok(tensor)
    }

    /// Waits until everything submitted, uploads included, is done.
    ///
    /// # Errors
    /// The device is lost, or reported an error before.
    pub fn wait(&self) -> Result<()> {
        self.inner.queue.submit([]);
        self.poll(wgpu::PollType::wait_indefinitely())?;
        self.check()
    }

    /// The memory in bytes that a job may count on: the adapter's own, where the driver tells it.
    /// Other drivers refuse what they cannot give, so a job may ask for any amount. Metal neither
    /// tells nor refuses, but swaps or fails much later: there the answer is the memory of the
    /// smallest machines.
    pub fn memory_to_count_on(&self) -> u64 {
        const SMALLEST_MAC: u64 = 4 << 30;
        let unknown = if self.inner.info.backend == wgpu::Backend::Metal { SMALLEST_MAC } else { u64::MAX };
        self.inner.caps.memory.unwrap_or(unknown)
    }

    pub(super) fn empty(&self, what: &str, shape: &[usize], element_type: ElementType) -> Result<Tensor> {
        let bytes = shape.iter().product::<usize>() as u64 * element_type.size();
        let allocation = self.inner.pool.allocate(&self.inner.device, bytes.next_multiple_of(4), what)?;
        Ok(Tensor::new(allocation, shape, element_type))
    }

    pub(super) fn poll(&self, poll: wgpu::PollType) -> Result<()> {
        // A reported reason says more than the failure to wait.
        self::poll(&self.inner.device, poll).map_err(|error| self.check().err().unwrap_or(error))
    }

    pub(super) fn device(&self) -> &wgpu::Device {
        &self.inner.device
    }

    pub(super) fn queue(&self) -> &wgpu::Queue {
        &self.inner.queue
    }

    pub(super) fn options(&self) -> &GpuOptions {
        &self.inner.options
    }

    /// Makes a shader wrong, as a driver would: from now on `text` is compiled as `instead`.
    #[cfg(test)]
    pub(crate) fn break_shader(&self, shader: &'static str, text: &'static str, instead: &'static str) {
        *lock(&self.inner.sabotage) = Some([shader, text, instead]);
    }

    #[cfg(test)]
    pub(super) fn sabotaged(&self, shader: &str, mut resolved: super::shader::Resolved) -> super::shader::Resolved {
        if let Some([broken, text, instead]) = *lock(&self.inner.sabotage)
            && broken == shader
        {
            assert!(resolved.source.contains(text), "{shader} has no {text}");
            resolved.source = resolved.source.replace(text, instead);
        }
        resolved
    }

    /// The compiled form of a kernel, made on first use.
    pub(super) fn compiled(&self, kernel: &Kernel) -> Result<Arc<CompiledKernel>> {
        if let Some(compiled) = lock(&self.inner.kernels).get(kernel) {
            return Ok(compiled.clone());
        }
        self.pass_gate()?;
        let compiled = Arc::new(CompiledKernel::compile(self, kernel)?);
        lock(&self.inner.kernels).insert(kernel.clone(), compiled.clone());
        Ok(compiled)
    }

    /// A uniform buffer with these contents. Equal contents share one buffer, so that a model whose
    /// shapes do not change uploads its parameters once.
    pub(super) fn params(&self, bytes: &[u8]) -> wgpu::Buffer {
        const KEPT: usize = 4096;
        let mut cache = lock(&self.inner.params);
        if let Some(buffer) = cache.get(bytes) {
            return buffer.clone();
        }
        if cache.len() >= KEPT {
            cache.clear();
        }
        let buffer = self.inner.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("params"),
            size: bytes.len().next_multiple_of(16) as u64,
            usage: wgpu::BufferUsages::UNIFORM,
            mapped_at_creation: true,
        });
        // A lost device cannot map; the loss is reported by the next check.
        if let Ok(mut view) = buffer.get_mapped_range_mut(..) {
            view.slice(..bytes.len()).copy_from_slice(bytes);
        }
        buffer.unmap();
        cache.insert(bytes.to_vec(), buffer.clone());
        buffer
    }
}

/// An error with its causes.
fn chain(error: &GpuError) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic leaves these values whole: every change is a single call.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Opening a device, and what it can do.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::kernel::CompiledKernel;
use super::pool::{MemoryUse, Pool};
use super::{Choices, ElementType, GpuError, Kernel, Result, Tensor};

/// How much of the adapter to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tier {
    /// Everything that helps and that the adapter has.
    #[default]
    Full,
    /// WebGPU's default limits and no optional feature: what every adapter has. For tests and for bisecting.
    Base,
}

/// How to open a device.
#[derive(Clone, Debug, Default)]
pub struct GpuOptions {
    /// Part of an adapter's name, or its number in [`list_adapters`]; the strongest one if `None`.
    pub adapter: Option<String>,
    /// How much of the adapter to use.
    pub tier: Tier,
    /// Pretend that bindings are limited to this many bytes (tests force the splitting of large tensors with it).
    pub max_binding: Option<u64>,
    /// Fill every new tensor with NaN, so that reading memory before writing it shows (tests).
    pub poison: bool,
    /// Compile shaders with bounds and loop checks (slower; for finding bugs).
    pub checked_shaders: bool,
    /// Choose among the variants of kernels by measuring them, and remember the choices in this file (see
    /// [`choices_path`](super::choices_path)); a fixed rule if `None`.
    pub choices: Option<std::path::PathBuf>,
}

/// What a device can do, after [`GpuOptions`] had their say.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Caps {
    /// Whether it is a CPU that plays GPU (lavapipe, WARP).
    pub cpu: bool,
    /// Smallest subgroup size if subgroup operations may be used.
    pub subgroup_min: Option<u32>,
    /// Whether the adapter has `f16` arithmetic in shaders: told, not used so far.
    pub f16: bool,
    /// Whether passes can be timed on the GPU.
    pub timestamps: bool,
    /// Largest binding in bytes.
    pub max_binding: u64,
    /// Largest buffer in bytes.
    pub max_buffer: u64,
    /// Workgroup memory in bytes.
    pub workgroup_memory: u32,
    /// The adapter's own memory in bytes, where the driver tells (Vulkan).
    pub memory: Option<u64>,
}

/// The largest heap of device-local memory behind an adapter or a device of Vulkan.
macro_rules! vulkan_memory {
    ($handle:expr) => {{
        // SAFETY: the handle is only asked for properties, and not kept.
        #[cfg(not(target_vendor = "apple"))]
        let largest = unsafe { $handle.as_hal::<wgpu::hal::api::Vulkan>() }.and_then(|vulkan| {
            let instance = vulkan.shared_instance().raw_instance();
            // SAFETY: instance and physical device are those of a living handle.
            let properties = unsafe { instance.get_physical_device_memory_properties(vulkan.raw_physical_device()) };
            // Bit 0 is VK_MEMORY_HEAP_DEVICE_LOCAL_BIT.
            let heaps = properties.memory_heaps_as_slice().iter().filter(|heap| heap.flags.as_raw() & 1 != 0);
            heaps.map(|heap| heap.size).max()
        });
        #[cfg(target_vendor = "apple")]
        let largest = None::<u64>;
        largest
    }};
}

/// One adapter in a list.
#[derive(Clone, Debug, serde::Serialize)]
pub struct AdapterSummary {
    /// Marketing name.
    pub name: String,
    /// Vulkan, Metal or DX12.
    pub backend: String,
    /// Discrete, integrated, CPU ...
    pub kind: String,
    /// Driver name and version.
    pub driver: String,
    /// What it can do in the full tier.
    pub caps: Caps,
}

/// Asked before weights are written, a kernel is compiled, or work is submitted: it may block (pause) or fail (cancel).
pub type Gate = Arc<dyn Fn() -> Result<()> + Send + Sync>;

/// An opened device. Cheap to clone; all clones are the same device.
#[derive(Clone)]
pub struct Gpu {
    inner: Arc<Inner>,
    gate: Option<Gate>,
}

struct Inner {
    device: wgpu::Device,
    queue: wgpu::Queue,
    info: wgpu::AdapterInfo,
    caps: Caps,
    options: GpuOptions,
    pool: Arc<Pool>,
    choices: Choices,
    kernels: Mutex<HashMap<Kernel, Arc<CompiledKernel>>>,
    params: Mutex<HashMap<Vec<u8>, wgpu::Buffer>>,
    failure: Arc<Mutex<Option<GpuError>>>,
    /// Bytes of weights written since the last submit.
    pending_upload: AtomicU64,
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gpu").field("adapter", &self.inner.info.name).field("caps", &self.inner.caps).finish()
    }
}

/// Size of the blocks of memory that small tensors share; the least that wgpu's allocator knows.
const BLOCK: u64 = 4 << 20;

/// Features that are used, or told of, where present; nothing depends on them.
fn wanted_features() -> wgpu::Features {
    wgpu::Features::SHADER_F16 | wgpu::Features::SUBGROUP | wgpu::Features::TIMESTAMP_QUERY
}

fn instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::PRIMARY;
    descriptor.memory_budget_thresholds.for_resource_creation = Some(95);
    wgpu::Instance::new(descriptor)
}

/// Adapters, strongest first: discrete, integrated, virtual, CPU; Metal's own before MoltenVK's of the same kind.
fn sorted_adapters() -> Vec<wgpu::Adapter> {
    let mut adapters = pollster::block_on(instance().enumerate_adapters(wgpu::Backends::PRIMARY));
    let kind = |info: &wgpu::AdapterInfo| match info.device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    };
    adapters.sort_by_key(|adapter| {
        let info = adapter.get_info();
        let translated = cfg!(target_vendor = "apple") && info.backend != wgpu::Backend::Metal;
        (kind(&info), translated)
    });
    adapters
}

/// Waits for a device.
///
/// # Errors
/// It is lost, or refuses.
pub(super) fn poll(device: &wgpu::Device, poll: wgpu::PollType) -> Result<()> {
    // wgpu panics where Vulkan reports a lost device to who waits for it.
    match catch_unwind(AssertUnwindSafe(|| device.poll(poll))) {
        Ok(polled) => polled.map(drop).map_err(|error| GpuError::Device(error.to_string())),
        Err(_) => Err(GpuError::Lost("while the program waited for it".into())),
    }
}

/// Name and version of an adapter's driver.
fn driver(info: &wgpu::AdapterInfo) -> String {
    format!("{} {}", info.driver, info.driver_info).trim().to_owned()
}

/// All adapters of this machine, strongest first.
pub fn list_adapters() -> Vec<AdapterSummary> {
    let summary = |adapter: &wgpu::Adapter| {
        let info = adapter.get_info();
        AdapterSummary {
            name: info.name.clone(),
            backend: format!("{:?}", info.backend),
            kind: format!("{:?}", info.device_type),
            driver: driver(&info),
            caps: Caps {
                memory: vulkan_memory!(adapter),
                ..caps(adapter.features() & wanted_features(), &adapter.limits(), &info, &GpuOptions::default())
            },
        }
    };
    sorted_adapters().iter().map(summary).collect()
}

fn pick_adapter(wanted: Option<&str>) -> Result<wgpu::Adapter> {
    let adapters = sorted_adapters();
    let names: Vec<String> = adapters.iter().map(|adapter| adapter.get_info().name).collect();
    if adapters.is_empty() {
        return Err(GpuError::NoAdapter);
    }
    let index = match wanted {
        None => 0,
        Some(text) => match text.parse::<usize>() {
            Ok(number) => number,
            Err(_) => {
                let text = text.to_lowercase();
                names.iter().position(|name| name.to_lowercase().contains(&text)).unwrap_or(usize::MAX)
            }
        },
    };
    let numbered = || names.iter().enumerate().map(|(number, name)| format!("{number} {name}")).collect::<Vec<_>>();
    adapters.into_iter().nth(index).ok_or_else(|| GpuError::OtherAdapters {
        wanted: wanted.unwrap_or_default().into(),
        found: numbered().join(", "),
    })
}

fn caps(features: wgpu::Features, limits: &wgpu::Limits, info: &wgpu::AdapterInfo, options: &GpuOptions) -> Caps {
    let has = |feature| features.contains(feature);
    Caps {
        cpu: info.device_type == wgpu::DeviceType::Cpu,
        subgroup_min: has(wgpu::Features::SUBGROUP).then_some(info.subgroup_min_size),
        f16: has(wgpu::Features::SHADER_F16),
        timestamps: has(wgpu::Features::TIMESTAMP_QUERY),
        max_binding: options
            .max_binding
            .map_or(limits.max_storage_buffer_binding_size, |cap| cap.min(limits.max_storage_buffer_binding_size)),
        max_buffer: limits.max_buffer_size,
        workgroup_memory: limits.max_compute_workgroup_storage_size,
        memory: None,
    }
}

/// A key that changes whenever measured timings of an adapter may change: name, backend, driver, tier and this program's version.
fn adapter_key(info: &wgpu::AdapterInfo, tier: Tier) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!("{} {:?} {} {} {tier:?} {version}", info.name, info.backend, info.driver, info.driver_info)
}

impl Gpu {
    /// Opens the adapter that the options name.
    pub fn open(options: &GpuOptions) -> Result<Self> {
        let adapter = pick_adapter(options.adapter.as_deref())?;
        let (features, limits) = match options.tier {
            Tier::Full => (adapter.features() & wanted_features(), adapter.limits()),
            Tier::Base => (wgpu::Features::empty(), wgpu::Limits::default()),
        };
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("ditscope"),
            required_features: features,
            required_limits: limits,
            // Tensors above the least block size get memory of their own: weights of a size packed into larger blocks leave gaps
            // (a sixth of all memory with Wan2.1-1.3B).
            memory_hints: wgpu::MemoryHints::Manual { suballocated_device_memory_block_size: BLOCK..BLOCK },
            ..Default::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))
            .map_err(|source| GpuError::RequestDevice { adapter: adapter.get_info().name, source })?;
        Ok(Self::from_wgpu(device, queue, options.clone()))
    }

    /// Uses a device that somebody else opened. Ask for it with the adapter's own limits and, where present, SUBGROUP and
    /// TIMESTAMP_QUERY; the options' adapter does not count, and their tier changes no limits. Replaces the device's handlers of errors and
    /// of its loss.
    pub fn from_wgpu(device: wgpu::Device, queue: wgpu::Queue, options: GpuOptions) -> Self {
        let failure: Arc<Mutex<Option<GpuError>>> = Arc::default();
        let first = failure.clone();
        let remember = move |error: GpuError| {
            first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
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
        let caps = Caps { memory, ..caps(device.features(), &device.limits(), &info, &options) };
        let choices = Choices::new(options.choices.clone(), adapter_key(&info, options.tier));
        let inner = Inner {
            device,
            queue,
            info,
            caps,
            options,
            pool: Arc::default(),
            choices,
            kernels: Mutex::default(),
            params: Mutex::default(),
            failure,
            pending_upload: AtomicU64::new(0),
        };
        Self { inner: Arc::new(inner), gate: None }
    }

    /// The same device, for work that `gate` may hold or end; other handles are not touched.
    pub fn gated(&self, gate: Gate) -> Self {
        Self { inner: self.inner.clone(), gate: Some(gate) }
    }

    /// The same device without the gate.
    pub(super) fn ungated(&self) -> Self {
        Self { inner: self.inner.clone(), gate: None }
    }

    /// What the gate says; without one all may go on.
    pub(super) fn pass_gate(&self) -> Result<()> {
        self.gate.as_ref().map_or(Ok(()), |gate| gate())
    }

    /// What the device can do.
    pub fn caps(&self) -> &Caps {
        &self.inner.caps
    }

    /// The adapter's name.
    pub fn adapter_name(&self) -> &str {
        &self.inner.info.name
    }

    /// Name and version of the driver.
    pub fn driver(&self) -> String {
        driver(&self.inner.info)
    }

    /// Whether the adapter is a CPU that rasterises: workgroup memory and barriers are dear there.
    pub fn is_cpu(&self) -> bool {
        self.inner.info.device_type == wgpu::DeviceType::Cpu
    }

    /// Which variants of kernels suit the adapter.
    pub fn choices(&self) -> &Choices {
        &self.inner.choices
    }

    /// GPU memory held by this device's tensors.
    pub fn memory(&self) -> MemoryUse {
        self.inner.pool.usage()
    }

    /// Counts the peak anew: of a job, not of all before it.
    pub fn reset_peak_memory(&self) {
        self.inner.pool.reset_peak();
    }

    /// Returns free pooled memory to the driver.
    pub fn release_free_memory(&self) {
        self.inner.pool.release_free();
    }

    /// The first error that the driver reported outside any call, device loss included. Taking it clears it, except that a
    /// lost device stays lost.
    pub fn check(&self) -> Result<()> {
        let mut failure = lock(&self.inner.failure);
        if let Some(GpuError::Lost(reason)) = &*failure {
            return Err(GpuError::Lost(reason.clone()));
        }
        failure.take().map_or(Ok(()), Err)
    }

    /// Destroys the device, as a driver reset would; everything after it fails with [`GpuError::Lost`] (tests).
    pub fn destroy(&self) {
        self.inner.device.destroy();
    }

    /// A weight tensor, written from little-endian `bytes`, whose length must be that of the tensor in whole `u32`s.
    pub fn upload_weight(
        &self,
        what: &str,
        bytes: &[u8],
        shape: &[usize],
        element_type: ElementType,
    ) -> Result<Tensor> {
        /// Staging memory held at most before the driver is made to drain it; many undrained writes have been seen to
        /// corrupt early tensors.
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
            // Small writes count too: it is their number that hurt.
            let cost = (chunk.len() as u64).max(DRAIN / 64);
            if self.inner.pending_upload.fetch_add(cost, Ordering::Relaxed) + cost >= DRAIN {
                self.inner.pending_upload.store(0, Ordering::Relaxed);
                self.wait()?;
            }
        }
        Ok(tensor)
    }

    /// Waits until everything submitted, uploads included, is done.
    pub fn wait(&self) -> Result<()> {
        self.inner.queue.submit([]);
        self.poll(wgpu::PollType::wait_indefinitely())?;
        self.check()
    }

    /// The memory in bytes that a job may count on: the adapter's own; where no driver tells, all that it asks for, as too much is
    /// refused. Metal neither tells nor refuses, it swaps or fails much later: there it is what the smallest machines have.
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
        // Where the reason is known it is worth more than that waiting failed.
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

    /// The compiled form of a kernel; compiled on first use.
    pub(super) fn compiled(&self, kernel: &Kernel) -> Result<Arc<CompiledKernel>> {
        if let Some(compiled) = lock(&self.inner.kernels).get(kernel) {
            return Ok(compiled.clone());
        }
        self.pass_gate()?;
        let compiled = Arc::new(CompiledKernel::compile(self, kernel)?);
        lock(&self.inner.kernels).insert(kernel.clone(), compiled.clone());
        Ok(compiled)
    }

    /// A uniform buffer with these contents. Equal contents share one buffer, so a model whose shapes do not change
    /// uploads its parameters once.
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // These maps are valid after any panic: every insertion is a single call.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

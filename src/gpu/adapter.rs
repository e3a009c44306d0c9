//! The adapters of this machine, and their abilities.

use super::select::{NAME_VARIABLE, Wanted, rank, select};
use super::{GpuError, GpuOptions, Result, Tier};

/// Largest buffer and binding in bytes, whatever the adapter promises. AMD's drivers give 2 GiB to
/// one allocation, and offsets in larger bindings do not fit 32 bits everywhere.
pub(super) const MOST_BYTES: u64 = (1 << 31) - 256;

/// The abilities of a device within its [`GpuOptions`].
#[derive(Clone, Debug, serde::Serialize)]
#[non_exhaustive]
pub struct Caps {
    /// Whether the adapter is a CPU that runs shaders (lavapipe, WARP).
    pub cpu: bool,
    /// Smallest subgroup size, if subgroup operations may be used.
    pub subgroup_min: Option<u32>,
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

impl Caps {
    /// The abilities of a device with these features and limits; the memory is not known yet.
    pub(super) fn new(
        features: wgpu::Features,
        limits: &wgpu::Limits,
        info: &wgpu::AdapterInfo,
        options: &GpuOptions,
    ) -> Self {
        let largest = limits.max_storage_buffer_binding_size.min(MOST_BYTES);
        Self {
            cpu: info.device_type == wgpu::DeviceType::Cpu,
            subgroup_min: features.contains(wgpu::Features::SUBGROUP).then_some(info.subgroup_min_size),
            timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
            max_binding: options.max_binding.map_or(largest, |cap| cap.min(largest)),
            max_buffer: limits.max_buffer_size.min(MOST_BYTES),
            workgroup_memory: limits.max_compute_workgroup_storage_size,
            memory: None,
        }
    }
}

/// One adapter in a list.
#[derive(Clone, Debug, serde::Serialize)]
#[non_exhaustive]
pub struct AdapterSummary {
    /// Marketing name.
    pub name: String,
    /// Vulkan, Metal or DX12.
    pub backend: String,
    /// Discrete, integrated, CPU ...
    pub kind: String,
    /// Driver name and version.
    pub driver: String,
    /// Its abilities in the full tier.
    pub caps: Caps,
}

/// The size in bytes of the largest heap of device-local memory: that of a Vulkan adapter or
/// device, `None` for other backends.
macro_rules! vulkan_memory {
    ($handle:expr) => {{
        // SAFETY: the handle is only asked for properties, and not kept.
        #[cfg(not(target_vendor = "apple"))]
        let largest = unsafe { $handle.as_hal::<wgpu::hal::api::Vulkan>() }.and_then(|vulkan| {
            let instance = vulkan.shared_instance().raw_instance();
            // SAFETY: instance and physical device belong to a living handle.
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

pub(super) use vulkan_memory;

/// Optional features that are used where present. The program works without any of them.
fn wanted_features() -> wgpu::Features {
    wgpu::Features::SUBGROUP | wgpu::Features::TIMESTAMP_QUERY
}

/// The features and limits to ask an adapter for.
pub(super) fn requested(adapter: &wgpu::Adapter, tier: Tier) -> (wgpu::Features, wgpu::Limits) {
    match tier {
        Tier::Full => (adapter.features() & wanted_features(), adapter.limits()),
        Tier::Base => (wgpu::Features::empty(), wgpu::Limits::default()),
    }
}

/// The backends to look at: those of the variable `WGPU_BACKEND`, else all that can compute.
///
/// # Errors
/// The variable names none that can compute.
pub(super) fn backends() -> Result<wgpu::Backends> {
    let wanted = wgpu::Backends::from_env().unwrap_or(wgpu::Backends::PRIMARY) & wgpu::Backends::PRIMARY;
    if wanted.is_empty() {
        return Err(GpuError::NoBackend(std::env::var("WGPU_BACKEND").unwrap_or_default()));
    }
    Ok(wanted)
}

fn instance(backends: wgpu::Backends, compiler: Option<wgpu::Dx12Compiler>) -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = backends;
    descriptor.memory_budget_thresholds.for_resource_creation = Some(95);
    if let Some(compiler) = compiler {
        descriptor.backend_options.dx12.shader_compiler = compiler;
    }
    wgpu::Instance::new(descriptor)
}

/// The adapters, strongest first (see [`rank`]).
pub(super) fn sorted_adapters() -> Result<Vec<wgpu::Adapter>> {
    let backends = backends()?;
    let adapters = |backends, compiler| pollster::block_on(instance(backends, compiler).enumerate_adapters(backends));
    let mut all = adapters(backends, None);
    if cfg!(windows) && backends.contains(wgpu::Backends::DX12) {
        // With `dxcompiler.dll` wgpu leaves out adapters below shader model 6. FXC serves these.
        let identity = |info: wgpu::AdapterInfo| (info.backend, info.name, info.device, info.device_pci_bus_id);
        let known: Vec<_> = all.iter().map(|adapter| identity(adapter.get_info())).collect();
        let others = adapters(wgpu::Backends::DX12, Some(wgpu::Dx12Compiler::Fxc));
        all.extend(others.into_iter().filter(|adapter| !known.contains(&identity(adapter.get_info()))));
    }
    all.sort_by_key(|adapter| rank(&adapter.get_info()));
    Ok(all)
}

/// Names with interfaces, which tell the adapters of one GPU apart.
pub(super) fn labels(infos: &[wgpu::AdapterInfo]) -> Vec<String> {
    infos.iter().map(|info| format!("{} ({:?})", info.name, info.backend)).collect()
}

/// The label of an adapter: "NAME (INTERFACE)".
pub(super) fn label(info: &wgpu::AdapterInfo) -> String {
    labels(std::slice::from_ref(info)).swap_remove(0)
}

/// Name and version of an adapter's driver.
pub(super) fn driver(info: &wgpu::AdapterInfo) -> String {
    format!("{} {}", info.driver, info.driver_info).trim().to_owned()
}

/// All adapters of this machine, strongest first: those of the backends in the variable
/// `WGPU_BACKEND`, if it is set.
///
/// # Errors
/// `WGPU_BACKEND` names no backend that can compute.
pub fn list_adapters() -> Result<Vec<AdapterSummary>> {
    let summary = |adapter: &wgpu::Adapter| {
        let info = adapter.get_info();
        let (features, limits) = requested(adapter, Tier::Full);
        AdapterSummary {
            name: info.name.clone(),
            backend: format!("{:?}", info.backend),
            kind: format!("{:?}", info.device_type),
            driver: driver(&info),
            caps: Caps {
                memory: vulkan_memory!(adapter),
                ..Caps::new(features, &limits, &info, &GpuOptions::default())
            },
        }
    };
    Ok(sorted_adapters()?.iter().map(summary).collect())
}

impl AdapterSummary {
    /// The adapter's label, "NAME (INTERFACE)", which [`GpuOptions::adapter`] takes.
    pub fn label(&self) -> String {
        format!("{} ({})", self.name, self.backend)
    }
}

/// The adapters to try, in order: those that the text names (a number, or part of a name), else
/// those that the variable `WGPU_ADAPTER_NAME` names, else all.
///
/// # Errors
/// There is no adapter, none matches, or the text fits several GPUs.
pub(super) fn candidates(wanted: Option<&str>) -> Result<Vec<wgpu::Adapter>> {
    pick(sorted_adapters()?, wanted)
}

/// The adapters of a list in the order of [`rank`] that are to be tried.
fn pick(adapters: Vec<wgpu::Adapter>, wanted: Option<&str>) -> Result<Vec<wgpu::Adapter>> {
    let variable = std::env::var(NAME_VARIABLE).ok();
    let infos: Vec<_> = adapters.iter().map(wgpu::Adapter::get_info).collect();
    let places = select(&infos, Wanted { option: wanted, variable: variable.as_deref() })?;
    let mut adapters: Vec<_> = adapters.into_iter().map(Some).collect();
    Ok(places.into_iter().filter_map(|place| adapters[place].take()).collect())
}

/// The adapter that draws a window, among those of the window's own instance: as
/// [`Gpu::open`](super::Gpu::open) would choose, but one that can draw on the surface and can be
/// opened.
///
/// # Errors
/// There is no such adapter. If only the wanted one cannot draw, another one is taken.
pub fn adapter_for_window(
    adapters: &[wgpu::Adapter],
    surface: Option<&wgpu::Surface>,
    wanted: Option<&str>,
) -> Result<wgpu::Adapter> {
    let draws = |adapter: &&wgpu::Adapter| surface.is_none_or(|surface| adapter.is_surface_supported(surface));
    let mut able: Vec<wgpu::Adapter> = adapters.iter().filter(draws).cloned().collect();
    able.sort_by_key(|adapter| rank(&adapter.get_info()));
    let mut order = pick(able.clone(), wanted).unwrap_or_default();
    order.extend(able);
    if order.len() > 1 {
        // Opening takes time, so a single adapter is not tried before it is used.
        let opens = |adapter: &wgpu::Adapter| {
            pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default())).is_ok()
        };
        order = order.into_iter().find(opens).into_iter().collect();
    }
    order.into_iter().next().ok_or(GpuError::NoAdapter)
}

/// A key that changes whenever measured timings of an adapter may change: name, backend, driver,
/// tier and this program's version.
pub(super) fn key(info: &wgpu::AdapterInfo, tier: Tier) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!("{} {:?} {} {} {tier:?} {version}", info.name, info.backend, info.driver, info.driver_info)
}

//! The adapters of this machine, and their abilities.

use super::{GpuError, GpuOptions, Result, Tier};

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
        let largest = limits.max_storage_buffer_binding_size;
        Self {
            cpu: info.device_type == wgpu::DeviceType::Cpu,
            subgroup_min: features.contains(wgpu::Features::SUBGROUP).then_some(info.subgroup_min_size),
            timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
            max_binding: options.max_binding.map_or(largest, |cap| cap.min(largest)),
            max_buffer: limits.max_buffer_size,
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

fn instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::PRIMARY;
    descriptor.memory_budget_thresholds.for_resource_creation = Some(95);
    wgpu::Instance::new(descriptor)
}

/// Adapters, strongest first: discrete, integrated, virtual, CPU. Of the same kind, Metal's own
/// adapters come before those of MoltenVK.
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

/// Name and version of an adapter's driver.
pub(super) fn driver(info: &wgpu::AdapterInfo) -> String {
    format!("{} {}", info.driver, info.driver_info).trim().to_owned()
}

/// All adapters of this machine, strongest first.
pub fn list_adapters() -> Vec<AdapterSummary> {
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
    sorted_adapters().iter().map(summary).collect()
}

/// The adapter of this number, or the first one whose name contains the text; the strongest one if
/// nothing is wanted.
///
/// # Errors
/// There is no adapter, or none that matches.
pub(super) fn pick(wanted: Option<&str>) -> Result<wgpu::Adapter> {
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

/// A key that changes whenever measured timings of an adapter may change: name, backend, driver,
/// tier and this program's version.
pub(super) fn key(info: &wgpu::AdapterInfo, tier: Tier) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!("{} {:?} {} {} {tier:?} {version}", info.name, info.backend, info.driver, info.driver_info)
}

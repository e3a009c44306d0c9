//! Which adapter to open: the order of adapters, and the search by number or name.

use super::adapter::labels;
use super::{GpuError, Result};

/// The environment variable that names an adapter, as in other programs with wgpu.
pub(super) const NAME_VARIABLE: &str = "WGPU_ADAPTER_NAME";

/// What the user asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted<'a> {
    /// A number, or part of a name: an option of the program.
    pub(super) option: Option<&'a str>,
    /// Part of a name: the environment variable. The option counts more.
    pub(super) variable: Option<&'a str>,
}

/// The place of an adapter in the order: discrete, integrated, virtual, CPU. Of the same kind Metal
/// and Vulkan come before DirectX 12, so that a GPU with both uses Vulkan, and Metal's own adapters
/// come before those of MoltenVK.
pub(super) fn rank(info: &wgpu::AdapterInfo) -> (u8, u8) {
    let kind = match info.device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    };
    let interface = match info.backend {
        wgpu::Backend::Metal => 0,
        wgpu::Backend::Vulkan => 1,
        _ => 2,
    };
    (kind, interface)
}

/// Whether two adapters are one GPU, seen through two interfaces.
fn same_gpu(a: &wgpu::AdapterInfo, b: &wgpu::AdapterInfo) -> bool {
    a.backend != b.backend && ((a.vendor, a.device) == (b.vendor, b.device) || a.name == b.name)
}

/// The positions of the adapters to try, in order, among adapters in the order of [`rank`].
///
/// A number is a position. Any other text, and a number that is no position, is part of a name or
/// a whole label, "NAME (INTERFACE)". Several adapters may match only if they are one GPU.
///
/// # Errors
/// No adapter matches, or several GPUs do.
pub(super) fn select(infos: &[wgpu::AdapterInfo], wanted: Wanted) -> Result<Vec<usize>> {
    if infos.is_empty() {
        return Err(GpuError::NoAdapter);
    }
    let names = labels(infos);
    let found = || names.iter().enumerate().map(|(i, name)| format!("{i} {name}")).collect::<Vec<_>>().join(", ");
    let Some(text) = wanted.option else {
        let Some(name) = wanted.variable.map(str::trim).filter(|name| !name.is_empty()) else {
            return Ok((0..infos.len()).collect());
        };
        let matching = containing(&names, name);
        let wanted = || format!("{NAME_VARIABLE}={name}");
        return if matching.is_empty() {
            Err(GpuError::OtherAdapters { wanted: wanted(), found: found() })
        } else {
            Ok(matching)
        };
    };
    let text = text.trim();
    if let Ok(number) = text.parse::<usize>()
        && number < infos.len()
    {
        return Ok(vec![number]);
    }
    let matching = if text.is_empty() { Vec::new() } else { containing(&names, text) };
    match matching.split_first() {
        None => Err(GpuError::OtherAdapters { wanted: text.into(), found: found() }),
        Some((first, others)) if others.iter().any(|other| !same_gpu(&infos[*first], &infos[*other])) => {
            Err(GpuError::SeveralAdapters { wanted: text.into(), found: found() })
        }
        Some(_) => Ok(matching),
    }
}

/// The labels that contain a text, or those that are the text.
fn containing(labels: &[String], text: &str) -> Vec<usize> {
    let text = text.to_lowercase();
    let labels: Vec<String> = labels.iter().map(|label| label.to_lowercase()).collect();
    let all = |matches: &dyn Fn(&String) -> bool| (0..labels.len()).filter(|i| matches(&labels[*i])).collect();
    let whole: Vec<usize> = all(&|label| *label == text);
    if whole.is_empty() { all(&|label| label.contains(&text)) } else { whole }
}

#[cfg(test)]
mod tests {
    use wgpu::{Backend, DeviceType};

    use super::*;

    fn adapter(name: &str, device: u32, kind: DeviceType, backend: Backend) -> wgpu::AdapterInfo {
        wgpu::AdapterInfo { name: name.into(), device, vendor: 7, ..wgpu::AdapterInfo::new(kind, backend) }
    }

    /// A laptop with Windows: two GPUs and Microsoft's CPU device, in an order that no driver
    /// promises.
    fn laptop() -> Vec<wgpu::AdapterInfo> {
        let mut all = vec![
            adapter("Basic Render Driver", 9, DeviceType::Cpu, Backend::Dx12),
            adapter("RTX 4060", 1, DeviceType::DiscreteGpu, Backend::Dx12),
            adapter("Iris Xe 256", 2, DeviceType::IntegratedGpu, Backend::Vulkan),
            adapter("RTX 4060", 1, DeviceType::DiscreteGpu, Backend::Vulkan),
            adapter("Iris Xe 256", 2, DeviceType::IntegratedGpu, Backend::Dx12),
        ];
        all.sort_by_key(rank);
        all
    }

    fn option(infos: &[wgpu::AdapterInfo], text: &str) -> Result<Vec<usize>> {
        select(infos, Wanted { option: Some(text), variable: Some("ignored") })
    }

    #[test]
    fn strong_adapters_come_first_and_vulkan_before_directx() {
        let names: Vec<String> = labels(&laptop());
        let want = ["RTX 4060 (Vulkan)", "RTX 4060 (Dx12)", "Iris Xe 256 (Vulkan)", "Iris Xe 256 (Dx12)"];
        assert_eq!(names[..4], want);
        assert_eq!(select(&laptop(), Wanted::default()).unwrap(), [0, 1, 2, 3, 4]);
        assert!(matches!(select(&[], Wanted::default()), Err(GpuError::NoAdapter)));
    }

    #[test]
    fn a_number_is_a_position_or_else_part_of_a_name() {
        assert_eq!(option(&laptop(), "1").unwrap(), [1]);
        assert_eq!(option(&laptop(), " 4 ").unwrap(), [4]);
        assert_eq!(option(&laptop(), "256").unwrap(), [2, 3]);
        assert!(matches!(option(&laptop(), "7"), Err(GpuError::OtherAdapters { .. })));
    }

    #[test]
    fn names_find_one_gpu_through_each_of_its_interfaces() {
        assert_eq!(option(&laptop(), "rtx").unwrap(), [0, 1]);
        assert_eq!(option(&laptop(), "RTX 4060 (Dx12)").unwrap(), [1]);
        for text in ["x", "dx12", "i"] {
            let error = option(&laptop(), text).unwrap_err();
            assert!(matches!(error, GpuError::SeveralAdapters { .. }), "{text}: {error}");
        }
        for text in ["", "  ", "voodoo"] {
            let error = option(&laptop(), text).unwrap_err();
            assert!(error.to_string().contains("0 RTX 4060 (Vulkan)"), "{text:?}: {error}");
        }
        let twins = [0, 1].map(|_| adapter("llvmpipe", 3, DeviceType::Cpu, Backend::Vulkan));
        assert!(matches!(option(&twins, "llvm"), Err(GpuError::SeveralAdapters { .. })));
        assert_eq!(option(&twins, "1").unwrap(), [1]);
    }

    #[test]
    fn the_environment_limits_what_is_tried() {
        let by = |name| select(&laptop(), Wanted { option: None, variable: Some(name) });
        assert_eq!(by("iris").unwrap(), [2, 3]);
        assert_eq!(by("").unwrap().len(), 5);
        assert!(by("voodoo").unwrap_err().to_string().contains("WGPU_ADAPTER_NAME=voodoo"));
    }
}

//! How to open a device, and how a stream submits.

use std::path::PathBuf;
use std::time::Duration;

/// How much of the adapter to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tier {
    /// Every optional feature that helps and that the adapter has, with the adapter's own limits.
    #[default]
    Full,
    /// WebGPU's default limits and no optional feature: every adapter has these. For tests and for
    /// finding out which feature causes an error.
    Base,
}

/// How to open a device.
///
/// ```
/// # use ditscope::gpu::{GpuOptions, Tier};
/// let options = GpuOptions::default().with_adapter("llvmpipe").with_tier(Tier::Base);
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct GpuOptions {
    /// Part of an adapter's name, or its number in [`list_adapters`](super::list_adapters). If
    /// `None`, the strongest adapter that works, of those that the variable `WGPU_ADAPTER_NAME`
    /// names.
    pub adapter: Option<String>,
    /// How much of the adapter to use.
    pub tier: Tier,
    /// Limits bindings to this many bytes. Tests force the splitting of large tensors with it.
    pub max_binding: Option<u64>,
    /// Fills every new tensor with NaN, so that reading memory before writing it shows. For tests.
    pub poison: bool,
    /// Compiles shaders with checks of bounds and loops. Slower; for finding bugs.
    pub checked_shaders: bool,
    /// The file that remembers measured choices among kernel variants (see
    /// [`choices_path`](super::choices_path)). With `None` nothing is measured, and a fixed rule
    /// chooses.
    pub choices: Option<PathBuf>,
}

impl GpuOptions {
    /// Options for tests: poisoned memory and checked shaders.
    pub fn checked() -> Self {
        Self { poison: true, checked_shaders: true, ..Self::default() }
    }

    /// With another adapter: part of its name, or its number.
    pub fn with_adapter(self, adapter: impl Into<String>) -> Self {
        Self { adapter: Some(adapter.into()), ..self }
    }

    /// With another tier.
    pub fn with_tier(self, tier: Tier) -> Self {
        Self { tier, ..self }
    }

    /// With bindings limited to this many bytes, or not limited.
    pub fn with_max_binding(self, bytes: impl Into<Option<u64>>) -> Self {
        Self { max_binding: bytes.into(), ..self }
    }

    /// With choices measured and remembered in this file, or with the fixed rule.
    pub fn with_choices(self, file: impl Into<Option<PathBuf>>) -> Self {
        Self { choices: file.into(), ..self }
    }
}

/// How a stream submits.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StreamOptions {
    /// Longest GPU time of one submit: 8 to 16 ms beside a window, 100 ms without one.
    pub budget: Duration,
    /// Times every dispatch on the GPU, where the device can.
    pub timed: bool,
}

impl StreamOptions {
    /// With submits of at most this GPU time.
    pub fn with_budget(self, budget: Duration) -> Self {
        Self { budget, ..self }
    }

    /// With every dispatch timed, or not.
    pub fn with_timed(self, timed: bool) -> Self {
        Self { timed, ..self }
    }
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self { budget: Duration::from_millis(100), timed: false }
    }
}

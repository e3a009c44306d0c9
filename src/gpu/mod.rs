//! Room `gpu`: the device, its memory, its shaders, and the order in which work reaches it.
//!
//! ```text
//! Gpu ── open an adapter, what it can do, its errors         device.rs
//!  ├─ Choices ── which kernel variants suit it               choices.rs
//!  ├─ Tensor ── shape, type and a piece of pooled memory      tensor.rs, pool.rs
//!  ├─ Kernel ── a shader permutation, compiled once           shader.rs, kernel.rs
//!  └─ Stream ── dispatches in order, split into short submits stream.rs, timing.rs
//! ```
//! This room knows no other room.

mod choices;
mod device;
mod error;
mod kernel;
mod pool;
pub mod shader;
mod stream;
mod tensor;
mod timing;

pub use choices::{Choices, choices_path};
pub use device::{AdapterSummary, Caps, Gate, Gpu, GpuOptions, Tier, list_adapters};
pub use error::GpuError;
pub use kernel::{Dispatch, Kernel, fold_groups};
pub use pool::MemoryUse;
pub use stream::{Stream, StreamOptions};
pub use tensor::{ElementType, Tensor};
pub use timing::{KernelTime, KernelTimes};

/// Result of anything that touches the GPU.
pub type Result<T> = std::result::Result<T, GpuError>;

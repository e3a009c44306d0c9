//! Room `gpu`: the device, its memory, its shaders, and the order in which work reaches it.
//!
//! ```text
//! Gpu ── open an adapter, its abilities, its errors           adapter.rs, device.rs, error.rs
//!  ├─ which adapter ── by number, name or strength            select.rs
//!  ├─ Choices ── the kernel variants that suit the adapter    choices.rs
//!  ├─ Tensor ── shape, type and a piece of pooled memory      tensor.rs, pool.rs
//!  ├─ Kernel ── a shader permutation, compiled once           shader.rs, kernel.rs
//!  ├─ Arguments ── parameters and tensors of a kernel         arguments.rs
//!  └─ Stream ── dispatches in order, in short submits         stream.rs, marks.rs, timing.rs
//! ```
//! This room knows no other room.

mod adapter;
pub mod arguments;
mod choices;
mod device;
mod error;
mod kernel;
mod marks;
mod options;
mod pool;
mod select;
pub mod shader;
mod stream;
mod tensor;
mod timing;

pub use adapter::{AdapterSummary, Caps, adapter_for_window, list_adapters};
pub use choices::{Choices, choices_path};
pub use device::{Gate, Gpu};
pub use error::GpuError;
pub use kernel::{Dispatch, Kernel, fold_groups};
pub use options::{GpuOptions, StreamOptions, Tier};
pub use pool::MemoryUse;
pub use stream::{Note, Stream};
pub use tensor::{Element, ElementType, Tensor};
pub use timing::{KernelTime, KernelTimes};

/// Result of anything that touches the GPU.
pub type Result<T> = std::result::Result<T, GpuError>;

//! Room `weights`: checkpoints of any layout, seen as one list of named tensors.
//!
//! [`Checkpoint::open`] takes a `.safetensors` file, a sharded `*.safetensors.index.json`, a torch
//! `.pth` or `.pt` archive, or a folder that holds one of these. The files are mapped into memory,
//! so a tensor's bytes are read when they are first used. [`Checkpoint::renamed`] gives
//! the tensors of every layout the same names; a family of models says how.
//!
//! Files are not trusted. A header that contradicts the file gives a [`WeightsError`]. Memory is
//! allocated by the size of the data that is in the file, never by the size that a header claims. A
//! pickle is read as data and never runs code.
//!
//! **A file that another program truncates while it is mapped** reads as zeros from there on.
//! [`Checkpoint::check`] then fails, and whoever reads tensors asks it afterwards. Opening a
//! checkpoint checks that every tensor lies inside its file, so a file that was already cut short
//! (by an interrupted download) is an ordinary error.

mod bytes;
mod checkpoint;
mod dtype;
mod error;
mod mapped;
mod safetensors_file;
mod tensor;
mod torch;

pub use checkpoint::Checkpoint;
pub use dtype::{DType, RawType};
pub use error::WeightsError;
pub use tensor::TensorView;

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
//! **A file that another program truncates while it is mapped** ends the process. The system
//! answers a read beyond the new end with SIGBUS (Unix) or an in-page exception (Windows, which
//! usually forbids the truncation instead). No program that maps files can prevent this. Opening a
//! checkpoint checks that every tensor lies inside its file, so a file that was already cut short
//! (by an interrupted download) is an ordinary error.

mod bytes;
mod checkpoint;
mod dtype;
mod error;
mod safetensors_file;
mod tensor;
mod torch;

pub use checkpoint::Checkpoint;
pub use dtype::{DType, RawType};
pub use error::WeightsError;
pub use tensor::TensorView;

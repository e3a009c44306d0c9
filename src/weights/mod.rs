//! Room `weights`: checkpoints of any layout, seen as one list of named tensors.
//!
//! [`Checkpoint::open`] takes a `.safetensors` file, a sharded `*.safetensors.index.json`, a folder that holds one of
//! these, or a torch `.pth`/`.pt` archive, and maps it into memory: nothing is read until a tensor's bytes are looked at.
//! [`Checkpoint::renamed`] with [`names::diffusers_name`] gives every layout diffusers' names, which are the only names
//! that the rest of the program knows.
//!
//! Files are not trusted. A header that lies gives one [`WeightsError`]; memory is allocated by the size of what is really
//! in the file, never by what a header claims; a pickle is read as data and never runs code.
//!
//! **A file that shrinks while it is mapped** (another program truncates it) ends the process: the system answers a read
//! beyond the new end with SIGBUS (Unix) or an in-page exception (Windows, which mostly forbids the truncation instead).
//! No program that maps files can prevent this. What can be checked is checked at open: every tensor lies inside the file
//! as it was then, so a file that was cut short before (an interrupted download) is an ordinary error.

mod bytes;
mod checkpoint;
mod dtype;
mod error;
pub mod names;
mod safetensors_file;
mod tensor;
mod torch;

pub use checkpoint::Checkpoint;
pub use dtype::{DType, RawType};
pub use error::WeightsError;
pub use tensor::TensorView;

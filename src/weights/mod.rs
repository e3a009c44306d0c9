//! Room `weights`: checkpoints of any layout, seen as one list of named tensors.
//!
//! [`Checkpoint::open`] takes a safetensors file, shards with or without their index, a torch
//! archive, a GGUF file, or a folder that holds one of these. The first bytes decide which format a
//! file has ([`Container`]), not its name. The files are mapped into memory, so a tensor's bytes
//! are read when they are first used. [`Checkpoint::renamed`] gives the tensors of every layout the
//! same names; a family of models says how.
//!
//! [`DType`] says how elements are stored. Elements of 8 and fewer bits have their scales beside
//! them ([`Scale`]) or in blocks ([`Packing`]). [`TensorView::to_f32`] decodes all of them.
//!
//! Files are not trusted. A header that contradicts the file gives a [`WeightsError`]. Memory is
//! allocated by the size of the data that is in the file, never by the size that a header claims. A
//! pickle is read as data and never runs code.
//!
//! **A file that another program truncates while it is mapped** reads as zeros from there on.
//! [`Checkpoint::check`] then fails, and whoever reads tensors asks it afterwards. Opening a
//! checkpoint checks that every tensor lies inside its file, so a file that was already cut short
//! (by an interrupted download) is an ordinary error.

mod addition;
mod bundle;
mod bytes;
mod checkpoint;
mod container;
mod dtype;
mod error;
mod gguf;
mod identity;
mod mapped;
mod packing;
mod safetensors_file;
mod scale;
mod strided;
mod tensor;
mod torch;

pub use addition::Addition;
pub use bundle::{Bundle, Bundles};
pub use checkpoint::{Checkpoint, MetadataView};
pub use container::Container;
pub use dtype::{DType, RawType};
pub use error::WeightsError;
pub use identity::keep_ids_in;
pub use packing::{Format, Numbers, Packing};
pub use scale::Scale;
pub use tensor::TensorView;

//! Room `model`: what a checkpoint's configuration says, and the networks that it describes.
mod error;
pub mod wan;

pub use error::ModelError;

//! Room `model`.
pub mod wan;

//! Wan2.1: its files, configurations, text, and networks.

pub mod config;
pub mod files;
pub(crate) mod load;
mod mojibake;
pub mod patches;
mod prompt_clean;
pub mod published;
pub mod text_encoder;
pub mod tokenizer;
pub mod transformer;
pub mod vae;

pub use prompt_clean::prompt_clean;

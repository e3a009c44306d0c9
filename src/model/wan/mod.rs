//! Wan2.1.
pub mod config;
pub mod files;
mod mojibake;
mod prompt_clean;
pub mod tokenizer;
pub mod vae;

pub use prompt_clean::prompt_clean;

//! Wan2.1: its files, configurations, text, and networks.

pub mod config;
pub mod files;
mod mojibake;
mod prompt_clean;
pub mod tokenizer;

pub use prompt_clean::prompt_clean;

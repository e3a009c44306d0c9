//! Wan2.1: its files, configurations, text, and networks.

pub mod config;
mod family;
pub mod files;
pub(crate) mod load;
mod lora;
mod mojibake;
pub mod names;
pub mod patches;
mod pieces;
mod prompt_clean;
mod published;
mod run;
pub mod text_encoder;
pub mod tokenizer;
pub mod transformer;
pub mod vae;

pub use family::Wan;
pub use prompt_clean::prompt_clean;

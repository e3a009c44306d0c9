//! Wan2.1.

mod mojibake;
mod prompt_clean;
pub mod tokenizer;

pub use prompt_clean::prompt_clean;

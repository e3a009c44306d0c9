//! Wan2.1.
pub mod config;
pub mod files;

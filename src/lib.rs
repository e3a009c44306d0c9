//! **ditscope**: a scope for video diffusion transformers.
#![warn(missing_docs)]

pub mod app;
pub mod caching;
pub mod cli;
pub mod engine;
pub mod gpu;
pub mod media;
pub mod metrics;
pub mod model;
pub mod ops;
pub mod profiling;
pub mod sampling;
pub mod weights;

//! **ditscope**: a scope for video diffusion transformers. The library runs Wan2.1 through wgpu,
//! shows what every block attends to, and reuses what hardly changes from step to step.
//!
//! ```no_run
//! use ditscope::caching::{Intervals, StepSchedule, StrategyConfig, Uniform};
//! use ditscope::engine::{Engine, GenerateRequest};
//! use ditscope::gpu::{Gpu, GpuOptions};
//! use std::{path::Path, time::Duration};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let engine = Engine::start(Gpu::open(&GpuOptions::default())?, Duration::from_millis(100))?;
//!     let model = Path::new("assets/demo-model");
//!     let mut request = GenerateRequest::of_model(model, "a cat walking on grass")?;
//!     // Every second step takes over what the blocks added in the step before.
//!     let schedule = StepSchedule { warm_up: 4, last: 1, intervals: Intervals::Uniform(2) };
//!     request.strategy = StrategyConfig::of(Uniform(schedule));
//!     engine.generate(request)?;
//!     engine.wait()?.write(Path::new("cat.mp4"), "")?;
//!     Ok(())
//! }
//! ```
//! [`engine::Engine::events`] tells how a job goes, and [`engine::Capture`] gathers what events
//! tell. [`study`] profiles a model and compares strategies. [`caching::Rule`] is what a strategy
//! of one's own implements. A device of the caller's own does as well ([`gpu::Gpu::from_wgpu`]).
//! The folder `examples` shows all of these, and `ARCHITECTURE.md` says where things are.
//!
//! Features: `window` (default) is the desktop window, `cli` (default) the command line and the
//! program. With `default-features = false` the library is the engine with profiling, caching,
//! studies, metrics and media.
#![warn(missing_docs)]
// `println!` panics where nobody reads. The command line prints through `cli::print`.
#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]

#[cfg(feature = "window")]
#[doc(hidden)]
pub mod app;
pub mod caching;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
pub mod engine;
pub mod gpu;
pub mod media;
pub mod metrics;
pub mod model;
pub mod ops;
pub mod profiling;
pub mod sampling;
pub mod study;
pub mod weights;

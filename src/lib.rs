//! **ditscope**: a scope for video diffusion transformers. It runs Wan2.1 through wgpu, shows what every block attends to, and reuses what
//! hardly changes from step to step.
//!
//! ```no_run
//! use ditscope::caching::{Intervals, StepSchedule, StrategyConfig, Uniform};
//! use ditscope::engine::{Engine, Event, GenerateRequest};
//! use ditscope::gpu::{Gpu, GpuOptions};
//! use std::{path::Path, time::Duration};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let engine = Engine::start(Gpu::open(&GpuOptions::default())?, Duration::from_millis(100))?;
//!     let mut request = GenerateRequest::of_model(Path::new("assets/demo-model"), "a cat walking on grass")?;
//!     // Every second step takes over what the blocks added in the step before.
//!     let schedule = StepSchedule { warm_up: 4, last: 1, intervals: Intervals::Uniform(2) };
//!     request.strategy = StrategyConfig::of(Uniform(schedule));
//!     engine.generate(request)?;
//!     for event in engine.events() {
//!         match event {
//!             Event::Step(done) => println!("step {} of {}", done.record.step + 1, done.steps),
//!             Event::Finished(generated) => return Ok(generated.write(Path::new("cat.mp4"), "")?),
//!             Event::Failed(error) => return Err(error.into()),
//!             _ => {}
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//! A device of the caller's own does as well ([`gpu::Gpu::from_wgpu`]). [`engine::Capture`] gathers what events tell, [`profiling`] turns
//! captures into profiles, [`caching::Planner`] profiles into plans. `ARCHITECTURE.md` says where things are.
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
pub mod study;
pub mod weights;

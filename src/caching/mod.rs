//! Room `caching`: what to compute and what to reuse. A strategy sees numbers and answers with a [`StepPlan`] a step; the engine
//! carries it out with a [`DeltaStore`]. The transformer knows no strategy.
//!
//! ```text
//! StrategyConfig ── build ──> Strategy ── plan, decide ──> StepPlan ──> engine + DeltaStore
//!                                      <── observe ────── numbers
//! ```

mod calibration;
mod config;
mod cost;
mod delta_store;
mod easy_cache;
mod error;
mod mag_cache;
mod plan;
mod planner;
mod probing;
mod profiling_dit;
mod schedule;
mod step_skip;
mod strategy;
mod tea_cache;

pub use calibration::{Calibration, GramRecorder};
pub use config::{StrategyConfig, StrategyInputs};
pub use cost::{ForwardCost, hit_rate};
pub use delta_store::DeltaStore;
pub use easy_cache::EasyCache;
pub use error::CacheError;
pub use mag_cache::MagCache;
pub use plan::{Action, BranchPlan, Cell, Correction, Forecast, MOST_OUTPUTS, OutputKind, Segment, StepPlan};
pub use planner::{Planned, PlannedStep, Planner};
pub use probing::{DbCache, DiCache};
pub use profiling_dit::{Carry, Lists, ProfilingSettings, runs_of};
pub use schedule::{Intervals, Rounding, StepSchedule, indices};
pub use step_skip::DeltaDit;
pub use strategy::{Decision, Observation, ProbeResult, StepContext, Strategy};
pub use tea_cache::{TeaCache, calibrate as calibrate_tea_cache, wan_coefficients};

//! The rules: one file each, and one line each in [`RULES`].

pub mod block_controls;
mod db_cache;
mod delta_dit;
mod di_cache;
mod dp_cache;
mod easy_cache;
mod fewer_steps;
mod goal_plan;
mod lemica;
mod mag_cache;
mod off;
mod plan;
mod probing;
mod profiling_dit;
mod scaling_cache;
mod spectrum;
mod taylor_seer;
mod tea_cache;
mod uniform;
mod unknown;

pub use db_cache::DbCache;
pub use delta_dit::DeltaDit;
pub use di_cache::DiCache;
pub use dp_cache::DpCache;
pub use easy_cache::EasyCache;
pub use fewer_steps::FewerSteps;
pub use goal_plan::GoalPlan;
pub use lemica::{LeMiCa, PublishedFor};
pub use mag_cache::MagCache;
pub use off::Off;
pub use plan::{Origin, Plan};
pub use profiling_dit::{BlockList, Carry, Lists, ProfilingDit, runs_of};
pub use scaling_cache::ScalingCache;
pub use spectrum::Spectrum;
pub use taylor_seer::TaylorSeer;
pub use tea_cache::{TeaCache, calibrate as calibrate_tea_cache};
pub use uniform::Uniform;
pub use unknown::UnknownRule;

use super::catalogue::Entry;

/// The built-in rules, in the order of the window and the documentation.
pub const RULES: &[Entry] = &[
    Entry::of::<GoalPlan>(),
    Entry::of::<Off>(),
    Entry::of::<ProfilingDit>(),
    Entry::of::<Uniform>(),
    Entry::of::<TeaCache>(),
    Entry::of::<MagCache>(),
    Entry::of::<EasyCache>(),
    Entry::of::<DbCache>(),
    Entry::of::<DiCache>(),
    Entry::of::<DeltaDit>(),
    Entry::of::<LeMiCa>(),
    Entry::of::<Spectrum>(),
    Entry::of::<TaylorSeer>(),
    Entry::of::<ScalingCache>(),
    Entry::of::<DpCache>(),
    Entry::of::<FewerSteps>(),
    Entry::of::<Plan>(),
];

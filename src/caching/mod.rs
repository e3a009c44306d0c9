//! Room `caching`: what to compute and what to reuse. A rule sees numbers and answers with a
//! [`StepPlan`] for each step; the engine carries the plan out with a [`DeltaStore`]. The
//! transformer knows no rule.
//!
//! ```text
//! Rule ─ register ─> catalogue ─> StrategyConfig ─ calibrate(Evidence) ─ build ─> Strategy
//! Strategy ── plan, decide ──> StepPlan ──> engine + DeltaStore
//!          <── observe ─────── numbers
//! ```
//! A rule is one file in `rules/` and one line in `rules/mod.rs`. The file says everything about
//! the rule: name, settings, needs, calibration, tuning, and how it decides ([`Rule`]).

mod any_rule;
pub mod block_list;
mod calibration;
pub mod catalogue;
mod completion;
mod config;
mod cost;
mod delta_store;
mod error;
mod evidence;
mod learnt;
mod parse;
mod plan;
mod plan_table;
mod planner;
mod prior;
mod rule;
mod rules;
mod schedule;
pub mod setting;
mod strategy;
mod warnings;

#[cfg(test)]
mod tests;

pub use any_rule::AnyRule;
pub use calibration::{Calibration, GramRecorder};
pub use catalogue::{Entry, register};
pub use config::StrategyConfig;
pub use cost::{ForwardCost, hit_rate};
pub use delta_store::DeltaStore;
pub use error::CacheError;
pub use evidence::{BlockFindings, CLIP_SPREAD, Evidence, Known, PublishedTea};
pub use learnt::{Learnt, MOST_RUNS, RunMeasurement, RunRecorder};
pub use parse::{name_and_keys, parse};
pub use plan::{Action, BranchPlan, Cell, Correction, Forecast, MOST_OUTPUTS, OutputKind, Segment, StepPlan};
pub use plan_table::{Goal, Outlook, PlanTable};
pub use planner::{Planned, PlannedStep, Planner};
pub use rule::{About, Advice, Group, Needs, Rule, Shape, Signal, SpeedupTarget, StrategyInputs, Tuning};
pub use rules::{
    BlockList, Carry, DbCache, DeltaDit, DiCache, DpCache, EasyCache, FewerSteps, GoalPlan, LeMiCa, Lists, MagCache,
    Off, Origin, Plan, ProfilingDit, PublishedFor, ScalingCache, Spectrum, TaylorSeer, TeaCache, Uniform, UnknownRule,
    calibrate_tea_cache, runs_of,
};
pub use schedule::{Intervals, Rounding, StepSchedule, indices};
pub use setting::{Setting, SettingInfo, Value};
pub use strategy::{Decision, Fixed, Observation, ProbeResult, StepContext, Strategy};

//! The expected effect of the chosen strategy.

use crate::app::data::form::Form;
use crate::caching::{CacheError, Evidence, StepPlan, StrategyInputs, hit_rate};
use crate::engine::{RequestInfo, limits};

/// Why the settings of a strategy cannot work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The rule has no calibration for the model.
    Uncalibrated,
    /// Another reason, in words.
    Settings(String),
}

impl From<CacheError> for Trouble {
    fn from(error: CacheError) -> Self {
        match error {
            CacheError::Uncalibrated(_) => Self::Uncalibrated,
            other => Self::Settings(other.to_string()),
        }
    }
}

/// The expected effect of a strategy, before it runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prediction {
    /// The plan of each step. Empty if the strategy decides while it runs, or if its settings
    /// cannot work.
    pub plans: Vec<StepPlan>,
    /// Why the settings cannot work.
    pub trouble: Option<Trouble>,
    /// Work without reuse divided by work with it.
    pub flop_speedup: Option<f64>,
    /// Share of block executions avoided.
    pub hit_rate: f64,
    /// Bytes of stored deltas.
    pub delta_memory: Option<u64>,
    /// An upper bound of the GPU memory of the whole job in bytes, with the stored deltas.
    pub gpu_memory: Option<u64>,
}

impl Prediction {
    /// Predicts for a form, and for its model as far as the model is known.
    pub fn of(form: &Form, facts: Option<&RequestInfo>, evidence: Option<&Evidence>, blocks: usize) -> Self {
        let steps = form.strategy().steps(form.clip.num_inference_steps).min(limits::MOST_STEPS);
        let inputs = StrategyInputs { steps, blocks, signal_changes: Vec::new() };
        let contradiction = evidence.and_then(|evidence| form.strategy().clone().calibrate(evidence).err());
        let built = contradiction.map_or_else(|| form.strategy().build(&inputs), Err);
        let plans = match built {
            Err(error) => return Self { trouble: Some(error.into()), ..Self::default() },
            // The plan follows from the time embedding, which only the running model knows.
            Ok(_) if form.strategy().signal().is_some() => Vec::new(),
            Ok(strategy) => strategy.preview().unwrap_or_default(),
        };
        let guided = form.clip.guided();
        // What a capture says of a request has the cost of a model, but not the sizes of its
        // tensors.
        let sizes = facts.filter(|facts| facts.delta_bytes > 0);
        let delta_memory = sizes.map(|facts| facts.strategy_memory(form.strategy(), steps, guided));
        let known = facts.filter(|_| !plans.is_empty());
        Self {
            trouble: None,
            flop_speedup: known.map(|facts| facts.cost.speedup_to(form.clip.num_inference_steps, &plans, guided)),
            hit_rate: hit_rate(&plans, blocks, guided),
            delta_memory,
            gpu_memory: sizes
                .filter(|facts| facts.gpu_memory > 0)
                .zip(delta_memory)
                .map(|(f, deltas)| f.gpu_memory + deltas),
            plans,
        }
    }
}

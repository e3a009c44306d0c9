//! The conditions and strategies of a comparison, which are stored in settings.json.

use serde_json::Value;

use crate::caching::StrategyConfig;
use crate::engine::{Engine, GenerateRequest, RequestInfo};

use super::{Part, StudyError};

/// The conditions and strategies of a comparison.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Settings {
    /// Name and version of the program.
    pub program: String,
    /// Name of the GPU. A merged comparison has the names of all GPUs.
    pub adapter: String,
    /// Driver of the GPU.
    pub driver: String,
    /// Fingerprint of the transformer's weights.
    pub model_id: String,
    /// Fingerprint of the VAE's weights.
    pub vae_id: String,
    /// Width and height in pixels.
    pub size: [usize; 2],
    /// Number of frames of a clip.
    pub num_frames: usize,
    /// Number of denoising steps.
    pub num_inference_steps: usize,
    /// Guidance scale.
    pub guidance_scale: f64,
    /// Name of the solver.
    pub scheduler: String,
    /// Shift of the sigmas.
    pub flow_shift: f64,
    /// The prompts from which strategies were made, by a profile or by trial runs. A fair
    /// comparison uses other prompts.
    pub known_prompts: Vec<String>,
    /// The part of a larger comparison. `None` for a whole comparison.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
    /// The strategies.
    pub strategies: Vec<Entry>,
}

/// One strategy to compare.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Entry {
    /// The name in tables.
    pub name: String,
    /// The speed-up to which the strategy was tuned.
    pub target: Option<f64>,
    /// The PSNR in decibels that the planner expects.
    pub expected: Option<f64>,
    /// The strategy.
    pub config: StrategyConfig,
}

/// A setting in which two comparisons differ.
pub(super) struct Difference {
    /// The name for messages.
    pub name: String,
    /// The value in the first and in the second comparison.
    pub values: [Value; 2],
}

impl Settings {
    /// The conditions of a request on an engine, without strategies.
    pub(super) fn new(request: &GenerateRequest, facts: &RequestInfo, engine: &Engine) -> Self {
        Self {
            program: concat!("ditscope ", env!("CARGO_PKG_VERSION")).into(),
            adapter: engine.adapter().into(),
            driver: engine.driver().into(),
            model_id: facts.model_id.clone(),
            vae_id: facts.vae_id.clone(),
            size: [request.clip.width, request.clip.height],
            num_frames: request.clip.num_frames,
            num_inference_steps: request.clip.num_inference_steps,
            guidance_scale: request.clip.guidance_scale,
            scheduler: facts.scheduler.clone(),
            flow_shift: facts.flow_shift,
            known_prompts: Vec::new(),
            part: None,
            strategies: Vec::new(),
        }
    }

    /// The largest number of bytes of deltas that a strategy keeps.
    pub fn delta_memory(&self, facts: &RequestInfo) -> u64 {
        let (steps, guided) = (self.num_inference_steps, self.guidance_scale > 1.0);
        self.strategies.iter().map(|entry| facts.strategy_memory(&entry.config, steps, guided)).max().unwrap_or(0)
    }

    /// Takes the strategies of an earlier comparison in order to resume it. `has_rows` says whether
    /// the earlier comparison has results. Without results it may continue on another GPU and as
    /// any part of a larger comparison.
    ///
    /// # Errors
    /// [`StudyError::Request`] if the conditions differ.
    pub fn go_on_with(&mut self, before: Self, has_rows: bool) -> Result<(), StudyError> {
        self.strategies.clone_from(&before.strategies);
        self.known_prompts.clone_from(&before.known_prompts);
        let mut comparable = before;
        if !has_rows {
            (comparable.adapter, comparable.driver) = (self.adapter.clone(), self.driver.clone());
            comparable.part.clone_from(&self.part);
        }
        match comparable.first_difference(self)? {
            None => Ok(()),
            Some(Difference { name, values: [before, now] }) => Err(StudyError::Request(format!(
                "the comparison in the output folder has another {name}: {before} there, {now} here"
            ))),
        }
    }

    /// The first setting in which two comparisons differ.
    pub(super) fn first_difference(&self, other: &Self) -> Result<Option<Difference>, StudyError> {
        let value = |settings| serde_json::to_value(settings).map_err(StudyError::Unwritable);
        let (own, other) = (value(self)?, value(other)?);
        let names = own.as_object().into_iter().chain(other.as_object()).flat_map(serde_json::Map::keys);
        let different = names.into_iter().find(|name| own.get(name) != other.get(name));
        Ok(different.map(|name| Difference {
            name: name.replace('_', " "),
            values: [&own, &other].map(|settings| settings.get(name).cloned().unwrap_or_default()),
        }))
    }
}

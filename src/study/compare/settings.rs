//! The conditions and strategies of a comparison, which are stored in settings.json.

use serde_json::Value;

use crate::caching::StrategyConfig;
use crate::engine::{Engine, GenerateRequest, RequestInfo};
use crate::sampling::ClipSettings;

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
    /// The clips. The shift is the one that the runs take. The seed is that of the request; the
    /// runs have seeds of their own.
    #[serde(flatten, deserialize_with = "clip_of")]
    pub clip: ClipSettings,
    /// Name of the solver.
    pub scheduler: String,
    /// The prompts from which strategies were made, by a profile or by trial runs. A fair
    /// comparison uses other prompts.
    pub known_prompts: Vec<String>,
    /// The part of a larger comparison. `None` for a whole comparison.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
    /// The options of the command that began the comparison, for resuming it. Empty where nobody
    /// typed a command.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
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

/// Settings that change no figure of a comparison. Files of earlier versions lack them.
const NOT_COMPARED: [&str; 3] = ["fps", "seed", "command"];

/// Reads the settings of the clips. Earlier versions stored the width and height as `size`.
fn clip_of<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<ClipSettings, D::Error> {
    #[derive(serde::Deserialize)]
    struct Stored {
        size: Option<[usize; 2]>,
        #[serde(flatten)]
        clip: ClipSettings,
    }
    let Stored { size, clip } = serde::Deserialize::deserialize(deserializer)?;
    let [width, height] = size.unwrap_or([clip.width, clip.height]);
    Ok(ClipSettings { width, height, ..clip })
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
            clip: ClipSettings { flow_shift: Some(facts.flow_shift), ..request.clip },
            scheduler: facts.scheduler.clone(),
            known_prompts: Vec::new(),
            part: None,
            command: Vec::new(),
            strategies: Vec::new(),
        }
    }

    /// The largest number of bytes of deltas that a strategy keeps.
    pub fn delta_memory(&self, facts: &RequestInfo) -> u64 {
        let (steps, guided) = (self.clip.num_inference_steps, self.clip.guided());
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
        self.command.clone_from(&before.command);
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

    /// The first setting in which two comparisons differ. [`NOT_COMPARED`] is left out.
    pub(super) fn first_difference(&self, other: &Self) -> Result<Option<Difference>, StudyError> {
        let value = |settings| serde_json::to_value(settings).map_err(StudyError::Unwritable);
        let (own, other) = (value(self)?, value(other)?);
        let names = own.as_object().into_iter().chain(other.as_object()).flat_map(serde_json::Map::keys);
        let compared = names.filter(|name| !NOT_COMPARED.contains(&name.as_str()));
        let different = compared.into_iter().find(|name| own.get(name) != other.get(name));
        Ok(different.map(|name| Difference {
            name: name.replace('_', " "),
            values: [&own, &other].map(|settings| settings.get(name).cloned().unwrap_or_default()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EARLIER: &str = r#"{"program": "ditscope 0.1.0", "adapter": "a GPU", "driver": "", "model_id": "m",
        "vae_id": "v", "size": [64, 48], "num_frames": 5, "num_inference_steps": 6, "guidance_scale": 5.0,
        "scheduler": "unipc", "flow_shift": 3.0, "known_prompts": [], "strategies": []}"#;

    #[test]
    fn settings_of_earlier_versions_open_and_can_be_resumed() {
        let before: Settings = serde_json::from_str(EARLIER).unwrap();
        let clip = ClipSettings { width: 64, height: 48, num_frames: 5, num_inference_steps: 6, ..before.clip };
        assert_eq!((before.clip, before.clip.flow_shift, before.clip.guidance_scale), (clip, Some(3.0), 5.0));

        let now = Settings { clip: ClipSettings { fps: 8, seed: 7, ..clip }, ..before.clone() };
        assert_eq!(serde_json::from_str::<Settings>(&serde_json::to_string(&now).unwrap()).unwrap(), now);
        now.clone().go_on_with(before.clone(), true).unwrap();
        let mut wider = Settings { clip: ClipSettings { width: 80, ..clip }, ..before.clone() };
        let error = wider.go_on_with(before, true).unwrap_err().to_string();
        assert!(error.ends_with("another width: 64 there, 80 here"), "{error}");
    }
}

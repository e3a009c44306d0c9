//! The opened model of a request, with which predictions and jobs begin.

use std::path::PathBuf;

use crate::caching::{ForwardCost, PublishedTea};
use crate::model::family::{Condition, Geometry, Memory, Model, SamplerDefaults};
use crate::sampling::Scheduler;

use super::{EngineError, GenerateRequest};

/// A model, and the sizes and settings of a request for it. The weights are mapped but not read.
pub(super) struct OpenModel {
    /// The model's folder.
    pub folder: PathBuf,
    pub model: Box<dyn Model>,
    pub sampler: SamplerDefaults,
    pub scheduler: Box<dyn Scheduler>,
    pub geometry: Geometry,
    /// What not to show if the user does not say.
    default_negative: Condition,
}

impl OpenModel {
    /// Opens the model that the request names.
    ///
    /// # Errors
    /// [`EngineError`] if the folder has no model, if a part of the model is damaged, or if the
    /// model cannot make the requested clip.
    pub fn of(request: &GenerateRequest) -> Result<Self, EngineError> {
        let found = crate::model::find_named(&request.model, &request.files)?;
        for (what, condition) in [("the prompt", &request.condition), ("the negative prompt", &request.negative)] {
            let checked = found.check_condition(condition);
            checked.map_err(|error| EngineError::Request(format!("{what}: {error}")))?;
        }
        let model = found.open()?;
        model.check_sampler(request.scheduler.is_some(), request.clip.flow_shift.is_some())?;
        let geometry = model.geometry(&request.clip)?;
        request.check(geometry.latent_shape)?;
        let sampler = model.sampler();
        let scheduler = request.scheduler(&sampler)?;
        let default_negative = found.default_negative();
        Ok(Self { folder: request.model.clone(), sampler, scheduler, geometry, model, default_negative })
    }

    /// What the user should know about the model and the request before the work begins, a line
    /// each.
    ///
    /// # Errors
    /// A condition that the model cannot take.
    pub fn warnings(&self, request: &GenerateRequest) -> Result<Vec<String>, EngineError> {
        let mut warnings = self.model.warnings();
        let guidance = request.clip.guidance_scale;
        let guided = request.clip.guided();
        if guidance < 1.0 {
            warnings.push(format!("guidance {guidance} counts as 1, which is none: there is nothing below"));
        }
        let said = request.negative != Condition::default() && request.negative != self.default_negative;
        if !guided && said {
            warnings.push("the negative prompt has no effect without guidance: set a guidance above 1".into());
        }
        let negative = guided.then_some(("the negative prompt", &request.negative));
        for (what, condition) in [("the prompt", &request.condition)].into_iter().chain(negative) {
            let warning = self.model.condition_warning(condition)?;
            warnings.extend(warning.map(|text| format!("{what} is too long: {text}")));
        }
        Ok(warnings)
    }

    /// Work of one forward pass for a condition with `condition_rows` rows.
    pub fn cost(&self, condition_rows: usize) -> ForwardCost {
        let costs = self.model.costs(&self.geometry, condition_rows);
        ForwardCost { outside: costs.outside, blocks: costs.blocks }
    }

    /// TeaCache's published polynomials for the model.
    pub fn published_tea(&self) -> PublishedTea {
        let [embedding, projection] = [false, true].map(|ret_steps| self.model.published_tea_coefficients(ret_steps));
        PublishedTea { embedding, projection }
    }

    /// Upper estimate of the GPU bytes of a job without its stored deltas.
    pub fn gpu_memory(&self, request: &GenerateRequest) -> u64 {
        // Measuring changes keeps a delta of every block and of all blocks together, in both
        // branches.
        let measured = if request.observe.changes { 2 * (self.model.blocks() + 1) } else { 0 };
        self.memory(request).peak(measured)
    }

    /// Whether the transformer can stay on the adapter for the next job while the decoder works. 30
    /// % of the memory is left to other programs. If the size of the memory is unknown, the
    /// transformer does not stay.
    pub fn has_room_beside_decoder(&self, request: &GenerateRequest, memory: Option<u64>) -> bool {
        let needed = self.memory(request);
        memory.is_some_and(|memory| needed.transformer + needed.decoding <= memory / 10 * 7)
    }

    /// GPU memory of a job by phase.
    pub fn memory(&self, request: &GenerateRequest) -> Memory {
        self.model.memory(&request.clip, &self.geometry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn demo() -> GenerateRequest {
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo-model");
        GenerateRequest::of_model(&model, "a cat").unwrap()
    }

    fn warnings(request: &GenerateRequest) -> Vec<String> {
        OpenModel::of(request).unwrap().warnings(request).unwrap()
    }

    #[test]
    fn what_has_no_effect_is_said() {
        let mut request = demo();
        assert_eq!(warnings(&request), Vec::<String>::new());
        request.negative = "blurry".into();
        assert_eq!(warnings(&request), Vec::<String>::new());
        request.clip.guidance_scale = 1.0;
        assert!(warnings(&request)[0].contains("the negative prompt has no effect"));
        request.clip.guidance_scale = 0.5;
        assert!(warnings(&request)[0].contains("guidance 0.5 counts as 1"));
    }

    #[test]
    fn long_prompts_are_cut_with_a_warning() {
        let long = (0..600).map(|i| format!("word{i}")).collect::<Vec<_>>().join(" ");
        let mut request = demo();
        request.condition = long.as_str().into();
        assert!(warnings(&request)[0].starts_with("the prompt is too long"), "{:?}", warnings(&request));
        request.condition = "a cat".into();
        request.negative = long.as_str().into();
        assert!(warnings(&request)[0].starts_with("the negative prompt is too long"));
        request.clip.guidance_scale = 1.0;
        assert!(!warnings(&request)[0].contains("too long"), "it is not encoded then");
    }
}

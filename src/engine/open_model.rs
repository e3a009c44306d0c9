//! The opened model of a request, with which predictions and jobs begin.

use std::path::PathBuf;

use crate::caching::{ForwardCost, PublishedTea};
use crate::model::family::{Geometry, Memory, Model, SamplerDefaults};
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
}

impl OpenModel {
    /// Opens the model that the request names.
    ///
    /// # Errors
    /// [`EngineError`] if the folder has no model, if a part of the model is damaged, or if the
    /// model cannot make the requested clip.
    pub fn of(request: &GenerateRequest) -> Result<Self, EngineError> {
        let found = crate::model::find(&request.model)?;
        let model = found.open()?;
        let geometry = model.geometry(&request.clip)?;
        request.check(geometry.latent_shape)?;
        let sampler = model.sampler();
        Ok(Self { folder: request.model.clone(), sampler, scheduler: request.scheduler(&sampler)?, geometry, model })
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

//! A request's model with its files open: where predictions and jobs begin.

use crate::model::wan::config::{SchedulerConfig, TransformerConfig, VaeConfig};
use crate::model::wan::files::ModelFiles;
use crate::ops::token_grid;
use crate::sampling::Scheduler;
use crate::weights::Checkpoint;

use super::{EngineError, GenerateRequest};

/// Configurations and mapped weights of a model, and what they make of a request. The weights are not read yet.
pub(super) struct OpenModel {
    pub files: ModelFiles,
    pub transformer: (TransformerConfig, Checkpoint),
    pub vae: (VaeConfig, Checkpoint),
    pub scheduler_config: SchedulerConfig,
    pub scheduler: Box<dyn Scheduler>,
    /// Extents `[C, F, H, W]` of the latents.
    pub shape: [usize; 4],
    /// Tokens along frames, height, width.
    pub token_grid: [usize; 3],
}

impl OpenModel {
    /// Opens the model that the request names.
    ///
    /// # Errors
    /// The folder holds no model, a part of it is damaged, or the model cannot make what is asked for.
    pub fn of(request: &GenerateRequest) -> Result<Self, EngineError> {
        let files = ModelFiles::find(&request.model)?;
        let (transformer, vae) = (files.transformer()?, files.vae()?);
        let shape = request.latent_shape(&transformer.0, &vae.0)?;
        let scheduler_config = files.scheduler()?;
        Ok(Self {
            scheduler: request.scheduler(&scheduler_config)?,
            token_grid: token_grid([shape[1], shape[2], shape[3]], transformer.0.patch_size)?,
            files,
            transformer,
            vae,
            scheduler_config,
            shape,
        })
    }
}

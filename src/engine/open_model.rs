//! A request's model with its files open: where predictions and jobs begin.

use crate::model::wan::config::{SchedulerConfig, TextEncoderConfig, TransformerConfig, VaeConfig};
use crate::model::wan::files::ModelFiles;
use crate::model::wan::load::fits_bf16;
use crate::model::wan::patches::Patches;
use crate::ops::LARGEST_PART;
use crate::sampling::Scheduler;
use crate::weights::{Checkpoint, DType, TensorView};

use super::{EngineError, GenerateRequest};

/// Configurations and mapped weights of a model, and what they make of a request. The weights are not read yet.
pub(super) struct OpenModel {
    pub files: ModelFiles,
    pub text_encoder: (TextEncoderConfig, Checkpoint),
    pub transformer: (TransformerConfig, Checkpoint),
    pub vae: (VaeConfig, Checkpoint),
    pub scheduler_config: SchedulerConfig,
    pub scheduler: Box<dyn Scheduler>,
    /// Extents `[C, F, H, W]` of the latents.
    pub shape: [usize; 4],
    /// How these become tokens.
    pub patches: Patches,
}

impl OpenModel {
    /// Opens the model that the request names.
    ///
    /// # Errors
    /// The folder holds no model, a part of it is damaged, or the model cannot make what is asked for.
    pub fn of(request: &GenerateRequest) -> Result<Self, EngineError> {
        let files = ModelFiles::find(&request.model)?;
        let (text_encoder, transformer, vae) = (files.text_encoder()?, files.transformer()?, files.vae()?);
        let shape = request.latent_shape(&transformer.0, &vae.0)?;
        let scheduler_config = files.scheduler()?;
        Ok(Self {
            scheduler: request.scheduler(&scheduler_config)?,
            patches: Patches::new([shape[1], shape[2], shape[3]], transformer.0.patch_size)?,
            files,
            text_encoder,
            transformer,
            vae,
            scheduler_config,
            shape,
        })
    }

    /// GPU bytes that a job takes at most, its stored deltas not counted: text encoder, transformer and decoder are there one after the
    /// other. An estimate from above.
    pub fn gpu_memory(&self, request: &GenerateRequest) -> u64 {
        let (config, weights) = &self.transformer;
        // Block by block.
        let text = weight_bytes(&self.text_encoder.1, |name| name.starts_with("encoder.block.0."));
        // Of each token: the residual stream, its norm, q, k and v by heads, the attended values and two free buffers that are kept;
        // positions; patches before and after.
        let rows = config.patch_elements(config.in_channels) + config.patch_elements(config.out_channels);
        let columns = 8 * config.dim() + config.attention_head_dim + rows;
        let tokens = self.patches.tokens();
        let bytes = |columns: usize| (tokens * columns * size_of::<f32>()) as u64;
        // q, k and v together, and the hidden layer, are made in parts.
        let parts =
            [3 * config.dim(), config.ffn_dim].map(|columns| bytes(columns).min(LARGEST_PART)).iter().sum::<u64>();
        // Buffers that are reused come in sizes up to an eighth larger than what is asked for.
        let activations = (bytes(columns) + parts) * 9 / 8;
        // What changes are measured against: a delta of every block and of all together, in both branches.
        let measured = if request.observe.changes { bytes(2 * (config.num_layers + 1) * config.dim()) } else { 0 };
        let denoising = weight_bytes(weights, |_| true) + activations + measured;
        text.max(denoising).max(self.decoding_memory(request))
    }

    fn decoding_memory(&self, request: &GenerateRequest) -> u64 {
        let decoder = |name: &str| name.starts_with("decoder.") || name.starts_with("post_quant");
        weight_bytes(&self.vae.1, decoder) + self.vae.0.decode_memory(request.clip.height, request.clip.width)
    }

    /// Whether the transformer can stay on an adapter of so much memory while the VAE decodes, for the next job. Others need memory too,
    /// and where nobody knows how much there is, none is risked.
    pub fn has_room_beside_decoder(&self, request: &GenerateRequest, memory: Option<u64>) -> bool {
        let needed = weight_bytes(&self.transformer.1, |_| true) + self.decoding_memory(request);
        memory.is_some_and(|memory| needed <= memory / 10 * 7)
    }
}

/// Bytes on the GPU of a checkpoint's tensors: 16-bit ones stay so, 8-bit ones are widened to 16, and so are those in f32 whose values
/// fit, as those at their beginning do; all others are f32.
fn weight_bytes(checkpoint: &Checkpoint, wanted: impl Fn(&str) -> bool) -> u64 {
    const BEGINNING: usize = 4096;
    let bytes = |tensor: &TensorView| match tensor.dtype {
        DType::F16 | DType::BF16 | DType::F8E4M3 | DType::F8E5M2 => 2,
        DType::F32 if fits_bf16(&tensor.bytes[..tensor.bytes.len().min(BEGINNING)]) => 2,
        _ => 4,
    };
    checkpoint.tensors().filter(|t| wanted(t.name)).map(|t| t.elements() as u64 * bytes(&t)).sum()
}

//! Wan2.1 as a [`Family`]: what the engine may ask of it.

use std::cell::OnceCell;
use std::path::Path;
use std::sync::Arc;

use crate::gpu::{Caps, Gpu, Stream};
use crate::model::family::{
    Condition, Costs, Decoder, Family, Features, Geometry, Latents, Memory, Model, ModelFolder, Run, RunSetup,
    SamplerDefaults, Summary, Transformer,
};
use crate::model::{ModelError, NamedFiles, subject_of};
use crate::ops::LARGEST_PART;
use crate::sampling::limits::{LARGEST_SIDE, MOST_FRAMES};
use crate::sampling::{ClipSettings, SchedulerChoice, SolverOrder};
use crate::weights::{Checkpoint, TensorView};

use super::config::{SchedulerClass, SchedulerConfig, TextEncoderConfig, TransformerConfig, VaeConfig};
use super::files::{Layout, ModelFiles, ModelSummary, few_steps, leftover, misfits, with_causes};
use super::load::{float_bytes, linear_bytes};
use super::names;
use super::patches::Patches;
use super::published::{NEGATIVE_PROMPT, tea_coefficients};
use super::run::WanRun;
use super::text_encoder::TextEncoder;
use super::tokenizer::{self, MAX_PROMPT_CHARS, MAX_SEQUENCE_LENGTH, Tokenizer};
use super::transformer::WanTransformer;
use super::vae::{Tiling, Vae};

type Result<T> = std::result::Result<T, ModelError>;

/// Wan2.1 text-to-video, 1.3B and 14B, and models of other sizes with its architecture.
#[derive(Debug)]
pub struct Wan;

impl Family for Wan {
    fn name(&self) -> &'static str {
        "Wan2.1"
    }

    fn find(&self, folder: &Path) -> Result<Box<dyn ModelFolder>> {
        Ok(Box::new(ModelFiles::find(folder)?))
    }

    fn find_named(&self, folder: &Path, named: &NamedFiles) -> Result<Box<dyn ModelFolder>> {
        Ok(Box::new(ModelFiles::find_named(folder, named)?))
    }
}

impl ModelFiles {
    /// What not to show if nothing is said. Wan's own code takes its long list then, diffusers
    /// takes nothing.
    pub fn default_negative_prompt(&self) -> &'static str {
        match self.layout {
            Layout::Original => NEGATIVE_PROMPT,
            Layout::Diffusers => "",
        }
    }

    /// Everything to know before a run that does not stop it.
    fn warnings_of(&self, parts: [Option<String>; 4]) -> Vec<String> {
        self.warnings.iter().cloned().chain(parts.into_iter().flatten()).collect()
    }
}

impl ModelFolder for ModelFiles {
    /// Text-to-video at 480p, from the model's `generate.py` and README.
    fn defaults(&self) -> ClipSettings {
        ClipSettings {
            width: 832,
            height: 480,
            num_frames: 81,
            num_inference_steps: 50,
            guidance_scale: 5.0,
            flow_shift: None,
            seed: 0,
            fps: 16,
        }
    }

    fn default_negative(&self) -> Condition {
        self.default_negative_prompt().into()
    }

    fn check_condition(&self, condition: &Condition) -> Result<()> {
        let chars = text_of(condition)?.chars().count();
        if chars > MAX_PROMPT_CHARS { Err(tokenizer::Error::PromptTooLong(chars).into()) } else { Ok(()) }
    }

    fn summary(&self) -> Summary {
        let summary = ModelSummary::new(self);
        // Names, numbers and lists of them: nothing that JSON cannot hold.
        let json = serde_json::to_string(&summary).unwrap_or_default();
        Summary { json, text: summary.to_string(), problems: summary.all_problems() }
    }

    fn open(&self) -> Result<Box<dyn Model>> {
        let text_encoder = Part::new(self.text_encoder()?);
        let transformer = Part::new(self.transformer()?);
        let vae = Part::new(self.vae()?);
        let misfits = misfits(Some(&transformer.config), Some(&text_encoder.config), Some(&vae.config));
        if let Some(problem) = misfits.into_iter().next() {
            return Err(ModelError::NotAModel {
                path: self.folder.clone(),
                problem: format!("its parts do not fit: {problem}"),
            });
        }
        let warnings = self.warnings_of([
            leftover(names::Part::Transformer, &transformer.config, &transformer.weights),
            leftover(names::Part::TextEncoder, &text_encoder.config, &text_encoder.weights),
            leftover(names::Part::Vae, &vae.config, &vae.weights),
            few_steps(&transformer.weights).map(String::from),
        ]);
        // The source says what is wrong with the file in detail.
        let scheduler = self.scheduler().map_err(|error| with_causes(&error));
        let files = self.clone();
        Ok(Box::new(WanModel {
            files,
            text_encoder,
            transformer,
            vae,
            scheduler,
            warnings,
            tokenizer: OnceCell::new(),
        }))
    }
}

fn text_of(condition: &Condition) -> Result<&str> {
    condition.text().ok_or_else(|| ModelError::Request(format!("{condition}: Wan2.1 takes a prompt")))
}

impl From<tokenizer::Error> for ModelError {
    fn from(error: tokenizer::Error) -> Self {
        match error {
            tokenizer::Error::PromptTooLong(_) => Self::Request(error.to_string()),
            other => Self::Tokenizer(Box::new(other)),
        }
    }
}

/// A part's configuration and its mapped weights.
struct Part<C> {
    config: C,
    weights: Checkpoint,
}

impl<C> Part<C> {
    fn new((config, weights): (C, Checkpoint)) -> Self {
        Self { config, weights }
    }
}

/// An opened model.
struct WanModel {
    files: ModelFiles,
    text_encoder: Part<TextEncoderConfig>,
    transformer: Part<TransformerConfig>,
    vae: Part<VaeConfig>,
    /// Why it cannot be used, where the file is not one of Wan's.
    scheduler: std::result::Result<SchedulerConfig, String>,
    warnings: Vec<String>,
    /// Read when the first prompt comes: the file has 17 MB.
    tokenizer: OnceCell<Tokenizer>,
}

impl Model for WanModel {
    fn id(&self) -> String {
        self.transformer.weights.id()
    }

    fn former_ids(&self) -> Vec<String> {
        // Earlier versions knew no LoRAs.
        if self.files.loras.is_empty() { vec![self.transformer.weights.sampled_id()] } else { Vec::new() }
    }

    fn decoder_id(&self) -> String {
        self.vae.weights.id()
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    fn condition_warning(&self, condition: &Condition) -> Result<Option<String>> {
        let length = self.tokenizer()?.length(text_of(condition)?)?;
        let cut = || {
            format!(
                "it has {length} tokens, of which the model reads the first {MAX_SEQUENCE_LENGTH}: the rest has no effect"
            )
        };
        Ok((length > MAX_SEQUENCE_LENGTH).then(cut))
    }

    fn check_sampler(&self, scheduler_given: bool, shift_given: bool) -> Result<()> {
        let open = |problem: String| Err(ModelError::NotAModel { path: self.files.folder.clone(), problem });
        match &self.scheduler {
            Err(why) if !(scheduler_given && shift_given) => {
                open(format!("{why}; to run the model all the same, say how with --scheduler and --flow-shift"))
            }
            Ok(config) if config.flow_shift.is_none() && !shift_given => {
                let what = "its scheduler_config.json leaves the shift open (flow_shift is null); say it with \
                            --flow-shift";
                open(what.into())
            }
            _ => Ok(()),
        }
    }

    fn encoder_key(&self) -> String {
        format!("{} {:?}", self.text_encoder.weights.stamp(), self.files.tokenizer)
    }

    fn transformer_key(&self) -> String {
        format!("{} {:?}", self.transformer.weights.stamp(), self.transformer.config)
    }

    fn blocks(&self) -> usize {
        self.transformer.config.num_layers
    }

    fn sampler(&self) -> SamplerDefaults {
        let config = self.scheduler.clone().unwrap_or_default();
        let flow_shift = config.flow_shift.or(SchedulerConfig::default().flow_shift).unwrap_or(1.0);
        let SchedulerConfig { class, solver_order, .. } = config;
        let (scheduler, solver_order) = match (class, solver_order) {
            (SchedulerClass::UniPc, 1) => (SchedulerChoice::UniPc, SolverOrder::One),
            (SchedulerClass::UniPc, _) => (SchedulerChoice::UniPc, SolverOrder::Two),
            (SchedulerClass::FlowMatchEuler, _) => (SchedulerChoice::Euler, SolverOrder::Two),
        };
        SamplerDefaults { scheduler, solver_order, flow_shift }
    }

    fn geometry(&self, clip: &ClipSettings) -> Result<Geometry> {
        let (transformer, vae) = (&self.transformer.config, &self.vae.config);
        let [patch_time, patch_height, patch_width] = transformer.patch_size;
        let (time, space) = (vae.temporal_compression(), vae.spatial_compression());
        check_side("width", clip.width, space * patch_width)?;
        check_side("height", clip.height, space * patch_height)?;
        let frames = latent_frames(clip.num_frames, time, patch_time)?;
        if transformer.in_channels != vae.z_dim || transformer.out_channels != vae.z_dim {
            return Err(ModelError::Request(format!(
                "the transformer takes {} and gives {} channels, the VAE has {}: these parts are not of one text-to-video model",
                transformer.in_channels, transformer.out_channels, vae.z_dim
            )));
        }
        let extents = [frames, clip.height / space, clip.width / space];
        let [frames, height, width] = extents;
        Ok(Geometry {
            latent_shape: [vae.z_dim, frames, height, width],
            token_grid: Patches::new(extents, transformer.patch_size)?.grid(),
        })
    }

    /// Products and attention, two FLOPs a multiply-add.
    fn costs(&self, geometry: &Geometry, condition_rows: usize) -> Costs {
        let config = &self.transformer.config;
        let (dim, tokens, text) = (config.dim() as f64, geometry.tokens() as f64, condition_rows as f64);
        // Self-attention's q, k, v, o; cross-attention's q, o; the feed-forward.
        let products = 6.0 * dim * dim + 2.0 * dim * config.ffn_dim as f64;
        let block = 2.0 * tokens * (products + 2.0 * dim * (tokens + text));
        let patch = config.patch_elements(config.in_channels) + config.patch_elements(config.out_channels);
        Costs { outside: 2.0 * tokens * dim * patch as f64, blocks: vec![block; config.num_layers] }
    }

    fn memory(&self, clip: &ClipSettings, geometry: &Geometry) -> Memory {
        let config = &self.transformer.config;
        // Of each token: the residual stream, its norm, q, k and v by heads, the attended values
        // and two free buffers that are kept; positions; patches before and after.
        let rows = config.patch_elements(config.in_channels) + config.patch_elements(config.out_channels);
        let columns = 8 * config.dim() + config.attention_head_dim + rows;
        let bytes = |columns: usize| (geometry.tokens() * columns * size_of::<f32>()) as u64;
        // q, k and v together, and the hidden layer, are made in parts.
        let parts =
            [3 * config.dim(), config.ffn_dim].map(|columns| bytes(columns).min(LARGEST_PART)).iter().sum::<u64>();
        let decoder = |name: &str| name.starts_with("decoder.") || name.starts_with("post_quant");
        Memory {
            // Block by block.
            encoding: weight_bytes(&self.text_encoder.weights, linear_bytes, |name| {
                name.starts_with("encoder.block.0.")
            }),
            transformer: weight_bytes(&self.transformer.weights, linear_bytes, |_| true),
            // Buffers that are reused come in sizes up to an eighth larger than asked for.
            activations: (bytes(columns) + parts) * 9 / 8,
            delta: bytes(config.dim()),
            decoding: weight_bytes(&self.vae.weights, float_bytes, decoder)
                + self.vae.config.decode_memory(clip.height, clip.width),
        }
    }

    /// The words, the end of the text, and one row that stands for all padding.
    fn estimated_rows(&self, condition: &Condition) -> usize {
        condition.text().map_or(0, |text| text.split_whitespace().count()) + 2
    }

    fn published_tea_coefficients(&self, ret_steps: bool) -> Option<[f64; 5]> {
        let [embedding, projection] = tea_coefficients(&self.transformer.config);
        if ret_steps { projection } else { embedding }
    }

    fn encode(&self, cx: &mut Stream, conditions: &[&Condition]) -> Result<Vec<Features>> {
        let ids = |condition: &&Condition| self.ids(text_of(condition)?);
        let prompts: Vec<Vec<u32>> = conditions.iter().map(ids).collect::<Result<_>>()?;
        let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        let encoder = TextEncoder::new(&self.text_encoder.config, &self.text_encoder.weights);
        let width = self.transformer.config.text_dim;
        // The valid rows, and one that stands for all padding.
        let features = |values: Vec<f32>| Features { rows: values.len() / width + 1, values: values.into() };
        let encoded = encoder.encode(cx, &prompts);
        self.text_encoder.weights.check()?;
        Ok(encoded?.into_iter().map(features).collect())
    }

    fn subject_rows(&self, condition: &Condition) -> Result<Vec<u32>> {
        let prompt = text_of(condition)?;
        let Some(subject) = subject_of(prompt) else { return Ok(Vec::new()) };
        // Words are tokenised one by one. So a prefix has the prompt's first tokens, and then the
        // end token.
        let rows = |end: usize| Ok::<_, ModelError>(self.ids(&prompt[..end])?.len() as u32 - 1);
        Ok((rows(subject.start)?..rows(subject.end)?).collect())
    }

    fn load_transformer(&self, gpu: &Gpu) -> Result<Arc<dyn Transformer>> {
        let loaded = WanTransformer::load(gpu, &self.transformer.config, &self.transformer.weights);
        self.transformer.weights.check()?;
        Ok(Arc::new(loaded?))
    }

    fn load_decoder(&self, gpu: &Gpu) -> Result<Box<dyn Decoder>> {
        let loaded = Vae::load_decoder(gpu, &self.vae.weights, &self.vae.config);
        self.vae.weights.check()?;
        Ok(Box::new(loaded?))
    }
}

impl WanModel {
    fn tokenizer(&self) -> Result<&Tokenizer> {
        if let Some(tokenizer) = self.tokenizer.get() {
            return Ok(tokenizer);
        }
        let loaded = self.files.tokenizer(&self.text_encoder.config)?;
        Ok(self.tokenizer.get_or_init(|| loaded))
    }

    fn ids(&self, prompt: &str) -> Result<Vec<u32>> {
        Ok(self.tokenizer()?.encode(prompt, MAX_SEQUENCE_LENGTH)?)
    }
}

impl Transformer for WanTransformer {
    fn begin_run<'a>(&'a self, cx: &mut Stream, setup: &RunSetup) -> Result<Box<dyn Run + 'a>> {
        Ok(Box::new(WanRun::new(cx, self, setup)?))
    }
}

impl Decoder for Vae {
    fn fits(&self, caps: &Caps, memory: u64, clip: &ClipSettings) -> bool {
        self.needed_tiling(caps, memory, clip.height, clip.width).is_none()
    }

    fn decode(&self, cx: &mut Stream, latents: &Latents, tiled: bool) -> Result<Vec<Vec<f32>>> {
        let mut frames = Vec::new();
        Self::decode(self, cx, latents, tiled.then(Tiling::default), &mut |chunk| {
            let frame = chunk.shape[1..].iter().product();
            frames.extend(chunk.values.chunks_exact(frame).map(<[f32]>::to_vec));
            Ok(())
        })?;
        Ok(frames)
    }
}

/// Latent frames of a clip.
fn latent_frames(num_frames: usize, time: usize, patch: usize) -> Result<usize> {
    if num_frames > MOST_FRAMES {
        return Err(ModelError::Request(format!("{num_frames} frames cannot be made: at most {MOST_FRAMES}")));
    }
    match num_frames.checked_sub(1) {
        Some(rest) if rest.is_multiple_of(time) && (rest / time + 1).is_multiple_of(patch) => Ok(rest / time + 1),
        _ => {
            let nearest = num_frames.saturating_sub(1) / time * time + 1;
            let message = format!("{num_frames} frames cannot be made: use {time} n + 1, for example {nearest}");
            Err(ModelError::Request(message))
        }
    }
}

fn check_side(what: &str, value: usize, unit: usize) -> Result<()> {
    if value > 0 && value.is_multiple_of(unit) && value <= LARGEST_SIDE {
        return Ok(());
    }
    let below = (value / unit * unit).clamp(unit, LARGEST_SIDE);
    Err(ModelError::Request(format!(
        "{what} {value} cannot be made: use a multiple of {unit} up to {LARGEST_SIDE}, for example {below}"
    )))
}

/// Bytes on the GPU of a checkpoint's tensors.
fn weight_bytes(checkpoint: &Checkpoint, bytes: fn(&TensorView) -> u64, wanted: impl Fn(&str) -> bool) -> u64 {
    checkpoint.tensors().filter(|tensor| wanted(tensor.name)).map(|tensor| bytes(&tensor)).sum()
}

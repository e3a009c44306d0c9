//! Where the parts of a model lie: the diffusers folder layout, the original one, and single files
//! side by side.
//!
//! ```text
//! diffusers                          original (Wan-AI/Wan2.1)
//! model_index.json                   config.json (the transformer's)
//! transformer/   config, weights     diffusion_pytorch_model*.safetensors
//! text_encoder/  config, weights     models_t5_umt5-xxl-enc-bf16.pth
//! tokenizer/tokenizer.json           google/umt5-xxl/tokenizer.json
//! vae/           config, weights     Wan2.1_VAE.pth
//! scheduler/scheduler_config.json
//!
//! repackaged (ComfyUI), in one folder, or in diffusion_models/, text_encoders/ and vae/
//! wan2.1_t2v_1.3B_fp16.safetensors
//! umt5_xxl_fp16.safetensors
//! wan_2.1_vae.safetensors
//! ```
//! Outside the diffusers layout a file is known by its tensors, not by its name.

mod summary;

pub use summary::{ModelSummary, PartSummary, TensorReport};

use super::config::{SchedulerConfig, TextEncoderConfig, TransformerConfig, VaeConfig, class_name, parse, read_text};
use super::names::{Part, diffusers_name};
use crate::model::ModelError;
use crate::weights::{Checkpoint, WeightsError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// How a model's files are arranged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// A folder for each part.
    Diffusers,
    /// The original repository's files, or repackaged single files side by side.
    Original,
}

/// One part's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartFiles {
    /// What [`Checkpoint::open`] takes: a file or a folder.
    pub weights: PathBuf,
    /// The configuration, if there is one.
    pub config: Option<PathBuf>,
}

/// The files of a model. Parts that were not found are absent: [`ModelFiles::missing`] names them.
#[derive(Clone, Debug)]
pub struct ModelFiles {
    /// The folder that was searched.
    pub folder: PathBuf,
    /// How its files are arranged.
    pub layout: Layout,
    /// The parts that were found.
    pub parts: BTreeMap<Part, PartFiles>,
    /// The tokenizer's `tokenizer.json`.
    pub tokenizer: Option<PathBuf>,
    /// The `scheduler_config.json`; without one, Wan2.1's own defaults hold.
    pub scheduler: Option<PathBuf>,
}

#[derive(Deserialize)]
struct ModelIndex {
    boundary_ratio: Option<f64>,
}

const ONE_TRANSFORMER: &str =
    "this is a Wan2.2 model of two transformers; only Wan2.1 text-to-video models are supported";

impl ModelFiles {
    /// Finds the parts of the model in `folder`. Parts may be missing: `inspect` shows them,
    /// loading them is an error.
    ///
    /// # Errors
    /// [`ModelError::Io`] if there is no such folder, [`ModelError::NotAModel`] if it is another
    /// kind of model or has no part at all, [`ModelError::Ambiguous`] if a part is there twice, and
    /// what opening a checkpoint may give.
    pub fn find(folder: impl AsRef<Path>) -> Result<Self, ModelError> {
        let folder = folder.as_ref();
        let metadata = std::fs::metadata(folder).map_err(|source| ModelError::Io { path: folder.into(), source })?;
        if !metadata.is_dir() {
            return Err(not_a_model(folder, "expected a model's folder, found a file"));
        }
        let index = folder.join("model_index.json");
        let parts_there = Part::ALL.into_iter().filter(|part| folder.join(part.folder()).join("config.json").is_file());
        let (layout, parts) = if index.is_file() || parts_there.count() > 0 {
            check_index(&index)?;
            (Layout::Diffusers, diffusers_parts(folder))
        } else {
            (Layout::Original, original_parts(folder)?)
        };
        if ["transformer_2", "high_noise_model", "low_noise_model"].iter().any(|name| folder.join(name).is_dir()) {
            return Err(not_a_model(folder, ONE_TRANSFORMER));
        }
        if parts.is_empty() {
            let problem = "no model in it: expected the diffusers layout (model_index.json, transformer/, ...) or the \
                           original one (diffusion_pytorch_model.safetensors, ...)";
            return Err(not_a_model(folder, problem));
        }
        Ok(Self {
            folder: folder.into(),
            layout,
            parts,
            tokenizer: first_file(folder, &TOKENIZERS),
            scheduler: first_file(folder, &["scheduler/scheduler_config.json"]),
        })
    }

    /// What is missing, each with the names under which it was looked for. Empty for a complete
    /// model.
    pub fn missing(&self) -> Vec<String> {
        let absent = Part::ALL.into_iter().filter(|part| !self.parts.contains_key(part));
        let mut missing: Vec<_> = absent.map(|part| self.wanted(part)).collect();
        if self.tokenizer.is_none() {
            missing.push(format!("tokenizer (looked for {})", TOKENIZERS.join(", ")));
        }
        missing
    }

    fn wanted(&self, part: Part) -> String {
        let file = match (self.layout, part) {
            (Layout::Diffusers, part) => return format!("{part} (looked for weights in {part}/)"),
            (Layout::Original, Part::Transformer) => "diffusion_pytorch_model.safetensors",
            (Layout::Original, Part::TextEncoder) => "models_t5_umt5-xxl-enc-bf16.pth",
            (Layout::Original, Part::Vae) => "Wan2.1_VAE.pth",
        };
        format!("{part} (looked for {file}, or any file with its tensors)")
    }

    /// The tokenizer's file.
    ///
    /// # Errors
    /// [`ModelError::MissingPart`].
    pub fn tokenizer(&self) -> Result<&Path, ModelError> {
        let what = || format!("tokenizer (looked for {})", TOKENIZERS.join(", "));
        self.tokenizer.as_deref().ok_or_else(|| self.missing_part(what()))
    }

    /// How the model wants to be sampled; Wan2.1's own defaults if the folder does not say.
    ///
    /// # Errors
    /// Those of reading and of [`SchedulerConfig::from_json`].
    pub fn scheduler(&self) -> Result<SchedulerConfig, ModelError> {
        match &self.scheduler {
            Some(path) => SchedulerConfig::from_json(path, &read_text(path)?),
            None => Ok(SchedulerConfig::default()),
        }
    }

    /// The transformer's configuration and its tensors under diffusers' names, all there and of the
    /// right shapes.
    ///
    /// # Errors
    /// [`ModelError::MissingPart`], [`ModelError::Tensors`], and those of reading either.
    pub fn transformer(&self) -> Result<(TransformerConfig, Checkpoint), ModelError> {
        let (config, checkpoint) = self.open_transformer()?;
        TensorReport::new(&config.expected_tensors(), &checkpoint).require_complete(&checkpoint)?;
        Ok((config, checkpoint))
    }

    /// The text encoder's configuration and tensors, as [`ModelFiles::transformer`].
    ///
    /// # Errors
    /// As [`ModelFiles::transformer`].
    pub fn text_encoder(&self) -> Result<(TextEncoderConfig, Checkpoint), ModelError> {
        let (config, checkpoint) = self.open_text_encoder()?;
        TensorReport::new(&config.expected_tensors(), &checkpoint).require_complete(&checkpoint)?;
        Ok((config, checkpoint))
    }

    /// The VAE's configuration and tensors, as [`ModelFiles::transformer`].
    ///
    /// # Errors
    /// As [`ModelFiles::transformer`].
    pub fn vae(&self) -> Result<(VaeConfig, Checkpoint), ModelError> {
        let (config, checkpoint) = self.open_vae()?;
        TensorReport::new(&config.expected_tensors(), &checkpoint).require_complete(&checkpoint)?;
        Ok((config, checkpoint))
    }

    fn open_transformer(&self) -> Result<(TransformerConfig, Checkpoint), ModelError> {
        self.open(Part::Transformer, TransformerConfig::from_json, TransformerConfig::infer)
    }

    fn open_text_encoder(&self) -> Result<(TextEncoderConfig, Checkpoint), ModelError> {
        self.open(Part::TextEncoder, TextEncoderConfig::from_json, TextEncoderConfig::infer)
    }

    fn open_vae(&self) -> Result<(VaeConfig, Checkpoint), ModelError> {
        self.open(Part::Vae, VaeConfig::from_json, VaeConfig::infer)
    }

    fn open<C>(
        &self,
        part: Part,
        from_json: impl Fn(&Path, &str) -> Result<C, ModelError>,
        infer: impl Fn(&Checkpoint) -> Result<C, ModelError>,
    ) -> Result<(C, Checkpoint), ModelError> {
        let files = self.parts.get(&part).ok_or_else(|| self.missing_part(self.wanted(part)))?;
        let checkpoint = Checkpoint::open(&files.weights)?.renamed(|name| diffusers_name(part, name))?;
        let config = match &files.config {
            Some(path) => from_json(path, &read_text(path)?)?,
            None => infer(&checkpoint)?,
        };
        Ok((config, checkpoint))
    }

    fn missing_part(&self, what: String) -> ModelError {
        ModelError::MissingPart { folder: self.folder.clone(), what }
    }
}

/// Where a `tokenizer.json` may lie.
const TOKENIZERS: [&str; 3] = ["tokenizer/tokenizer.json", "google/umt5-xxl/tokenizer.json", "tokenizer.json"];
/// Where single files may lie: ComfyUI's folders, and those of its repackaged downloads.
const SINGLE_FILE_FOLDERS: [&str; 8] = [
    "",
    "diffusion_models",
    "text_encoders",
    "vae",
    "split_files/diffusion_models",
    "split_files/text_encoders",
    "split_files/vae",
    "unet",
];

fn not_a_model(path: &Path, problem: &str) -> ModelError {
    ModelError::NotAModel { path: path.into(), problem: problem.into() }
}

fn first_file(folder: &Path, names: &[&str]) -> Option<PathBuf> {
    names.iter().map(|name| folder.join(name)).find(|path| path.is_file())
}

/// Refuses pipelines that are not text to video with one transformer. A folder without an index is
/// fine.
fn check_index(path: &Path) -> Result<(), ModelError> {
    if !path.is_file() {
        return Ok(());
    }
    let json = read_text(path)?;
    let class = class_name(path, &json)?;
    if class != "WanPipeline" {
        return Err(not_a_model(path, &format!("_class_name is {class:?}; expected WanPipeline (text to video)")));
    }
    match parse::<ModelIndex>(path, &json)?.boundary_ratio {
        None => Ok(()),
        Some(_) => Err(not_a_model(path, ONE_TRANSFORMER)),
    }
}

/// The parts of the diffusers layout: what is damaged shows when it is opened.
fn diffusers_parts(folder: &Path) -> BTreeMap<Part, PartFiles> {
    let files = |part: Part| {
        let weights = folder.join(part.folder());
        let config = first_file(&weights, &["config.json"]);
        let has_weights = Checkpoint::candidates(&weights).is_ok_and(|found| !found.is_empty());
        has_weights.then_some((part, PartFiles { weights, config }))
    };
    Part::ALL.into_iter().filter_map(files).collect()
}

/// The parts among the checkpoints of the original layout, known by their tensors.
fn original_parts(folder: &Path) -> Result<BTreeMap<Part, PartFiles>, ModelError> {
    let mut parts: BTreeMap<Part, PartFiles> = BTreeMap::new();
    for weights in SINGLE_FILE_FOLDERS.iter().map(|name| folder.join(name)).filter(|path| path.is_dir()) {
        for weights in Checkpoint::candidates(&weights)? {
            let checkpoint = match Checkpoint::open(&weights) {
                // A pickle of something else lies beside the model: not the model's, and not run.
                Err(WeightsError::Refused { .. }) => continue,
                opened => opened?,
            };
            for part in Part::among(checkpoint.tensors().map(|tensor| tensor.name)) {
                // The original repository's only config.json is the transformer's.
                let config = (part == Part::Transformer).then(|| first_file(folder, &["config.json"])).flatten();
                let files = PartFiles { weights: weights.clone(), config };
                if let Some(first) = parts.insert(part, files) {
                    return Err(ModelError::Ambiguous {
                        part: part.to_string(),
                        first: first.weights,
                        second: weights,
                    });
                }
            }
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests;

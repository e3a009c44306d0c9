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
//! A file is known by its tensors, not by its name (`files/recognise.rs`). Files that are damaged
//! or belong to other models are passed over, and `inspect` says why.

mod recognise;
mod report;
mod scan;
mod summary;

pub(super) use recognise::few_steps;
pub use report::TensorReport;
pub(super) use scan::with_causes;
pub use scan::{Found, Verdict};
pub(super) use summary::misfits;
pub use summary::{ModelSummary, PartSummary};

use super::config::{SchedulerConfig, TextEncoderConfig, TransformerConfig, VaeConfig, class_name, parse, read_text};
use super::lora;
use super::names::{Part, TOKENIZER_TENSOR, diffusers_name};
use super::tokenizer::{Tokenizer, TokenizerSource};
use crate::model::{Lora, ModelError, NamedFiles};
use crate::weights::{Bundle, Checkpoint};
use scan::{judge, part_of_folder, resolve, scan, tokenizer_head};
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
    /// The files that hold the tensors.
    pub weights: Bundle,
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
    /// Every checkpoint in the folder, and what it is.
    pub found: Vec<Found>,
    /// The tokenizer.
    pub tokenizer: Option<TokenizerSource>,
    /// Files with the name of a tokenizer that are none, and why.
    pub no_tokenizers: Vec<(PathBuf, String)>,
    /// The `scheduler_config.json`; without one, Wan2.1's own defaults hold.
    pub scheduler: Option<PathBuf>,
    /// What the user should know before a run.
    pub warnings: Vec<String>,
    /// LoRAs that are merged into the transformer's weights.
    pub loras: Vec<Lora>,
}

#[derive(Deserialize)]
struct ModelIndex {
    boundary_ratio: Option<f64>,
    scheduler: Option<serde_json::Value>,
}

const ONE_TRANSFORMER: &str =
    "this is a Wan2.2 model of two transformers; only Wan2.1 text-to-video models are supported";

impl ModelFiles {
    /// Finds the parts of the model in `folder`. Parts may be missing: `inspect` shows them,
    /// loading them is an error.
    ///
    /// # Errors
    /// [`ModelError::Io`] if there is no such folder, [`ModelError::NotAModel`] if it is another
    /// kind of model or has no part at all.
    pub fn find(folder: impl AsRef<Path>) -> Result<Self, ModelError> {
        Self::find_named(folder.as_ref(), &NamedFiles::default())
    }

    /// As [`ModelFiles::find`], but files that are named are taken whatever else the folder holds.
    /// If `folder` is a file, the file is the transformer and its folder is searched for the rest.
    ///
    /// # Errors
    /// As [`ModelFiles::find`]; [`ModelError::NotAModel`] if a named file does not hold its part.
    pub fn find_named(folder: &Path, named: &NamedFiles) -> Result<Self, ModelError> {
        let metadata = std::fs::metadata(folder).map_err(|source| ModelError::Io { path: folder.into(), source })?;
        if !metadata.is_dir() {
            let named = NamedFiles { transformer: Some(folder.into()), ..named.clone() };
            let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
            return Self::find_named(parent.unwrap_or(Path::new(".")), &named);
        }
        let folder = &resolve(folder)?;
        let mut files = Self {
            folder: folder.clone(),
            layout: Layout::Original,
            parts: BTreeMap::new(),
            found: Vec::new(),
            tokenizer: None,
            no_tokenizers: Vec::new(),
            scheduler: first_file(folder, &["scheduler/scheduler_config.json"]),
            warnings: Vec::new(),
            loras: named.loras.clone(),
        };
        let given = [
            (Part::Transformer, &named.transformer),
            (Part::TextEncoder, &named.text_encoder),
            (Part::Vae, &named.vae),
        ];
        let all_given = given.iter().all(|(_, path)| path.is_some());
        if !all_given {
            files.found = scan(folder)?;
            files.read_index(named.transformer.is_none())?;
        }
        for (part, path) in given {
            match path {
                Some(path) => files.take_named(part, path)?,
                None => files.choose(part),
            }
        }
        if files.parts.is_empty() {
            return Err(not_a_model(folder, &files.why_no_model()));
        }
        files.find_tokenizer(named.tokenizer.as_deref())?;
        Ok(files)
    }

    /// Reads `model_index.json` and finds out which layout the folder has.
    fn read_index(&mut self, own_transformer: bool) -> Result<(), ModelError> {
        let index = self.folder.join("model_index.json");
        let configured = |part: &Part| {
            let mut own = self.found.iter().filter(|found| part_of_folder(&found.path) == Some(*part));
            own.any(|found| config_of(*part, &found.path).is_some())
        };
        if index.is_file() || Part::ALL.iter().any(configured) {
            self.layout = Layout::Diffusers;
        }
        let two = ["transformer_2", "high_noise_model", "low_noise_model"];
        if own_transformer && two.iter().any(|name| self.folder.join(name).is_dir()) {
            return Err(not_a_model(&self.folder, ONE_TRANSFORMER));
        }
        if !index.is_file() {
            return Ok(());
        }
        let json = read_text(&index)?;
        let class = class_name(&index, &json)?;
        if class == "WanDMDPipeline" {
            let few = "this model was distilled for few steps with a sampler of its own; other samplers and numbers of \
                       steps give other clips than it was trained for";
            self.warnings.push(few.into());
        } else if class != "WanPipeline" {
            let problem = format!("_class_name is {class:?}; expected WanPipeline (text to video)");
            return Err(not_a_model(&index, &problem));
        }
        let read = parse::<ModelIndex>(&index, &json)?;
        if read.boundary_ratio.is_some() && own_transformer {
            return Err(not_a_model(&index, ONE_TRANSFORMER));
        }
        if read.scheduler.is_some() && self.scheduler.is_none() {
            let default = SchedulerConfig::default();
            self.warnings.push(format!(
                "scheduler/scheduler_config.json is missing, which model_index.json names: {} is used, as in Wan's own code",
                default.in_words()
            ));
        }
        Ok(())
    }

    /// Takes a file that the user named.
    fn take_named(&mut self, part: Part, path: &Path) -> Result<(), ModelError> {
        let found = judge(Bundle::at(path)?);
        match &found.verdict {
            Verdict::Holds(parts) if parts.contains(&part) => {}
            Verdict::Doubtful(of, why) if *of == part => self.warnings.push(format!("{}: {why}", path.display())),
            Verdict::Holds(parts) => {
                let held: Vec<_> = parts.iter().map(Part::to_string).collect();
                return Err(not_a_model(path, &format!("it holds the {}, not the {part}", held.join(", "))));
            }
            Verdict::Doubtful(of, _) => {
                return Err(not_a_model(path, &format!("it holds the {of}, not the {part}")));
            }
            Verdict::Unfit(_, why) | Verdict::PassedOver(why) => {
                return Err(not_a_model(path, &format!("it does not hold a {part} that can be used: {why}")));
            }
        }
        self.take(part, &found);
        self.found.retain(|other| other.path != found.path);
        self.found.push(found);
        Ok(())
    }

    fn take(&mut self, part: Part, found: &Found) {
        if let Some(bundle) = &found.bundle {
            let config = config_of(part, &bundle.path);
            self.parts.insert(part, PartFiles { weights: bundle.clone(), config });
        }
    }

    /// Takes the part if exactly one file holds it.
    fn choose(&mut self, part: Part) {
        if let [one] = self.candidates(part)[..] {
            let one = one.clone();
            self.take(part, &one);
        }
    }

    /// The files that hold the part; in diffusers' layout those of the part's own folder, if there
    /// are any.
    fn candidates(&self, part: Part) -> Vec<&Found> {
        let all: Vec<_> = self.found.iter().filter(|found| found.holds(part)).collect();
        let own: Vec<_> = all.iter().copied().filter(|found| part_of_folder(&found.path) == Some(part)).collect();
        if own.is_empty() || self.layout == Layout::Original { all } else { own }
    }

    fn why_no_model(&self) -> String {
        const SHOWN: usize = 4;
        let missing =
            Part::ALL.into_iter().filter(|part| self.candidates(*part).len() > 1).map(|part| self.wanted(part));
        let passed = self.found.iter().filter_map(|found| match &found.verdict {
            Verdict::PassedOver(why) | Verdict::Unfit(_, why) | Verdict::Doubtful(_, why) => {
                Some(format!("{} ({why})", self.short(&found.path)))
            }
            Verdict::Holds(_) => None,
        });
        let reasons: Vec<_> = missing.chain(passed).collect();
        let mut text = "no model in it: expected the diffusers layout (model_index.json, transformer/, ...), the original \
                        one (diffusion_pytorch_model.safetensors, ...), or single files of Wan2.1 (.safetensors, .gguf, .pth)"
            .to_owned();
        if !reasons.is_empty() {
            let more =
                if reasons.len() > SHOWN { format!(", and {} more", reasons.len() - SHOWN) } else { String::new() };
            let first: Vec<_> = reasons.iter().take(SHOWN).map(String::as_str).collect();
            text.push_str(&format!("; passed over: {}{more}", first.join(", ")));
        }
        text
    }

    /// What is missing, each with the names under which it was looked for, and why the files that
    /// may be meant are not taken. Empty for a complete model.
    pub fn missing(&self) -> Vec<String> {
        let absent = Part::ALL.into_iter().filter(|part| !self.parts.contains_key(part));
        let mut missing: Vec<_> = absent.map(|part| self.wanted(part)).collect();
        if self.tokenizer.is_none() {
            missing.push(self.wanted_tokenizer());
        }
        missing
    }

    fn wanted(&self, part: Part) -> String {
        let candidates = self.candidates(part);
        if candidates.len() > 1 {
            let names: Vec<_> = candidates.iter().map(|found| self.short(&found.path)).collect();
            let option = part.folder().replace('_', "-");
            let (last, first) =
                names.split_last().map_or((String::new(), &[][..]), |(last, first)| (last.clone(), first));
            let count = if names.len() == 2 { "both" } else { "all" };
            return format!(
                "{part} ({} and {last} {count} hold it; name the one to use with --{option} FILE)",
                first.join(", ")
            );
        }
        let looked_for = match (self.layout, part) {
            (Layout::Diffusers, part) => format!("weights in {part}/"),
            (Layout::Original, Part::Transformer) => {
                "diffusion_pytorch_model.safetensors, or any file with its tensors".into()
            }
            (Layout::Original, Part::TextEncoder) => {
                "models_t5_umt5-xxl-enc-bf16.pth, or any file with its tensors".into()
            }
            (Layout::Original, Part::Vae) => "Wan2.1_VAE.pth, or any file with its tensors".into(),
        };
        let doubts = self.found.iter().filter_map(|found| {
            let why = found.why_not(part)?;
            let option = part.folder().replace('_', "-");
            let still = match &found.verdict {
                Verdict::Doubtful(_, _) => format!("; --{option} FILE takes it all the same"),
                _ => String::new(),
            };
            Some(format!("; {}: {why}{still}", self.short(&found.path)))
        });
        format!("{part} (looked for {looked_for}{})", doubts.collect::<String>())
    }

    fn wanted_tokenizer(&self) -> String {
        let passed = self.no_tokenizers.iter().map(|(path, why)| format!("; {}: {why}", self.short(path)));
        format!(
            "tokenizer (looked for {}, and in the text encoder's file{})",
            TOKENIZERS.join(", "),
            passed.collect::<String>()
        )
    }

    /// The path within the model's folder.
    fn short(&self, path: &Path) -> String {
        path.strip_prefix(&self.folder).unwrap_or(path).display().to_string()
    }

    /// Finds the tokenizer: the file that the user named, `tokenizer.json`, a SentencePiece model,
    /// or what the text encoder's file carries.
    fn find_tokenizer(&mut self, named: Option<&Path>) -> Result<(), ModelError> {
        if let Some(path) = named {
            std::fs::metadata(path).map_err(|source| ModelError::Io { path: path.into(), source })?;
            tokenizer_head(path).map_err(|why| not_a_model(path, &why))?;
            self.tokenizer = Some(TokenizerSource::of_file(path));
            return Ok(());
        }
        let encoder = self.parts.get(&Part::TextEncoder).map(|files| files.weights.clone());
        let beside = encoder.as_ref().and_then(|bundle| bundle.path.parent().map(Path::to_owned));
        let folders: Vec<_> = TOKENIZER_FOLDERS.iter().map(|name| self.folder.join(name)).chain(beside).collect();
        for name in TOKENIZER_FILES {
            for path in folders.iter().map(|folder| folder.join(name)).filter(|path| path.is_file()) {
                if self.no_tokenizers.iter().any(|(known, _)| *known == path) {
                    continue;
                }
                match tokenizer_head(&path) {
                    Ok(()) => {
                        self.tokenizer = Some(TokenizerSource::of_file(&path));
                        return Ok(());
                    }
                    Err(why) => self.no_tokenizers.push((path, why)),
                }
            }
        }
        if let Some(checkpoint) = encoder.and_then(|bundle| Checkpoint::open_bundle(&bundle).ok())
            && carries_tokenizer(&checkpoint)
        {
            self.tokenizer = Some(TokenizerSource::Inside(checkpoint.path().into()));
        }
        Ok(())
    }

    /// Opens the tokenizer.
    ///
    /// # Errors
    /// [`ModelError::MissingPart`], or [`ModelError::Tokenizer`] if it cannot be used, or if it is
    /// of another model than the text encoder.
    pub fn tokenizer(&self, encoder: &TextEncoderConfig) -> Result<Tokenizer, ModelError> {
        let source = self.tokenizer.as_ref().ok_or_else(|| self.missing_part(self.wanted_tokenizer()))?;
        let tokenizer = match (source, self.parts.get(&Part::TextEncoder)) {
            (TokenizerSource::Inside(path), Some(files)) => {
                Tokenizer::inside(path, &Checkpoint::open_bundle(&files.weights)?)?
            }
            _ => Tokenizer::open(source)?,
        };
        tokenizer.check_fits(source.path(), encoder.vocab_size)?;
        Ok(tokenizer)
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
    /// right shapes, with the LoRAs added.
    ///
    /// # Errors
    /// [`ModelError::MissingPart`], [`ModelError::Tensors`], and those of reading either.
    pub fn transformer(&self) -> Result<(TransformerConfig, Checkpoint), ModelError> {
        let (config, mut checkpoint) = usable(Part::Transformer, self.open_transformer()?)?;
        for lora in &self.loras {
            checkpoint = lora::merged(&checkpoint, &lora.path, lora.scale)?;
        }
        Ok((config, checkpoint))
    }

    /// The text encoder's configuration and tensors, as [`ModelFiles::transformer`].
    ///
    /// # Errors
    /// As [`ModelFiles::transformer`].
    pub fn text_encoder(&self) -> Result<(TextEncoderConfig, Checkpoint), ModelError> {
        usable(Part::TextEncoder, self.open_text_encoder()?)
    }

    /// The VAE's configuration and tensors, as [`ModelFiles::transformer`].
    ///
    /// # Errors
    /// As [`ModelFiles::transformer`].
    pub fn vae(&self) -> Result<(VaeConfig, Checkpoint), ModelError> {
        usable(Part::Vae, self.open_vae()?)
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
        let checkpoint = Checkpoint::open_bundle(&files.weights)?.renamed(|name| diffusers_name(part, name))?;
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

/// A part whose tensors are all there and of the right shapes.
fn usable<C: summary::Architecture>(part: Part, opened: (C, Checkpoint)) -> Result<(C, Checkpoint), ModelError> {
    let (config, checkpoint) = opened;
    TensorReport::new(&config.tensors(), &checkpoint).require_usable(part, config.blocks(), &checkpoint)?;
    Ok((config, checkpoint))
}

/// What is left over in a checkpoint, in words: see [`TensorReport::leftover`].
pub(super) fn leftover<C: summary::Architecture>(part: Part, config: &C, checkpoint: &Checkpoint) -> Option<String> {
    TensorReport::new(&config.tensors(), checkpoint).leftover(part)
}

/// Where a tokenizer may lie, for messages.
const TOKENIZERS: [&str; 4] =
    ["tokenizer/tokenizer.json", "google/umt5-xxl/tokenizer.json", "tokenizer.json", "spiece.model"];
/// Files of tokenizers, the best first.
const TOKENIZER_FILES: [&str; 4] = ["tokenizer.json", "umt5_tokenizer.json", "spiece.model", "tokenizer.model"];
/// Folders where a tokenizer may lie, besides the text encoder's.
const TOKENIZER_FOLDERS: [&str; 9] = [
    "tokenizer",
    "google/umt5-xxl",
    "",
    "text_encoder",
    "text_encoders",
    "clip",
    "split_files/text_encoders",
    "models",
    "umt5-xxl",
];

/// Whether a text encoder's file has the tokenizer in it.
fn carries_tokenizer(checkpoint: &Checkpoint) -> bool {
    let pieces = |key: &str| checkpoint.metadata().is_some_and(|metadata| metadata.texts(key).is_some());
    checkpoint.get(TOKENIZER_TENSOR).is_some() || pieces("tokenizer.ggml.tokens")
}

fn not_a_model(path: &Path, problem: &str) -> ModelError {
    ModelError::NotAModel { path: path.into(), problem: problem.into() }
}

fn first_file(folder: &Path, names: &[&str]) -> Option<PathBuf> {
    names.iter().map(|name| folder.join(name)).find(|path| path.is_file())
}

/// The configuration beside a part's weights, if it is one of this part. A file that is no JSON is
/// taken in the part's own folder, so that its damage is reported.
fn config_of(part: Part, weights: &Path) -> Option<PathBuf> {
    #[derive(Deserialize)]
    struct Kind {
        #[serde(rename = "_class_name")]
        class_name: Option<String>,
        model_type: Option<String>,
        z_dim: Option<usize>,
    }
    let path = first_file(weights.parent()?, &["config.json"])?;
    let own = part_of_folder(&path) == Some(part);
    let kind = read_text(&path).ok().and_then(|text| serde_json::from_str::<Kind>(&text).ok());
    let suits = kind.map_or(own, |kind| match part {
        Part::Transformer => own || kind.class_name.is_some_and(|name| name.starts_with("Wan")),
        Part::TextEncoder => kind.model_type.is_some_and(|name| name == "umt5"),
        Part::Vae => match kind.class_name {
            Some(name) => name == "AutoencoderKLWan",
            None => own || kind.z_dim.is_some(),
        },
    });
    suits.then_some(path)
}

#[cfg(test)]
mod tests;

//! What a model is, for people and for scripts.

use super::scan::with_causes;
use super::{Found, Layout, ModelFiles, TensorReport, Verdict};
use crate::model::ModelError;
use crate::model::wan::config::{ExpectedTensors, SchedulerConfig, TextEncoderConfig, TransformerConfig, VaeConfig};
use crate::model::wan::names::Part;
use crate::weights::Checkpoint;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// One part of a model.
#[derive(Clone, Debug, Serialize)]
pub struct PartSummary {
    /// Which part.
    pub part: Part,
    /// Its checkpoint.
    pub path: PathBuf,
    /// Its architecture in a few words, such as "1536 wide, 12 heads, 30 blocks".
    pub architecture: String,
    /// Number of tensors (scales of fp8 weights not counted).
    pub tensors: usize,
    /// Number of parameters.
    pub parameters: u64,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Bytes for each dtype, by safetensors' names.
    pub dtypes: BTreeMap<&'static str, u64>,
    /// How the tensors differ from what the configuration asks for.
    pub report: TensorReport,
    /// Number of blocks by the configuration.
    #[serde(skip)]
    blocks: usize,
}

/// What a model is: its parts, and everything that keeps it from being loaded.
#[derive(Clone, Debug, Serialize)]
pub struct ModelSummary {
    /// The model's folder.
    pub folder: PathBuf,
    /// How its files are arranged.
    pub layout: Layout,
    /// The transformer's configuration, if it can be read.
    pub transformer: Option<TransformerConfig>,
    /// The text encoder's configuration, if it can be read.
    pub text_encoder: Option<TextEncoderConfig>,
    /// The VAE's configuration, if it can be read.
    pub vae: Option<VaeConfig>,
    /// How the model is sampled, if that can be read.
    pub scheduler: Option<SchedulerConfig>,
    /// The tokenizer's file, or the file of the text encoder that carries it.
    pub tokenizer: Option<PathBuf>,
    /// Number of pieces of the tokenizer, if it can be read.
    pub tokenizer_pieces: Option<usize>,
    /// Every file with the name of a checkpoint: what it is, or why it is passed over.
    pub files: Vec<Found>,
    /// What a negative prompt is if none is given.
    pub negative_prompt: String,
    /// What does not stop a run.
    pub warnings: Vec<String>,
    /// Whether the model can run.
    pub complete: bool,
    /// The parts that could be opened.
    pub parts: Vec<PartSummary>,
    /// Parts that are missing.
    pub missing: Vec<String>,
    /// Why parts cannot be opened, and how parts do not fit each other; a line each.
    pub problems: Vec<String>,
}

impl ModelSummary {
    /// Opens every part of the model and compares it with its configuration. Never fails: what is
    /// wrong is in [`ModelSummary::missing`], [`ModelSummary::problems`] and each part's report.
    pub fn new(files: &ModelFiles) -> Self {
        let mut summary = Self {
            folder: files.folder.clone(),
            layout: files.layout,
            transformer: None,
            text_encoder: None,
            vae: None,
            scheduler: None,
            tokenizer: files.tokenizer.as_ref().map(|source| source.path().to_owned()),
            tokenizer_pieces: None,
            files: files.found.clone(),
            negative_prompt: files.default_negative_prompt().into(),
            warnings: files.warnings.clone(),
            complete: false,
            parts: Vec::new(),
            missing: files.missing(),
            problems: Vec::new(),
        };
        if files.parts.contains_key(&Part::Transformer) {
            summary.transformer = summary.add(Part::Transformer, files.open_transformer());
        }
        if files.parts.contains_key(&Part::TextEncoder) {
            summary.text_encoder = summary.add(Part::TextEncoder, files.open_text_encoder());
        }
        if files.parts.contains_key(&Part::Vae) {
            summary.vae = summary.add(Part::Vae, files.open_vae());
        }
        match files.scheduler() {
            Ok(scheduler) => summary.scheduler = Some(scheduler),
            Err(error) => {
                let why = with_causes(&error);
                summary.warnings.push(format!("{why}: give --scheduler and --flow-shift"));
            }
        }
        if let (Some(encoder), Some(_)) = (&summary.text_encoder, &files.tokenizer) {
            let opened = files.tokenizer(encoder);
            summary.tokenizer_pieces = summary.noted(opened).map(|tokenizer| tokenizer.pieces());
        }
        let misfits = misfits(summary.transformer.as_ref(), summary.text_encoder.as_ref(), summary.vae.as_ref());
        summary.problems.extend(misfits);
        summary.warnings.extend(summary.parts.iter().filter_map(PartSummary::leftover));
        summary.complete = summary.all_problems().is_empty();
        summary
    }

    /// Whether the model can be loaded.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// The value, or its error among the problems.
    fn noted<T>(&mut self, result: Result<T, ModelError>) -> Option<T> {
        result.map_err(|error| self.problems.push(with_causes(&error))).ok()
    }

    fn add<C: Architecture>(&mut self, part: Part, opened: Result<(C, Checkpoint), ModelError>) -> Option<C> {
        let (config, checkpoint) = self.noted(opened)?;
        self.parts.push(PartSummary::new(part, &config, &checkpoint));
        Some(config)
    }
}

/// Sizes that two parts must share and do not, a line each.
pub fn misfits(
    transformer: Option<&TransformerConfig>,
    text_encoder: Option<&TextEncoderConfig>,
    vae: Option<&VaeConfig>,
) -> Vec<String> {
    let mut problems = Vec::new();
    let mut equal = |what: [&str; 2], sizes: [usize; 2]| {
        if sizes[0] != sizes[1] {
            problems.push(format!("{} is {}, but {} is {}", what[0], sizes[0], what[1], sizes[1]));
        }
    };
    if let (Some(transformer), Some(text_encoder)) = (transformer, text_encoder) {
        equal(["transformer text_dim", "text_encoder d_model"], [transformer.text_dim, text_encoder.d_model]);
    }
    if let (Some(transformer), Some(vae)) = (transformer, vae) {
        equal(["transformer in_channels", "vae z_dim"], [transformer.in_channels, vae.z_dim]);
    }
    if let Some(transformer) = transformer {
        let channels = [transformer.out_channels, transformer.in_channels];
        equal(["transformer out_channels", "its in_channels"], channels);
    }
    if let Some(vae) = vae {
        equal(["vae out_channels", "the number of colours"], [vae.out_channels, 3]);
    }
    problems
}

/// What a configuration says about itself.
pub trait Architecture {
    /// Sizes in a few words.
    fn in_words(&self) -> String;
    /// Names and shapes of all tensors.
    fn tensors(&self) -> ExpectedTensors;
    /// Number of blocks.
    fn blocks(&self) -> usize;
}

impl Architecture for TransformerConfig {
    fn in_words(&self) -> String {
        let [frames, rows, columns] = self.patch_size;
        format!(
            "{} wide, {} heads, {} blocks, ffn {}, patch {frames}x{rows}x{columns}",
            self.dim(),
            self.num_attention_heads,
            self.num_layers,
            self.ffn_dim
        )
    }

    fn blocks(&self) -> usize {
        self.num_layers
    }

    fn tensors(&self) -> ExpectedTensors {
        self.expected_tensors()
    }
}

impl Architecture for TextEncoderConfig {
    fn in_words(&self) -> String {
        format!(
            "{} wide, {} heads, {} blocks, {} tokens",
            self.d_model, self.num_heads, self.num_layers, self.vocab_size
        )
    }

    fn blocks(&self) -> usize {
        self.num_layers
    }

    fn tensors(&self) -> ExpectedTensors {
        self.expected_tensors()
    }
}

impl Architecture for VaeConfig {
    fn in_words(&self) -> String {
        format!(
            "{} channels, base {} x {:?}, {}x time, {}x space",
            self.z_dim,
            self.base_dim,
            self.dim_mult,
            self.temporal_compression(),
            self.spatial_compression()
        )
    }

    fn blocks(&self) -> usize {
        self.dim_mult.len()
    }

    fn tensors(&self) -> ExpectedTensors {
        self.expected_tensors()
    }
}

impl PartSummary {
    fn new(part: Part, config: &impl Architecture, checkpoint: &Checkpoint) -> Self {
        let mut dtypes = BTreeMap::new();
        for tensor in checkpoint.tensors() {
            *dtypes.entry(tensor.dtype.name()).or_default() += tensor.bytes.len() as u64;
        }
        Self {
            part,
            path: checkpoint.path().into(),
            architecture: config.in_words(),
            tensors: checkpoint.len(),
            parameters: checkpoint.tensors().map(|tensor| tensor.elements() as u64).sum(),
            bytes: dtypes.values().sum(),
            dtypes,
            report: TensorReport::new(&config.tensors(), checkpoint),
            blocks: config.blocks(),
        }
    }

    fn leftover(&self) -> Option<String> {
        self.report.leftover(self.part).map(|what| format!("{}: {what}", self.part))
    }
}

impl fmt::Display for ModelSummary {
    /// A table of the parts, then everything that is wrong, a line each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layout = match self.layout {
            Layout::Diffusers => "diffusers",
            Layout::Original => "original",
        };
        writeln!(f, "{} ({layout} layout)", self.folder.display())?;
        writeln!(f)?;
        writeln!(f, "{:<13}{:>8}{:>12}{:>11}  {:<16}architecture", "part", "tensors", "parameters", "size", "dtypes")?;
        for part in &self.parts {
            let dtypes = part.dtypes.keys().copied().collect::<Vec<_>>().join(" ");
            let (parameters, bytes) = (count(part.parameters), size(part.bytes));
            let row = format!("{:<13}{:>8}{parameters:>12}{bytes:>11}  {dtypes:<16}", part.part, part.tensors);
            writeln!(f, "{row}{}", part.architecture)?;
        }
        if let Some(tokenizer) = &self.tokenizer {
            let pieces = self.tokenizer_pieces.map_or(String::new(), |pieces| format!(", {pieces} pieces"));
            writeln!(f, "{:<13}{}{pieces}", "tokenizer", shortened(tokenizer, &self.folder))?;
        }
        if let Some(scheduler) = &self.scheduler {
            writeln!(f, "{:<13}{}", "scheduler", scheduler.in_words())?;
        }
        if !self.negative_prompt.is_empty() {
            writeln!(f, "{:<13}{}", "not to show", self.negative_prompt)?;
        }
        self.fmt_files(f)?;
        self.fmt_problems(f)
    }
}

impl ModelSummary {
    /// Every file and what it is.
    fn fmt_files(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.files.is_empty() {
            writeln!(f)?;
        }
        for found in &self.files {
            let path = shortened(&found.path, &self.folder);
            match &found.verdict {
                Verdict::Holds(parts) => {
                    let of_run = self.parts.iter().any(|part| part.path == found.path);
                    let held: Vec<_> = parts.iter().map(Part::to_string).collect();
                    writeln!(f, "{path}: {}{}", held.join(", "), if of_run { "" } else { ", not used" })?;
                }
                Verdict::Doubtful(part, why) | Verdict::Unfit(part, why) => {
                    writeln!(f, "{path}: not taken for the {part}: {why}")?;
                }
                Verdict::PassedOver(why) => writeln!(f, "{path}: passed over: {why}")?,
            }
        }
        Ok(())
    }

    /// Everything that keeps the model from running, a line each.
    pub fn all_problems(&self) -> Vec<String> {
        let missing = self.missing.iter().map(|what| format!("missing: {what}"));
        let reports = self.parts.iter().flat_map(|part| {
            let problems = part.report.problems(part.part, part.blocks);
            problems.map(|line| format!("{}: {line}", part.part))
        });
        missing.chain(self.problems.iter().cloned()).chain(reports).collect()
    }

    fn fmt_problems(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let warnings = self.warnings.iter().map(|warning| format!("warning: {warning}"));
        let lines: Vec<_> = self.all_problems().into_iter().chain(warnings).collect();
        if !lines.is_empty() {
            writeln!(f)?;
        }
        lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

fn shortened(path: &Path, folder: &Path) -> String {
    path.strip_prefix(folder).unwrap_or(path).display().to_string()
}

/// 1418996800 as "1.42 G".
fn count(value: u64) -> String {
    scaled(value, "")
}

fn size(bytes: u64) -> String {
    scaled(bytes, "B")
}

fn scaled(value: u64, unit: &str) -> String {
    let scales = [(1e9, "G"), (1e6, "M"), (1e3, "k")];
    match scales.into_iter().find(|(scale, _)| value as f64 >= *scale) {
        Some((scale, letter)) => format!("{:.2} {letter}{unit}", value as f64 / scale),
        None => format!("{value} {unit}").trim_end().to_owned(),
    }
}

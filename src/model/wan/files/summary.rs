//! What a model is, for people and for scripts.

use super::{Layout, ModelFiles};
use crate::model::ModelError;
use crate::model::wan::config::{ExpectedTensors, SchedulerConfig, TextEncoderConfig, TransformerConfig, VaeConfig};
use crate::model::wan::names::Part;
use crate::weights::Checkpoint;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};

/// How a checkpoint's tensors differ from those that its configuration asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TensorReport {
    /// Expected, but not there.
    pub missing: Vec<String>,
    /// There with another shape: name, and both shapes in words.
    pub wrong_shape: Vec<String>,
    /// There, but not expected; these are not used.
    pub unexpected: Vec<String>,
}

impl TensorReport {
    /// Compares the tensors of `checkpoint` (under diffusers' names) with the expected ones.
    pub fn new(expected: &ExpectedTensors, checkpoint: &Checkpoint) -> Self {
        let mut report = Self::default();
        let shapes: HashMap<_, _> = expected.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())).collect();
        for (name, shape) in expected {
            match checkpoint.get(name) {
                None => report.missing.push(name.clone()),
                Some(tensor) if tensor.shape != shape => {
                    report.wrong_shape.push(format!("{name} is {:?}, expected {shape:?}", tensor.shape));
                }
                Some(_) => {}
            }
        }
        let unexpected = checkpoint.tensors().filter(|tensor| !shapes.contains_key(tensor.name));
        report.unexpected = unexpected.map(|tensor| tensor.name.escape_debug().to_string()).collect();
        report
    }

    /// Refuses a checkpoint that lacks a tensor or has one of another shape.
    ///
    /// # Errors
    /// [`ModelError::Tensors`].
    pub fn require_complete(&self, checkpoint: &Checkpoint) -> Result<(), ModelError> {
        let problems = [listed("missing", &self.missing), listed("of the wrong shape", &self.wrong_shape)];
        let problems: Vec<_> = problems.into_iter().flatten().collect();
        if problems.is_empty() {
            return Ok(());
        }
        Err(ModelError::Tensors { path: checkpoint.path().into(), problem: problems.join("; ") })
    }

    fn lines(&self) -> impl Iterator<Item = String> {
        let unexpected = listed("not expected, and not used", &self.unexpected);
        [listed("missing", &self.missing), listed("of the wrong shape", &self.wrong_shape), unexpected]
            .into_iter()
            .flatten()
    }
}

/// "3 tensors missing: a, b, ..."; nothing for none.
fn listed(what: &str, names: &[String]) -> Option<String> {
    const SHOWN: usize = 3;
    let first = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len() {
        0 => None,
        1 => Some(format!("1 tensor {what}: {first}")),
        count if count <= SHOWN => Some(format!("{count} tensors {what}: {first}")),
        count => Some(format!("{count} tensors {what}: {first}, ...")),
    }
}

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
    /// The tokenizer's file.
    pub tokenizer: Option<PathBuf>,
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
            tokenizer: files.tokenizer.clone(),
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
        summary.scheduler = summary.noted(files.scheduler());
        summary.compare_parts();
        summary
    }

    /// Whether the model can be loaded.
    pub fn is_complete(&self) -> bool {
        let whole = |part: &PartSummary| part.report.missing.is_empty() && part.report.wrong_shape.is_empty();
        self.missing.is_empty() && self.problems.is_empty() && self.parts.iter().all(whole)
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

    /// Sizes that two parts must share.
    fn compare_parts(&mut self) {
        let mut problems = Vec::new();
        let mut equal = |what: [&str; 2], sizes: [usize; 2]| {
            if sizes[0] != sizes[1] {
                problems.push(format!("{} is {}, but {} is {}", what[0], sizes[0], what[1], sizes[1]));
            }
        };
        if let (Some(transformer), Some(text_encoder)) = (&self.transformer, &self.text_encoder) {
            equal(["transformer text_dim", "text_encoder d_model"], [transformer.text_dim, text_encoder.d_model]);
        }
        if let (Some(transformer), Some(vae)) = (&self.transformer, &self.vae) {
            equal(["transformer in_channels", "vae z_dim"], [transformer.in_channels, vae.z_dim]);
        }
        if let Some(transformer) = &self.transformer {
            let channels = [transformer.out_channels, transformer.in_channels];
            equal(["transformer out_channels", "its in_channels"], channels);
        }
        self.problems.extend(problems);
    }
}

/// The error and what caused it, on one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// What a configuration says about itself.
trait Architecture {
    fn in_words(&self) -> String;
    fn tensors(&self) -> ExpectedTensors;
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
        }
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
            writeln!(f, "{:<13}{}", "tokenizer", shortened(tokenizer, &self.folder))?;
        }
        if let Some(scheduler) = &self.scheduler {
            writeln!(f, "{:<13}{}", "scheduler", in_words(scheduler))?;
        }
        self.fmt_problems(f)
    }
}

impl ModelSummary {
    fn fmt_problems(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let missing = self.missing.iter().map(|what| format!("missing: {what}"));
        let reports =
            self.parts.iter().flat_map(|part| part.report.lines().map(|line| format!("{}: {line}", part.part)));
        let lines: Vec<_> = missing.chain(self.problems.iter().cloned()).chain(reports).collect();
        if !lines.is_empty() {
            writeln!(f)?;
        }
        lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

fn in_words(scheduler: &SchedulerConfig) -> String {
    let class = match scheduler.class {
        crate::model::wan::config::SchedulerClass::UniPc => "UniPC",
        crate::model::wan::config::SchedulerClass::FlowMatchEuler => "Euler",
    };
    format!("{class}, shift {}", scheduler.flow_shift)
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

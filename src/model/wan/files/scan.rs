//! Looks at every file of a model's folder and says what it is, or why it is passed over.

use super::recognise::{Contents, doubt, recognise};
use crate::model::ModelError;
use crate::model::wan::names::Part;
use crate::weights::{Bundle, Bundles, Checkpoint, Container};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It holds these parts.
    Holds(Vec<Part>),
    /// It holds this part by its tensors, but its name says otherwise.
    Doubtful(Part, String),
    /// It would be this part, but cannot be used.
    Unfit(Part, String),
    /// It is passed over.
    PassedOver(String),
}

/// A file, or a set of shards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Found {
    /// The file, the index, or the first shard.
    pub path: PathBuf,
    /// What it is.
    pub verdict: Verdict,
    /// The files that hold the tensors.
    #[serde(skip)]
    pub bundle: Option<Bundle>,
}

impl Found {
    /// Whether it holds the part without doubt.
    pub fn holds(&self, part: Part) -> bool {
        matches!(&self.verdict, Verdict::Holds(parts) if parts.contains(&part))
    }

    /// Why it is not taken for the part that it would be.
    pub fn why_not(&self, part: Part) -> Option<String> {
        match &self.verdict {
            Verdict::Doubtful(of, why) | Verdict::Unfit(of, why) if *of == part => Some(why.clone()),
            _ => None,
        }
    }
}

/// Folders below the model's folder, in the order in which they are searched.
const FOLDERS: [&str; 14] = [
    "",
    "transformer",
    "text_encoder",
    "vae",
    "diffusion_models",
    "text_encoders",
    "unet",
    "clip",
    "checkpoints",
    "split_files/diffusion_models",
    "split_files/text_encoders",
    "split_files/vae",
    "models",
    "weights",
];

/// The model's folder itself, for a folder of the hub's cache. There the files lie in
/// `snapshots/REVISION`, and `refs/main` names the revision.
///
/// # Errors
/// [`ModelError::NotAModel`] if there are several revisions and none is the main one.
pub fn resolve(folder: &Path) -> Result<PathBuf, ModelError> {
    let snapshots = match folder.file_name() {
        Some(name) if name == "snapshots" => folder.to_owned(),
        _ => folder.join("snapshots"),
    };
    if !snapshots.is_dir() {
        return Ok(folder.into());
    }
    let main = snapshots.parent().map(|root| root.join("refs/main"));
    let named = main.and_then(|path| std::fs::read_to_string(path).ok());
    if let Some(revision) = named.map(|text| snapshots.join(text.trim())).filter(|path| path.is_dir()) {
        return Ok(revision);
    }
    let io = |source| ModelError::Io { path: snapshots.clone(), source };
    let entries = std::fs::read_dir(&snapshots).map_err(io)?;
    let revisions: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect();
    match &revisions[..] {
        [] => Ok(folder.into()),
        [one] => Ok(one.clone()),
        _ => Err(ModelError::NotAModel {
            path: snapshots.clone(),
            problem: format!("there are {} revisions; name one of them", revisions.len()),
        }),
    }
}

/// All checkpoints of the model's folder and of the usual folders in it, and all files that have
/// the name of a checkpoint and are none.
///
/// # Errors
/// [`ModelError::Weights`] if the folder itself cannot be listed.
pub fn scan(folder: &Path) -> Result<Vec<Found>, ModelError> {
    let mut all = Vec::new();
    for name in FOLDERS {
        let place = folder.join(name);
        match Bundles::of(&place) {
            Ok(bundles) => add(&mut all, bundles),
            Err(error) if name.is_empty() => return Err(error.into()),
            Err(_) => {}
        }
    }
    Ok(all)
}

fn add(all: &mut Vec<Found>, bundles: Bundles) {
    all.extend(bundles.found.into_iter().map(judge));
    for (path, why) in bundles.passed_over {
        let verdict = match part_of_folder(&path) {
            Some(part) if !why.contains("stale") => Verdict::Unfit(part, why),
            _ => Verdict::PassedOver(why),
        };
        all.push(Found { path, verdict, bundle: None });
    }
}

/// The part whose folder of diffusers' layout the file lies in.
pub fn part_of_folder(path: &Path) -> Option<Part> {
    let folder = path.parent()?.file_name()?;
    Part::ALL.into_iter().find(|part| folder == part.folder())
}

/// Opens a checkpoint and says what it is.
pub fn judge(bundle: Bundle) -> Found {
    let path = bundle.path.clone();
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let verdict = match Checkpoint::open_bundle(&bundle) {
        Err(error) => {
            let why = with_causes(&error);
            match part_of_folder(&path).or_else(|| part_by_name(&name)) {
                Some(part) => Verdict::Unfit(part, why),
                None => Verdict::PassedOver(why),
            }
        }
        Ok(checkpoint) => match recognise(&checkpoint) {
            Contents::Variant { part, what } => Verdict::Unfit(part, what),
            Contents::Lora => Verdict::PassedOver("a LoRA; it is not applied by itself".into()),
            Contents::Foreign(what) => Verdict::PassedOver(what),
            Contents::Parts(parts) => match parts[..] {
                [part] => match doubt(part, &name) {
                    Some(why) => Verdict::Doubtful(part, why.into()),
                    None => Verdict::Holds(parts),
                },
                _ => Verdict::Holds(parts),
            },
        },
    };
    Found { path, verdict, bundle: Some(bundle) }
}

/// The part that a file which cannot be read is meant to be.
fn part_by_name(name: &str) -> Option<Part> {
    let name = name.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
    if has(&["umt5", "t5_umt5"]) {
        return Some(Part::TextEncoder);
    }
    if has(&["vae"]) {
        return Some(Part::Vae);
    }
    has(&["wan2", "diffusion_pytorch_model", "wan."]).then_some(Part::Transformer)
}

/// Whether a tokenizer's file can be one by its first bytes, or why not.
pub fn tokenizer_head(path: &Path) -> Result<(), String> {
    match Container::of_file(path) {
        Container::Json | Container::Unknown => Ok(()),
        other => Err(other.advice().unwrap_or("this is no tokenizer").into()),
    }
}

/// The error and what caused it, on one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

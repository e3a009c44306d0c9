//! The four configuration files of a model: parsed, checked, and turned into lists of expected
//! tensors.
//!
//! Field names and default values are those of diffusers, or of transformers for the text encoder.
//! Unknown keys are ignored. Values that make no sense, or that ask for an unsupported option, are
//! refused with one line.
//!
//! Checkpoints in the original layout have only a `config.json` for the transformer. The other
//! configurations are inferred from the shapes of the tensors.

mod scheduler;
mod text_encoder;
mod transformer;
mod vae;

pub use scheduler::{SchedulerClass, SchedulerConfig};
pub use text_encoder::TextEncoderConfig;
pub use transformer::TransformerConfig;
pub use vae::{DownLayer, UpBlock, VaeConfig};

use crate::model::ModelError;
use crate::weights::{Checkpoint, Container};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::Path;

/// Names (in diffusers' form) and shapes of a part's tensors.
pub type ExpectedTensors = Vec<(String, Vec<usize>)>;

/// Largest size that is accepted. It is four times the largest size of any published model (UMT5's
/// vocabulary).
const LARGEST_SIZE: usize = 1 << 20;
/// Largest number of layers that is accepted.
const MOST_LAYERS: usize = 1000;
/// Longest configuration file that is read, in bytes.
const LONGEST_FILE: u64 = 1 << 20;

/// Reads a configuration file as text.
///
/// # Errors
/// [`ModelError::Io`], or [`ModelError::Config`] if the path is not a file or the file is too long
/// for a configuration.
pub(super) fn read_text(path: &Path) -> Result<String, ModelError> {
    let io = |source| ModelError::Io { path: path.into(), source };
    let metadata = std::fs::metadata(path).map_err(io)?;
    if !metadata.is_file() || metadata.len() > LONGEST_FILE {
        return Err(ModelError::config(path, "expected a configuration file of at most 1 MiB"));
    }
    let bytes = std::fs::read(path).map_err(io)?;
    if let container @ (Container::LfsPointer | Container::Html | Container::Empty) = Container::of(&bytes) {
        return Err(ModelError::config(path, container.advice().unwrap_or_default()));
    }
    String::from_utf8(bytes).map_err(|_| ModelError::config(path, "it is not UTF-8 text"))
}

pub(super) fn parse<T: DeserializeOwned>(path: &Path, json: &str) -> Result<T, ModelError> {
    serde_json::from_str(json).map_err(|source| ModelError::Json { path: path.into(), source })
}

#[derive(Deserialize)]
struct ClassName {
    #[serde(rename = "_class_name")]
    class_name: Option<String>,
}

/// The file's `_class_name`.
pub(super) fn class_name(path: &Path, json: &str) -> Result<String, ModelError> {
    let ClassName { class_name } = parse(path, json)?;
    class_name.ok_or_else(|| ModelError::config(path, "it has no _class_name, so it is no diffusers configuration"))
}

/// Refuses sizes that are zero or absurd.
fn check_sizes(path: &Path, sizes: &[(&str, usize)]) -> Result<(), ModelError> {
    match sizes.iter().find(|(_, size)| !(1..=LARGEST_SIZE).contains(size)) {
        None => Ok(()),
        Some((name, size)) => Err(ModelError::config(path, format!("{name} is {size}; expected 1 to {LARGEST_SIZE}"))),
    }
}

/// Refuses the configuration if `holds` is false.
fn require(path: &Path, holds: bool, problem: impl FnOnce() -> String) -> Result<(), ModelError> {
    if holds { Ok(()) } else { Err(ModelError::config(path, problem())) }
}

fn check_epsilon(path: &Path, name: &str, value: f32) -> Result<(), ModelError> {
    require(path, value.is_finite() && value > 0.0, || format!("{name} is {value}; expected a small positive number"))
}

/// The shape of a tensor from which a configuration is inferred. The tensor must have `N`
/// dimensions.
fn shape<const N: usize>(checkpoint: &Checkpoint, name: &str) -> Result<[usize; N], ModelError> {
    let path = checkpoint.path();
    let tensor = checkpoint.get(name).ok_or_else(|| {
        ModelError::config(path, format!("no config.json beside it, and no tensor {name} to infer one from"))
    })?;
    tensor.shape.try_into().map_err(|_| {
        ModelError::config(path, format!("the tensor {name} has shape {:?}; expected {N} dimensions", tensor.shape))
    })
}

/// The number of tensors `{before}0{after}`, `{before}1{after}`, ... in the checkpoint.
fn count_layers(checkpoint: &Checkpoint, before: &str, after: &str) -> usize {
    (0..MOST_LAYERS).take_while(|layer| checkpoint.get(&format!("{before}{layer}{after}")).is_some()).count()
}

/// Adds a weight, and a bias whose length is the weight's first size.
fn push_biased(tensors: &mut ExpectedTensors, name: &str, weight: &[usize]) {
    tensors.push((format!("{name}.weight"), weight.to_vec()));
    tensors.push((format!("{name}.bias"), weight.iter().copied().take(1).collect()));
}

#[cfg(test)]
mod golden {
    use super::ExpectedTensors;

    /// The diffusers names and shapes of a golden list, sorted.
    pub fn expected(name: &str) -> ExpectedTensors {
        let path = format!("{}/tests/golden/weights/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        let row = |line: &str| {
            let columns: Vec<_> = line.split(' ').collect();
            (columns[1].to_owned(), columns[2].split('x').map(|size| size.parse().unwrap()).collect())
        };
        sorted(text.lines().map(row).collect())
    }

    pub fn sorted(mut tensors: ExpectedTensors) -> ExpectedTensors {
        tensors.sort();
        tensors
    }

    pub fn parameters(tensors: &ExpectedTensors) -> u64 {
        tensors.iter().map(|(_, shape)| shape.iter().map(|&size| size as u64).product::<u64>()).sum()
    }
}

//! How a checkpoint's tensors differ from those that its configuration asks for.

use crate::model::ModelError;
use crate::model::wan::config::ExpectedTensors;
use crate::model::wan::names::Part;
use crate::weights::{Checkpoint, DType};
use serde::Serialize;
use std::collections::HashMap;

/// How a checkpoint's tensors differ from those that its configuration asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TensorReport {
    /// Expected, but not there.
    pub missing: Vec<String>,
    /// There with another shape: name, and both shapes in words.
    pub wrong_shape: Vec<String>,
    /// Expected, but stored in a type that is not decoded: name and type.
    pub undecodable: Vec<String>,
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
                Some(tensor) if matches!(tensor.dtype, DType::Raw(_)) => {
                    let without = if tensor.dtype.name() == "I8" { " without scales" } else { "" };
                    report.undecodable.push(format!("{name} is {}{without}", tensor.dtype));
                }
                Some(_) => {}
            }
        }
        let unexpected = checkpoint.tensors().filter(|tensor| !shapes.contains_key(tensor.name));
        report.unexpected = unexpected.map(|tensor| tensor.name.escape_debug().to_string()).collect();
        report
    }

    /// Refuses a checkpoint that lacks a tensor, has one of another shape or in a type that is not
    /// decoded, or holds more blocks than the `blocks` of its configuration.
    ///
    /// # Errors
    /// [`ModelError::Tensors`].
    pub fn require_usable(&self, part: Part, blocks: usize, checkpoint: &Checkpoint) -> Result<(), ModelError> {
        let problems: Vec<_> = self.problems(part, blocks).collect();
        if problems.is_empty() {
            return Ok(());
        }
        Err(ModelError::Tensors { path: checkpoint.path().into(), problem: problems.join("; ") })
    }

    /// What keeps the checkpoint from being used, a line each.
    pub fn problems(&self, part: Part, blocks: usize) -> impl Iterator<Item = String> {
        let more = self.block_beyond(part, blocks).map(|block| {
            format!(
                "it holds blocks up to number {block}, but its configuration says {blocks} blocks (0 to {})",
                blocks - 1
            )
        });
        let lists = [
            listed("missing", &self.missing),
            listed("of the wrong shape", &self.wrong_shape),
            listed("in a type that cannot be read", &self.undecodable),
        ];
        lists.into_iter().flatten().chain(more)
    }

    /// What is not used, in words. `None` if every tensor is used, or is known not to be needed.
    pub fn leftover(&self, part: Part) -> Option<String> {
        let needless = |name: &&String| match part {
            // The decoder of the whole UMT5, and its output.
            Part::TextEncoder => {
                name.starts_with("decoder.") || name.starts_with("dec.") || name.starts_with("lm_head")
            }
            // Gates for sparse attention; FastWan's warning says what the model is.
            Part::Transformer => name.contains(".to_gate_compress."),
            Part::Vae => false,
        };
        let rest: Vec<String> = self.unexpected.iter().filter(|name| !needless(name)).cloned().collect();
        listed("not expected, and not used", &rest)
    }

    /// The highest block that the configuration does not count.
    fn block_beyond(&self, part: Part, blocks: usize) -> Option<usize> {
        let prefix = match part {
            Part::Transformer => "blocks.",
            Part::TextEncoder => "encoder.block.",
            Part::Vae => return None,
        };
        let number = |name: &String| name.strip_prefix(prefix)?.split('.').next()?.parse::<usize>().ok();
        self.unexpected.iter().filter_map(number).filter(|block| *block >= blocks).max()
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

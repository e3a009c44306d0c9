//! Room `model`: families of models behind one seam ([`family`]), and the catalogue of families.

mod error;
pub mod family;
mod subject;
pub mod wan;

use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

pub use error::ModelError;
pub use family::{Condition, Family, ModelFolder};
pub use subject::subject_of;

/// The built-in families.
static BUILT_IN: &[&dyn Family] = &[&wan::Wan];

/// Families from outside, in the order of their registration.
static REGISTERED: RwLock<Vec<&dyn Family>> = RwLock::new(Vec::new());

/// Adds a family for the whole process. Built-in families, and families that were added before, are
/// tried first.
pub fn register(family: &'static dyn Family) {
    REGISTERED.write().unwrap_or_else(PoisonError::into_inner).push(family);
}

/// All families: those built in, then those registered.
pub fn families() -> Vec<&'static dyn Family> {
    let registered = REGISTERED.read().unwrap_or_else(PoisonError::into_inner);
    BUILT_IN.iter().chain(registered.iter()).copied().collect()
}

/// Files of a model that a user names one by one. A folder may hold others of the same kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NamedFiles {
    /// The transformer: a file, one of its shards, or their index.
    pub transformer: Option<PathBuf>,
    /// The text encoder.
    pub text_encoder: Option<PathBuf>,
    /// The VAE.
    pub vae: Option<PathBuf>,
    /// The tokenizer.
    pub tokenizer: Option<PathBuf>,
    /// LoRAs that are merged into the transformer's weights.
    pub loras: Vec<Lora>,
}

/// A LoRA and how strongly it is merged; 1 is as it was trained.
#[derive(Clone, Debug, PartialEq)]
pub struct Lora {
    /// Its file.
    pub path: PathBuf,
    /// Factor of what it adds.
    pub scale: f32,
}

impl NamedFiles {
    /// Whether no file is named.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The first file that is named.
    pub fn first(&self) -> Option<&Path> {
        [&self.transformer, &self.text_encoder, &self.vae, &self.tokenizer]
            .into_iter()
            .flatten()
            .next()
            .map(PathBuf::as_path)
    }
}

/// Remembers in `file` what was worked out about weights, by the path, size and time of change of
/// their files. Without it every process works it out again.
pub fn remember_in(file: &Path) {
    crate::weights::keep_ids_in(file);
}

/// Finds the model in a folder, of the first family that knows it.
///
/// # Errors
/// No family can use the folder. The error is that of the first family that knows the folder as its
/// own. If none does, all of them say [`ModelError::NotAModel`], and the first one's error counts.
pub fn find(folder: &Path) -> Result<Box<dyn ModelFolder>, ModelError> {
    find_named(folder, &NamedFiles::default())
}

/// As [`find`]; files that are named are taken whatever else the folder holds.
///
/// # Errors
/// As [`find`], and a named file that does not hold its part.
pub fn find_named(folder: &Path, named: &NamedFiles) -> Result<Box<dyn ModelFolder>, ModelError> {
    find_among(&families(), folder, named)
}

fn find_among(families: &[&dyn Family], folder: &Path, named: &NamedFiles) -> Result<Box<dyn ModelFolder>, ModelError> {
    let mut told = ModelError::NotAModel { path: folder.into(), problem: "there is no family of models".into() };
    for (index, family) in families.iter().enumerate() {
        match family.find_named(folder, named) {
            Ok(found) => return Ok(found),
            Err(error) if index == 0 => told = error,
            Err(ModelError::NotAModel { .. }) => {}
            Err(error) if matches!(told, ModelError::NotAModel { .. }) => told = error,
            Err(_) => {}
        }
    }
    Err(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A family that finds every folder strange, or damaged.
    struct Fussy {
        damaged: bool,
        problem: &'static str,
    }

    impl Family for Fussy {
        fn name(&self) -> &'static str {
            "fussy"
        }

        fn find(&self, folder: &Path) -> Result<Box<dyn ModelFolder>, ModelError> {
            let (path, problem) = (folder.into(), self.problem.into());
            Err(if self.damaged {
                ModelError::Config { path, problem }
            } else {
                ModelError::NotAModel { path, problem }
            })
        }
    }

    /// The family that knows the folder as its own says what is wrong, wherever it stands.
    #[test]
    fn the_error_is_that_of_the_family_that_knows_the_folder() {
        let family = |problem, damaged| Fussy { damaged, problem };
        let [a, b, c, d] =
            [("a", false), ("b", false), ("c", true), ("d", true)].map(|(name, damaged)| family(name, damaged));
        let named = NamedFiles::default();
        let told = |families: &[&dyn Family]| find_among(families, Path::new("x"), &named).err().unwrap().to_string();
        assert_eq!(told(&[&a, &b]), "x: a");
        assert_eq!(told(&[&a, &b, &c, &d]), "x: c");
        assert_eq!(told(&[&c, &a, &d]), "x: c");
        assert_eq!(told(&[]), "x: there is no family of models");
    }
}

//! Room `model`: families of models behind one seam ([`family`]), and the catalogue of families.

mod error;
pub mod family;
mod subject;
pub mod wan;

use std::path::Path;
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

/// Finds the model in a folder, of the first family that knows it.
///
/// # Errors
/// No family can use the folder. The error is that of the first family that knows the folder as its
/// own. If none does, all of them say [`ModelError::NotAModel`], and the first one's error counts.
pub fn find(folder: &Path) -> Result<Box<dyn ModelFolder>, ModelError> {
    find_among(&families(), folder)
}

fn find_among(families: &[&dyn Family], folder: &Path) -> Result<Box<dyn ModelFolder>, ModelError> {
    let mut told = ModelError::NotAModel { path: folder.into(), problem: "there is no family of models".into() };
    for (index, family) in families.iter().enumerate() {
        match family.find(folder) {
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
        let told = |families: &[&dyn Family]| find_among(families, Path::new("x")).err().unwrap().to_string();
        assert_eq!(told(&[&a, &b]), "x: a");
        assert_eq!(told(&[&a, &b, &c, &d]), "x: c");
        assert_eq!(told(&[&c, &a, &d]), "x: c");
        assert_eq!(told(&[]), "x: there is no family of models");
    }
}

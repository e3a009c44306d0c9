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
static BUILT_IN: [&dyn Family; 1] = [&wan::Wan];

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
    BUILT_IN.into_iter().chain(registered.iter().copied()).collect()
}

/// Finds the model in a folder, of the first family that knows it.
///
/// # Errors
/// No family knows the folder. The error is that of the first family, which knows most about its
/// own files.
pub fn find(folder: &Path) -> Result<Box<dyn ModelFolder>, ModelError> {
    let mut first = None;
    for family in families() {
        match family.find(folder) {
            Ok(found) => return Ok(found),
            Err(error) => first = first.or(Some(error)),
        }
    }
    let none = || ModelError::NotAModel { path: folder.into(), problem: "there is no family of models".into() };
    Err(first.unwrap_or_else(none))
}

//! Finds the profile of a model.

use std::path::{Path, PathBuf};

use crate::caching::{Evidence, Learnt};
use crate::engine::RequestInfo;
use crate::profiling::profile::Profile;

use super::StudyError;

/// The path of a model's profile: profile.json in the model's folder.
pub fn profile_place(model: &Path) -> PathBuf {
    model.join("profile.json")
}

/// Reads the profile in the named file or, without a name, in the model's folder, and checks that
/// it belongs to the model. `None` if there is no name and the folder has no profile.
///
/// # Errors
/// [`StudyError::Profile`] if the file cannot be read or belongs to another model.
pub fn find_profile(model: &Path, named: Option<&Path>, facts: &RequestInfo) -> Result<Option<Profile>, StudyError> {
    let own = profile_place(model);
    let path = match named {
        Some(path) => path,
        None if own.is_file() => &own,
        None => return Ok(None),
    };
    let read = || {
        let profile = Profile::read(path)?;
        profile.check_fits(&facts.model_id, &facts.former_ids, facts.blocks)?;
        Ok(profile)
    };
    read().map(Some).map_err(|source| StudyError::Profile { path: path.to_owned(), source })
}

/// The evidence for strategies of a request: the facts of the model, the data of a profile, and
/// what ordinary runs told.
pub fn evidence_of(facts: &RequestInfo, profile: Option<&Profile>, learnt: &Learnt) -> Evidence {
    let known = match profile {
        Some(profile) => profile.evidence(facts.sigmas.clone()).with_published_tea(facts.published_tea),
        None => facts.evidence(),
    };
    known.with_learnt(learnt.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caching::Known;
    use crate::engine::GenerateRequest;
    use crate::profiling::ProfilingError;

    #[test]
    fn a_named_profile_comes_before_the_models_own() {
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo-model");
        let facts = RequestInfo::of(&GenerateRequest::of_model(&model, "a cat").unwrap()).unwrap();
        let own = find_profile(&model, None, &facts).unwrap().unwrap();
        let known = |profile| evidence_of(&facts, profile, &Learnt::default());
        assert!(known(Some(&own)).plans().is_ok() && known(None).plans().is_ok());
        assert_eq!((known(Some(&own)).known(), known(None).known()), (Known::Profile, Known::Prior));
        let folder = tempfile::tempdir().unwrap();
        assert!(find_profile(folder.path(), None, &facts).unwrap().is_none());
        let place = folder.path().join("other.json");
        let bare = Profile { calibration: None, ..own.clone() };
        std::fs::write(&place, bare.to_json().unwrap()).unwrap();
        let named = find_profile(&model, Some(&place), &facts).unwrap().unwrap();
        assert!(known(Some(&named)).calibration().is_none());
        let facts = RequestInfo { model_id: "another".into(), former_ids: Vec::new(), ..facts };
        let error = find_profile(&model, Some(&place), &facts).unwrap_err();
        assert!(matches!(&error, StudyError::Profile { path, source: ProfilingError::Misfit(_) } if *path == place));
        assert!(error.is_wrong_use());
        let error = find_profile(&model, Some(Path::new("no such file")), &facts).unwrap_err();
        assert!(!error.is_wrong_use() && error.to_string().contains("no such file"));
    }
}

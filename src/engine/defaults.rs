//! The settings that suit a model, from its folder.

use std::io::ErrorKind;
use std::path::Path;

use crate::sampling::ClipSettings;
use crate::sampling::limits::MOST_FPS;

use super::EngineError;

/// The text of a file. `None` if there is no such file.
///
/// # Errors
/// The file exists and cannot be read.
pub(super) fn read_if_there(path: &Path) -> Result<Option<String>, EngineError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(EngineError::Request(format!("cannot read {}: {error}", path.display()))),
    }
}

/// The default settings of a model. The model's folder may have them as `ditscope.json`, which is a
/// [`ClipSettings`] in JSON. Missing fields have the defaults of the model's family.
///
/// # Errors
/// [`EngineError`] if the folder has no model, or if its `ditscope.json` is not valid.
pub fn clip_settings_of(folder: &Path) -> Result<ClipSettings, EngineError> {
    settings_in(folder, &crate::model::find(folder)?.defaults())
}

/// What not to show with a model if nothing is said. Empty for a folder without a model.
pub fn negative_prompt_of(folder: &Path) -> String {
    let negative = crate::model::find(folder).map(|found| found.default_negative());
    negative.ok().and_then(|negative| negative.text().map(str::to_owned)).unwrap_or_default()
}

/// The defaults of the family, changed by the folder's `ditscope.json`.
///
/// # Errors
/// [`EngineError`] if the `ditscope.json` is not valid.
pub(super) fn settings_in(folder: &Path, defaults: &ClipSettings) -> Result<ClipSettings, EngineError> {
    let path = folder.join("ditscope.json");
    let Some(text) = read_if_there(&path)? else { return Ok(*defaults) };
    parse(&text, defaults)
        .map_err(|why| EngineError::Request(format!("{} does not hold settings: {why}", path.display())))
}

fn parse(text: &str, defaults: &ClipSettings) -> Result<ClipSettings, String> {
    let read = || -> serde_json::Result<ClipSettings> {
        let mut all: serde_json::Map<_, _> = serde_json::from_value(serde_json::to_value(defaults)?)?;
        all.extend(serde_json::from_str::<serde_json::Map<_, _>>(text)?);
        serde_json::from_value(all.into())
    };
    let found = read().map_err(|error| error.to_string())?;
    match found.fps {
        1..=MOST_FPS => Ok(found),
        fps => Err(format!("fps is 1 to {MOST_FPS}, not {fps}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_that_no_file_can_say_are_refused() {
        let defaults = ClipSettings { num_frames: 5, ..ClipSettings::default() };
        let parse = |fps: u32| parse(&format!("{{\"fps\": {fps}}}"), &defaults);
        assert_eq!(parse(240).unwrap(), ClipSettings { fps: 240, ..defaults });
        assert!(parse(0).is_err() && parse(241).is_err());
    }

    #[test]
    fn a_folder_without_a_model_has_no_settings() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(clip_settings_of(folder.path()), Err(EngineError::Model(_))));
        std::fs::write(folder.path().join("ditscope.json"), "{}").unwrap();
        assert!(matches!(clip_settings_of(folder.path()), Err(EngineError::Model(_))));
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo-model");
        assert_ne!(clip_settings_of(&demo).unwrap(), ClipSettings::default());
    }
}

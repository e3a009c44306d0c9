//! What a model's folder says about good settings for it.

use std::io::ErrorKind;
use std::path::Path;

use crate::model::wan::files::ModelFiles;

use super::EngineError;

/// Frames a second that files of clips can say.
const MOST_FPS: u32 = 240;

/// The text of a file that need not be there.
///
/// # Errors
/// It is there and cannot be read.
pub(super) fn read_if_there(path: &Path) -> Result<Option<String>, EngineError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(EngineError::Request(format!("cannot read {}: {error}", path.display()))),
    }
}

/// Settings used where the user gives none. A model folder may hold them as `ditscope.json`; what it leaves out is Wan2.1's own.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(default)]
pub struct Defaults {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Frames of a clip.
    pub num_frames: usize,
    /// Denoising steps.
    pub num_inference_steps: usize,
    /// Guidance.
    pub guidance_scale: f64,
    /// Frames a second.
    pub fps: u32,
}

impl Default for Defaults {
    /// Wan2.1 T2V at 480p: `generate.py` and the model's README.
    fn default() -> Self {
        Self { width: 832, height: 480, num_frames: 81, num_inference_steps: 50, guidance_scale: 5.0, fps: 16 }
    }
}

impl Defaults {
    /// Those of a model's folder.
    ///
    /// # Errors
    /// The folder holds no model, or its `ditscope.json` cannot be read as settings.
    pub fn of_model(folder: &Path) -> Result<Self, EngineError> {
        ModelFiles::find(folder)?;
        let path = folder.join("ditscope.json");
        let Some(text) = read_if_there(&path)? else { return Ok(Self::default()) };
        Self::parse(&text)
            .map_err(|why| EngineError::Request(format!("{} does not hold settings: {why}", path.display())))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let found: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        match found.fps {
            1..=MOST_FPS => Ok(found),
            fps => Err(format!("fps is 1 to {MOST_FPS}, not {fps}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_that_no_file_can_say_are_refused() {
        let parse = |fps: u32| Defaults::parse(&format!("{{\"fps\": {fps}}}"));
        assert_eq!(parse(240).unwrap(), Defaults { fps: 240, ..Defaults::default() });
        assert!(parse(0).is_err() && parse(241).is_err());
    }

    #[test]
    fn a_folder_without_a_model_has_no_settings() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Defaults::of_model(folder.path()), Err(EngineError::Model(_))));
        std::fs::write(folder.path().join("ditscope.json"), "{}").unwrap();
        assert!(matches!(Defaults::of_model(folder.path()), Err(EngineError::Model(_))));
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo-model");
        assert_ne!(Defaults::of_model(&demo).unwrap(), Defaults::default());
    }
}

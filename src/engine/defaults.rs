//! What a model's folder says about good settings for it.

use std::path::Path;

use crate::model::wan::files::ModelFiles;

use super::EngineError;

/// Frames a second that files of clips can say.
const MOST_FPS: u32 = 240;

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
        let Ok(text) = std::fs::read_to_string(&path) else { return Ok(Self::default()) };
        let wrong = |why: String| EngineError::Request(format!("{} does not hold settings: {why}", path.display()));
        let found: Self = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        match found.fps {
            1..=MOST_FPS => Ok(found),
            fps => Err(wrong(format!("fps is 1 to {MOST_FPS}, not {fps}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_a_model_has_no_settings() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Defaults::of_model(folder.path()), Err(EngineError::Model(_))));
        std::fs::write(folder.path().join("ditscope.json"), "{}").unwrap();
        assert!(matches!(Defaults::of_model(folder.path()), Err(EngineError::Model(_))));
        let fast = |fps: u32| {
            std::fs::write(folder.path().join("model_index.json"), "{\"_class_name\": \"WanPipeline\"}").unwrap();
            std::fs::write(folder.path().join("ditscope.json"), format!("{{\"fps\": {fps}}}")).unwrap();
            Defaults::of_model(folder.path())
        };
        assert!(matches!(fast(0), Err(EngineError::Request(_))) && matches!(fast(1000), Err(EngineError::Request(_))));
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo-model");
        assert_ne!(Defaults::of_model(&demo).unwrap(), Defaults::default());
    }
}

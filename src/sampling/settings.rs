//! The settings of a clip.

use serde::{Deserialize, Serialize};

/// The size and length of a clip, and the numbers of its sampling. Requests, captures, profiles and
/// the window's form each hold one value of this type. [`super::limits`] lists the limits. Outside
/// this crate a value begins as the default, or as the settings of a model, and its fields are set.
///
/// A field that is missing in a file has its value of [`ClipSettings::default`]. The aliases are
/// names of older files.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ClipSettings {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Number of frames: `4 n + 1` for a VAE that compresses time by 4.
    #[serde(alias = "frames")]
    pub num_frames: usize,
    /// Requested number of denoising steps. A strategy may take fewer.
    #[serde(alias = "steps")]
    pub num_inference_steps: usize,
    /// Scale of classifier-free guidance. The unconditional branch runs only above 1.
    #[serde(alias = "guidance")]
    pub guidance_scale: f64,
    /// Shift of the sigma schedule. `None` takes the model's own shift.
    pub flow_shift: Option<f64>,
    /// Seed of the initial noise.
    pub seed: u64,
    /// Frames per second.
    pub fps: u32,
}

impl Default for ClipSettings {
    /// Wan2.1 text-to-video at 480p, from its `generate.py` and README.
    fn default() -> Self {
        Self {
            width: 832,
            height: 480,
            num_frames: 81,
            num_inference_steps: 50,
            guidance_scale: 5.0,
            flow_shift: None,
            seed: 0,
            fps: 16,
        }
    }
}

impl ClipSettings {
    /// Whether the unconditional branch runs.
    pub fn guided(&self) -> bool {
        self.guidance_scale > 1.0
    }

    /// Width and height in pixels.
    pub fn size(&self) -> (usize, usize) {
        (self.width, self.height)
    }
}

/// The solver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum SchedulerChoice {
    /// UniPC.
    UniPc,
    /// Flow-match Euler.
    Euler,
}

impl SchedulerChoice {
    /// Its name in commands, captures and profiles.
    pub fn name(self) -> &'static str {
        match self {
            Self::UniPc => "unipc",
            Self::Euler => "euler",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::Guidance;

    #[test]
    fn older_names_are_read() {
        let read = |text| serde_json::from_str::<ClipSettings>(text).unwrap();
        let defaults = ClipSettings::default();
        assert_eq!(read("{}"), defaults);
        let expected = ClipSettings { num_frames: 5, num_inference_steps: 7, guidance_scale: 2.5, ..defaults };
        assert_eq!(read(r#"{"frames": 5, "steps": 7, "guidance": 2.5}"#), expected);
        assert_eq!(read(&serde_json::to_string(&expected).unwrap()), expected);
    }

    #[test]
    fn guided_means_that_guidance_needs_a_second_branch() {
        for guidance_scale in [0.5, 1.0, 1.5, 5.0] {
            let clip = ClipSettings { guidance_scale, ..ClipSettings::default() };
            assert_eq!(clip.guided(), Guidance::new(guidance_scale).unwrap().needs_uncond());
        }
    }
}

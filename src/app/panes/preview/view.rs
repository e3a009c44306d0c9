//! The settings of the preview, and its place in the clip.

use super::attention;
use crate::app::data::runs::{Run, Runs};
use crate::app::data::selection::Selection;

/// How the preview compares runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Compare {
    /// The current run alone.
    #[default]
    Single,
    /// The baseline left of a line that can be moved, the current run right of it.
    Split,
    /// The difference of both, amplified.
    Difference,
    /// All shown runs.
    SideBySide,
}

/// The settings of the preview, and its place in the clip.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct View {
    /// The frame on show, from 0.
    #[serde(skip)]
    pub frame: usize,
    /// Whether frames or steps are played.
    #[serde(skip)]
    pub playing: bool,
    /// When the frame on show came up, in the context's seconds.
    #[serde(skip)]
    pub frame_since: f64,
    /// Whether the attention of the pinned cell is subtracted.
    pub minus_pinned: bool,
    /// Whether attention paid to the subject's words is shown in place of attention received.
    pub paid: bool,
    /// Whether steps are played in place of frames.
    pub through_steps: bool,
    /// Whether the first frame follows the last one.
    pub looping: bool,
    /// Opacity of the attention over the frame; 0 for none.
    pub opacity: f32,
    /// Whether the outline of the mask is shown.
    pub outline: bool,
    /// Whether attention lies over the finished clip, in place of the estimate of its step.
    pub over_clip: bool,
    /// How runs are compared.
    pub compare: Compare,
    /// Place of the split line, 0 to 1.
    pub split: f32,
}

impl Default for View {
    fn default() -> Self {
        Self {
            frame: 0,
            playing: false,
            frame_since: 0.0,
            minus_pinned: false,
            paid: false,
            through_steps: false,
            looping: true,
            opacity: 0.75,
            outline: false,
            over_clip: true,
            compare: Compare::Single,
            split: 0.5,
        }
    }
}

impl View {
    /// The comparison on show: the chosen one, if there is a run to compare with.
    pub fn mode(&self, runs: &Runs) -> Compare {
        match self.compare {
            Compare::Split | Compare::Difference if runs.shown_baseline().is_none() => Compare::Single,
            other => other,
        }
    }

    /// These settings with the selection that all panes share.
    pub fn look<'a>(&'a self, selection: &'a Selection) -> Look<'a> {
        Look { view: self, selection }
    }
}

/// The settings of the preview with the selection that all panes share.
#[derive(Clone, Copy)]
pub struct Look<'a> {
    /// The settings of the preview.
    pub view: &'a View,
    /// The shared selection.
    pub selection: &'a Selection,
}

impl Look<'_> {
    /// Whether a cell of a run is marked whose attention is shown.
    pub fn marks(&self, run: &Run) -> bool {
        let cell = self.selection.pinned.is_some() || self.selection.block.is_some();
        cell && self.view.opacity > 0.0 && !attention::overlays(run, *self).is_empty()
    }

    /// The step whose estimate a run shows, or `None` for its clip. The attention of a marked cell
    /// lies over the finished clip unless the user looks at estimates.
    pub fn step(&self, run: &Run) -> Option<usize> {
        let clip = self.view.over_clip && !self.view.through_steps && run.capture.clip.is_some();
        self.selection.step.filter(|_| !(clip && self.marks(run)))
    }
}

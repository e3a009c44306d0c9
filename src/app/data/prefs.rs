//! Preferences of the user.

use std::path::{Path, PathBuf};

/// Preferences. They last from one start of the window to the next.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Prefs {
    /// Dark, light, or the system's.
    pub theme: egui::ThemePreference,
    /// Scale of everything, 1 for normal size.
    pub zoom: f32,
    /// The first-start hints were dismissed.
    pub hints_seen: bool,
    /// What runs tell of their model is kept, and plans are made from it.
    pub learning: bool,
    /// Captures opened or saved, newest first.
    pub recent: Vec<PathBuf>,
    /// Models used, newest first.
    pub models: Vec<PathBuf>,
    /// The GPU to compute on, by its label; the strongest that works if `None`.
    pub gpu: Option<String>,
}

impl Default for Prefs {
    fn default() -> Self {
        let theme = egui::ThemePreference::System;
        Self { theme, zoom: 1.0, hints_seen: false, learning: true, recent: Vec::new(), models: Vec::new(), gpu: None }
    }
}

impl Prefs {
    const MOST: usize = 10;

    /// Puts a capture on top of the recent ones.
    pub fn remember_capture(&mut self, path: &Path) {
        remember(&mut self.recent, path);
    }

    /// Puts a model on top of the recent ones.
    pub fn remember_model(&mut self, path: &Path) {
        remember(&mut self.models, path);
    }
}

fn remember(list: &mut Vec<PathBuf>, path: &Path) {
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.into());
    list.retain(|other| *other != path);
    list.insert(0, path);
    list.truncate(Prefs::MOST);
}

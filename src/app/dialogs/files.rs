//! What the window saves and what is dropped on it.

use std::path::{Path, PathBuf};

use crate::engine::{Capture, EngineError, clip_settings_of};
use crate::media::Clip;

use crate::app::App;
use crate::app::data::state::{Action, Level};
use crate::app::draw::figures::{self, Figure};
use crate::app::panes::map::cells::Cells;
use crate::app::panes::map::export;
use crate::app::panes::preview::brush;
use crate::app::panes::strategy::custom;

impl App {
    pub(in crate::app) fn save(&mut self, action: &Action) {
        let Some(run) = self.state.runs.current() else { return };
        match action {
            Action::SaveCapture => self.link.save_capture(run.id, run.capture.clone()),
            Action::SaveClip => self.link.save_clip(run.id, run.capture.clone()),
            _ => {
                let cells = Cells::of(&self.state);
                self.link
                    .save_map(export::svg(&cells, &export::Labels::of(&self.state, run, &cells)), export::csv(&cells));
            }
        }
    }

    pub(in crate::app) fn save_figure(&mut self, which: Figure) {
        match figures::figure(&self.state, which) {
            Ok((svg, name)) => self.link.save_figure(svg, name),
            Err(error) => self.state.log.add(Level::Note, error),
        }
    }

    pub(in crate::app) fn open_mask(&mut self, path: PathBuf) {
        match self.state.runs.current() {
            Some(run) => self.link.load_mask(path, run.id, run.capture.run.token_grid),
            None => self.state.log.add(Level::Note, "Open a capture or generate first: a mask belongs to a run."),
        }
    }

    pub(in crate::app) fn save_mask(&mut self) {
        let Some((run, bits)) = self.state.runs.current().and_then(|run| Some((run, run.mask()?))) else { return };
        match brush::pictures(bits, run.capture.run.token_grid) {
            Ok(clip) => self.link.save_mask(clip),
            Err(error) => self.state.log.add(Level::Warning, error),
        }
    }

    pub(in crate::app) fn save_strategy(&self) {
        let strategy = self.state.form.strategy();
        let (name, json) = (custom::file_name(strategy), strategy.to_json());
        self.link.save_json("Save the strategy", &name, || Ok(json));
    }

    pub(in crate::app) fn export_profile(&self) {
        let (model, background) = (self.state.form.model.clone(), custom::background(&self.state));
        let json = move || custom::profile_json(&model, background);
        self.link.save_json("Export a profile", "profile-by-hand.json", json);
    }

    /// What was dropped on the window: captures, a model's folder, strategies, or pictures of a mask.
    pub(in crate::app) fn dropped(&mut self, ctx: &egui::Context) {
        let paths: Vec<PathBuf> =
            ctx.input(|input| input.raw.dropped_files.iter().map(|file| file.path().to_path_buf()).collect());
        for path in paths {
            let ends = |end: &str| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(end));
            self.state.ask(match () {
                () if is_mask(&path) => Action::OpenMask(path),
                () if path.is_dir() => Action::UseModel(path),
                () if ends("png") || ends("apng") || ends("gif") => Action::OpenMask(path),
                () if ends("json") => Action::OpenStrategy(path),
                () => Action::Open(path),
            });
        }
    }
}

/// Whether a folder holds pictures and no model: the frames of a mask.
fn is_mask(folder: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    let picture = |path: PathBuf| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png"));
    entries.flatten().any(|entry| picture(entry.path()))
        && matches!(clip_settings_of(folder), Err(EngineError::Model(_)))
}

/// A run's clip, to be written.
pub(in crate::app) fn clip(capture: &Capture) -> Result<Clip, String> {
    let frames = capture.clip.as_ref().ok_or("This run has no clip yet.")?;
    let (width, height) = (frames.width as u32, frames.height as u32);
    Clip::new(width, height, capture.run.clip.fps, frames.frames.clone()).map_err(|error| error.to_string())
}

/// Says what a drop will do while something is dragged over the window.
pub(in crate::app) fn drop_target(ui: &egui::Ui) {
    if ui.input(|input| input.raw.hovered_files.is_empty()) {
        return;
    }
    let rect = ui.ctx().content_rect();
    let layer = egui::LayerId::new(egui::Order::Foreground, egui::Id::unique("drop target"));
    let painter = ui.ctx().layer_painter(layer);
    painter.rect_filled(rect, 0.0, egui::Color32::from_black_alpha(190));
    let text = "Drop a capture or a strategy to open it, a model folder to use it, or pictures of a mask (or a folder of them)";
    painter.text(
        rect.center(),
        egui::Align2::CENTER_CENTER,
        text,
        egui::FontId::proportional(22.0),
        egui::Color32::WHITE,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_pictures_is_a_mask_unless_it_holds_a_model() {
        let folder = tempfile::tempdir().unwrap();
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo-model");
        assert!(!is_mask(folder.path()) && !is_mask(&demo) && !is_mask(Path::new("nowhere")));
        std::fs::write(folder.path().join("2.PNG"), "").unwrap();
        assert!(is_mask(folder.path()));
        std::fs::create_dir(folder.path().join("transformer")).unwrap();
        for file in ["config.json", "diffusion_pytorch_model.safetensors"] {
            let there = demo.join("transformer").join(file);
            std::fs::copy(&there, folder.path().join("transformer").join(file)).unwrap();
        }
        assert!(!is_mask(folder.path()));
    }
}

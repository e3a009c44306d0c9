//! Files and folders that are dropped on the window.

use std::path::{Path, PathBuf};

use crate::app::App;
use crate::app::actions::Action;
use crate::engine::{EngineError, clip_settings_of};

impl App {
    /// Opens what was dropped on the window: captures, a model's folder, strategies, or pictures of
    /// a mask.
    pub(in crate::app) fn dropped(&mut self, ctx: &egui::Context) {
        let paths: Vec<PathBuf> =
            ctx.input(|input| input.raw.dropped_files.iter().map(|file| file.path().to_path_buf()).collect());
        for path in paths {
            let ends = |end: &str| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(end));
            self.actions.ask(match () {
                () if is_mask(&path) => Action::OpenMask(path),
                () if path.is_dir() => Action::UseModel(path),
                () if ends("png") || ends("apng") || ends("gif") => Action::OpenMask(path),
                () if ends("json") => Action::OpenStrategy(path),
                () => Action::OpenCapture(path),
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

/// Tells what a drop will do while something is dragged over the window.
pub fn drop_target(ui: &egui::Ui) {
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

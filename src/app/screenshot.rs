//! The window as a picture, drawn without a display.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};

use crate::engine::capture::file;

use crate::app::App;
use crate::app::Options;
use crate::app::data::selection::MapCell;
use crate::app::draw::fonts;
use crate::app::system_dialogs;

/// A picture of the window to be drawn.
#[derive(Clone, Debug)]
pub struct Screenshot {
    /// The capture on show.
    pub capture: PathBuf,
    /// The capture of the baseline.
    pub baseline: Option<PathBuf>,
    /// Width and height in pixels.
    pub size: [u32; 2],
    /// Pixels per point: 2 for 200 %.
    pub scale: f32,
    /// Dark, or light.
    pub dark: bool,
    /// Block and step whose attention is shown.
    pub cell: Option<[usize; 2]>,
}

/// Largest side of a picture, in pixels.
const LARGEST_SIDE: u32 = 8192;

/// RGBA rows of the picture, and its width and height.
///
/// # Errors
/// The capture cannot be opened, the size is too small or large, or no device can draw.
pub fn screenshot(wanted: &Screenshot) -> anyhow::Result<(Vec<u8>, u32, u32)> {
    let [width, height] = wanted.size;
    if !(200..=LARGEST_SIDE).contains(&width) || !(200..=LARGEST_SIDE).contains(&height) {
        bail!("a picture of {width}x{height} pixels cannot be made: each side must be 200 to {LARGEST_SIDE}");
    }
    let baseline = wanted.baseline.as_deref().map(file::open).transpose()?;
    let loaded = file::open(&wanted.capture)?;
    let no_engine = |_: Option<&str>| anyhow::bail!("a screenshot generates nothing");
    let options = Options {
        open_engine: Arc::new(no_engine),
        list_gpus: Arc::new(|| Ok(Vec::new())),
        gpu: None,
        pick_adapter: None,
        choose: system_dialogs(),
        demo_model: None,
        model: None,
        learnt: None,
        capture: None,
        demo_capture: None,
        history: None,
    };
    let mut harness = egui_kittest::Harness::builder()
        .with_size(egui::vec2(width as f32, height as f32) / wanted.scale)
        .with_pixels_per_point(wanted.scale)
        .wgpu()
        .build_eframe(|cc| App::new(cc, options));
    fonts::install(&harness.ctx);
    let app = harness.state_mut();
    app.shared.prefs.theme = if wanted.dark { egui::ThemePreference::Dark } else { egui::ThemePreference::Light };
    app.shared.prefs.hints_seen = true;
    if let Some(baseline) = baseline {
        let id = app.shared.runs.add(baseline.capture, false, None);
        app.shared.runs.set_baseline(Some(id));
    }
    app.add_loaded(wanted.capture.clone(), loaded.capture, loaded.damage);
    app.take_over_run();
    if let Some([block, step]) = wanted.cell {
        app.shared.selection.select(MapCell { step, block });
    }
    // Sizes settle within a few frames; nothing moves after that.
    harness.run_steps(6);
    let image = harness.render().map_err(anyhow::Error::msg).context("no device could draw the window")?;
    Ok((opaque(image.as_raw(), harness.ctx.global_style().visuals.panel_fill), image.width(), image.height()))
}

/// A picture over the colour that a window is cleared with. Both are RGBA with premultiplied alpha.
/// The harness clears to transparency.
pub fn opaque(rgba: &[u8], cleared: egui::Color32) -> Vec<u8> {
    let over = |pixel: &[u8]| egui::Color32::from_rgba_premultiplied(pixel[0], pixel[1], pixel[2], pixel[3]);
    rgba.chunks_exact(4).flat_map(|pixel| cleared.blend(over(pixel)).to_array()).collect()
}

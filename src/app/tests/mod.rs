//! The window as users see and use it: pictures of every pane and of the whole window, and the
//! effect of controls, which are found by their accessible names.
//!
//! `UPDATE_SNAPSHOTS=1 cargo test --release --lib app::` draws the pictures of `tests/snapshots`
//! again.

mod folders;
mod history;
mod jobs;
mod layout;
mod panes;
mod pictures;
pub mod sample;
mod studies;
mod tools;
mod window;

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use eframe::egui_wgpu::{self, RendererOptions, WgpuSetup, WgpuSetupExisting};
use egui::vec2;
use egui_kittest::Harness;

use crate::app::data::likeness::Comparison;
use crate::app::data::runs::Run;
use crate::app::data::selection::{CellArea, MapCell};
use crate::app::panes::map::MapPane;
use crate::app::panes::preview::PreviewPane;
use crate::app::screenshot::opaque;
use crate::app::*;
use crate::caching::PublishedTea;
use crate::engine::RequestInfo;
use crate::media::Clip;
use sample::Kind;

/// One device for all tests: opening one takes longer than drawing.
pub static SETUP: LazyLock<WgpuSetupExisting> = LazyLock::new(|| {
    let mut setup = WgpuSetup::without_display_handle();
    if let WgpuSetup::CreateNew(new) = &mut setup {
        new.instance_descriptor.backends = eframe::wgpu::Backends::PRIMARY;
    }
    let state = egui_kittest::wgpu::create_render_state(setup, RendererOptions::PREDICTABLE);
    let egui_wgpu::RenderState { instance, adapter, device, queue, .. } = state;
    WgpuSetupExisting { instance, adapter, device, queue }
});

pub fn options() -> Options {
    let open_engine = Arc::new(|_: Option<&str>| Err(anyhow::anyhow!("there is no GPU in this test")));
    Options {
        open_engine,
        list_gpus: Arc::new(|| Ok(vec!["Weak (Vulkan)".into(), "Strong (Dx12)".into()])),
        gpu: None,
        pick_adapter: None,
        choose: system_dialogs(),
        demo_model: None,
        model: None,
        learnt: None,
        capture: None,
        demo_capture: None,
        history: None,
    }
}

/// An empty window.
pub fn window(size: [f32; 2], scale: f32) -> Harness<'static, App> {
    Harness::builder()
        .with_size(vec2(size[0], size[1]))
        .with_pixels_per_point(scale)
        .wgpu_setup(WgpuSetup::Existing(SETUP.clone()))
        .build_eframe(|cc| App::new(cc, options()))
}

/// Cells of the map from a first to a last step, and from a first to a last block.
pub fn area([s0, s1, b0, b1]: [usize; 4]) -> Option<CellArea> {
    Some(CellArea::between(MapCell { step: s0, block: b0 }, MapCell { step: s1, block: b1 }))
}

/// The map of a window.
pub fn map(app: &mut App) -> &mut MapPane {
    app.panes.get_mut().expect("a map")
}

/// The preview of a window.
pub fn preview(app: &mut App) -> &mut PreviewPane {
    app.panes.get_mut().expect("a preview")
}

/// A state with an uncached and a cached run, without hints.
pub fn fill(app: &mut App, dark: bool) {
    let state = &mut app.shared;
    state.prefs.hints_seen = true;
    state.prefs.theme = if dark { egui::ThemePreference::Dark } else { egui::ThemePreference::Light };
    let off = state.runs.add(sample::capture(Kind::Off), false, None);
    state.runs.set_baseline(Some(off));
    let run = sample::capture(Kind::Uniform);
    state.log.add(Level::Warning, run.warnings[0].clone());
    state.runs.add(run, false, None);
    app.take_over_run();
    let info = sample::capture(Kind::Off).run;
    let cost = info.cost.clone().unwrap();
    app.shared.model.facts = Some(Ok(RequestInfo {
        blocks: 8,
        token_grid: info.token_grid,
        delta_bytes: 320 * 256 * 4,
        flow_shift: info.flow_shift(),
        sigmas: info.sigmas,
        scheduler: info.scheduler,
        model_id: info.model_id,
        former_ids: Vec::new(),
        vae_id: String::new(),
        gpu_memory: 0,
        published_tea: PublishedTea::default(),
        cost,
    }));
    app.shared.selection.select(MapCell { step: 10, block: 5 });
}

pub fn filled(size: [f32; 2], scale: f32, dark: bool) -> Harness<'static, App> {
    let mut harness = window(size, scale);
    fill(harness.state_mut(), dark);
    harness.run_steps(6);
    // PSNR and SSIM come from a thread of their own.
    wait(&mut harness, |state| {
        state.runs.iter().all(|run| state.runs.reference_of(run).is_none() || compared(state, run))
    });
    harness
}

/// Whether the comparison of a run's clip with the baseline's has ended.
pub fn compared(state: &Shared, run: &Run) -> bool {
    matches!(state.comparison(run), Some(Comparison::Found(_) | Comparison::Cannot))
}

/// Compares a picture with the stored one. Adapters may round edges of glyphs and lines
/// differently: few pixels may differ.
pub fn check<T>(name: &str, harness: &mut Harness<'_, T>) {
    const FAR: u8 = 40;
    const MOST: f64 = 0.01;
    const DRAW: &str = "UPDATE_SNAPSHOTS=1 draws the pictures anew";
    let image = harness.render().expect("a picture");
    let rgba = opaque(image.as_raw(), harness.ctx.global_style().visuals.panel_fill);
    let rgb: Vec<u8> = rgba.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect();
    let (width, height) = (image.width(), image.height());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/snapshots/{name}.png"));
    let write = |path: &Path| {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let clip = Clip::new(width, height, 1, vec![rgb.clone()]).unwrap();
        crate::media::write(path, &clip, "").unwrap();
    };
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        return write(&path);
    }
    let file = std::fs::File::open(&path).unwrap_or_else(|error| panic!("{}: {error}; {DRAW}", path.display()));
    let decoder = png::Decoder::new(std::io::BufReader::new(file));
    let mut reader = decoder.read_info().unwrap();
    let mut stored = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut stored).unwrap();
    assert_eq!((info.width, info.height), (width, height), "{name}; {DRAW}");
    let pairs = stored.chunks_exact(3).zip(rgb.chunks_exact(3));
    let far = pairs.filter(|(a, b)| a.iter().zip(*b).any(|(a, b)| a.abs_diff(*b) > FAR)).count();
    let share = far as f64 / f64::from(width * height);
    if share > MOST {
        let new = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("target/snapshots/{name}.png"));
        write(&new);
        panic!("{name}: {:.2} % of the pixels differ; see {}; {DRAW}", share * 100.0, new.display());
    }
}

/// Waits until messages of other threads have brought the window into a state.
pub fn wait(harness: &mut Harness<'_, App>, until: impl Fn(&Shared) -> bool) {
    let start = Instant::now();
    while !until(&harness.state().shared) {
        assert!(start.elapsed().as_secs() < 20, "nothing happened");
        std::thread::sleep(std::time::Duration::from_millis(5));
        harness.run_steps(1);
    }
    harness.run_steps(2);
}

/// A storage in memory.
#[derive(Default)]
struct Stored(std::collections::HashMap<String, String>);

impl eframe::Storage for Stored {
    fn get_string(&self, key: &str) -> Option<String> {
        self.0.get(key).cloned()
    }

    fn set_string(&mut self, key: &str, value: String) {
        self.0.insert(key.into(), value);
    }

    fn remove_string(&mut self, key: &str) {
        self.0.remove(key);
    }

    fn flush(&mut self) {}
}

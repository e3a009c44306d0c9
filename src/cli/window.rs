//! `ditscope` without a command, which opens the window.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::app::{self, Options};
use crate::engine::Engine;
use crate::engine::capture::file::{CaptureError, read};
use crate::gpu::{GpuError, adapter_for_window, list_adapters};
use crate::study::data_folder;

use super::{GpuArgs, WrongUse, demo_model, shipped};

/// Longest GPU time of one submit. The window draws 60 frames per second on the same GPU.
const SUBMIT_BUDGET: Duration = Duration::from_millis(12);

/// The first bytes of a capture: its mark and version.
const HEAD: u64 = 12;

/// Why a file cannot be shown, as far as its first bytes tell. A damaged capture can be shown in
/// part.
fn not_a_capture(path: &Path) -> Option<String> {
    let file = std::fs::File::open(path).map_err(|source| CaptureError::Io { path: path.into(), source });
    match file.and_then(|file| read(file.take(HEAD), path)) {
        Err(error @ CaptureError::Foreign(_)) => {
            Some(format!("{error}; `ditscope generate PROMPT --capture FILE` makes one"))
        }
        Err(error @ CaptureError::Io { .. }) => Some(error.to_string()),
        Ok(_) | Err(_) => None,
    }
}

/// Opens the window, with a recorded run or a model's folder if one is named.
pub fn run(place: Option<PathBuf>, gpu: GpuArgs) -> anyhow::Result<()> {
    if let Some(place) = &place
        && !place.exists()
    {
        let message = format!("there is neither a command nor a file or folder called {}", place.display());
        return Err(WrongUse(message).into());
    }
    let (model, capture) = match place {
        Some(place) if place.is_dir() => (Some(place), None),
        place => (None, place),
    };
    if let Some(model) = &model {
        crate::model::find(model)?;
    }
    if let Some(capture) = &capture
        && let Some(why) = not_a_capture(capture)
    {
        return Err(WrongUse(why).into());
    }
    if app::display() == app::Display::None {
        let hint = match &capture {
            Some(capture) => format!("ditscope screenshot {} -o window.png", capture.display()),
            None => "ditscope generate \"a cat walking on grass\"".into(),
        };
        return Err(WrongUse(format!("there is no display to open the window on; try: {hint}")).into());
    }
    let wanted = gpu.device.clone();
    let pick_adapter = move |adapters: &[wgpu::Adapter], surface: Option<&wgpu::Surface<'_>>| {
        adapter_for_window(adapters, surface, wanted.as_deref()).map_err(|error| error.to_string())
    };
    // The engine gets a device of its own. The window's device draws while the engine's device
    // computes, and losing one device does not affect the other.
    let device = gpu.device.clone();
    let open_engine = move |chosen: Option<&str>| {
        let gpu = GpuArgs { device: chosen.map(str::to_owned), ..gpu.clone() }.open_quietly()?;
        let warnings = gpu.warnings().to_vec();
        Ok((Engine::start(gpu, SUBMIT_BUDGET)?, warnings))
    };
    let list_gpus = || Ok(list_adapters()?.iter().map(|adapter| adapter.label()).collect());
    let closed = app::run(Options {
        open_engine: Arc::new(open_engine),
        list_gpus: Arc::new(list_gpus),
        gpu: device,
        pick_adapter: Some(Arc::new(pick_adapter)),
        choose: app::system_dialogs(),
        demo_model: demo_model().ok(),
        model: model.map(|model| std::path::absolute(&model).unwrap_or(model)),
        learnt: data_folder(),
        capture,
        history: app::history_folder(),
        demo_capture: shipped("assets/demo.capture", Path::is_file),
    });
    match closed {
        // The window's toolkit says less.
        Err(_) if list_adapters()?.is_empty() => Err(GpuError::NoAdapter.into()),
        closed => closed,
    }
}

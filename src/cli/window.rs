//! `ditscope` without a command, which opens the window.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::app::{self, Options};
use crate::engine::Engine;

use super::{GpuArgs, WrongUse, demo_model, shipped};

/// Longest GPU time of one submit. The window draws 60 frames per second on the same GPU.
const SUBMIT_BUDGET: Duration = Duration::from_millis(12);

/// Whether this machine has a display for a window.
fn has_display() -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    cfg!(any(windows, target_os = "macos")) || set("DISPLAY") || set("WAYLAND_DISPLAY")
}

/// Opens the window, with a recorded run if one is named.
pub fn run(capture: Option<PathBuf>) -> anyhow::Result<()> {
    if let Some(capture) = &capture
        && !capture.exists()
    {
        return Err(WrongUse(format!("there is neither a command nor a file called {}", capture.display())).into());
    }
    if !has_display() {
        let hint = match &capture {
            Some(capture) => format!("ditscope screenshot {} -o window.png", capture.display()),
            None => "ditscope generate \"a cat walking on grass\"".into(),
        };
        return Err(WrongUse(format!("there is no display to open the window on; try: {hint}")).into());
    }
    // The engine gets a device of its own. The window's device draws while the engine's device
    // computes, and losing one device does not affect the other.
    let open_engine = || {
        let gpu = GpuArgs::default().open()?;
        Ok(Engine::start(gpu, SUBMIT_BUDGET)?)
    };
    app::run(Options {
        open_engine: Arc::new(open_engine),
        choose: app::system_dialogs(),
        demo_model: demo_model().ok(),
        capture,
        demo_capture: shipped("assets/demo.capture", Path::is_file),
    })
}

//! Operates the window with a real engine like a user, by the names that screen readers announce.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ditscope::app::{App, Chosen, Dialog, Options, Purpose};
use ditscope::engine::{Engine, capture::file};
use ditscope::gpu::{Gpu, GpuOptions};
use egui::{Event, Key, Modifiers, vec2};
use egui_kittest::Harness;
use egui_kittest::kittest::Queryable;

pub(crate) type Window = Harness<'static, App>;

/// The window. Its save dialogs choose `folder` and the offered file name.
pub(crate) fn window(folder: &Path) -> Window {
    let folder = folder.to_owned();
    let choose = move |dialog: Dialog| -> Chosen {
        let path = match dialog.purpose {
            Purpose::Save(name) => Some(folder.join(name)),
            Purpose::Open | Purpose::Folder => None,
        };
        Box::pin(std::future::ready(path))
    };
    let open_engine = |_: Option<&str>| {
        let gpu = Gpu::open(&GpuOptions::default())?;
        Ok((Engine::start(gpu, Duration::from_millis(12))?, Vec::new()))
    };
    let demo_model = Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo-model"));
    let options = Options {
        open_engine: Arc::new(open_engine),
        list_gpus: Arc::new(|| Ok(Vec::new())),
        gpu: None,
        pick_adapter: None,
        choose: Arc::new(choose),
        demo_model,
        learnt: None,
        capture: None,
        model: None,
        demo_capture: None,
        history: None,
    };
    Harness::builder().with_size(vec2(1360.0, 860.0)).wgpu().build_eframe(|cc| App::new(cc, options))
}

/// Draws frames until the window shows something.
fn wait(window: &mut Window, what: &str, until: impl Fn(&Window) -> bool) {
    let start = Instant::now();
    while !until(window) {
        assert!(start.elapsed() < Duration::from_secs(120), "{what} never came");
        std::thread::sleep(Duration::from_millis(10));
        window.run_steps(1);
    }
}

/// Whether the window shows these words anywhere.
pub(crate) fn said(window: &Window, words: &str) -> bool {
    window.query_all_by_label_contains(words).next().is_some()
}

pub(crate) fn click(window: &mut Window, name: &str) {
    window.get_by_label(name).click();
    window.run_steps(2);
}

pub(crate) fn wait_for(window: &mut Window, name: &str) {
    wait(window, name, |window| window.query_by_label(name).is_some());
}

#[test]
fn a_prompt_becomes_a_clip_is_paused_compared_with_a_cached_one_and_exported() {
    let folder = tempfile::tempdir().unwrap();
    let mut window = window(folder.path());
    click(&mut window, "Got it");
    click(&mut window, "Off");
    window.get_by_label("Prompt").focus();
    window.run_steps(2);
    window.key_press_modifiers(Modifiers::COMMAND, Key::A);
    window.event(Event::Text("a dog walking left in the snow".into()));
    window.run_steps(2);

    click(&mut window, "Generate");
    wait_for(&mut window, "Show run #1 off");
    click(&mut window, "Pause");
    wait_for(&mut window, "Resume");
    assert!(said(&window, "a dog walking left in the snow"), "the run carries the prompt that was typed");
    click(&mut window, "Resume");
    wait_for(&mut window, "Generate");
    assert!(window.query_by_label("Run #1 off is the baseline").is_some());

    // A click makes a block background. The next run uses this partition as its strategy.
    click(&mut window, "Block 4, foreground: computed");
    assert!(window.query_by_label("Block 4, background: cached").is_some());
    click(&mut window, "Generate");
    wait_for(&mut window, "Show run #2 profiling");
    wait_for(&mut window, "Generate");
    wait(&mut window, "the PSNR", |window| said(window, " dB"));
    click(&mut window, "Side by side");

    click(&mut window, "Menu of the pane Blocks x steps");
    export(&mut window, "Save figure (SVG) or table (CSV)...", "map.svg");
    click(&mut window, "File");
    export(&mut window, "Save capture...", "run.capture");
    click(&mut window, "File");
    export(&mut window, "Save clip...", "clip.mp4");
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert!(read("map.svg").starts_with(b"<svg") && read("clip.mp4")[4..].starts_with(b"ftyp"));
    let saved = file::open(&folder.path().join("run.capture")).unwrap();
    assert_eq!((saved.damage, saved.capture.run.strategy.name()), (None, "profiling"));
    assert_eq!(saved.capture.steps.len(), saved.capture.run.steps());
}

/// Chooses an entry of a menu and waits until the window reports that the file is saved.
fn export(window: &mut Window, entry: &str, name: &str) {
    window.query_all_by_label_contains(entry).next().expect(entry).click();
    window.run_steps(2);
    wait(window, name, |window| said(window, "Saved ") && said(window, name));
}

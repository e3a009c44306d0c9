//! The window as users see and work it: pictures of every pane and of the whole, and what controls do, by their accessible names.
//!
//! `UPDATE_SNAPSHOTS=1 cargo test --release --lib app::` draws the pictures of `tests/snapshots` anew.

mod jobs;
pub(in crate::app) mod sample;
mod tools;

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use eframe::egui_wgpu::{self, RendererOptions, WgpuSetup, WgpuSetupExisting};
use egui::accesskit::Role;
use egui::{Key, Modifiers, vec2};
use egui_kittest::Harness;
use egui_kittest::kittest::{NodeT, Queryable};

use crate::app::data::plan_edit;
use crate::app::data::runs::Run;
use crate::app::data::state::{Compare, Job};
use crate::app::layout::Pane;
use crate::app::panes::map::colouring::Colouring;
use crate::app::screenshot::opaque;
use crate::app::tests::sample::Kind;
use crate::app::*;
use crate::caching::Origin;
use crate::engine::capture::file;
use crate::media::Clip;

/// One device for all tests: opening one takes longer than drawing.
pub(in crate::app) static SETUP: LazyLock<WgpuSetupExisting> = LazyLock::new(|| {
    let mut setup = WgpuSetup::without_display_handle();
    if let WgpuSetup::CreateNew(new) = &mut setup {
        new.instance_descriptor.backends = eframe::wgpu::Backends::PRIMARY;
    }
    let state = egui_kittest::wgpu::create_render_state(setup, RendererOptions::PREDICTABLE);
    let egui_wgpu::RenderState { instance, adapter, device, queue, .. } = state;
    WgpuSetupExisting { instance, adapter, device, queue }
});

pub(in crate::app) fn options() -> Options {
    let open_engine = Arc::new(|| Err(anyhow::anyhow!("there is no GPU in this test")));
    Options { open_engine, choose: system_dialogs(), demo_model: None, capture: None, demo_capture: None }
}

/// An empty window.
pub(in crate::app) fn window(size: [f32; 2], scale: f32) -> Harness<'static, App> {
    Harness::builder()
        .with_size(vec2(size[0], size[1]))
        .with_pixels_per_point(scale)
        .wgpu_setup(WgpuSetup::Existing(SETUP.clone()))
        .build_eframe(|cc| App::new(cc, options()))
}

/// A state with an uncached and a cached run, without hints.
pub(in crate::app) fn fill(app: &mut App, dark: bool) {
    let state = &mut app.state;
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
    app.state.facts = Some(Ok(Facts {
        blocks: 8,
        token_grid: info.token_grid,
        delta_bytes: 320 * 256 * 4,
        flow_shift: info.flow_shift(),
        sigmas: info.sigmas,
        scheduler: info.scheduler,
        model_id: info.model_id,
        vae_id: String::new(),
        gpu_memory: 0,
        published_tea: PublishedTea::default(),
        cost,
    }));
    (app.state.view.block, app.state.view.step) = (Some(5), Some(10));
    app.state.view.selection = Some([10, 10, 5, 5]);
}

pub(in crate::app) fn filled(size: [f32; 2], scale: f32, dark: bool) -> Harness<'static, App> {
    let mut harness = window(size, scale);
    fill(harness.state_mut(), dark);
    harness.run_steps(6);
    // PSNR and SSIM come from a thread of their own.
    wait(&mut harness, |state| {
        state.runs.iter().all(|run| state.runs.reference_of(run).is_none() || compared(state, run))
    });
    harness
}

/// Whether a run's clip was compared with the baseline's, one way or another.
pub(in crate::app) fn compared(state: &State, run: &Run) -> bool {
    matches!(state.comparison(run), Some(Comparison::Found(_) | Comparison::Cannot))
}

/// Compares a picture with the stored one. Adapters may round edges of glyphs and lines differently: few pixels may differ.
pub(in crate::app) fn check<T>(name: &str, harness: &mut Harness<'_, T>) {
    const FAR: u8 = 40;
    const MOST: f64 = 0.01;
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
    let decoder = png::Decoder::new(std::io::BufReader::new(std::fs::File::open(&path).expect("a stored picture")));
    let mut reader = decoder.read_info().unwrap();
    let mut stored = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut stored).unwrap();
    assert_eq!((info.width, info.height), (width, height), "{name}");
    let pairs = stored.chunks_exact(3).zip(rgb.chunks_exact(3));
    let far = pairs.filter(|(a, b)| a.iter().zip(*b).any(|(a, b)| a.abs_diff(*b) > FAR)).count();
    let share = far as f64 / f64::from(width * height);
    if share > MOST {
        let new = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("target/snapshots/{name}.png"));
        write(&new);
        panic!("{name}: {:.2} % of the pixels differ; see {}", share * 100.0, new.display());
    }
}

/// One pane alone, in both themes.
pub(in crate::app) fn pane(name: &str, pane: Pane, size: [f32; 2], change: impl Fn(&mut State)) {
    for (theme, dark) in [("dark", true), ("light", false)] {
        themed_pane(&format!("{name}-{theme}"), pane, size, dark, &change);
    }
}

fn themed_pane(name: &str, pane: Pane, size: [f32; 2], dark: bool, change: impl Fn(&mut State)) {
    let mut app = filled([400.0, 300.0], 1.0, dark);
    app.run_steps(1);
    let mut state = std::mem::take(&mut app.state_mut().state);
    // Textures belong to the window they were made for.
    state.pictures = crate::app::panes::preview::Pictures::default();
    change(&mut state);
    if state.view.colouring.is_score()
        && let Some(run) = state.runs.current()
    {
        while state.scores.advance(run, run, state.view.uncond) {}
    }
    state.prediction =
        Prediction::of(&state.form, state.facts.as_ref().and_then(|facts| facts.as_ref().ok()), None, state.blocks());
    let mut harness = Harness::builder()
        .with_size(vec2(size[0], size[1]))
        .wgpu_setup(WgpuSetup::Existing(SETUP.clone()))
        .with_theme(if dark { egui::Theme::Dark } else { egui::Theme::Light })
        .with_context_setup(theme::install)
        .build_ui_state(
            move |ui, state: &mut State| {
                let fill = theme::Palette::of(ui).pane;
                egui::Frame::new().fill(fill).inner_margin(8.0).show(ui, |ui| {
                    ui.set_min_size(ui.available_size());
                    pane.ui(ui, state);
                });
            },
            state,
        );
    harness.run_steps(4);
    check(name, &mut harness);
}

#[test]
fn pictures_of_the_window() {
    for (name, size, scale, dark) in [
        ("window-dark", [1360.0, 860.0], 1.0, true),
        ("window-light", [1360.0, 860.0], 1.0, false),
        ("window-narrow", [800.0, 640.0], 1.0, true),
        ("window-wide", [1920.0, 1000.0], 1.0, false),
        ("window-200-percent", [800.0, 500.0], 2.0, false),
    ] {
        check(name, &mut filled(size, scale, dark));
    }
    let mut empty = window([1100.0, 700.0], 1.0);
    empty.state_mut().state.prefs.theme = egui::ThemePreference::Dark;
    empty.run_steps(4);
    check("window-empty", &mut empty);
}

#[test]
fn pictures_of_panes() {
    pane("pane-strategy", Pane::Strategy, [300.0, 460.0], |state| state.form.choose("profiling"));
    pane("pane-strategy-plan", Pane::Strategy, [300.0, 540.0], |state| {
        let plans = state.prediction.plans.clone();
        state.form.use_plan("short walk", Origin::Hand, plans);
    });
    pane("pane-map-reuse", Pane::Map, [560.0, 300.0], |_| {});
    pane("pane-map-change", Pane::Map, [560.0, 300.0], |state| state.view.colouring = Colouring::Change);
    pane("pane-map-minus-baseline", Pane::Map, [560.0, 300.0], |state| {
        (state.view.colouring, state.view.subtract) = (Colouring::Time, true);
    });
    for (name, colouring) in [
        ("pane-map-lift", Colouring::Lift),
        ("pane-map-r-attn", Colouring::Recall),
        ("pane-map-auc", Colouring::Auc),
        ("pane-map-time", Colouring::Time),
    ] {
        pane(name, Pane::Map, [620.0, 300.0], |state| state.view.colouring = colouring);
    }
    pane("pane-numbers", Pane::Numbers, [300.0, 560.0], |_| {});
    pane("pane-steps", Pane::Steps, [360.0, 280.0], |_| {});
    pane("pane-log", Pane::Log, [500.0, 90.0], |_| {});
    pane("pane-runs", Pane::Runs, [620.0, 110.0], |_| {});
    pane("pane-preview", Pane::Preview, [460.0, 420.0], |_| {});
    pane("pane-preview-two-cells", Pane::Preview, [560.0, 380.0], |state| state.view.pinned = Some([3, 7]));
    pane("pane-preview-paint", Pane::Preview, [560.0, 420.0], |state| {
        (state.brush.on, state.view.block, state.view.through_steps) = (true, None, true);
    });
    pane("pane-preview-side-by-side", Pane::Preview, [560.0, 320.0], |state| {
        (state.view.compare, state.view.step, state.view.frame) = (Compare::SideBySide, None, 8);
    });
    pane("pane-preview-four-runs", Pane::Preview, [760.0, 360.0], |state| {
        let shown = state.runs.current().unwrap().id;
        for _ in 0..2 {
            let id = state.runs.add(sample::capture(Kind::Uniform), false, None);
            state.runs.put_beside(id, true);
        }
        state.runs.show(shown);
        (state.view.compare, state.view.step, state.view.frame) = (Compare::SideBySide, None, 8);
    });
    pane("pane-preview-split", Pane::Preview, [460.0, 380.0], |state| {
        (state.view.compare, state.view.step, state.view.frame) = (Compare::Split, None, 8);
    });
    pane("pane-preview-paid", Pane::Preview, [460.0, 420.0], |state| state.view.paid = true);
    pane("pane-preview-difference", Pane::Preview, [460.0, 380.0], |state| {
        (state.view.compare, state.view.step) = (Compare::Difference, None);
    });
}

#[test]
fn every_control_has_a_name() {
    let mut harness = filled([1360.0, 860.0], 1.0, true);
    let ids: Vec<String> = harness.state().state.form.strategies.iter().map(|listed| listed.config.id()).collect();
    for chosen in ids {
        harness.state_mut().state.form.choose(&chosen);
        harness.run_steps(2);
        let named = |node: &egui_kittest::Node<'_>| {
            let node = node.accesskit_node();
            node.label().is_some_and(|label| !label.trim().is_empty())
                || node.labelled_by().any(|by| by.label().is_some() || by.value().is_some())
        };
        let control = |role| {
            use Role::*;
            matches!(
                role,
                Button | CheckBox | RadioButton | Slider | SpinButton | TextInput | MultilineTextInput | ComboBox
            )
        };
        // Pictures and maps are controls where they can be clicked. Low and narrow ones are the docking's own bars and handles.
        let clicked = |node: &egui_kittest::Node<'_>| {
            use egui::accesskit::Action;
            let (data, role) = (node.accesskit_node().data(), node.accesskit_node().role());
            matches!(role, Role::Unknown | Role::Image | Role::Canvas)
                && data.supports_action(Action::Click)
                && node.rect().size().min_elem() > 30.0
        };
        let nodes = harness.root().children_recursive();
        let nameless: Vec<_> = nodes
            .filter(|node| (control(node.accesskit_node().role()) || clicked(node)) && !named(node))
            .map(|node| format!("{:?} at {:?}", node.accesskit_node().role(), node.rect()))
            .collect();
        assert!(nameless.is_empty(), "strategy {chosen}: {nameless:#?}");
    }
}

#[test]
fn a_strategy_is_chosen_and_predicted() {
    let mut harness = filled([1360.0, 860.0], 1.0, true);
    harness.get_by_label("Off").click();
    harness.run_steps(2);
    assert_eq!(harness.state().state.form.strategy().name(), "off");
    assert_eq!(harness.state().state.prediction.flop_speedup, Some(1.0));
    harness.get_by_label("Fewer steps").click();
    harness.run_steps(2);
    assert_eq!(harness.state().state.prediction.flop_speedup, Some(2.0));
}

#[test]
fn blocks_become_background_by_a_click() {
    let mut harness = filled([1360.0, 860.0], 1.0, true);
    // Nobody has said yet what the blocks are.
    assert!(harness.query_all_by_label_contains("foreground: computed").next().is_none());
    harness.get_by_label_contains("Block 3, foreground or background: not known").click();
    harness.run_steps(2);
    assert_eq!(harness.state().state.form.cached_blocks(), Some(vec![3]));
    assert!(harness.query_by_label("Block 2, foreground: computed").is_some());
    assert_eq!(harness.state().state.form.strategy().name(), "profiling");
    assert!(harness.state().state.prediction.flop_speedup.unwrap() > 1.0);
    harness.get_by_label("Block 3, background: cached").click();
    harness.run_steps(2);
    assert_eq!(harness.state().state.form.cached_blocks(), Some(Vec::new()));
}

#[test]
fn the_selection_stays_in_sight() {
    let mut harness = filled([1360.0, 860.0], 1.0, true);
    let mut capture = sample::capture(Kind::Off);
    capture.run.blocks = 40;
    harness.state_mut().state.runs.add(capture, false, None);
    harness.state_mut().state.facts = None;
    harness.state_mut().state.view.selection = Some([10, 10, 0, 0]);
    harness.state_mut().state.view.block = Some(0);
    harness.run_steps(2);
    let seen = |harness: &Harness<'_, App>, block: usize| {
        harness.query_all_by_label_contains(&format!("Block {block}, foreground or")).next().is_some()
    };
    assert!(seen(&harness, 0) && !seen(&harness, 35));
    harness.get_by_label_contains("Blocks by steps map").focus();
    harness.run_steps(1);
    for _ in 0..35 {
        harness.key_press(Key::ArrowDown);
        harness.run_steps(1);
    }
    // It scrolls smoothly.
    harness.run_steps(60);
    assert_eq!(harness.state().state.view.block, Some(35));
    assert!(seen(&harness, 35) && !seen(&harness, 0));
}

/// What cannot be done now is not advised.
#[test]
fn an_empty_window_says_what_to_do_first() {
    let harness = window([1100.0, 700.0], 1.0);
    assert!(harness.query_all_by_label_contains("Press Generate").next().is_none());
    assert!(harness.query_all_by_label_contains("Choose a model first.").next().is_some());
}

#[test]
fn the_plan_is_edited_with_mouse_and_keys() {
    let mut harness = filled([1360.0, 860.0], 1.0, true);
    harness.state_mut().state.form.choose("off");
    harness.run_steps(2);
    let map = harness.get_by_label_contains("Blocks by steps map").rect();
    let at =
        |step: f32, block: f32| map.min + vec2(map.width() * (step + 0.5) / 16.0, map.height() * (block + 0.5) / 8.0);
    // A drag selects steps 4 to 6 of blocks 2 and 3.
    harness.hover_at(at(4.0, 2.0));
    harness.run_steps(1);
    harness.drag_at(at(4.0, 2.0));
    harness.run_steps(1);
    harness.hover_at(at(5.0, 3.0));
    harness.run_steps(1);
    harness.hover_at(at(6.0, 3.0));
    harness.run_steps(1);
    harness.drop_at(at(6.0, 3.0));
    harness.run_steps(2);
    assert_eq!(harness.state().state.view.selection, Some([4, 6, 2, 3]));
    harness.key_press(Key::Space);
    harness.run_steps(2);
    let state = &harness.state().state;
    assert_eq!(state.form.strategy().name(), plan_edit::TITLE);
    assert!(state.view.plan);
    let reused: Vec<bool> = (0..16).map(|step| !state.prediction.plans[step].cond.is_full(8)).collect();
    assert_eq!(reused.iter().filter(|reused| **reused).count(), 3);
    assert!(reused[4] && reused[6] && !reused[7]);
    // Arrows move on, with Shift they extend to either side, and space again computes what it reused.
    harness.key_press(Key::ArrowRight);
    harness.run_steps(2);
    assert_eq!(harness.state().state.view.selection, Some([5, 5, 2, 2]));
    for (key, selected) in
        [(Key::ArrowLeft, [4, 5, 2, 2]), (Key::ArrowUp, [4, 5, 1, 2]), (Key::ArrowDown, [4, 5, 2, 2])]
    {
        harness.key_press_modifiers(Modifiers::SHIFT, key);
        harness.run_steps(2);
        assert_eq!(harness.state().state.view.selection, Some(selected));
    }
    harness.key_press_modifiers(Modifiers::SHIFT, Key::ArrowRight);
    harness.run_steps(2);
    harness.key_press(Key::Space);
    harness.run_steps(2);
    assert_eq!(harness.state().state.prediction.plans[5].cond.computed(8), 7);
}

#[test]
fn hints_go_for_good() {
    let mut harness = window([1100.0, 700.0], 1.0);
    harness.get_by_label("Got it").click();
    harness.run_steps(2);
    assert!(harness.state().state.prefs.hints_seen);
    assert!(harness.query_by_label("Got it").is_none());
}

/// Waits until a helper thread has told the window.
pub(in crate::app) fn wait(harness: &mut Harness<'_, App>, until: impl Fn(&State) -> bool) {
    let start = Instant::now();
    while !until(&harness.state().state) {
        assert!(start.elapsed().as_secs() < 20, "nothing happened");
        std::thread::sleep(std::time::Duration::from_millis(5));
        harness.run_steps(1);
    }
    harness.run_steps(2);
}

#[derive(Debug)]
struct Dropped(PathBuf);

impl egui::DroppedFile for Dropped {
    fn path(&self) -> &Path {
        &self.0
    }

    fn bytes(&self) -> Result<Vec<u8>, String> {
        std::fs::read(&self.0).map_err(|error| error.to_string())
    }
}

#[test]
fn captures_open_by_drop_and_are_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.capture");
    file::save(&path, &sample::capture(Kind::Uniform)).unwrap();
    let mut harness = window([1100.0, 700.0], 1.0);
    harness.input_mut().dropped_files.push(Arc::new(Dropped(path.clone())));
    wait(&mut harness, |state| state.runs.len() == 1);
    assert_eq!(harness.state().state.prefs.recent, [std::fs::canonicalize(&path).unwrap()]);

    let foreign = dir.path().join("foreign.capture");
    std::fs::write(&foreign, "hello there, this is no capture").unwrap();
    harness.input_mut().dropped_files.push(Arc::new(Dropped(foreign)));
    let told =
        |state: &State| state.log.iter().any(|(level, text)| *level == Level::Error && text.contains("no capture"));
    wait(&mut harness, told);
    assert_eq!(harness.state().state.runs.len(), 1);
}

#[test]
fn a_missing_gpu_is_told_and_the_window_stays() {
    let mut harness = filled([1360.0, 860.0], 1.0, true);
    let state = &mut harness.state_mut().state;
    state.form.model = PathBuf::from("no such model");
    state.facts_of = Some(FactsKey::of(&state.form));
    harness.key_press_modifiers(Modifiers::COMMAND, Key::Enter);
    wait(&mut harness, |state| state.log.iter().any(|(_, text)| text.contains("no GPU in this test")));
    assert!(matches!(harness.state().state.job, Job::Idle));
}

#[test]
fn the_window_lasts() {
    let mut harness = filled([1100.0, 700.0], 1.0, false);
    harness.state_mut().layout.set_open(Pane::Steps, false);
    harness.state_mut().state.form.clip.seed = 42;
    let mut stored = Stored::default();
    eframe::App::save(harness.state_mut(), &mut stored);
    let layout: Layout = serde_json::from_str(&stored.0[layout::KEY]).unwrap();
    assert!(layout.is_valid() && !layout.is_open(Pane::Steps));
    assert_eq!(serde_json::from_str::<Form>(&stored.0[FORM_KEY]).unwrap().clip.seed, 42);
    assert_eq!(serde_json::from_str::<Prefs>(&stored.0[PREFS_KEY]).unwrap(), harness.state().state.prefs);
    let view: View = serde_json::from_str(&stored.0[VIEW_KEY]).unwrap();
    assert_eq!((view.step, view.opacity), (None, harness.state().state.view.opacity));
}

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

/// A run that is going on: half of its steps, more planned.
#[test]
fn a_live_run_shows_how_far_it_is() {
    let mut harness = filled([1360.0, 860.0], 1.0, true);
    let mut capture = sample::capture(Kind::Uniform);
    capture.steps.truncate(7);
    (capture.clip, capture.outcome) = (None, None);
    let app = harness.state_mut();
    let id = app.state.runs.add(capture, true, None);
    app.state.view.step = None;
    app.state.job = Job::Running { run: Some(id), stage: None, wish: Wish::GoOn, since: Instant::now(), held: None };
    harness.run_steps(4);
    assert!(harness.query_by_label("Pause").is_some() && harness.query_by_label("Generate").is_none());
    assert!(harness.query_by_label("7 of 16").is_some());
    check("window-live", &mut harness);
    // Scores wait for the mask: nothing has to be turned on.
    let app = harness.state_mut();
    app.state.runs.change(id, |run| Arc::make_mut(&mut run.capture).masks.clear());
    app.state.view.colouring = Colouring::Lift;
    harness.run_steps(2);
    assert!(harness.query_all_by_label_contains("Scores come with the foreground mask").next().is_some());
}

/// The negative prompt's branch is left where there is none, as its buttons are.
#[test]
fn an_unguided_run_shows_its_only_branch() {
    let mut harness = filled([1360.0, 860.0], 1.0, true);
    harness.get_by_label("Negative").click();
    harness.run_steps(2);
    assert!(harness.state().state.view.uncond);
    let mut capture = sample::capture(Kind::Uniform);
    capture.run.clip.guidance_scale = 1.0;
    harness.state_mut().state.runs.add(capture, false, None);
    harness.run_steps(2);
    assert!(!harness.state().state.view.uncond && harness.query_by_label("Negative").is_none());
}

/// Whatever a capture holds, every pane draws it.
#[test]
fn odd_captures_are_drawn() {
    let odd = |change: fn(&mut Capture)| {
        let mut capture = sample::capture(Kind::Uniform);
        change(&mut capture);
        capture
    };
    let captures = [
        Capture::default(),
        odd(|c| c.steps.clear()),
        odd(|c| c.run.sigmas.clear()),
        odd(|c| (c.run.blocks, c.run.cost) = (0, None)),
        odd(|c| c.steps.iter_mut().for_each(|step| (step.cond.clear(), step.plan = None).1)),
        odd(|c| (c.run.clip.num_frames, c.run.clip.fps) = (0, 0)),
        odd(|c| c.run.sigmas = vec![0.5; 900]),
        odd(|c| c.clip.as_mut().unwrap().frames.clear()),
        odd(|c| c.masks[0].tokens.clear()),
        odd(|c| c.run.token_grid = [0, 0, 0]),
    ];
    let mut harness = filled([1100.0, 700.0], 1.0, true);
    for capture in captures {
        harness.state_mut().state.runs.add(capture, false, None);
        for compare in [Compare::Single, Compare::Split, Compare::Difference, Compare::SideBySide] {
            for colouring in Colouring::ALL {
                let view = &mut harness.state_mut().state.view;
                (view.compare, view.colouring, view.subtract) = (compare, colouring, true);
                (view.step, view.block, view.frame) = (Some(10), Some(5), 16);
                harness.run_steps(1);
            }
        }
    }
}

/// Where the CPU draws the window, pixels and triangles are what a frame costs.
#[test]
fn few_pixels_are_drawn_twice() {
    let mut harness = filled([1440.0, 900.0], 1.0, true);
    harness.run_steps(1);
    let shapes = harness.output().shapes.clone();
    let drawn: f32 = harness.ctx.tessellate(shapes, 1.0).iter().map(covered).sum();
    assert!((1.0..1.7).contains(&(drawn / (1440.0 * 900.0))), "{drawn} pixels");
}

/// Area of a mesh's triangles, nearly cut to where it may draw.
fn covered(clipped: &egui::ClippedPrimitive) -> f32 {
    let egui::epaint::Primitive::Mesh(mesh) = &clipped.primitive else { return 0.0 };
    let corner = |at: &u32| mesh.vertices[*at as usize].pos.clamp(clipped.clip_rect.min, clipped.clip_rect.max);
    let area = |corners: &[u32]| {
        let [a, b] = [&corners[1], &corners[2]].map(|at| corner(at) - corner(&corners[0]));
        (a.x * b.y - a.y * b.x).abs() / 2.0
    };
    mesh.indices.chunks_exact(3).map(area).sum()
}

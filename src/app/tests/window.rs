//! The window as users use it, by the accessible names of its controls.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use egui::accesskit::Role;
use egui::{Key, Modifiers, vec2};
use egui_kittest::Harness;
use egui_kittest::kittest::{NodeT, Queryable};

use super::sample::{self, Kind};
use super::{Stored, area, check, filled, map, preview, wait, window};
use crate::app::data::job::Job;
use crate::app::data::model::ModelQuery;
use crate::app::data::plan_edit;
use crate::app::data::selection::MapCell;
use crate::app::panes::map::MapPane;
use crate::app::panes::map::colouring::Colouring;
use crate::app::panes::preview::view::{Compare, View};
use crate::app::*;
use crate::engine::Capture;
use crate::engine::capture::file;

#[test]
fn every_control_has_a_name() {
    let mut harness = filled([1360.0, 860.0], 1.0, true);
    let ids: Vec<String> = harness.state().shared.form.strategies.iter().map(|listed| listed.config.id()).collect();
    for chosen in ids {
        harness.state_mut().shared.form.choose(&chosen);
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
        // Pictures and maps are controls if they can be clicked. Low or narrow ones are bars and
        // handles of the docking.
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
    assert_eq!(harness.state().shared.form.strategy().name(), "off");
    assert_eq!(harness.state().shared.prediction.flop_speedup, Some(1.0));
    harness.get_by_label("Fewer steps").click();
    harness.run_steps(2);
    assert_eq!(harness.state().shared.prediction.flop_speedup, Some(2.0));
}

#[test]
fn blocks_become_background_by_a_click() {
    let mut harness = filled([1360.0, 860.0], 1.0, true);
    // The classes of the blocks are not known yet.
    assert!(harness.query_all_by_label_contains("foreground: computed").next().is_none());
    harness.get_by_label_contains("Block 3, foreground or background: not known").click();
    harness.run_steps(2);
    assert_eq!(harness.state().shared.form.cached_blocks(), Some(vec![3]));
    assert!(harness.query_by_label("Block 2, foreground: computed").is_some());
    assert_eq!(harness.state().shared.form.strategy().name(), "profiling");
    assert!(harness.state().shared.prediction.flop_speedup.unwrap() > 1.0);
    harness.get_by_label("Block 3, background: cached").click();
    harness.run_steps(2);
    assert_eq!(harness.state().shared.form.cached_blocks(), Some(Vec::new()));
}

#[test]
fn the_selection_stays_in_sight() {
    let mut harness = filled([1360.0, 860.0], 1.0, true);
    let mut capture = sample::capture(Kind::Off);
    capture.run.blocks = 40;
    harness.state_mut().shared.runs.add(capture, false, None);
    harness.state_mut().shared.model.facts = None;
    harness.state_mut().shared.selection.select(MapCell { step: 10, block: 0 });
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
    // Scrolling takes some frames.
    harness.run_steps(60);
    assert_eq!(harness.state().shared.selection.block, Some(35));
    assert!(seen(&harness, 35) && !seen(&harness, 0));
}

/// The window does not advise what cannot be done.
#[test]
fn an_empty_window_says_what_to_do_first() {
    let harness = window([1100.0, 700.0], 1.0);
    assert!(harness.query_all_by_label_contains("Press Generate").next().is_none());
    assert!(harness.query_all_by_label_contains("Choose a model first.").next().is_some());
}

#[test]
fn the_plan_is_edited_with_mouse_and_keys() {
    let mut harness = filled([1360.0, 860.0], 1.0, true);
    harness.state_mut().shared.form.choose("off");
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
    assert_eq!(harness.state().shared.selection.cells, area([4, 6, 2, 3]));
    harness.key_press(Key::Space);
    harness.run_steps(2);
    let state = &harness.state().shared;
    assert_eq!(state.form.strategy().name(), plan_edit::TITLE);
    assert!(harness.state().panes.get::<MapPane>().unwrap().settings.plan);
    let reused: Vec<bool> = (0..16).map(|step| !state.prediction.plans[step].cond.is_full(8)).collect();
    assert_eq!(reused.iter().filter(|reused| **reused).count(), 3);
    assert!(reused[4] && reused[6] && !reused[7]);
    // Arrows move on, with Shift they extend to either side, and space again computes what it
    // reused.
    harness.key_press(Key::ArrowRight);
    harness.run_steps(2);
    assert_eq!(harness.state().shared.selection.cells, area([5, 5, 2, 2]));
    for (key, selected) in
        [(Key::ArrowLeft, [4, 5, 2, 2]), (Key::ArrowUp, [4, 5, 1, 2]), (Key::ArrowDown, [4, 5, 2, 2])]
    {
        harness.key_press_modifiers(Modifiers::SHIFT, key);
        harness.run_steps(2);
        assert_eq!(harness.state().shared.selection.cells, area(selected));
    }
    harness.key_press_modifiers(Modifiers::SHIFT, Key::ArrowRight);
    harness.run_steps(2);
    harness.key_press(Key::Space);
    harness.run_steps(2);
    assert_eq!(harness.state().shared.prediction.plans[5].cond.computed(8), 7);
}

#[test]
fn hints_go_for_good() {
    let mut harness = window([1100.0, 700.0], 1.0);
    harness.get_by_label("Got it").click();
    harness.run_steps(2);
    assert!(harness.state().shared.prefs.hints_seen);
    assert!(harness.query_by_label("Got it").is_none());
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
    assert_eq!(harness.state().shared.prefs.recent, [std::fs::canonicalize(&path).unwrap()]);

    let foreign = dir.path().join("foreign.capture");
    std::fs::write(&foreign, "hello there, this is no capture").unwrap();
    harness.input_mut().dropped_files.push(Arc::new(Dropped(foreign)));
    let told =
        |state: &Shared| state.log.iter().any(|line| line.level == Level::Error && line.text.contains("no capture"));
    wait(&mut harness, told);
    assert_eq!(harness.state().shared.runs.len(), 1);
}

#[test]
fn a_missing_gpu_is_told_and_the_window_stays() {
    let mut harness = filled([1360.0, 860.0], 1.0, true);
    let state = &mut harness.state_mut().shared;
    state.form.model = PathBuf::from("no such model");
    state.model.query = Some(ModelQuery::of(&state.form));
    harness.key_press_modifiers(Modifiers::COMMAND, Key::Enter);
    wait(&mut harness, |state| state.log.iter().any(|line| line.text.contains("no GPU in this test")));
    assert!(matches!(harness.state().shared.job, Job::Idle));
}

#[test]
fn the_window_lasts() {
    let mut harness = filled([1100.0, 700.0], 1.0, false);
    harness.state_mut().layout.set_open("steps", false);
    preview(harness.state_mut()).view.opacity = 0.25;
    harness.state_mut().shared.form.clip.seed = 42;
    let mut stored = Stored::default();
    eframe::App::save(harness.state_mut(), &mut stored);
    let layout = Layout::stored(&stored.0[layout::KEY], &harness.state().panes).unwrap();
    assert!(!layout.is_open("steps"));
    assert_eq!(serde_json::from_str::<Form>(&stored.0[FORM_KEY]).unwrap().clip.seed, 42);
    assert_eq!(serde_json::from_str::<Prefs>(&stored.0[PREFS_KEY]).unwrap(), harness.state().shared.prefs);
    assert_eq!(serde_json::from_str::<Selection>(&stored.0[VIEW_KEY]).unwrap(), Selection::default());
    let view: View = serde_json::from_str(&stored.0[&pane_key("preview")]).unwrap();
    assert_eq!((view.frame, view.opacity), (0, 0.25));
}

/// A live run: some steps are done, others are planned.
#[test]
fn a_live_run_shows_how_far_it_is() {
    let mut harness = filled([1360.0, 860.0], 1.0, true);
    let mut capture = sample::capture(Kind::Uniform);
    capture.steps.truncate(7);
    (capture.clip, capture.outcome) = (None, None);
    let app = harness.state_mut();
    let id = app.shared.runs.add(capture, true, None);
    app.shared.selection.step = None;
    app.shared.job =
        Job::Running { run: Some(id), stage: None, wanted: Wanted::Run, since: Instant::now(), paused: None };
    harness.run_steps(4);
    assert!(harness.query_by_label("Pause").is_some() && harness.query_by_label("Generate").is_none());
    assert!(harness.query_by_label("7 of 16").is_some());
    check("window-live", &mut harness);
    // The scores wait for the mask only.
    let app = harness.state_mut();
    app.shared.runs.change(id, |run| Arc::make_mut(&mut run.capture).masks.clear());
    map(app).settings.colouring = Colouring::Lift;
    harness.run_steps(2);
    assert!(harness.query_all_by_label_contains("Scores come with the foreground mask").next().is_some());
}

/// A run without guidance has no branch of the negative prompt, and no buttons for it.
#[test]
fn an_unguided_run_shows_its_only_branch() {
    let mut harness = filled([1360.0, 860.0], 1.0, true);
    harness.get_by_label("Negative").click();
    harness.run_steps(2);
    assert!(harness.state().shared.selection.uncond);
    let mut capture = sample::capture(Kind::Uniform);
    capture.run.clip.guidance_scale = 1.0;
    harness.state_mut().shared.runs.add(capture, false, None);
    harness.run_steps(2);
    assert!(!harness.state().shared.selection.uncond && harness.query_by_label("Negative").is_none());
}

/// Every pane draws captures with any content.
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
        harness.state_mut().shared.runs.add(capture, false, None);
        for compare in [Compare::Single, Compare::Split, Compare::Difference, Compare::SideBySide] {
            for colouring in Colouring::ALL {
                let app = harness.state_mut();
                let settings = &mut map(app).settings;
                (settings.colouring, settings.subtract) = (colouring, true);
                let view = &mut preview(app).view;
                (view.compare, view.frame) = (compare, 16);
                (app.shared.selection.step, app.shared.selection.block) = (Some(10), Some(5));
                harness.run_steps(1);
            }
        }
    }
}

/// If the CPU draws the window, a frame costs by its pixels and triangles.
#[test]
fn few_pixels_are_drawn_twice() {
    let mut harness = filled([1440.0, 900.0], 1.0, true);
    harness.run_steps(1);
    let shapes = harness.output().shapes.clone();
    let drawn: f32 = harness.ctx.tessellate(shapes, 1.0).iter().map(covered).sum();
    assert!((1.0..1.7).contains(&(drawn / (1440.0 * 900.0))), "{drawn} pixels");
}

/// The area of a mesh's triangles, approximately inside its clip rectangle.
fn covered(clipped: &egui::ClippedPrimitive) -> f32 {
    let egui::epaint::Primitive::Mesh(mesh) = &clipped.primitive else { return 0.0 };
    let corner = |at: &u32| mesh.vertices[*at as usize].pos.clamp(clipped.clip_rect.min, clipped.clip_rect.max);
    let area = |corners: &[u32]| {
        let [a, b] = [&corners[1], &corners[2]].map(|at| corner(at) - corner(&corners[0]));
        (a.x * b.y - a.y * b.x).abs() / 2.0
    };
    mesh.indices.chunks_exact(3).map(area).sum()
}

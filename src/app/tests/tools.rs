//! Painting, planning, pinning and pictures, used as users use them.

use std::path::Path;
use std::sync::mpsc::channel;

use egui::accesskit::Role;
use egui::{Event, Key, Modifiers, PointerButton, vec2};
use egui_kittest::Harness;
use egui_kittest::kittest::Queryable;

use super::{check, filled, map, options, preview, wait};
use crate::app::actions::Action;
use crate::app::data::job::Job;
use crate::app::data::model::{ModelAnswer, ModelQuery};
use crate::app::data::plan_edit;
use crate::app::data::selection::MapCell;
use crate::app::data::shared::Shared;
use crate::app::data::strategy_file::profile_json;
use crate::app::link::Message;
use crate::app::panes::map::MapPane;
use crate::app::panes::map::cells::Cells;
use crate::app::panes::map::colouring::Colouring;
use crate::app::panes::preview::PreviewPane;
use crate::app::panes::preview::attention::{self, Overlay};
use crate::app::save::picture::Pictures;
use crate::app::{App, Options};
use crate::caching::{Goal, MagCache, Origin, StepPlan};
use crate::profiling::profile::Profile;

/// The attention maps over the run on show.
fn overlays(app: &App) -> Vec<Overlay> {
    let preview: &PreviewPane = app.panes.get().unwrap();
    attention::overlays(app.shared.runs.current().unwrap(), preview.view.look(&app.shared.selection))
}

fn demo_model() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo-model")
}

/// The window with the demo model, once its profile is read.
fn with_demo_model(size: [f32; 2]) -> Harness<'static, App> {
    let options = Options { demo_model: Some(demo_model()), ..options() };
    let mut harness =
        Harness::builder().with_size(vec2(size[0], size[1])).wgpu().build_eframe(|cc| App::new(cc, options));
    harness.state_mut().shared.prefs.theme = egui::ThemePreference::Dark;
    harness.state_mut().shared.prefs.hints_seen = true;
    wait(&mut harness, |state| state.model.evidence.is_some());
    harness
}

#[test]
fn a_target_is_planned_and_its_price_told_before_it_runs() {
    let mut harness = with_demo_model([1360.0, 860.0]);
    harness.get_by_label("Planner").click();
    harness.run_steps(3);
    let told = |harness: &Harness<'_, App>| {
        let state = &harness.state().shared;
        let psnr = state.form.strategy().expected_psnr().unwrap();
        (state.prediction.flop_speedup.unwrap(), psnr, state.prediction.delta_memory.unwrap())
    };
    let (speedup, psnr, memory) = told(&harness);
    assert!((1.8..2.2).contains(&speedup) && psnr > 20.0 && memory > 0, "{speedup} {psnr} {memory}");
    harness.get_by_label("3x").click();
    harness.run_steps(3);
    let (faster, lower, _) = told(&harness);
    assert!(faster > 2.6 && lower < psnr, "{faster} {lower}");
    assert!(harness.query_by_label(&format!("{lower:.1} dB")).is_some());
    harness.get_by_label("likeness").click();
    harness.run_steps(3);
    let goal = harness.state().shared.form.strategy().goal();
    assert_eq!(goal, Some(Goal::Psnr(30.0)));
    let (_, kept, _) = told(&harness);
    assert!(kept >= 30.0, "{kept}");
    // More steps get another plan as soon as the profile has been read again.
    harness.state_mut().shared.form.clip.num_inference_steps = 20;
    wait(&mut harness, |state| state.prediction.plans.len() == 20 && state.prediction.trouble.is_none());
    assert_eq!(harness.state().shared.form.strategy().key(), "planner");
    check("window-target", &mut harness);
}

#[test]
fn methods_that_need_a_calibration_have_the_profile_s() {
    let mut harness = with_demo_model([1360.0, 860.0]);
    for name in ["MagCache", "TeaCache"] {
        harness.get_by_label(name).click();
        harness.run_steps(3);
        assert_eq!(harness.state().shared.prediction.trouble, None, "{name}");
    }
    harness.get_by_label("ProfilingDiT").click();
    harness.run_steps(3);
    let cached = |harness: &Harness<'_, App>| harness.state().shared.form.cached_blocks().unwrap_or_default();
    let background = cached(&harness);
    assert!(background.contains(&9) && !background.contains(&4), "{background:?}");
    // The user chooses a block, and goes back to the profile's blocks.
    harness.get_by_label("Block 4, foreground: computed").click();
    harness.run_steps(3);
    assert_eq!(cached(&harness).len(), background.len() + 1);
    harness.get_by_label("list").click();
    harness.run_steps(3);
    harness.get_by_label("background").click();
    harness.run_steps(3);
    assert_eq!(cached(&harness), background);
    assert_eq!(harness.state().shared.form.strategy().expected_psnr(), None);
}

/// The demo model in another folder, its profile changed.
pub fn other_model(folder: &Path, change: impl Fn(String) -> Option<String>) {
    for entry in std::fs::read_dir(demo_model()).unwrap().map(Result::unwrap) {
        let to = folder.join(entry.file_name());
        if entry.path().is_dir() {
            std::fs::create_dir(&to).unwrap();
            for file in std::fs::read_dir(entry.path()).unwrap().map(Result::unwrap) {
                std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
            }
        } else if entry.file_name() != "profile.json" {
            std::fs::copy(entry.path(), to).unwrap();
        } else if let Some(text) = change(std::fs::read_to_string(entry.path()).unwrap()) {
            std::fs::write(to, text).unwrap();
        }
    }
}

#[test]
fn a_calibration_stays_with_its_model() {
    let mut harness = with_demo_model([1360.0, 860.0]);
    harness.get_by_label("MagCache").click();
    harness.run_steps(3);
    let ratios = |state: &Shared| state.form.strategy().rule::<MagCache>().unwrap().ratios.clone();
    let own = ratios(&harness.state().shared);
    assert!(!own.is_empty());
    // An answer for this model, which comes when another model is in use.
    let late = (ModelQuery::of(&harness.state().shared.form), harness.state().shared.model.evidence.clone());
    let (bare, foreign) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    other_model(bare.path(), |_| None);
    other_model(foreign.path(), |text| Some(text.replacen("\"version\":1", "\"version\":999", 1)));
    for (folder, fits) in [(bare.path(), Some(false)), (foreign.path(), None)] {
        harness.state_mut().actions.ask(Action::UseModel(folder.into()));
        harness.run_steps(1);
        let (query, evidence) = late.clone();
        let answer = ModelAnswer { query, facts: Err("late".into()), evidence };
        harness.state_mut().receive(Message::Model(Box::new(answer)));
        assert!(harness.state().shared.model.evidence.is_none() && harness.state().shared.model.facts.is_none());
        wait(&mut harness, |state| !state.reading());
        let state = &harness.state().shared;
        assert_eq!(state.model.evidence.as_ref().and_then(|known| known.profile.clone().ok()), fits);
        assert!(ratios(state).is_empty() && state.prediction.trouble.is_some());
    }
    // Another prompt asks again, but a fault is told once.
    for prompt in ["a", "a b", "a b c"] {
        harness.state_mut().shared.form.prompt = prompt.into();
        harness.run_steps(1);
        wait(&mut harness, |state| state.model.query == Some(ModelQuery::of(&state.form)));
    }
    let told = harness.state().shared.log.iter().filter(|line| line.text.contains("profile cannot be used")).count();
    assert_eq!(told, 1);
    harness.state_mut().actions.ask(Action::UseModel(demo_model()));
    harness.run_steps(1);
    wait(&mut harness, |state| !state.reading());
    assert_eq!(ratios(&harness.state().shared), own);
}

#[test]
fn another_model_takes_no_settings_away() {
    let mut harness = with_demo_model([1360.0, 1300.0]);
    assert!(harness.state().shared.undo.is_none(), "the first model replaces none");
    let form = &mut harness.state_mut().shared.form;
    (form.clip.num_inference_steps, form.clip.guidance_scale) = (21, 2.5);
    form.cache_block(4, true);
    harness.run_steps(2);
    wait(&mut harness, |state| !state.reading());
    let before = harness.state().shared.form.clone();
    // A folder without a model changes nothing.
    let folder = tempfile::tempdir().unwrap();
    harness.state_mut().actions.ask(Action::UseModel(folder.path().into()));
    harness.run_steps(2);
    assert!(harness.state().shared.form == before && harness.state().shared.undo.is_none());
    assert!(harness.state().shared.log.iter().any(|line| line.text.contains("no model in it")));
    other_model(folder.path(), Some);
    harness.state_mut().actions.ask(Action::UseModel(folder.path().into()));
    harness.run_steps(2);
    assert_ne!(harness.state().shared.form.clip.num_inference_steps, 21);
    harness.get_by_label("Undo: use another model").click();
    harness.run_steps(2);
    // The calibrations come when the profile has been read again.
    wait(&mut harness, |state| state.form == before && !state.reading());
    harness.get_by_label("Default settings").click();
    wait(&mut harness, |state| state.form != before);
    harness.get_by_label("Undo: default settings").click();
    harness.run_steps(2);
    wait(&mut harness, |state| state.form == before && !state.reading());
}

#[test]
fn a_model_that_is_gone_is_told_and_its_settings_come_back() {
    let mut harness = with_demo_model([1360.0, 860.0]);
    let app = harness.state_mut();
    (app.shared.form.model, app.shared.form.clip.num_inference_steps) = ("gone/model".into(), 21);
    app.choose_first_model();
    assert!(app.shared.form.model.ends_with("demo-model") && app.shared.form.clip.num_inference_steps != 21);
    assert!(app.shared.log.iter().any(|line| line.text.contains("gone/model is not there any more: the built-in")));
    harness.run_steps(2);
    harness.get_by_label("Undo: use another model").click();
    harness.run_steps(2);
    assert_eq!(harness.state().shared.form.clip.num_inference_steps, 21);
}

/// Nothing is generated while the plan is for another number of steps.
#[test]
fn generating_waits_for_the_profile() {
    let mut harness = with_demo_model([1360.0, 860.0]);
    harness.get_by_label("Planner").click();
    harness.run_steps(3);
    let app = harness.state_mut();
    assert!(!app.shared.waits_for_profile());
    app.shared.form.clip.num_inference_steps = 20;
    assert!(app.shared.waits_for_profile());
    app.actions.ask(Action::Generate);
    harness.run_steps(1);
    assert!(matches!(harness.state().shared.job, Job::Idle));
    wait(&mut harness, |state| !state.waits_for_profile() && state.prediction.plans.len() == 20);
    assert_eq!(harness.state().shared.prediction.trouble, None);
}

/// The facts about a model do not depend on the strategy that was chosen when they were asked for.
#[test]
fn a_target_after_fewer_steps_is_for_all_steps() {
    let mut harness = with_demo_model([1360.0, 860.0]);
    harness.get_by_label("Fewer steps").click();
    harness.run_steps(2);
    harness.state_mut().shared.form.clip.num_inference_steps = 20;
    harness.run_steps(2);
    wait(&mut harness, |state| !state.reading());
    harness.get_by_label("Planner").click();
    harness.run_steps(4);
    assert_eq!(harness.state().shared.prediction.trouble, None);
    assert_eq!(harness.state().shared.prediction.plans.len(), 20);
}

#[test]
fn the_mask_is_painted_and_the_blocks_scored_anew() {
    let mut harness = filled([1360.0, 860.0], 1.0, true);
    map(harness.state_mut()).settings.colouring = Colouring::Lift;
    harness.run_steps(4);
    let lift = |app: &App| {
        let run = app.shared.runs.current().unwrap();
        let map: &MapPane = app.panes.get().unwrap();
        map.scores.get(run, run, false, MapCell { step: 9, block: 6 }).map(|score| score.lift)
    };
    let bits = |state: &Shared| state.runs.current().unwrap().mask().unwrap().to_vec();
    let estimated = lift(harness.state()).unwrap();
    harness.get_by_label("Paint mask").click();
    harness.run_steps(2);
    harness.get_by_label("Clear").click();
    harness.run_steps(4);
    assert!(!bits(&harness.state().shared).contains(&true));
    assert_eq!(lift(harness.state()), None);
    // A stroke from the upper left token to the upper right token paints all tokens between.
    let rect = harness.get_by_label_contains("Mask of run").rect();
    let cell = rect.size() / 8.0;
    let at = |row: f32, column: f32| rect.min + vec2(cell.x * (column + 0.5), cell.y * (row + 0.5));
    harness.hover_at(at(0.0, 0.0));
    harness.run_steps(1);
    harness.drag_at(at(0.0, 0.0));
    harness.run_steps(1);
    harness.hover_at(at(0.0, 7.0));
    harness.run_steps(1);
    harness.drop_at(at(0.0, 7.0));
    harness.run_steps(6);
    let painted = bits(&harness.state().shared);
    let frame = painted.chunks(64).position(|frame| frame.contains(&true)).unwrap();
    assert!(painted[frame * 64..frame * 64 + 8].iter().all(|bit| *bit));
    assert_eq!(painted.iter().filter(|bit| **bit).count(), 8);
    // Undo takes the stroke back, and once more brings it again. Other buttons paint nothing.
    harness.get_by_label("Undo painting").click();
    harness.run_steps(4);
    assert!(!bits(&harness.state().shared).contains(&true));
    harness.key_press_modifiers(Modifiers::COMMAND, Key::Z);
    harness.run_steps(4);
    assert_eq!(bits(&harness.state().shared), painted);
    for pressed in [true, false] {
        let (pos, button) = (at(4.0, 4.0), PointerButton::Secondary);
        harness.event(Event::PointerButton { pos, button, pressed, modifiers: Modifiers::NONE });
        harness.run_steps(2);
    }
    assert_eq!(bits(&harness.state().shared), painted);
    harness.get_by_label_contains("Mask of run").focus();
    harness.run_steps(4);
    let other = lift(harness.state()).unwrap();
    assert!((other - estimated).abs() > 0.1, "{other} {estimated}");
    // The keys start in the middle: down and space adds a token, erase and enter takes it away.
    harness.key_press(Key::ArrowDown);
    harness.run_steps(1);
    harness.key_press(Key::Space);
    harness.run_steps(3);
    assert_eq!(bits(&harness.state().shared).iter().filter(|bit| **bit).count(), 9);
    preview(harness.state_mut()).brush.erase = true;
    harness.key_press(Key::Enter);
    harness.run_steps(3);
    assert_eq!(bits(&harness.state().shared), painted);
    harness.get_by_label("Use estimated mask").click();
    harness.run_steps(6);
    assert_eq!(lift(harness.state()), Some(estimated));
}

#[test]
fn what_is_paid_to_the_subject_lies_over_the_frame() {
    let mut harness = filled([1360.0, 860.0], 1.0, true);
    harness.get_by_label("to subject").click();
    harness.run_steps(3);
    assert!(preview(harness.state_mut()).view.paid);
    let shown = overlays(harness.state());
    assert!(shown[0].values.iter().all(|value| (0.0..=1.0).contains(value)), "shares, not received attention");
    harness.get_by_label("received").click();
    harness.run_steps(3);
    assert!(!preview(harness.state_mut()).view.paid);
}

/// A plan made by hand gets a name, is saved, dropped on the window again, and becomes a profile.
#[test]
fn plans_of_the_user_have_names_and_live_in_files() {
    let mut harness = with_demo_model([1360.0, 860.0]);
    let blocks = harness.state().shared.blocks();
    let steps = harness.state().shared.form.clip.num_inference_steps;
    let edit = plan_edit::toggle(&vec![StepPlan::compute(blocks); steps], blocks, 4..6, 2..4);
    harness.state_mut().shared.form.use_plan(plan_edit::TITLE, Origin::Hand, edit.plans);
    harness.run_steps(3);
    let field = harness.get_by(|node| node.role() == Role::TextInput && node.value().as_deref() == Some("my plan"));
    field.focus();
    harness.run_steps(2);
    harness.key_press_modifiers(Modifiers::COMMAND, Key::A);
    // Another strategy has this name: it is not taken.
    harness.event(Event::Text("off".into()));
    harness.run_steps(2);
    assert_eq!(harness.state().shared.form.strategy().name(), "my plan");
    harness.key_press_modifiers(Modifiers::COMMAND, Key::A);
    harness.event(Event::Text("blocks 2 and 3".into()));
    harness.run_steps(2);
    let state = &harness.state().shared;
    assert_eq!(state.form.strategy().name(), "blocks 2 and 3");
    assert_eq!(state.background(), [2, 3]);

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("plan.json");
    let (saved, json) = (state.form.strategy().clone(), state.form.strategy().to_json());
    std::fs::write(&path, json).unwrap();
    harness.get_by_label("Remove this plan").click();
    harness.run_steps(2);
    assert_eq!(harness.state().shared.form.strategy().name(), "off");
    harness.state_mut().actions.ask(Action::OpenStrategy(path.clone()));
    let same = |state: &Shared| {
        let (opened, saved) = (state.form.strategy().own_plan(), saved.own_plan());
        opened.zip(saved).is_some_and(|(opened, saved)| (&opened.title, &opened.plans) == (&saved.title, &saved.plans))
    };
    wait(&mut harness, same);
    std::fs::write(&path, "[1, 2]").unwrap();
    harness.state_mut().actions.ask(Action::OpenStrategy(path));
    wait(&mut harness, |state| state.log.iter().any(|line| line.text.contains("holds no strategy")));

    let profile = profile_json(&demo_model(), vec![3, 2]).unwrap();
    let profile = Profile::from_json(profile.as_bytes()).unwrap();
    assert_eq!((profile.partition.background, profile.partition.foreground.len()), (vec![2, 3], blocks - 2));
    assert!(profile_json(&demo_model(), vec![99]).is_err());
}

#[test]
fn cells_are_pinned_and_compared() {
    let mut harness = filled([1360.0, 860.0], 1.0, true);
    harness.get_by_label("Pin cell").click();
    harness.run_steps(2);
    assert_eq!(harness.state().shared.selection.pinned.map(|cell| cell.block), Some(5));
    harness.state_mut().shared.selection.block = Some(7);
    harness.run_steps(2);
    assert_eq!(overlays(harness.state()).len(), 2);
    harness.get_by_label("Minus pinned").click();
    harness.run_steps(2);
    assert_eq!(overlays(harness.state()).len(), 1);
}

/// Controls without an effect on the pictures on show are hidden.
#[test]
fn controls_are_those_of_the_comparison() {
    let mut harness = filled([1360.0, 860.0], 1.0, true);
    preview(harness.state_mut()).brush.on = true;
    for (mode, pin, outline) in
        [("One", true, true), ("Split", false, true), ("Side by side", false, true), ("Difference", false, false)]
    {
        harness.get_by_label(mode).click();
        harness.run_steps(2);
        let there = |name: &str| harness.query_by_label(name).is_some();
        assert_eq!([there("Pin cell"), there("Clear")], [pin; 2], "{mode}");
        assert_eq!([there("Mask outline"), there("received")], [outline; 2], "{mode}");
    }
    // Painting shows one run.
    harness.get_by_label("Paint mask").click();
    harness.run_steps(2);
    assert!(harness.query_by_label("Clear").is_some() && harness.query_by_label("Pin cell").is_some());
}

#[test]
fn steps_and_frames_are_played() {
    let mut harness = filled([1360.0, 860.0], 1.0, true);
    harness.get_by_label("by step").click();
    harness.run_steps(2);
    harness.get_by_label("Play").click();
    let before = harness.state().shared.selection.step;
    for _ in 0..60 {
        harness.step();
        if harness.state().shared.selection.step != before {
            break;
        }
    }
    assert_eq!(harness.state().shared.selection.step, before.map(|step| step + 1));
    harness.get_by_label("Stop playback").click();
    harness.run_steps(2);
    assert!(!preview(harness.state_mut()).view.playing);
    // Without a loop, playback at the last step starts from the first step.
    preview(harness.state_mut()).view.looping = false;
    harness.state_mut().shared.selection.step = Some(15);
    harness.get_by_label("Play").click();
    harness.run_steps(2);
    let step = harness.state().shared.selection.step;
    assert!(preview(harness.state_mut()).view.playing && step.is_some_and(|step| step < 3), "{step:?}");
}

#[test]
fn maps_of_two_runs_are_subtracted() {
    let mut harness = filled([1360.0, 860.0], 1.0, true);
    let settings = &mut map(harness.state_mut()).settings;
    (settings.colouring, settings.subtract) = (Colouring::Lift, true);
    harness.run_steps(6);
    let cells = Cells::of(harness.state().panes.get().unwrap(), &harness.state().shared);
    assert!(cells.subtracted && cells.any());
    assert_eq!(cells.range[0], -cells.range[1]);
}

#[test]
fn an_idle_window_draws_nothing() {
    let mut harness = filled([1360.0, 860.0], 1.0, true);
    harness.run_steps(10);
    // Fails if the window asks for more frames without end.
    let frames = harness.try_run().expect("a window that comes to rest");
    assert!(frames <= 2, "{frames}");
}

#[test]
fn every_pane_has_a_menu_of_pictures() {
    let mut harness = filled([1360.0, 860.0], 1.0, true);
    for title in ["Strategy", "Preview", "Blocks x steps", "Numbers", "Runs", "Steps"] {
        if title == "Steps" {
            // Behind another tab.
            harness.get_by_label(title).click();
            harness.run_steps(2);
        }
        harness.get_by_label(&format!("Menu of the pane {title}")).click();
        harness.run_steps(2);
        assert!(harness.query_by_label("Save picture of the pane (PNG)...").is_some(), "{title}");
        harness.key_press(Key::Escape);
        harness.run_steps(2);
    }
}

#[test]
fn a_pane_becomes_a_picture() {
    let (to, pictures) = channel();
    let place = egui::Rect::from_min_size(egui::pos2(40.0, 20.0), vec2(50.0, 30.0));
    let mut harness = Harness::builder().with_size(vec2(200.0, 100.0)).wgpu().build_ui_state(
        move |ui, pictures: &mut Pictures| {
            ui.painter().rect_filled(place, 0.0, egui::Color32::RED);
            pictures.place("map", place);
            let to = to.clone();
            pictures.take(ui.ctx(), move |picture| to.send(picture).unwrap());
        },
        Pictures::default(),
    );
    harness.state_mut().want(Some("map"));
    harness.run_steps(8);
    let clip = pictures.try_recv().expect("a picture").unwrap();
    assert_eq!((clip.width(), clip.height()), (50, 30));
    assert!(clip.frames()[0].chunks_exact(3).all(|pixel| pixel[0] > 200 && pixel[1] < 60));
    assert!(pictures.try_recv().is_err(), "one picture only");
}

/// The planner is the first choice, with a profile of the model and without.
#[test]
fn the_planner_is_chosen_at_first() {
    let mut harness = with_demo_model([1360.0, 860.0]);
    harness.run_steps(2);
    let chosen = |state: &Shared| (state.form.strategy().key(), state.ready());
    assert_eq!(chosen(&harness.state().shared), ("planner", Ok(())));
    let bare = tempfile::tempdir().unwrap();
    other_model(bare.path(), |_| None);
    harness.state_mut().actions.ask(Action::UseModel(bare.path().into()));
    harness.run_steps(1);
    wait(&mut harness, |state| !state.reading());
    assert_eq!(chosen(&harness.state().shared), ("planner", Ok(())));
}

/// A model that cannot run takes nothing away.
#[test]
fn an_incomplete_model_leaves_the_one_in_use() {
    let mut harness = with_demo_model([1360.0, 860.0]);
    let before = harness.state().shared.form.clone();
    let folder = tempfile::tempdir().unwrap();
    other_model(folder.path(), Some);
    std::fs::remove_dir_all(folder.path().join("vae")).unwrap();
    harness.state_mut().actions.ask(Action::UseModel(folder.path().into()));
    harness.run_steps(2);
    let state = &harness.state().shared;
    assert!(state.form == before && state.undo.is_none() && state.ready().is_ok());
    assert!(state.log.unread().iter().any(|text| text.contains("is not used")), "{:?}", state.log.unread());
    assert!(!state.prefs.models.iter().any(|model| model.starts_with(folder.path())));
}

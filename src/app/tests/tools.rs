//! Painting, planning, pinning and pictures, worked as users work them.

use std::path::Path;
use std::sync::mpsc::channel;

use egui::accesskit::Role;
use egui::{Event, Key, Modifiers, PointerButton, vec2};
use egui_kittest::Harness;
use egui_kittest::kittest::Queryable;

use crate::caching::{Goal, GoalPlan, MagCache, Origin, StepPlan};
use crate::profiling::profile::Profile;

use crate::app::App;
use crate::app::Options;
use crate::app::data::state::{Action, FactsKey, Job, State};
use crate::app::draw::figures::Shots;
use crate::app::layout::Pane;
use crate::app::link::Told;
use crate::app::panes::map::colouring::Colouring;
use crate::app::panes::strategy::target::{self, Expected};
use crate::app::tests::{check, filled, options, wait};

fn demo_model() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo-model")
}

/// The window with the demo model, once its profile is read.
fn with_demo_model(size: [f32; 2]) -> Harness<'static, App> {
    let options = Options { demo_model: Some(demo_model()), ..options() };
    let mut harness =
        Harness::builder().with_size(vec2(size[0], size[1])).wgpu().build_eframe(|cc| App::new(cc, options));
    harness.state_mut().state.prefs.theme = egui::ThemePreference::Dark;
    harness.state_mut().state.prefs.hints_seen = true;
    wait(&mut harness, |state| state.known.is_some());
    harness
}

#[test]
fn a_target_is_planned_and_its_price_told_before_it_runs() {
    let mut harness = with_demo_model([1360.0, 860.0]);
    harness.get_by_label("Planner").click();
    harness.run_steps(3);
    let told = |harness: &Harness<'_, App>| {
        let state = &harness.state().state;
        let Expected::Psnr(psnr) = target::expected(state) else { panic!("{:?}", target::expected(state)) };
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
    let goal = harness.state().state.form.strategy().rule::<GoalPlan>().map(|rule| rule.goal);
    assert_eq!(goal, Some(Goal::Psnr(30.0)));
    let (_, kept, _) = told(&harness);
    assert!(kept >= 30.0, "{kept}");
    // More steps: another plan for them, as soon as the profile was asked again.
    harness.state_mut().state.form.clip.num_inference_steps = 20;
    wait(&mut harness, |state| state.prediction.plans.len() == 20 && state.prediction.trouble.is_none());
    assert_eq!(harness.state().state.form.strategy().key(), "planner");
    check("window-target", &mut harness);
}

#[test]
fn methods_that_need_a_calibration_have_the_profile_s() {
    let mut harness = with_demo_model([1360.0, 860.0]);
    for name in ["MagCache", "TeaCache"] {
        harness.get_by_label(name).click();
        harness.run_steps(3);
        assert_eq!(harness.state().state.prediction.trouble, None, "{name}");
    }
    harness.get_by_label("ProfilingDiT").click();
    harness.run_steps(3);
    let cached = |harness: &Harness<'_, App>| harness.state().state.form.cached_blocks().unwrap_or_default();
    let background = cached(&harness);
    assert!(background.contains(&9) && !background.contains(&4), "{background:?}");
    // A block of one's own choice, and the way back.
    harness.get_by_label("Block 4, foreground: computed").click();
    harness.run_steps(3);
    assert_eq!(cached(&harness).len(), background.len() + 1);
    harness.get_by_label("list").click();
    harness.run_steps(3);
    harness.get_by_label("background").click();
    harness.run_steps(3);
    assert_eq!(cached(&harness), background);
    assert_eq!(target::expected(&harness.state().state), Expected::NotMeasured);
}

/// The demo model in another folder, its profile changed.
fn other_model(folder: &Path, change: impl Fn(String) -> Option<String>) {
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
    let ratios = |state: &State| state.form.strategy().rule::<MagCache>().unwrap().ratios.clone();
    let own = ratios(&harness.state().state);
    assert!(!own.is_empty());
    // An answer for this model that comes when another is in use.
    let late = (FactsKey::of(&harness.state().state.form), harness.state().state.known.clone());
    let (bare, foreign) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    other_model(bare.path(), |_| None);
    other_model(foreign.path(), |text| Some(text.replacen("\"version\":1", "\"version\":999", 1)));
    for (folder, fits) in [(bare.path(), Some(false)), (foreign.path(), None)] {
        harness.state_mut().state.ask(Action::UseModel(folder.into()));
        harness.run_steps(1);
        let (of, known) = late.clone();
        let learned = crate::app::Learned { of, facts: Err("late".into()), known };
        harness.state_mut().told(Told::Learned(Box::new(learned)));
        assert!(harness.state().state.known.is_none() && harness.state().state.facts.is_none());
        wait(&mut harness, |state| !state.reading());
        let state = &harness.state().state;
        assert_eq!(state.known.as_ref().and_then(|known| known.profile.clone().ok()), fits);
        assert!(ratios(state).is_empty() && state.prediction.trouble.is_some());
    }
    // Another prompt and size ask again, but what is wrong is told once.
    for prompt in ["a", "a b", "a b c"] {
        harness.state_mut().state.form.prompt = prompt.into();
        harness.run_steps(1);
        wait(&mut harness, |state| state.facts_of == Some(FactsKey::of(&state.form)));
    }
    let told = harness.state().state.log.iter().filter(|(_, text)| text.contains("profile cannot be used")).count();
    assert_eq!(told, 1);
    harness.state_mut().state.ask(Action::UseModel(demo_model()));
    harness.run_steps(1);
    wait(&mut harness, |state| !state.reading());
    assert_eq!(ratios(&harness.state().state), own);
}

#[test]
fn another_model_takes_no_settings_away() {
    let mut harness = with_demo_model([1360.0, 1300.0]);
    assert!(harness.state().state.undo.is_none(), "the first model replaces none");
    let form = &mut harness.state_mut().state.form;
    (form.clip.num_inference_steps, form.clip.guidance_scale) = (21, 2.5);
    form.cache_block(4, true);
    harness.run_steps(2);
    wait(&mut harness, |state| !state.reading());
    let before = harness.state().state.form.clone();
    // What is no model is none, and changes nothing.
    let folder = tempfile::tempdir().unwrap();
    harness.state_mut().state.ask(Action::UseModel(folder.path().into()));
    harness.run_steps(2);
    assert!(harness.state().state.form == before && harness.state().state.undo.is_none());
    assert!(harness.state().state.log.iter().any(|(_, text)| text.contains("no model in it")));
    other_model(folder.path(), Some);
    harness.state_mut().state.ask(Action::UseModel(folder.path().into()));
    harness.run_steps(2);
    assert_ne!(harness.state().state.form.clip.num_inference_steps, 21);
    harness.get_by_label("Undo: use another model").click();
    harness.run_steps(2);
    // What the profile knows comes when it has been read again.
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
    (app.state.form.model, app.state.form.clip.num_inference_steps) = ("gone/model".into(), 21);
    app.choose_first_model();
    assert!(app.state.form.model.ends_with("demo-model") && app.state.form.clip.num_inference_steps != 21);
    assert!(app.state.log.iter().any(|(_, text)| text.contains("gone/model is not there any more: the built-in")));
    harness.run_steps(2);
    harness.get_by_label("Undo: use another model").click();
    harness.run_steps(2);
    assert_eq!(harness.state().state.form.clip.num_inference_steps, 21);
}

/// While the plan is for other steps nothing is generated.
#[test]
fn generating_waits_for_the_profile() {
    let mut harness = with_demo_model([1360.0, 860.0]);
    harness.get_by_label("Planner").click();
    harness.run_steps(3);
    let state = &mut harness.state_mut().state;
    assert!(!state.waits_for_profile());
    state.form.clip.num_inference_steps = 20;
    assert!(state.waits_for_profile());
    state.ask(Action::Generate);
    harness.run_steps(1);
    assert!(matches!(harness.state().state.job, Job::Idle));
    wait(&mut harness, |state| !state.waits_for_profile() && state.prediction.plans.len() == 20);
    assert_eq!(harness.state().state.prediction.trouble, None);
}

/// What is known of a model does not hang on the strategy that was chosen when it was asked for.
#[test]
fn a_target_after_fewer_steps_is_for_all_steps() {
    let mut harness = with_demo_model([1360.0, 860.0]);
    harness.get_by_label("Fewer steps").click();
    harness.run_steps(2);
    harness.state_mut().state.form.clip.num_inference_steps = 20;
    harness.run_steps(2);
    wait(&mut harness, |state| !state.reading());
    harness.get_by_label("Planner").click();
    harness.run_steps(4);
    assert_eq!(harness.state().state.prediction.trouble, None);
    assert_eq!(harness.state().state.prediction.plans.len(), 20);
}

#[test]
fn the_mask_is_painted_and_the_blocks_scored_anew() {
    let mut harness = filled([1360.0, 860.0], 1.0, true);
    harness.state_mut().state.view.colouring = Colouring::Lift;
    harness.run_steps(4);
    let lift = |state: &State| {
        let run = state.runs.current().unwrap();
        state.scores.get((run, run), false, 9, 6).map(|score| score.lift)
    };
    let bits = |state: &State| state.runs.current().unwrap().mask().unwrap().to_vec();
    let estimated = lift(&harness.state().state).unwrap();
    harness.get_by_label("Paint mask").click();
    harness.run_steps(2);
    harness.get_by_label("Clear").click();
    harness.run_steps(4);
    assert!(!bits(&harness.state().state).contains(&true));
    assert_eq!(lift(&harness.state().state), None);
    // A stroke from the upper left token to the upper right one paints all between.
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
    let painted = bits(&harness.state().state);
    let frame = painted.chunks(64).position(|frame| frame.contains(&true)).unwrap();
    assert!(painted[frame * 64..frame * 64 + 8].iter().all(|bit| *bit));
    assert_eq!(painted.iter().filter(|bit| **bit).count(), 8);
    // The stroke is one step back, and one forth again; other buttons paint nothing.
    harness.get_by_label("Undo painting").click();
    harness.run_steps(4);
    assert!(!bits(&harness.state().state).contains(&true));
    harness.key_press_modifiers(Modifiers::COMMAND, Key::Z);
    harness.run_steps(4);
    assert_eq!(bits(&harness.state().state), painted);
    for pressed in [true, false] {
        let (pos, button) = (at(4.0, 4.0), PointerButton::Secondary);
        harness.event(Event::PointerButton { pos, button, pressed, modifiers: Modifiers::NONE });
        harness.run_steps(2);
    }
    assert_eq!(bits(&harness.state().state), painted);
    harness.get_by_label_contains("Mask of run").focus();
    harness.run_steps(4);
    let other = lift(&harness.state().state).unwrap();
    assert!((other - estimated).abs() > 0.1, "{other} {estimated}");
    // The keys go on from the middle: down and space adds a token, erase and space takes it away.
    harness.key_press(Key::ArrowDown);
    harness.run_steps(1);
    harness.key_press(Key::Space);
    harness.run_steps(3);
    assert_eq!(bits(&harness.state().state).iter().filter(|bit| **bit).count(), 9);
    harness.state_mut().state.brush.erase = true;
    harness.key_press(Key::Enter);
    harness.run_steps(3);
    assert_eq!(bits(&harness.state().state), painted);
    harness.get_by_label("Use estimated mask").click();
    harness.run_steps(6);
    assert_eq!(lift(&harness.state().state), Some(estimated));
}

#[test]
fn what_is_paid_to_the_subject_lies_over_the_frame() {
    let mut harness = filled([1360.0, 860.0], 1.0, true);
    harness.get_by_label("to subject").click();
    harness.run_steps(3);
    assert!(harness.state().state.view.paid);
    let shown = crate::app::panes::preview::attention::overlays(&harness.state().state);
    assert!(shown[0].values.iter().all(|value| (0.0..=1.0).contains(value)), "shares, not received attention");
    harness.get_by_label("received").click();
    harness.run_steps(3);
    assert!(!harness.state().state.view.paid);
}

/// A plan made by hand gets a name, is saved, dropped on the window again, and becomes a profile.
#[test]
fn plans_of_the_user_have_names_and_live_in_files() {
    let mut harness = with_demo_model([1360.0, 860.0]);
    let blocks = harness.state().state.blocks();
    let steps = harness.state().state.form.clip.num_inference_steps;
    let edit = crate::app::data::plan_edit::toggle(&vec![StepPlan::compute(blocks); steps], blocks, 4..6, 2..4);
    harness.state_mut().state.form.use_plan(crate::app::data::plan_edit::TITLE, Origin::Hand, edit.plans);
    harness.run_steps(3);
    let field = harness.get_by(|node| node.role() == Role::TextInput && node.value().as_deref() == Some("my plan"));
    field.focus();
    harness.run_steps(2);
    harness.key_press_modifiers(Modifiers::COMMAND, Key::A);
    // Another strategy has this name: it is not taken.
    harness.event(Event::Text("off".into()));
    harness.run_steps(2);
    assert_eq!(harness.state().state.form.strategy().name(), "my plan");
    harness.key_press_modifiers(Modifiers::COMMAND, Key::A);
    harness.event(Event::Text("blocks 2 and 3".into()));
    harness.run_steps(2);
    let state = &harness.state().state;
    assert_eq!(state.form.strategy().name(), "blocks 2 and 3");
    assert_eq!(crate::app::panes::strategy::custom::background(state), [2, 3]);

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("plan.json");
    let (saved, json) = (state.form.strategy().clone(), state.form.strategy().to_json());
    std::fs::write(&path, json).unwrap();
    harness.get_by_label("Remove this plan").click();
    harness.run_steps(2);
    assert_eq!(harness.state().state.form.strategy().name(), "off");
    harness.state_mut().state.ask(Action::OpenStrategy(path.clone()));
    let same = |state: &State| {
        let (opened, saved) = (state.form.strategy().own_plan(), saved.own_plan());
        opened.zip(saved).is_some_and(|(opened, saved)| (&opened.title, &opened.plans) == (&saved.title, &saved.plans))
    };
    wait(&mut harness, same);
    std::fs::write(&path, "[1, 2]").unwrap();
    harness.state_mut().state.ask(Action::OpenStrategy(path));
    wait(&mut harness, |state| state.log.iter().any(|(_, text)| text.contains("holds no strategy")));

    let profile = crate::app::panes::strategy::custom::profile_json(&demo_model(), vec![3, 2]).unwrap();
    let profile = Profile::from_json(profile.as_bytes()).unwrap();
    assert_eq!((profile.partition.background, profile.partition.foreground.len()), (vec![2, 3], blocks - 2));
    assert!(crate::app::panes::strategy::custom::profile_json(&demo_model(), vec![99]).is_err());
}

#[test]
fn cells_are_pinned_and_compared() {
    let mut harness = filled([1360.0, 860.0], 1.0, true);
    harness.get_by_label("Pin cell").click();
    harness.run_steps(2);
    assert_eq!(harness.state().state.view.pinned.map(|[_, block]| block), Some(5));
    harness.state_mut().state.view.block = Some(7);
    harness.run_steps(2);
    assert_eq!(crate::app::panes::preview::attention::overlays(&harness.state().state).len(), 2);
    harness.get_by_label("Minus pinned").click();
    harness.run_steps(2);
    assert_eq!(crate::app::panes::preview::attention::overlays(&harness.state().state).len(), 1);
}

/// What does nothing to the pictures on show has no control beside them.
#[test]
fn controls_are_those_of_the_comparison() {
    let mut harness = filled([1360.0, 860.0], 1.0, true);
    harness.state_mut().state.brush.on = true;
    for (mode, pin, outline) in
        [("One", true, true), ("Split", false, true), ("Side by side", false, true), ("Difference", false, false)]
    {
        harness.get_by_label(mode).click();
        harness.run_steps(2);
        let there = |name: &str| harness.query_by_label(name).is_some();
        assert_eq!([there("Pin cell"), there("Clear")], [pin; 2], "{mode}");
        assert_eq!([there("Mask outline"), there("received")], [outline; 2], "{mode}");
    }
    // Painting is for one run: it shows that one.
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
    let before = harness.state().state.view.step;
    for _ in 0..60 {
        harness.step();
        if harness.state().state.view.step != before {
            break;
        }
    }
    assert_eq!(harness.state().state.view.step, before.map(|step| step + 1));
    harness.get_by_label("Stop playback").click();
    harness.run_steps(2);
    assert!(!harness.state().state.view.playing);
    // Without a loop the last step is the end: there it starts from the first.
    let view = &mut harness.state_mut().state.view;
    (view.looping, view.step) = (false, Some(15));
    harness.get_by_label("Play").click();
    harness.run_steps(2);
    let view = &harness.state().state.view;
    assert!(view.playing && view.step.is_some_and(|step| step < 3), "{:?}", view.step);
}

#[test]
fn maps_of_two_runs_are_subtracted() {
    let mut harness = filled([1360.0, 860.0], 1.0, true);
    let state = &mut harness.state_mut().state;
    (state.view.colouring, state.view.subtract) = (Colouring::Lift, true);
    harness.run_steps(6);
    let cells = crate::app::panes::map::cells::Cells::of(&harness.state().state);
    assert!(cells.subtracted && cells.any());
    assert_eq!(cells.range[0], -cells.range[1]);
}

#[test]
fn an_idle_window_draws_nothing() {
    let mut harness = filled([1360.0, 860.0], 1.0, true);
    harness.run_steps(10);
    // Fails after a few frames if the window goes on asking for more.
    let frames = harness.try_run().expect("a window that comes to rest");
    assert!(frames <= 2, "{frames}");
}

#[test]
fn every_pane_has_a_menu_of_pictures() {
    let mut harness = filled([1360.0, 860.0], 1.0, true);
    for pane in [Pane::Strategy, Pane::Preview, Pane::Map, Pane::Numbers, Pane::Steps, Pane::Runs] {
        harness.get_by_label(&format!("Menu of the pane {}", pane.title())).click();
        harness.run_steps(2);
        assert!(harness.query_by_label("Save picture of the pane (PNG)...").is_some(), "{}", pane.title());
        harness.key_press(Key::Escape);
        harness.run_steps(2);
    }
}

#[test]
fn a_pane_becomes_a_picture() {
    let (to, pictures) = channel();
    let place = egui::Rect::from_min_size(egui::pos2(40.0, 20.0), vec2(50.0, 30.0));
    let mut harness = Harness::builder().with_size(vec2(200.0, 100.0)).wgpu().build_ui_state(
        move |ui, shots: &mut Shots| {
            ui.painter().rect_filled(place, 0.0, egui::Color32::RED);
            shots.place(Pane::Map, place);
            let to = to.clone();
            shots.take(ui.ctx(), move |picture| to.send(picture).unwrap());
        },
        Shots::default(),
    );
    harness.state_mut().want(Some(Pane::Map));
    harness.run_steps(8);
    let clip = pictures.try_recv().expect("a picture").unwrap();
    assert_eq!((clip.width(), clip.height()), (50, 30));
    assert!(clip.frames()[0].chunks_exact(3).all(|pixel| pixel[0] > 200 && pixel[1] < 60));
    assert!(pictures.try_recv().is_err(), "one picture only");
}

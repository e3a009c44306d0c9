//! Jobs, their results, and what closing the window would lose. The tests use the window as users
//! do. The GPU opens when the test says so.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use eframe::egui_wgpu::WgpuSetup;
use egui::accesskit::Role;
use egui::{Key, Modifiers, vec2};
use egui_kittest::Harness;
use egui_kittest::kittest::Queryable;

use super::sample::{self, Kind};
use super::{SETUP, compared, fill, filled, options, wait};
use crate::app::actions::Action;
use crate::app::data::change::Undo;
use crate::app::data::job::{Job, Wanted};
use crate::app::data::log::Level;
use crate::app::data::model::ModelQuery;
use crate::app::data::shared::Shared;
use crate::app::dialogs::{Choose, Chosen, Dialog, Purpose};
use crate::app::draw::theme::decibels;
use crate::app::save::{self, Content};
use crate::app::{App, Options};
use crate::caching::{DbCache, EasyCache, MagCache, Origin, StepPlan, StrategyConfig, TeaCache};
use crate::engine::Stage;

/// A window whose GPU opens when the test sends a value. Opening fails for `true`, and panics for
/// `false`.
fn with_slow_gpu() -> (Harness<'static, App>, crossbeam_channel::Sender<bool>, Arc<AtomicUsize>) {
    let (answer, asked) = crossbeam_channel::unbounded::<bool>();
    let opened = Arc::new(AtomicUsize::new(0));
    let count = opened.clone();
    let open_engine = move |_: Option<&str>| {
        count.fetch_add(1, Ordering::Relaxed);
        assert!(asked.recv()?, "opening it broke");
        Err(anyhow::anyhow!("there is no GPU in this test"))
    };
    let options = Options { open_engine: Arc::new(open_engine), ..options() };
    let mut harness = Harness::builder()
        .with_size(vec2(1360.0, 860.0))
        .wgpu_setup(WgpuSetup::Existing(SETUP.clone()))
        .build_eframe(|cc| App::new(cc, options));
    fill(harness.state_mut(), true);
    harness.state_mut().shared.form.model = PathBuf::from("a model");
    harness.state_mut().shared.model.query = Some(ModelQuery::of(&harness.state().shared.form));
    harness.run_steps(2);
    (harness, answer, opened)
}

fn commands(harness: &Harness<'_, App>) -> Vec<egui::ViewportCommand> {
    harness.output().viewport_output.get(&egui::ViewportId::ROOT).map(|root| root.commands.clone()).unwrap_or_default()
}

fn told(state: &Shared, words: &str) -> bool {
    state.log.iter().any(|line| line.text.contains(words))
}

#[test]
fn a_job_is_cancelled_while_the_gpu_opens_and_started_again() {
    let (mut harness, answer, opened) = with_slow_gpu();
    let click = |harness: &mut Harness<'_, App>, name: &str| {
        harness.get_by_label(name).click();
        // The buttons find their place within two frames.
        harness.run_steps(4);
    };
    click(&mut harness, "Generate");
    assert!(matches!(harness.state().shared.job, Job::Opening));
    click(&mut harness, "Cancel");
    assert!(matches!(harness.state().shared.job, Job::Idle));
    click(&mut harness, "Generate");
    assert!(matches!(harness.state().shared.job, Job::Opening));
    answer.send(true).unwrap();
    wait(&mut harness, |state| told(state, "no GPU in this test"));
    assert!(matches!(harness.state().shared.job, Job::Idle));
    // If no job waits for the GPU any more, the failure is a warning.
    click(&mut harness, "Generate");
    click(&mut harness, "Cancel");
    answer.send(true).unwrap();
    let warned = |state: &Shared| state.log.iter().any(|line| line.level == Level::Warning);
    wait(&mut harness, warned);
    assert_eq!(opened.load(Ordering::Relaxed), 2, "once while the first job and the second waited, once for the third");
}

/// The menu lists the GPUs, and the chosen one is opened for the next job.
#[test]
fn the_gpu_is_chosen_in_a_menu() {
    let asked: Arc<std::sync::Mutex<Vec<Option<String>>>> = Arc::default();
    let log = asked.clone();
    let open_engine = move |gpu: Option<&str>| {
        log.lock().unwrap().push(gpu.map(str::to_owned));
        Err(anyhow::anyhow!("there is no GPU in this test"))
    };
    let options = Options { open_engine: Arc::new(open_engine), gpu: Some("by option".into()), ..options() };
    let mut harness = Harness::builder()
        .with_size(vec2(1360.0, 860.0))
        .wgpu_setup(WgpuSetup::Existing(SETUP.clone()))
        .build_eframe(|cc| App::new(cc, options));
    // The View menu has symbols that the test's fonts lack.
    harness.ctx.set_missing_glyph_policy(egui::MissingGlyphPolicy::Tofu);
    fill(harness.state_mut(), true);
    harness.state_mut().shared.form.model = PathBuf::from("a model");
    harness.state_mut().shared.model.query = Some(ModelQuery::of(&harness.state().shared.form));
    harness.run_steps(2);
    let generate = |harness: &mut Harness<'_, App>| {
        harness.get_by_label("Generate").click();
        harness.run_steps(2);
        wait(harness, |state| matches!(state.job, Job::Idle));
    };
    generate(&mut harness);
    harness.get_by_label("View").click();
    harness.run_steps(2);
    harness
        .get_by(|node| node.role() == Role::Button && node.label().is_some_and(|label| label.starts_with("GPU")))
        .click();
    wait(&mut harness, |state| state.gpus.is_some());
    harness.run_steps(2);
    harness.get_by_label("Strong (Dx12)").click();
    harness.run_steps(2);
    assert_eq!(harness.state().shared.prefs.gpu.as_deref(), Some("Strong (Dx12)"));
    harness.key_press(egui::Key::Escape);
    harness.run_steps(2);
    generate(&mut harness);
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked, [Some("by option".to_owned()), Some("Strong (Dx12)".to_owned())]);
}

/// A job that is known to fail is not started. It would fail only after everything is loaded.
#[test]
fn a_strategy_that_cannot_work_is_not_started() {
    let (mut harness, _answer, opened) = with_slow_gpu();
    let plan = StrategyConfig::plan("short", Origin::Hand, vec![StepPlan::compute(8); 3]);
    for (strategy, why) in [
        (StrategyConfig::of(MagCache::default()), "no calibration"),
        (StrategyConfig::of(TeaCache::default()), "no calibration"),
        (plan, "for 3 steps"),
    ] {
        harness.state_mut().shared.form.use_strategy(strategy);
        harness.run_steps(2);
        let state = &harness.state().shared;
        assert!(
            state.ready().is_err_and(|told| told.contains(why) && !told.contains("--profile")),
            "{:?}",
            state.ready()
        );
        harness.key_press_modifiers(Modifiers::COMMAND, Key::Enter);
        harness.run_steps(2);
        assert!(matches!(harness.state().shared.job, Job::Idle) && told(&harness.state().shared, why));
    }
    assert_eq!(opened.load(Ordering::Relaxed), 0);
}

#[test]
fn the_window_outlives_a_bug_beside_it() {
    let (mut harness, answer, _) = with_slow_gpu();
    harness.get_by_label("Generate").click();
    harness.run_steps(2);
    answer.send(false).unwrap();
    wait(&mut harness, |state| told(state, "which is a bug of it"));
    assert!(matches!(harness.state().shared.job, Job::Idle));
    assert!(harness.query_by_label("Generate").is_some());
}

#[test]
fn what_was_thrown_away_comes_back() {
    let mut harness = filled([1360.0, 860.0], 1.0, true);
    let click = |harness: &mut Harness<'_, App>, name: &str| {
        harness.get_by_label(name).click();
        harness.run_steps(2);
    };
    click(&mut harness, "Runs");
    click(&mut harness, "Close run #2 uniform");
    assert_eq!(harness.state().shared.runs.len(), 1);
    click(&mut harness, "Undo: close #2 uniform");
    assert_eq!(harness.state().shared.runs.current().map(|run| run.id), Some(2));
    let plans = harness.state().shared.prediction.plans.clone();
    harness.state_mut().shared.form.use_plan("short walk", Origin::Hand, plans);
    harness.run_steps(2);
    click(&mut harness, "Remove this plan");
    assert_eq!(harness.state().shared.form.strategy().name(), "off");
    click(&mut harness, "Undo: remove \"short walk\"");
    assert_eq!(harness.state().shared.form.strategy().name(), "short walk");
    assert!(harness.query_by_label_contains("Undo").is_none());
}

/// Sliders do not change values from a file by being drawn.
#[test]
fn settings_beyond_a_slider_stay_as_they_are() {
    let mut harness = filled([1360.0, 860.0], 1.0, true);
    let strategies = [
        StrategyConfig::of(DbCache { threshold: 0.08537, front: 20, ..Default::default() }),
        StrategyConfig::of(EasyCache { threshold: 1.25, first: 90, ..Default::default() }),
    ];
    for strategy in strategies {
        harness.state_mut().shared.form.use_strategy(strategy.clone());
        harness.run_steps(3);
        assert_eq!(*harness.state().shared.form.strategy(), strategy);
    }
}

#[test]
fn a_number_counts_once_it_is_written() {
    let mut harness = filled([1360.0, 860.0], 1.0, true);
    let before = harness.state().shared.form.clip.num_inference_steps;
    harness.get_by_role_and_label(Role::SpinButton, "steps").click();
    harness.run_steps(2);
    harness.key_press_modifiers(Modifiers::COMMAND, Key::A);
    harness.event(egui::Event::Text("30".into()));
    harness.run_steps(2);
    assert_eq!(harness.state().shared.form.clip.num_inference_steps, before);
    // A job takes over the number that is being written.
    harness.state_mut().shared.form.model = PathBuf::new();
    harness.key_press_modifiers(Modifiers::COMMAND, Key::Enter);
    harness.run_steps(2);
    assert_eq!(harness.state().shared.form.clip.num_inference_steps, 30);
    assert!(told(&harness.state().shared, "Choose a model first"));
}

/// Tries to close the window. Returns whether it asks first.
fn close(harness: &mut Harness<'_, App>) -> bool {
    let tell = |harness: &mut Harness<'_, App>, events| {
        harness.input_mut().viewports.entry(egui::ViewportId::ROOT).or_default().events = events;
        harness.step();
    };
    tell(harness, vec![egui::ViewportEvent::Close]);
    let kept = commands(harness).contains(&egui::ViewportCommand::CancelClose);
    tell(harness, Vec::new());
    harness.run_steps(3);
    assert_eq!(kept, harness.query_by_label("Quit without saving").is_some());
    kept
}

#[test]
fn closing_waits_for_a_file_that_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().to_owned();
    let choose = move |dialog: Dialog| -> Chosen {
        let Purpose::Save(name) = dialog.purpose else { panic!("{dialog:?}") };
        Box::pin(std::future::ready(Some(place.join(name))))
    };
    let options = Options { choose: Arc::new(choose) as Choose, ..options() };
    let mut harness = Harness::builder()
        .with_size(vec2(1360.0, 860.0))
        .wgpu_setup(WgpuSetup::Existing(SETUP.clone()))
        .build_eframe(|cc| App::new(cc, options));
    fill(harness.state_mut(), true);
    let (go_on, waits) = crossbeam_channel::bounded::<()>(0);
    let slow = Content::new(move |path: &Path| {
        waits.recv().map_err(|error| error.to_string())?;
        std::fs::write(path, "{}").map_err(|error| error.to_string())
    });
    harness.state().link.save(&save::PROFILE, slow);
    wait(&mut harness, |state| state.saving == 1);
    assert!(harness.query_by_label("Saving...").is_some());
    assert!(close(&mut harness));
    assert!(harness.query_by_label_contains("A file is being written.").is_some());
    go_on.send(()).unwrap();
    wait(&mut harness, |state| state.saving == 0);
    assert!(harness.query_by_label("Stay").is_none() && harness.query_by_label("Saving...").is_none());
    assert_eq!(std::fs::read_to_string(folder.path().join(save::PROFILE.name)).unwrap(), "{}");
    // A run whose clip is in a file is not lost.
    let mut long = sample::capture(Kind::Uniform);
    long.steps[3].seconds = 100.0;
    harness.state_mut().shared.runs.add(long, false, None);
    assert!(close(&mut harness));
    harness.state_mut().actions.ask(Action::Save(&save::CLIP));
    wait(&mut harness, |state| told(state, "clip.mp4") && state.saving == 0);
    assert!(!close(&mut harness));
}

#[test]
fn closing_asks_before_a_long_run_is_lost() {
    let mut harness = filled([1360.0, 860.0], 1.0, true);
    assert!(!close(&mut harness), "little is lost");
    let mut long = sample::capture(Kind::Uniform);
    long.steps[3].seconds = 100.0;
    let id = harness.state_mut().shared.runs.add(long, false, None);
    assert!(close(&mut harness));
    harness.get_by_label("Stay").click();
    harness.run_steps(2);
    assert!(harness.query_by_label("Stay").is_none());
    // A closed run could still come back.
    let closed = harness.state_mut().shared.runs.close(id).unwrap();
    harness.state_mut().shared.undo = Some(Undo::Run(Box::new(closed)));
    assert!(close(&mut harness));
    harness.get_by_label("Stay").click();
    harness.run_steps(2);
    harness.state_mut().actions.ask(Action::Undo);
    harness.run_steps(2);
    harness.state_mut().shared.runs.saved(id, PathBuf::from("long.capture"));
    assert!(!close(&mut harness), "it is saved");
    harness.state_mut().shared.job = Job::begun();
    assert!(close(&mut harness));
    harness.get_by_label("Quit without saving").click();
    harness.step();
    assert!(commands(&harness).contains(&egui::ViewportCommand::Close));
}

/// A long stage counts its seconds.
#[test]
fn long_stages_count_their_seconds() {
    let mut harness = filled([1360.0, 860.0], 1.0, true);
    let mut capture = sample::capture(Kind::Uniform);
    (capture.clip, capture.outcome) = (None, None);
    let app = harness.state_mut();
    let run = Some(app.shared.runs.add(capture, true, None));
    let since = Instant::now().checked_sub(Duration::from_secs(600)).unwrap();
    app.shared.job = Job::Running { run, stage: Some(Stage::Decode), wanted: Wanted::Run, since, paused: None };
    harness.run_steps(3);
    assert!(harness.query_all_by_label_contains("decoding 60").next().is_some());
    assert!(harness.query_by_label("decoding").is_some(), "in the numbers, where the time to go was");
    let wakes = harness.output().viewport_output[&egui::ViewportId::ROOT].repaint_delay;
    assert!(wakes <= Duration::from_secs(1), "{wakes:?}");
    let Job::Running { wanted, .. } = &mut harness.state_mut().shared.job else { unreachable!() };
    *wanted = Wanted::Pause;
    harness.run_steps(2);
    assert!(harness.query_all_by_label("paused").next().is_some());
}

/// Every run of the baseline's job is compared, once.
#[test]
fn likenesses_are_found_once_for_all_runs() {
    let mut harness = filled([1360.0, 860.0], 1.0, true);
    let app = harness.state_mut();
    let mut odd = sample::capture(Kind::Uniform);
    odd.clip.as_mut().unwrap().frames.pop();
    let odd = app.shared.runs.add(odd, false, None);
    let other = app.shared.runs.add(sample::capture(Kind::Uniform), false, None);
    app.shared.runs.show(2);
    wait(&mut harness, |state| state.runs.iter().filter(|run| run.id != 1).all(|run| compared(state, run)));
    let known = harness.state().shared.likeness.clone();
    assert_eq!(known.len(), 3);
    for shown in [odd, other, 1, 2, odd] {
        harness.state_mut().shared.runs.show(shown);
        harness.run_steps(2);
        assert_eq!(harness.state().shared.likeness, known);
    }
    assert!(harness.query_by_label("The clips cannot be compared.").is_some());
    harness.get_by_label("Runs").click();
    harness.run_steps(2);
    let psnr = harness.state().shared.known_likeness(harness.state().shared.runs.get(other).unwrap()).unwrap().psnr;
    let told = harness.query_all_by_label(&decibels(psnr)).count();
    assert_eq!(told, 2, "two runs of the list have this PSNR");
}

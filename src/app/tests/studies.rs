//! The panes of studies: a profile is made and used, strategies are compared, both on a real engine
//! with a tiny clip; and pictures of both panes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use egui::vec2;
use egui_kittest::Harness;
use egui_kittest::kittest::Queryable;

use super::pictures::pane;
use super::tools::other_model;
use super::{SETUP, options, wait};
use crate::app::data::job::Job;
use crate::app::data::study::{RunningStudy, Sheet, StrategyComparison, StudyKind};
use crate::app::{App, Options};
use crate::caching::StrategyConfig;
use crate::engine::{ClipSettings, Engine};
use crate::gpu::{Gpu, GpuOptions};
use crate::study::compare::{Case, Entry, Folder, Row, Scores, Settings};
use crate::study::queue::Queue;
use crate::study::{Cancel, Progress, Size};

/// A window with a copy of the demo model that has no profile, and the smallest clip.
fn with_engine(model: &Path) -> Harness<'static, App> {
    other_model(model, |_| None);
    let open_engine = Arc::new(|_: Option<&str>| {
        let engine = Engine::start(Gpu::open(&GpuOptions::default())?, Duration::from_millis(100))?;
        Ok((engine, Vec::new()))
    });
    let options = Options { open_engine, demo_model: Some(model.to_owned()), ..options() };
    let mut harness = Harness::builder()
        .with_size(vec2(1500.0, 1000.0))
        .wgpu_setup(eframe::egui_wgpu::WgpuSetup::Existing(SETUP.clone()))
        .build_eframe(|cc| App::new(cc, options));
    let shared = &mut harness.state_mut().shared;
    shared.prefs.hints_seen = true;
    let clip = ClipSettings { width: 48, height: 32, num_frames: 5, num_inference_steps: 4, ..shared.form.clip };
    shared.form.clip = clip;
    wait(&mut harness, |shared| shared.model.facts.is_some() && !shared.reading());
    harness
}

/// Waits until no study runs: longer than for anything else.
fn wait_for_the_end(harness: &mut Harness<'_, App>) {
    let start = std::time::Instant::now();
    while harness.state().shared.job.busy() {
        assert!(start.elapsed().as_secs() < 300, "the study does not end");
        std::thread::sleep(Duration::from_millis(20));
        harness.run_steps(1);
    }
    harness.run_steps(2);
}

/// Writes a text into the field with this name.
fn write(harness: &mut Harness<'_, App>, field: &str, text: &str) {
    harness.get_by_label(field).focus();
    harness.run_steps(2);
    harness.key_press_modifiers(egui::Modifiers::COMMAND, egui::Key::A);
    harness.run_steps(2);
    harness.get_by_label(field).type_text(text);
    harness.run_steps(3);
}

fn open(harness: &mut Harness<'_, App>, tab: &str) {
    harness.get_by_label(tab).click();
    harness.run_steps(3);
}

#[test]
fn a_profile_is_made_and_strategies_are_compared() {
    let model = tempfile::tempdir().unwrap();
    let mut harness = with_engine(model.path());
    open(&mut harness, "Profile");
    assert!(harness.query_by_label("The model has no profile.").is_some());
    write(&mut harness, "Prompts of the profile", "a dog running left on grass");
    // It is cancelled once: nothing is kept of a run that did not end.
    harness.get_by_label("Make a profile").click();
    harness.run_steps(2);
    wait(&mut harness, |shared| shared.studies.running.as_ref().is_some_and(|study| study.progress.steps > 0));
    harness.get_by_label("Cancel the study").click();
    wait_for_the_end(&mut harness);
    assert!(!model.path().join("profile.json").exists());
    harness.get_by_label("Make a profile").click();
    harness.run_steps(2);
    assert!(harness.state().shared.job.busy());
    wait_for_the_end(&mut harness);
    let log = |harness: &Harness<'_, App>| -> String {
        harness.state().shared.log.iter().map(|line| format!("{}\n", line.text)).collect()
    };
    assert!(model.path().join("profile.json").is_file(), "{}", log(&harness));
    wait(&mut harness, |shared| shared.model.has_profile());

    open(&mut harness, "Compare");
    write(&mut harness, "Prompts of the comparison", "a cat walking on grass");
    write(&mut harness, "speed-ups", "2");
    harness.get_by_label("Start the comparison").click();
    harness.run_steps(2);
    assert!(harness.state().shared.job.busy(), "{}", log(&harness));
    wait_for_the_end(&mut harness);
    let comparison = harness.state().shared.studies.comparison.clone().unwrap_or_else(|| panic!("{}", log(&harness)));
    assert!(comparison.rows.iter().any(|row| row.strategy == "planner" && row.target == Some(2.0)));
    assert_eq!((comparison.sheets.len(), comparison.queue.list().len()), (1, 1));
    for (view, label) in [
        ("Queue", "done"),
        ("Table", "planner"),
        ("Plot", "Speed against psnr: 3 strategies"),
        ("Sheets", "Contact sheet: a cat walking on grass, seed 0"),
    ] {
        open(&mut harness, view);
        assert!(harness.query_all_by_label(label).next().is_some(), "{view}");
    }
    let exported = model.path().join("exported");
    comparison.exporter()(&exported).unwrap();
    assert_eq!(Folder::new(&exported).read().unwrap().1, comparison.rows);
    for file in ["report.md", "rows.csv", "pareto-psnr.svg", "sheets/001-seed0.mp4"] {
        assert!(exported.join(file).is_file(), "{file}");
    }
}

fn comparison() -> StrategyComparison {
    let entry = |name: &str, target| {
        let (name, config) = (name.to_owned(), StrategyConfig::off());
        Entry { name, target: Some(target), expected: None, config }
    };
    let names = ["planner", "uniform", "fewer-steps"];
    let strategies = names.iter().flat_map(|name| [1.5, 2.0, 3.0].map(|target| entry(name, target))).collect();
    let settings = Settings {
        program: "ditscope".into(),
        adapter: "a GPU".into(),
        driver: String::new(),
        model_id: String::new(),
        vae_id: String::new(),
        clip: ClipSettings {
            width: 64,
            height: 64,
            num_frames: 17,
            num_inference_steps: 30,
            flow_shift: Some(3.0),
            ..ClipSettings::default()
        },
        scheduler: "unipc".into(),
        known_prompts: Vec::new(),
        command: Vec::new(),
        part: None,
        strategies,
    };
    let queue = Queue::default();
    for (number, prompt) in ["a cat walking on grass", "a ball bouncing at night"].into_iter().enumerate() {
        for seed in 0..2 {
            let case = Case { number, prompt: prompt.into(), seed };
            queue.push(format!("{prompt}, seed {seed}"), Size::run(30, 1.0), case);
        }
    }
    queue.cancel(3);
    let mut comparison = StrategyComparison::new(settings, queue, Arc::new(tempfile::tempdir().unwrap()));
    let row = |(rank, name): (usize, &str), target: f64, seed| {
        let rank = rank as f64;
        Row {
            strategy: name.into(),
            target: Some(target),
            prompt: "a cat walking on grass".into(),
            seed,
            flop_speedup: target,
            denoise_speedup: 0.95 * target,
            total_speedup: 0.9 * target,
            hit_rate: 1.0 - 1.0 / target,
            peak_memory: 1 << 28,
            delta_memory: 1 << 20,
            fidelity: Scores {
                psnr: 45.0 - 5.0 * target - 4.0 * rank + seed as f64,
                ssim: 1.0 - 0.02 * target - 0.01 * rank,
                lpips: 0.01 * target + 0.005 * rank,
                ssimulacra2: 95.0 - 6.0 * target - 3.0 * rank,
            },
        }
    };
    let mut rows = Vec::new();
    for seed in 0..2 {
        for named in names.into_iter().enumerate() {
            rows.extend([1.5, 2.0, 3.0].map(|target| row(named, target, seed)));
        }
    }
    let pixels: Vec<u8> = (0..320 * 160).flat_map(|i| [(i % 320 / 2) as u8, (i / 320) as u8, 90]).collect();
    let sheet = Sheet { title: "a cat walking on grass, seed 0".into(), size: [320, 160], pixels: pixels.into() };
    comparison.add(rows, Some(sheet));
    comparison
}

fn running(kind: StudyKind, phase: &str) -> RunningStudy {
    let progress = Progress {
        phase: phase.into(),
        runs_done: 7,
        runs: 25,
        steps_done: 214,
        steps: 750,
        seconds_left: Some(192.0),
    };
    RunningStudy { kind, progress, cancel: Cancel::default() }
}

#[test]
fn pictures_of_both_panes() {
    pane("pane-profile", "profile", [330.0, 420.0], |alone| alone.shared.form.model = "a model".into());
    pane("pane-profile-running", "profile", [330.0, 300.0], |alone| {
        alone.shared.job = Job::Study { kind: StudyKind::Profile, cancelling: false };
        alone.shared.studies.running = Some(running(StudyKind::Profile, "sensitivity"));
    });
    pane("pane-compare", "comparison", [620.0, 330.0], |alone| alone.shared.form.model = "a model".into());
    for view in ["Queue", "Table", "Plot", "Sheets"] {
        let name = format!("pane-compare-{}", view.to_lowercase());
        pane(&name, "comparison", [760.0, 360.0], |alone| {
            alone.shared.studies.comparison = Some(comparison());
            let setup = format!("{{\"view\": \"{view}\"}}");
            alone.panes.by_key_mut("comparison").unwrap().restore(&setup);
        });
    }
}

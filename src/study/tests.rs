//! Tests of studies on a real engine, with the demo model and the smallest clips that LPIPS takes.

use std::path::Path;
use std::time::Duration;

use super::compare::{CompareRequest, Folder, Row, merge};
use super::queue::ItemState;
use super::*;
use crate::caching::Learnt;
use crate::engine::{ClipSettings, Engine, GenerateRequest, RequestInfo};
use crate::gpu::{Gpu, GpuOptions};
use crate::profiling::profile::{Profile, Queries};

fn engine() -> Engine {
    Engine::start(Gpu::open(&GpuOptions::default()).unwrap(), Duration::from_millis(100)).unwrap()
}

fn request(steps: usize) -> GenerateRequest {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo-model");
    let request = GenerateRequest::of_model(&model, "").unwrap();
    let clip = ClipSettings { width: 48, height: 32, num_frames: 5, num_inference_steps: steps, ..request.clip };
    GenerateRequest { clip, ..request }
}

fn prompts(list: &[&str]) -> Vec<String> {
    list.iter().map(|prompt| (*prompt).to_owned()).collect()
}

/// A study that is cancelled during its third run keeps the first two runs, in the file and as an
/// event, and the engine is free again. A study that is cancelled during the trials keeps all
/// measurements.
#[test]
fn a_cancelled_profile_keeps_what_was_measured() {
    let (engine, folder) = (engine(), tempfile::tempdir().unwrap());
    let output = folder.path().join("profile.json");
    let study = ProfileStudy {
        queries: Queries::Sampled(16),
        thorough: true,
        output: Some(output.clone()),
        ..ProfileStudy::new(request(4), prompts(&["a cat walking", "a dog running", "a ball bouncing"]))
    };
    let mut partial = Vec::new();
    let mut cancelled_when = |stop: &dyn Fn(&Progress) -> bool| {
        let cancel = Cancel::default();
        let session = Session::new(&engine, &cancel, |event| match event {
            StudyEvent::Progress(progress) if stop(&progress) => cancel.cancel(),
            StudyEvent::Profiled(profile) => partial.push(profile.prompts.len()),
            _ => {}
        });
        study.run(&session).unwrap_err()
    };
    let kept = || Profile::read(&output.with_added_extension("partial")).unwrap();

    let error = cancelled_when(&|progress| progress.runs_done == 0);
    assert!(error.is_cancelled() && !output.with_added_extension("partial").exists(), "{error}");
    let error = cancelled_when(&|progress| progress.runs_done == 2 && progress.steps_done == 9);
    assert!(error.is_cancelled() && error.to_string().contains(".partial"), "{error}");
    assert_eq!(kept().prompts, prompts(&["a cat walking", "a dog running"]));
    let error = cancelled_when(&|progress| progress.phase == "sensitivity");
    assert!(error.is_cancelled() && error.to_string().contains("until then"), "{error}");
    assert_eq!((kept().prompts.len(), kept().calibration.is_some()), (3, true));
    assert_eq!(partial, [2, 3]);
    assert!(!output.exists());
}

/// A comparison of two strategies, or one part of it.
fn comparison(engine: &Engine, prompts: &[String], shard: Option<&str>) -> CompareStudy {
    let asked = CompareRequest {
        request: request(3),
        prompts: prompts.to_vec(),
        seeds: 2,
        strategies: vec!["uniform:warm-up=0,every=2".into(), "fewer-steps:steps=2".into()],
        speedups: Vec::new(),
        tuning_prompt: "a rocket".into(),
        shard: shard.map(|shard| shard.parse().unwrap()),
        learnt: Learnt::default(),
    };
    let (facts, cancel) = (RequestInfo::of(&asked.request).unwrap(), Cancel::default());
    asked.check(&facts, None).unwrap();
    asked.tune(&Session::new(engine, &cancel, |_| {}), &facts, None).unwrap()
}

/// Rows without times.
fn timeless(rows: &[Row]) -> Vec<Row> {
    rows.iter().map(|row| Row { denoise_speedup: 0.0, total_speedup: 0.0, ..row.clone() }).collect()
}

/// Runs a study to its end. Returns how often it reported a finished prompt and seed.
fn run(engine: &Engine, study: &mut CompareStudy, folder: Option<&Folder>) -> usize {
    let (cancel, mut told) = (Cancel::default(), 0);
    let session = Session::new(engine, &cancel, |event| told += usize::from(matches!(event, StudyEvent::Compared(_))));
    study.run(&session, &study.queue(), folder).unwrap();
    drop(session);
    told
}

/// A comparison that was cut, stopped and joined has the same rows as an uninterrupted one.
#[test]
fn cut_and_cancelled_comparisons_give_the_same_rows() {
    let (engine, place) = (engine(), tempfile::tempdir().unwrap());
    let list = prompts(&["a cat walking", "a ball bouncing"]);
    let mut whole = comparison(&engine, &list, None);
    assert_eq!(run(&engine, &mut whole, None), 4);
    assert_eq!(whole.rows.len(), 4 * 3);
    let again = whole.rows.iter().filter(|row| row.strategy == compare::OFF_AGAIN);
    assert!(again.clone().count() == 4 && again.clone().all(|row| row.fidelity.psnr == compare::MOST_PSNR));
    let wanted = timeless(&whole.rows);

    // The study is cancelled during the second experiment and then resumed from the folder.
    let mut study = comparison(&engine, &list, None);
    let (cancel, queue) = (Cancel::default(), study.queue());
    let folder = Folder::new(&place.path().join("stopped"));
    let session = Session::new(&engine, &cancel, |event| match event {
        StudyEvent::Progress(progress) if progress.runs_done == 7 => cancel.cancel(),
        _ => {}
    });
    assert!(study.run(&session, &queue, Some(&folder)).unwrap_err().is_cancelled());
    drop(session);
    let states: Vec<ItemState> = queue.list().into_iter().map(|item| item.state).collect();
    assert_eq!(states[..2], [ItemState::Done, ItemState::Waiting]);
    let (settings, rows) = folder.read().unwrap();
    assert_eq!((timeless(&rows).as_slice(), &settings), (&wanted[..3], &study.settings));
    let mut study = CompareStudy { rows, ..study };
    assert_eq!(run(&engine, &mut study, Some(&folder)), 3);
    assert_eq!(timeless(&study.rows), wanted);
    assert!(folder.sheet(1, 1, "png").is_file());

    // The comparison is made in three parts.
    let parts: Vec<_> = (1..=3).map(|index| place.path().join(format!("{index}"))).collect();
    for (index, path) in parts.iter().enumerate() {
        let mut part = comparison(&engine, &list, Some(&format!("{}/3", index + 1)));
        run(&engine, &mut part, Some(&Folder::new(path)));
    }
    let merged = merge(&parts).unwrap();
    assert_eq!((timeless(&merged.rows), &merged.settings), (wanted, &whole.settings));
    let folder = Folder::new(&place.path().join("merged"));
    merged.write(&folder).unwrap();
    assert!(folder.sheet(1, 1, "mp4").is_file() && folder.path().join("pareto-ssim.png").is_file());
}

/// One item of a queue is cancelled while it runs and another before its turn. The other items are
/// done.
#[test]
fn one_job_of_a_queue_is_cancelled() {
    let (engine, cancel) = (engine(), Cancel::default());
    let queue = queue::Queue::default();
    for seed in 0..4 {
        queue.push("a job", Size::run(2, 1.0), request(2).with_prompt("a cat", seed));
    }
    let (shown, mut progress) = (queue.clone(), Progress::default());
    let session = Session::new(&engine, &cancel, |event| {
        let StudyEvent::Progress(now) = event else { return };
        if now.runs_done == 1 && now.steps_done == 3 {
            shown.cancel(1);
            shown.cancel(2);
        }
        progress = now;
    });
    let mut seeds = Vec::new();
    queue
        .run(&session, |item| {
            session.run(item.work.clone(), item.size, |_| {})?;
            seeds.push(item.work.clip.seed);
            Ok(())
        })
        .unwrap();
    drop(session);
    assert_eq!(seeds, [0, 3]);
    let states: Vec<ItemState> = queue.list().into_iter().map(|item| item.state).collect();
    assert_eq!(states, [ItemState::Done, ItemState::Cancelled, ItemState::Cancelled, ItemState::Done]);
    assert_eq!((progress.runs_done, progress.runs), (3, 3), "{progress:?}");
}

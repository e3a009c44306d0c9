use std::path::Path;

use super::*;
use crate::caching::{FewerSteps, StrategyConfig};
use crate::sampling::ClipSettings;
use crate::study::compare::report::tests::row;
use crate::study::compare::{CompareStudy, Entry, report};

fn settings() -> Settings {
    let entry = |name: &str, target| {
        let (name, config) = (name.to_owned(), StrategyConfig::of(FewerSteps { steps: 3 }));
        Entry { name, target, expected: Some(30.0), config }
    };
    Settings {
        program: "ditscope 0".into(),
        adapter: "a GPU".into(),
        driver: "a driver".into(),
        model_id: "m".into(),
        vae_id: "v".into(),
        clip: ClipSettings {
            width: 64,
            height: 48,
            num_frames: 5,
            num_inference_steps: 6,
            flow_shift: Some(3.0),
            ..ClipSettings::default()
        },
        scheduler: "unipc".into(),
        known_prompts: vec!["a dog".into()],
        command: Vec::new(),
        part: None,
        strategies: vec![entry("one", Some(2.0)), entry("two", None)],
    }
}

/// The rows of a comparison, or of a part of it, as a study would make them.
fn rows(prompts: &[&str], seeds: u64, part: Option<&Part>) -> Vec<Row> {
    let prompts: Vec<String> = prompts.iter().map(|prompt| (*prompt).to_owned()).collect();
    let runs = |case: crate::study::compare::Case| {
        let mut names = vec![("one", Some(2.0)), ("two", None)];
        if (case.number as u64 + case.seed) % 2 == 1 {
            names.reverse();
        }
        names.push(("off again", None));
        names.into_iter().map(move |(name, target)| row(name, target, &case.prompt, case.seed)).collect::<Vec<_>>()
    };
    cases(&prompts, seeds, &[], part).into_iter().flat_map(runs).collect()
}

/// Folders with the parts of a comparison, which can then be changed.
struct Parts {
    place: tempfile::TempDir,
    parts: Vec<(Settings, Vec<Row>)>,
}

impl Parts {
    fn of(prompts: &[&str], seeds: u64, count: usize) -> Self {
        let part = |index: usize| {
            let shard = format!("{}/{count}", index + 1).parse().unwrap();
            let part = Part { shard, prompts: prompts.iter().map(|text| (*text).into()).collect(), seeds };
            let rows = rows(prompts, seeds, Some(&part));
            (Settings { part: Some(part), ..settings() }, rows)
        };
        Self { place: tempfile::tempdir().unwrap(), parts: (0..count).map(part).collect() }
    }

    fn folder(&self, index: usize) -> PathBuf {
        self.place.path().join(format!("part{index}"))
    }

    fn merge(&self) -> Result<Merged, StudyError> {
        for (index, (settings, rows)) in self.parts.iter().enumerate() {
            Folder::new(&self.folder(index)).begin(settings, rows).unwrap();
        }
        // In another order than they were cut.
        let folders: Vec<PathBuf> = (0..self.parts.len()).rev().map(|index| self.folder(index)).collect();
        merge(&folders)
    }

    #[track_caller]
    fn fails(&self, word: &str) {
        let error = self.merge().unwrap_err();
        assert!(error.is_wrong_use() && error.to_string().contains(word), "{error}");
    }
}

const PROMPTS: [&str; 4] = ["a cat", "a red car", "a dog", "snow"];

#[test]
fn merged_parts_are_the_whole() {
    let whole = rows(&PROMPTS, 3, None);
    for count in [1, 2, 5, 20] {
        let parts = Parts::of(&PROMPTS, 3, count);
        let merged = parts.merge().unwrap();
        assert_eq!((&merged.rows, &merged.settings), (&whole, &settings()), "{count} parts");
        assert_eq!(merged.warnings, [""; 0]);
        let place = Folder::new(&parts.place.path().join("merged"));
        merged.write(&place).unwrap();
        assert_eq!(place.read().unwrap(), (settings(), whole.clone()));
        let table = std::fs::read_to_string(place.path().join("report.md")).unwrap();
        assert!(table.contains(&report::table(&settings(), &whole)));
        assert!(merged.write(&place).unwrap_err().is_wrong_use(), "a comparison is not replaced");
    }
}

#[test]
fn what_is_missing_is_said() {
    let mut parts = Parts::of(&PROMPTS, 2, 3);
    parts.parts.pop();
    let warnings = parts.merge().unwrap().warnings;
    assert!(warnings.len() == 1 && warnings[0].contains("2 of 8 runs are missing, of the parts 3/3"), "{warnings:?}");
}

#[test]
fn other_gpus_are_told_and_other_conditions_refused() {
    let mut parts = Parts::of(&PROMPTS, 2, 3);
    parts.parts[1].0.adapter = "another GPU".into();
    let merged = parts.merge().unwrap();
    assert_eq!(merged.settings.adapter, "a GPU + another GPU");
    assert!(merged.warnings[0].contains("different GPUs"));
    parts.parts[1].0.clip.num_inference_steps = 9;
    parts.fails("num inference steps is 6 there and 9 here");
    let mut parts = Parts::of(&PROMPTS, 2, 3);
    parts.parts[2].0.strategies[0].config = StrategyConfig::of(FewerSteps { steps: 2 });
    parts.fails("(one at 2x)");
    let mut parts = Parts::of(&PROMPTS, 2, 3);
    parts.parts[0].0.part.as_mut().unwrap().seeds = 4;
    parts.fails("not parts of the same whole");
    let mut parts = Parts::of(&PROMPTS, 2, 3);
    parts.parts[0].1 = parts.parts[1].1.clone();
    parts.fails("both have");
    assert!(merge(&[]).is_err() && merge(&[PathBuf::from("no such folder")]).is_err());
}

/// Comparisons of different prompts that were not cut from one whole belong together too. Sheets
/// get new numbers.
#[test]
fn comparisons_of_other_prompts_are_joined() {
    let mut parts = Parts::of(&PROMPTS[..1], 1, 1);
    parts.parts = [&PROMPTS[..2], &PROMPTS[2..]].map(|own| (settings(), rows(own, 1, None))).into();
    let merged = parts.merge().unwrap();
    // The second folder was named first.
    let order: Vec<&str> = merged.rows.iter().step_by(3).map(|row| row.prompt.as_str()).collect();
    assert_eq!(order, ["a dog", "snow", "a cat", "a red car"]);
    std::fs::write(Folder::new(&parts.folder(0)).sheet(1, 0, "png"), "the red car").unwrap();
    let whole = Folder::new(&parts.place.path().join("merged"));
    merged.write(&whole).unwrap();
    assert_eq!(std::fs::read_to_string(whole.sheet(3, 0, "png")).unwrap(), "the red car");
}

/// A study of a shard goes on with its own prompts and seeds alone.
#[test]
fn a_part_queues_its_own() {
    let parts = Parts::of(&PROMPTS, 2, 3);
    let (settings, rows) = parts.parts[1].clone();
    let request = crate::engine::GenerateRequest::of_model(Path::new("assets/demo-model"), "").unwrap();
    let prompts = PROMPTS.map(str::to_owned).to_vec();
    let mut study = CompareStudy { request, prompts, seeds: 2, settings, rows: Vec::new() };
    let all = study.queue().list();
    assert_eq!(
        all.iter().map(|item| item.label.as_str()).collect::<Vec<_>>(),
        ["a cat, seed 1", "a dog, seed 0", "snow, seed 1"]
    );
    study.rows = rows[..3].to_vec();
    let left = study.queue().list();
    assert_eq!(left.iter().map(|item| (item.work.number, item.work.seed)).collect::<Vec<_>>(), [(2, 0), (3, 1)]);
}

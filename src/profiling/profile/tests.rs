//! Profiles survive writing and reading. Broken profiles are refused with one line.

use super::*;
use crate::profiling::partition::TauRule;
use proptest::prelude::*;

/// A profile of a model of 6 blocks at 4 steps.
pub(crate) fn sample() -> Profile {
    let (steps, blocks) = (4, 6);
    let map = |scale: f64| ScoreMap {
        mean: (0..steps)
            .map(|s| (0..blocks).map(|b| (b != 4 || s > 0).then_some(scale * (0.2 + 0.1 * b as f64))).collect())
            .collect(),
        spread: vec![vec![Some(0.05); blocks]; steps],
    };
    let block_lift: Vec<f64> = (0..blocks).map(|b| 0.6 + 0.3 * b as f64).collect();
    Profile {
        format: FORMAT.into(),
        version: VERSION,
        model: ModelId { id: "demo".into(), hash: "0123456789abcdef".into(), blocks },
        settings: RunSettings {
            clip: ClipSettings {
                width: 64,
                height: 64,
                num_frames: 17,
                num_inference_steps: steps,
                guidance_scale: 4.0,
                flow_shift: Some(3.0),
                ..ClipSettings::default()
            },
            scheduler: "unipc".into(),
        },
        prompts: vec!["a cat walking on grass".into()],
        seeds: vec![1, u64::MAX],
        token_grid: [5, 4, 4],
        queries: Queries::Sampled(256),
        sampled_agreement: Some(0.97),
        mask: MaskInfo { estimator: Estimator::Auto, confidence: 0.8, share: 0.2 },
        branches: vec![Branch::Cond, Branch::Uncond],
        scores: Scores {
            recall: map(1.0),
            precision: map(1.0),
            lift: map(3.0),
            auc: map(1.2),
            recall_fixed: Some(map(0.5)),
            precision_fixed: None,
        },
        partition: Partition::new(&block_lift, TauRule::Otsu).unwrap(),
        block_lift,
        calibration: None,
        delta_change: vec![
            vec![None; blocks],
            vec![Some(0.3); blocks],
            vec![Some(0.1); blocks],
            vec![Some(0.2); blocks],
        ],
        prediction_l1: vec![None, Some(0.1), Some(0.03), Some(0.24)],
        residual_change: vec![None, Some(0.2), Some(0.1), Some(0.3)],
        stability: Stability {
            steps: Agreement { spearman: Some(0.9), kendall: Some(0.8), jaccard: Some(1.0) },
            ..Default::default()
        },
    }
}

#[test]
fn a_profile_survives_writing_and_reading() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("profile.json");
    for rule in [TauRule::Otsu, TauRule::Quantile(0.5), TauRule::Value(1.0), TauRule::Lowest(2)] {
        let mut profile = sample();
        profile.partition = Partition::new(&profile.block_lift, rule).unwrap();
        std::fs::write(&path, profile.to_json().unwrap()).unwrap();
        assert_eq!(Profile::read(&path).unwrap(), profile);
    }
    assert!(matches!(Profile::read(&folder.path().join("none")), Err(ProfilingError::Io { .. })));
}

#[test]
fn a_profile_fits_its_model_alone() {
    let profile = sample();
    profile.check_fits("0123456789abcdef", &[], 6).unwrap();
    profile.check_fits("another", &["0123456789abcdef".into()], 6).unwrap();
    let blocks = profile.check_fits("0123456789abcdef", &[], 7).unwrap_err().to_string();
    assert!(blocks.contains("6 blocks") && blocks.contains('7'), "{blocks}");
    let hash = profile.check_fits("fedcba", &["0".into()], 6).unwrap_err().to_string();
    assert!(hash.contains("other weights"), "{hash}");
}

#[test]
fn broken_rules_are_named_in_one_line() {
    type Break = fn(&mut Profile);
    let breaks: [(&str, Break); 16] = [
        ("format", |p| p.format = "other".into()),
        ("version", |p| p.version = 2),
        ("steps", |p| p.settings.clip.num_inference_steps = 5),
        ("partition", |p| p.partition.background.clear()),
        ("partition", |p| p.partition.foreground.push(99)),
        ("block_lift", |p| p.block_lift.push(1.0)),
        ("scores.lift.mean[2]", |p| p.scores.lift.mean[2][1] = Some(-1.0)),
        ("scores.auc.mean[0]", |p| p.scores.auc.mean[0][0] = Some(1.5)),
        ("scores.recall.spread", |p| p.scores.recall.spread.truncate(3)),
        ("delta_change[1]", |p| p.delta_change[1].truncate(5)),
        ("prediction_l1", |p| p.prediction_l1.clear()),
        ("token grid", |p| p.token_grid = [usize::MAX, 2, 2]),
        ("hash", |p| p.model.hash.clear()),
        ("mask", |p| p.mask.share = 1.5),
        ("stability", |p| p.stability.seeds.jaccard = Some(2.0)),
        ("sampled", |p| p.queries = Queries::Sampled(0)),
    ];
    for (word, break_it) in breaks {
        let mut profile = sample();
        break_it(&mut profile);
        let json = serde_json::to_vec(&profile).unwrap();
        let message = Profile::from_json(&json).unwrap_err().to_string();
        assert!(message.contains(word) && !message.contains('\n') && message.len() < 400, "{word}: {message}");
    }
    let mut profile = sample();
    profile.prediction_l1[1] = Some(f64::NAN);
    assert!(profile.to_json().is_err(), "NaN would be written as null");
}

#[test]
fn texts_that_are_no_profiles_are_refused() {
    let json = sample().to_json().unwrap();
    let deep = "[".repeat(100_000);
    for text in
        ["", "{}", "null", "[1]", &json[1..], &json[..json.len() - 1], &deep, "{\"format\":\"a\\nb\",\"version\":1}"]
    {
        let message = Profile::from_json(text.as_bytes()).unwrap_err().to_string();
        assert!(!message.contains('\n') && message.len() < 400, "{message}");
    }
    let extra = json.replacen("\"format\"", "\"extra\":1,\"format\"", 1);
    assert!(Profile::from_json(extra.as_bytes()).unwrap_err().to_string().contains("extra"));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Profile::from_json(&bytes).is_err());
    }

    /// A damaged profile that can still be read obeys every rule, so users may index with its
    /// values.
    #[test]
    fn edited_profiles_are_valid_or_refused(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), "[0-9,.e\\-\\[\\]{}\"a-z ]{0,3}"), 1..5),
    ) {
        let mut json = sample().to_json().unwrap();
        for (at, text) in edits {
            let at = at.index(json.len());
            json.replace_range(at..at + 1, &text);
        }
        if let Ok(profile) = Profile::from_json(json.as_bytes()) {
            let blocks = profile.model.blocks;
            prop_assert_eq!(profile.partition.foreground.len() + profile.partition.background.len(), blocks);
            prop_assert_eq!(profile.delta_change.len(), profile.settings.steps());
            prop_assert!(profile.to_json().is_ok());
        }
    }
}

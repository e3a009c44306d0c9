//! The catalogue: rules are known by key, say everything about themselves, and survive files.

use super::*;

fn sigmas(steps: usize) -> Vec<f64> {
    (0..=steps).rev().map(|step| step as f64 / steps as f64).collect()
}

fn evidence() -> Evidence {
    Evidence::new(sigmas(50), 30)
}

const SHAPE: Shape = Shape { steps: 50, blocks: 30 };

#[test]
fn keys_are_unique_and_texts_are_there() {
    let entries = catalogue::catalogue();
    for (index, entry) in entries.iter().enumerate() {
        let about = entry.about();
        assert!(entries[..index].iter().all(|other| other.about().key != about.key), "{}", about.key);
        assert!(!about.label.is_empty() && about.summary.ends_with('.'), "{}", about.key);
        assert_eq!(entry.defaults(50).key(), about.key);
    }
}

/// A default survives the round trip through its settings' texts and through JSON.
#[test]
fn defaults_survive_text_and_json() {
    for entry in catalogue::catalogue() {
        let config = entry.defaults(50);
        let back: StrategyConfig = serde_json::from_str(&config.to_json()).unwrap();
        assert_eq!(back, config);
        for setting in config.settings(SHAPE) {
            assert!(!setting.label.is_empty() && !setting.help.is_empty(), "{} {}", config.key(), setting.key);
            assert!(!setting.threshold || setting.kind != setting::Kind::Flag);
            let mut again = config.clone();
            again.set(SHAPE, setting.key, setting.value.clone()).unwrap();
            if setting.shown && !setting.value.to_string().is_empty() {
                let text = setting.value.to_string().replace(',', "/");
                again.set_text(SHAPE, setting.key, &text).unwrap();
            }
        }
    }
}

/// Rules that are tuned by a threshold have exactly one; candidates reach more than one speed.
#[test]
fn tuning_fits_the_settings() {
    for entry in catalogue::catalogue() {
        let config = entry.defaults(50);
        let settings = config.settings(SHAPE);
        let thresholds = settings.iter().filter(|setting| setting.threshold).count();
        match config.tuning() {
            Tuning::Threshold => assert_eq!(thresholds, 1, "{}", config.key()),
            Tuning::Candidates { chosen } => {
                assert_eq!(thresholds, 0, "{}", config.key());
                let known = |key: &&str| settings.iter().any(|setting| setting.key == *key);
                assert!(chosen.iter().all(known), "{}", config.key());
                let target = SpeedupTarget { speedup: 2.0, steps: 50, given: &[] };
                assert!(!config.candidates(&target).is_empty());
            }
            Tuning::Fixed(why) => assert!(!why.is_empty()),
        }
    }
}

/// Strategies as files and captures of version 0.1 hold them.
#[test]
fn old_files_open() {
    let read = |json: &str| serde_json::from_str::<StrategyConfig>(json).unwrap();
    assert!(read(r#"{"name":"off"}"#).is_off());
    let uniform = read(r#"{"name":"uniform","warm_up":3,"last":1,"intervals":{"uniform":2}}"#);
    let schedule = StepSchedule { warm_up: 3, last: 1, intervals: Intervals::Uniform(2) };
    assert_eq!(uniform, StrategyConfig::of(Uniform(schedule)));
    let tea = read(r#"{"name":"tea_cache","threshold":0.1,"ret_steps":true,"coefficients":[1,2,3,4,5]}"#);
    let wanted = TeaCache { threshold: 0.1, ret_steps: true, coefficients: Some([1.0, 2.0, 3.0, 4.0, 5.0]) };
    assert_eq!(tea.rule(), Some(&wanted));
    assert_eq!(read(r#"{"name":"fewer_steps","steps":20}"#).rule(), Some(&FewerSteps { steps: 20 }));
    let mag = read(r#"{"name":"mag_cache","threshold":0.12,"max_skips":2,"retention":0.2,"ratios":[1.0,0.9]}"#);
    assert_eq!(mag.rule::<MagCache>().map(|rule| rule.ratios.len()), Some(2));
    let profiling = read(
        r#"{"name":"profiling","blocks":[[0,1]],"lists":"one","carry":{"scale":[1.0]},
            "schedule":{"warm_up":6,"last":1,"intervals":{"decreasing":{"max":12,"min":3,"rounding":"paper"}}}}"#,
    );
    let rule = profiling.rule::<ProfilingDit>().unwrap();
    assert_eq!((rule.list, rule.cached(), &rule.carry), (BlockList::Own, &[0, 1][..], &Carry::Scale(vec![1.0])));
    let step = r#"{"cond":{"blocks":[{"blocks":{"start":0,"end":2},"action":"store"}]},"uncond":{"blocks":[]}}"#;
    let planned = read(&format!(r#"{{"name":"plan","title":"planner","plans":[{step}]}}"#));
    assert_eq!((planned.key(), planned.planned_steps()), ("planner", Some(1)));
    let own = read(&format!(r#"{{"name":"plan","title":"mine","plans":[{step}]}}"#));
    assert_eq!((own.key(), own.name(), own.id().as_str()), ("plan", "mine", "plan:mine"));
    for key in ["easy_cache", "db_cache", "di_cache", "delta_dit"] {
        assert_eq!(read(&format!(r#"{{"name":"{key}"}}"#)).key(), key.replace('_', ""));
    }
}

#[test]
fn rules_of_other_programs_are_kept_but_cannot_run() {
    let json = r#"{"answer":42,"name":"newest"}"#;
    let config: StrategyConfig = serde_json::from_str(json).unwrap();
    assert_eq!(serde_json::to_string(&config).unwrap(), json);
    let error = config.build(&StrategyInputs::default()).err().unwrap().to_string();
    assert!(error.contains("newest"), "{error}");
    assert!(serde_json::from_str::<StrategyConfig>(r#"{"answer":42}"#).is_err());
}

#[test]
fn strategies_parse_with_their_settings() {
    assert!(parse("off", &evidence()).unwrap().is_off());
    let profiling = parse("profiling:blocks=0-2/5,max=8", &evidence()).unwrap();
    let rule = profiling.rule::<ProfilingDit>().unwrap();
    assert_eq!(rule.blocks, [[0, 1, 2, 5]]);
    assert!(matches!(rule.schedule.intervals, Intervals::Decreasing { max: 8.0, min: 3.0, .. }));
    let uniform = parse("uniform:every=3,warm-up=6", &evidence()).unwrap();
    let schedule = StepSchedule { warm_up: 6, last: 1, intervals: Intervals::Uniform(3) };
    assert_eq!(uniform, StrategyConfig::of(Uniform(schedule)));
    assert_eq!(parse("fewer-steps:steps=20", &evidence()).unwrap().rule(), Some(&FewerSteps { steps: 20 }));
    let planner = parse("planner:min-psnr=35", &evidence()).unwrap();
    assert_eq!(planner.rule::<GoalPlan>().map(|rule| rule.goal), Some(Goal::Psnr(35.0)));
    for entry in catalogue::offered() {
        assert_eq!(parse(entry.about().key, &evidence()).unwrap().key(), entry.about().key);
    }
}

#[test]
fn mistakes_are_named() {
    for (text, hint) in [
        ("turbo", "turbo"),
        ("unifrom", "did you mean uniform"),
        ("easycache:treshold=1", "did you mean threshold"),
        ("easycache:threshold=much", "much"),
        ("easycache:threshold=0.1,threshold=0.2", "once"),
        ("uniform:3", "KEY=VALUE"),
        ("uniform:max=3", "no setting called max"),
        ("profiling:blocks=5-2", "5-2"),
        ("profiling:blocks=0-99999999", "list of blocks"),
        ("profiling:blocks=2-9,list=random", "list or blocks"),
        ("profiling:blocks=2-9,every=3,max=8", "max or every"),
        ("profiling:blocks=2-9,seed=1", "seed or blocks"),
        ("profiling:list=stable,seed=1", "not of list=stable"),
        ("profiling:list=foreground,count=3", "takes none"),
        ("profiling:count=31", "30 blocks"),
        ("profiling:list=nearest", "background|foreground"),
        ("planner:speedup=2,min-psnr=30", "min-psnr or speedup"),
        ("uniform:every=0", "\"0\" is no value"),
        ("easycache:threshold=inf", "\"inf\" is no value"),
        ("fewer-steps:steps=20000", "20000"),
    ] {
        let message = parse(text, &evidence()).unwrap_err().to_string();
        assert!(message.contains(hint), "{text}: {message}");
    }
}

/// What a rule must know comes from the evidence, and goes with it.
#[test]
fn calibrations_come_and_go() {
    let calibration = Calibration {
        sigmas: sigmas(50),
        gram: (0..50).map(|i| (0..50).map(|j| 1.0 / (1.0 + f64::from(i32::abs(i - j)))).collect()).collect(),
        amplification: vec![1.0; 50],
        magnitude_ratios: vec![0.9; 50],
        tea_embedding: Some([0.5; 5]),
        tea_projection: None,
        outcomes: vec![(1e-3, 30.0), (1e-5, 50.0)],
    };
    let published = PublishedTea { embedding: Some([1.0; 5]), projection: Some([2.0; 5]) };
    let findings = BlockFindings {
        lift: (0..30).map(|block| if block % 2 == 0 { 0.5 } else { 1.5 } + f64::from(block) * 0.01).collect(),
        background: (0..30).step_by(2).collect(),
        foreground: (1..30).step_by(2).collect(),
        by_change: (0..30).rev().collect(),
    };
    let bare = Evidence::new(sigmas(50), 30);
    let full = bare.clone().with_published_tea(published).with_calibration(calibration).with_findings(findings);
    for text in ["profiling", "teacache", "magcache", "profiling:carry=scale"] {
        let mut config = parse(text, &bare).unwrap();
        assert!(!config.is_calibrated(), "{text}");
        let inputs = StrategyInputs { steps: 50, blocks: 30, ..Default::default() };
        assert!(matches!(config.build(&inputs), Err(CacheError::Uncalibrated(_))), "{text}");
        config.calibrate(&full).unwrap();
        assert!(config.is_calibrated() && config.build(&inputs).is_ok(), "{text}");
        assert_eq!(config, parse(text, &full).unwrap(), "{text}");
        config.uncalibrate();
        assert_eq!(config, parse(text, &bare).unwrap(), "{text}");
    }
    // The planner plans from what there is, and a profile takes the place of the assumption.
    let mut planner = parse("planner", &bare).unwrap();
    assert_eq!(planner.known(), Some(Known::Prior));
    planner.calibrate(&full).unwrap();
    assert_eq!(planner, parse("planner", &bare).unwrap(), "a plan stays as it is");
    planner.uncalibrate();
    planner.calibrate(&full).unwrap();
    assert_eq!((planner.known(), &planner), (Some(Known::Profile), &parse("planner", &full).unwrap()));
    let tea = |text: &str| parse(text, &full).unwrap().rule::<TeaCache>().unwrap().coefficients;
    assert_eq!(tea("teacache"), Some([0.5; 5]), "measured before published");
    assert_eq!(tea("teacache:ret=true"), Some([2.0; 5]));
    let cached = |text: &str| parse(text, &full).unwrap().rule::<ProfilingDit>().unwrap().blocks.clone();
    assert_eq!(cached("profiling:count=2"), [[0, 2]]);
    assert_eq!(cached("profiling:list=stable,count=3"), [[27, 28, 29]]);
    assert_eq!(cached("profiling:list=split")[1], cached("profiling")[0]);
    assert_ne!(cached("profiling:list=random,seed=1"), cached("profiling:list=random,seed=2"));
    let planner = parse("planner:speedup=2", &full).unwrap();
    assert_eq!(planner.note().as_deref(), Some("25 of 50 steps computed, the others forecast"));
    assert!(planner.expected_psnr().is_some_and(f64::is_finite));
    assert_eq!(parse("planner:speedup=1", &full).unwrap().expected_psnr(), Some(f64::INFINITY));
    assert!(parse("planner:speedup=51", &full).is_err());
}

/// With a threshold of 0 no rule reuses anything, whatever it sees; every rule with a threshold is
/// asked.
#[test]
fn a_threshold_of_zero_never_reuses() {
    let still = Observation { output_size: 1.0, output_change: Some(0.0), latent_change: Some(1.0) };
    let probe = ProbeResult { since_last_step: Some(0.0), since_computed: Some(0.0), progress: Some(1.0) };
    let calibration =
        Calibration { magnitude_ratios: vec![1.0; 50], gram: vec![vec![1.0; 50]; 50], ..Calibration::default() };
    let published = PublishedTea { embedding: Some([-1.0; 5]), projection: Some([0.0; 5]) };
    let known = evidence().with_published_tea(published).with_calibration(calibration);
    let thresholds = catalogue::offered().filter(|entry| entry.defaults(50).tuning() == Tuning::Threshold);
    for entry in thresholds {
        let config = parse(&format!("{}:threshold=0", entry.about().key), &known).unwrap();
        let inputs = StrategyInputs { steps: 50, blocks: 30, signal_changes: vec![0.05; 50] };
        let mut running = config.build(&inputs).unwrap();
        for step in 0..50 {
            let now = StepContext { step, steps: 50, latent_step: Some(0.0) };
            let plan = match running.plan(&now) {
                Decision::Plan(plan) => plan,
                Decision::Probe { .. } => running.decide(&now, &probe).unwrap(),
            };
            assert!(plan.cond.is_full(30) && plan.uncond.is_full(30), "{} reuses in step {step}", config.key());
            running.observe(step, &still);
        }
    }
}

/// Limits that were asked for stay; a method's own limits give way to a speed-up.
#[test]
fn tuning_keeps_the_settings_that_were_given() {
    let limits = |text: &str| {
        let (_, keys) = name_and_keys(text);
        let target = SpeedupTarget { speedup: 4.0, steps: 50, given: &keys };
        let config = parse(text, &evidence()).unwrap().loosened(&target);
        let limit = |key: &str| config.settings(SHAPE).into_iter().find(|s| s.key == key).map(|s| s.value);
        limit("skips").filter(|_| text.starts_with("mag")).or_else(|| limit("warm-up"))
    };
    assert_eq!(limits("magcache:skips=1"), Some(Value::Count(1)));
    assert_eq!(limits("magcache"), Some(Value::Count(8)));
    assert_eq!(limits("dbcache:warm-up=8"), Some(Value::Count(8)));
    assert_eq!(limits("dbcache"), Some(Value::Count(5)));
}

/// `docs/strategies.md` holds the catalogue. `UPDATE_DOCS=1` writes it anew.
#[test]
fn the_documentation_lists_the_catalogue() {
    const MARK: &str =
        "<!-- The rest is written by the program: UPDATE_DOCS=1 cargo test --release --lib catalogue -->\n";
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/strategies.md");
    let text = std::fs::read_to_string(&path).unwrap().replace("\r\n", "\n");
    let head = text.split_once(MARK).expect("the mark in docs/strategies.md").0;
    let wanted = format!("{head}{MARK}\n{}", catalogue::markdown());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, wanted).unwrap();
    } else {
        assert!(text == wanted, "docs/strategies.md is not the catalogue's: run with UPDATE_DOCS=1");
    }
}

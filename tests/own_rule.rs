//! A rule that the program does not know is registered, and then works everywhere without another
//! line of the program: as text, in a job, in a study, and in the window's form.

use std::path::Path;
use std::time::Duration;

use ditscope::caching::{
    About, CacheError, Fixed, Group, Needs, Rule, Setting, Shape, SpeedupTarget, StepPlan, Strategy, StrategyConfig,
    StrategyInputs, Tuning, parse, register,
};
use ditscope::engine::{Engine, GenerateRequest};
use ditscope::gpu::{Gpu, GpuOptions};
use ditscope::study::compare::CompareRequest;
use ditscope::study::{Cancel, Session};

/// Computes the first of every so many steps.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Metronome {
    beat: usize,
}

impl Rule for Metronome {
    const ABOUT: About = About {
        key: "metronome",
        label: "Metronome",
        summary: "Computes the first of every so many steps.",
        source: "",
        group: Group::Control,
        needs: Needs::Nothing,
    };

    fn defaults(_steps: usize) -> Self {
        Self { beat: 2 }
    }

    fn settings(&self, shape: Shape) -> Vec<Setting<Self>> {
        let words = ("beat", "beats a bar", "Steps from a computed one to the next");
        vec![Setting::count(words, 1..=shape.steps, |rule: &mut Self| &mut rule.beat)]
    }

    fn build(&self, inputs: &StrategyInputs) -> Result<Box<dyn Strategy>, CacheError> {
        if self.beat == 0 {
            return Err(CacheError::Settings("a beat takes one step at least".into()));
        }
        let computed: Vec<bool> = (0..inputs.steps).map(|step| step % self.beat == 0).collect();
        Ok(Box::new(Fixed(StepPlan::stack(&computed, inputs.blocks))))
    }

    fn tuning(&self) -> Tuning {
        Tuning::Candidates { chosen: &["beat"] }
    }

    fn candidates(&self, target: &SpeedupTarget) -> Vec<Self> {
        (1..=target.steps).map(|beat| Self { beat }).collect()
    }
}

fn request() -> GenerateRequest {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo-model");
    let mut request = GenerateRequest::of_model(&model, "a cat walking on grass").unwrap();
    let clip = &mut request.clip;
    (clip.width, clip.height, clip.num_frames, clip.num_inference_steps) = (48, 32, 5, 6);
    request
}

#[test]
fn a_registered_rule_works_as_text_in_a_job_and_in_a_study() {
    register::<Metronome>().unwrap();
    let info = ditscope::engine::RequestInfo::of(&request()).unwrap();
    let config = parse("metronome:beat=3", &info.evidence()).unwrap();
    assert_eq!(config, StrategyConfig::of(Metronome { beat: 3 }));
    let message = parse("metronom", &info.evidence()).unwrap_err().to_string();
    assert!(message.contains("did you mean metronome"), "{message}");
    // A capture with the rule opens where the rule is registered.
    let stored = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<StrategyConfig>(&stored).unwrap(), config);

    let engine = Engine::start(Gpu::open(&GpuOptions::default()).unwrap(), Duration::from_millis(100)).unwrap();
    let trial = request().with_prompt("a dog walking left in the snow", 0);
    let mut asked = CompareRequest::new(trial, vec!["a cat walking on grass".into()], vec!["metronome".into()]);
    asked.speedups = vec![3.0];
    let cancel = Cancel::default();
    let session = Session::new(&engine, &cancel, |_| {});
    let mut study = asked.tune(&session, &info, None).unwrap();
    assert_eq!(study.settings.strategies[0].config, config, "tuned to three times less work");
    study.run(&session, &study.queue(), None).unwrap();
    let row = study.rows.iter().find(|row| row.strategy == "metronome").unwrap();
    // Two of six steps are computed.
    assert!((row.hit_rate - 4.0 / 6.0).abs() < 1e-9, "{}", row.hit_rate);
    assert!((2.5..=3.0).contains(&row.flop_speedup), "{}", row.flop_speedup);
}

#[test]
fn a_registered_rule_has_its_settings_in_the_window() {
    register::<Metronome>().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut window = super::window::window(folder.path());
    super::window::click(&mut window, "Got it");
    super::window::wait_for(&mut window, "Metronome");
    super::window::click(&mut window, "Metronome");
    assert!(super::window::said(&window, Metronome::ABOUT.summary));
    assert!(super::window::said(&window, "beats a bar"), "the setting has its slider");
    super::window::click(&mut window, "Generate");
    super::window::wait_for(&mut window, "Show run #1 metronome");
}

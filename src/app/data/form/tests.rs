use super::*;
use crate::app::data::prediction::{Prediction, Trouble};
use crate::caching::{FewerSteps, ProfilingDit, Rule};

#[test]
fn every_strategy_predicts_or_says_why_not() {
    let mut form = Form::default();
    for listed in form.strategies.clone() {
        form.choose(&listed.config.id());
        let prediction = Prediction::of(&form, None, None, 8);
        let (name, needs) = (form.strategy().name(), form.strategy().about().needs);
        let uncalibrated = matches!(needs, Needs::Knowledge | Needs::Calibration | Needs::Profile);
        assert_eq!(prediction.trouble == Some(Trouble::Uncalibrated), uncalibrated, "{name}");
        let known = !uncalibrated && form.strategy().is_planned_ahead();
        assert_eq!(!prediction.plans.is_empty(), known, "{name}");
    }
}

#[test]
fn damaged_settings_are_mended() {
    let all = Form::default().strategies.len();
    let clip = ClipSettings { num_inference_steps: 0, guidance_scale: f64::NAN, ..ClipSettings::default() };
    let mut form = Form { strategies: Vec::new(), chosen: "none".into(), clip, ..Form::default() };
    form.mend();
    let found = (form.strategies.len(), form.clip.num_inference_steps, form.strategy().is_off());
    assert_eq!(found, (all, 1, true));
    form.strategies.swap(0, 4);
    form.choose("fewer-steps");
    form.mend();
    assert_eq!(form.strategies, Listed::defaults(1));
    assert_eq!(form.strategy().key(), "fewer-steps");
    form.request();
}

#[test]
fn a_stored_form_comes_back() {
    let mut form = Form { prompt: "a dog".into(), ..Form::default() };
    form.use_plan("mine", Origin::Hand, vec![StepPlan::compute(8); 3]);
    let again: Form = serde_json::from_str(&serde_json::to_string(&form).unwrap()).unwrap();
    assert_eq!(again, form);
}

#[test]
fn default_settings_leave_the_choice() {
    let mut form = Form::default();
    form.use_plan("my plan", Origin::Hand, vec![StepPlan::compute(8); 3]);
    let fewer = |steps| StrategyConfig::of(FewerSteps { steps });
    form.use_strategy(fewer(1));
    for listed in form.strategies.clone() {
        let id = listed.config.id();
        form.choose(&id);
        form.reset_strategies();
        assert_eq!(form.strategy().id(), id);
    }
    assert!(form.strategies.iter().all(|listed| listed.config != fewer(1)));
    let count = form.strategies.len();
    let plan = |steps| StrategyConfig::plan("my plan", Origin::Hand, vec![StepPlan::compute(8); steps]);
    form.use_strategy(plan(3));
    assert_eq!((form.strategies.len(), form.strategy().name()), (count, "my plan"), "the same again");
    form.use_strategy(plan(4));
    assert_eq!((form.strategies.len(), form.strategy().name()), (count + 1, "my plan 2"));
    form.use_strategy(fewer(7));
    assert_eq!((form.strategies.len(), form.strategy().key()), (count + 1, "fewer-steps"));
    assert_eq!((form.strategy().steps(30), form.strategy().steps(5)), (7, 5), "never more than asked for");
    form.use_model("another".into(), &ClipSettings::default());
    assert_eq!((form.strategies.len(), form.strategy().key()), (count + 1, "fewer-steps"), "own plans stay");
    form.choose("plan:my plan");
    assert!(form.strategy().own_plan().is_some_and(|plan| plan.plans.len() == 3));
    form.rename_plan("another".into());
    assert_eq!((form.chosen.as_str(), form.strategy().name()), ("plan:another", "another"));
    assert!(form.remove_plan().is_some() && form.strategy().is_off() && form.remove_plan().is_none());
}

#[test]
fn blocks_are_cached_one_by_one() {
    let mut form = Form::default();
    assert_eq!(form.cached_blocks(), None, "nobody has said yet");
    form.cache_block(3, true);
    form.cache_block(1, true);
    form.cache_block(3, true);
    assert_eq!((form.cached_blocks(), form.strategy().key()), (Some(vec![1, 3]), "profiling"));
    form.cache_block(1, false);
    assert_eq!(form.cached_blocks(), Some(vec![3]));
    form.reset_strategies();
    assert_eq!(form.cached_blocks(), None);
    let mut loaded = ProfilingDit::defaults(50);
    loaded.choose_blocks(vec![2]);
    form.use_strategy(StrategyConfig::of(loaded));
    form.calibrate(&Evidence::new(vec![1.0, 0.0], 8));
    assert_eq!(form.cached_blocks(), Some(vec![2]));
}

#[test]
fn settings_come_back_without_taking_anything() {
    let clip = ClipSettings { num_inference_steps: 30, guidance_scale: 3.0, ..ClipSettings::default() };
    let mut form = Form { clip, ..Form::default() };
    form.use_plan("mine", Origin::Hand, vec![StepPlan::compute(8); 30]);
    form.cache_block(3, true);
    let before = form.clone();
    form.use_model("another".into(), &ClipSettings::default());
    (form.prompt, form.clip.seed) = ("a dog".into(), 7);
    form.use_plan("mine", Origin::Hand, vec![StepPlan::compute(8); 50]);
    form.take_back(before.clone());
    assert_eq!(
        (form.prompt.as_str(), form.clip.seed, form.clip.num_inference_steps, form.cached_blocks()),
        ("a dog", 7, 30, Some(vec![3]))
    );
    assert_eq!((&form.model, &form.chosen), (&before.model, &before.chosen));
    let plans = form.strategies.iter().filter(|listed| listed.is_plan());
    assert_eq!(plans.map(|listed| listed.config.name()).collect::<Vec<_>>(), ["mine", "mine 2"]);
}

//! What the user asks for: everything that becomes a request.

use std::path::PathBuf;

use crate::caching::{StepPlan, StrategyConfig, StrategyInputs, hit_rate};
use crate::engine::{ClipSettings, Facts, GenerateRequest, Observe, Received, clip_settings_of, limits};
use serde::{Deserialize, Deserializer};

use crate::app::panes::strategy::target::{Goal, TITLE, is_planner};

/// The settings of the next generation. Lasts from one start to the next.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Form {
    /// The model's folder.
    pub model: PathBuf,
    /// What to show.
    pub prompt: String,
    /// What not to show.
    pub negative_prompt: String,
    /// Size, frames, steps and the like.
    #[serde(flatten, deserialize_with = "stored_clip")]
    pub clip: ClipSettings,
    /// All strategies with their settings, so that none is lost by looking at another.
    pub strategies: Vec<StrategyConfig>,
    /// The chosen one.
    pub chosen: usize,
    /// MagCache's ratios are the user's: measured in a run or read from a file, not taken from the model's profile.
    pub own_ratios: bool,
    /// TeaCache's coefficients are the user's: read from a file.
    pub own_coefficients: bool,
    /// ProfilingDiT's blocks are the user's: chosen in the map, written, or read from a file, not taken from the model's profile.
    pub own_blocks: bool,
    /// What the planner is asked for.
    pub goal: Goal,
    /// Measure how blocks change from step to step.
    pub changes: bool,
    /// Measure what every block attends to.
    pub attention: bool,
    /// Measure GPU times.
    pub times: bool,
}

impl Default for Form {
    fn default() -> Self {
        let clip = ClipSettings::default();
        Self {
            model: PathBuf::new(),
            prompt: "a cat walking on grass".into(),
            negative_prompt: String::new(),
            clip,
            strategies: StrategyConfig::defaults(clip.num_inference_steps),
            chosen: 0,
            own_ratios: false,
            own_coefficients: false,
            own_blocks: false,
            goal: Goal::default(),
            changes: true,
            attention: true,
            times: false,
        }
    }
}

impl Form {
    /// Takes over a model with the settings that suit it.
    pub fn use_model(&mut self, model: PathBuf, defaults: &ClipSettings) {
        self.model = model;
        self.clip = ClipSettings { seed: self.clip.seed, ..*defaults };
        let planned = is_planner(self.strategy());
        self.reset_strategies();
        if planned {
            // Its plan is made anew as soon as the model's profile is read.
            self.use_plan(TITLE, Vec::new());
        }
    }

    /// Gives every strategy its default settings. Plans have none: they stay.
    pub fn reset_strategies(&mut self) {
        let mut before =
            std::mem::replace(&mut self.strategies, StrategyConfig::defaults(self.clip.num_inference_steps));
        let chosen = before.get(self.chosen).cloned();
        before.retain(|each| matches!(each, StrategyConfig::Plan { .. }));
        self.strategies.append(&mut before);
        self.forget_own();
        let kind = |each: &StrategyConfig| (std::mem::discriminant(each), each.name().to_owned());
        let same = |each: &StrategyConfig| chosen.as_ref().is_some_and(|chosen| kind(chosen) == kind(each));
        self.chosen = self.strategies.iter().position(same).unwrap_or(0);
    }

    /// What methods need to know of the model comes from its profile again.
    pub fn forget_own(&mut self) {
        (self.own_ratios, self.own_coefficients, self.own_blocks) = (false, false, false);
    }

    /// Takes settings of before back. What was written since stays, and so do plans made since.
    pub fn take_back(&mut self, mut before: Self) {
        std::mem::swap(&mut before.prompt, &mut self.prompt);
        std::mem::swap(&mut before.negative_prompt, &mut self.negative_prompt);
        before.clip.seed = self.clip.seed;
        let chosen = before.chosen;
        for plan in self.strategies.drain(..).filter(|each| matches!(each, StrategyConfig::Plan { .. })) {
            if !is_planner(&plan) && !before.strategies.contains(&plan) {
                before.use_strategy(plan);
            }
        }
        before.chosen = chosen;
        *self = before;
    }

    /// Mends what a damaged or older settings file may hold.
    pub fn mend(&mut self) {
        // First: settings of strategies hang on it.
        let clip = &mut self.clip;
        clip.num_inference_steps = clip.num_inference_steps.clamp(1, limits::MOST_STEPS);
        let names: Vec<_> =
            StrategyConfig::defaults(self.clip.num_inference_steps).iter().map(std::mem::discriminant).collect();
        let known = self.strategies.len() >= names.len()
            && names.iter().zip(&self.strategies).all(|(name, each)| *name == std::mem::discriminant(each));
        if !known {
            self.strategies = StrategyConfig::defaults(self.clip.num_inference_steps);
        }
        if let Some(StrategyConfig::Profiling(settings)) = self.strategies.get_mut(1)
            && settings.blocks.is_empty()
        {
            settings.blocks.push(Vec::new());
        }
        self.chosen = self.chosen.min(self.strategies.len() - 1);
        let clip = &mut self.clip;
        clip.width = clip.width.clamp(limits::SMALLEST_SIDE, limits::LARGEST_SIDE);
        clip.height = clip.height.clamp(limits::SMALLEST_SIDE, limits::LARGEST_SIDE);
        clip.num_frames = clip.num_frames.clamp(1, limits::MOST_FRAMES);
        if !clip.guidance_scale.is_finite() {
            clip.guidance_scale = ClipSettings::default().guidance_scale;
        }
        if !(1..=limits::MOST_FPS).contains(&clip.fps) {
            clip.fps = clip_settings_of(&self.model).unwrap_or_default().fps;
        }
    }

    /// The chosen strategy.
    pub fn strategy(&self) -> &StrategyConfig {
        static OFF: StrategyConfig = StrategyConfig::Off;
        self.strategies.get(self.chosen).unwrap_or(&OFF)
    }

    /// Chooses a strategy, in place of the one of its kind. A plan of the user's replaces none: where its name is taken it gets a number.
    pub fn use_strategy(&mut self, strategy: StrategyConfig) {
        if let StrategyConfig::Plan { title, plans } = strategy {
            let equal =
                |each: &StrategyConfig| matches!(each, StrategyConfig::Plan { plans: other, .. } if *other == plans);
            let taken = |name: &str| self.strategies.iter().any(|each| each.name() == name && !equal(each));
            let mut names = std::iter::once(title.clone()).chain((2..).map(|number| format!("{title} {number}")));
            // The planner's is made anew all the time.
            let name = if title == TITLE { title } else { names.find(|name| !taken(name)).unwrap_or(title) };
            return self.use_plan(&name, plans);
        }
        let kind = std::mem::discriminant(&strategy);
        match &strategy {
            StrategyConfig::MagCache(settings) => self.own_ratios = !settings.ratios.is_empty(),
            StrategyConfig::TeaCache { coefficients, .. } => self.own_coefficients = coefficients.is_some(),
            StrategyConfig::Profiling(settings) => self.own_blocks = !settings.blocks.iter().all(Vec::is_empty),
            _ => {}
        }
        if let Some(index) = self.strategies.iter().position(|each| std::mem::discriminant(each) == kind) {
            (self.strategies[index], self.chosen) = (strategy, index);
        }
    }

    /// Chooses a plan made by hand, in place of an earlier one of the same title.
    pub fn use_plan(&mut self, title: &str, plans: Vec<StepPlan>) {
        let plan = StrategyConfig::Plan { title: title.into(), plans };
        let same = |each: &StrategyConfig| matches!(each, StrategyConfig::Plan { title: other, .. } if other == title);
        match self.strategies.iter().position(same) {
            Some(index) => (self.strategies[index], self.chosen) = (plan, index),
            None => {
                self.strategies.push(plan);
                self.chosen = self.strategies.len() - 1;
            }
        }
    }

    /// The blocks that ProfilingDiT caches: the background blocks.
    pub fn cached_blocks(&self) -> &[usize] {
        match self.strategies.get(1) {
            Some(StrategyConfig::Profiling(settings)) => settings.blocks.first().map_or(&[], Vec::as_slice),
            _ => &[],
        }
    }

    /// Chooses ProfilingDiT with these blocks cached or not.
    pub fn cache_block(&mut self, block: usize, cached: bool) {
        let Some(StrategyConfig::Profiling(settings)) = self.strategies.get_mut(1) else { return };
        if settings.blocks.is_empty() {
            settings.blocks.push(Vec::new());
        }
        let list = &mut settings.blocks[0];
        list.retain(|other| *other != block);
        if cached {
            list.push(block);
            list.sort_unstable();
        }
        self.own_blocks = true;
        self.chosen = 1;
    }

    /// The request.
    pub fn request(&self) -> GenerateRequest {
        GenerateRequest {
            model: self.model.clone(),
            prompt: self.prompt.clone(),
            negative_prompt: self.negative_prompt.clone(),
            clip: self.clip,
            scheduler: None,
            grid: None,
            latents: None,
            strategy: self.strategy().clone(),
            observe: Observe {
                changes: self.changes,
                times: self.times,
                attention: self.attention.then_some(Received::Sampled(256)),
            },
        }
    }
}

/// Reads the clip's settings of a stored form. Forms of before have the size as a pair, and no rate: 0 here, which
/// [`Form::mend`] mends.
fn stored_clip<'de, D: Deserializer<'de>>(from: D) -> Result<ClipSettings, D::Error> {
    #[derive(Deserialize)]
    struct Stored {
        size: Option<[usize; 2]>,
        #[serde(default)]
        fps: u32,
        #[serde(flatten)]
        clip: ClipSettings,
    }
    let Stored { size, fps, clip } = Stored::deserialize(from)?;
    let [width, height] = size.unwrap_or([clip.width, clip.height]);
    Ok(ClipSettings { width, height, fps, ..clip })
}

/// What a strategy is expected to do, before it runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prediction {
    /// What each step will do; empty where that is decided while it runs, or where the settings cannot work.
    pub plans: Vec<StepPlan>,
    /// Why the settings cannot work.
    pub error: Option<String>,
    /// Work without reuse divided by work with it.
    pub flop_speedup: Option<f64>,
    /// Share of block executions avoided.
    pub hit_rate: f64,
    /// Bytes of stored deltas.
    pub delta_memory: Option<u64>,
    /// GPU bytes of the whole job at most, those of deltas among them.
    pub gpu_memory: Option<u64>,
}

impl Prediction {
    /// For a form, and for its model where that is known.
    pub fn of(form: &Form, facts: Option<&Facts>, blocks: usize) -> Self {
        let steps = form.strategy().steps(form.clip.num_inference_steps).min(limits::MOST_STEPS);
        let inputs = StrategyInputs { steps, blocks, signal_changes: Vec::new() };
        let plans = match form.strategy().build(&inputs) {
            Err(error) => return Self { error: Some(error.to_string()), ..Self::default() },
            // TeaCache's plan hangs on the time embedding, which only the model knows.
            Ok(_) if matches!(form.strategy(), StrategyConfig::TeaCache { .. }) => Vec::new(),
            Ok(strategy) => strategy.preview().unwrap_or_default(),
        };
        let guided = form.clip.guided();
        // A capture tells the cost of a model, not the sizes of its tensors.
        let sizes = facts.filter(|facts| facts.delta_bytes > 0);
        let delta_memory = sizes.map(|facts| facts.strategy_memory(form.strategy(), steps, guided));
        let known = facts.filter(|_| !plans.is_empty());
        Self {
            error: None,
            flop_speedup: known.map(|facts| facts.cost.speedup_to(form.clip.num_inference_steps, &plans, guided)),
            hit_rate: hit_rate(&plans, blocks, guided),
            delta_memory,
            gpu_memory: sizes
                .filter(|facts| facts.gpu_memory > 0)
                .zip(delta_memory)
                .map(|(f, deltas)| f.gpu_memory + deltas),
            plans,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caching::ProfilingSettings;

    #[test]
    fn every_strategy_predicts_or_says_why_not() {
        let mut form = Form::default();
        for index in 0..form.strategies.len() {
            form.chosen = index;
            let prediction = Prediction::of(&form, None, 8);
            let name = form.strategy().name();
            let needs_calibration = matches!(name, "teacache" | "magcache");
            assert_eq!(prediction.error.is_some(), needs_calibration, "{name}: {:?}", prediction.error);
            let fixed = matches!(name, "off" | "profiling" | "uniform" | "deltadit" | "fewer-steps");
            assert_eq!(!prediction.plans.is_empty(), fixed, "{name}");
        }
    }

    #[test]
    fn damaged_settings_are_mended() {
        let clip = ClipSettings { num_inference_steps: 0, guidance_scale: f64::NAN, ..ClipSettings::default() };
        let mut form = Form { strategies: Vec::new(), chosen: 99, clip, ..Form::default() };
        form.mend();
        assert_eq!((form.strategies.len(), form.clip.num_inference_steps), (10, 1));
        form.strategies.swap(0, 4);
        form.mend();
        assert_eq!(form.strategies[0], StrategyConfig::Off);
        form.request();
    }

    #[test]
    fn forms_of_before_are_read() {
        let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/demo-model");
        let text = serde_json::json!({
            "model": demo, "prompt": "a dog", "seed": 9, "steps": 21, "size": [96, 64], "frames": 13, "guidance": 2.5,
        });
        let mut form: Form = serde_json::from_value(text).unwrap();
        form.mend();
        let clip = ClipSettings {
            width: 96,
            height: 64,
            num_frames: 13,
            num_inference_steps: 21,
            guidance_scale: 2.5,
            flow_shift: None,
            seed: 9,
            fps: 8,
        };
        assert_eq!((form.clip, form.prompt.as_str()), (clip, "a dog"));
        let again: Form = serde_json::from_str(&serde_json::to_string(&form).unwrap()).unwrap();
        assert_eq!(again, form);
    }

    #[test]
    fn default_settings_leave_the_choice() {
        let mut form = Form::default();
        form.use_plan("my plan", vec![StepPlan::compute(8); 3]);
        form.use_plan(TITLE, Vec::new());
        form.strategies[9] = StrategyConfig::FewerSteps { steps: 1 };
        for chosen in 0..form.strategies.len() {
            form.chosen = chosen;
            let name = form.strategy().name().to_owned();
            form.reset_strategies();
            assert_eq!(form.strategy().name(), name);
        }
        assert_ne!(form.strategies[9], StrategyConfig::FewerSteps { steps: 1 });
        let count = form.strategies.len();
        let plan = |steps| StrategyConfig::Plan { title: "my plan".into(), plans: vec![StepPlan::compute(8); steps] };
        form.use_strategy(plan(3));
        assert_eq!((form.strategies.len(), form.strategy().name()), (count, "my plan"), "the same again");
        form.use_strategy(plan(4));
        assert_eq!((form.strategies.len(), form.strategy().name()), (count + 1, "my plan 2"));
        form.use_strategy(StrategyConfig::FewerSteps { steps: 7 });
        assert_eq!((form.strategies.len(), form.chosen), (count + 1, 9));
        assert_eq!((form.strategy().steps(30), form.strategy().steps(5)), (7, 5), "never more than asked for");
        form.use_model("another".into(), &ClipSettings::default());
        assert_eq!((form.strategies.len(), form.chosen), (count + 1, 9), "the user's plans stay");
        form.chosen = 10;
        assert!(matches!(form.strategy(), StrategyConfig::Plan { plans, .. } if plans.len() == 3));
    }

    #[test]
    fn blocks_are_cached_one_by_one() {
        let mut form = Form::default();
        form.cache_block(3, true);
        form.cache_block(1, true);
        form.cache_block(3, true);
        assert_eq!((form.cached_blocks(), form.strategy().name()), (&[1, 3][..], "profiling"));
        form.cache_block(1, false);
        assert_eq!(form.cached_blocks(), [3]);
        assert!(form.own_blocks);
        form.reset_strategies();
        assert!(!form.own_blocks);
        let loaded = |blocks: &[usize]| {
            StrategyConfig::Profiling(ProfilingSettings { blocks: vec![blocks.into()], ..ProfilingSettings::default() })
        };
        form.use_strategy(loaded(&[2]));
        assert!(form.own_blocks);
        form.use_strategy(loaded(&[]));
        assert!(!form.own_blocks);
    }

    #[test]
    fn settings_come_back_without_taking_anything() {
        let clip = ClipSettings { num_inference_steps: 30, guidance_scale: 3.0, ..ClipSettings::default() };
        let mut form = Form { clip, ..Form::default() };
        form.use_plan("mine", vec![StepPlan::compute(8); 30]);
        form.cache_block(3, true);
        let before = form.clone();
        form.use_model("another".into(), &ClipSettings::default());
        (form.prompt, form.clip.seed) = ("a dog".into(), 7);
        form.use_plan("mine", vec![StepPlan::compute(8); 50]);
        form.use_plan(TITLE, Vec::new());
        form.take_back(before.clone());
        assert_eq!(
            (form.prompt.as_str(), form.clip.seed, form.clip.num_inference_steps, form.cached_blocks()),
            ("a dog", 7, 30, &[3][..])
        );
        assert_eq!((&form.model, form.chosen, form.own_blocks), (&before.model, 1, true));
        let names: Vec<&str> = form.strategies[10..].iter().map(StrategyConfig::name).collect();
        assert_eq!(names, ["mine", "mine 2"]);
    }
}

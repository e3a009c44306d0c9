//! What the user asks for: everything that becomes a request.

use std::path::PathBuf;
use std::sync::LazyLock;

use serde::{Deserialize, Deserializer};

use crate::caching::{
    CacheError, Calibration, Evidence, Needs, Origin, Plan, SettingInfo, Shape, StepPlan, StrategyConfig,
    StrategyInputs, Value, hit_rate,
};
use crate::engine::{ClipSettings, Facts, GenerateRequest, Observe, Received, clip_settings_of, limits};

/// A strategy in the form's list.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Listed {
    /// The strategy with its settings.
    pub config: StrategyConfig,
    /// The calibration is the user's: measured in a run or read from a file. Otherwise it comes
    /// from what is known of the model, and goes with the model.
    pub own_calibration: bool,
}

impl Listed {
    fn new(config: StrategyConfig) -> Self {
        Self { config, own_calibration: false }
    }

    /// All offered rules with good settings for a number of steps.
    fn defaults(steps: usize) -> Vec<Self> {
        StrategyConfig::defaults(steps).into_iter().map(Self::new).collect()
    }

    fn is_plan(&self) -> bool {
        self.config.own_plan().is_some()
    }

    /// Whether the strategy still waits for what a profile says, for a job of so many steps.
    pub fn waits_for_profile(&self, steps: usize) -> bool {
        let needs = matches!(self.config.about().needs, Needs::Calibration | Needs::Profile);
        let fits = self.config.is_calibrated() && self.config.planned_steps().is_none_or(|planned| planned == steps);
        needs && !self.own_calibration && !fits
    }
}

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
    pub strategies: Vec<Listed>,
    /// The [id](StrategyConfig::id) of the chosen strategy.
    pub chosen: String,
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
            strategies: Listed::defaults(clip.num_inference_steps),
            chosen: StrategyConfig::off().id(),
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
        self.reset_strategies();
    }

    /// Gives every strategy its default settings. Own plans have none: they stay.
    pub fn reset_strategies(&mut self) {
        let mut before = std::mem::replace(&mut self.strategies, Listed::defaults(self.clip.num_inference_steps));
        before.retain(Listed::is_plan);
        self.strategies.append(&mut before);
        self.choose_what_exists();
    }

    fn choose_what_exists(&mut self) {
        if self.index_of(&self.chosen).is_none() {
            self.chosen = StrategyConfig::off().id();
        }
    }

    /// Takes settings of before back. What was written since stays, and so do plans made since.
    pub fn take_back(&mut self, mut before: Self) {
        std::mem::swap(&mut before.prompt, &mut self.prompt);
        std::mem::swap(&mut before.negative_prompt, &mut self.negative_prompt);
        before.clip.seed = self.clip.seed;
        let chosen = before.chosen.clone();
        for plan in self.strategies.drain(..).filter(Listed::is_plan) {
            if !before.strategies.contains(&plan) {
                before.use_strategy(plan.config);
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
        // Rules that the file does not know get their defaults; rules that the program does not
        // know go.
        let mut before = std::mem::replace(&mut self.strategies, Listed::defaults(self.clip.num_inference_steps));
        for listed in &mut self.strategies {
            let known = before.iter().position(|each| each.config.key() == listed.config.key());
            if let Some(index) = known {
                *listed = before.swap_remove(index);
            }
        }
        before.retain(Listed::is_plan);
        self.strategies.append(&mut before);
        self.choose_what_exists();
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

    fn index_of(&self, id: &str) -> Option<usize> {
        self.strategies.iter().position(|each| each.config.id() == id)
    }

    /// The chosen strategy in the list.
    pub fn listed(&self) -> Option<&Listed> {
        self.strategies.get(self.index_of(&self.chosen)?)
    }

    /// The chosen strategy in the list, to be changed. A changed title stays chosen by
    /// [`Form::rename_plan`] only.
    pub fn listed_mut(&mut self) -> Option<&mut Listed> {
        let index = self.index_of(&self.chosen)?;
        self.strategies.get_mut(index)
    }

    /// The chosen strategy.
    pub fn strategy(&self) -> &StrategyConfig {
        static OFF: LazyLock<StrategyConfig> = LazyLock::new(StrategyConfig::off);
        self.listed().map_or(&OFF, |listed| &listed.config)
    }

    /// Chooses a strategy of the list.
    pub fn choose(&mut self, id: &str) {
        if self.index_of(id).is_some() {
            self.chosen = id.into();
        }
    }

    /// Chooses a strategy, in place of the same rule's. An own plan replaces no other plan: where
    /// its title is taken it gets a number.
    pub fn use_strategy(&mut self, config: StrategyConfig) {
        if let Some(Plan { title, origin, plans }) = config.own_plan() {
            let equal = |each: &Listed| each.config.own_plan().is_some_and(|other| other.plans == *plans);
            let taken = |name: &str| self.strategies.iter().any(|each| each.config.name() == name && !equal(each));
            let names = std::iter::once(title.clone()).chain((2..).map(|number| format!("{title} {number}")));
            let name = names.into_iter().find(|name| !taken(name)).unwrap_or_default();
            return self.use_plan(&name, *origin, plans.clone());
        }
        // What a file or a capture brings along is the user's.
        let needs = matches!(config.about().needs, Needs::Calibration | Needs::Profile);
        let own_calibration = needs && config.is_calibrated();
        let id = config.id();
        if let Some(index) = self.index_of(&id) {
            self.strategies[index] = Listed { config, own_calibration };
            self.chosen = id;
        }
    }

    /// Chooses a plan, in place of an earlier one of the same title.
    pub fn use_plan(&mut self, title: &str, origin: Origin, plans: Vec<StepPlan>) {
        let plan = Listed::new(StrategyConfig::plan(title, origin, plans));
        self.chosen = plan.config.id();
        match self.index_of(&self.chosen) {
            Some(index) => self.strategies[index] = plan,
            None => self.strategies.push(plan),
        }
    }

    /// Gives the chosen plan another title.
    pub fn rename_plan(&mut self, title: String) {
        if let Some(plan) = self.listed_mut().and_then(|listed| listed.config.rule_mut::<Plan>()) {
            plan.title = title;
            let id = StrategyConfig::of(plan.clone()).id();
            self.chosen = id;
        }
    }

    /// Removes the chosen plan, and chooses no reuse.
    pub fn remove_plan(&mut self) -> Option<StrategyConfig> {
        let index = self.index_of(&self.chosen).filter(|index| self.strategies[*index].is_plan())?;
        let removed = self.strategies.remove(index);
        self.choose_what_exists();
        Some(removed.config)
    }

    /// Changes a setting of the chosen strategy. A value that the rule refuses changes nothing.
    pub fn set_setting(&mut self, shape: Shape, key: &str, value: Value) {
        if let Some(listed) = self.listed_mut() {
            listed.config.set(shape, key, value).ok();
            // A setting may ask for another calibration than the user's: then the model's is used.
            listed.own_calibration &= listed.config.is_calibrated();
        }
    }

    /// Calibrates the chosen strategy with the measurements of a run over so many blocks.
    pub fn calibrate_from_run(&mut self, measured: Calibration, blocks: usize) {
        if let Some(listed) = self.listed_mut() {
            let evidence = Evidence::new(measured.sigmas.clone(), blocks).with_calibration(measured);
            listed.config.uncalibrate();
            listed.own_calibration = listed.config.calibrate(&evidence).is_ok() && listed.config.is_calibrated();
        }
    }

    /// Forgets the user's calibration of the chosen strategy: the model's is used again.
    pub fn forget_own_calibration(&mut self) {
        if let Some(listed) = self.listed_mut() {
            listed.config.uncalibrate();
            listed.own_calibration = false;
        }
    }

    /// Puts what is known of the model into the strategies: calibrations, lists of blocks, and the
    /// plan for a goal. What the user brought stays.
    pub fn calibrate(&mut self, evidence: &Evidence) {
        for listed in self.strategies.iter_mut().filter(|listed| !listed.own_calibration) {
            listed.config.uncalibrate();
            // What contradicts itself is told when the strategy is predicted.
            listed.config.calibrate(evidence).ok();
        }
    }

    /// The rule that caches a list of blocks.
    fn block_lister(&self) -> Option<(usize, SettingInfo)> {
        let shape = Shape { steps: self.clip.num_inference_steps, blocks: usize::MAX };
        self.strategies.iter().enumerate().find_map(|(index, listed)| {
            let settings = listed.config.settings(shape).into_iter();
            Some((index, settings.into_iter().find(|setting| matches!(setting.value, Value::Blocks(_)))?))
        })
    }

    /// The background blocks that are cached. `None` where nobody has said which blocks these are.
    pub fn cached_blocks(&self) -> Option<Vec<usize>> {
        let (index, setting) = self.block_lister()?;
        match setting.value {
            Value::Blocks(list) if self.strategies[index].config.is_calibrated() => Some(list),
            _ => None,
        }
    }

    /// Chooses the rule that caches a list of blocks, with this block cached or not.
    pub fn cache_block(&mut self, block: usize, cached: bool) {
        let Some((index, setting)) = self.block_lister() else { return };
        let Value::Blocks(mut list) = setting.value else { return };
        list.retain(|other| *other != block);
        if cached {
            list.push(block);
            list.sort_unstable();
        }
        let shape = Shape { steps: self.clip.num_inference_steps, blocks: usize::MAX };
        let config = &mut self.strategies[index].config;
        // Any list is a value of this setting.
        config.set(shape, setting.key, Value::Blocks(list)).ok();
        self.chosen = config.id();
    }

    /// The request.
    pub fn request(&self) -> GenerateRequest {
        GenerateRequest {
            model: self.model.clone(),
            condition: self.prompt.as_str().into(),
            negative: self.negative_prompt.as_str().into(),
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

/// Reads the settings of the clip in a stored form. Older programs stored the size as a pair, and no
/// frame rate: the rate is then 0, and [`Form::mend`] replaces it.
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

/// Why the settings of a strategy cannot work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The rule does not know enough of the model.
    Uncalibrated,
    /// Anything else, in words.
    Settings(String),
}

impl From<CacheError> for Trouble {
    fn from(error: CacheError) -> Self {
        match error {
            CacheError::Uncalibrated(_) => Self::Uncalibrated,
            other => Self::Settings(other.to_string()),
        }
    }
}

/// What a strategy is expected to do, before it runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prediction {
    /// What each step will do; empty where that is decided while it runs, or where the settings
    /// cannot work.
    pub plans: Vec<StepPlan>,
    /// Why the settings cannot work.
    pub trouble: Option<Trouble>,
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
    /// For a form, and for its model as far as the model is known.
    pub fn of(form: &Form, facts: Option<&Facts>, evidence: Option<&Evidence>, blocks: usize) -> Self {
        let steps = form.strategy().steps(form.clip.num_inference_steps).min(limits::MOST_STEPS);
        let inputs = StrategyInputs { steps, blocks, signal_changes: Vec::new() };
        let contradiction = evidence.and_then(|evidence| form.strategy().clone().calibrate(evidence).err());
        let built = contradiction.map_or_else(|| form.strategy().build(&inputs), Err);
        let plans = match built {
            Err(error) => return Self { trouble: Some(error.into()), ..Self::default() },
            // The plan follows from the time embedding, which only the running model knows.
            Ok(_) if form.strategy().signal().is_some() => Vec::new(),
            Ok(strategy) => strategy.preview().unwrap_or_default(),
        };
        let guided = form.clip.guided();
        // A capture tells the cost of a model, not the sizes of its tensors.
        let sizes = facts.filter(|facts| facts.delta_bytes > 0);
        let delta_memory = sizes.map(|facts| facts.strategy_memory(form.strategy(), steps, guided));
        let known = facts.filter(|_| !plans.is_empty());
        Self {
            trouble: None,
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
    use crate::caching::{FewerSteps, ProfilingDit, Rule};

    #[test]
    fn every_strategy_predicts_or_says_why_not() {
        let mut form = Form::default();
        for listed in form.strategies.clone() {
            form.choose(&listed.config.id());
            let prediction = Prediction::of(&form, None, None, 8);
            let (name, needs) = (form.strategy().name(), form.strategy().about().needs);
            let uncalibrated = matches!(needs, Needs::Calibration | Needs::Profile);
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
}

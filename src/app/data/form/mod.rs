//! The form: all settings of the next request.

use std::path::PathBuf;
use std::sync::LazyLock;

use serde::{Deserialize, Deserializer};

use crate::caching::{
    Calibration, Evidence, Group, Needs, Origin, Plan, SettingInfo, Shape, StepPlan, StrategyConfig, Value,
};
use crate::engine::{ClipSettings, GenerateRequest, NamedFiles, Observe, Received, clip_settings_of, limits};

/// A strategy in the form's list.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Listed {
    /// The strategy with its settings.
    pub config: StrategyConfig,
    /// Whether the calibration is the user's: measured in a run or read from a file. Another
    /// calibration comes from the model, and goes with the model.
    pub own_calibration: bool,
}

impl Listed {
    fn new(config: StrategyConfig) -> Self {
        Self { config, own_calibration: false }
    }

    /// All rules with good settings for a number of steps.
    fn defaults(steps: usize) -> Vec<Self> {
        StrategyConfig::defaults(steps).into_iter().map(Self::new).collect()
    }

    /// The id of the strategy that is chosen at first: the planner.
    fn first_choice(steps: usize) -> String {
        let planner = StrategyConfig::defaults(steps).into_iter().find(|each| each.about().group == Group::Target);
        planner.unwrap_or_else(StrategyConfig::off).id()
    }

    fn is_plan(&self) -> bool {
        self.config.own_plan().is_some()
    }

    /// Whether the strategy waits for the model's profile, for a job with a number of steps.
    pub fn waits_for_profile(&self, steps: usize) -> bool {
        let needs = matches!(self.config.about().needs, Needs::Knowledge | Needs::Calibration | Needs::Profile);
        let fits = self.config.is_calibrated() && self.config.planned_steps().is_none_or(|planned| planned == steps);
        needs && !self.own_calibration && !fits
    }
}

/// The settings of the next request. They last from one start of the window to the next.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Form {
    /// The model's folder.
    pub model: PathBuf,
    /// The prompt.
    pub prompt: String,
    /// The negative prompt.
    pub negative_prompt: String,
    /// The settings of the clip: size, frames, steps and so on.
    #[serde(flatten, deserialize_with = "stored_clip")]
    pub clip: ClipSettings,
    /// All strategies. Each keeps its settings while another one is chosen.
    pub strategies: Vec<Listed>,
    /// The [id](StrategyConfig::id) of the chosen strategy.
    pub chosen: String,
    /// Whether to measure how blocks change from step to step.
    pub changes: bool,
    /// Whether to measure the attention of every block.
    pub attention: bool,
    /// Whether to measure GPU times.
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
            chosen: Listed::first_choice(clip.num_inference_steps),
            strategies: Listed::defaults(clip.num_inference_steps),
            changes: true,
            attention: true,
            times: false,
        }
    }
}

impl Form {
    /// Takes over a model and its default settings.
    pub fn use_model(&mut self, model: PathBuf, defaults: &ClipSettings) {
        self.model = model;
        self.clip = ClipSettings { seed: self.clip.seed, ..*defaults };
        self.reset_strategies();
    }

    /// Gives every strategy its default settings. Plans of the user stay: they have no settings.
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

    /// Takes back settings of before. The texts, the seed, and plans that were made since stay.
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

    /// Repairs values that a damaged or older settings file may hold.
    pub fn mend(&mut self) {
        // The steps come first: the settings of strategies depend on them.
        let clip = &mut self.clip;
        clip.num_inference_steps = clip.num_inference_steps.clamp(1, limits::MOST_STEPS);
        // Rules that the file lacks get their defaults. Rules that the program lacks are removed.
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

    /// The chosen strategy in the list, to be changed. Titles are changed by [`Form::rename_plan`],
    /// which keeps the plan chosen.
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

    /// Chooses a strategy. It replaces the strategy of the same rule. A plan replaces no other
    /// plan: if its title is taken, it gets a number.
    pub fn use_strategy(&mut self, config: StrategyConfig) {
        if let Some(Plan { title, origin, plans }) = config.own_plan() {
            let equal = |each: &Listed| each.config.own_plan().is_some_and(|other| other.plans == *plans);
            let taken = |name: &str| self.strategies.iter().any(|each| each.config.name() == name && !equal(each));
            let names = std::iter::once(title.clone()).chain((2..).map(|number| format!("{title} {number}")));
            let name = names.into_iter().find(|name| !taken(name)).unwrap_or_default();
            return self.use_plan(&name, *origin, plans.clone());
        }
        // A calibration from a file or a capture is the user's.
        let needs = matches!(config.about().needs, Needs::Knowledge | Needs::Calibration | Needs::Profile);
        let own_calibration = needs && config.is_calibrated();
        let id = config.id();
        if let Some(index) = self.index_of(&id) {
            self.strategies[index] = Listed { config, own_calibration };
            self.chosen = id;
        }
    }

    /// Chooses a plan. It replaces an earlier plan of the same title.
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

    /// Removes the chosen plan, and chooses to reuse nothing.
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

    /// Calibrates the chosen strategy with the measurements of a run with a number of blocks.
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

    /// Calibrates the strategies with the evidence about the model: calibrations, lists of blocks,
    /// and the plan for a goal. Calibrations of the user stay.
    pub fn calibrate(&mut self, evidence: &Evidence) {
        for listed in self.strategies.iter_mut().filter(|listed| !listed.own_calibration) {
            listed.config.uncalibrate();
            // The prediction reports contradictions.
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

    /// The background blocks that are cached. `None` if neither the user nor a profile chose them.
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
        // This setting accepts any list.
        config.set(shape, setting.key, Value::Blocks(list)).ok();
        self.chosen = config.id();
    }

    /// The request.
    pub fn request(&self) -> GenerateRequest {
        GenerateRequest {
            model: self.model.clone(),
            files: NamedFiles::default(),
            condition: self.prompt.as_str().into(),
            negative: self.negative_prompt.as_str().into(),
            clip: self.clip,
            scheduler: None,
            grid: None,
            latents: None,
            strategy: self.strategy().clone(),
            observe: Observe {
                changes: self.changes,
                residuals: !self.strategy().caches(),
                times: self.times,
                attention: self.attention.then_some(Received::Sampled(256)),
                state: false,
            },
            earlier: None,
        }
    }
}

/// Reads the settings of the clip in a stored form. Older programs stored the size as a pair, and
/// no frame rate: the rate is then 0, and [`Form::mend`] replaces it.
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

#[cfg(test)]
mod tests;

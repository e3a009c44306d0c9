//! A strategy with its settings, as requests, captures and files hold it.

use std::io::Read;
use std::ops::{Deref, DerefMut};
use std::path::Path;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::any_rule::AnyRule;
use super::rule::{Rule, Shape};
use super::rules::{GoalPlan, Off, Origin, Plan, UnknownRule};
use super::{CacheError, StepPlan, catalogue};

/// A rule with its settings. Derefs to [`AnyRule`], which says what the rule can tell.
///
/// In files a strategy is one object: `name` is the rule's key, the other fields are its settings.
pub struct StrategyConfig(Box<dyn AnyRule>);

/// Bytes of a strategy's file at most: a plan of 1000 steps for 100 blocks is far below.
const MOST_BYTES: u64 = 32 << 20;

impl StrategyConfig {
    /// A rule with its settings.
    pub fn of<R: Rule>(rule: R) -> Self {
        Self(Box::new(rule))
    }

    /// Everything is computed.
    pub fn off() -> Self {
        Self::of(Off {})
    }

    /// The offered rules, with good settings for a number of steps. Calibrations are missing.
    pub fn defaults(steps: usize) -> Vec<Self> {
        catalogue::offered().map(|entry| entry.defaults(steps)).collect()
    }

    /// A plan for every step, made by hand or read from a file.
    pub fn plan(title: impl Into<String>, origin: Origin, plans: Vec<StepPlan>) -> Self {
        Self::of(Plan { title: title.into(), origin, plans })
    }

    /// The rule, where it is of this type.
    pub fn rule<R: Rule>(&self) -> Option<&R> {
        self.0.as_any().downcast_ref()
    }

    /// The rule, to be changed, where it is of this type.
    pub fn rule_mut<R: Rule>(&mut self) -> Option<&mut R> {
        self.0.as_any_mut().downcast_mut()
    }

    /// Whether everything is computed.
    pub fn is_off(&self) -> bool {
        self.rule::<Off>().is_some()
    }

    /// The plan of somebody's own, where this is one.
    pub fn own_plan(&self) -> Option<&Plan> {
        self.rule()
    }

    /// The planner's plan for its goal, where this is the planner with a plan.
    pub fn planned(&self) -> Option<&[StepPlan]> {
        self.rule::<GoalPlan>().map(|rule| &rule.plans[..]).filter(|plans| !plans.is_empty())
    }

    /// The rule's key.
    pub fn key(&self) -> &'static str {
        self.0.about().key
    }

    /// Tells this strategy from all others in a list: the rule's key, and the title of an own plan.
    pub fn id(&self) -> String {
        self.own_plan().map_or_else(|| self.key().into(), |plan| format!("{}:{}", self.key(), plan.title))
    }

    /// The name in tables and figures: the rule's key, or the title of an own plan.
    pub fn name(&self) -> &str {
        self.own_plan().map_or_else(|| self.key(), |plan| &plan.title)
    }

    /// The name in the window: the rule's label, or the title of an own plan.
    pub fn label(&self) -> &str {
        self.own_plan().map_or_else(|| self.0.about().label, |plan| &plan.title)
    }

    /// Reads a strategy from a JSON file. [`AnyRule::build`] finds out whether the strategy can
    /// work.
    ///
    /// # Errors
    /// [`CacheError::Io`]; [`CacheError::File`] for anything else than a strategy, in one line.
    pub fn read(path: &Path) -> Result<Self, CacheError> {
        let name = || path.display().to_string();
        let io = |source| CacheError::Io { path: name(), source };
        let mut bytes = Vec::new();
        std::fs::File::open(path).map_err(io)?.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
        let no_strategy = |reason: String| {
            let reason = reason.chars().filter(|c| !c.is_control()).take(300).collect();
            CacheError::File { path: name(), reason }
        };
        if bytes.len() as u64 > MOST_BYTES {
            return Err(no_strategy(format!("more than {} MiB", MOST_BYTES >> 20)));
        }
        let strategy: Self = serde_json::from_slice(&bytes).map_err(|error| no_strategy(error.to_string()))?;
        match strategy.rule::<UnknownRule>() {
            Some(unknown) => Err(no_strategy(unknown.to_string())),
            None => strategy.check().map(|()| strategy).map_err(no_strategy),
        }
    }

    /// The strategy as JSON, as [`StrategyConfig::read`] takes it.
    pub fn to_json(&self) -> String {
        // Numbers, texts and lists: JSON can hold all of them.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// Changes a setting by its text.
    ///
    /// # Errors
    /// [`CacheError::Settings`] for a key that the rule does not have, or a text that is no value.
    pub fn set_text(&mut self, shape: Shape, key: &str, text: &str) -> Result<(), CacheError> {
        let name = self.key();
        let settings = self.settings(shape);
        let Some(setting) = settings.iter().find(|setting| setting.key == key) else {
            return Err(CacheError::Settings(unknown_setting(name, key, settings.iter().map(|setting| setting.key))));
        };
        let no_value = || {
            let hint = setting.kind.hint();
            CacheError::Settings(format!("\"{text}\" is no value for {key} of {name}: write {hint}"))
        };
        let value = setting.kind.parse(text).ok_or_else(no_value)?;
        self.set(shape, key, value)
    }
}

/// The message for a key that a rule does not have, with the nearest one that it has.
fn unknown_setting<'a>(name: &str, key: &str, known: impl Iterator<Item = &'a str>) -> String {
    let hint = did_you_mean(key, known);
    format!("{name} has no setting called {key}{hint}")
}

/// `: did you mean X?` for the nearest of some words, where one is near enough to be a slip.
pub(super) fn did_you_mean<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    /// Letters that may be wrong.
    const MOST: usize = 2;
    let near = known.map(|other| (strsim::damerau_levenshtein(word, other), other)).min();
    near.filter(|(distance, _)| (1..=MOST).contains(distance))
        .map_or_else(String::new, |(_, other)| format!(": did you mean {other}?"))
}

impl Default for StrategyConfig {
    fn default() -> Self {
        Self::off()
    }
}

impl Clone for StrategyConfig {
    fn clone(&self) -> Self {
        Self(self.0.boxed_clone())
    }
}

impl PartialEq for StrategyConfig {
    fn eq(&self, other: &Self) -> bool {
        self.0.equals(other.0.as_ref())
    }
}

impl std::fmt::Debug for StrategyConfig {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(to)
    }
}

impl Deref for StrategyConfig {
    type Target = dyn AnyRule;

    fn deref(&self) -> &Self::Target {
        self.0.as_ref()
    }
}

impl DerefMut for StrategyConfig {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.0.as_mut()
    }
}

impl Serialize for StrategyConfig {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if let Some(unknown) = self.rule::<UnknownRule>() {
            return unknown.0.serialize(to);
        }
        let mut object = serde_json::Map::new();
        object.insert("name".into(), self.key().into());
        if let serde_json::Value::Object(settings) = self.to_value() {
            object.extend(settings);
        }
        object.serialize(to)
    }
}

impl<'de> Deserialize<'de> for StrategyConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let object = serde_json::Map::deserialize(from)?;
        let name = object.get("name").and_then(serde_json::Value::as_str);
        let name = name.ok_or_else(|| D::Error::missing_field("name"))?;
        // Until version 0.1 the planner's plan was a plan whose title said so.
        let planned = name == "plan" && object.get("title").is_some_and(|title| title == GoalPlan::ABOUT.key);
        let key = if planned { GoalPlan::ABOUT.key } else { name };
        match catalogue::find(key) {
            Some(entry) => {
                let mut settings = object;
                settings.remove("name");
                entry.read(settings.into()).map_err(D::Error::custom)
            }
            None => Ok(Self::of(UnknownRule(object))),
        }
    }
}

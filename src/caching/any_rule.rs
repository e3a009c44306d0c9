//! A rule of any type behind one object-safe interface.

use std::any::Any;
use std::fmt::Debug;

use super::evidence::{Evidence, Known};
use super::rule::{About, Advice, Rule, Shape, Signal, SpeedupTarget, StrategyInputs, Tuning};
use super::setting::{SettingInfo, Value};
use super::{CacheError, Strategy, StrategyConfig};

/// [`Rule`] without its type. [`StrategyConfig`] derefs to this.
pub trait AnyRule: Debug + Send + Sync {
    /// See [`Rule::ABOUT`].
    fn about(&self) -> &'static About;
    /// See [`Rule::build`].
    ///
    /// # Errors
    /// Those of the rule.
    fn build(&self, inputs: &StrategyInputs) -> Result<Box<dyn Strategy>, CacheError>;
    /// See [`Rule::check`].
    ///
    /// # Errors
    /// Those of the rule.
    fn check(&self) -> Result<(), String>;
    /// See [`Rule::caches`].
    fn caches(&self) -> bool;
    /// See [`Rule::steps`].
    fn steps(&self, requested: usize) -> usize;
    /// See [`Rule::planned_steps`].
    fn planned_steps(&self) -> Option<usize>;
    /// See [`Rule::is_planned_ahead`].
    fn is_planned_ahead(&self) -> bool;
    /// See [`Rule::signal`].
    fn signal(&self) -> Option<Signal>;
    /// See [`Rule::calibrate`].
    ///
    /// # Errors
    /// Those of the rule.
    fn calibrate(&mut self, evidence: &Evidence) -> Result<(), CacheError>;
    /// See [`Rule::uncalibrate`].
    fn uncalibrate(&mut self);
    /// See [`Rule::is_calibrated`].
    fn is_calibrated(&self) -> bool;
    /// See [`Rule::learns_from_a_run`].
    fn learns_from_a_run(&self) -> bool;
    /// See [`Rule::tuning`].
    fn tuning(&self) -> Tuning;
    /// See [`Rule::loosened`].
    fn loosened(&self, target: &SpeedupTarget) -> StrategyConfig;
    /// See [`Rule::candidates`].
    fn candidates(&self, target: &SpeedupTarget) -> Vec<StrategyConfig>;
    /// See [`Rule::expected_psnr`].
    fn expected_psnr(&self) -> Option<f64>;
    /// See [`Rule::known`].
    fn known(&self) -> Option<Known>;
    /// See [`Rule::skip_limit`].
    fn skip_limit(&self) -> Option<usize>;
    /// See [`Rule::advice`].
    fn advice(&self) -> Advice;
    /// See [`Rule::note`].
    fn note(&self) -> Option<String>;
    /// See [`Rule::background`].
    fn background(&self, blocks: usize) -> Vec<usize>;
    /// The settings with their values of now.
    fn settings(&self, shape: Shape) -> Vec<SettingInfo>;
    /// Changes a setting.
    ///
    /// # Errors
    /// [`CacheError::Settings`] for a key that the rule does not have, or a value that is none.
    fn set(&mut self, shape: Shape, key: &str, value: Value) -> Result<(), CacheError>;
    /// The settings as JSON, without the rule's name.
    fn to_value(&self) -> serde_json::Value;
    /// Another strategy with the same settings.
    fn boxed_clone(&self) -> Box<dyn AnyRule>;
    /// Whether both are the same rule with the same settings.
    fn equals(&self, other: &dyn AnyRule) -> bool;
    /// The rule itself.
    fn as_any(&self) -> &dyn Any;
    /// The rule itself, to be changed.
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

impl<R: Rule> AnyRule for R {
    fn about(&self) -> &'static About {
        &R::ABOUT
    }

    fn build(&self, inputs: &StrategyInputs) -> Result<Box<dyn Strategy>, CacheError> {
        Rule::build(self, inputs)
    }

    fn check(&self) -> Result<(), String> {
        Rule::check(self)
    }

    fn caches(&self) -> bool {
        Rule::caches(self)
    }

    fn steps(&self, requested: usize) -> usize {
        Rule::steps(self, requested)
    }

    fn planned_steps(&self) -> Option<usize> {
        Rule::planned_steps(self)
    }

    fn is_planned_ahead(&self) -> bool {
        Rule::is_planned_ahead(self)
    }

    fn signal(&self) -> Option<Signal> {
        Rule::signal(self)
    }

    fn calibrate(&mut self, evidence: &Evidence) -> Result<(), CacheError> {
        Rule::calibrate(self, evidence)
    }

    fn uncalibrate(&mut self) {
        Rule::uncalibrate(self);
    }

    fn is_calibrated(&self) -> bool {
        Rule::is_calibrated(self)
    }

    fn learns_from_a_run(&self) -> bool {
        Rule::learns_from_a_run(self)
    }

    fn tuning(&self) -> Tuning {
        Rule::tuning(self)
    }

    fn loosened(&self, target: &SpeedupTarget) -> StrategyConfig {
        StrategyConfig::of(Rule::loosened(self, target))
    }

    fn candidates(&self, target: &SpeedupTarget) -> Vec<StrategyConfig> {
        Rule::candidates(self, target).into_iter().map(StrategyConfig::of).collect()
    }

    fn expected_psnr(&self) -> Option<f64> {
        Rule::expected_psnr(self)
    }

    fn known(&self) -> Option<Known> {
        Rule::known(self)
    }

    fn skip_limit(&self) -> Option<usize> {
        Rule::skip_limit(self)
    }

    fn advice(&self) -> Advice {
        Rule::advice(self)
    }

    fn note(&self) -> Option<String> {
        Rule::note(self)
    }

    fn background(&self, blocks: usize) -> Vec<usize> {
        Rule::background(self, blocks)
    }

    fn settings(&self, shape: Shape) -> Vec<SettingInfo> {
        Rule::settings(self, shape).iter().map(|setting| setting.info(self)).collect()
    }

    fn set(&mut self, shape: Shape, key: &str, value: Value) -> Result<(), CacheError> {
        let name = R::ABOUT.key;
        let settings = Rule::settings(self, shape);
        let setting = settings.iter().find(|setting| setting.key() == key);
        let setting = setting.ok_or_else(|| CacheError::Settings(format!("{name} has no setting called {key}")))?;
        setting.set(self, value).map_err(|why| CacheError::Settings(format!("{key} of {name}: {why}")))
    }

    fn to_value(&self) -> serde_json::Value {
        // Numbers, texts and lists: JSON can hold all of them.
        serde_json::to_value(self).unwrap_or_default()
    }

    fn boxed_clone(&self) -> Box<dyn AnyRule> {
        Box::new(self.clone())
    }

    fn equals(&self, other: &dyn AnyRule) -> bool {
        other.as_any().downcast_ref::<R>() == Some(self)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

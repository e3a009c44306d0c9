//! A rule that this program does not have, in a file of one that has it.

use serde::{Deserialize, Serialize};

use crate::caching::rule::{About, Group, Needs, Rule, StrategyInputs, Tuning};
use crate::caching::{CacheError, Strategy, catalogue};

/// The settings of a rule without its code. Captures with such a rule open; nothing can run it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnknownRule(pub serde_json::Map<String, serde_json::Value>);

impl std::fmt::Display for UnknownRule {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.0.get("name").and_then(serde_json::Value::as_str).unwrap_or_default();
        let name: String = name.chars().filter(|c| !c.is_control()).take(40).collect();
        write!(to, "there is no strategy called {name}: choose one of {}", catalogue::names())
    }
}

impl Rule for UnknownRule {
    const ABOUT: About = About {
        key: "unknown",
        label: "Unknown",
        summary: "A rule that this program does not have.",
        source: "",
        group: Group::Own,
        needs: Needs::Nothing,
    };

    fn defaults(_steps: usize) -> Self {
        Self(serde_json::Map::new())
    }

    fn build(&self, _inputs: &StrategyInputs) -> Result<Box<dyn Strategy>, CacheError> {
        Err(CacheError::Settings(self.to_string()))
    }

    fn tuning(&self) -> Tuning {
        Tuning::Fixed("this program does not have the rule")
    }
}

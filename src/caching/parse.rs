//! Strategies as text: `NAME`, `NAME:KEY=VALUE,KEY=VALUE`, or a `.json` file.

use std::path::Path;

use super::config::did_you_mean;
use super::evidence::Evidence;
use super::rule::Shape;
use super::{CacheError, StrategyConfig, catalogue};

/// The name of a strategy, and the keys that its text sets.
pub fn name_and_keys(text: &str) -> (&str, Vec<&str>) {
    let (name, settings) = text.split_once(':').unwrap_or((text, ""));
    (name, settings.split(',').filter_map(|pair| Some(pair.split_once('=')?.0.trim())).collect())
}

/// A strategy from its text, calibrated by what is known of the model.
///
/// # Errors
/// An unknown name or setting, a value that does not parse, settings that exclude each other, or a
/// file that holds no strategy. A calibration that is missing is no error here: building the
/// strategy says so.
pub fn parse(text: &str, evidence: &Evidence) -> Result<StrategyConfig, CacheError> {
    let mut config = if is_file(text) {
        StrategyConfig::read(Path::new(text))?
    } else {
        from_words(text, Shape { steps: evidence.steps(), blocks: evidence.blocks() })?
    };
    config.calibrate(evidence)?;
    Ok(config)
}

/// Whether a text names a file, not a rule.
pub(super) fn is_file(text: &str) -> bool {
    text.ends_with(".json")
}

fn from_words(text: &str, shape: Shape) -> Result<StrategyConfig, CacheError> {
    let wrong = |message: String| Err(CacheError::Settings(message));
    let (name, settings) = text.split_once(':').unwrap_or((text, ""));
    let Some(entry) = catalogue::offered().find(|entry| entry.about().key == name) else {
        let names = catalogue::names();
        let hint = did_you_mean(name, catalogue::offered().map(|entry| entry.about().key));
        return wrong(format!("there is no strategy called {name}{hint} (there are {names})"));
    };
    let mut config = entry.defaults(shape.steps);
    // Setting one key may hide another, so exclusions are those of the rule's defaults.
    let known = config.settings(shape);
    let mut given: Vec<&str> = Vec::new();
    for part in settings.split(',').filter(|part| !part.trim().is_empty()) {
        let Some((key, value)) = part.split_once('=') else {
            return wrong(format!("\"{part}\" in the settings of {name} is no KEY=VALUE"));
        };
        let key = key.trim();
        if given.contains(&key) {
            return wrong(format!("{name} takes {key} once"));
        }
        given.push(key);
        let excludes = |a: &str, b: &str| known.iter().any(|setting| setting.key == a && setting.excludes.contains(&b));
        if let Some(other) = given.iter().find(|other| excludes(key, other) || excludes(other, key)) {
            return wrong(format!("{name} takes {key} or {other}, not both"));
        }
        config.set_text(shape, key, value)?;
    }
    Ok(config)
}

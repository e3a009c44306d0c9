//! Strategies in files: how they are named and read, and how they become profiles.

use std::path::Path;

use crate::caching::{Origin, Plan, StrategyConfig};
use crate::profiling::profile::Profile;

/// The longest name of a plan, in letters.
pub const LONGEST_NAME: usize = 40;

/// A model's profile with other background blocks, as JSON.
pub fn profile_json(model: &Path, background: Vec<usize>) -> Result<String, String> {
    let told = |error: &dyn std::fmt::Display| format!("The profile cannot be exported: {error}");
    let profile = Profile::read(&model.join("profile.json")).map_err(|error| told(&error))?;
    profile.with_background(background).and_then(|profile| profile.to_json()).map_err(|error| told(&error))
}

/// The file name that is suggested for a strategy.
pub fn file_name(strategy: &StrategyConfig) -> String {
    let plain = |c: char| if c.is_alphanumeric() || c == '-' { c } else { '-' };
    format!("{}.json", strategy.name().chars().map(plain).collect::<String>())
}

/// Reads a strategy. A plan of the planner becomes a plan of the user's, named after the file: the
/// planner in the form computes its own plan for every goal.
pub fn read(path: &Path) -> Result<StrategyConfig, String> {
    let stem = || path.file_stem().map_or_else(|| "opened plan".into(), |stem| stem.to_string_lossy().into_owned());
    let short = |title: &str| title.chars().filter(|c| !c.is_control()).take(LONGEST_NAME).collect::<String>();
    let strategy = StrategyConfig::read(path).map_err(|error| error.to_string())?;
    if let Some(Plan { title, plans, .. }) = strategy.own_plan() {
        let title = if title.trim().is_empty() { short(&stem()) } else { short(title) };
        return Ok(StrategyConfig::plan(title, Origin::File, plans.clone()));
    }
    match strategy.planned() {
        Some(plans) => Ok(StrategyConfig::plan(short(&stem()), Origin::File, plans.to_vec())),
        None => Ok(strategy),
    }
}

//! The catalogue of rules: the built-in ones, and those that a program registers.

use std::sync::{PoisonError, RwLock};

use super::rule::{About, Group, Rule, Shape};
use super::rules::RULES;
use super::setting::Kind;
use super::{CacheError, StrategyConfig};

/// A rule as the catalogue lists it.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    about: &'static About,
    defaults: fn(usize) -> StrategyConfig,
    from_value: fn(serde_json::Value) -> serde_json::Result<StrategyConfig>,
}

impl Entry {
    /// The entry of a rule.
    pub const fn of<R: Rule>() -> Self {
        Self {
            about: &R::ABOUT,
            defaults: |steps| StrategyConfig::of(R::defaults(steps)),
            from_value: |value| serde_json::from_value::<R>(value).map(StrategyConfig::of),
        }
    }

    /// The identity of the rule.
    pub fn about(&self) -> &'static About {
        self.about
    }

    /// The rule with good settings for a number of steps.
    pub fn defaults(&self, steps: usize) -> StrategyConfig {
        (self.defaults)(steps)
    }

    /// The rule with settings from a file.
    pub(super) fn read(&self, settings: serde_json::Value) -> serde_json::Result<StrategyConfig> {
        (self.from_value)(settings)
    }

    /// Whether users choose the rule by name. Plans of their own come by hand or from a file.
    pub fn is_offered(&self) -> bool {
        self.about.group != Group::Own
    }
}

/// Rules that the program registered.
static REGISTERED: RwLock<Vec<Entry>> = RwLock::new(Vec::new());

/// Adds a rule to the catalogue of this process. From then on the command line, the window,
/// captures and comparisons know the rule by its key. Registering the same rule again changes
/// nothing.
///
/// # Errors
/// [`CacheError::Settings`] where another rule has the key already.
pub fn register<R: Rule>() -> Result<(), CacheError> {
    let taken = |entry: &&Entry| same_name(entry.about.key, R::ABOUT.key);
    let mut registered = REGISTERED.write().unwrap_or_else(PoisonError::into_inner);
    match RULES.iter().chain(registered.iter()).find(taken) {
        Some(entry) if *entry.about == R::ABOUT => Ok(()),
        Some(entry) => {
            Err(CacheError::Settings(format!("the name {} is {}'s already", R::ABOUT.key, entry.about.label)))
        }
        None => {
            registered.push(Entry::of::<R>());
            Ok(())
        }
    }
}

/// All rules, the built-in ones first.
pub fn catalogue() -> Vec<Entry> {
    let registered = REGISTERED.read().unwrap_or_else(PoisonError::into_inner);
    RULES.iter().chain(registered.iter()).copied().collect()
}

/// The rules that users choose by name.
pub fn offered() -> impl Iterator<Item = Entry> {
    catalogue().into_iter().filter(Entry::is_offered)
}

/// The rule with a name. Old files write some names with underscores or hyphens in other places.
pub fn find(name: &str) -> Option<Entry> {
    catalogue().into_iter().find(|entry| same_name(entry.about.key, name))
}

fn same_name(a: &str, b: &str) -> bool {
    let letters = |name: &str| name.chars().filter(|c| !matches!(c, '-' | '_')).collect::<String>();
    letters(a) == letters(b)
}

/// The names of all offered rules, separated by commas, for messages.
pub fn names() -> String {
    offered().map(|entry| entry.about.key).collect::<Vec<_>>().join(", ")
}

/// The offered rules with their settings, one rule a line, for the command line's help.
pub fn help() -> String {
    let line = |entry: Entry| {
        let settings = entry.defaults(ANY_SHAPE.steps).settings(ANY_SHAPE);
        let keys: Vec<String> = settings
            .iter()
            .map(|setting| match &setting.kind {
                Kind::Choice(_) => format!("{}={}", setting.key, setting.kind.hint()),
                Kind::Blocks(_) => format!("{}=0-5/9", setting.key),
                _ => setting.key.to_owned(),
            })
            .collect();
        format!("  {:<12} {}", entry.about.key, if keys.is_empty() { "no settings".into() } else { keys.join(", ") })
    };
    offered().map(line).collect::<Vec<_>>().join("\n")
}

/// The sizes for which help and documentation state ranges and defaults.
pub(super) const ANY_SHAPE: Shape = Shape { steps: 50, blocks: 30 };

/// The catalogue as Markdown: a table of the rules, then each rule with a table of its settings
/// and their defaults for 50 steps.
pub fn markdown() -> String {
    let mut text = String::from("| name | rule | what it does | published | needs |\n|---|---|---|---|---|\n");
    for entry in RULES {
        let About { key, label, summary, source, needs, .. } = entry.about;
        let source = if source.is_empty() { "-" } else { source };
        text += &format!("| `{key}` | {label} | {summary} | {source} | {} |\n", needs.words());
    }
    for entry in RULES {
        let settings = entry.defaults(ANY_SHAPE.steps).settings(ANY_SHAPE);
        if settings.is_empty() {
            continue;
        }
        text += &format!("\n## {} (`{}`)\n\n", entry.about.label, entry.about.key);
        text += "| setting | values | default | what it does |\n|---|---|---|---|\n";
        for setting in settings {
            let unit = if setting.unit.is_empty() { String::new() } else { format!(" {}", setting.unit) };
            let value = setting.value.to_string();
            let value = if value.is_empty() { "none".into() } else { format!("{value}{unit}") };
            let hint = setting.kind.hint().replace('|', ", ");
            text += &format!("| `{}` | {hint} | {value} | {} |\n", setting.key, setting.help);
        }
    }
    text
}

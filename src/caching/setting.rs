//! The settings of a rule as data: the command line parses them, the window draws them, and the
//! tuner turns them, all without knowing which rule they belong to.

use std::ops::RangeInclusive;

use super::block_list;

/// The value of a setting.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// A number.
    Real(f64),
    /// A whole number.
    Count(usize),
    /// Yes or no.
    Flag(bool),
    /// The key of one of the choices.
    Choice(&'static str),
    /// A list of blocks.
    Blocks(Vec<usize>),
}

/// One of the values that a setting of kind [`Kind::Choice`] can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The word in commands and files.
    pub key: &'static str,
    /// The word in the window.
    pub label: &'static str,
    /// What the choice means, in one sentence.
    pub help: &'static str,
}

/// Which values a setting has.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Kind {
    /// A number. The window's slider has this range; a file may go beyond.
    Real(RangeInclusive<f64>),
    /// A whole number, with the range of the window's slider.
    Count(RangeInclusive<usize>),
    /// Yes or no.
    Flag,
    /// One of a few words.
    Choice(&'static [Choice]),
    /// A list of blocks of a model that has this many.
    Blocks(usize),
}

impl Kind {
    /// The value that a text stands for. `None` for a text that is no value of this kind.
    pub fn parse(&self, text: &str) -> Option<Value> {
        let text = text.trim();
        match self {
            Self::Real(_) => text.parse().ok().filter(|number: &f64| number.is_finite()).map(Value::Real),
            Self::Count(_) => text.parse().ok().map(Value::Count),
            Self::Flag => text.parse().ok().map(Value::Flag),
            Self::Choice(choices) => {
                choices.iter().find(|choice| choice.key == text).map(|choice| Value::Choice(choice.key))
            }
            // A comma separates settings on the command line, so blocks are separated by `/` there.
            Self::Blocks(_) => block_list::parse(&text.replace('/', ","), MOST_BLOCKS).ok().map(Value::Blocks),
        }
    }

    /// The values that [`Kind::parse`] takes, in words.
    pub fn hint(&self) -> String {
        match self {
            Self::Real(_) => "a number".into(),
            Self::Count(_) => "a whole number".into(),
            Self::Flag => "true or false".into(),
            Self::Choice(choices) => choices.iter().map(|choice| choice.key).collect::<Vec<_>>().join("|"),
            Self::Blocks(_) => "a list of blocks such as 0-5/9/12".into(),
        }
    }
}

/// Blocks that a list on the command line may name: far more than any model has.
const MOST_BLOCKS: usize = 1000;

impl std::fmt::Display for Value {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Real(value) => write!(to, "{value}"),
            Self::Count(value) => write!(to, "{value}"),
            Self::Flag(value) => write!(to, "{value}"),
            Self::Choice(key) => write!(to, "{key}"),
            Self::Blocks(list) => write!(to, "{}", block_list::print(list)),
        }
    }
}

/// A setting of a strategy: the description, and the value that it has now.
#[derive(Clone, Debug, PartialEq)]
pub struct SettingInfo {
    /// The word in commands: `threshold`, `warm-up`.
    pub key: &'static str,
    /// The words in the window.
    pub label: &'static str,
    /// The unit of the value: `steps`, `blocks`, `dB`; empty for plain numbers.
    pub unit: &'static str,
    /// What the setting does, in one sentence.
    pub help: &'static str,
    /// Which values there are.
    pub kind: Kind,
    /// The value of now.
    pub value: Value,
    /// Values that the window offers by a click.
    pub presets: &'static [f64],
    /// Settings that mean nothing together with this one.
    pub excludes: &'static [&'static str],
    /// Whether the window shows the setting. The command line knows all settings.
    pub shown: bool,
    /// Whether this is the threshold that the rule decides by: a higher one reuses more.
    pub threshold: bool,
}

/// Reads a setting's value.
type Get<T> = Box<dyn Fn(&T) -> Value>;
/// Changes a setting's value, or says why the value is none.
type Set<T> = Box<dyn Fn(&mut T, Value) -> Result<(), String>>;

/// A setting of the rule `T`, made anew whenever the settings are asked for.
pub struct Setting<T> {
    info: SettingInfo,
    get: Get<T>,
    set: Set<T>,
}

impl<T: Clone + 'static> Setting<T> {
    /// A setting with accessors of its own.
    pub fn new(
        (key, label, help): (&'static str, &'static str, &'static str),
        kind: Kind,
        get: impl Fn(&T) -> Value + 'static,
        set: impl Fn(&mut T, Value) -> Result<(), String> + 'static,
    ) -> Self {
        let (value, unit, presets, excludes) = (Value::Flag(false), "", &[][..], &[][..]);
        let info =
            SettingInfo { key, label, unit, help, kind, value, presets, excludes, shown: true, threshold: false };
        Self { info, get: Box::new(get), set: Box::new(set) }
    }

    /// A number that is a field of the rule.
    pub fn real(
        words: (&'static str, &'static str, &'static str),
        range: RangeInclusive<f64>,
        field: impl Fn(&mut T) -> &mut f64 + Copy + 'static,
    ) -> Self {
        let set = move |rule: &mut T, value| match value {
            Value::Real(value) => {
                *field(rule) = value;
                Ok(())
            }
            other => Err(format!("{other} is no number")),
        };
        Self::new(words, Kind::Real(range), move |rule| Value::Real(*field(&mut rule.clone())), set)
    }

    /// A whole number that is a field of the rule.
    pub fn count(
        words: (&'static str, &'static str, &'static str),
        range: RangeInclusive<usize>,
        field: impl Fn(&mut T) -> &mut usize + Copy + 'static,
    ) -> Self {
        let set = move |rule: &mut T, value| match value {
            Value::Count(value) => {
                *field(rule) = value;
                Ok(())
            }
            other => Err(format!("{other} is no whole number")),
        };
        Self::new(words, Kind::Count(range), move |rule| Value::Count(*field(&mut rule.clone())), set)
    }

    /// A whole number that other parts of the rule depend on: `change` brings them along.
    pub fn count_by(
        words: (&'static str, &'static str, &'static str),
        range: RangeInclusive<usize>,
        get: impl Fn(&T) -> usize + 'static,
        change: impl Fn(&mut T, usize) + 'static,
    ) -> Self {
        let set = move |rule: &mut T, value| match value {
            Value::Count(value) => {
                change(rule, value);
                Ok(())
            }
            other => Err(format!("{other} is no whole number")),
        };
        Self::new(words, Kind::Count(range), move |rule| Value::Count(get(rule)), set)
    }

    /// Gives the value a unit.
    pub fn unit(mut self, unit: &'static str) -> Self {
        self.info.unit = unit;
        self
    }

    /// Offers values by a click.
    pub fn presets(mut self, presets: &'static [f64]) -> Self {
        self.info.presets = presets;
        self
    }

    /// Refuses the setting on the command line together with others.
    pub fn excludes(mut self, others: &'static [&'static str]) -> Self {
        self.info.excludes = others;
        self
    }

    /// Shows the setting in the window only where it means something.
    pub fn shown(mut self, shown: bool) -> Self {
        self.info.shown = shown;
        self
    }

    /// Marks the threshold that the rule decides by.
    pub fn threshold(mut self) -> Self {
        self.info.threshold = true;
        self
    }

    /// The description with the value that a rule has.
    pub fn info(&self, rule: &T) -> SettingInfo {
        SettingInfo { value: (self.get)(rule), ..self.info.clone() }
    }

    /// The word in commands.
    pub fn key(&self) -> &'static str {
        self.info.key
    }

    /// Changes the value in a rule.
    ///
    /// # Errors
    /// Why the value is none for this setting, in words.
    pub fn set(&self, rule: &mut T, value: Value) -> Result<(), String> {
        (self.set)(rule, value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHOICES: &[Choice] =
        &[Choice { key: "hold", label: "hold", help: "" }, Choice { key: "scale", label: "scale", help: "" }];

    #[test]
    fn texts_become_values_of_their_kind() {
        let cases = [
            (Kind::Real(0.0..=1.0), "0.25", Some(Value::Real(0.25))),
            (Kind::Real(0.0..=1.0), "7", Some(Value::Real(7.0))),
            (Kind::Real(0.0..=1.0), "inf", None),
            (Kind::Real(0.0..=1.0), "much", None),
            (Kind::Count(0..=9), " 12 ", Some(Value::Count(12))),
            (Kind::Count(0..=9), "-1", None),
            (Kind::Flag, "true", Some(Value::Flag(true))),
            (Kind::Choice(CHOICES), "scale", Some(Value::Choice("scale"))),
            (Kind::Choice(CHOICES), "scala", None),
            (Kind::Blocks(12), "0-2/5", Some(Value::Blocks(vec![0, 1, 2, 5]))),
            (Kind::Blocks(12), "5-2", None),
            (Kind::Blocks(12), "0-99999999", None),
        ];
        for (kind, text, value) in cases {
            assert_eq!(kind.parse(text), value, "{text}");
        }
    }

    #[test]
    fn a_field_is_read_and_written() {
        let setting = Setting::real(("share", "share", ""), 0.0..=1.0, |rule: &mut (f64, usize)| &mut rule.0);
        let mut rule = (0.5, 3);
        assert_eq!(setting.info(&rule).value, Value::Real(0.5));
        assert!(
            setting.set(&mut rule, Value::Real(0.75)).is_ok() && setting.set(&mut rule, Value::Flag(true)).is_err()
        );
        assert_eq!(rule, (0.75, 3));
    }
}

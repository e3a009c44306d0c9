//! What a caching rule says of itself. A rule is one file in `rules/` and one line in the
//! catalogue; the command line, the window, the tuner and the documentation know rules only
//! through this trait.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::evidence::{Evidence, Known};
use super::setting::Setting;
use super::{CacheError, Strategy};

/// Identity of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    /// The name in commands, files and tables. Nothing else identifies a rule.
    pub key: &'static str,
    /// The name in the window.
    pub label: &'static str,
    /// What the rule does, in one sentence.
    pub summary: &'static str,
    /// Where the rule was published; empty for rules without a publication.
    pub source: &'static str,
    /// What kind of rule this is.
    pub group: Group,
    /// What the rule must know of a model before it can run.
    pub needs: Needs,
}

/// The groups in which the window and the documentation list the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Group {
    /// A goal is given, and the plan follows from what is known of the model.
    Target,
    /// Nothing is reused.
    Off,
    /// Rules from papers and libraries.
    Published,
    /// Controls that published rules have to beat.
    Control,
    /// A plan that somebody made, step by step. It is not offered: it comes by hand or from a file.
    Own,
}

impl Group {
    /// The heading in the window and in the documentation.
    pub fn heading(self) -> &'static str {
        match self {
            Self::Target => "target",
            Self::Off => "off",
            Self::Published => "published",
            Self::Control => "controls",
            Self::Own => "own plans",
        }
    }
}

/// What a rule must know of a model before it can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// A few computed steps of the run itself.
    Steps,
    /// Nothing, but everything that is known of the model makes its plans better and surer.
    Knowledge,
    /// A calibration: from a profile, from a finished full run, or published with the model.
    Calibration,
    /// A profile of the model.
    Profile,
}

impl Needs {
    /// The need in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Knowledge => "nothing; better with a profile or after some runs",
            Self::Steps => "a few computed steps",
            Self::Calibration => "a calibration",
            Self::Profile => "a profile",
        }
    }
}

/// The sizes that ranges of settings depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Denoising steps of the job.
    pub steps: usize,
    /// Blocks of the transformer; 0 where the model is not known yet.
    pub blocks: usize,
}

/// How a rule is brought to a speed-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tuning {
    /// The rule has nothing to turn; the reason, for messages.
    Fixed(&'static str),
    /// Its threshold is turned until the speed-up is met. See [`Rule::loosened`].
    Threshold,
    /// The nearest of some candidates is taken. See [`Rule::candidates`].
    Candidates {
        /// Keys of the settings that the candidates differ in.
        chosen: &'static [&'static str],
    },
}

/// The speed-up that a rule is tuned to.
#[derive(Clone, Copy, Debug)]
pub struct SpeedupTarget<'a> {
    /// Work without reuse divided by work with reuse.
    pub speedup: f64,
    /// Denoising steps of the job.
    pub steps: usize,
    /// Keys of the settings that the user gave. Tuning leaves these as they are.
    pub given: &'a [&'a str],
}

impl SpeedupTarget<'_> {
    /// Whether the user gave a setting.
    pub fn is_given(&self, key: &str) -> bool {
        self.given.contains(&key)
    }

    /// The number of computed steps that comes nearest to the speed-up.
    pub fn computed_steps(&self) -> usize {
        ((self.steps as f64 / self.speedup).round() as usize).clamp(1, self.steps.max(1))
    }

    /// A limit in steps that a rule has at most: `set`, or a share of the steps that the speed-up
    /// leaves to compute, whichever is less. What the user gave stays.
    pub fn at_most(&self, key: &str, set: usize, share: f64) -> usize {
        let most = (share * self.steps as f64 / self.speedup) as usize;
        if self.is_given(key) { set } else { set.min(most) }
    }

    /// The same for a limit that is a share of the steps.
    pub fn share_at_most(&self, key: &str, set: f64, share: f64) -> f64 {
        if self.is_given(key) { set } else { set.min(share / self.speedup) }
    }
}

/// How a rule is made to reuse more, and less, in words for warnings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advice {
    /// What makes the rule reuse more.
    pub more: &'static str,
    /// What makes the rule reuse less.
    pub less: &'static str,
}

impl Advice {
    /// The advice for rules that decide by a threshold.
    pub const THRESHOLD: Self =
        Self { more: "raise its threshold or compute fewer steps at the start", less: "lower its threshold" };
    /// The advice for rules with a schedule of computed steps.
    pub const SCHEDULE: Self = Self {
        more: "compute fewer steps, by longer intervals or a shorter warm-up",
        less: "compute more steps, by shorter intervals",
    };
}

/// The change of the time embedding that a rule decides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The time embedding, `dim` values.
    Embedding,
    /// Its projection, `6 dim` values.
    Projection,
}

/// What a strategy learns of the job when it is made.
#[derive(Clone, Debug, Default)]
pub struct StrategyInputs {
    /// Denoising steps.
    pub steps: usize,
    /// Blocks of the transformer.
    pub blocks: usize,
    /// Relative change of the rule's [`Signal`] from each step to the next. Empty for rules
    /// without a signal, and as long as the signal is not known.
    pub signal_changes: Vec<f64>,
}

/// A caching rule with its settings.
///
/// A type that implements this trait is a strategy after one more line: in the catalogue
/// (`rules/mod.rs`), or a call of [`register`](super::register) for rules outside this crate.
pub trait Rule: Clone + Debug + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The identity of the rule.
    const ABOUT: About;

    /// Good settings for a number of steps. A calibration is missing in these.
    fn defaults(steps: usize) -> Self;

    /// The settings that users choose, in the window's order.
    fn settings(&self, _shape: Shape) -> Vec<Setting<Self>> {
        Vec::new()
    }

    /// The strategy for one job.
    ///
    /// # Errors
    /// Settings that cannot work for the model, or a calibration that is missing.
    fn build(&self, inputs: &StrategyInputs) -> Result<Box<dyn Strategy>, CacheError>;

    /// Whether the sizes of settings from a file are sane. Says what is wrong.
    ///
    /// # Errors
    /// The reason, as the end of the sentence "the file is damaged: ...".
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// Whether the rule takes anything over from one step to another.
    fn caches(&self) -> bool {
        true
    }

    /// Denoising steps of a job that asked for `requested`.
    fn steps(&self, requested: usize) -> usize {
        requested
    }

    /// The number of steps that the settings hold for, where they hold for one number only.
    fn planned_steps(&self) -> Option<usize> {
        None
    }

    /// Whether the plan is known before the run, given the signal of [`Rule::signal`].
    fn is_planned_ahead(&self) -> bool {
        true
    }

    /// The change of the time embedding that the rule decides by.
    fn signal(&self) -> Option<Signal> {
        None
    }

    /// Takes over what the rule must know of the model, as far as the settings leave it open.
    /// Rules whose need is not met stay uncalibrated without an error: [`Rule::build`] says so.
    ///
    /// # Errors
    /// Settings that contradict what is known of the model.
    fn calibrate(&mut self, _evidence: &Evidence) -> Result<(), CacheError> {
        Ok(())
    }

    /// Forgets what [`Rule::calibrate`] took over, so that another model's evidence can take the
    /// place.
    fn uncalibrate(&mut self) {}

    /// Whether everything that the rule must know of the model is there.
    fn is_calibrated(&self) -> bool {
        true
    }

    /// Whether [`Rule::calibrate`] works with the evidence of a single full run.
    fn learns_from_a_run(&self) -> bool {
        false
    }

    /// How the rule is brought to a speed-up.
    fn tuning(&self) -> Tuning;

    /// The rule with its own limits widened so far that the threshold decides at this speed-up.
    fn loosened(&self, _target: &SpeedupTarget) -> Self {
        self.clone()
    }

    /// Settings of which one may meet a speed-up.
    fn candidates(&self, _target: &SpeedupTarget) -> Vec<Self> {
        Vec::new()
    }

    /// The PSNR in dB to the clip without reuse that is to be expected, where it is known;
    /// infinite for the same clip.
    fn expected_psnr(&self) -> Option<f64> {
        None
    }

    /// What the plan and its expected PSNR were made from, for rules that plan.
    fn known(&self) -> Option<Known> {
        None
    }

    /// Skipped steps in a row at most, where the settings limit them.
    fn skip_limit(&self) -> Option<usize> {
        None
    }

    /// How the rule is made to reuse more, and less.
    fn advice(&self) -> Advice {
        Advice::THRESHOLD
    }

    /// What the settings amount to, in one line for the window.
    fn note(&self) -> Option<String> {
        None
    }

    /// The blocks that the rule takes for background, of a model with `blocks` blocks.
    fn background(&self, _blocks: usize) -> Vec<usize> {
        Vec::new()
    }
}

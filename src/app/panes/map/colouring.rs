//! The quantities that the map can show, and what they mean.

use crate::profiling::score::Score;

use crate::app::data::runs::Run;

/// The quantity that the colours show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Colouring {
    /// Whether a block was computed, stored or reused.
    #[default]
    Reuse,
    /// Attention to the foreground, as a multiple of chance.
    Lift,
    /// R_attn of the paper.
    Recall,
    /// The probability that a foreground token receives more than a background token.
    Auc,
    /// The change of a block's delta since it was last measured.
    Change,
    /// GPU time.
    Time,
}

impl Colouring {
    /// All of them, in the order of the buttons.
    pub const ALL: [Self; 6] = [Self::Lift, Self::Recall, Self::Auc, Self::Change, Self::Time, Self::Reuse];

    /// The text of its button.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reuse => "Reuse",
            Self::Lift => "Lift",
            Self::Recall => "R_attn",
            Self::Auc => "AUC",
            Self::Change => "Change",
            Self::Time => "Time",
        }
    }

    /// The meaning of a value, with its unit.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Reuse => "what the block did",
            Self::Lift => {
                "lift: share of foreground among the most attended tokens, divided by its share of the frame (1 is chance)"
            }
            Self::Recall => "R_attn: share of the foreground that is among the most attended tokens",
            Self::Auc => "AUC: how often a foreground token receives more than a background one (0.5 is chance)",
            Self::Change => "relative change of the block's delta since it was last measured",
            Self::Time => "GPU time of the block, ms",
        }
    }

    /// The label of a figure's axis.
    pub fn label(self) -> &'static str {
        match self {
            Self::Reuse => "",
            Self::Lift => "lift (1 = chance)",
            Self::Recall => "R_attn (0 to 1)",
            Self::Auc => "AUC (0.5 = chance)",
            Self::Change => "relative change",
            Self::Time => "GPU time, ms",
        }
    }

    /// Formats a value.
    pub fn format(self, value: f32) -> String {
        match self {
            Self::Reuse => String::new(),
            Self::Lift | Self::Recall | Self::Auc => format!("{value:.2}"),
            Self::Change => format!("{value:.3}"),
            Self::Time => format!("{value:.2}"),
        }
    }

    /// Whether it compares attention with the foreground mask.
    pub fn is_score(self) -> bool {
        matches!(self, Self::Lift | Self::Recall | Self::Auc)
    }

    /// Its value in a score.
    pub fn of_score(self, score: &Score) -> Option<f32> {
        match self {
            Self::Lift => Some(score.lift as f32),
            Self::Recall => Some(score.recall as f32),
            Self::Auc => Some(score.auc as f32),
            Self::Reuse | Self::Change | Self::Time => None,
        }
    }

    /// The value in the middle of the colours: chance.
    pub fn middle(self) -> Option<f32> {
        match self {
            Self::Lift => Some(1.0),
            Self::Auc => Some(0.5),
            _ => None,
        }
    }

    /// Tells the user how to see it in a run.
    pub fn how_to(self, run: Option<&Run>) -> &'static str {
        let watched = run.filter(|run| self.is_score() && run.mask().is_none() && attends(run));
        match self {
            Self::Reuse => "Generate a clip, or open a capture.",
            _ if watched.is_some_and(|run| run.live) => {
                "Scores come with the foreground mask, after the last step. Paint one in the preview to see them now."
            }
            _ if watched.is_some() => "This run has no foreground mask: paint one in the preview.",
            Self::Lift | Self::Recall | Self::Auc => {
                "Turn on \"Attention\" under Measure in the strategy pane, then generate; it needs a foreground mask too: estimated, or painted in the preview."
            }
            Self::Change => "Turn on \"Block changes\" under Measure in the strategy pane, then generate.",
            Self::Time => "Turn on \"GPU times\" under Measure in the strategy pane, then generate.",
        }
    }
}

/// Whether a run records, or will record, the attention of its blocks.
fn attends(run: &Run) -> bool {
    let mut blocks = run.capture.steps.iter().flat_map(|step| step.cond.iter().chain(&step.uncond));
    (run.live && run.capture.steps.is_empty()) || blocks.any(|block| block.received.is_some())
}

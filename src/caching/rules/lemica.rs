//! LeMiCa (arXiv 2511.00090): lists of computed steps whose worst measured error is the least. The
//! authors publish lists for 50 steps of Wan2.1, and not how the errors were measured.

use serde::{Deserialize, Serialize};

use crate::caching::rule::{About, Advice, Group, Needs, Rule, Shape, SpeedupTarget, StrategyInputs, Tuning};
use crate::caching::setting::{Choice, Kind, Setting, Value};
use crate::caching::strategy::Fixed;
use crate::caching::{CacheError, StepPlan, Strategy};

/// Steps that the published lists are for.
const STEPS: usize = 50;

/// The published lists, by the number of computed steps.
type List = (usize, &'static [usize]);

/// The lists for Wan2.1 T2V 1.3B.
const SMALL: [List; 4] = [
    (25, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 18, 21, 24, 29, 35, 40, 44, 47, 48, 49]),
    (20, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 16, 20, 26, 33, 40, 45, 48, 49]),
    (17, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 13, 18, 25, 32, 39, 46, 49]),
    (14, &[0, 1, 2, 3, 4, 5, 7, 10, 16, 23, 30, 37, 44, 49]),
];
/// The lists for Wan2.1 T2V 14B.
const LARGE: [List; 4] = [
    (25, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 18, 21, 25, 29, 34, 38, 42, 45, 47, 48, 49]),
    (20, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 14, 18, 23, 29, 36, 42, 46, 48, 49]),
    (17, &[0, 1, 2, 3, 4, 5, 6, 7, 9, 12, 16, 22, 29, 36, 43, 47, 49]),
    (14, &[0, 1, 2, 3, 4, 5, 7, 10, 17, 24, 31, 38, 45, 49]),
];

/// The model whose lists are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PublishedFor {
    /// Wan2.1 T2V 1.3B.
    #[default]
    Small,
    /// Wan2.1 T2V 14B.
    Large,
}

const MODELS: &[Choice] = &[
    Choice { key: "1.3b", label: "1.3B", help: "The lists for Wan2.1 T2V 1.3B" },
    Choice { key: "14b", label: "14B", help: "The lists for Wan2.1 T2V 14B" },
];

/// LeMiCa's published lists. The residual of all blocks is held between computed steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LeMiCa {
    /// Whose lists are taken.
    pub model: PublishedFor,
    /// Computed steps of 50. The list with the nearest number is taken.
    pub computed: usize,
}

impl Default for LeMiCa {
    fn default() -> Self {
        Self { model: PublishedFor::Small, computed: 25 }
    }
}

impl LeMiCa {
    /// The published list for 50 steps.
    pub fn list(&self) -> &'static [usize] {
        let lists = if self.model == PublishedFor::Small { &SMALL } else { &LARGE };
        let nearest = lists.iter().min_by_key(|(count, _)| count.abs_diff(self.computed));
        nearest.map_or(&[], |(_, list)| list)
    }

    /// Whether each step is computed. For other numbers of steps the list is stretched; the first
    /// and the last step stay.
    fn computed(&self, steps: usize) -> Vec<bool> {
        let mut computed = vec![false; steps];
        for step in self.list() {
            let place = (*step as f64 * steps.saturating_sub(1) as f64 / (STEPS - 1) as f64).round() as usize;
            if let Some(slot) = computed.get_mut(place) {
                *slot = true;
            }
        }
        computed
    }
}

impl Rule for LeMiCa {
    const ABOUT: About = About {
        key: "lemica",
        label: "LeMiCa",
        summary: "The authors' lists of computed steps, made for Wan2.1.",
        source: "arXiv 2511.00090",
        group: Group::Published,
        needs: Needs::Nothing,
    };

    fn defaults(_steps: usize) -> Self {
        Self::default()
    }

    fn settings(&self, _shape: Shape) -> Vec<Setting<Self>> {
        let model = Setting::new(
            ("model", "lists of", "The model that the authors made the lists for"),
            Kind::Choice(MODELS),
            |rule: &Self| Value::Choice(if rule.model == PublishedFor::Small { "1.3b" } else { "14b" }),
            |rule, value| {
                rule.model = if value == Value::Choice("14b") { PublishedFor::Large } else { PublishedFor::Small };
                Ok(())
            },
        );
        let computed = ("computed", "computed", "Computed steps of 50: there are lists for 14, 17, 20 and 25");
        vec![model, Setting::count(computed, 14..=25, |rule: &mut Self| &mut rule.computed).unit("steps")]
    }

    fn build(&self, inputs: &StrategyInputs) -> Result<Box<dyn Strategy>, CacheError> {
        Ok(Box::new(Fixed(StepPlan::stack(&self.computed(inputs.steps), inputs.blocks))))
    }

    fn tuning(&self) -> Tuning {
        Tuning::Candidates { chosen: &["computed"] }
    }

    fn candidates(&self, _target: &SpeedupTarget) -> Vec<Self> {
        [14, 17, 20, 25].map(|computed| Self { computed, ..self.clone() }).to_vec()
    }

    fn advice(&self) -> Advice {
        Advice { more: "take a list of fewer computed steps", less: "take a list of more computed steps" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caching::schedule::indices;

    #[test]
    fn lists_have_as_many_steps_as_they_say() {
        for (count, list) in SMALL.iter().chain(&LARGE) {
            assert_eq!(list.len(), *count);
            assert!(list.is_sorted() && list.first() == Some(&0) && list.last() == Some(&49));
        }
        let rule = LeMiCa { computed: 14, ..LeMiCa::default() };
        assert_eq!(indices(&rule.computed(50)), [0, 1, 2, 3, 4, 5, 7, 10, 16, 23, 30, 37, 44, 49]);
    }

    #[test]
    fn other_numbers_of_steps_stretch_the_list() {
        let computed = indices(&LeMiCa::default().computed(30));
        assert_eq!((computed.first(), computed.last()), (Some(&0), Some(&29)));
        assert!((14..=20).contains(&computed.len()), "{computed:?}");
        assert_eq!(LeMiCa::default().computed(1), [true]);
    }
}

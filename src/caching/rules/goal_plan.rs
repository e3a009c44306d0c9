//! The planner as a rule: a goal is given, and the plan follows from what is known of the model.

use serde::{Deserialize, Serialize};

use super::plan::{PLANNING, check_sizes, ever_reused, fitting};
use crate::caching::evidence::{Evidence, Known};
use crate::caching::plan_table::Goal;
use crate::caching::rule::{About, Advice, Group, Needs, Rule, Shape, SpeedupTarget, StrategyInputs, Tuning};
use crate::caching::setting::{Choice, Kind, Setting, Value};
use crate::caching::strategy::Fixed;
use crate::caching::{CacheError, StepPlan, Strategy, StrategyConfig};

/// A goal, and the plan that meets it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GoalPlan {
    /// What is asked for.
    pub goal: Goal,
    /// The plan of each step; empty as long as the model is not known.
    pub plans: Vec<StepPlan>,
    /// The PSNR in dB that is expected of the plan. Files hold no infinity: for plans
    /// without reuse [`Rule::expected_psnr`] knows better.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_psnr: Option<f64>,
    /// What the plan was made from.
    pub known: Known,
}

impl StrategyConfig {
    /// The planner with a goal. Its calibration makes the plan.
    pub fn planner(goal: Goal) -> Self {
        Self::of(GoalPlan::new(goal))
    }

    /// The goal of the planner; `None` for other rules.
    pub fn goal(&self) -> Option<Goal> {
        self.rule::<GoalPlan>().map(|rule| rule.goal)
    }
}

const GOALS: &[Choice] = &[
    Choice { key: "speedup", label: "speed-up", help: "The least loss at a speed-up" },
    Choice {
        key: "psnr",
        label: "likeness",
        help: "The greatest speed-up that is expected to keep a PSNR to the clip without reuse",
    },
];

/// The PSNR in dB that the window proposes.
const PROPOSED_PSNR: f64 = 30.0;

impl GoalPlan {
    /// A goal without its plan.
    pub fn new(goal: Goal) -> Self {
        Self { goal, ..Self::default() }
    }

    fn set_goal(&mut self, goal: Goal) {
        if self.goal != goal {
            *self = Self::new(goal);
        }
    }

    /// The steps that compute all blocks.
    pub fn computed_steps(&self) -> Vec<usize> {
        let full = |plan: &StepPlan| plan.cond.is_full(plan.blocks());
        self.plans.iter().enumerate().filter_map(|(step, plan)| full(plan).then_some(step)).collect()
    }

    /// How many steps compute all blocks.
    fn computed(&self) -> usize {
        self.computed_steps().len()
    }
}

impl Rule for GoalPlan {
    const ABOUT: About = About {
        key: "planner",
        label: "Planner",
        summary: "The least loss at a speed-up, or the most speed-up at a likeness.",
        source: "this program (docs/method.md)",
        group: Group::Target,
        needs: Needs::Knowledge,
    };

    fn defaults(_steps: usize) -> Self {
        Self::default()
    }

    fn settings(&self, shape: Shape) -> Vec<Setting<Self>> {
        let fast = !matches!(self.goal, Goal::Psnr(_));
        let goal = Setting::new(
            ("goal", "goal", "What the plan is made for"),
            Kind::Choice(GOALS),
            |rule: &Self| Value::Choice(if matches!(rule.goal, Goal::Psnr(_)) { "psnr" } else { "speedup" }),
            |rule, value| {
                match (value, rule.goal) {
                    (Value::Choice("psnr"), Goal::Psnr(_)) | (Value::Choice("speedup"), Goal::Speedup(_)) => {}
                    (Value::Choice("psnr"), _) => rule.set_goal(Goal::Psnr(PROPOSED_PSNR)),
                    _ => rule.set_goal(Goal::default()),
                }
                Ok(())
            },
        );
        let speedup = Setting::new(
            ("speedup", "faster by", "Work without reuse divided by work with reuse"),
            Kind::Real(1.0..=(shape.steps as f64).clamp(2.0, 6.0)),
            |rule: &Self| match rule.goal {
                Goal::Speedup(speedup) => Value::Real(speedup),
                _ => Value::Real(2.0),
            },
            |rule, value| match value {
                Value::Real(speedup) => {
                    rule.set_goal(Goal::Speedup(speedup));
                    Ok(())
                }
                other => Err(format!("{other} is no speed-up")),
            },
        );
        let psnr = Setting::new(
            ("min-psnr", "at least", "The PSNR to the clip without reuse, expected in the mean over prompts"),
            Kind::Real(15.0..=60.0),
            |rule: &Self| match rule.goal {
                Goal::Psnr(psnr) => Value::Real(psnr),
                _ => Value::Real(PROPOSED_PSNR),
            },
            |rule, value| match value {
                Value::Real(psnr) => {
                    rule.set_goal(Goal::Psnr(psnr));
                    Ok(())
                }
                other => Err(format!("{other} is no PSNR")),
            },
        );
        vec![
            goal,
            speedup.unit("x").presets(&[1.5, 2.0, 2.5, 3.0, 4.0]).excludes(&["min-psnr"]).shown(fast),
            psnr.unit("dB").shown(!fast),
        ]
    }

    fn build(&self, inputs: &StrategyInputs) -> Result<Box<dyn Strategy>, CacheError> {
        if self.plans.is_empty() {
            return Err(CacheError::Uncalibrated("the planner"));
        }
        fitting(&self.plans, inputs).map(|plans| Box::new(Fixed(plans)) as Box<dyn Strategy>)
    }

    fn check(&self) -> Result<(), String> {
        check_sizes(&self.plans)
    }

    fn planned_steps(&self) -> Option<usize> {
        self.is_calibrated().then_some(self.plans.len())
    }

    fn calibrate(&mut self, evidence: &Evidence) -> Result<(), CacheError> {
        if !self.plans.is_empty() || evidence.steps() == 0 {
            return Ok(());
        }
        let outlook = evidence.plans()?.choose(self.goal)?;
        self.plans = outlook.planned.plans(evidence.blocks());
        self.known = evidence.known();
        self.expected_psnr = outlook.psnr.filter(|psnr| psnr.is_finite());
        Ok(())
    }

    fn uncalibrate(&mut self) {
        *self = Self::new(self.goal);
    }

    fn is_calibrated(&self) -> bool {
        !self.plans.is_empty()
    }

    fn tuning(&self) -> Tuning {
        Tuning::Candidates { chosen: &["goal", "speedup", "min-psnr"] }
    }

    fn candidates(&self, target: &SpeedupTarget) -> Vec<Self> {
        vec![Self::new(Goal::Computed(target.computed_steps()))]
    }

    fn expected_psnr(&self) -> Option<f64> {
        if self.is_calibrated() && self.computed() == self.plans.len() {
            return Some(f64::INFINITY);
        }
        self.expected_psnr
    }

    fn known(&self) -> Option<Known> {
        self.is_calibrated().then_some(self.known)
    }

    fn advice(&self) -> Advice {
        PLANNING
    }

    fn note(&self) -> Option<String> {
        let steps = self.plans.len();
        self.is_calibrated().then(|| format!("{} of {steps} steps computed, the others forecast", self.computed()))
    }

    fn background(&self, blocks: usize) -> Vec<usize> {
        ever_reused(&self.plans, blocks)
    }
}

//! What a user should know about a strategy: before a run, and from the plans of its steps.

use super::{StepPlan, StrategyConfig};

/// Fewer steps than this differ too much from each other for caching.
const FEW: usize = 12;

impl StrategyConfig {
    /// A warning for caching over few steps.
    pub fn few_steps(&self, steps: usize) -> Option<String> {
        (self.caches() && steps < FEW)
            .then(|| format!("{steps} steps are few for caching: each differs much from the last; try 20 or more"))
    }

    /// A warning for a rule that decided nothing, from its plans of all steps.
    pub fn warning(&self, plans: &[StepPlan], blocks: usize) -> Option<String> {
        if !self.caches() || plans.is_empty() {
            return None;
        }
        let (name, advice) = (self.name(), self.advice());
        if plans.iter().all(|plan| plan.cond.is_full(blocks)) {
            return Some(format!("{name} never reused anything: {}", advice.more));
        }
        if let Some((first, last)) = reused_throughout(plans, blocks) {
            return Some(format!("{name} reused on every step from {first} to {last}: {}", advice.less));
        }
        let limit = self.skip_limit().filter(|limit| only_limit(*limit, plans, blocks))?;
        Some(format!("{name} always reused as many steps in a row as it may ({limit}): {}, or allow more", advice.less))
    }
}

/// The first and the last step with reuse, where all steps between them have reuse too and these
/// are half of all steps or more: the rule did not decide anything.
fn reused_throughout(plans: &[StepPlan], blocks: usize) -> Option<(usize, usize)> {
    let reused = |plan: &StepPlan| !plan.cond.is_full(blocks);
    let (first, last) = (plans.iter().position(reused)?, plans.iter().rposition(reused)?);
    let span = &plans[first..=last];
    (span.iter().all(reused) && 2 * span.len() >= plans.len()).then_some((first, last))
}

/// Whether the limit of skips in a row alone decided from the first reuse on.
fn only_limit(limit: usize, plans: &[StepPlan], blocks: usize) -> bool {
    let reused = |plan: &StepPlan| !plan.cond.is_full(blocks);
    let Some(first) = plans.iter().position(reused) else { return false };
    let from_first = &plans[first..];
    let period = limit.saturating_add(1);
    let periodic = from_first.iter().enumerate().all(|(i, plan)| reused(plan) == (i % period < limit));
    periodic && from_first.len() / 2 > limit
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caching::{DbCache, EasyCache, Intervals, MagCache, Origin, ProfilingDit, Rule, StepSchedule, Uniform};

    fn fixed(every: usize) -> StrategyConfig {
        let intervals = Intervals::Uniform(every);
        StrategyConfig::of(Uniform(StepSchedule { warm_up: 0, last: 0, intervals }))
    }

    /// Advice names settings that the strategy has.
    #[test]
    fn advice_fits_the_kind_of_strategy() {
        let plan = StrategyConfig::plan("mine", Origin::Hand, Vec::new());
        let profiling = StrategyConfig::of(ProfilingDit::defaults(50));
        let threshold = StrategyConfig::of(EasyCache::default());
        let cases = [
            (&fixed(1), "longer intervals", "shorter intervals"),
            (&threshold, "raise its threshold", "lower its threshold"),
            (&plan, "higher speed-up", "lower speed-up"),
            (&profiling, "list of blocks", "compute every few"),
        ];
        let computed = StepPlan::stack(&[true; 20], 4);
        let reused = StepPlan::stack(&std::array::from_fn::<_, 20, _>(|step| step == 0), 4);
        for (config, more, less) in cases {
            for (plans, word) in [(&computed, more), (&reused, less)] {
                let found = config.warning(plans, 4).unwrap();
                assert!(found.contains(word), "{word}: {found}");
            }
        }
    }

    /// Rules compute some steps at both ends whatever their threshold is.
    #[test]
    fn a_threshold_that_never_binds_is_told() {
        let easy = StrategyConfig::of(EasyCache { threshold: 1e9, ..EasyCache::default() });
        let told = |computed: &[bool]| easy.warning(&StepPlan::stack(computed, 4), 4);
        let all_but = |wanted: &dyn Fn(usize) -> bool| std::array::from_fn::<_, 50, _>(wanted);
        let found = told(&all_but(&|step| step < 10 || step == 49));
        assert!(found.is_some_and(|found| found.contains("from 10 to 48") && found.contains("lower")));
        assert_eq!(told(&all_but(&|step| step < 10 || step == 49 || step == 30)), None, "it decided once");
        assert_eq!(told(&all_but(&|step| !(20..40).contains(&step))), None, "less than half");
    }

    /// Where a rule reuses as often as it may, its threshold decides nothing.
    #[test]
    fn a_limit_that_decides_alone_is_told() {
        let mag = |threshold: f64| {
            let rule = MagCache { threshold, max_skips: 3, retention: 0.2, ratios: vec![0.99; 50] };
            let plans = StepPlan::stack(&rule.computed(50), 4);
            StrategyConfig::of(rule).warning(&plans, 4)
        };
        assert!(mag(9.0).is_some_and(|text| text.contains("(3)") && text.contains("lower its threshold")));
        assert_eq!(mag(0.05), None);
        let every_third = StepPlan::stack(&std::array::from_fn::<_, 50, _>(|step| step % 3 == 0), 4);
        let db = |max_skips| StrategyConfig::of(DbCache { max_skips, ..DbCache::default() }).warning(&every_third, 4);
        assert!(db(2).is_some_and(|text| text.contains("(2)")));
        assert_eq!([0, 1, 3, usize::MAX].map(db), [None, None, None, None]);
    }

    #[test]
    fn few_steps_are_told_of_what_caches() {
        assert!(fixed(2).few_steps(11).is_some_and(|text| text.contains("11 steps")));
        assert_eq!((fixed(2).few_steps(12), StrategyConfig::off().few_steps(1)), (None, None));
    }
}

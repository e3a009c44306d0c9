//! What is known of a request before it runs. Predictions beside a plan that is being edited need
//! it.

use crate::caching::{
    Action, BranchPlan, Evidence, ForwardCost, PublishedTea, StepPlan, StrategyConfig, StrategyInputs,
};

use super::open_model::OpenModel;
use super::{EngineError, GenerateRequest};

/// Sizes and costs of a request for its model.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestInfo {
    /// Blocks of the transformer.
    pub blocks: usize,
    /// Tokens along frames, height, width.
    pub token_grid: [usize; 3],
    /// Bytes of the delta of one run of blocks in one branch.
    pub delta_bytes: u64,
    /// Noise level of each step of the request without fewer steps, and 0 after the last.
    pub sigmas: Vec<f64>,
    /// Name of the solver.
    pub scheduler: String,
    /// Shift of the sigmas.
    pub flow_shift: f64,
    /// Fingerprint of the transformer's weights.
    pub model_id: String,
    /// Fingerprints that earlier versions of this program gave to the transformer's weights.
    pub former_ids: Vec<String>,
    /// Fingerprint of the VAE's weights.
    pub vae_id: String,
    /// GPU memory of the job in bytes, without its stored deltas. An estimate from above.
    pub gpu_memory: u64,
    /// TeaCache's polynomials that were published for the model.
    pub published_tea: PublishedTea,
    /// Work of one forward pass. The length of the text is estimated from its words.
    pub cost: ForwardCost,
}

impl RequestInfo {
    /// Reads the model's configurations. The weights are opened. They are read once, to tell them
    /// from all others; this is remembered.
    ///
    /// # Errors
    /// The folder holds no model, or the model cannot make what is asked for.
    pub fn of(request: &GenerateRequest) -> Result<Self, EngineError> {
        let model = OpenModel::of(request)?;
        Ok(Self {
            sigmas: model.scheduler.sigmas().iter().map(|sigma| f64::from(*sigma)).collect(),
            scheduler: request.scheduler_choice(&model.sampler).name().into(),
            flow_shift: request.shift(&model.sampler),
            model_id: model.model.id(),
            former_ids: model.model.former_ids(),
            vae_id: model.model.decoder_id(),
            gpu_memory: model.gpu_memory(request),
            blocks: model.model.blocks(),
            token_grid: model.geometry.token_grid,
            delta_bytes: model.memory(request).delta,
            published_tea: model.published_tea(),
            cost: model.cost(model.model.estimated_rows(&request.condition)),
        })
    }

    /// What is known of the model for the request's run without a profile.
    pub fn evidence(&self) -> Evidence {
        Evidence::new(self.sigmas.clone(), self.blocks).with_published_tea(self.published_tea)
    }

    /// Memory of a strategy's stored deltas in bytes, from above, for a job of `steps` requested
    /// steps. A plan that is known counts what it stores. A strategy that decides on the way counts
    /// all that it may ask for. A strategy that cannot work counts 0; building it says why.
    pub fn strategy_memory(&self, config: &StrategyConfig, steps: usize, guided: bool) -> u64 {
        let steps = config.steps(steps);
        // How much TeaCache stores does not depend on its signal.
        let inputs = StrategyInputs { steps, blocks: self.blocks, signal_changes: vec![0.0; steps] };
        let Ok(strategy) = config.build(&inputs) else { return 0 };
        match strategy.preview() {
            Some(plans) => self.delta_memory(&plans, guided),
            None => (strategy.depth() * if guided { 2 } else { 1 } + strategy.probes()) as u64 * self.delta_bytes,
        }
    }

    /// Memory of the deltas that a plan stores, in bytes, from above.
    pub fn delta_memory(&self, plans: &[StepPlan], guided: bool) -> u64 {
        let mut kept: Vec<(usize, &std::ops::Range<usize>, usize)> = Vec::new();
        for plan in plans {
            for (branch, plan) in plan.branches(guided).enumerate() {
                let BranchPlan::Blocks(segments) = plan else { continue };
                for segment in segments {
                    let depth = match &segment.action {
                        Action::Compute => continue,
                        Action::Store => 1,
                        Action::Reuse(forecast) => forecast.depth(),
                    };
                    match kept.iter_mut().find(|(b, run, _)| *b == branch && **run == segment.blocks) {
                        Some((_, _, most)) => *most = depth.max(*most),
                        None => kept.push((branch, &segment.blocks, depth)),
                    }
                }
            }
        }
        kept.iter().map(|(_, _, depth)| *depth as u64 * self.delta_bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caching::{Carry, DiCache, ProfilingDit};

    #[test]
    fn deltas_of_a_plan_are_counted_once_a_run_and_branch() {
        let cost = ForwardCost::even(1.0, 0.0, 4);
        let facts = RequestInfo {
            blocks: 4,
            token_grid: [1; 3],
            delta_bytes: 10,
            sigmas: Vec::new(),
            scheduler: String::new(),
            flow_shift: 1.0,
            model_id: String::new(),
            former_ids: Vec::new(),
            vae_id: String::new(),
            gpu_memory: 0,
            published_tea: PublishedTea::default(),
            cost,
        };
        assert_eq!(facts.delta_memory(&vec![StepPlan::compute(4); 8], true), 0);
        let mut settings = ProfilingDit { blocks: vec![vec![0, 1, 3]], ..Default::default() };
        settings.schedule.warm_up = 2;
        assert_eq!(facts.delta_memory(&settings.plans(20, 4), false), 2 * 10);
        assert_eq!(facts.delta_memory(&settings.plans(20, 4), true), 4 * 10);
        settings.carry = Carry::Extrapolate;
        assert_eq!(facts.delta_memory(&settings.plans(20, 4), true), 8 * 10);
        let rule = StrategyConfig::of(DiCache::default());
        assert_eq!(facts.strategy_memory(&rule, 20, true), (2 * 2 + 4) * 10);
        assert_eq!(facts.strategy_memory(&StrategyConfig::off(), 20, true), 0);
    }
}

//! Room `caching`: what to compute and what to reuse, as plain data. The transformer is given a plan; it knows no strategy.

/// What one block does in one forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockAction {
    /// Compute it.
    Run,
}

/// What every block does in one step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StepPlan {
    /// All blocks run.
    #[default]
    RunAll,
}

impl StepPlan {
    /// The action of each of `count` blocks.
    pub fn blocks(&self, count: usize) -> impl Iterator<Item = BlockAction> {
        let Self::RunAll = self;
        std::iter::repeat_n(BlockAction::Run, count)
    }
}

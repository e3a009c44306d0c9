//! Deltas of runs of blocks, kept on the GPU between steps.

use std::collections::HashMap;
use std::ops::Range;

use super::{CacheError, Forecast};
use crate::gpu::{Stream, Tensor};
use crate::ops::{self, Term};

/// The stored deltas of one branch: for every run of blocks, output minus input (eq. 8 and 9),
/// newest first. Each new delta replaces the oldest kept delta. Deltas are never added up: eq. 10,
/// taken literally, would count them twice.
#[derive(Debug)]
pub struct DeltaStore {
    depth: usize,
    deltas: HashMap<Range<usize>, Vec<Tensor>>,
}

impl DeltaStore {
    /// A store that keeps `depth` deltas of each run: 1 to hold, 2 to extrapolate.
    pub fn new(depth: usize) -> Self {
        Self { depth: depth.max(1), deltas: HashMap::new() }
    }

    /// Runs `work`, which changes `x` in place, and keeps by how much.
    ///
    /// # Errors
    /// The GPU's, or those of `work`.
    pub fn record<E: From<CacheError>>(
        &mut self,
        cx: &mut Stream,
        blocks: Range<usize>,
        x: &Tensor,
        work: impl FnOnce(&mut Stream) -> Result<(), E>,
    ) -> Result<(), E> {
        let before = cx.copy_of(x).map_err(CacheError::from)?;
        work(cx)?;
        Ok(self.keep(cx, blocks, before, x)?)
    }

    /// Keeps `after - before` as the newest delta of a run; `before` is used up.
    ///
    /// # Errors
    /// The GPU's.
    pub fn keep(
        &mut self,
        cx: &mut Stream,
        blocks: Range<usize>,
        before: Tensor,
        after: &Tensor,
    ) -> Result<(), CacheError> {
        ops::subtract_from(cx, after, &before)?;
        let kept = self.deltas.entry(blocks).or_default();
        kept.truncate(self.depth - 1);
        kept.insert(0, before);
        Ok(())
    }

    /// Adds the forecast delta of a run to `x`.
    ///
    /// # Errors
    /// [`CacheError::NothingStored`] where there are fewer deltas than the forecast needs.
    pub fn apply(
        &self,
        cx: &mut Stream,
        blocks: &Range<usize>,
        forecast: &Forecast,
        x: &Tensor,
    ) -> Result<(), CacheError> {
        let kept = self.get(blocks);
        if kept.len() < forecast.depth() || forecast.depth() == 0 {
            return Err(CacheError::NothingStored(format!("{} deltas of blocks {blocks:?}", forecast.depth())));
        }
        let terms: Vec<Term> = kept.iter().zip(&forecast.0).map(|(tensor, &weight)| Term { tensor, weight }).collect();
        Ok(ops::add_scaled(cx, x, &terms)?)
    }

    /// The kept deltas of a run, newest first.
    fn get(&self, blocks: &Range<usize>) -> &[Tensor] {
        self.deltas.get(blocks).map_or(&[], Vec::as_slice)
    }

    /// Bytes that the kept deltas take.
    pub fn bytes(&self) -> u64 {
        self.deltas.values().flatten().map(Tensor::bytes).sum()
    }
}

//! Scores of how well each block's attention coincides with the foreground. A frame of the window
//! computes only a part of them, so that the window never stalls.

use std::time::{Duration, Instant};

use crate::profiling::mask::Mask;
use crate::profiling::score::{FIXED_THRESHOLD, Score, score};

use crate::app::data::runs::Run;
use crate::app::data::selection::MapCell;

/// The longest time for scores in one frame of the window.
const BUDGET: Duration = Duration::from_millis(6);

/// The data that scores were computed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    run: u64,
    uncond: bool,
    mask: MaskKey,
}

/// The mask that scores were computed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct MaskKey {
    run: u64,
    /// Number of estimates of the mask so far.
    estimates: usize,
    /// Version of the painted mask.
    painted: u64,
}

impl Key {
    fn of(run: &Run, masked: &Run, uncond: bool) -> Self {
        let estimates = masked.capture.masks.len();
        Self { run: run.id, uncond, mask: MaskKey { run: masked.id, estimates, painted: masked.mask_version } }
    }
}

/// The run whose mask scores a baseline. If the user painted the mask of the current run, that mask
/// scores both.
pub fn masked<'a>(baseline: &'a Run, current: &'a Run) -> &'a Run {
    let same_grid = current.capture.run.token_grid == baseline.capture.run.token_grid;
    if current.painted.is_some() && same_grid { current } else { baseline }
}

/// Scores of a run's blocks against a mask.
#[derive(Clone, Debug, Default)]
pub struct Scores {
    of: Option<Key>,
    mask: Option<Mask>,
    /// One score a block, steps slowest, for the steps that are done.
    scores: Vec<Option<Score>>,
}

impl Scores {
    /// Computes scores of `run` against the mask of `masked` (usually the same run) for a while.
    /// Returns whether there is more to do.
    pub fn advance(&mut self, run: &Run, masked: &Run, uncond: bool) -> bool {
        let capture = &run.capture;
        let key = Key::of(run, masked, uncond);
        if self.of != Some(key) {
            let mask = masked.mask().and_then(|bits| Mask::new(capture.run.token_grid, bits.to_vec()).ok());
            *self = Self { of: Some(key), mask, scores: Vec::new() };
        }
        let Some(mask) = &self.mask else { return false };
        let blocks = capture.run.blocks;
        let start = Instant::now();
        while self.scores.len() < capture.steps.len() * blocks {
            if start.elapsed() > BUDGET {
                return true;
            }
            let record = &capture.steps[self.scores.len() / blocks];
            let received =
                record.branch(uncond).get(self.scores.len() % blocks).and_then(|block| block.received.as_deref());
            self.scores.push(received.and_then(|received| score(received, mask, FIXED_THRESHOLD)));
        }
        false
    }

    /// The score of a cell of `run` against the mask of `masked`, if it is known.
    pub fn get(&self, run: &Run, masked: &Run, uncond: bool, MapCell { step, block }: MapCell) -> Option<&Score> {
        self.of.filter(|of| *of == Key::of(run, masked, uncond))?;
        let index = run.capture.steps.iter().position(|record| record.step == step)?;
        self.scores.get(index * run.capture.run.blocks + block)?.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::data::runs::Runs;
    use crate::app::tests::sample;

    #[test]
    fn blocks_that_look_at_the_foreground_score_higher() {
        let mut runs = Runs::default();
        runs.add(sample::capture(sample::Kind::Off), false, None);
        let run = runs.current().unwrap();
        let mut scores = Scores::default();
        while scores.advance(run, run, false) {}
        let lift = |block| scores.get(run, run, false, MapCell { step: 12, block }).unwrap().lift;
        assert!(lift(6) > lift(3) && lift(3) > lift(7), "{} {} {}", lift(6), lift(3), lift(7));
        assert!(
            scores.get(run, run, true, MapCell { step: 12, block: 6 }).is_none()
                && scores.get(run, run, false, MapCell { step: 99, block: 6 }).is_none()
        );
        while scores.advance(run, run, true) {}
        assert!(scores.get(run, run, true, MapCell { step: 12, block: 6 }).is_some());
    }

    #[test]
    fn a_painted_mask_gives_other_scores() {
        let mut runs = Runs::default();
        let id = runs.add(sample::capture(sample::Kind::Off), false, None);
        let estimated: Vec<bool> = runs.current().unwrap().mask().unwrap().to_vec();
        let lift = |runs: &Runs, scores: &mut Scores| {
            let run = runs.current().unwrap();
            while scores.advance(run, run, false) {}
            scores.get(run, run, false, MapCell { step: 12, block: 6 }).map(|score| score.lift)
        };
        let mut scores = Scores::default();
        let before = lift(&runs, &mut scores).unwrap();
        runs.paint(id, Some(estimated.iter().map(|bit| !bit).collect()));
        // The scores of the other mask are not returned.
        let run = runs.current().unwrap();
        assert!(scores.get(run, run, false, MapCell { step: 12, block: 6 }).is_none());
        let inverted = lift(&runs, &mut scores).unwrap();
        assert!(before > 1.0 && inverted < 1.0, "{before} {inverted}");
        // An empty mask has no scores. Without a painted mask the estimate counts again.
        runs.paint(id, Some(vec![false; estimated.len()]));
        assert_eq!(lift(&runs, &mut scores), None);
        runs.paint(id, None);
        assert_eq!(lift(&runs, &mut scores), Some(before));
    }
}

//! How well each block's attention coincides with the foreground, worked out a little a frame so that the window never stalls.

use std::time::{Duration, Instant};

use crate::profiling::mask::Mask;
use crate::profiling::score::{FIXED_THRESHOLD, Score, score};

use super::runs::Run;

/// Longest time spent on scores in one frame of the window.
const BUDGET: Duration = Duration::from_millis(6);

/// Scores of a run's blocks against its newest mask.
#[derive(Clone, Debug, Default)]
pub struct Scores {
    /// The run, its masks, and the branch that the scores are of.
    of: Option<(u64, usize, bool)>,
    mask: Option<Mask>,
    /// One a block, steps slowest; of the steps that are done.
    scores: Vec<Option<Score>>,
}

impl Scores {
    /// Goes on for a while; whether there is more to do.
    pub fn advance(&mut self, run: &Run, uncond: bool) -> bool {
        let capture = &run.capture;
        let key = (run.id, capture.masks.len(), uncond);
        if self.of != Some(key) {
            let mask = capture.masks.last();
            let mask = mask.and_then(|mask| Mask::new(capture.run.token_grid, mask.tokens.clone()).ok());
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
            let branch = if uncond { &record.uncond } else { &record.cond };
            let received = branch.get(self.scores.len() % blocks).and_then(|block| block.received.as_deref());
            self.scores.push(received.and_then(|received| score(received, mask, FIXED_THRESHOLD)));
        }
        false
    }

    /// The score of a block on the step recorded as number `index`, where it is known.
    pub fn get(&self, run: &Run, uncond: bool, index: usize, block: usize) -> Option<&Score> {
        let of = (run.id, run.capture.masks.len(), uncond);
        let at = index * run.capture.run.blocks + block;
        if self.of == Some(of) { self.scores.get(at)?.as_ref() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{runs::Runs, sample};

    #[test]
    fn blocks_that_look_at_the_foreground_score_higher() {
        let mut runs = Runs::default();
        runs.add(sample::capture(sample::Kind::Off), false, None);
        let run = runs.current().unwrap();
        let mut scores = Scores::default();
        while scores.advance(run, false) {}
        let lift = |block| scores.get(run, false, 12, block).unwrap().lift;
        assert!(lift(6) > lift(3) && lift(3) > lift(7), "{} {} {}", lift(6), lift(3), lift(7));
        assert!(scores.get(run, true, 12, 6).is_none() && scores.get(run, false, 99, 6).is_none());
        assert!(!scores.advance(run, true));
    }
}

//! Compares a map of received attention with a foreground mask (ProfilingDiT, eq. 6).

use super::mask::Mask;

/// How well the tokens that a block attends to agree with the foreground. Every value is a mean
/// over frames.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Recall of the |fg| tokens that receive most, where |fg| is the number of foreground tokens:
    /// the share of the foreground that is among them, 0 to 1. This is R_attn of eq. 6 with a
    /// threshold at which recall equals precision.
    pub recall: f64,
    /// Precision of the same tokens: the share of them that is foreground, 0 to 1.
    pub precision: f64,
    /// `precision` divided by the foreground's share of the frame. 1 is chance.
    pub lift: f64,
    /// Probability that a foreground token receives more than a background token. 0.5 is chance.
    pub auc: f64,
    /// Recall of the tokens that receive more than a fixed threshold, as in the paper.
    pub recall_fixed: f64,
    /// Precision of the tokens that receive more than the fixed threshold. `None` if no frame has
    /// such a token.
    pub precision_fixed: Option<f64>,
}

/// The fixed threshold of [`Score::recall_fixed`]. It is the mean, which is 1, because the paper
/// does not print its threshold.
pub const FIXED_THRESHOLD: f64 = 1.0;

/// Scores `received`, one value for each token, against a mask of the same tokens, frame by frame.
///
/// A frame without foreground or without background is left out, because it cannot be scored.
/// `None` if no frame is left, if the sizes differ, or if a value is not finite.
pub fn score(received: &[f32], mask: &Mask, threshold: f64) -> Option<Score> {
    let [_, height, width] = mask.grid();
    if received.len() != mask.bits().len() || received.iter().any(|value| !value.is_finite()) {
        return None;
    }
    let frame = (height * width).max(1);
    let frames = received.chunks_exact(frame).zip(mask.bits().chunks_exact(frame));
    let scores: Vec<Score> = frames.filter_map(|(received, bits)| score_frame(received, bits, threshold)).collect();
    let mean = |value: fn(&Score) -> f64| scores.iter().map(value).sum::<f64>() / scores.len() as f64;
    let fixed: Vec<f64> = scores.iter().filter_map(|score| score.precision_fixed).collect();
    (!scores.is_empty()).then(|| Score {
        recall: mean(|s| s.recall),
        precision: mean(|s| s.precision),
        lift: mean(|s| s.lift),
        auc: mean(|s| s.auc),
        recall_fixed: mean(|s| s.recall_fixed),
        precision_fixed: (!fixed.is_empty()).then(|| fixed.iter().sum::<f64>() / fixed.len() as f64),
    })
}

/// Scores one frame. If several tokens with equal values lie at the cut, each counts with the same
/// fraction, because their order has no meaning.
fn score_frame(received: &[f32], bits: &[bool], threshold: f64) -> Option<Score> {
    let all = received.len() as f64;
    let foreground = bits.iter().filter(|bit| **bit).count();
    let (fg, bg) = (foreground as f64, all - foreground as f64);
    if foreground == 0 || foreground == received.len() {
        return None;
    }
    let mut order: Vec<usize> = (0..received.len()).collect();
    order.sort_by(|a, b| received[*b].total_cmp(&received[*a]));
    let (mut taken, mut hits, mut wins, mut below) = (0.0, 0.0, 0.0, bg);
    for run in order.chunk_by(|a, b| received[*a] == received[*b]) {
        let run_fg = run.iter().filter(|token| bits[**token]).count() as f64;
        let run_bg = run.len() as f64 - run_fg;
        let room = (fg - taken).clamp(0.0, run.len() as f64);
        hits += run_fg * room / run.len() as f64;
        taken += room;
        below -= run_bg;
        wins += run_fg * (below + run_bg / 2.0);
    }
    let above = |fg: bool| {
        let counted = received.iter().zip(bits).filter(|(a, bit)| f64::from(**a) > threshold && **bit == fg);
        counted.count() as f64
    };
    let (fixed_fg, fixed_bg) = (above(true), above(false));
    let precision = hits / taken;
    Some(Score {
        recall: hits / fg,
        precision,
        lift: precision * all / fg,
        auc: wins / (fg * bg),
        recall_fixed: fixed_fg / fg,
        precision_fixed: (fixed_fg + fixed_bg > 0.0).then(|| fixed_fg / (fixed_fg + fixed_bg)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::random;

    fn mask(grid: [usize; 3], bits: &[u8]) -> Mask {
        Mask::new(grid, bits.iter().map(|bit| *bit == 1).collect()).unwrap()
    }

    #[test]
    fn a_worked_example() {
        // The two best tokens are 0 and 2, of which 0 is foreground. Of the 4 pairs (fg, bg), 3 are
        // in order: 0>2, 0>3 and 1>3.
        let mask = mask([1, 2, 2], &[1, 1, 0, 0]);
        let score = score(&[3.0, 1.2, 2.0, 0.1], &mask, 1.0).unwrap();
        assert_eq!((score.recall, score.precision, score.lift, score.auc), (0.5, 0.5, 1.0, 0.75));
        assert_eq!((score.recall_fixed, score.precision_fixed), (1.0, Some(2.0 / 3.0)));
    }

    #[test]
    fn the_mask_itself_is_perfect_and_its_opposite_the_worst() {
        let mask = mask([2, 1, 4], &[1, 0, 0, 0, 0, 1, 1, 0]);
        let best: Vec<f32> = mask.bits().iter().map(|bit| f32::from(u8::from(*bit)) * 2.0).collect();
        let worst: Vec<f32> = best.iter().map(|a| 2.0 - a).collect();
        let best = score(&best, &mask, 1.0).unwrap();
        assert_eq!((best.recall, best.precision, best.auc, best.lift), (1.0, 1.0, 1.0, 3.0)); // (4 + 2) / 2
        let worst = score(&worst, &mask, 1.0).unwrap();
        assert_eq!((worst.recall, worst.precision, worst.auc, worst.lift), (0.0, 0.0, 0.0, 0.0));
    }

    #[test]
    fn equal_values_are_chance() {
        let mask = mask([1, 1, 4], &[1, 0, 0, 0]);
        let flat = score(&[1.0; 4], &mask, 1.0).unwrap();
        assert_eq!((flat.recall, flat.lift, flat.auc), (0.25, 1.0, 0.5));
        assert_eq!((flat.recall_fixed, flat.precision_fixed), (0.0, None));
        let noise = random(3, 10_000);
        let bits: Vec<bool> = random(4, 10_000).iter().map(|x| *x > 0.4).collect();
        let noise = score(&noise, &Mask::new([1, 100, 100], bits).unwrap(), 1.0).unwrap();
        assert!((noise.auc - 0.5).abs() < 0.02 && (noise.lift - 1.0).abs() < 0.05, "{noise:?}");
    }

    #[test]
    fn frames_that_say_nothing_are_left_out() {
        let some = mask([3, 1, 2], &[0, 0, 1, 0, 1, 1]);
        assert_eq!(score(&[9.0, 9.0, 2.0, 1.0, 0.0, 0.0], &some, 1.0).unwrap().recall, 1.0);
        for bits in [[0, 0], [1, 1]] {
            assert_eq!(score(&[1.0, 2.0], &mask([1, 1, 2], &bits), 1.0), None);
        }
        let half = mask([1, 1, 2], &[1, 0]);
        assert_eq!(score(&[1.0], &half, 1.0), None);
        assert_eq!(score(&[1.0, f32::NAN], &half, 1.0), None);
    }
}

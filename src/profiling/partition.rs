//! Foreground and background blocks (ProfilingDiT, eq. 7).

use serde::{Deserialize, Serialize};

use super::ProfilingError;
use super::statistics::otsu;

/// The rule that gives the threshold tau between the classes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TauRule {
    /// Otsu's threshold over the blocks' scores.
    #[default]
    Otsu,
    /// The score below which this share of the blocks lies, 0 to 1.
    Quantile(f64),
    /// The given number.
    Value(f64),
    /// The background is this number of blocks with the lowest scores.
    Lowest(usize),
    /// There is no threshold, because a person chose the lists.
    ByHand,
}

/// The blocks of a model in two classes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Partition {
    /// The rule of the threshold.
    pub rule: TauRule,
    /// The threshold. A block is foreground if its score is at least the threshold. 0 for lists
    /// that were chosen by hand.
    pub tau: f64,
    /// Blocks that attend to the foreground, ascending.
    pub foreground: Vec<usize>,
    /// All other blocks, ascending. ProfilingDiT caches these blocks.
    pub background: Vec<usize>,
}

impl Partition {
    /// Partitions blocks by their mean scores.
    ///
    /// With [`TauRule::Lowest`], the deeper of several blocks with equal scores stay foreground. If
    /// all scores are equal, [`TauRule::Otsu`] puts all blocks into the foreground, because no
    /// block is better to cache than another.
    ///
    /// # Errors
    /// [`ProfilingError::Invalid`] without blocks, for a score that is not finite, for a rule whose
    /// number is out of range, and for [`TauRule::ByHand`], which cannot partition scores.
    pub fn new(scores: &[f64], rule: TauRule) -> Result<Self, ProfilingError> {
        let invalid = |what: String| Err(ProfilingError::Invalid(what));
        if scores.is_empty() || scores.iter().any(|score| !score.is_finite()) {
            return invalid(format!("{} block scores, all of which must be finite", scores.len()));
        }
        let mut sorted = scores.to_vec();
        sorted.sort_by(f64::total_cmp);
        let least_of = |count: usize| match sorted.get(count) {
            Some(score) => *score,
            None => sorted[sorted.len() - 1].next_up(),
        };
        let tau = match rule {
            TauRule::Otsu => otsu(scores).map_or(sorted[0], |cut| cut.threshold),
            TauRule::Quantile(share) if (0.0..=1.0).contains(&share) => {
                least_of((share * scores.len() as f64).round() as usize)
            }
            TauRule::Value(tau) if tau.is_finite() => tau,
            TauRule::Lowest(count) if count <= scores.len() => least_of(count),
            _ => return invalid(format!("tau by {rule:?} of {} blocks", scores.len())),
        };
        let mut foreground: Vec<bool> = scores.iter().map(|score| *score >= tau).collect();
        if let TauRule::Lowest(count) = rule {
            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|a, b| scores[*a].total_cmp(&scores[*b]));
            order.iter().enumerate().for_each(|(rank, block)| foreground[*block] = rank >= count);
        }
        let of = |class: bool| (0..scores.len()).filter(|block| foreground[*block] == class).collect();
        Ok(Self { rule, tau, foreground: of(true), background: of(false) })
    }

    /// The partition of `blocks` blocks with the given background. All other blocks are foreground.
    ///
    /// # Errors
    /// [`ProfilingError::Invalid`] for a block that the model does not have or that is named twice.
    pub fn by_hand(mut background: Vec<usize>, blocks: usize) -> Result<Self, ProfilingError> {
        background.sort_unstable();
        let foreground = (0..blocks).filter(|block| !background.contains(block)).collect();
        let parted = Self { rule: TauRule::ByHand, tau: 0.0, foreground, background };
        parted.check(blocks)?;
        Ok(parted)
    }

    /// Checks that each of `blocks` blocks is in exactly one class, that both lists ascend, and
    /// that tau is finite.
    ///
    /// # Errors
    /// [`ProfilingError::Invalid`] otherwise.
    pub fn check(&self, blocks: usize) -> Result<(), ProfilingError> {
        let ascends = |list: &[usize]| list.windows(2).all(|pair| pair[0] < pair[1]);
        let mut seen = vec![0u8; blocks];
        for block in self.foreground.iter().chain(&self.background) {
            match seen.get_mut(*block) {
                Some(count) => *count = count.saturating_add(1),
                None => {
                    return Err(ProfilingError::Invalid(format!(
                        "block {block} of a model with {blocks} is in the partition"
                    )));
                }
            }
        }
        if let Some(block) = seen.iter().position(|count| *count != 1) {
            let classes = seen[block];
            return Err(ProfilingError::Invalid(format!(
                "block {block} is in {classes} classes of the partition, not in one"
            )));
        }
        if !ascends(&self.foreground) || !ascends(&self.background) || !self.tau.is_finite() {
            return Err(ProfilingError::Invalid("the partition's lists must ascend and its tau be finite".into()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SCORES: [f64; 5] = [1.4, 0.8, 0.9, 1.5, 0.8];

    #[test]
    fn every_rule_parts_as_it_says() {
        let background = |rule| Partition::new(&SCORES, rule).unwrap().background;
        assert_eq!(background(TauRule::Otsu), [1, 2, 4]);
        assert_eq!(background(TauRule::Value(0.9)), [1, 4]);
        assert_eq!(background(TauRule::Quantile(0.4)), [1, 4]);
        assert_eq!(background(TauRule::Quantile(0.0)), [0; 0]);
        assert_eq!(background(TauRule::Quantile(1.0)), [0, 1, 2, 3, 4]);
        for (count, want) in [(0, vec![]), (1, vec![1]), (3, vec![1, 2, 4]), (5, vec![0, 1, 2, 3, 4])] {
            assert_eq!(background(TauRule::Lowest(count)), want);
        }
    }

    #[test]
    fn equal_scores_and_wrong_numbers() {
        assert_eq!(Partition::new(&[1.0; 3], TauRule::Otsu).unwrap().foreground, [0, 1, 2]);
        let wrong =
            [TauRule::Quantile(1.1), TauRule::Quantile(f64::NAN), TauRule::Value(f64::INFINITY), TauRule::Lowest(6)];
        for rule in wrong {
            assert!(Partition::new(&SCORES, rule).is_err(), "{rule:?}");
        }
        assert!(Partition::new(&[], TauRule::Otsu).is_err());
        assert!(Partition::new(&[1.0, f64::NAN], TauRule::Otsu).is_err());
    }

    #[test]
    fn a_partition_holds_every_block_once() {
        let right = Partition { rule: TauRule::Otsu, tau: 1.0, foreground: vec![0, 2], background: vec![1] };
        right.check(3).unwrap();
        assert!(right.check(4).is_err() && right.check(2).is_err());
        assert!(Partition { background: vec![1, 2], ..right.clone() }.check(3).is_err());
        assert!(Partition { foreground: vec![2, 0], ..right.clone() }.check(3).is_err());
        assert!(Partition { tau: f64::NAN, ..right }.check(3).is_err());
        assert_eq!(Partition::by_hand(vec![2, 0], 4).unwrap().foreground, [1, 3]);
        assert!(Partition::by_hand(vec![4], 4).is_err() && Partition::by_hand(vec![1, 1], 4).is_err());
    }

    proptest! {
        #[test]
        fn every_partition_is_one(scores in proptest::collection::vec(-1e9..1e9f64, 1..60), share in 0.0..=1.0f64) {
            let count = (share * scores.len() as f64) as usize;
            for rule in [TauRule::Otsu, TauRule::Quantile(share), TauRule::Value(share), TauRule::Lowest(count)] {
                Partition::new(&scores, rule).unwrap().check(scores.len()).unwrap();
            }
        }
    }
}

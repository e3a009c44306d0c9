//! The agreement of rankings and lists across steps, prompts, seeds and branches.

use std::collections::BTreeSet;

/// The ranks of the values, from 1. Equal values share the mean of their ranks.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut first = 0;
    for run in order.chunk_by(|a, b| values[*a] == values[*b]) {
        let rank = first as f64 + (run.len() + 1) as f64 / 2.0;
        run.iter().for_each(|i| ranks[*i] = rank);
        first += run.len();
    }
    ranks
}

fn comparable(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.len() > 1 && a.iter().chain(b).all(|value| value.is_finite())
}

/// Spearman's rank correlation, -1 to 1: Pearson's correlation of the ranks.
///
/// `None` for lists of different lengths or of fewer than two values, for values that are not
/// finite, and for a list of equal values, which has no ranking.
pub fn spearman(a: &[f64], b: &[f64]) -> Option<f64> {
    if !comparable(a, b) {
        return None;
    }
    let (a, b) = (ranks(a), ranks(b));
    let mean = (a.len() + 1) as f64 / 2.0;
    let moment = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| (x - mean) * (y - mean)).sum::<f64>();
    let size = (moment(&a, &a) * moment(&b, &b)).sqrt();
    (size > 0.0).then(|| (moment(&a, &b) / size).clamp(-1.0, 1.0))
}

/// Kendall's tau-b, -1 to 1: the number of pairs in the same order minus the number of pairs in
/// opposite order, divided by the number of pairs that are not tied.
///
/// The time is quadratic in the number of values, which suits blocks but not tokens. `None` in the
/// same cases as [`spearman`].
pub fn kendall(a: &[f64], b: &[f64]) -> Option<f64> {
    if !comparable(a, b) {
        return None;
    }
    let (mut agreement, mut pairs_a, mut pairs_b) = (0.0, 0.0, 0.0);
    let order = |x: f64, y: f64| if x == y { 0.0 } else { (x - y).signum() };
    for i in 0..a.len() {
        for j in 0..i {
            let (in_a, in_b) = (order(a[i], a[j]), order(b[i], b[j]));
            agreement += in_a * in_b;
            pairs_a += in_a * in_a;
            pairs_b += in_b * in_b;
        }
    }
    let size = f64::sqrt(pairs_a * pairs_b);
    (size > 0.0).then(|| agreement / size)
}

/// The size of the intersection of two lists divided by the size of their union. 1 for two empty
/// lists.
pub fn jaccard(a: &[usize], b: &[usize]) -> f64 {
    let (a, b): (BTreeSet<_>, BTreeSet<_>) = (a.iter().collect(), b.iter().collect());
    let union = a.union(&b).count();
    if union == 0 { 1.0 } else { a.intersection(&b).count() as f64 / union as f64 }
}

/// The mean of `measure` over all pairs of `items`. Pairs for which `measure` returns `None` are
/// left out. `None` if no pair is left.
pub fn pairwise<T>(items: &[T], measure: impl Fn(&T, &T) -> Option<f64>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0);
    for (i, a) in items.iter().enumerate() {
        for value in items[..i].iter().filter_map(|b| measure(a, b)) {
            sum += value;
            count += 1;
        }
    }
    (count > 0).then(|| sum / f64::from(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rank_correlations_match_worked_examples() {
        let (a, b) = ([1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 1.0, 4.0, 3.0, 5.0]);
        // The values are 1 - 6 * 4 / (5 * 24) and (8 - 2) / 10.
        assert!((spearman(&a, &b).unwrap() - 0.8).abs() < 1e-12);
        assert!((kendall(&a, &b).unwrap() - 0.6).abs() < 1e-12);
        // For these lists with ties, scipy.stats.spearmanr and kendalltau give 0.94868 and 0.91287.
        let (a, b) = ([1.0, 2.0, 2.0, 3.0], [10.0, 20.0, 30.0, 40.0]);
        assert!((spearman(&a, &b).unwrap() - 0.948_683).abs() < 1e-6);
        assert!((kendall(&a, &b).unwrap() - 0.912_871).abs() < 1e-6);
    }

    #[test]
    fn extremes_and_refusals() {
        let (up, down) = ([1.0, 5.0, 7.0], [0.3, 0.2, 0.1]);
        assert_eq!((spearman(&up, &down), kendall(&up, &down)), (Some(-1.0), Some(-1.0)));
        assert_eq!((spearman(&up, &up), kendall(&up, &up)), (Some(1.0), Some(1.0)));
        for (a, b) in [(&up[..], &[1.0, 1.0, 1.0][..]), (&up, &up[..2]), (&[], &[]), (&up, &[1.0, f64::NAN, 2.0])] {
            assert_eq!((spearman(a, b), kendall(a, b)), (None, None));
        }
    }

    #[test]
    fn lists_are_compared_as_sets() {
        assert_eq!(jaccard(&[1, 2, 3], &[3, 2, 2, 4]), 0.5);
        assert_eq!(jaccard(&[], &[]), 1.0);
        assert_eq!(jaccard(&[1], &[]), 0.0);
        assert_eq!(pairwise(&[1, 2, 4], |a, b| Some(f64::from(a - b))), Some(2.0));
        assert_eq!(pairwise(&[1], |_, _| Some(1.0)), None);
    }
}

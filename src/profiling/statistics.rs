//! Statistics that masks, partitions and scores share.

/// A threshold that separates values into two classes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    /// The threshold, half-way between two neighbouring values.
    pub(super) threshold: f64,
    /// The variance between the classes divided by the whole variance, 0 to 1.
    pub(super) separation: f64,
}

/// Otsu's threshold (Otsu 1979): the cut between two sorted values for which the variance between
/// the classes is largest. The function uses the values themselves instead of a histogram, so the
/// result is exact.
///
/// `None` if all values are equal or one is not finite.
pub(super) fn otsu(values: &[f64]) -> Option<Cut> {
    if values.iter().any(|value| !value.is_finite()) {
        return None;
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len() as f64;
    let mean = sorted.iter().sum::<f64>() / n;
    let variance = sorted.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n;
    let (mut below, mut best) = (0.0, None::<(f64, f64)>);
    for (i, pair) in sorted.windows(2).enumerate() {
        below += pair[0] - mean;
        if pair[0] < pair[1] {
            let share = (i + 1) as f64 / n;
            let between = (below / n).powi(2) / (share * (1.0 - share));
            if best.is_none_or(|(_, most)| between > most) {
                // The sum of both halves cannot overflow; (a + b) / 2 could.
                best = Some((pair[0] / 2.0 + pair[1] / 2.0, between));
            }
        }
    }
    best.filter(|_| variance > 0.0 && variance.is_finite())
        .map(|(threshold, between)| Cut { threshold, separation: (between / variance).clamp(0.0, 1.0) })
}

/// How much a [`Cut::separation`] exceeds the separation of a normal distribution, 0 to 1. A normal
/// distribution has no classes, but cutting it in the middle still gives a separation of 2/pi.
pub(super) fn beyond_normal(separation: f64) -> f64 {
    let normal = std::f64::consts::FRAC_2_PI;
    ((separation - normal) / (1.0 - normal)).clamp(0.0, 1.0)
}

/// Smooths each frame of `map`, `[frames, height, width]`, with the kernel 1 2 1 in both
/// directions. Values at the edges are repeated.
pub(super) fn smooth(map: &[f64], [frames, height, width]: [usize; 3]) -> Vec<f64> {
    let pass = |from: &[f64], at: &dyn Fn(usize, usize, isize) -> usize| {
        let mut to = Vec::with_capacity(from.len());
        for frame in from.chunks_exact((height * width).max(1)).take(frames) {
            for y in 0..height {
                for x in 0..width {
                    let near = |step| frame[at(y, x, step)];
                    to.push(near(-1) / 4.0 + near(0) / 2.0 + near(1) / 4.0);
                }
            }
        }
        to
    };
    let step = |i: usize, by: isize, n: usize| i.saturating_add_signed(by).min(n - 1);
    let rows = pass(map, &|y, x, by| y * width + step(x, by, width));
    pass(&rows, &|y, x, by| step(y, by, height) * width + x)
}

/// Mean and standard deviation (with the divisor n) of the values. `None` without values, and if a
/// value is not finite.
pub(super) fn mean_and_spread(values: impl Iterator<Item = f64> + Clone) -> Option<(f64, f64)> {
    let n = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / n;
    let spread = (values.map(|value| (value - mean).powi(2)).sum::<f64>() / n).sqrt();
    (n > 0.0 && mean.is_finite() && spread.is_finite()).then_some((mean, spread))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::random;

    #[test]
    fn otsu_finds_the_gap_and_says_how_wide_it_is() {
        let Cut { threshold, separation } = otsu(&[1.0, 1.1, 0.9, 5.0, 5.2]).unwrap();
        assert!((1.1..5.0).contains(&threshold) && separation > 0.98, "{threshold} {separation}");
        for none in [&[][..], &[2.0], &[2.0, 2.0, 2.0], &[1.0, f64::NAN], &[1.0, f64::INFINITY]] {
            assert!(otsu(none).is_none(), "{none:?}");
        }
    }

    /// The definition of the threshold tries every cut.
    #[test]
    fn otsu_agrees_with_trying_every_cut() {
        for seed in 0..20 {
            let values: Vec<f64> = random(seed, 30).iter().map(|x| f64::from((x * 8.0).round())).collect();
            let Cut { threshold, separation } = otsu(&values).unwrap();
            let within = |cut: f64| {
                let (low, high): (Vec<f64>, Vec<f64>) = values.iter().partition(|value| **value < cut);
                let squares = |class: &[f64]| {
                    let mean = class.iter().sum::<f64>() / class.len().max(1) as f64;
                    class.iter().map(|value| (value - mean).powi(2)).sum::<f64>()
                };
                squares(&low) + squares(&high)
            };
            let best = values.iter().map(|cut| within(*cut)).fold(f64::MAX, f64::min);
            assert!((within(threshold) - best).abs() < 1e-9, "seed {seed}");
            let all = within(f64::MIN);
            assert!((separation - (1.0 - best / all)).abs() < 1e-9, "seed {seed}");
        }
    }

    #[test]
    fn a_normal_distribution_has_no_classes() {
        // Sums of twelve uniform values.
        let values: Vec<f64> = random(1, 12_000).chunks(12).map(|c| c.iter().map(|x| f64::from(*x)).sum()).collect();
        let separation = otsu(&values).unwrap().separation;
        assert!(beyond_normal(separation) < 0.1, "{separation}");
        assert_eq!((beyond_normal(0.0), beyond_normal(1.0)), (0.0, 1.0));
    }

    #[test]
    fn smoothing_keeps_constants_and_spreads_a_point() {
        assert_eq!(smooth(&[3.0; 24], [2, 3, 4]), [3.0; 24]);
        let mut point = vec![0.0; 25];
        point[12] = 16.0;
        let smoothed = smooth(&point, [1, 5, 5]);
        assert_eq!(smoothed[6..9], [1.0, 2.0, 1.0]);
        assert_eq!(smoothed[11..14], [2.0, 4.0, 2.0]);
        assert_eq!(smoothed.iter().sum::<f64>(), 16.0);
    }
}

//! Inner products of residuals at noise levels where they were not measured.
//!
//! Residuals at nearby noise levels are alike in a known way (a Matern kernel of order 5/2 over the
//! logarithm of the signal-to-noise ratio). It says how a residual follows from the measured ones,
//! and what it adds; the measurements say what these are. Of all tables that agree with the
//! measurements, the completed one is nearest to the kernel's (a step of iterative proportional
//! fitting for a Gaussian). A mixture of the two neighbours would leave out what a residual adds,
//! so that forecasts would look exact.

/// Part of the kernel that all noise levels share.
const SHARED: f64 = 0.9;
/// Length of the kernel, in units of the logarithm. Both numbers fit the demo model's measured
/// correlations best.
const LENGTH: f64 = 1.17;
/// Part of a residual that nothing else tells of, relative to its square. It keeps the equations
/// solvable.
const OWN: f64 = 1e-5;
/// Ridge of the equations, relative to the squares: a measured table may have dependent rows.
const RIDGE: f64 = 1e-9;
/// Noise levels that differ by less are the same step.
pub(super) const SAME_LEVEL: f64 = 1e-7;

/// Inner products of the residuals at `levels`, from those at `measured` levels. Measured pairs
/// stay as they are. `None` where the equations cannot be solved.
pub(super) fn completed_at(levels: &[f64], tables: &[(&[f64], &[Vec<f64>])]) -> Option<Vec<Vec<f64>>> {
    let mut all = levels.to_vec();
    let mut place = |level: &f64| {
        all.iter().position(|known| (known - level).abs() <= SAME_LEVEL).unwrap_or_else(|| {
            all.push(*level);
            all.len() - 1
        })
    };
    let places: Vec<Vec<usize>> =
        tables.iter().map(|(measured, _)| measured.iter().map(&mut place).collect()).collect();
    let mut table = kernel(&all);
    for (places, (_, gram)) in places.iter().zip(tables) {
        table = completed(&table, places, gram)?;
    }
    table.truncate(levels.len());
    table.iter_mut().for_each(|row| row.truncate(levels.len()));
    Some(table)
}

/// How alike residuals at these noise levels are.
fn kernel(levels: &[f64]) -> Vec<Vec<f64>> {
    /// Beyond these signal-to-noise ratios nothing changes.
    const BOUND: f64 = 1e-3;
    let places: Vec<f64> = levels.iter().map(|level| ((1.0 - level).max(BOUND) / level.max(BOUND)).ln()).collect();
    let alike = |i: usize, j: usize| {
        let d = 5f64.sqrt() * (places[i] - places[j]).abs() / LENGTH;
        let matern = (1.0 + d + d * d / 3.0) * (-d).exp();
        SHARED + (1.0 - SHARED) * matern + if i == j { OWN } else { 0.0 }
    };
    (0..levels.len()).map(|i| (0..levels.len()).map(|j| alike(i, j)).collect()).collect()
}

/// The table nearest to `table` whose entries at `places` are `measured`. With `W` the regression
/// on the places by `table`, this is `W measured W' + (table - W table_of_places W')`, where the
/// second part is brought to the size of what was measured. `None` where the equations cannot be
/// solved.
fn completed(table: &[Vec<f64>], places: &[usize], measured: &[Vec<f64>]) -> Option<Vec<Vec<f64>>> {
    let all = table.len();
    let entry = |i: &usize, j: &usize| table[*i][*j] * if i == j { 1.0 + RIDGE } else { 1.0 };
    let factor = cholesky(places.iter().map(|i| places.iter().map(|j| entry(i, j)).collect()).collect())?;
    // Rows of W: the weights of the places for each step.
    let weights: Vec<Vec<f64>> = (0..all)
        .map(|step| match places.iter().position(|place| *place == step) {
            Some(own) => (0..places.len()).map(|i| if i == own { 1.0 } else { 0.0 }).collect(),
            None => solve(&factor, places.iter().map(|place| table[*place][step]).collect()),
        })
        .collect();
    // tr(table_of_places^-1 measured) / places: the size of what was measured in units of `table`.
    let columns = (0..places.len()).map(|i| solve(&factor, measured.iter().map(|row| row[i]).collect())[i]);
    let scale = columns.sum::<f64>() / places.len() as f64;
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let carried: Vec<Vec<f64>> = weights.iter().map(|w| measured.iter().map(|row| dot(w, row)).collect()).collect();
    let of_places: Vec<Vec<f64>> =
        (0..all).map(|step| places.iter().map(|place| table[*place][step]).collect()).collect();
    let mut result = vec![vec![0.0; all]; all];
    for i in 0..all {
        for j in 0..=i {
            let own = if places.contains(&i) || places.contains(&j) {
                0.0
            } else {
                table[i][j] - dot(&weights[i], &of_places[j])
            };
            let value = dot(&carried[i], &weights[j]) + scale * own;
            (result[i][j], result[j][i]) = (value, value);
        }
    }
    Some(result)
}

/// The lower factor of a symmetric positive definite matrix; `None` for others.
fn cholesky(mut rows: Vec<Vec<f64>>) -> Option<Vec<Vec<f64>>> {
    for i in 0..rows.len() {
        for j in 0..=i {
            let sum = rows[i][j] - (0..j).map(|k| rows[i][k] * rows[j][k]).sum::<f64>();
            rows[i][j] = if i == j { Some(sum.sqrt()).filter(|root| *root > 0.0)? } else { sum / rows[j][j] };
        }
    }
    Some(rows)
}

/// Solves the equations of a factored matrix.
fn solve(factor: &[Vec<f64>], mut values: Vec<f64>) -> Vec<f64> {
    for i in 0..values.len() {
        let sum = values[i] - (0..i).map(|k| factor[i][k] * values[k]).sum::<f64>();
        values[i] = sum / factor[i][i];
    }
    for i in (0..values.len()).rev() {
        let sum = values[i] - (i + 1..values.len()).map(|k| factor[k][i] * values[k]).sum::<f64>();
        values[i] = sum / factor[i][i];
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Residuals that turn with the noise level, in three directions.
    fn gram(levels: &[f64]) -> Vec<Vec<f64>> {
        let residual = |level: f64| [3.0 * level.cos(), 3.0 * level.sin(), level];
        let inner = |a: [f64; 3], b: [f64; 3]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        levels.iter().map(|a| levels.iter().map(|b| inner(residual(*a), residual(*b))).collect()).collect()
    }

    fn levels(count: usize) -> Vec<f64> {
        (0..count).map(|step| 1.0 - step as f64 / count as f64).collect()
    }

    /// Matern's formula at a distance of one length, and at none.
    #[test]
    fn the_kernel_at_a_known_distance() {
        let table = kernel(&[0.5, 1.0 / (1.0 + 1.17f64.exp())]);
        let alike = (1.0 + 5f64.sqrt() + 5.0 / 3.0) * (-(5f64.sqrt())).exp();
        assert!((table[0][1] - (0.9 + 0.1 * alike)).abs() < 1e-9 && (table[0][0] - 1.00001).abs() < 1e-12, "{table:?}");
    }

    /// With one measured level everything is brought to its size.
    #[test]
    fn one_measured_level_scales_the_kernel() {
        let table = kernel(&levels(6));
        let found = completed(&table, &[2], &[vec![7.0]]).unwrap();
        for (found, assumed) in found.iter().flatten().zip(table.iter().flatten()) {
            assert!((found - 7.0 * assumed / table[2][2]).abs() < 1e-6, "{found} {assumed}");
        }
    }

    /// With two measured levels, against the inverse of a matrix of two rows written out. The
    /// measurements are far from the kernel's, so that every part of the formula counts.
    #[test]
    fn two_measured_levels_agree_with_the_written_out_inverse() {
        let table = kernel(&levels(6));
        let (p, q) = (1, 4);
        let measured = [vec![3.0, -1.0], vec![-1.0, 2.0]];
        let found = completed(&table, &[p, q], &measured).unwrap();
        let (a, b, d) = (table[p][p], table[p][q], table[q][q]);
        let determinant = a * d - b * b;
        let inverse = [[d / determinant, -b / determinant], [-b / determinant, a / determinant]];
        let square = |x: [f64; 2], table: [[f64; 2]; 2], y: [f64; 2]| {
            (0..2).map(|i| (0..2).map(|j| x[i] * table[i][j] * y[j]).sum::<f64>()).sum::<f64>()
        };
        let row = |i: usize| {
            let to = [table[i][p], table[i][q]];
            [to[0] * inverse[0][0] + to[1] * inverse[1][0], to[0] * inverse[0][1] + to[1] * inverse[1][1]]
        };
        let scale = (0..2).map(|i| inverse[i][0] * measured[0][i] + inverse[i][1] * measured[1][i]).sum::<f64>() / 2.0;
        for i in 0..6 {
            for j in 0..6 {
                let carried = square(row(i), [[3.0, -1.0], [-1.0, 2.0]], row(j));
                let own = table[i][j] - square(row(i), [[a, b], [b, d]], row(j));
                let wanted = carried + scale * own;
                // The ridge moves the values by its share of the inverse's size.
                assert!(
                    (found[i][j] - wanted).abs() < 1e-5 * (1.0 + wanted.abs()),
                    "{i} {j}: {} {wanted}",
                    found[i][j]
                );
            }
        }
    }

    /// What the kernel says of itself is completed to the kernel.
    #[test]
    fn measurements_like_the_kernel_give_the_kernel() {
        let (coarse, fine) = (levels(10), levels(20));
        let measured: Vec<Vec<f64>> = kernel(&coarse).iter().map(|row| row.iter().map(|k| 5.0 * k).collect()).collect();
        let found = completed_at(&fine, &[(&coarse, &measured)]).unwrap();
        for (found, assumed) in found.iter().flatten().zip(kernel(&fine).iter().flatten()) {
            assert!((found - 5.0 * assumed).abs() < 1e-5, "{found} {assumed}");
        }
    }

    #[test]
    fn measured_pairs_stay_and_others_follow() {
        let (coarse, fine) = (levels(10), levels(20));
        let measured = gram(&coarse);
        let found = completed_at(&fine, &[(&coarse, &measured)]).unwrap();
        let truth = gram(&fine);
        let mut worst = [0.0f64; 2];
        // The last level lies beyond the measured ones, and the second far from the first.
        for i in (0..19).filter(|i| *i != 1) {
            for j in (0..19).filter(|j| *j != 1) {
                let kind = usize::from(i % 2 == 1 || j % 2 == 1);
                worst[kind] = worst[kind].max((found[i][j] - truth[i][j]).abs());
            }
        }
        // The values are 9 to 10.
        assert!(worst[0] < 1e-9 && worst[1] < 0.1, "{worst:?}");
        // A residual between two measured ones is no mixture of them: it adds something.
        let mixture = 0.25 * (found[4][4] + 2.0 * found[4][6] + found[6][6]);
        assert!(found[5][5] > mixture);
    }

    #[test]
    fn the_last_table_holds_where_two_disagree() {
        let (all, some) = (levels(8), levels(4));
        let (first, mut second) = (gram(&all), gram(&some));
        second.iter_mut().flatten().for_each(|value| *value *= 2.0);
        let found = completed_at(&all, &[(&all, &first), (&some, &second)]).unwrap();
        assert!((found[0][2] - second[0][1]).abs() < 1e-9 && (found[0][1] - first[0][1]).abs() > 0.1);
    }
}

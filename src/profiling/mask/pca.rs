//! The estimator `pca`: foreground by the principal components of the channels.

use super::{Estimate, Estimator, Mask, ProfilingError, pooled};
use crate::profiling::statistics::{beyond_normal, otsu, smooth};

/// Number of principal components that are used.
const COMPONENTS: usize = 3;

/// Estimates a mask from the principal components of x0 latents
/// `[channels, frames, height, width]`, on the grid of tokens (frames, height, width) that divides
/// them.
///
/// The latents are projected on their first three principal components over the channels and
/// smoothed. 2-means then forms two classes, starting from Otsu's cut of the first component. The
/// class that dominates the border of the frames is background.
///
/// # Errors
/// [`ProfilingError::Size`] if the latents do not fit their extents. [`ProfilingError::Invalid`]
/// for a grid that does not divide the latents, values that are not finite, and empty latents.
pub fn pca(latents: &[f32], extents: [usize; 4], grid: [usize; 3]) -> Result<Estimate, ProfilingError> {
    let mut channels = pooled(latents, extents, grid)?;
    for values in &mut channels {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        values.iter_mut().for_each(|value| *value -= mean);
    }
    let n = channels.len();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let covariance: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| dot(&channels[i], &channels[j])).collect()).collect();
    let vectors = eigenvectors(covariance);
    let project = |vector: &Vec<f64>| {
        let tokens = (0..channels[0].len()).map(|token| (0..n).map(|c| vector[c] * channels[c][token]).sum());
        smooth(&tokens.collect::<Vec<f64>>(), grid)
    };
    let components: Vec<Vec<f64>> = vectors.iter().take(COMPONENTS).map(project).collect();
    let points: Vec<[f64; COMPONENTS]> = (0..components[0].len())
        .map(|token| std::array::from_fn(|c| components.get(c).map_or(0.0, |component| component[token])))
        .collect();
    let start = otsu(&components[0]).map_or(f64::INFINITY, |cut| cut.threshold);
    let mut classes: Vec<bool> = components[0].iter().map(|value| *value > start).collect();
    let (centers, separation) = two_means(&points, &mut classes);
    let border_share = border_share(&classes, grid);
    let foreground = border_share <= 0.5;
    // Position along the line between the centres, growing towards the foreground.
    let sign = if foreground { 1.0 } else { -1.0 };
    let along = |point: &[f64; COMPONENTS]| {
        let center = |c: usize| (centers[0][c] + centers[1][c]) / 2.0;
        (0..COMPONENTS).map(|c| sign * (point[c] - center(c)) * (centers[1][c] - centers[0][c])).sum()
    };
    let map = points.iter().map(along).collect();
    let mask = Mask::new(grid, classes.iter().map(|class| *class == foreground).collect())?;
    let one_sided = (2.0 * border_share - 1.0).abs();
    Ok(Estimate { estimator: Estimator::Pca, mask, confidence: beyond_normal(separation) * one_sided, map })
}

/// Lloyd's algorithm, starting from the given classes. Returns the centres of the classes `false`
/// and `true`, and the variance between the classes divided by the whole variance.
fn two_means(points: &[[f64; COMPONENTS]], classes: &mut [bool]) -> ([[f64; COMPONENTS]; 2], f64) {
    /// Bounds the time. Assignments rarely change after ten turns.
    const TURNS: usize = 50;
    let distance =
        |a: &[f64; COMPONENTS], b: &[f64; COMPONENTS]| -> f64 { a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum() };
    let centers_of = |classes: &[bool]| {
        [false, true].map(|class| {
            let members = points.iter().zip(classes).filter(|(_, of)| **of == class);
            let count = members.clone().count().max(1) as f64;
            members.fold([0.0; COMPONENTS], |sum, (point, _)| std::array::from_fn(|c| sum[c] + point[c] / count))
        })
    };
    let mut centers = centers_of(classes);
    for _ in 0..TURNS {
        let next: Vec<bool> =
            points.iter().map(|point| distance(point, &centers[1]) < distance(point, &centers[0])).collect();
        let trivial = next.iter().all(|class| *class == next[0]);
        if trivial || *classes == next[..] {
            break;
        }
        classes.copy_from_slice(&next);
        centers = centers_of(classes);
    }
    let mean = centers_of(&vec![false; points.len()])[0];
    let whole: f64 = points.iter().map(|point| distance(point, &mean)).sum();
    let between: f64 = classes.iter().map(|class| distance(&centers[usize::from(*class)], &mean)).sum();
    (centers, if whole > 0.0 { (between / whole).clamp(0.0, 1.0) } else { 0.0 })
}

/// The share of class `true` among the tokens at the edges of the frames.
fn border_share(classes: &[bool], [_, height, width]: [usize; 3]) -> f64 {
    let at_edge = |token: usize| {
        let (y, x) = (token / width % height, token % width);
        y == 0 || x == 0 || y + 1 == height || x + 1 == width
    };
    let border = classes.iter().enumerate().filter(|(token, _)| at_edge(*token));
    let all = border.clone().count().max(1) as f64;
    border.filter(|(_, class)| **class).count() as f64 / all
}

/// Eigenvectors of a symmetric matrix by Jacobi rotations, sorted by falling eigenvalues.
fn eigenvectors(mut a: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    /// Bounds the time. Convergence is quadratic, so a matrix of 16 rows takes about six sweeps.
    const SWEEPS: usize = 30;
    let n = a.len();
    // Row i becomes the i-th eigenvector.
    let mut vectors: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect()).collect();
    let size: f64 = a.iter().flatten().map(|x| x * x).sum();
    for _ in 0..SWEEPS {
        let rest: f64 = (0..n).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| a[i][j] * a[i][j]).sum();
        if rest <= size * 1e-24 {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                rotate(&mut a, &mut vectors, p, q);
            }
        }
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|i, j| a[*j][*j].total_cmp(&a[*i][*i]));
    order.into_iter().map(|i| vectors[i].clone()).collect()
}

/// Applies one rotation that makes `a[p][q]` zero (Golub and Van Loan, Matrix Computations, 8.5).
fn rotate(a: &mut [Vec<f64>], vectors: &mut [Vec<f64>], p: usize, q: usize) {
    if a[p][q] == 0.0 {
        return;
    }
    let tau = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
    let t = if tau >= 0.0 { 1.0 / (tau + tau.hypot(1.0)) } else { 1.0 / (tau - tau.hypot(1.0)) };
    let c = 1.0 / t.hypot(1.0);
    let s = t * c;
    for row in a.iter_mut() {
        (row[p], row[q]) = (c * row[p] - s * row[q], s * row[p] + c * row[q]);
    }
    for matrix in [a, vectors] {
        for column in 0..matrix[p].len() {
            let (x, y) = (matrix[p][column], matrix[q][column]);
            (matrix[p][column], matrix[q][column]) = (c * x - s * y, s * x + c * y);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::random;

    /// Checks that A v = lambda v, that the vectors are orthonormal, and that the eigenvalues fall.
    #[test]
    fn eigenvectors_are_eigenvectors() {
        for n in [1, 2, 5, 16] {
            let half: Vec<f64> = random(n as u64, n * n).iter().map(|x| f64::from(*x)).collect();
            let a: Vec<Vec<f64>> = (0..n)
                .map(|i| (0..n).map(|j| (0..n).map(|k| half[i * n + k] * half[j * n + k]).sum()).collect())
                .collect();
            let vectors = eigenvectors(a.clone());
            let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
            let image = |v: &[f64]| a.iter().map(|row| dot(row, v)).collect::<Vec<f64>>();
            let values: Vec<f64> = vectors.iter().map(|v| dot(v, &image(v))).collect();
            assert!(values.windows(2).all(|pair| pair[0] >= pair[1] - 1e-12), "{values:?}");
            for (i, v) in vectors.iter().enumerate() {
                let error: f64 = image(v).iter().zip(v).map(|(av, v)| (av - values[i] * v).powi(2)).sum();
                assert!(error.sqrt() < 1e-10, "{n} {i}: {error}");
                for (j, w) in vectors.iter().enumerate() {
                    assert!((dot(v, w) - f64::from(u8::from(i == j))).abs() < 1e-10);
                }
            }
        }
    }
}

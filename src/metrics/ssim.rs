//! SSIM (Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to
//! structural similarity", 2004).

use super::{Frame, MetricsError, check};

/// Side of the Gaussian window in pixels. Frames must be at least as large.
pub const WINDOW: usize = 11;
const SIGMA: f64 = 1.5;
const K1: f64 = 0.01;
const K2: f64 = 0.03;

/// Number of windowed means: those of a, b, a^2, b^2 and a b.
const MOMENTS: usize = 5;

/// SSIM of two frames, 1 for equal frames. Each channel is compared separately. The result is the
/// average over the channels and over all positions where the whole window lies inside the frame.
///
/// # Errors
/// [`MetricsError::DifferentSize`]; [`MetricsError::TooSmall`] for a side below [`WINDOW`] pixels.
pub fn ssim(a: Frame, b: Frame) -> Result<f64, MetricsError> {
    check("SSIM", WINDOW, a, b)?;
    let row = a.width * 3;
    let weights = window();
    let mut columns = [const { Vec::new() }; MOMENTS];
    let mut sum = 0.0;
    let places = a.height - WINDOW + 1;
    for top in 0..places {
        let rows = top * row..(top + WINDOW) * row;
        filter_columns(&a.values[rows.clone()], &b.values[rows], &weights, &mut columns);
        sum += (0..row - (WINDOW - 1) * 3).map(|x| similarity(&filter_row(&columns, x, &weights))).sum::<f64>();
    }
    Ok(sum / (places * (row - (WINDOW - 1) * 3)) as f64)
}

/// The weights of the window along one axis. The window is separable.
fn window() -> [f64; WINDOW] {
    let center = (WINDOW / 2) as f64;
    let weights = std::array::from_fn(|i| (-0.5 * ((i as f64 - center) / SIGMA).powi(2)).exp());
    let sum: f64 = weights.iter().sum();
    weights.map(|weight| weight / sum)
}

/// The five moments of `WINDOW` rows, weighted down the columns. They are f64 because the variances
/// are small differences of large numbers.
fn filter_columns(a: &[f32], b: &[f32], weights: &[f64; WINDOW], columns: &mut [Vec<f64>; MOMENTS]) {
    let row = a.len() / WINDOW;
    for column in columns.iter_mut() {
        column.clear();
        column.resize(row, 0.0);
    }
    let [mean_a, mean_b, square_a, square_b, product] = columns;
    for ((a, b), &weight) in a.chunks_exact(row).zip(b.chunks_exact(row)).zip(weights) {
        for x in 0..row {
            let (a, b) = (f64::from(a[x]), f64::from(b[x]));
            mean_a[x] += weight * a;
            mean_b[x] += weight * b;
            square_a[x] += weight * a * a;
            square_b[x] += weight * b * b;
            product[x] += weight * a * b;
        }
    }
}

/// The moments of the window that begins at value `x` of a row. Neighbouring pixels of a channel
/// are 3 values apart.
fn filter_row(columns: &[Vec<f64>; MOMENTS], x: usize, weights: &[f64; WINDOW]) -> [f64; MOMENTS] {
    std::array::from_fn(|moment| {
        let values = columns[moment][x..].iter().step_by(3);
        values.zip(weights).map(|(value, weight)| value * weight).sum()
    })
}

/// Equation 13 of the paper, for values in a range of 1.
fn similarity(&[mean_a, mean_b, square_a, square_b, product]: &[f64; MOMENTS]) -> f64 {
    let (c1, c2) = (K1 * K1, K2 * K2);
    let variances = square_a - mean_a * mean_a + square_b - mean_b * mean_b;
    let covariance = product - mean_a * mean_b;
    let means = mean_a * mean_a + mean_b * mean_b;
    (2.0 * mean_a * mean_b + c1) * (2.0 * covariance + c2) / ((means + c1) * (variances + c2))
}

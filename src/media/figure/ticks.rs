//! Round numbers for axes.

/// About `wanted` round values from `low` to `high`. Their distance is 1, 2 or 5 times a power of
/// ten.
pub(super) fn ticks(low: f64, high: f64, wanted: usize) -> Vec<f64> {
    let rough = (high - low) / wanted.max(1) as f64;
    if !rough.is_finite() || rough <= 0.0 {
        return vec![low];
    }
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= rough * 0.999);
    let step = step.unwrap_or(10.0 * power);
    let first = (low / step - 1e-9).ceil();
    let count = ((high / step + 1e-9).floor() - first).clamp(0.0, 1000.0) as usize;
    // Adding 0 turns a negative zero into zero.
    (0..=count).map(|i| (first + i as f64) * step + 0.0).collect()
}

/// At most `most` evenly spaced whole numbers from 0 to below `count`.
pub(super) fn index_ticks(count: usize, most: usize) -> Vec<usize> {
    let rough = count.div_ceil(most.max(1)).max(1);
    let power = 10usize.pow(rough.ilog10());
    let step = [1, 2, 5, 10].into_iter().map(|factor| factor * power).find(|step| *step >= rough).unwrap_or(rough);
    (0..count).step_by(step).collect()
}

/// A number with the digits that values at a distance of `step` need.
pub(super) fn number(value: f64, step: f64) -> String {
    let step = step.abs();
    if value != 0.0 && !(1e-4..1e6).contains(&value.abs()) {
        return format!("{value:.2e}");
    }
    let decimals = if step > 0.0 && step.is_finite() { (-(step * 1.001).log10().floor()).clamp(0.0, 6.0) } else { 2.0 };
    format!("{value:.*}", decimals as usize)
}

/// A number with four significant digits.
pub(super) fn short(value: f64) -> String {
    number(value, value.abs() / 1000.0)
}

/// The smallest and largest finite value. Equal values are moved apart, and without any value the
/// range is 0 to 1.
pub(super) fn span(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    if low > high {
        (0.0, 1.0)
    } else if low == high {
        let room = low.abs().max(1.0) * 0.05;
        (low - room, high + room)
    } else {
        (low, high)
    }
}

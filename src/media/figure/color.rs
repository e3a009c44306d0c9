//! Perceptually uniform colour scales, and the colours of series.

use crate::media::colormap::srgb_of_oklab;

/// A map from numbers in 0..=1 to the colours of a figure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ColorScale {
    /// From dark blue over green to yellow, with evenly rising lightness, for amounts. The scale
    /// interpolates linearly between eleven points of viridis (van der Walt and Smith 2015,
    /// released as CC0).
    #[default]
    Viridis,
    /// From blue over white to orange, equally dark at both ends, for values on both sides of a
    /// middle. The scale is linear in OKLab.
    Diverging,
    /// From near black to white, with evenly rising lightness.
    Gray,
}

const VIRIDIS: [[u8; 3]; 11] = [
    [68, 1, 84],
    [72, 36, 117],
    [65, 68, 135],
    [53, 95, 141],
    [42, 120, 142],
    [33, 145, 140],
    [34, 168, 132],
    [68, 191, 112],
    [122, 209, 81],
    [189, 223, 38],
    [253, 231, 37],
];

/// Ends and middle of [`ColorScale::Diverging`] in OKLab: lightness, green-red, blue-yellow.
const DIVERGING: [[f64; 3]; 3] = [[0.42, -0.035, -0.125], [0.97, 0.0, 0.0], [0.42, 0.085, 0.087]];

/// Colours of series, after Okabe and Ito (2008). People with any kind of colour vision can
/// distinguish them, and all are dark enough on white.
const SERIES: [&str; 6] = ["#0072b2", "#d55e00", "#007a5a", "#9a4f80", "#7a6200", "#222222"];

impl ColorScale {
    /// The sRGB colour of a number in 0..=1. Numbers outside take the colour of the nearer end, and
    /// NaN takes the colour of 0.
    pub fn rgb(self, value: f64) -> [u8; 3] {
        let value = if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) };
        match self {
            Self::Viridis => {
                let at = value * (VIRIDIS.len() - 1) as f64;
                let below = (at as usize).min(VIRIDIS.len() - 2);
                let mix = |i: usize| {
                    let [a, b] = [VIRIDIS[below][i], VIRIDIS[below + 1][i]].map(f64::from);
                    (a + (b - a) * (at - below as f64)).round() as u8
                };
                [mix(0), mix(1), mix(2)]
            }
            Self::Diverging => {
                let (from, to, by) = match value < 0.5 {
                    true => (DIVERGING[0], DIVERGING[1], value * 2.0),
                    false => (DIVERGING[1], DIVERGING[2], value * 2.0 - 1.0),
                };
                srgb_of_oklab([0, 1, 2].map(|i| from[i] + (to[i] - from[i]) * by))
            }
            Self::Gray => srgb_of_oklab([0.12 + 0.88 * value, 0.0, 0.0]),
        }
    }

    /// The colour of a number as `#rrggbb`.
    pub fn hex(self, value: f64) -> String {
        let [r, g, b] = self.rgb(value);
        format!("#{r:02x}{g:02x}{b:02x}")
    }
}

/// The colour of series `index`. Colours repeat, and markers and dashes then show the difference.
pub(super) fn series(index: usize) -> &'static str {
    SERIES[index % SERIES.len()]
}

//! Colour maps of the window. Equal steps of the value are equal steps to the eye (distance in
//! OKLab). Lightness alone shows the order, so the maps also work in grey and for colour-blind
//! readers.

use std::sync::LazyLock;

/// A map from values to colours in the window. Figures use
/// [`figure::ColorScale`](super::figure::ColorScale).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colormap {
    /// From small values (dark) to large values (light).
    Sequential,
    /// From a neutral middle to low values (blue) and high values (orange).
    Diverging,
}

/// Number of colours in a table. It is odd, so there is a colour in the middle.
const COLOURS: usize = 257;

type Table = [[u8; 3]; COLOURS];

/// Corner points in OKLab from dark to light: indigo, blue, teal, green, yellow.
const SEQUENTIAL: [[f64; 3]; 6] = [
    [0.20, 0.035, -0.075],
    [0.36, 0.015, -0.115],
    [0.50, -0.055, -0.070],
    [0.64, -0.110, 0.010],
    [0.79, -0.110, 0.115],
    [0.94, -0.045, 0.170],
];
/// Corner points in OKLab: blue, grey, orange.
const DIVERGING: [[f64; 3]; 5] =
    [[0.78, -0.060, -0.105], [0.53, -0.040, -0.110], [0.30, 0.0, 0.0], [0.53, 0.085, 0.085], [0.82, 0.050, 0.140]];

static TABLES: LazyLock<[Table; 2]> = LazyLock::new(|| {
    let (below, above) = (table::<HALF>(&DIVERGING[..3]), table::<HALF>(&DIVERGING[2..]));
    let diverging = std::array::from_fn(|i| if i < HALF { below[i] } else { above[i - HALF + 1] });
    [table(&SEQUENTIAL), diverging]
});

/// Number of colours in half a table, including the middle.
const HALF: usize = COLOURS / 2 + 1;

impl Colormap {
    /// The sRGB colour of `t` in 0..=1. Values outside take the colour of the nearer end, and NaN
    /// takes the colour of 0.
    pub fn color(self, t: f32) -> [u8; 3] {
        let index = (t.clamp(0.0, 1.0) * (COLOURS - 1) as f32).round() as usize;
        TABLES[self as usize][index.min(COLOURS - 1)]
    }
}

/// Colours at equal distances along the path through the corners.
fn table<const N: usize>(corners: &[[f64; 3]]) -> [[u8; 3]; N] {
    const FINE: usize = 4096;
    let point = |index: usize| {
        let at = index as f64 / FINE as f64 * (corners.len() - 1) as f64;
        let corner = (at as usize).min(corners.len() - 2);
        let share = at - corner as f64;
        [0, 1, 2].map(|c| corners[corner][c] * (1.0 - share) + corners[corner + 1][c] * share)
    };
    let mut lengths = vec![0.0];
    for index in 1..=FINE {
        let length = lengths[index - 1] + distance(point(index - 1), point(index));
        lengths.push(length);
    }
    std::array::from_fn(|colour| {
        let wanted = lengths[FINE] * colour as f64 / (N - 1) as f64;
        srgb_of_oklab(point(lengths.partition_point(|length| *length < wanted).min(FINE)))
    })
}

fn distance(a: [f64; 3], b: [f64; 3]) -> f64 {
    (0..3).map(|c| (a[c] - b[c]).powi(2)).sum::<f64>().sqrt()
}

/// Converts OKLab (Ottosson 2020) to 8-bit sRGB and clips colours outside sRGB.
pub(super) fn srgb_of_oklab([l, a, b]: [f64; 3]) -> [u8; 3] {
    let lms = [
        l + 0.3963377774 * a + 0.2158037573 * b,
        l - 0.1055613458 * a - 0.0638541728 * b,
        l - 0.0894841775 * a - 1.2914855480 * b,
    ]
    .map(|root: f64| root.powi(3));
    let rows = [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ];
    rows.map(|row| {
        let linear: f64 = (0..3).map(|i| row[i] * lms[i]).sum();
        let encoded = if linear <= 0.0031308 { 12.92 * linear } else { 1.055 * linear.powf(1.0 / 2.4) - 0.055 };
        (encoded * 255.0).round().clamp(0.0, 255.0) as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oklab(rgb: [u8; 3]) -> [f64; 3] {
        let [r, g, b] = rgb.map(|value| {
            let value = f64::from(value) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        });
        let l = (0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b).cbrt();
        let m = (0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b).cbrt();
        let s = (0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b).cbrt();
        [
            0.2104542553 * l + 0.7936177850 * m - 0.0040720468 * s,
            1.9779984951 * l - 2.4285922050 * m + 0.4505937099 * s,
            0.0259040371 * l + 0.7827717662 * m - 0.8086757660 * s,
        ]
    }

    /// Also shows that no corner lies outside sRGB, because a clipped colour would change the
    /// distances.
    #[test]
    fn equal_steps_look_equal() {
        for map in [Colormap::Sequential, Colormap::Diverging] {
            let points: Vec<_> = (0..=16).map(|i| oklab(map.color(i as f32 / 16.0))).collect();
            let steps: Vec<f64> = points.windows(2).map(|pair| distance(pair[0], pair[1])).collect();
            let (least, most) = (steps.iter().copied().fold(9.0, f64::min), steps.iter().copied().fold(0.0, f64::max));
            assert!(most / least < 1.25, "{map:?}: {steps:?}");
        }
    }

    #[test]
    fn lightness_carries_the_order() {
        let lightness = |map: Colormap, t: f32| oklab(map.color(t))[0];
        for i in 1..=32 {
            let (a, b) = ((i - 1) as f32 / 32.0, i as f32 / 32.0);
            assert!(lightness(Colormap::Sequential, a) < lightness(Colormap::Sequential, b));
            let from_middle = |t: f32| lightness(Colormap::Diverging, 0.5 + t / 2.0);
            assert!(from_middle(a) < from_middle(b) && from_middle(-a) < from_middle(-b));
        }
    }

    #[test]
    fn any_value_has_a_colour() {
        for t in [f32::NAN, f32::INFINITY, -1.0] {
            Colormap::Sequential.color(t);
        }
        assert_eq!(Colormap::Sequential.color(7.0), Colormap::Sequential.color(1.0));
    }
}

//! Conversion from full-range sRGB to YCbCr with 8 bits in limited range ("studio swing").

/// The weights of luma. A stream names its matrix, but some players decide by the height alone. The
/// program also chooses by the height, so both kinds of player are right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Matrix {
    /// ITU-R BT.601, for fewer than 720 lines.
    Bt601,
    /// ITU-R BT.709, for 720 lines and more.
    Bt709,
}

impl Matrix {
    pub(super) fn for_height(height: u32) -> Self {
        if height < 720 { Self::Bt601 } else { Self::Bt709 }
    }

    /// `matrix_coefficients` of ITU-T H.273, table 4.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Bt601 => 6,
            Self::Bt709 => 1,
        }
    }

    /// The constants Kr and Kb of the recommendations.
    fn weights(self) -> (f32, f32) {
        match self {
            Self::Bt601 => (0.299, 0.114),
            Self::Bt709 => (0.2126, 0.0722),
        }
    }

    /// Converts one sRGB pixel to Y' in 0..=1 and Cb, Cr in -0.5..=0.5 (H.273, equations 38 to 40).
    fn convert(self, rgb: &[u8]) -> [f32; 3] {
        let (kr, kb) = self.weights();
        let [r, g, b] = [0, 1, 2].map(|i| f32::from(rgb[i]) / 255.0);
        let y = kr * r + (1.0 - kr - kb) * g + kb * b;
        [y, (b - y) / (2.0 * (1.0 - kb)), (r - y) / (2.0 * (1.0 - kr))]
    }
}

/// Three planes with rows from top to bottom, without padding.
pub(super) struct Planes {
    pub(super) luma: Vec<u8>,
    pub(super) cb: Vec<u8>,
    pub(super) cr: Vec<u8>,
}

fn quantize_luma(y: f32) -> u8 {
    (16.0 + 219.0 * y).round() as u8
}

fn quantize_chroma(c: f32) -> u8 {
    (128.0 + 224.0 * c).round() as u8
}

/// Converts to 4:4:4, where every plane has `width * height` values.
pub(super) fn to_444(rgb: &[u8], matrix: Matrix) -> Planes {
    let pixels = rgb.len() / 3;
    let mut planes =
        Planes { luma: Vec::with_capacity(pixels), cb: Vec::with_capacity(pixels), cr: Vec::with_capacity(pixels) };
    for pixel in rgb.chunks_exact(3) {
        let [y, cb, cr] = matrix.convert(pixel);
        planes.luma.push(quantize_luma(y));
        planes.cb.push(quantize_chroma(cb));
        planes.cr.push(quantize_chroma(cr));
    }
    planes
}

/// Converts a `width` x `height` picture to 4:2:0. Odd sides are extended by one pixel, so luma has
/// `even(width) * even(height)` values and each chroma plane a quarter of them. Chroma samples sit
/// at the default position of H.264: on the even columns, between two rows.
pub(super) fn to_420(rgb: &[u8], width: usize, height: usize, matrix: Matrix) -> Planes {
    let pixels: Vec<[f32; 3]> = rgb.chunks_exact(3).map(|pixel| matrix.convert(pixel)).collect();
    let at = |x: usize, y: usize| pixels[y.min(height - 1) * width + x.min(width - 1)];
    let (even_width, even_height) = (width.next_multiple_of(2), height.next_multiple_of(2));

    let mut planes = Planes {
        luma: Vec::with_capacity(even_width * even_height),
        cb: Vec::with_capacity(even_width * even_height / 4),
        cr: Vec::with_capacity(even_width * even_height / 4),
    };
    for y in 0..even_height {
        planes.luma.extend((0..even_width).map(|x| quantize_luma(at(x, y)[0])));
    }
    for y in (0..even_height).step_by(2) {
        for x in (0..even_width).step_by(2) {
            let chroma = |channel: usize| {
                let row = |y| at(x.saturating_sub(1), y)[channel] + 2.0 * at(x, y)[channel] + at(x + 1, y)[channel];
                quantize_chroma((row(y) + row(y + 1)) / 8.0)
            };
            planes.cb.push(chroma(1));
            planes.cr.push(chroma(2));
        }
    }
    planes
}

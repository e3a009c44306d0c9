//! GIF with at most 256 colours. The whole clip has one palette and an ordered dither, so still
//! parts of the clip stay still in the file. A palette for each frame or error diffusion would make
//! still parts flicker.

use std::collections::{BTreeSet, HashMap};

use color_quant::NeuQuant;
use gif::{AnyExtension, DisposalMethod, Encoder, EncodingError, Extension, Frame, Repeat};

use super::{Clip, MediaError};

/// The palette is learnt from at most this many pixels, which bounds the time and is enough for any
/// clip.
const SAMPLED_PIXELS: usize = 1 << 18;
/// Amplitude of the dither in steps of 1/255. It is about the distance between neighbours in a good
/// palette.
const DITHER: f32 = 5.0;

/// The clip as a GIF that loops forever.
pub(super) fn encode(clip: &Clip, settings: &str) -> Result<Vec<u8>, MediaError> {
    write(clip, settings).map_err(|error| MediaError::Encode { format: "GIF", reason: error.to_string() })
}

fn write(clip: &Clip, settings: &str) -> Result<Vec<u8>, EncodingError> {
    let (width, height) = (clip.width() as u16, clip.height() as u16); // MAX_SIDE fits
    let mut palette = Palette::of(clip);
    let mut encoder = Encoder::new(Vec::new(), width, height, &palette.colors.concat())?;
    encoder.set_repeat(Repeat::Infinite)?;
    if !settings.is_empty() {
        encoder.write_raw_extension(AnyExtension::from(Extension::Comment), &[settings.as_bytes()])?;
    }
    for (index, rgb) in clip.frames().iter().enumerate() {
        encoder.write_frame(&Frame {
            width,
            height,
            delay: delay(index, clip.fps()),
            dispose: DisposalMethod::Keep,
            buffer: palette.indices(rgb, width.into()).into(),
            ..Frame::default()
        })?;
    }
    encoder.into_inner()
}

/// Duration of frame `index` in hundredths of a second, rounded so that the whole clip keeps its
/// length. The duration is at least 2, because players treat smaller values as a mistake and show
/// the frame for a tenth of a second.
fn delay(index: usize, fps: u32) -> u16 {
    let shown_until = |frames: usize| (frames as f64 * 100.0 / f64::from(fps)).round();
    (shown_until(index + 1) - shown_until(index)).max(2.0) as u16
}

struct Palette {
    colors: Vec<[u8; 3]>,
    /// The palette has every colour of the clip, so there is nothing to dither.
    exact: bool,
    /// The results of earlier searches for the nearest colour.
    nearest: HashMap<[u8; 3], u8>,
}

impl Palette {
    fn of(clip: &Clip) -> Self {
        match few_colors(clip) {
            Some(colors) => Self { colors, exact: true, nearest: HashMap::new() },
            None => Self { colors: learn(clip), exact: false, nearest: HashMap::new() },
        }
    }

    fn indices(&mut self, rgb: &[u8], width: usize) -> Vec<u8> {
        let mut indices = Vec::with_capacity(rgb.len() / 3);
        for (position, pixel) in rgb.chunks_exact(3).enumerate() {
            let offset = if self.exact { 0.0 } else { DITHER * bayer(position % width, position / width) };
            let wanted = [0, 1, 2].map(|i| (f32::from(pixel[i]) + offset).round() as u8); // saturates
            indices.push(self.index_of(wanted));
        }
        indices
    }

    fn index_of(&mut self, wanted: [u8; 3]) -> u8 {
        let colors = &self.colors;
        // All colours in a cell of 4 x 4 x 4 share one search, which bounds the number of searches.
        // The dither hides the difference.
        let wanted = if self.exact { wanted } else { wanted.map(|channel| channel & 0xfc | 2) };
        *self.nearest.entry(wanted).or_insert_with(|| {
            let nearest = colors.iter().enumerate().min_by_key(|(_, color)| distance(**color, wanted));
            nearest.map_or(0, |(index, _)| index as u8)
        })
    }
}

/// Squared distance of two colours. Green has the largest weight and blue the smallest, roughly as
/// for the eye.
fn distance(a: [u8; 3], b: [u8; 3]) -> i32 {
    let squared = |i: usize| (i32::from(a[i]) - i32::from(b[i])).pow(2);
    3 * squared(0) + 4 * squared(1) + 2 * squared(2)
}

/// The clip's colours, if there are at most 256.
fn few_colors(clip: &Clip) -> Option<Vec<[u8; 3]>> {
    let mut colors = BTreeSet::new();
    for pixel in clip.frames().iter().flat_map(|frame| frame.chunks_exact(3)) {
        colors.insert([pixel[0], pixel[1], pixel[2]]);
        if colors.len() > 256 {
            return None;
        }
    }
    Some(colors.into_iter().collect())
}

/// Learns 256 colours with NeuQuant (Dekker 1994) from pixels that are spread evenly over the whole
/// clip.
fn learn(clip: &Clip) -> Vec<[u8; 3]> {
    let pixels = clip.frames().len() * clip.width() as usize * clip.height() as usize;
    // The stride is odd, because an even stride could take the same columns in every row.
    let stride = pixels.div_ceil(SAMPLED_PIXELS) | 1;
    let sample: Vec<u8> = clip
        .frames()
        .iter()
        .flat_map(|frame| frame.chunks_exact(3))
        .step_by(stride)
        .flat_map(|pixel| [pixel[0], pixel[1], pixel[2], 255])
        .collect();
    let palette = NeuQuant::new(1, 256, &sample).color_map_rgb();
    palette.chunks_exact(3).map(|color| [color[0], color[1], color[2]]).collect()
}

/// The 8 x 8 threshold matrix of Bayer (1973) with values in -1..1.
fn bayer(x: usize, y: usize) -> f32 {
    // Interleaves the bits of x ^ y and y, lowest bits first.
    let rank = (0..3).fold(0, |rank, bit| rank << 2 | ((x ^ y) >> bit & 1) << 1 | y >> bit & 1);
    (rank as f32 + 0.5) / 32.0 - 1.0
}

//! GIF: at most 256 colours. One palette serves the whole clip, and the dither is ordered, so that what stands still in the
//! clip stands still in the file (a palette a frame, or error diffusion, makes it crawl).

use std::collections::{BTreeSet, HashMap};

use color_quant::NeuQuant;
use gif::{AnyExtension, DisposalMethod, Encoder, EncodingError, Extension, Frame, Repeat};

use super::{Clip, MediaError};

/// What the palette is learnt from, at most: enough for any clip, and a bound on time.
const SAMPLED_PIXELS: usize = 1 << 18;
/// Half of the dither's swing, in steps of 1/255: about the distance between neighbours of a good palette.
const DITHER: f32 = 5.0;

/// The clip as a GIF that loops for ever.
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
    encoder.into_inner().map_err(EncodingError::from)
}

/// Hundredths of a second for frame `index`, such that the whole clip keeps its length; 2 at least, since players take
/// less for a mistake and show a tenth of a second.
fn delay(index: usize, fps: u32) -> u16 {
    let shown_until = |frames: usize| (frames as f64 * 100.0 / f64::from(fps)).round();
    (shown_until(index + 1) - shown_until(index)).max(2.0) as u16
}

struct Palette {
    colors: Vec<[u8; 3]>,
    /// The clip has no more colours than fit: nothing to dither.
    exact: bool,
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
        // Cells of 4 x 4 x 4 share an answer, which bounds the searches; the dither hides the difference.
        let wanted = if self.exact { wanted } else { wanted.map(|channel| channel & 0xfc | 2) };
        *self.nearest.entry(wanted).or_insert_with(|| {
            let nearest = colors.iter().enumerate().min_by_key(|(_, color)| distance(**color, wanted));
            nearest.map_or(0, |(index, _)| index as u8)
        })
    }
}

/// Squared distance, green counting most and blue least, roughly as eyes do.
fn distance(a: [u8; 3], b: [u8; 3]) -> i32 {
    let squared = |i: usize| (i32::from(a[i]) - i32::from(b[i])).pow(2);
    3 * squared(0) + 4 * squared(1) + 2 * squared(2)
}

/// The clip's colours, if there are 256 at most.
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

/// 256 colours by NeuQuant (Dekker 1994), from pixels taken evenly from the whole clip.
fn learn(clip: &Clip) -> Vec<[u8; 3]> {
    let pixels = clip.frames().len() * clip.width() as usize * clip.height() as usize;
    // Odd: an even stride would meet the same columns in every row.
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

/// The 8 x 8 threshold matrix of Bayer (1973), as values in -1..1.
fn bayer(x: usize, y: usize) -> f32 {
    // Interleaves the bits of x ^ y and y, the lowest first.
    let rank = (0..3).fold(0, |rank, bit| rank << 2 | ((x ^ y) >> bit & 1) << 1 | y >> bit & 1);
    (rank as f32 + 0.5) / 32.0 - 1.0
}

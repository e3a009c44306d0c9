//! Contact sheets: several clips in one.

use super::figure::text_line;
use super::{Clip, MediaError};

/// Pixels between frames, before enlarging.
const GAP: usize = 2;
/// A grey that is neither the black nor the white of a frame.
const BACKGROUND: u8 = 32;
/// Height of a line of text, in pixels.
const CAPTION: usize = 16;

/// The clips side by side, `columns` in a row, each pixel enlarged `scale` times, above their captions (no line is left for them where
/// all are empty). They play together; a shorter one stays at its last frame.
///
/// # Errors
/// [`MediaError::NoFrames`] without clips or columns; [`MediaError::Size`] when the sheet grows beyond
/// [`MAX_SIDE`](super::MAX_SIDE) or `scale` is 0.
pub fn grid(cells: &[(&Clip, &str)], columns: usize, scale: u32) -> Result<Clip, MediaError> {
    let most = |side: fn(&Clip) -> usize| cells.iter().map(|(clip, _)| side(clip)).max().ok_or(MediaError::NoFrames);
    let (wide, high) = (most(|clip| clip.width as usize)?, most(|clip| clip.height as usize)?);
    let captioned = cells.iter().any(|(_, caption)| !caption.is_empty());
    let Layout { width, height, pitch, caption } = Layout::new((cells.len(), columns), (wide, high), scale, captioned)?;
    let scale = scale as usize;
    let corner = |index: usize| (GAP * scale + index % columns * pitch.0, GAP * scale + index / columns * pitch.1);
    let mut empty = vec![BACKGROUND; width * height * 3];
    if caption > 0 {
        for (index, (_, text)) in cells.iter().enumerate() {
            let (left, top) = corner(index);
            let line = text_line(text, (wide * scale, caption), BACKGROUND)?;
            paste(&mut empty, width, (left, top + high * scale), &line, wide * scale, 1);
        }
    }
    let picture = |time: usize| {
        let mut picture = empty.clone();
        for (index, (clip, _)) in cells.iter().enumerate() {
            let frame = &clip.frames[time.min(clip.frames.len() - 1)];
            paste(&mut picture, width, corner(index), frame, clip.width as usize, scale);
        }
        picture
    };
    let frames = most(|clip| clip.frames.len())?;
    Clip::new(as_u32(width), as_u32(height), cells[0].0.fps, (0..frames).map(picture).collect())
}

/// The size in pixels of [`grid`]'s sheet of `cells` captioned clips of `size` pixels, each a strip of `shown` frames or, for 0, the
/// clip itself, so that a program can refuse before it has made them.
///
/// # Errors
/// As [`grid`].
pub fn check_grid(
    (cells, columns): (usize, usize),
    size: (usize, usize),
    shown: usize,
    scale: u32,
) -> Result<(usize, usize), MediaError> {
    let cell = match shown {
        0 => size,
        _ => Layout::new((shown, shown), size, 1, false).map(|strip| (strip.width, strip.height))?,
    };
    Layout::new((cells, columns), cell, scale, true).map(|sheet| (sheet.width, sheet.height))
}

/// Where the cells of a sheet lie, in pixels.
struct Layout {
    width: usize,
    height: usize,
    /// From a cell to the next in its row, and to the next row.
    pitch: (usize, usize),
    /// Height of the captions.
    caption: usize,
}

impl Layout {
    fn new(
        (cells, columns): (usize, usize),
        (wide, high): (usize, usize),
        scale: u32,
        captioned: bool,
    ) -> Result<Self, MediaError> {
        if columns == 0 {
            return Err(MediaError::NoFrames);
        }
        let (rows, scale) = (cells.div_ceil(columns), scale as usize);
        let caption = if captioned { CAPTION } else { 0 };
        let pitch = (scale.saturating_mul(wide + GAP), scale.saturating_mul(high + GAP).saturating_add(caption));
        let side = |cells: usize, pitch: usize| cells.saturating_mul(pitch).saturating_add(GAP.saturating_mul(scale));
        let (width, height) = (side(columns, pitch.0), side(rows, pitch.1));
        let fits = |side| (1..=super::MAX_SIDE as usize).contains(&side);
        match scale > 0 && fits(width) && fits(height) {
            true => Ok(Self { width, height, pitch, caption }),
            false => Err(MediaError::Size { width: as_u32(width), height: as_u32(height) }),
        }
    }
}

fn as_u32(side: usize) -> u32 {
    u32::try_from(side).unwrap_or(u32::MAX)
}

/// `count` frames of a clip (all, if there are no more), evenly spaced from the first to the last, side by side in one picture.
///
/// # Errors
/// As [`grid`].
pub fn strip(clip: &Clip, count: usize) -> Result<Clip, MediaError> {
    let count = count.min(clip.frames.len());
    let frame = |index: usize| Clip::new(clip.width, clip.height, clip.fps, vec![clip.frames[index].clone()]);
    let shown = (0..count).map(|column| frame(evenly_spaced(column, count, clip.frames.len())));
    let shown = shown.collect::<Result<Vec<_>, _>>()?;
    grid(&shown.iter().map(|frame| (frame, "")).collect::<Vec<_>>(), count, 1)
}

/// The frame for `column` of `columns`, the first and the last frame included.
fn evenly_spaced(column: usize, columns: usize, frames: usize) -> usize {
    if columns == 1 { 0 } else { (column * (frames - 1) + (columns - 1) / 2) / (columns - 1) }
}

/// Copies `frame` into `picture` (`width` pixels wide), its corner at `(left, top)`.
fn paste(
    picture: &mut [u8],
    width: usize,
    (left, top): (usize, usize),
    frame: &[u8],
    frame_width: usize,
    scale: usize,
) {
    for (y, row) in frame.chunks_exact(frame_width * 3).enumerate() {
        let line: Vec<u8> = row.chunks_exact(3).flat_map(|pixel| pixel.repeat(scale)).collect();
        for copy in 0..scale {
            let start = ((top + y * scale + copy) * width + left) * 3;
            picture[start..start + line.len()].copy_from_slice(&line);
        }
    }
}

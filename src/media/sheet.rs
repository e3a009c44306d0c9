//! Contact sheets: several clips combined in one.

use super::figure::text_line;
use super::{Clip, MediaError};

/// Pixels between frames, before they are enlarged.
const GAP: usize = 2;
/// A grey that differs from the black and the white of frames.
const BACKGROUND: u8 = 32;
/// Height of a line of text, in pixels.
const CAPTION: usize = 16;

/// One clip that shows several clips side by side, `columns` in a row, each above its caption. Each
/// pixel is enlarged `scale` times. If all captions are empty, the sheet has no lines for them.
///
/// The clips play at the same time. A shorter clip stays at its last frame.
///
/// # Errors
/// [`MediaError::NoFrames`] without clips or columns; [`MediaError::Size`] if the sheet is larger
/// than [`MAX_SIDE`](super::MAX_SIDE) or `scale` is 0.
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

/// The size in pixels of the sheet that [`grid`] makes of `cells` captioned clips of `size` pixels.
/// Each cell is a strip of `shown` frames, or the clip itself if `shown` is 0. A program can thus
/// refuse a sheet before it makes the clips.
///
/// # Errors
/// The errors of [`grid`].
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

/// The positions of a sheet's cells, in pixels.
struct Layout {
    width: usize,
    height: usize,
    /// Distance from a cell to the next cell in its row, and to the next row.
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

/// One picture that shows up to `count` frames of a clip side by side, evenly spaced from the first
/// to the last frame.
///
/// # Errors
/// The errors of [`grid`].
pub fn strip(clip: &Clip, count: usize) -> Result<Clip, MediaError> {
    let count = count.min(clip.frames.len());
    let frame = |index: usize| Clip::new(clip.width, clip.height, clip.fps, vec![clip.frames[index].clone()]);
    let shown = (0..count).map(|column| frame(evenly_spaced(column, count, clip.frames.len())));
    let shown = shown.collect::<Result<Vec<_>, _>>()?;
    grid(&shown.iter().map(|frame| (frame, "")).collect::<Vec<_>>(), count, 1)
}

/// The index of the frame in `column` of `columns`. The first column has the first frame and the
/// last column the last frame.
fn evenly_spaced(column: usize, columns: usize, frames: usize) -> usize {
    if columns == 1 { 0 } else { (column * (frames - 1) + (columns - 1) / 2) / (columns - 1) }
}

/// Copies `frame`, enlarged `scale` times, into `picture`, which is `width` pixels wide. The top
/// left corner goes to `(left, top)`.
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

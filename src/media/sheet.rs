//! Contact sheets: several clips combined in one.

use super::figure::text_line;
use super::{Clip, MediaError};

/// Pixels between the clips of a sheet, before they are enlarged.
pub const SHEET_GAP: usize = 2;
/// A grey that differs from the black and the white of frames.
const BACKGROUND: u8 = 32;
/// Height of a line of text, in pixels.
const CAPTION: usize = 16;

/// One cell of a contact sheet.
#[derive(Clone, Copy, Debug)]
pub struct SheetCell<'a> {
    /// The clip in the cell.
    pub clip: &'a Clip,
    /// The text below the clip, or an empty text.
    pub caption: &'a str,
}

/// The shape of a contact sheet with captions, before its clips exist.
#[derive(Clone, Copy, Debug)]
pub struct SheetShape {
    /// Number of cells.
    pub cells: usize,
    /// Number of cells in a row.
    pub columns: usize,
    /// Width and height of each clip, in pixels.
    pub clip: (usize, usize),
    /// Number of frames that each cell shows side by side. 0 for cells that play the clip.
    pub shown: usize,
    /// Factor by which each pixel is enlarged.
    pub scale: u32,
}

/// One clip that shows several clips side by side, `columns` in a row, each above its caption. Each
/// pixel is enlarged `scale` times. If all captions are empty, the sheet has no lines for them.
///
/// The clips play at the same time. A shorter clip stays at its last frame.
///
/// # Errors
/// [`MediaError::NoFrames`] without clips or columns; [`MediaError::Size`] if the sheet is larger
/// than [`MAX_SIDE`](super::MAX_SIDE) or `scale` is 0.
pub fn grid(cells: &[SheetCell], columns: usize, scale: u32) -> Result<Clip, MediaError> {
    let most = |side: fn(&Clip) -> usize| cells.iter().map(|cell| side(cell.clip)).max().ok_or(MediaError::NoFrames);
    let (wide, high) = (most(|clip| clip.width as usize)?, most(|clip| clip.height as usize)?);
    let captioned = cells.iter().any(|cell| !cell.caption.is_empty());
    let cells_of_size = Cells { count: cells.len(), columns, width: wide, height: high };
    let Layout { width, height, pitch, caption } = Layout::new(cells_of_size, scale, captioned)?;
    let scale = scale as usize;
    let corner =
        |index: usize| (SHEET_GAP * scale + index % columns * pitch.0, SHEET_GAP * scale + index / columns * pitch.1);
    let mut empty = vec![BACKGROUND; width * height * 3];
    if caption > 0 {
        for (index, cell) in cells.iter().enumerate() {
            let (left, top) = corner(index);
            let line = text_line(cell.caption, (wide * scale, caption), BACKGROUND)?;
            paste(&mut empty, width, (left, top + high * scale), &line, wide * scale, 1);
        }
    }
    let picture = |time: usize| {
        let mut picture = empty.clone();
        for (index, SheetCell { clip, .. }) in cells.iter().enumerate() {
            let frame = &clip.frames[time.min(clip.frames.len() - 1)];
            paste(&mut picture, width, corner(index), frame, clip.width as usize, scale);
        }
        picture
    };
    let frames = most(|clip| clip.frames.len())?;
    Clip::new(as_u32(width), as_u32(height), cells[0].clip.fps, (0..frames).map(picture).collect())
}

/// The width and height, in pixels, of the sheet that [`grid`] makes of captioned clips. A program
/// can thus refuse a sheet before it makes the clips.
///
/// # Errors
/// The errors of [`grid`].
pub fn check_grid(shape: &SheetShape) -> Result<(usize, usize), MediaError> {
    let SheetShape { cells, columns, clip: (width, height), shown, scale } = *shape;
    let (width, height) = match shown {
        0 => (width, height),
        _ => {
            let strip = Layout::new(Cells { count: shown, columns: shown, width, height }, 1, false)?;
            (strip.width, strip.height)
        }
    };
    let sheet = Layout::new(Cells { count: cells, columns, width, height }, scale, true)?;
    Ok((sheet.width, sheet.height))
}

/// Cells of one size, in pixels.
struct Cells {
    count: usize,
    columns: usize,
    width: usize,
    height: usize,
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
    fn new(cells: Cells, scale: u32, captioned: bool) -> Result<Self, MediaError> {
        let Cells { count, columns, .. } = cells;
        if columns == 0 {
            return Err(MediaError::NoFrames);
        }
        let (rows, scale) = (count.div_ceil(columns), scale as usize);
        let caption = if captioned { CAPTION } else { 0 };
        let high = scale.saturating_mul(cells.height + SHEET_GAP).saturating_add(caption);
        let pitch = (scale.saturating_mul(cells.width + SHEET_GAP), high);
        let side =
            |cells: usize, pitch: usize| cells.saturating_mul(pitch).saturating_add(SHEET_GAP.saturating_mul(scale));
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

/// The clip with a line of text above its frames.
///
/// # Errors
/// [`MediaError::Size`] if the clip becomes larger than [`MAX_SIDE`](super::MAX_SIDE).
pub fn headed(clip: &Clip, text: &str) -> Result<Clip, MediaError> {
    let line = text_line(text, (clip.width as usize, CAPTION), BACKGROUND)?;
    let frames = clip.frames.iter().map(|frame| [line.as_slice(), frame].concat()).collect();
    Clip::new(clip.width, clip.height + CAPTION as u32, clip.fps, frames)
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
    let cells: Vec<_> = shown.iter().map(|clip| SheetCell { clip, caption: "" }).collect();
    grid(&cells, count, 1)
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

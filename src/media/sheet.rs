//! Contact sheets: many clips seen at once.

use super::{Clip, MediaError};

/// Pixels between two cells and around the sheet, before scaling.
const GAP: usize = 2;
/// A grey that is neither the black nor the white of a frame.
const BACKGROUND: u8 = 32;

/// One picture with a row for each clip and `columns` frames of it, evenly spaced from the first to the last, each pixel
/// enlarged `scale` times. Write it with [`write()`](super::write()) to a `.png`.
///
/// # Errors
/// [`MediaError::NoFrames`] without clips or columns; [`MediaError::Size`] when the sheet grows beyond
/// [`MAX_SIDE`](super::MAX_SIDE) or `scale` is 0.
pub fn contact_sheet(clips: &[&Clip], columns: usize, scale: u32) -> Result<Clip, MediaError> {
    let widest = clips.iter().map(|clip| clip.width as usize).max().ok_or(MediaError::NoFrames)?;
    let tallest = clips.iter().map(|clip| clip.height as usize).max().ok_or(MediaError::NoFrames)?;
    if columns == 0 {
        return Err(MediaError::NoFrames);
    }
    let scale = scale as usize;
    let side = |cells: usize, cell: usize| cells.saturating_mul(cell + GAP).saturating_add(GAP).saturating_mul(scale);
    let (width, height) = (side(columns, widest), side(clips.len(), tallest));
    let as_u32 = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
    if !(1..=super::MAX_SIDE as usize).contains(&width) || !(1..=super::MAX_SIDE as usize).contains(&height) {
        return Err(MediaError::Size { width: as_u32(width), height: as_u32(height) });
    }

    let mut picture = vec![BACKGROUND; width * height * 3];
    for (row, clip) in clips.iter().enumerate() {
        for column in 0..columns {
            let frame = &clip.frames[evenly_spaced(column, columns, clip.frames.len())];
            let left = (GAP + column * (widest + GAP)) * scale;
            let top = (GAP + row * (tallest + GAP)) * scale;
            paste(&mut picture, width, (left, top), frame, clip.width as usize, scale);
        }
    }
    Clip::new(as_u32(width), as_u32(height), 1, vec![picture])
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

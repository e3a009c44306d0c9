//! Reads pictures as grey values. The pictures are masks from other programs. Files may come from
//! anywhere, so a picture's size is compared with the size of its file before memory is allocated.

use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use super::{MAX_SIDE, MediaError};

/// Largest size of one file, in bytes.
const MOST_BYTES: u64 = 256 << 20;
/// Largest number of pixels in all frames together.
const MOST_PIXELS: u64 = 96 << 20;
/// Largest number of frames.
const MOST_FRAMES: usize = 4096;
/// Largest number of pixels per byte of a PNG file. Deflate compresses at most 1032-fold, and a
/// byte may hold 8 pixels.
const PNG_RATIO: u64 = 1032 * 8;

/// One picture in grey.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrayFrame {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Brightness times opacity of each pixel, with rows from top to bottom.
    pub values: Vec<u8>,
}

/// The frames of a GIF, PNG or APNG, or of all PNG files in a folder, ordered by the numbers in
/// their names.
///
/// # Errors
/// [`MediaError::Read`]; [`MediaError::Decode`] if a file is not a picture or is damaged, or if all
/// frames together have more than 96 million pixels.
pub fn read_gray(path: &Path) -> Result<Vec<GrayFrame>, MediaError> {
    let mut budget = Budget { pixels: MOST_PIXELS };
    if !path.is_dir() {
        return frames(path, &mut budget, MOST_FRAMES);
    }
    let read = |source| MediaError::Read { path: path.into(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(read)? {
        let file = entry.map_err(read)?.path();
        if file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png")) {
            files.push(file);
        }
    }
    files.sort_by_cached_key(|file| natural_key(file));
    if files.is_empty() || files.len() > MOST_FRAMES {
        let reason = format!("the folder holds {} PNG files; 1 to {MOST_FRAMES} can be read", files.len());
        return Err(MediaError::Decode { path: path.into(), reason });
    }
    let mut all = Vec::with_capacity(files.len());
    for file in files {
        all.extend(frames(&file, &mut budget, 1)?);
    }
    Ok(all)
}

/// A key that sorts `2.png` before `10.png`. Runs of digits compare by their value, as (length
/// without leading zeros, digits).
fn natural_key(path: &Path) -> Vec<(usize, String)> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let runs: Vec<char> = name.chars().collect();
    runs.chunk_by(|a, b| a.is_ascii_digit() == b.is_ascii_digit())
        .map(|run| {
            let text: String = run.iter().collect();
            if run[0].is_ascii_digit() {
                let digits = text.trim_start_matches('0').to_owned();
                (digits.len() + 1, digits)
            } else {
                (0, text)
            }
        })
        .collect()
}

/// The number of pixels that may still be decoded.
struct Budget {
    pixels: u64,
}

impl Budget {
    fn take(&mut self, width: u64, height: u64) -> Result<(), String> {
        let side = 1..=u64::from(MAX_SIDE);
        if !side.contains(&width) || !side.contains(&height) {
            return Err(format!("a picture of {width}x{height} pixels; each side may be 1 to {MAX_SIDE}"));
        }
        match self.pixels.checked_sub(width * height) {
            Some(left) => self.pixels = left,
            None => return Err(format!("more than {MOST_PIXELS} pixels in all; use smaller or fewer pictures")),
        }
        Ok(())
    }
}

fn frames(path: &Path, budget: &mut Budget, most: usize) -> Result<Vec<GrayFrame>, MediaError> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|source| MediaError::Read { path: path.into(), source })?;
    file.take(MOST_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| MediaError::Read { path: PathBuf::from(path), source })?;
    decode(&bytes, budget, most).map_err(|reason| MediaError::Decode { path: path.into(), reason })
}

fn decode(bytes: &[u8], budget: &mut Budget, most: usize) -> Result<Vec<GrayFrame>, String> {
    if bytes.len() as u64 > MOST_BYTES {
        return Err(format!("more than {MOST_BYTES} bytes"));
    }
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        decode_png(bytes, budget, most)
    } else if bytes.starts_with(b"GIF8") {
        decode_gif(bytes, budget, most)
    } else {
        Err("neither a PNG nor a GIF".into())
    }
}

/// The picture on which frames are drawn, with grey and opacity of each pixel.
struct Screen {
    width: usize,
    pixels: Vec<[u8; 2]>,
}

/// A rectangle of new pixels for a [`Screen`].
struct Patch<'a> {
    at: [usize; 2],
    size: [usize; 2],
    /// Grey and opacity of each pixel.
    pixels: &'a [[u8; 2]],
    /// Whether to blend by opacity instead of replacing pixels.
    blend: bool,
}

impl Screen {
    fn new(width: usize, height: usize) -> Self {
        Self { width, pixels: vec![[0; 2]; width * height] }
    }

    fn frame(&self) -> GrayFrame {
        let value = |[gray, alpha]: &[u8; 2]| (u16::from(*gray) * u16::from(*alpha) / 255) as u8;
        GrayFrame {
            width: self.width,
            height: self.pixels.len() / self.width.max(1),
            values: self.pixels.iter().map(value).collect(),
        }
    }

    /// Draws the part of the patch that lies on the screen.
    fn draw(&mut self, patch: &Patch) {
        for (row, pixels) in patch.pixels.chunks(patch.size[0].max(1)).enumerate().take(patch.size[1]) {
            for (column, &[gray, alpha]) in pixels.iter().enumerate() {
                let (x, y) = (patch.at[0] + column, patch.at[1] + row);
                if x >= self.width {
                    continue;
                }
                if let Some(pixel) = self.pixels.get_mut(y * self.width + x) {
                    // The old pixel shines through. This is exact for masks, whose pixels are
                    // opaque or fully transparent.
                    *pixel = match (patch.blend, alpha) {
                        (true, 0) => *pixel,
                        (true, 1..=254) => {
                            let share = u16::from(alpha);
                            let mixed = (u16::from(gray) * share + u16::from(pixel[0]) * (255 - share)) / 255;
                            [mixed as u8, pixel[1].max(alpha)]
                        }
                        _ => [gray, alpha],
                    };
                }
            }
        }
    }

    fn clear(&mut self, at: [usize; 2], size: [usize; 2]) {
        let pixels = vec![[0; 2]; size[0] * size[1]];
        self.draw(&Patch { at, size, pixels: &pixels, blend: false });
    }
}

/// Brightness of 8-bit sRGB with the weights of ITU-R BT.601.
fn gray(rgb: &[u8]) -> u8 {
    let [r, g, b] = [0, 1, 2].map(|i| u32::from(rgb[i]));
    ((299 * r + 587 * g + 114 * b + 500) / 1000) as u8
}

fn decode_png(bytes: &[u8], budget: &mut Budget, most: usize) -> Result<Vec<GrayFrame>, String> {
    use png::{BlendOp, ColorType, Decoder, DisposeOp, Limits, Transformations};
    let text = |error: png::DecodingError| format!("the PNG does not decode: {error}");
    let limits = Limits { bytes: 64 << 20 };
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), limits);
    decoder.set_transformations(Transformations::normalize_to_color8());
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let mut reader = decoder.read_info().map_err(text)?;
    let (width, height) = reader.info().size();
    let pixels = u64::from(width) * u64::from(height);
    if pixels > bytes.len() as u64 * PNG_RATIO {
        return Err(format!("{width}x{height} pixels cannot be in {} bytes", bytes.len()));
    }
    budget.take(width.into(), height.into())?;
    let count = reader.info().animation_control().map_or(1, |control| control.num_frames as usize);
    let mut screen = Screen::new(width as usize, height as usize);
    let mut raw = vec![0; reader.output_buffer_size().ok_or("the PNG is too large")?];
    let mut all = Vec::new();
    // A picture before the animation is for programs that do not support animations.
    if reader.info().animation_control().is_some() && reader.info().frame_control().is_none() {
        reader.next_frame(&mut raw).map_err(text)?;
    }
    while all.len() < count.min(most) {
        let info = reader.next_frame(&mut raw).map_err(text)?;
        let control = reader.info().frame_control().copied().filter(|_| reader.info().animation_control().is_some());
        let size = [info.width as usize, info.height as usize];
        let at = control.map_or([0; 2], |control| [control.x_offset as usize, control.y_offset as usize]);
        let channels = info.color_type.samples();
        let pixels: Vec<[u8; 2]> = raw[..info.buffer_size()]
            .chunks_exact(channels)
            .map(|pixel| match info.color_type {
                ColorType::Rgb => [gray(pixel), 255],
                ColorType::Rgba => [gray(pixel), pixel[3]],
                ColorType::GrayscaleAlpha => [pixel[0], pixel[1]],
                _ => [pixel[0], 255],
            })
            .collect();
        if !all.is_empty() {
            budget.take(width.into(), height.into())?;
        }
        let blend = control.is_some_and(|control| control.blend_op == BlendOp::Over);
        let dispose = control.map_or(DisposeOp::None, |control| control.dispose_op);
        let before = (dispose == DisposeOp::Previous).then(|| screen.pixels.clone());
        screen.draw(&Patch { at, size, pixels: &pixels, blend });
        all.push(screen.frame());
        match (dispose, before) {
            (DisposeOp::Background, _) => screen.clear(at, size),
            (DisposeOp::Previous, Some(before)) => screen.pixels = before,
            _ => {}
        }
    }
    Ok(all)
}

fn decode_gif(bytes: &[u8], budget: &mut Budget, most: usize) -> Result<Vec<GrayFrame>, String> {
    use gif::{ColorOutput, DecodeOptions, DisposalMethod, MemoryLimit};
    let text = |error: gif::DecodingError| format!("the GIF does not decode: {error}");
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::RGBA);
    if let Some(limit) = std::num::NonZeroU64::new(4 * MOST_PIXELS) {
        options.set_memory_limit(MemoryLimit::Bytes(limit));
    }
    options.check_frame_consistency(true);
    let mut decoder = options.read_info(Cursor::new(bytes)).map_err(text)?;
    let (width, height) = (usize::from(decoder.width()), usize::from(decoder.height()));
    budget.take(width as u64, height as u64)?;
    let mut screen: Option<Screen> = None;
    let mut all = Vec::new();
    while all.len() < most {
        let Some(frame) = decoder.read_next_frame().map_err(text)? else { break };
        if screen.is_some() {
            budget.take(width as u64, height as u64)?;
        }
        // The screen is allocated after the first frame has decoded, so a header alone cannot ask
        // for memory.
        let screen = screen.get_or_insert_with(|| Screen::new(width, height));
        let at = [frame.left.into(), frame.top.into()];
        let size = [frame.width.into(), frame.height.into()];
        let pixels: Vec<[u8; 2]> = frame.buffer.chunks_exact(4).map(|pixel| [gray(pixel), pixel[3]]).collect();
        let before = (frame.dispose == DisposalMethod::Previous).then(|| screen.pixels.clone());
        screen.draw(&Patch { at, size, pixels: &pixels, blend: true });
        all.push(screen.frame());
        match (frame.dispose, before) {
            (DisposalMethod::Background, _) => screen.clear(at, size),
            (DisposalMethod::Previous, Some(before)) => screen.pixels = before,
            _ => {}
        }
    }
    if all.is_empty() { Err("the GIF has no frames".into()) } else { Ok(all) }
}

#[cfg(test)]
mod tests;

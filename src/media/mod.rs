//! Room `media`: frames in, picture and video files out. It knows no other room.
//!
//! [`write()`] picks the format by the path:
//!
//! | path | format | lossless | carries the settings in |
//! |---|---|---|---|
//! | `NAME.mp4` | H.264 High 4:2:0, CABAC, constant quantizer, in an MP4 that starts playing before it is loaded | nearly | `udta/meta/ilst/©cmt` |
//! | `NAME.gif` | one palette for the clip, ordered dither, loops for ever | no | comment extension |
//! | `NAME.png` | APNG, loops for ever (a plain PNG for one frame) | yes | `iTXt` chunk `ditscope` |
//! | `NAME.y4m` | YUV4MPEG2 4:4:4 | up to rounding to 8-bit YCbCr | `NAME.settings.json` beside it: readers limit the header to some 90 bytes |
//! | `NAME/` | `0000.png`, `0001.png`, ... | yes | `settings.json` in the folder, and in every PNG |
//!
//! **Why H.264**: of the codecs with an encoder in pure Rust under a permissive licence it is the only one that every
//! browser and every system's own player decodes (AV1 lacks Safari before Apple's M3 and QuickTime, and Windows without an
//! extension). 4:2:0 for the same reason: 4:4:4 profiles play in few places. So luma is nearly lossless (50 dB and more), and
//! finely coloured detail loses some of its colour. An odd width or height grows by one pixel.
//!
//! A file appears whole or not at all: everything is written beside its place and renamed.

mod color;
mod colormap;
pub mod figure;
mod gif;
mod h264;
mod mp4;
mod png;
mod read;
mod save;
mod settings;
mod sheet;
mod y4m;

use std::path::{Path, PathBuf};

pub use colormap::Colormap;
pub use read::{GrayFrame, read_gray};
pub use settings::read_settings;
pub use sheet::{check_grid, grid, strip};

/// The largest width and height, in pixels. (MP4 has a limit of its own on the area: 9.4 million pixels.)
pub const MAX_SIDE: u32 = 8192;
/// The highest frame rate, in frames a second.
pub const MAX_FPS: u32 = 240;

/// What can go wrong between frames and files.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// There is nothing to write.
    #[error("the clip has no frames; generate at least one")]
    NoFrames,
    /// Width or height is 0 or beyond [`MAX_SIDE`].
    #[error("frames of {width}x{height} pixels cannot be written; each side must be 1 to {MAX_SIDE}")]
    Size {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// More pixels than an MP4 may have.
    #[error(
        "frames of {width}x{height} pixels are larger than any level of H.264 in use allows; a .png or a folder takes them"
    )]
    TooLargeForMp4 {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
    },
    /// A frame's bytes do not fit the clip's size.
    #[error("frame {index} has {actual} bytes, but {expected} are width x height x 3")]
    FrameSize {
        /// Which frame, from 0.
        index: usize,
        /// `width * height * 3`.
        expected: usize,
        /// What the frame holds.
        actual: usize,
    },
    /// The frame rate is 0 or beyond [`MAX_FPS`].
    #[error("{0} frames a second cannot be written; use 1 to {MAX_FPS}")]
    Fps(u32),
    /// The path's extension names no format.
    #[error("{}: the extension names no known format; use .mp4, .gif, .png (animated), .y4m, or a path ending in / for a folder of PNG files", .0.display())]
    UnknownExtension(PathBuf),
    /// The folder to write frames into has files in it.
    #[error("{}: the folder is not empty; name a new one, or empty it first", .0.display())]
    FolderNotEmpty(PathBuf),
    /// The operating system refused.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The output, not the temporary file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The operating system refused.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Pictures that do not decode, or are too large to.
    #[error("{}: {reason}", path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An encoder refused what passed the checks above.
    #[error("the {format} encoder failed: {reason}; try another format")]
    Encode {
        /// The format's name.
        format: &'static str,
        /// The encoder's words.
        reason: String,
    },
}

impl MediaError {
    /// Whether the caller asked for something impossible, as opposed to something that failed.
    pub fn is_wrong_use(&self) -> bool {
        matches!(
            self,
            Self::UnknownExtension(_) | Self::FolderNotEmpty(_) | Self::Size { .. } | Self::TooLargeForMp4 { .. }
        )
    }
}

/// Frames of one size, to be shown at a steady rate: sRGB, 8 bits, rows from the top, `R G B` without padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clip {
    width: u32,
    height: u32,
    fps: u32,
    frames: Vec<Vec<u8>>,
}

impl Clip {
    /// A clip of `frames`, each `width * height * 3` bytes, at `fps` frames a second.
    ///
    /// # Errors
    /// No frames, a side of 0 or over [`MAX_SIDE`], a rate of 0 or over [`MAX_FPS`], or a frame of another size.
    pub fn new(width: u32, height: u32, fps: u32, frames: Vec<Vec<u8>>) -> Result<Self, MediaError> {
        check_size(width, height)?;
        if !(1..=MAX_FPS).contains(&fps) {
            return Err(MediaError::Fps(fps));
        }
        if frames.is_empty() {
            return Err(MediaError::NoFrames);
        }
        let expected = width as usize * height as usize * 3;
        if let Some((index, frame)) = frames.iter().enumerate().find(|(_, frame)| frame.len() != expected) {
            return Err(MediaError::FrameSize { index, expected, actual: frame.len() });
        }
        Ok(Self { width, height, fps, frames })
    }

    /// Width in pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Frames a second.
    pub fn fps(&self) -> u32 {
        self.fps
    }

    /// The frames, each `width * height * 3` bytes of RGB.
    pub fn frames(&self) -> &[Vec<u8>] {
        &self.frames
    }
}

/// Writes bytes beside `path` and renames them into place: the file appears whole or not at all.
///
/// # Errors
/// [`MediaError::Write`].
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), MediaError> {
    save::file(path, bytes)
}

/// Writes `clip` to `path` in the format that the path names (see the table above), with `settings` inside: any text,
/// by habit the JSON of what made the clip; empty for none.
///
/// # Errors
/// [`MediaError::UnknownExtension`], [`MediaError::FolderNotEmpty`], [`MediaError::Write`] (a full disk, a missing folder),
/// [`MediaError::Encode`]. Whatever the error, nothing half-written is left and an older file keeps its content.
pub fn write(path: &Path, clip: &Clip, settings: &str) -> Result<(), MediaError> {
    let format = Format::of(path)?;
    match format {
        Format::Folder => save::folder(path, &folder_files(clip, settings)?),
        Format::Mp4 => save::file(path, &mp4::encode(clip, settings)?),
        Format::Gif => save::file(path, &gif::encode(clip, settings)?),
        Format::Png => save::file(path, &png::encode(clip, settings)?),
        Format::Y4m => {
            save::file(path, &y4m::encode(clip))?;
            if settings.is_empty() { Ok(()) } else { save::file(&settings::sidecar(path), settings.as_bytes()) }
        }
    }
}

/// Says whether [`write()`] can write clips of this size to `path`, so that a program can refuse before it has worked for minutes.
///
/// # Errors
/// Those of [`check_path`]; [`MediaError::Size`] or [`MediaError::TooLargeForMp4`] for frames that are too large.
pub fn check_clip(path: &Path, width: usize, height: usize) -> Result<(), MediaError> {
    check_path(path)?;
    let side = |pixels: usize| u32::try_from(pixels).unwrap_or(u32::MAX);
    check_size(side(width), side(height))?;
    if Format::of(path)? == Format::Mp4 { h264::check_size(width, height) } else { Ok(()) }
}

fn check_size(width: u32, height: u32) -> Result<(), MediaError> {
    let side = 1..=MAX_SIDE;
    let fits = side.contains(&width) && side.contains(&height);
    if fits { Ok(()) } else { Err(MediaError::Size { width, height }) }
}

/// Says whether [`write()`] knows what to do with `path`.
///
/// # Errors
/// [`MediaError::UnknownExtension`]; [`MediaError::FolderNotEmpty`]; those of [`check_place`].
pub fn check_path(path: &Path) -> Result<(), MediaError> {
    if Format::of(path)? == Format::Folder {
        save::check_folder(path)?;
        return save::try_folder_beside(path).map_err(|source| MediaError::Write { path: path.into(), source });
    }
    check_place(path)
}

/// Says whether a file can be written at `path`, by making one beside it that is gone again at once.
///
/// # Errors
/// [`MediaError::Write`] when the folder to write in does not exist or may not be written to, or when something else than a file
/// has that name.
pub fn check_place(path: &Path) -> Result<(), MediaError> {
    save::file_beside(path).map(drop).map_err(|source| MediaError::Write { path: path.into(), source })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Mp4,
    Gif,
    Png,
    Y4m,
    Folder,
}

impl Format {
    fn of(path: &Path) -> Result<Self, MediaError> {
        if path.to_string_lossy().ends_with(std::path::is_separator) || path.is_dir() {
            return Ok(Self::Folder);
        }
        let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
        match extension.as_deref() {
            Some("mp4") => Ok(Self::Mp4),
            Some("gif") => Ok(Self::Gif),
            Some("png" | "apng") => Ok(Self::Png),
            Some("y4m") => Ok(Self::Y4m),
            _ => Err(MediaError::UnknownExtension(path.into())),
        }
    }
}

fn folder_files(clip: &Clip, settings: &str) -> Result<Vec<(String, Vec<u8>)>, MediaError> {
    let mut files = Vec::with_capacity(clip.frames.len() + 1);
    for (index, frame) in clip.frames.iter().enumerate() {
        files.push((format!("{index:04}.png"), png::encode_still(clip, frame, settings)?));
    }
    if !settings.is_empty() {
        files.push((settings::FOLDER_FILE.into(), settings.into()));
    }
    Ok(files)
}

#[cfg(test)]
mod tests;

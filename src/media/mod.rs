//! Room `media`: writes frames to picture and video files, and reads masks. The room knows no other
//! room but the limits of `sampling`.
//!
//! [`write()`] chooses the format by the path:
//!
//! | path | format | lossless | place of the settings |
//! |---|---|---|---|
//! | `NAME.mp4` | H.264 in MP4 | nearly | comment in `udta/meta/ilst/©cmt` |
//! | `NAME.gif` | GIF with one palette and an ordered dither | no | comment extension |
//! | `NAME.png` | APNG, or PNG for one frame | yes | `iTXt` chunk `ditscope` |
//! | `NAME.y4m` | YUV4MPEG2 4:4:4 | up to rounding | `NAME.settings.json` beside the file |
//! | `NAME/` | `0000.png`, `0001.png`, ... | yes | every PNG, and `settings.json` in the folder |
//!
//! GIF and APNG loop forever. MP4 is H.264 High 4:2:0 with CABAC and a constant quantizer, and can
//! start to play before it is loaded. Y4M rounds to 8-bit YCbCr; its header has no room for
//! settings.
//!
//! **Why H.264**: several codecs have an encoder in pure Rust under a permissive licence. Of these
//! codecs, only H.264 is decoded by every browser and by every system's own player. AV1 does not
//! play in Safari before Apple's M3, in QuickTime, or in Windows without an extension. The program
//! writes 4:2:0 because few players take 4:4:4. Luma is therefore nearly lossless (50 dB and more),
//! while fine coloured detail loses some of its colour. An odd width or height grows by one pixel.
//!
//! A file appears whole or not at all, because every file is first written under a temporary name
//! and then renamed.

mod color;
mod colormap;
pub mod figure;
mod gif;
mod h264;
mod mp4;
mod page;
mod png;
mod read;
mod save;
mod settings;
mod sheet;
mod text;
mod y4m;

use std::path::{Path, PathBuf};

use crate::sampling::limits;
pub use colormap::Colormap;
pub use page::{Page, Table, TableCell};
pub use read::{GrayFrame, read_gray};

pub use settings::read_settings;
pub use sheet::{SHEET_GAP, SheetCell, SheetShape, check_grid, grid, headed, strip};
pub use text::csv_cell;

/// The largest width and height, in pixels. MP4 also limits the area to 9.4 million pixels.
pub const MAX_SIDE: u32 = limits::LARGEST_STORED_SIDE as u32;
/// The highest frame rate, in frames per second.
pub const MAX_FPS: u32 = limits::MOST_FPS;

/// Why a picture or video file cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MediaError {
    /// The clip has no frames.
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
    /// The frames have more pixels than an MP4 may have.
    #[error(
        "frames of {width}x{height} pixels are larger than any level of H.264 in use allows; a .png or a folder takes them"
    )]
    TooLargeForMp4 {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
    },
    /// A frame has more or fewer bytes than the clip's size asks for.
    #[error("frame {index} has {actual} bytes, but {expected} are width x height x 3")]
    FrameSize {
        /// Index of the frame, from 0.
        index: usize,
        /// `width * height * 3`.
        expected: usize,
        /// Number of bytes in the frame.
        actual: usize,
    },
    /// The frame rate is 0 or beyond [`MAX_FPS`].
    #[error("{0} frames a second cannot be written; use 1 to {MAX_FPS}")]
    Fps(u32),
    /// The path's extension names no format.
    #[error("{}: the extension names no known format; use {} (.png is animated), or a path ending in / for a folder of PNG files", .0.display(), endings())]
    UnknownExtension(PathBuf),
    /// The folder for the frames is not empty.
    #[error("{}: the folder is not empty; name a new one, or empty it first", .0.display())]
    FolderNotEmpty(PathBuf),
    /// The operating system refused to write.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The output, not the temporary file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The clip could not be written where it was wanted, and was written elsewhere.
    #[error("{source}; the clip is in {}", place.display())]
    Elsewhere {
        /// Where the clip is.
        place: PathBuf,
        /// Why it is not where it was wanted.
        source: Box<MediaError>,
    },
    /// The operating system refused to read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A picture cannot be decoded or is too large.
    #[error("{}: {reason}", path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An encoder refused a clip that had passed all checks.
    #[error("the {format} encoder failed: {reason}; try another format")]
    Encode {
        /// The format's name.
        format: &'static str,
        /// The encoder's message.
        reason: String,
    },
}

impl MediaError {
    /// Whether the caller asked for something impossible. All other errors are failures of a
    /// possible request.
    pub fn is_wrong_use(&self) -> bool {
        matches!(
            self,
            Self::UnknownExtension(_) | Self::FolderNotEmpty(_) | Self::Size { .. } | Self::TooLargeForMp4 { .. }
        )
    }
}

/// Frames of one size that are shown at a steady rate. The pixels are 8-bit sRGB: rows from top to
/// bottom, `R G B` for each pixel, without padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clip {
    width: u32,
    height: u32,
    fps: u32,
    frames: Vec<Vec<u8>>,
}

impl Clip {
    /// A clip of `frames` at `fps` frames per second. Each frame has `width * height * 3` bytes.
    ///
    /// # Errors
    /// [`MediaError::NoFrames`]; [`MediaError::Size`] for a side of 0 or over [`MAX_SIDE`];
    /// [`MediaError::Fps`] for a rate of 0 or over [`MAX_FPS`]; [`MediaError::FrameSize`].
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

    /// Frames per second.
    pub fn fps(&self) -> u32 {
        self.fps
    }

    /// The frames, each `width * height * 3` bytes of RGB.
    pub fn frames(&self) -> &[Vec<u8>] {
        &self.frames
    }
}

/// Writes a file at `path`, whole or not at all. The bytes go to a temporary file in the same
/// folder, which is then renamed.
///
/// # Errors
/// [`MediaError::Write`].
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), MediaError> {
    save::file(path, bytes)
}

/// The bytes of `clip` as an MP4 file. `settings` are stored in the file unless they are empty.
///
/// # Errors
/// [`MediaError::TooLargeForMp4`]; [`MediaError::Encode`].
pub fn mp4_bytes(clip: &Clip, settings: &str) -> Result<Vec<u8>, MediaError> {
    mp4::encode(clip, settings)
}

/// The bytes of `clip` as a PNG file, animated if there are several frames.
///
/// # Errors
/// [`MediaError::Encode`].
pub fn png_bytes(clip: &Clip) -> Result<Vec<u8>, MediaError> {
    png::encode(clip, "")
}

/// Writes `clip` to `path` in the format that the path names (see the table above).
///
/// The file also holds `settings`. This may be any text; the program stores the JSON of the
/// settings that made the clip. An empty text is not stored.
///
/// # Errors
/// [`MediaError::UnknownExtension`]; [`MediaError::FolderNotEmpty`]; [`MediaError::Write`], for
/// example for a full disk or a missing folder; [`MediaError::TooLargeForMp4`];
/// [`MediaError::Encode`]. No error leaves a partial file, and an older file keeps its content.
pub fn write(path: &Path, clip: &Clip, settings: &str) -> Result<(), MediaError> {
    let Some(format) = Format::of(path)? else { return save::folder(path, &folder_files(clip, settings)?) };
    save::file(path, &(format.encode)(clip, settings)?)?;
    match format.place {
        Place::Beside(_) if !settings.is_empty() => save::file(&settings::sidecar(path), settings.as_bytes()),
        _ => Ok(()),
    }
}

/// Checks that [`write()`] can write clips of this size to `path`. A program can thus refuse a
/// request before it has worked for minutes.
///
/// # Errors
/// The errors of [`check_path`]; [`MediaError::Size`] or [`MediaError::TooLargeForMp4`] for frames
/// that are too large.
pub fn check_clip(path: &Path, width: usize, height: usize) -> Result<(), MediaError> {
    check_path(path)?;
    let side = |pixels: usize| u32::try_from(pixels).unwrap_or(u32::MAX);
    check_size(side(width), side(height))?;
    Format::of(path)?.map_or(Ok(()), |format| (format.check_size)(width, height))
}

fn check_size(width: u32, height: u32) -> Result<(), MediaError> {
    let side = 1..=MAX_SIDE;
    let fits = side.contains(&width) && side.contains(&height);
    if fits { Ok(()) } else { Err(MediaError::Size { width, height }) }
}

/// Checks that [`write()`] knows the format of `path` and can write there.
///
/// # Errors
/// [`MediaError::UnknownExtension`]; [`MediaError::FolderNotEmpty`]; the errors of [`check_place`].
pub fn check_path(path: &Path) -> Result<(), MediaError> {
    if Format::of(path)?.is_none() {
        save::check_folder(path)?;
        return save::try_folder(path).map_err(|source| MediaError::Write { path: path.into(), source });
    }
    save::try_file(path, true).map_err(|source| MediaError::Write { path: path.into(), source })
}

/// Checks that a file can be written at `path`. To do so it creates a small temporary file in
/// the same folder and removes it again.
///
/// # Errors
/// [`MediaError::Write`] if the folder does not exist, is not writable or is full, or if `path`
/// exists and is not a file.
pub fn check_place(path: &Path) -> Result<(), MediaError> {
    save::try_file(path, false).map_err(|source| MediaError::Write { path: path.into(), source })
}

/// The place at which a file called `path` is written: `path`, or the target of a link.
///
/// # Errors
/// [`MediaError::Write`] for links that go round in a circle.
pub fn target(path: &Path) -> Result<PathBuf, MediaError> {
    save::target(path).map_err(|source| MediaError::Write { path: path.into(), source })
}

/// Writes a clip as [`write()`] does. If that fails, the clip goes to the system's folder for
/// temporary files, so that the work is not lost.
///
/// # Errors
/// [`MediaError::Elsewhere`] with the place of the clip; the errors of [`write()`] if the clip
/// could not be written there either.
pub fn write_or_keep(path: &Path, clip: &Clip, settings: &str) -> Result<(), MediaError> {
    let Err(error) = write(path, clip, settings) else { return Ok(()) };
    match keep_in(&std::env::temp_dir(), path, clip, settings) {
        Some(place) => Err(MediaError::Elsewhere { place, source: Box::new(error) }),
        None => Err(error),
    }
}

/// Writes a clip into `folder`, under the name of `path` or the same with a number. An unknown
/// format becomes a PNG.
fn keep_in(folder: &Path, path: &Path, clip: &Clip, settings: &str) -> Option<PathBuf> {
    let plain: PathBuf = path.components().collect();
    let stem = plain.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let end = match Format::of(path) {
        Ok(None) | Err(_) => "png".into(),
        Ok(Some(_)) => path.extension().unwrap_or_default().to_string_lossy().into_owned(),
    };
    let places = (0..1000).map(|number| folder.join(format!("ditscope-{stem}-{number}.{end}")));
    let place = places.into_iter().find(|place| !place.exists())?;
    write(&place, clip, settings).is_ok().then_some(place)
}

/// A name that every system takes as the name of a file: other characters become `-`, and names
/// that Windows reserves for devices get a `-` at their end.
pub fn portable_name(name: &str) -> String {
    const DEVICES: [&str; 4] = ["con", "prn", "aux", "nul"];
    let taken = |c: char| c.is_control() || r#"<>:"/\|?*"#.contains(c);
    let name: String = name.chars().map(|c| if taken(c) { '-' } else { c }).collect();
    let name = name.trim_end_matches(['.', ' ']);
    let stem = name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let numbered =
        |kind: &str| stem.strip_prefix(kind).is_some_and(|n| n.len() == 1 && n != "0" && n.parse::<u8>().is_ok());
    let is_device = DEVICES.contains(&stem.as_str()) || numbered("com") || numbered("lpt");
    match name.split_once('.') {
        Some((stem, end)) if is_device => format!("{stem}-.{end}"),
        None if is_device => format!("{name}-"),
        _ => name.to_owned(),
    }
}

/// The place of the settings of a clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In the file.
    Inside,
    /// In a file beside it, see [`settings::sidecar`]. Files of the format begin with these bytes.
    Beside(&'static [u8]),
}

/// A format of files that hold a clip.
struct Format {
    /// The name in the window, and the extensions in lower case. The first one is the usual one.
    kind: (&'static str, &'static [&'static str]),
    /// Makes the bytes of the file, with the settings inside or without.
    encode: fn(&Clip, &str) -> Result<Vec<u8>, MediaError>,
    /// Refuses frames of a width and height that are too large for the format.
    check_size: fn(usize, usize) -> Result<(), MediaError>,
    place: Place,
}

/// All formats besides the folder, in the order of messages and of the window's dialog.
const FORMATS: &[Format] = &[
    Format { check_size: h264::check_size, ..Format::new(("MP4", &["mp4"]), mp4::encode) },
    Format::new(("Animated PNG", &["png", "apng"]), png::encode),
    Format::new(("GIF", &["gif"]), gif::encode),
    Format { place: Place::Beside(b"YUV4MPEG2"), ..Format::new(("Y4M", &["y4m"]), |clip, _| Ok(y4m::encode(clip))) },
];

/// The kinds of files that [`write()`] makes: their names, and their extensions in lower case.
pub const KINDS: &[(&str, &[&str])] = &{
    let mut kinds: [(&str, &[&str]); FORMATS.len()] = [("", &[]); FORMATS.len()];
    let mut index = 0;
    while index < FORMATS.len() {
        kinds[index] = FORMATS[index].kind;
        index += 1;
    }
    kinds
};

/// The endings of the files that [`write()`] makes, for messages: `.mp4, .png, .gif, .y4m`.
pub fn endings() -> String {
    KINDS.iter().map(|(_, extensions)| format!(".{}", extensions[0])).collect::<Vec<_>>().join(", ")
}

impl Format {
    /// A format with the settings inside, for frames of any size.
    const fn new(
        kind: (&'static str, &'static [&'static str]),
        encode: fn(&Clip, &str) -> Result<Vec<u8>, MediaError>,
    ) -> Self {
        Self { kind, encode, check_size: |_, _| Ok(()), place: Place::Inside }
    }

    /// The format of a path; `None` for a folder.
    fn of(path: &Path) -> Result<Option<&'static Self>, MediaError> {
        if path.to_string_lossy().ends_with(std::path::is_separator) || path.is_dir() {
            return Ok(None);
        }
        let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
        let named = |format: &&Self| extension.as_deref().is_some_and(|name| format.kind.1.contains(&name));
        FORMATS.iter().find(named).map(Some).ok_or_else(|| MediaError::UnknownExtension(path.into()))
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

//! The settings inside the written files: where each format keeps them and how they are found
//! again. Files may come from anywhere, so every read is checked, and at most [`SEARCHED`] bytes
//! are read.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::{FORMATS, Format, MediaError, Place};

pub(super) const PNG_KEYWORD: &str = "ditscope";
pub(super) const FOLDER_FILE: &str = "settings.json";
/// Number of bytes that are searched. This program writes the settings before the pictures, so they
/// are near the start of the file.
const SEARCHED: u64 = 16 << 20;
/// Path of the settings in an MP4. As in files of iTunes, `©cmt` is the comment and `data` holds
/// its text.
const MP4_PATH: [&[u8; 4]; 6] = [b"moov", b"udta", b"meta", b"ilst", b"\xa9cmt", b"data"];

/// The file beside `path` that holds the settings for a format without room for them:
/// `clip.settings.json` for `clip.y4m`.
pub(super) fn sidecar(path: &Path) -> PathBuf {
    path.with_extension(FOLDER_FILE)
}

/// The settings that [`write()`](super::write()) stored in the file or folder at `path`. `None` if
/// there are no settings or if the file has another format.
///
/// # Errors
/// [`MediaError::Read`] if the file cannot be read.
pub fn read_settings(path: &Path) -> Result<Option<String>, MediaError> {
    if path.is_dir() {
        return read_beside(&path.join(FOLDER_FILE));
    }
    let bytes = read_start(path).map_err(|source| MediaError::Read { path: path.into(), source })?;
    let beside = |format: &Format| matches!(format.place, Place::Beside(start) if bytes.starts_with(start));
    if FORMATS.iter().any(beside) {
        return read_beside(&sidecar(path));
    }
    Ok(find(&bytes).map(|text| String::from_utf8_lossy(&text).into_owned()))
}

/// The settings in a file of their own, if the file exists.
fn read_beside(path: &Path) -> Result<Option<String>, MediaError> {
    match read_start(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(MediaError::Read { path: path.into(), source }),
    }
}

fn read_start(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(SEARCHED).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Finds the settings in the first bytes of a PNG, GIF or MP4.
pub(super) fn find(bytes: &[u8]) -> Option<Vec<u8>> {
    if let Some(chunks) = bytes.strip_prefix(b"\x89PNG\r\n\x1a\n") {
        find_in_png(chunks)
    } else if bytes.starts_with(b"GIF8") {
        find_in_gif(bytes)
    } else {
        find_in_mp4(bytes, &MP4_PATH)
    }
}

/// Takes `count` bytes from the front.
fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    let taken = take(bytes, 4)?;
    taken.try_into().ok().map(u32::from_be_bytes)
}

/// Finds the iTXt chunk. Each chunk consists of length, type, data and checksum. The data of iTXt
/// are the keyword, 0, two bytes of compression (none), two empty strings and the text.
fn find_in_png(mut chunks: &[u8]) -> Option<Vec<u8>> {
    loop {
        let length = take_u32(&mut chunks)?;
        let kind = take(&mut chunks, 4)?;
        let data = take(&mut chunks, length as usize)?;
        take(&mut chunks, 4)?;
        let text = data.strip_prefix(PNG_KEYWORD.as_bytes()).and_then(|rest| rest.strip_prefix(&[0, 0, 0, 0, 0]));
        if let (b"iTXt", Some(text)) = (kind, text) {
            return Some(text.into());
        }
    }
}

/// Finds the comment. After the header and the colour table come extensions up to the first
/// picture. A comment is 0x21 0xfe and sub-blocks of up to 255 bytes.
fn find_in_gif(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let header = take(&mut bytes, 13)?;
    if header[10] & 0x80 != 0 {
        take(&mut bytes, 3 << ((header[10] & 7) + 1))?;
    }
    loop {
        let [0x21, label] = take(&mut bytes, 2)? else { return None };
        let mut data = Vec::new();
        loop {
            match take(&mut bytes, 1)?[0] {
                0 => break,
                count => data.extend(take(&mut bytes, count.into())?),
            }
        }
        if *label == 0xfe {
            return Some(data);
        }
    }
}

/// Finds the content of the box at `path`. Each box consists of length, type and content, and may
/// contain further boxes.
fn find_in_mp4(mut boxes: &[u8], path: &[&[u8; 4]]) -> Option<Vec<u8>> {
    let (wanted, inner) = path.split_first()?;
    loop {
        let length = take_u32(&mut boxes)? as usize;
        let kind = take(&mut boxes, 4)?;
        let mut content = take(&mut boxes, length.checked_sub(8)?)?;
        if kind != wanted.as_slice() {
            continue;
        }
        match *wanted {
            b"meta" => drop(take(&mut content, 4)?), // version and flags
            b"data" => drop(take(&mut content, 8)?), // type and locale
            _ => {}
        }
        return if inner.is_empty() { Some(content.into()) } else { find_in_mp4(content, inner) };
    }
}

//! Finds the files within a zip archive. Only stored (uncompressed) entries are supported, because
//! torch writes no others.
//!
//! Format: PKWARE APPNOTE 6.3.10, sections 4.3.7 (local header), 4.3.12 (central directory), 4.3.14
//! to 4.3.16 (end of the central directory, also in zip64) and 4.5.3 (zip64 extra field).

use crate::weights::WeightsError;
use crate::weights::bytes::Cursor;
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

const LOCAL_HEADER: u32 = 0x0403_4b50;
const DIRECTORY_ENTRY: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
const END_64: u32 = 0x0606_4b50;
const LOCATOR_64: u32 = 0x0706_4b50;
/// Size of the end record without its comment.
const END_SIZE: usize = 22;
const LONGEST_COMMENT: usize = 0xFFFF;
/// A 32-bit field with this value says that the real value is in the zip64 extra field.
const IN_ZIP64: u64 = 0xFFFF_FFFF;
const ZIP64_FIELD: u16 = 1;
const ENCRYPTED: u16 = 1;

/// One entry of the central directory.
struct Listed<'a> {
    name: &'a [u8],
    flags: u16,
    method: u16,
    size: u64,
    /// Position of the entry's local header in the file.
    header: u64,
}

/// Maps the name of each file in the archive to its byte range in `file`.
///
/// # Errors
/// [`WeightsError::Malformed`] if a record is cut short or points outside the file.
/// [`WeightsError::Unsupported`] if its entries are compressed or encrypted.
pub(super) fn read<'a>(path: &Path, file: &'a [u8]) -> Result<HashMap<&'a str, Range<usize>>, WeightsError> {
    let cut_short = || WeightsError::malformed(path, "its zip directory is cut short");
    let (mut directory, count) = directory(file).ok_or_else(cut_short)?;
    let mut files = HashMap::new();
    for _ in 0..count {
        let listed = next_entry(&mut directory).ok_or_else(cut_short)?;
        let name = std::str::from_utf8(listed.name)
            .map_err(|_| WeightsError::malformed(path, "a name in its zip directory is not UTF-8"))?;
        if listed.method != 0 || listed.flags & ENCRYPTED != 0 {
            let what = "its zip entries are compressed or encrypted; unpack it and zip it again without compression";
            return Err(WeightsError::unsupported(path, what));
        }
        files.insert(name, contents(file, &listed).ok_or_else(cut_short)?);
    }
    Ok(files)
}

/// Finds the central directory: a cursor at its first entry, and the number of entries.
fn directory(file: &[u8]) -> Option<(Cursor<'_>, u64)> {
    let earliest = file.len().saturating_sub(END_SIZE + LONGEST_COMMENT);
    let latest = file.len().checked_sub(END_SIZE)?;
    let end = (earliest..=latest).rev().find(|&at| Cursor::new(file, at).u32() == Some(END))?;
    let mut record = Cursor::new(file, end + 10);
    let count = record.u16()?;
    let _size = record.u32()?;
    let start = record.u32()?;
    if let Some(record) = end.checked_sub(20).and_then(|locator| end_64(file, locator)) {
        return directory_64(file, record);
    }
    Some((Cursor::new(file, usize::try_from(start).ok()?), count.into()))
}

/// Position of the zip64 end record, if there is a locator at `locator`.
fn end_64(file: &[u8], locator: usize) -> Option<usize> {
    let mut record = Cursor::new(file, locator);
    if record.u32()? != LOCATOR_64 {
        return None;
    }
    let _disk = record.u32()?;
    usize::try_from(record.u64()?).ok()
}

/// The same as [`directory`], read from the zip64 end record at `record`.
fn directory_64(file: &[u8], record: usize) -> Option<(Cursor<'_>, u64)> {
    let mut record = Cursor::new(file, record);
    if record.u32()? != END_64 {
        return None;
    }
    let _size_versions_and_disks = record.take(8 + 2 + 2 + 4 + 4 + 8)?;
    let count = record.u64()?;
    let _size = record.u64()?;
    let start = record.u64()?;
    Some((Cursor::new(file, usize::try_from(start).ok()?), count))
}

fn next_entry<'a>(directory: &mut Cursor<'a>) -> Option<Listed<'a>> {
    if directory.u32()? != DIRECTORY_ENTRY {
        return None;
    }
    let _versions = directory.take(4)?;
    let (flags, method) = (directory.u16()?, directory.u16()?);
    let _time_and_checksum = directory.take(8)?;
    let (packed, size) = (directory.u32()?, directory.u32()?);
    let (name, extra, comment) = (directory.u16()?, directory.u16()?, directory.u16()?);
    let _disk_and_attributes = directory.take(8)?;
    let header = directory.u32()?;
    let name = directory.take(name.into())?;
    let extra = directory.take(extra.into())?;
    let _comment = directory.take(comment.into())?;
    let mut wide = [size, packed, header].map(u64::from);
    widen(&mut wide, extra)?;
    let [size, _packed, header] = wide;
    Some(Listed { name, flags, method, size, header })
}

/// Replaces the fields that are too large for 32 bits by their values in the zip64 extra field. The
/// extra field holds only these fields, in the order of `fields`.
fn widen(fields: &mut [u64; 3], extra: &[u8]) -> Option<()> {
    if !fields.contains(&IN_ZIP64) {
        return Some(());
    }
    let mut extra = Cursor::new(extra, 0);
    loop {
        let (id, size) = (extra.u16()?, extra.u16()?);
        let body = extra.take(size.into())?;
        if id == ZIP64_FIELD {
            let mut body = Cursor::new(body, 0);
            for field in fields.iter_mut().filter(|field| **field == IN_ZIP64) {
                *field = body.u64()?;
            }
            return Some(());
        }
    }
}

/// The byte range of the entry's contents, which follow its local header. The local header has an
/// extra field of its own, which aligns the contents.
fn contents(file: &[u8], listed: &Listed<'_>) -> Option<Range<usize>> {
    let mut header = Cursor::new(file, usize::try_from(listed.header).ok()?);
    if header.u32()? != LOCAL_HEADER {
        return None;
    }
    let _fixed = header.take(22)?;
    let (name, extra) = (header.u16()?, header.u16()?);
    header.take(usize::from(name) + usize::from(extra))?;
    let start = header.position();
    header.take(usize::try_from(listed.size).ok()?)?;
    Some(start..header.position())
}

#[cfg(test)]
mod tests {
    use super::*;

    // The torch archive in tests/golden has zip64 end records but is too small for a zip64 extra
    // field.
    #[test]
    fn wide_fields_come_from_the_extra_field_in_order() {
        let mut extra = vec![0xAA, 0xBB, 2, 0, 9, 9, 1, 0, 16, 0];
        extra.extend((5u64 << 32).to_le_bytes());
        extra.extend((7u64 << 32).to_le_bytes());
        let mut fields = [IN_ZIP64, 12, IN_ZIP64];
        assert_eq!(widen(&mut fields, &extra), Some(()));
        assert_eq!(fields, [5 << 32, 12, 7 << 32]);
        assert_eq!(widen(&mut [IN_ZIP64; 3], &extra), None, "a third field is not there");
        assert_eq!(widen(&mut [IN_ZIP64, 0, 0], &extra[..6]), None);
        assert_eq!(widen(&mut [1, 2, 3], &[]), Some(()));
    }

    /// An archive with one stored file, without zip64.
    fn plain(method: u16, flags: u16) -> Vec<u8> {
        let short = |value: u16| value.to_le_bytes();
        let long = |value: u32| value.to_le_bytes();
        let fixed = [&short(20)[..], &short(flags), &short(method), &[0; 8], &long(3), &long(3)].concat();
        let local = [&long(LOCAL_HEADER)[..], &fixed, &short(1), &short(2), b"a", b"..", b"xyz"].concat();
        let listed =
            [&long(DIRECTORY_ENTRY)[..], &short(20), &fixed, &short(1), &[0; 4], &[0; 8], &long(0), b"a"].concat();
        let end =
            [&long(END)[..], &[0; 4], &short(1), &short(1), &long(0), &long(local.len() as u32), &short(0)].concat();
        [local, listed, end].concat()
    }

    #[test]
    fn archives_without_zip64() {
        let file = plain(0, 0);
        let files = read(Path::new("a.pth"), &file).unwrap();
        assert_eq!(&file[files["a"].clone()], b"xyz");
        for file in [plain(8, 0), plain(0, 1)] {
            let problem = read(Path::new("a.pth"), &file).unwrap_err().to_string();
            assert!(problem.contains("compressed or encrypted"), "{problem}");
        }
        for cut in 4..file.len() {
            assert!(read(Path::new("a.pth"), &file[..cut]).is_err());
        }
    }
}

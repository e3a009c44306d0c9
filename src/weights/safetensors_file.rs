//! The header of a safetensors file, parsed and checked.
//!
//! Layout: u64 header length, JSON header, tensor bytes. The `safetensors` crate reads the same
//! format. This reader also says which tensor is wrong and why, and refuses a name that occurs
//! twice (a JSON map would silently keep the last tensor of that name).

use super::checkpoint::Entry;
use super::error::shown;
use super::{DType, WeightsError};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use std::collections::HashSet;
use std::fmt;
use std::path::Path;

/// The limit that the format sets on the header, in bytes.
const LONGEST_HEADER: u64 = 100_000_000;
/// More dimensions than any model uses. The limit keeps absurd shapes out of memory.
pub(super) const MOST_DIMENSIONS: usize = 8;

#[derive(Deserialize)]
struct Info {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

/// The header's entries in file order. Two entries may still have the same name.
struct Header(Vec<(String, Info)>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut entries = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        entries.push((name, map.next_value()?));
                    }
                }
                Ok(Header(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Lists the tensors of the safetensors file whose bytes are `file`. Ranges count from the start of
/// the file.
///
/// # Errors
/// [`WeightsError::Json`] if the header cannot be parsed. [`WeightsError::Malformed`] if a byte
/// after the header belongs to no tensor or to two, or if a tensor's size disagrees with its dtype
/// and shape. [`WeightsError::Duplicate`] if a name occurs twice. [`WeightsError::Unsupported`] for
/// a Git LFS pointer.
pub(super) fn read(path: &Path, file: &[u8]) -> Result<Vec<Entry>, WeightsError> {
    let (header, data) = split(path, file)?;
    let Header(mut entries) =
        serde_json::from_slice(header).map_err(|source| WeightsError::Json { path: path.into(), source })?;
    refuse_duplicates(path, &entries)?;
    entries.sort_by_key(|(_, info)| info.data_offsets);
    let data_start = file.len() - data.len();
    let mut covered = 0;
    let mut tensors = Vec::with_capacity(entries.len());
    for (name, info) in entries {
        let (dtype, end) =
            check(&name, &info, covered, data.len()).map_err(|problem| WeightsError::malformed(path, problem))?;
        tensors.push(Entry { name, dtype, shape: info.shape, range: data_start + covered..data_start + end });
        covered = end;
    }
    if covered != data.len() {
        let surplus = data.len() - covered;
        return Err(WeightsError::malformed(path, format!("{surplus} bytes at its end belong to no tensor")));
    }
    Ok(tensors)
}

/// Splits the file into its header and its data.
fn split<'a>(path: &Path, file: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), WeightsError> {
    if file.starts_with(b"version https://git-lfs") {
        let what = "this is a Git LFS pointer, not the weights; fetch them with `git lfs pull`";
        return Err(WeightsError::unsupported(path, what));
    }
    let malformed = |problem: String| WeightsError::malformed(path, problem);
    let (length, rest) = file
        .split_first_chunk::<8>()
        .ok_or_else(|| malformed(format!("it has {} bytes, too few for a header", file.len())))?;
    let length = u64::from_le_bytes(*length);
    if length > LONGEST_HEADER {
        return Err(malformed(format!("its header claims {length} bytes; the format allows {LONGEST_HEADER}")));
    }
    usize::try_from(length)
        .ok()
        .and_then(|length| rest.split_at_checked(length))
        .ok_or_else(|| malformed(format!("its header claims {length} bytes, but only {} follow", rest.len())))
}

fn refuse_duplicates(path: &Path, entries: &[(String, Info)]) -> Result<(), WeightsError> {
    let mut seen = HashSet::with_capacity(entries.len());
    match entries.iter().find(|(name, _)| !seen.insert(name)) {
        None => Ok(()),
        Some((name, _)) => Err(WeightsError::Duplicate { name: shown(name), first: path.into(), second: path.into() }),
    }
}

/// Returns the tensor's dtype and the end of its bytes, or the problem. The bytes must start at
/// `covered` and end within `available`.
fn check(name: &str, info: &Info, covered: usize, available: usize) -> Result<(DType, usize), String> {
    let [start, end] = info.data_offsets;
    let name = shown(name);
    let dtype = DType::from_name(&info.dtype)
        .ok_or_else(|| format!("the tensor {name} has the unknown dtype {}", shown(&info.dtype)))?;
    if info.shape.len() > MOST_DIMENSIONS {
        return Err(format!("the tensor {name} has {} dimensions", info.shape.len()));
    }
    if end < start || end > available {
        return Err(format!("the tensor {name} claims bytes {start}..{end}, but the file holds {available}"));
    }
    if start != covered {
        let what = if start < covered { "overlaps the tensor before it" } else { "leaves a gap before it" };
        return Err(format!("the tensor {name} {what} (it starts at byte {start}, expected {covered})"));
    }
    if dtype.bytes_of(&info.shape) != Some(end - start) {
        let stored = end - start;
        return Err(format!("the tensor {name} has {stored} bytes, which is not {dtype} {:?}", info.shape));
    }
    Ok((dtype, end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    }

    fn problem(header: &str, data: usize) -> String {
        let error = read(Path::new("m.safetensors"), &file(header, data)).unwrap_err();
        assert!(error.to_string().contains("m.safetensors"), "{error}");
        error.to_string()
    }

    const GOOD: &str = r#"{"__metadata__":{"format":"pt"},"b":{"dtype":"F16","shape":[2,3],"data_offsets":[4,16]},
        "a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"e":{"dtype":"F32","shape":[0,7],"data_offsets":[16,16]}}"#;

    #[test]
    fn lists_tensors_in_file_order() {
        let bytes = file(GOOD, 16);
        let entries = read(Path::new("m"), &bytes).unwrap();
        let names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "e"]);
        assert_eq!(entries[1].shape, [2, 3]);
        assert_eq!(entries[1].range, bytes.len() - 12..bytes.len());
    }

    // Each line is one header that contradicts itself or its file. Each fails if its check is
    // removed from the code.
    #[test]
    fn lying_headers_are_named() {
        let one = |dtype: &str, shape: &str, offsets: &str| {
            format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
        };
        let cases = [
            (one("F32", "[4611686018427387904,4]", "[0,0]"), 0, "which is not F32"),
            (one("F32", "[2]", "[0,8]"), 4, "the file holds 4"),
            (one("F32", "[2]", "[8,0]"), 8, "claims bytes 8..0"),
            (one("F32", "[2]", "[0,18446744073709551615]"), 8, "the file holds 8"),
            (one("F16", "[2]", "[0,8]"), 8, "has 8 bytes, which is not F16 [2]"),
            (one("F32", "[2]", "[4,12]"), 12, "leaves a gap"),
            (one("F32", "[2]", "[0,8]"), 12, "4 bytes at its end"),
            (one("F31", "[2]", "[0,8]"), 8, "unknown dtype F31"),
            (one("U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]"), 1, "9 dimensions"),
        ];
        for (header, data, expected) in cases {
            let problem = problem(&header, data);
            assert!(problem.contains(expected), "{header}: {problem}");
        }
        let overlap = GOOD.replace("[4,16]", "[2,14]");
        assert!(problem(&overlap, 16).contains("the tensor b overlaps"), "{}", problem(&overlap, 16));
    }

    #[test]
    fn duplicates_json_and_lengths() {
        let twice = r#"{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#;
        assert!(problem(twice, 0).contains("stored twice"));
        for header in ["", "[]", "{", r#"{"a":1}"#, r#"{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,0]}}"#] {
            assert!(problem(header, 0).contains("JSON"), "{header}");
        }
        for bytes in [&b""[..], b"\x01\0\0", b"\xff\xff\xff\xff\xff\xff\xff\xff{}", b"\x03\0\0\0\0\0\0\0{}"] {
            assert!(matches!(read(Path::new("m"), bytes), Err(WeightsError::Malformed { .. })));
        }
        let pointer = read(Path::new("m"), b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n").unwrap_err();
        assert!(pointer.to_string().contains("git lfs pull"));
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let header = r#"{"\u001b[2J":{"dtype":"F3","shape":[],"data_offsets":[0,0]}}"#;
        assert!(!problem(header, 0).contains('\x1b'));
    }

    proptest! {
        #[test]
        fn damaged_files_never_panic(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8), cut in any::<prop::sample::Index>()) {
            let mut bytes = file(GOOD, 16);
            for (at, value) in flips {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            bytes.truncate(cut.index(bytes.len() * 2));
            if let Ok(entries) = read(Path::new("m"), &bytes) {
                for entry in entries {
                    prop_assert_eq!(entry.dtype.bytes_of(&entry.shape), Some(entry.range.len()));
                    prop_assert!(bytes.get(entry.range).is_some());
                }
            }
        }
    }
}

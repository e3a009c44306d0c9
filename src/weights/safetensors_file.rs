//! The header of a safetensors file, parsed and checked.
//!
//! Layout: u64 header length, JSON header, tensor bytes. The `safetensors` crate reads the same
//! format. This reader also says which tensor is wrong and why, and refuses a name that occurs
//! twice (a JSON map would silently keep the last tensor of that name).

use super::checkpoint::Entry;
use super::container::LONGEST_HEADER;
use super::error::shown;
use super::{DType, WeightsError};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use std::collections::HashSet;
use std::fmt;
use std::path::Path;

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
/// and shape. [`WeightsError::Duplicate`] if a name occurs twice.
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
        tensors.push(Entry {
            name,
            dtype,
            shape: info.shape,
            range: data_start + covered..data_start + end,
            strides: None,
        });
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
mod tests;

//! Torch's `.pth` and `.pt` archives. An archive is a zip of stored (uncompressed) files. One of
//! the files is a pickle that says where each tensor lies in the other files. The tensors are
//! mapped in place.
//!
//! Format: `torch/csrc/jit/serialization` and `torch/serialization.py` of PyTorch 1.6 and later.

mod pickle;
mod zip;

use super::checkpoint::Entry;
use super::error::shown;
use super::strided::span;
use super::{DType, WeightsError};
use pickle::PickledTensor;
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

/// Lists the tensors of the torch archive whose bytes are `file`. Ranges count from the start of
/// the file.
///
/// # Errors
/// [`WeightsError::Malformed`] if the archive contradicts itself. [`WeightsError::Refused`] if its
/// pickle asks for anything but tensors. [`WeightsError::Unsupported`] for compressed archives,
/// big-endian archives, and files with several dicts of tensors.
pub(super) fn read(path: &Path, file: &[u8]) -> Result<Vec<Entry>, WeightsError> {
    let archive = zip::read(path, file)?;
    let root = archive.keys().filter_map(|name| name.strip_suffix("data.pkl")).min().ok_or_else(|| {
        WeightsError::unsupported(path, "this zip archive has no data.pkl, so torch did not write it")
    })?;
    if let Some(order) = archive.get(format!("{root}byteorder").as_str()).and_then(|range| file.get(range.clone()))
        && order != b"little"
    {
        return Err(WeightsError::unsupported(path, "its numbers are big-endian; save it again on a common machine"));
    }
    let program = archive.get(format!("{root}data.pkl").as_str()).and_then(|range| file.get(range.clone()));
    let tensors = pickle::read(path, program.unwrap_or_default())?;
    tensors.into_iter().map(|tensor| place(path, &archive, root, tensor)).collect()
}

/// Finds the tensor's bytes in the archive.
fn place(
    path: &Path,
    archive: &HashMap<&str, Range<usize>>,
    root: &str,
    tensor: PickledTensor<'_>,
) -> Result<Entry, WeightsError> {
    let PickledTensor { name, dtype, shape, strides, storage, offset } = tensor;
    let stored = archive.get(format!("{root}data/{storage}").as_str()).ok_or_else(|| {
        let problem = format!("the bytes of the tensor {} (data/{}) are not in it", shown(name), shown(storage));
        WeightsError::malformed(path, problem)
    })?;
    let range = match &strides {
        Some(strides) => strided_range(stored, dtype, &shape, strides, offset),
        None => range_within(stored, dtype, &shape, offset),
    };
    let range = range.ok_or_else(|| {
        let problem = format!("the tensor {} {shape:?} does not fit in its {} bytes", shown(name), stored.len());
        WeightsError::malformed(path, problem)
    })?;
    Ok(Entry { name: name.into(), dtype, shape, range, strides })
}

/// The bytes of a tensor whose first element is number `offset` of the storage at `stored`. `None`
/// if the tensor does not fit in the storage.
fn range_within(stored: &Range<usize>, dtype: DType, shape: &[usize], offset: usize) -> Option<Range<usize>> {
    let start = stored.start.checked_add(offset.checked_mul(dtype.block().1 / 8)?)?;
    let end = start.checked_add(dtype.bytes_of(shape)?)?;
    (end <= stored.end).then_some(start..end)
}

/// The bytes from the first element to the last one of a tensor with strides. `None` if they do not
/// lie in the storage, or if the tensor repeats elements and so claims more than the storage holds.
fn strided_range(
    stored: &Range<usize>,
    dtype: DType,
    shape: &[usize],
    strides: &[usize],
    offset: usize,
) -> Option<Range<usize>> {
    let range = range_within(stored, dtype, &[span(shape, strides)?], offset)?;
    (dtype.bytes_of(shape)? <= stored.len()).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MODERN: &[u8] = include_bytes!("../../../tests/golden/weights/protocol4.pth");
    const STATE_DICT: &[u8] = include_bytes!("../../../tests/golden/weights/state_dict.pth");

    fn read_bytes(file: &[u8]) -> Result<Vec<Entry>, WeightsError> {
        read(Path::new("m.pth"), file)
    }

    /// The archive with every occurrence of `from` replaced by `to`, which has the same length.
    fn with(from: &[u8], to: &[u8]) -> Vec<u8> {
        assert_eq!(from.len(), to.len());
        let mut file = STATE_DICT.to_vec();
        let mut found = 0;
        for at in 0..=file.len() - from.len() {
            if file[at..].starts_with(from) {
                file[at..at + to.len()].copy_from_slice(to);
                found += 1;
            }
        }
        assert!(found > 0, "nothing to replace");
        file
    }

    // Torch wrote the archive (tests/golden/weights.py). It holds one tensor of each dtype, two
    // tensors that share a storage, and one with an offset. The test catches these mutations: an
    // offset in bytes instead of elements, an ignored offset, the extra field of the local header
    // not skipped, shape and stride exchanged, a storage looked up without the archive's root.
    #[test]
    fn reads_what_torch_wrote() {
        let entries = read_bytes(STATE_DICT).unwrap();
        let value = |name: &str| {
            let entry = entries.iter().find(|entry| entry.name == name).expect(name);
            (entry.shape.clone(), entry.dtype.decode(&STATE_DICT[entry.range.clone()]))
        };
        let counting = |range: std::ops::Range<u8>| Some(range.map(f32::from).collect::<Vec<_>>());
        assert_eq!(value("f32"), (vec![2, 3], counting(0..6)));
        assert_eq!(value("view"), (vec![3], counting(3..6)));
        assert_eq!(value("f16"), (vec![4], counting(0..4)));
        assert_eq!(value("bf16"), (vec![2, 1, 2], counting(0..4)));
        assert_eq!(value("f64"), (vec![], counting(7..8)));
        assert_eq!(value("empty"), (vec![0, 3], Some(vec![])));
        assert_eq!(value("column"), (vec![3, 1], counting(0..3)));
        assert_eq!(value("bytes"), (vec![2], None));
        assert_eq!(entries.len(), 8);
    }

    /// A view that repeats elements claims more than its storage holds, and one with long strides
    /// leaves it.
    #[test]
    fn strides_stay_within_the_storage() {
        let stored = 100..124;
        assert_eq!(strided_range(&stored, DType::F32, &[3, 2], &[1, 3], 0), Some(100..124));
        assert_eq!(strided_range(&stored, DType::F32, &[2], &[3], 1), Some(104..120));
        assert_eq!(strided_range(&stored, DType::F32, &[2], &[3], 3), None);
        assert_eq!(strided_range(&stored, DType::F32, &[7], &[0], 0), None);
        assert_eq!(strided_range(&stored, DType::F32, &[usize::MAX, 2], &[0, 0], 0), None);
        assert_eq!(strided_range(&stored, DType::F32, &[2, 2], &[usize::MAX, 1], 0), None);
    }

    #[test]
    fn lies_are_named() {
        // The shape (2, 3) of `f32` becomes (9, 3): larger than its storage.
        let larger = with(b"K\x02K\x03\x86", b"K\x09K\x03\x86");
        let problem = read_bytes(&larger).unwrap_err().to_string();
        assert!(problem.contains("f32") && problem.contains("does not fit"), "{problem}");
        let elsewhere = with(b"little", b"big   ");
        assert!(read_bytes(&elsewhere).unwrap_err().to_string().contains("big-endian"));
        let half = &STATE_DICT[..STATE_DICT.len() / 2];
        assert!(matches!(read_bytes(half), Err(WeightsError::Malformed { .. })));
    }

    proptest! {
        #[test]
        fn damaged_archives_never_panic(modern: bool, flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6), cut in any::<prop::sample::Index>()) {
            let mut bytes = if modern { MODERN } else { STATE_DICT }.to_vec();
            for (at, value) in flips {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            bytes.truncate(cut.index(bytes.len() * 3));
            if let Ok(entries) = read_bytes(&bytes) {
                for entry in entries {
                    let stored = entry.dtype.bytes_of(&entry.shape);
                    prop_assert!(entry.strides.is_some() || stored == Some(entry.range.len()));
                    prop_assert!(stored.is_some_and(|stored| stored <= bytes.len()));
                    prop_assert!(bytes.get(entry.range).is_some());
                }
            }
        }
    }
}

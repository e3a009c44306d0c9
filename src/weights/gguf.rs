//! GGUF files: metadata, a list of tensors, and their bytes.
//!
//! Format: `docs/gguf.md` of ggml, versions 2 and 3. Extents are listed innermost first there. A
//! converter that reshaped a tensor keeps its shape as `comfy.gguf.orig_shape.NAME`.

use super::bytes::Cursor;
use super::checkpoint::Entry;
use super::error::shown;
use super::packing::Packing;
use super::safetensors_file::MOST_DIMENSIONS;
use super::{DType, WeightsError};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

/// Where the values of a file's metadata lie, by key. Values are read when they are asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Metadata(BTreeMap<String, Place>);

#[derive(Clone, Debug)]
struct Place {
    kind: Kind,
    /// Number of values; 1 unless the value is a list.
    count: u64,
    range: Range<usize>,
}

/// The type of a value of the metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    List,
    U64,
    I64,
    F64,
}

impl Kind {
    fn of(number: u32) -> Option<Self> {
        const ALL: [Kind; 13] = [
            Kind::U8,
            Kind::I8,
            Kind::U16,
            Kind::I16,
            Kind::U32,
            Kind::I32,
            Kind::F32,
            Kind::Bool,
            Kind::Text,
            Kind::List,
            Kind::U64,
            Kind::I64,
            Kind::F64,
        ];
        ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// Bytes of a value, if all values have as many.
    fn size(self) -> Option<usize> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::Text | Self::List => None,
        }
    }
}

impl Metadata {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn text<'a>(&self, file: &'a [u8], key: &str) -> Option<&'a str> {
        self.texts(file, key)?.into_iter().next()
    }

    pub fn texts<'a>(&self, file: &'a [u8], key: &str) -> Option<Vec<&'a str>> {
        let place = self.0.get(key).filter(|place| place.kind == Kind::Text)?;
        let mut cursor = Cursor::new(file, place.range.start);
        (0..place.count).map(|_| text(&mut cursor)).collect()
    }

    pub fn numbers(&self, file: &[u8], key: &str) -> Option<Vec<f64>> {
        let place = self.0.get(key)?;
        let values = file.get(place.range.clone())?.chunks_exact(place.kind.size()?);
        values.map(|bytes| number(place.kind, bytes)).collect()
    }

    pub fn bytes<'a>(&self, file: &'a [u8], key: &str) -> Option<&'a [u8]> {
        let place = self.0.get(key).filter(|place| place.kind.size() == Some(1))?;
        file.get(place.range.clone())
    }
}

fn number(kind: Kind, bytes: &[u8]) -> Option<f64> {
    let mut cursor = Cursor::new(bytes, 0);
    Some(match kind {
        Kind::U8 | Kind::Bool => cursor.u8()?.into(),
        Kind::I8 => f64::from(cursor.u8()? as i8),
        Kind::U16 => cursor.u16()?.into(),
        Kind::I16 => f64::from(cursor.u16()? as i16),
        Kind::U32 => cursor.u32()?.into(),
        Kind::I32 => cursor.i32()?.into(),
        Kind::F32 => f32::from_bits(cursor.u32()?).into(),
        Kind::U64 => cursor.u64()? as f64,
        Kind::I64 => cursor.u64()? as i64 as f64,
        Kind::F64 => f64::from_bits(cursor.u64()?),
        Kind::Text | Kind::List => return None,
    })
}

/// A text with its length before it.
fn text<'a>(cursor: &mut Cursor<'a>) -> Option<&'a str> {
    let length = usize::try_from(cursor.u64()?).ok()?;
    std::str::from_utf8(cursor.take(length)?).ok()
}

/// The alignment of tensors if the metadata does not say.
const ALIGNMENT: u64 = 32;
const LARGEST_ALIGNMENT: u64 = 1 << 20;

/// A tensor as the file lists it.
struct Listed<'a> {
    name: &'a str,
    shape: Vec<usize>,
    kind: u32,
    offset: u64,
}

/// Lists the tensors of the GGUF file whose bytes are `file`, and its metadata. Ranges count from
/// the start of the file.
///
/// # Errors
/// [`WeightsError::Malformed`] if the file is cut short or contradicts itself.
/// [`WeightsError::Unsupported`] for other versions, big-endian files, and formats that are not
/// decoded.
pub(super) fn read(path: &Path, file: &[u8]) -> Result<(Vec<Entry>, Metadata), WeightsError> {
    let cut_short = || WeightsError::malformed(path, "its header is cut short or damaged");
    let mut cursor = Cursor::new(file, 4);
    let version = cursor.u32().ok_or_else(cut_short)?;
    if !(2..=3).contains(&version) {
        let what = match version.swap_bytes() {
            1..=3 => "its numbers are big-endian; convert it again on a common machine".to_owned(),
            _ => format!("this is GGUF version {version}; versions 2 and 3 are supported"),
        };
        return Err(WeightsError::unsupported(path, what));
    }
    let (tensors, values) = cursor.u64().zip(cursor.u64()).ok_or_else(cut_short)?;
    let metadata = metadata(&mut cursor, values).ok_or_else(cut_short)?;
    // The counts are the file's claims. Every entry takes bytes of the file, so a wrong count ends
    // at the end of the file.
    let mut listed = Vec::new();
    for _ in 0..tensors {
        listed.push(next(&mut cursor).ok_or_else(cut_short)?);
    }
    let stated = metadata.numbers(file, "general.alignment").and_then(|values| values.first().copied());
    let alignment = stated.map_or(ALIGNMENT, |value| value as u64);
    if !alignment.is_power_of_two() || alignment > LARGEST_ALIGNMENT {
        return Err(WeightsError::malformed(path, format!("its alignment is {alignment}")));
    }
    let start = (cursor.position() as u64).next_multiple_of(alignment);
    let entries = listed.into_iter().map(|tensor| place(path, file, &metadata, start, tensor));
    Ok((entries.collect::<Result<_, _>>()?, metadata))
}

fn metadata(cursor: &mut Cursor<'_>, count: u64) -> Option<Metadata> {
    let mut places = BTreeMap::new();
    for _ in 0..count {
        let key = text(cursor)?;
        let mut kind = Kind::of(cursor.u32()?)?;
        let mut count = 1;
        if kind == Kind::List {
            kind = Kind::of(cursor.u32()?).filter(|kind| *kind != Kind::List)?;
            count = cursor.u64()?;
        }
        let start = cursor.position();
        match kind.size() {
            Some(size) => _ = cursor.take(usize::try_from(count).ok()?.checked_mul(size)?)?,
            None => (0..count).try_for_each(|_| {
                let length = usize::try_from(cursor.u64()?).ok()?;
                cursor.take(length).map(|_| ())
            })?,
        }
        places.insert(key.to_owned(), Place { kind, count, range: start..cursor.position() });
    }
    Some(Metadata(places))
}

fn next<'a>(cursor: &mut Cursor<'a>) -> Option<Listed<'a>> {
    let name = text(cursor)?;
    let dimensions = usize::try_from(cursor.u32()?).ok().filter(|count| *count <= MOST_DIMENSIONS)?;
    let extents = (0..dimensions).map(|_| usize::try_from(cursor.u64()?).ok());
    let mut shape = extents.collect::<Option<Vec<_>>>()?;
    shape.reverse();
    Some(Listed { name, shape, kind: cursor.u32()?, offset: cursor.u64()? })
}

/// Finds the tensor's bytes in the file.
fn place(
    path: &Path,
    file: &[u8],
    metadata: &Metadata,
    start: u64,
    Listed { name, shape, kind, offset }: Listed<'_>,
) -> Result<Entry, WeightsError> {
    let dtype = dtype(kind).ok_or_else(|| {
        let what = format!("{} is stored in ggml's type {}; {SUPPORTED}", shown(name), type_name(kind));
        WeightsError::unsupported(path, what)
    })?;
    let range = || {
        let start = usize::try_from(start.checked_add(offset)?).ok()?;
        let range = start..start.checked_add(dtype.bytes_of(&shape)?)?;
        (range.end <= file.len()).then_some(range)
    };
    let range = range().ok_or_else(|| {
        WeightsError::malformed(path, format!("the tensor {} {dtype} {shape:?} does not lie in it", shown(name)))
    })?;
    let shape = match original_shape(file, metadata, name) {
        Some(original) if dtype.block().0 == 1 && dtype.bytes_of(&original) == Some(range.len()) => original,
        // The elements of a packed tensor keep their order under another shape.
        Some(original) if elements(&original) == elements(&shape) && original.len() > 1 => original,
        _ => shape,
    };
    Ok(Entry { name: name.into(), dtype, shape, range, strides: None })
}

fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size))
}

/// The shape that a converter of ComfyUI's kept, outermost first.
fn original_shape(file: &[u8], metadata: &Metadata, name: &str) -> Option<Vec<usize>> {
    let extents = metadata.numbers(file, &format!("comfy.gguf.orig_shape.{name}"))?;
    let shape: Vec<usize> = extents.iter().map(|extent| *extent as usize).collect();
    (shape.len() <= MOST_DIMENSIONS).then_some(shape)
}

const SUPPORTED: &str =
    "supported are F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1 and Q2_K to Q6_K: take one of these files";

fn dtype(kind: u32) -> Option<DType> {
    Some(match kind {
        0 => DType::F32,
        1 => DType::F16,
        2 => DType::Packed(Packing::Q4_0),
        3 => DType::Packed(Packing::Q4_1),
        6 => DType::Packed(Packing::Q5_0),
        7 => DType::Packed(Packing::Q5_1),
        8 => DType::Packed(Packing::Q8_0),
        10 => DType::Packed(Packing::Q2K),
        11 => DType::Packed(Packing::Q3K),
        12 => DType::Packed(Packing::Q4K),
        13 => DType::Packed(Packing::Q5K),
        14 => DType::Packed(Packing::Q6K),
        24 => DType::from_name("I8")?,
        25 => DType::from_name("I16")?,
        26 => DType::from_name("I32")?,
        27 => DType::from_name("I64")?,
        28 => DType::F64,
        30 => DType::BF16,
        _ => return None,
    })
}

/// ggml's names of the types that are not decoded.
fn type_name(kind: u32) -> String {
    let known = match kind {
        9 => "Q8_1",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        other => return format!("number {other}"),
    };
    known.into()
}

#[cfg(test)]
mod tests;

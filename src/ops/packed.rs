//! How weights of 8 and fewer bits lie in GPU memory.
//!
//! Their bytes form a matrix with a column for each column of the weight `[k, n]`, so that a kernel
//! reads a byte of four neighbouring columns as one word (`shaders/lib/packed.wgsl`). In a column
//! the blocks of a packed format follow each other, and in a block:
//!
//! 1. the codes, low bits first: of codes with 8, 4 or 2 bits a byte holds 1, 2 or 4 neighbours,
//!    the first one in its lowest bits. Codes of 6, 5 and 3 bits are stored as 4 + 2, 4 + 1 and
//!    2 + 1 bits;
//! 2. the scales of the groups, a byte each;
//! 3. the f16 numbers of the block. An f16 takes two rows of the matrix, an f32 four: there the
//!    numbers of all columns lie side by side.
//!
//! Elements that are single bytes come first, row by row, and then their scales in f32.

use std::borrow::Cow;
use std::ops::Range;

use rayon::prelude::*;

use crate::weights::{DType, Format, Numbers, Packing};

/// Scales of single bytes, in f32.
#[derive(Clone, Debug, PartialEq)]
pub struct Factors {
    /// Rows of the weight `[k, n]` that share a scale, a multiple of 4 unless they are all.
    pub group: usize,
    /// `[k / group (rounded up), n]` scales, row-major.
    pub values: Vec<f32>,
}

/// Whether weights of this type stay packed: they have 8 and fewer bits.
pub fn is_packed(dtype: DType) -> bool {
    matches!(dtype, DType::Packed(_) | DType::F8E4M3 | DType::F8E5M2 | DType::I8)
}

/// Bytes on the GPU of a packed `[k, n]` weight whose single bytes have `groups` scales a column.
/// `None` if the type or the extents are not suited.
pub fn packed_bytes(dtype: DType, [k, n]: [usize; 2], groups: usize) -> Option<u64> {
    let rows = match dtype {
        DType::Packed(packing) => k / packing.block().0 * block_rows(packing.format()),
        _ => k + 4 * groups,
    };
    fits(dtype, k).then(|| (rows * n.next_multiple_of(4)) as u64)
}

/// Whether columns of `k` elements can be stored packed.
pub(super) fn fits(dtype: DType, k: usize) -> bool {
    let block = dtype.block().0;
    is_packed(dtype) && k > 0 && k.is_multiple_of(block.max(4))
}

/// Rows of the matrix of bytes that a block takes.
fn block_rows(format: &Format) -> usize {
    format.elements * format.bits / 8 + format.scale_bytes + 2 * format.halves.len()
}

/// The bytes for the GPU of `n` columns of `k` elements, padded to `padded` columns. `bytes` are
/// the elements as checkpoints store them, `[n, k]`. `None` if there are too few, or if the type or
/// the extents are not suited.
pub(super) fn arrange(
    dtype: DType,
    bytes: &[u8],
    [k, n]: [usize; 2],
    padded: usize,
    factors: Option<&Factors>,
) -> Option<Vec<u8>> {
    if !fits(dtype, k) || bytes.len() < dtype.bytes_of(&[n, k])? || padded < n {
        return None;
    }
    match dtype {
        DType::Packed(packing) => Some(blocks(packing, bytes, [k, n], padded)),
        _ => {
            let whole = Cow::Owned(Factors { group: k, values: vec![1.0; n] });
            let factors = factors.map_or(whole, Cow::Borrowed);
            singles(bytes, [k, n], padded, &factors)
        }
    }
}

fn singles(bytes: &[u8], [k, n]: [usize; 2], padded: usize, factors: &Factors) -> Option<Vec<u8>> {
    /// Columns in one sweep, so that reads and writes stay in the cache.
    const SWEEP: usize = 64;
    let groups = k.div_ceil(factors.group.max(1));
    if factors.values.len() != groups * n {
        return None;
    }
    let mut out = vec![0; (k + 4 * groups) * padded];
    let (codes, scales) = out.split_at_mut(k * padded);
    codes.par_chunks_mut(16 * padded).enumerate().for_each(|(part, rows)| {
        for first in (0..n).step_by(SWEEP) {
            for (offset, row) in rows.chunks_exact_mut(padded).enumerate() {
                let columns = first..(first + SWEEP).min(n);
                let from = bytes.iter().skip(first * k + 16 * part + offset).step_by(k);
                row[columns].iter_mut().zip(from).for_each(|(to, from)| *to = *from);
            }
        }
    });
    for (row, values) in scales.chunks_exact_mut(4 * padded).zip(factors.values.chunks_exact(n.max(1))) {
        row.as_chunks_mut::<4>().0.iter_mut().zip(values).for_each(|(to, value)| *to = value.to_le_bytes());
    }
    Some(out)
}

fn blocks(packing: Packing, bytes: &[u8], [k, n]: [usize; 2], padded: usize) -> Vec<u8> {
    let format = packing.format();
    let in_column = k / format.elements;
    let rows = block_rows(format);
    let mut out = vec![0; in_column * rows * padded];
    out.par_chunks_mut(rows * padded).enumerate().for_each(|(index, part)| {
        let column = bytes.chunks_exact(format.bytes).skip(index).step_by(in_column).take(n);
        for (column, block) in column.enumerate() {
            if let Some(numbers) = packing.split(block) {
                write(format, &numbers, part, padded, column);
            }
        }
    });
    out
}

/// The bits of a code that are stored together.
fn planes(bits: usize) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    [8, 4, 2, 1].into_iter().filter_map(move |width| {
        let fits = start + width <= bits;
        start += if fits { width } else { 0 };
        fits.then(|| start - width..start)
    })
}

/// Writes a block into its column.
fn write(format: &Format, numbers: &Numbers, part: &mut [u8], padded: usize, column: usize) {
    let mut row = 0;
    for plane in planes(format.bits) {
        let (width, mask) = (plane.len(), (1u16 << plane.len()) - 1);
        for codes in numbers.codes[..format.elements].chunks_exact(8 / width) {
            let placed = codes.iter().enumerate();
            let byte = placed.fold(0, |byte, (i, code)| byte | (u16::from(*code) >> plane.start & mask) << (i * width));
            part[row * padded + column] = byte as u8;
            row += 1;
        }
    }
    for scale in &numbers.scales[..format.scale_bytes] {
        part[row * padded + column] = *scale;
        row += 1;
    }
    for half in &numbers.halves[..format.halves.len()] {
        part[row * padded + 2 * column..][..2].copy_from_slice(&half.to_le_bytes());
        row += 2;
    }
}

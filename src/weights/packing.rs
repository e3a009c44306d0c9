//! The packed formats of GGUF: blocks of 32 or 256 elements that share their scales.
//!
//! Every format stores a code for each element, and scales of groups of elements. An element's
//! value is `scale * (code - centre) - least`. A [`Format`] says where the numbers stand in a
//! block. [`Packing::decode`] computes the values, and [`Packing::split`] gives the numbers
//! themselves to those who store them in another order.
//!
//! Formulas: `ggml-quants.c` of ggml, and `gguf/quants.py` of the PyPI package `gguf`, with whose
//! values the tests compare bit for bit. Products are exact in f32 (the factors have at most 24
//! significant bits together), so their order does not matter.

mod formats;

use half::f16;
use rayon::prelude::*;

/// A packed format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Packing {
    /// 4 bits and a scale.
    Q4_0,
    /// 4 bits, a scale and a minimum.
    Q4_1,
    /// 5 bits and a scale.
    Q5_0,
    /// 5 bits, a scale and a minimum.
    Q5_1,
    /// 8 bits and a scale.
    Q8_0,
    /// 2 bits; scales and minimums of 4 bits.
    Q2K,
    /// 3 bits; scales of 6 bits.
    Q3K,
    /// 4 bits; scales and minimums of 6 bits.
    Q4K,
    /// 5 bits; scales and minimums of 6 bits.
    Q5K,
    /// 6 bits; scales of 8 bits.
    Q6K,
}

/// Elements of a block of the formats whose names end in K.
const SUPER: usize = 256;

impl Packing {
    /// All formats.
    pub const ALL: [Self; 10] = [
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// How a block of the format is built.
    pub fn format(self) -> &'static Format {
        match self {
            Self::Q4_0 => &formats::Q4_0,
            Self::Q4_1 => &formats::Q4_1,
            Self::Q5_0 => &formats::Q5_0,
            Self::Q5_1 => &formats::Q5_1,
            Self::Q8_0 => &formats::Q8_0,
            Self::Q2K => &formats::Q2_K,
            Self::Q3K => &formats::Q3_K,
            Self::Q4K => &formats::Q4_K,
            Self::Q5K => &formats::Q5_K,
            Self::Q6K => &formats::Q6_K,
        }
    }

    /// ggml's name.
    pub fn name(self) -> &'static str {
        self.format().name
    }

    /// Number of elements of a block, and of its bytes.
    pub fn block(self) -> (usize, usize) {
        (self.format().elements, self.format().bytes)
    }

    /// The numbers that a block stores. `None` for a block of another length than the format's.
    pub fn split(self, block: &[u8]) -> Option<Numbers> {
        let format = self.format();
        if block.len() != format.bytes {
            return None;
        }
        let mut numbers = Numbers { codes: [0; SUPER], scales: [0; SCALES], halves: [0; 2] };
        (format.codes)(block, &mut numbers.codes[..format.elements]);
        (format.scales)(block, &mut numbers.scales[..format.scale_bytes]);
        for (half, at) in numbers.halves.iter_mut().zip(format.halves) {
            *half = u16::from_le_bytes([block[*at], block[at + 1]]);
        }
        Some(numbers)
    }

    /// The elements in f32, on all cores. An incomplete block at the end is ignored.
    pub fn decode(self, bytes: &[u8]) -> Vec<f32> {
        /// Blocks that one thread decodes at a time.
        const PART: usize = 256;
        let format = self.format();
        let mut values = vec![0.0; bytes.len() / format.bytes * format.elements];
        let parts = values.par_chunks_mut(PART * format.elements).zip(bytes.par_chunks(PART * format.bytes));
        parts.for_each(|(values, bytes)| {
            for (values, block) in values.chunks_exact_mut(format.elements).zip(bytes.chunks_exact(format.bytes)) {
                if let Some(numbers) = self.split(block) {
                    format.values(&numbers, values);
                }
            }
        });
        values
    }
}

/// Most bytes of the scales of groups in a block.
const SCALES: usize = 16;

/// The numbers that a block stores.
#[derive(Clone, Copy, Debug)]
pub struct Numbers {
    /// Codes of the elements, as whole numbers from 0. Those after the block's last element are 0.
    pub codes: [u8; SUPER],
    /// Scales of the groups, a byte or a part of one each; [`Format::scale_bytes`] of them.
    pub scales: [u8; SCALES],
    /// The f16 numbers of the block: its scale and its minimum; [`Format::halves`] has as many.
    pub halves: [u16; 2],
}

/// Scale and minimum of a group, from the f16 numbers in f32, the scales of the groups, and the
/// group's number.
type Factors = fn([f32; 2], &[u8], usize) -> (f32, f32);

/// How a block is built.
#[derive(Debug)]
pub struct Format {
    /// ggml's name.
    pub name: &'static str,
    /// Elements of a block.
    pub elements: usize,
    /// Bytes of a block.
    pub bytes: usize,
    /// Bits of a code.
    pub bits: usize,
    /// Bytes of the scales of groups, after they are split.
    pub scale_bytes: usize,
    /// First bytes of the f16 numbers: of the scale, and of the minimum if there is one.
    pub halves: &'static [usize],
    /// What is subtracted from every code.
    centre: f32,
    /// Elements that share a scale.
    group: usize,
    /// Writes the codes of a block.
    codes: fn(&[u8], &mut [u8]),
    /// Writes the scales of the groups.
    scales: fn(&[u8], &mut [u8]),
    /// Scale and minimum of a group, from the f16 numbers in f32 and the scales of the groups.
    factors: Factors,
}

impl Format {
    fn values(&self, numbers: &Numbers, out: &mut [f32]) {
        let halves = numbers.halves.map(|bits| f16::from_bits(bits).to_f32());
        let groups = out.chunks_mut(self.group).zip(numbers.codes.chunks(self.group)).enumerate();
        for (group, (values, codes)) in groups {
            let (scale, least) = (self.factors)(halves, &numbers.scales, group);
            for (value, code) in values.iter_mut().zip(codes) {
                *value = scale * (f32::from(*code) - self.centre) - least;
            }
        }
    }
}

#[cfg(test)]
mod tests;

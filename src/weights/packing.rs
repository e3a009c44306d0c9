//! The packed formats of GGUF: blocks of 32 or 256 elements that share their scales.
//!
//! Formulas: `ggml-quants.c` of ggml, and `gguf/quants.py` of the PyPI package `gguf`, with whose
//! values the tests compare bit for bit. All arithmetic is in f32 and in the order of that package.

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

    /// ggml's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q2K => "Q2_K",
            Self::Q3K => "Q3_K",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// Number of elements of a block, and of its bytes.
    pub fn block(self) -> (usize, usize) {
        match self {
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q8_0 => (32, 34),
            Self::Q2K => (SUPER, 84),
            Self::Q3K => (SUPER, 110),
            Self::Q4K => (SUPER, 144),
            Self::Q5K => (SUPER, 176),
            Self::Q6K => (SUPER, 210),
        }
    }

    /// The elements in f32, on all cores. An incomplete block at the end is ignored.
    pub fn decode(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::Q4_0 => blocks(bytes, q4_0),
            Self::Q4_1 => blocks(bytes, q4_1),
            Self::Q5_0 => blocks(bytes, q5_0),
            Self::Q5_1 => blocks(bytes, q5_1),
            Self::Q8_0 => blocks(bytes, q8_0),
            Self::Q2K => blocks(bytes, q2_k),
            Self::Q3K => blocks(bytes, q3_k),
            Self::Q4K => blocks(bytes, q4_k),
            Self::Q5K => blocks(bytes, q5_k),
            Self::Q6K => blocks(bytes, q6_k),
        }
    }
}

/// Decodes blocks of `SIZE` bytes to `COUNT` elements.
fn blocks<const SIZE: usize, const COUNT: usize>(
    bytes: &[u8],
    decode: impl Fn(&[u8; SIZE], &mut [f32; COUNT]) + Sync,
) -> Vec<f32> {
    /// Blocks that one thread decodes at a time.
    const PART: usize = 1024;
    let (blocks, _) = bytes.as_chunks::<SIZE>();
    let mut values = vec![0.0; blocks.len() * COUNT];
    let parts = values.par_chunks_mut(PART * COUNT).zip(blocks.par_chunks(PART));
    parts.for_each(|(values, blocks)| {
        for (values, block) in values.as_chunks_mut::<COUNT>().0.iter_mut().zip(blocks) {
            decode(block, values);
        }
    });
    values
}

/// The f16 at byte `at`.
fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Element `i` of 32 that are stored as 16 low nibbles and then 16 high ones.
fn nibble(bytes: &[u8], i: usize) -> u8 {
    if i < 16 { bytes[i] & 15 } else { bytes[i - 16] >> 4 }
}

/// Bit `i` of the u32 at byte `at`.
fn bit(block: &[u8], at: usize, i: usize) -> u8 {
    block[at + i / 8] >> (i % 8) & 1
}

fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let scale = half(block, 0);
    for (i, value) in out.iter_mut().enumerate() {
        *value = scale * f32::from(nibble(&block[2..], i) as i8 - 8);
    }
}

fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (scale, least) = (half(block, 0), half(block, 2));
    for (i, value) in out.iter_mut().enumerate() {
        *value = scale * f32::from(nibble(&block[4..], i)) + least;
    }
}

fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let scale = half(block, 0);
    for (i, value) in out.iter_mut().enumerate() {
        let stored = nibble(&block[6..], i) | bit(block, 2, i) << 4;
        *value = scale * f32::from(stored as i8 - 16);
    }
}

fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (scale, least) = (half(block, 0), half(block, 2));
    for (i, value) in out.iter_mut().enumerate() {
        let stored = nibble(&block[8..], i) | bit(block, 4, i) << 4;
        *value = scale * f32::from(stored) + least;
    }
}

fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let scale = half(block, 0);
    for (value, stored) in out.iter_mut().zip(&block[2..]) {
        *value = scale * f32::from(*stored as i8);
    }
}

/// Two bits of element `i` of 256: 32 bytes hold 128 elements, the first 32 in the lowest bits.
fn two_bits(bytes: &[u8], i: usize) -> u8 {
    bytes[i / 128 * 32 + i % 32] >> (2 * (i / 32 % 4)) & 3
}

/// Four bits of element `i` of 256: 32 bytes hold 64 elements, the first 32 in the low nibbles.
fn four_bits(bytes: &[u8], i: usize) -> u8 {
    bytes[i / 64 * 32 + i % 32] >> (4 * (i / 32 % 2)) & 15
}

fn q2_k(block: &[u8; 84], out: &mut [f32; SUPER]) {
    let (scale, least) = (half(block, 80), half(block, 82));
    for (i, value) in out.iter_mut().enumerate() {
        let both = block[i / 16];
        let (scale, least) = (scale * f32::from(both & 15), least * f32::from(both >> 4));
        *value = scale * f32::from(two_bits(&block[16..80], i)) - least;
    }
}

fn q3_k(block: &[u8; 110], out: &mut [f32; SUPER]) {
    let (high, low, scales) = (&block[..32], &block[32..96], &block[96..108]);
    let all = half(block, 108);
    for (i, value) in out.iter_mut().enumerate() {
        let group = i / 16;
        let lower = scales[group % 8] >> (4 * (group / 8)) & 15;
        let upper = scales[8 + group % 4] >> (2 * (group / 4)) & 3;
        let scale = all * f32::from((lower | upper << 4) as i8 - 32);
        // A set bit in `high` means that nothing is subtracted.
        let below = 4 * (1 - (high[i % 32] >> (i / 32) & 1) as i8);
        *value = scale * f32::from(two_bits(low, i) as i8 - below);
    }
}

/// The scale and the minimum of group `j` of 8, in 6 bits each.
fn six_bits(scales: &[u8], j: usize) -> (u8, u8) {
    if j < 4 {
        return (scales[j] & 63, scales[j + 4] & 63);
    }
    let both = scales[j + 4];
    (both & 15 | scales[j - 4] >> 2 & 0x30, both >> 4 | scales[j] >> 2 & 0x30)
}

/// Scales and minimums of the 8 groups of a block that begins with a scale of the scales, one of
/// the minimums, and 12 bytes for both.
fn groups(block: &[u8]) -> [(f32, f32); 8] {
    let (scale, least) = (half(block, 0), half(block, 2));
    std::array::from_fn(|j| {
        let (a, b) = six_bits(&block[4..16], j);
        (scale * f32::from(a), least * f32::from(b))
    })
}

fn q4_k(block: &[u8; 144], out: &mut [f32; SUPER]) {
    let groups = groups(block);
    for (i, value) in out.iter_mut().enumerate() {
        let (scale, least) = groups[i / 32];
        *value = scale * f32::from(four_bits(&block[16..], i)) - least;
    }
}

fn q5_k(block: &[u8; 176], out: &mut [f32; SUPER]) {
    let groups = groups(block);
    let (high, low) = (&block[16..48], &block[48..]);
    for (i, value) in out.iter_mut().enumerate() {
        let (scale, least) = groups[i / 32];
        let stored = four_bits(low, i) | (high[i % 32] >> (i / 32) & 1) << 4;
        *value = scale * f32::from(stored) - least;
    }
}

fn q6_k(block: &[u8; 210], out: &mut [f32; SUPER]) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let all = half(block, 208);
    for (i, value) in out.iter_mut().enumerate() {
        let scale = all * f32::from(scales[i / 16] as i8);
        // 64 bytes hold 128 elements, the first 64 in the low nibbles.
        let lower = low[i / 128 * 64 + i % 64] >> (4 * (i / 64 % 2)) & 15;
        *value = scale * f32::from((lower | two_bits(high, i) << 4) as i8 - 32);
    }
}

#[cfg(test)]
mod tests;

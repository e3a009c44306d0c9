//! The table of formats: where a block has its codes and its scales.

use super::Format;

/// A block of 32 elements that begins with its scale and has no scales of groups.
const PLAIN: Format = Format {
    name: "",
    elements: 32,
    bytes: 0,
    bits: 4,
    scale_bytes: 0,
    halves: &[0],
    centre: 0.0,
    group: 32,
    codes: |_, _| {},
    scales: |_, _| {},
    factors: |[scale, _], _, _| (scale, 0.0),
};

/// As [`PLAIN`], with the minimum after the scale. The minimum is added.
const WITH_LEAST: Format = Format { halves: &[0, 2], factors: |[scale, least], _, _| (scale, -least), ..PLAIN };

pub(super) const Q4_0: Format =
    Format { name: "Q4_0", bytes: 18, centre: 8.0, codes: |block, out| each(out, |i| nibble(&block[2..], i)), ..PLAIN };

pub(super) const Q4_1: Format =
    Format { name: "Q4_1", bytes: 20, codes: |block, out| each(out, |i| nibble(&block[4..], i)), ..WITH_LEAST };

pub(super) const Q5_0: Format = Format {
    name: "Q5_0",
    bytes: 22,
    bits: 5,
    centre: 16.0,
    codes: |block, out| each(out, |i| nibble(&block[6..], i) | bit(&block[2..], i) << 4),
    ..PLAIN
};

pub(super) const Q5_1: Format = Format {
    name: "Q5_1",
    bytes: 24,
    bits: 5,
    codes: |block, out| each(out, |i| nibble(&block[8..], i) | bit(&block[4..], i) << 4),
    ..WITH_LEAST
};

pub(super) const Q8_0: Format = Format {
    name: "Q8_0",
    bytes: 34,
    bits: 8,
    centre: 128.0,
    codes: |block, out| each(out, |i| block[2 + i] ^ 0x80),
    ..PLAIN
};

/// A block of 256 elements with scales of groups.
const SUPER: Format = Format { elements: 256, ..PLAIN };

pub(super) const Q2_K: Format = Format {
    name: "Q2_K",
    bytes: 84,
    bits: 2,
    scale_bytes: 16,
    halves: &[80, 82],
    group: 16,
    codes: |block, out| each(out, |i| two_bits(&block[16..], i)),
    scales: |block, out| out.copy_from_slice(&block[..16]),
    factors: |[scale, least], scales, group| {
        (scale * f32::from(scales[group] & 15), least * f32::from(scales[group] >> 4))
    },
    ..SUPER
};

pub(super) const Q3_K: Format = Format {
    name: "Q3_K",
    bytes: 110,
    bits: 3,
    scale_bytes: 16,
    halves: &[108],
    centre: 4.0,
    group: 16,
    codes: |block, out| each(out, |i| two_bits(&block[32..], i) | (block[i % 32] >> (i / 32) & 1) << 2),
    scales: |block, out| {
        each(out, |group| {
            let lower = block[96 + group % 8] >> (4 * (group / 8)) & 15;
            lower | (block[104 + group % 4] >> (2 * (group / 4)) & 3) << 4
        })
    },
    factors: |[scale, _], scales, group| (scale * (f32::from(scales[group]) - 32.0), 0.0),
    ..SUPER
};

/// A block of 256 elements with scales and minimums of 6 bits: of the 8 groups' scales, then of
/// their minimums.
const SIX_BITS: Format = Format {
    scale_bytes: 16,
    halves: &[0, 2],
    scales: |block, out| {
        each(out, |i| six_bits(&block[4..16], i));
    },
    factors: |[scale, least], scales, group| (scale * f32::from(scales[group]), least * f32::from(scales[8 + group])),
    ..SUPER
};

pub(super) const Q4_K: Format =
    Format { name: "Q4_K", bytes: 144, codes: |block, out| each(out, |i| four_bits(&block[16..], i)), ..SIX_BITS };

pub(super) const Q5_K: Format = Format {
    name: "Q5_K",
    bytes: 176,
    bits: 5,
    codes: |block, out| each(out, |i| four_bits(&block[48..], i) | (block[16 + i % 32] >> (i / 32) & 1) << 4),
    ..SIX_BITS
};

pub(super) const Q6_K: Format = Format {
    name: "Q6_K",
    bytes: 210,
    bits: 6,
    scale_bytes: 16,
    halves: &[208],
    centre: 32.0,
    group: 16,
    codes: |block, out| {
        each(out, |i| {
            // 64 bytes hold 128 elements, the first 64 in the low nibbles.
            let lower = block[i / 128 * 64 + i % 64] >> (4 * (i / 64 % 2)) & 15;
            lower | two_bits(&block[128..], i) << 4
        })
    },
    // Signed bytes, as whole numbers from 0.
    scales: |block, out| each(out, |group| block[192 + group] ^ 0x80),
    factors: |[scale, _], scales, group| (scale * (f32::from(scales[group]) - 128.0), 0.0),
    ..SUPER
};

fn each(out: &mut [u8], value: impl Fn(usize) -> u8) {
    out.iter_mut().enumerate().for_each(|(i, out)| *out = value(i));
}

/// Element `i` of 32 that are stored as 16 low nibbles and then 16 high ones.
fn nibble(bytes: &[u8], i: usize) -> u8 {
    if i < 16 { bytes[i] & 15 } else { bytes[i - 16] >> 4 }
}

/// Bit `i` of a little-endian number.
fn bit(bytes: &[u8], i: usize) -> u8 {
    bytes[i / 8] >> (i % 8) & 1
}

/// Two bits of element `i` of 256: 32 bytes hold 128 elements, the first 32 in the lowest bits.
fn two_bits(bytes: &[u8], i: usize) -> u8 {
    bytes[i / 128 * 32 + i % 32] >> (2 * (i / 32 % 4)) & 3
}

/// Four bits of element `i` of 256: 32 bytes hold 64 elements, the first 32 in the low nibbles.
fn four_bits(bytes: &[u8], i: usize) -> u8 {
    bytes[i / 64 * 32 + i % 32] >> (4 * (i / 32 % 2)) & 15
}

/// Number `i` of 16 numbers of 6 bits in 12 bytes: the scales of 8 groups, then their minimums.
fn six_bits(bytes: &[u8], i: usize) -> u8 {
    let (least, group) = (i / 8, i % 8);
    match group {
        0..4 => bytes[4 * least + group] & 63,
        _ => bytes[4 + group] >> (4 * least) & 15 | (bytes[4 * least + group - 4] >> 6) << 4,
    }
}

//! Random weights of every type, for tests of kernels and for measurements.

use half::{bf16, f16};

use super::bench::noise_from;
use super::packed::Factors;
use super::{HostWeight, is_packed};
use crate::weights::DType;

/// Weights `[n, k]` of a type, and their values. `k` is a multiple of the type's block.
pub(super) fn sample(dtype: DType, [n, k]: [usize; 2]) -> (HostWeight<'static>, Vec<f32>) {
    let noise = noise_from(2, n * k);
    let bytes: Vec<u8> = match dtype {
        DType::F16 => noise.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        DType::BF16 => noise.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
        DType::Packed(_) => blocks(dtype, n * k),
        // Neither infinite nor NaN in any type of one byte.
        _ if is_packed(dtype) => noise.iter().map(|v| (v * 120.0) as i8 as u8 & 0xbf).collect(),
        _ => noise.iter().flat_map(|v| v.to_le_bytes()).collect(),
    };
    let mut values = dtype.decode(&bytes).unwrap_or_default();
    let single = is_packed(dtype) && dtype.block().0 == 1;
    let factors = single.then(|| factors(&mut values, [n, k]));
    (HostWeight { factors, ..HostWeight::floats(bytes.into(), dtype) }, values)
}

/// Blocks of random bytes with f16 scales from 2^-18, which f16 represents as subnormal numbers, to
/// 2^-9.
fn blocks(dtype: DType, elements: usize) -> Vec<u8> {
    let DType::Packed(packing) = dtype else { return Vec::new() };
    let format = packing.format();
    let noise = noise_from(3, elements / format.elements * format.bytes);
    let mut bytes: Vec<u8> = noise.iter().map(|v| ((v + 1.0) * 127.99) as u8).collect();
    for (index, block) in bytes.chunks_exact_mut(format.bytes).enumerate() {
        for (i, at) in format.halves.iter().enumerate() {
            let scale = (1.0 + 0.37 * ((index + i) % 7) as f32) * 2f32.powi(-18 + (index % 9) as i32);
            block[*at..at + 2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
        }
    }
    bytes
}

/// Multiplies the values by scales, which differ from column to column and, where `k` can be
/// halved, between the halves of a column.
fn factors(values: &mut [f32], [n, k]: [usize; 2]) -> Factors {
    let group = if k.is_multiple_of(8) { k / 2 } else { k };
    let factor = |group: usize, column: usize| 0.01 * (1.0 + (column % 5) as f32) / (1.0 + group as f32);
    for (i, value) in values.iter_mut().enumerate() {
        *value *= factor(i % k / group, i / k);
    }
    let by_group = (0..k.div_ceil(group)).flat_map(|group| (0..n).map(move |column| factor(group, column)));
    Factors { group, values: by_group.collect() }
}

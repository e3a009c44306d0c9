//! Synthetic weights. The results equal those of `tests/golden/synth.py` bit for bit.

use half::{bf16, f16};
use safetensors::Dtype;
use serde::Deserialize;

const GOLDEN_RATIO: u64 = 0x9E37_79B9_7F4A_7C15;

/// How to fill one tensor: `offset + scale * u` with u uniform in [-1, 1).
#[derive(Clone, Debug, Deserialize)]
pub struct Recipe {
    /// Name in the checkpoint. Inputs have an empty name.
    #[serde(default)]
    pub name: String,
    /// Sizes, slowest first.
    pub shape: Vec<usize>,
    /// The mean of the values.
    pub offset: f32,
    /// Half the width of the values' range.
    pub scale: f32,
}

/// The 64-bit FNV-1a hash (Fowler, Noll, Vo) of the bytes of `text`.
pub fn fnv1a64(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3))
}

/// An endless sequence of random words for `key`: splitmix64's output function (Steele et al. 2014)
/// applied to a counter.
pub fn bits(key: &str) -> impl Iterator<Item = u64> {
    let seed = fnv1a64(key);
    (1u64..).map(move |i| {
        let mut z = seed.wrapping_add(i.wrapping_mul(GOLDEN_RATIO));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    })
}

/// The values of `recipe` for `key`, row-major.
pub fn fill(key: &str, recipe: &Recipe) -> Vec<f32> {
    bits(key)
        .take(recipe.shape.iter().product())
        .map(|word| {
            let u = (word >> 40) as f32 / (1u32 << 23) as f32 - 1.0;
            recipe.offset + recipe.scale * u
        })
        .collect()
}

/// `values` as the little-endian bytes of a checkpoint, rounded to nearest with ties to even.
pub fn encode(values: &[f32], dtype: Dtype) -> Vec<u8> {
    match dtype {
        Dtype::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Dtype::F16 => bytes_of(values, |v| f16::from_f32(v).to_bits()),
        Dtype::BF16 => bytes_of(values, |v| bf16::from_f32(v).to_bits()),
        other => panic!("no synthetic weights in {other:?}"),
    }
}

fn bytes_of(values: &[f32], bits: impl Fn(f32) -> u16) -> Vec<u8> {
    values.iter().flat_map(|&v| bits(v).to_le_bytes()).collect()
}

/// The sum of `word_i * (2i + 1)` mod 2^64 over the elements of all `tensors` in order. Each tensor
/// is given as bytes of `dtype`.
pub fn checksum<'a>(tensors: impl IntoIterator<Item = &'a [u8]>, dtype: Dtype) -> u64 {
    tensors
        .into_iter()
        .flat_map(|bytes| bytes.chunks_exact(dtype.bitsize() / 8))
        .zip((1u64..).step_by(2))
        .map(|(word, odd)| {
            let word = word.iter().rev().fold(0, |w, &b| w << 8 | u64::from(b));
            odd.wrapping_mul(word)
        })
        .fold(0, u64::wrapping_add)
}

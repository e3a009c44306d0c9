//! Element types and their exact decoding to f32.

use super::packing::Packing;
use half::{bf16, f16, slice::HalfFloatSliceExt};
use serde::{Serialize, Serializer};
use std::fmt;

/// How a tensor's elements are stored. The names are those of safetensors, and of ggml for packed
/// formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DType {
    /// IEEE 754 double precision.
    F64,
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// The upper half of an f32.
    BF16,
    /// 1 sign, 4 exponent (bias 7) and 3 mantissa bits, which torch calls `float8_e4m3fn`. The type
    /// has no infinities, NaN at 0x7F and 0xFF only, and 448 as its largest value (Micikevicius et
    /// al., "FP8 Formats for Deep Learning", 2022).
    F8E4M3,
    /// The upper byte of an f16 (torch's `float8_e5m2`).
    F8E5M2,
    /// Whole numbers from -128 to 127 that have scales beside them. Without scales such numbers are
    /// [`DType::Raw`].
    I8,
    /// One of GGUF's formats.
    Packed(Packing),
    /// Any other type that safetensors or torch can store. Such tensors are listed but not decoded.
    Raw(RawType),
}

/// An element type that is listed but not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RawType {
    name: &'static str,
    bits: usize,
}

const RAW: [RawType; 16] = [
    RawType { name: "U8", bits: 8 },
    RawType { name: "I8", bits: 8 },
    RawType { name: "BOOL", bits: 8 },
    RawType { name: "U16", bits: 16 },
    RawType { name: "I16", bits: 16 },
    RawType { name: "U32", bits: 32 },
    RawType { name: "I32", bits: 32 },
    RawType { name: "U64", bits: 64 },
    RawType { name: "I64", bits: 64 },
    RawType { name: "C64", bits: 64 },
    RawType { name: "F8_E8M0", bits: 8 },
    RawType { name: "F8_E4M3FNUZ", bits: 8 },
    RawType { name: "F8_E5M2FNUZ", bits: 8 },
    RawType { name: "F6_E2M3", bits: 6 },
    RawType { name: "F6_E3M2", bits: 6 },
    RawType { name: "F4", bits: 4 },
];

impl DType {
    /// The type that safetensors calls `name`, or `None` if there is no such type.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "F64" => Self::F64,
            "F32" => Self::F32,
            "F16" => Self::F16,
            "BF16" => Self::BF16,
            "F8_E4M3" => Self::F8E4M3,
            "F8_E5M2" => Self::F8E5M2,
            other => Self::Raw(*RAW.iter().find(|raw| raw.name == other)?),
        })
    }

    /// safetensors' name of the type.
    pub fn name(self) -> &'static str {
        match self {
            Self::F64 => "F64",
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::F8E4M3 => "F8_E4M3",
            Self::F8E5M2 => "F8_E5M2",
            Self::I8 => "I8",
            Self::Packed(packing) => packing.name(),
            Self::Raw(raw) => raw.name,
        }
    }

    /// Number of elements that are stored together, and their size in bits. One element, except for
    /// [`DType::Packed`].
    pub fn block(self) -> (usize, usize) {
        match self {
            Self::F64 => (1, 64),
            Self::F32 => (1, 32),
            Self::F16 | Self::BF16 => (1, 16),
            Self::F8E4M3 | Self::F8E5M2 | Self::I8 => (1, 8),
            Self::Packed(packing) => {
                let (elements, bytes) = packing.block();
                (elements, 8 * bytes)
            }
            Self::Raw(raw) => (1, raw.bits),
        }
    }

    /// Number of bytes of a tensor of this type and `shape`. `None` if the number overflows or is
    /// not whole, or if the last extent is not a multiple of a block.
    pub fn bytes_of(self, shape: &[usize]) -> Option<usize> {
        let (block, bits) = self.block();
        let whole = block == 1 || shape.last().is_some_and(|last| last.is_multiple_of(block));
        let elements = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size))?;
        let bits = (elements / block).checked_mul(bits)?;
        (whole && bits.is_multiple_of(8)).then_some(bits / 8)
    }

    /// Decodes little-endian elements to f32. Decoding is exact except for [`DType::F64`], which is
    /// rounded to nearest, and [`DType::Packed`], whose scales are multiplied in f32. An incomplete
    /// element at the end is ignored. `None` for [`DType::Raw`].
    pub fn decode(self, bytes: &[u8]) -> Option<Vec<f32>> {
        Some(match self {
            Self::F64 => elements(bytes).map(|b| f64::from_le_bytes(b) as f32).collect(),
            Self::F32 => elements(bytes).map(f32::from_le_bytes).collect(),
            Self::F16 => elements(bytes).map(f16::from_le_bytes).collect::<Vec<_>>().to_f32_vec(),
            Self::BF16 => elements(bytes).map(|b| bf16_to_f32(u16::from_le_bytes(b))).collect(),
            Self::F8E4M3 => bytes.iter().map(|&b| E4M3[usize::from(b)]).collect(),
            Self::F8E5M2 => bytes.iter().map(|&b| f8_e5m2_to_f32(b)).collect(),
            Self::I8 => bytes.iter().map(|&b| f32::from(b as i8)).collect(),
            Self::Packed(packing) => packing.decode(bytes),
            Self::Raw(_) => return None,
        })
    }
}

fn elements<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.as_chunks::<N>().0.iter().copied()
}

fn bf16_to_f32(bits: u16) -> f32 {
    bf16::from_bits(bits).to_f32()
}

fn f8_e5m2_to_f32(byte: u8) -> f32 {
    f16::from_bits(u16::from(byte) << 8).to_f32()
}

/// Every [`DType::F8E4M3`] value.
const E4M3: [f32; 256] = {
    let mut table = [0.0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = f8_e4m3_to_f32(byte as u8);
        byte += 1;
    }
    table
};

const fn f8_e4m3_to_f32(byte: u8) -> f32 {
    let sign = if byte & 0x80 == 0 { 1.0 } else { -1.0 };
    let (exponent, mantissa) = ((byte >> 3 & 0xF) as u32, byte & 7);
    if exponent == 15 && mantissa == 7 {
        return f32::NAN;
    }
    if exponent == 0 {
        // Subnormal: mantissa * 2^-9.
        return sign * mantissa as f32 * f32::from_bits((127 - 9) << 23);
    }
    sign * (8 + mantissa) as f32 * f32::from_bits((127 + exponent - 7 - 3) << 23)
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for DType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of a small float, computed in f64 from the definition of its format.
    fn by_definition(bits: u32, exponent_bits: u32, mantissa_bits: u32, infinities: bool) -> f64 {
        let sign = if bits >> (exponent_bits + mantissa_bits) == 0 { 1.0 } else { -1.0 };
        let largest = (1u32 << exponent_bits) - 1;
        let exponent = bits >> mantissa_bits & largest;
        let mantissa = bits & ((1 << mantissa_bits) - 1);
        let all_ones = mantissa == (1 << mantissa_bits) - 1;
        let bias = (largest >> 1) as i32;
        let fraction = f64::from(mantissa) / f64::from(1u32 << mantissa_bits);
        match exponent {
            e if e == largest && infinities && mantissa == 0 => sign * f64::INFINITY,
            e if e == largest && (infinities || all_ones) => f64::NAN,
            0 => sign * fraction * 2f64.powi(1 - bias),
            e => sign * (1.0 + fraction) * 2f64.powi(e as i32 - bias),
        }
    }

    fn assert_same(dtype: DType, bytes: &[u8], expected: f64) {
        let decoded = dtype.decode(bytes).unwrap();
        assert_eq!(decoded.len(), 1);
        let same = decoded[0].to_bits() == (expected as f32).to_bits();
        assert!(same || (decoded[0].is_nan() && expected.is_nan()), "{dtype} {bytes:?}: {} != {expected}", decoded[0]);
    }

    // The two exhaustive tests catch these mutations: a bias off by one, infinities in E4M3, NaN
    // read as 480, subnormals flushed to zero or given the hidden bit, a lost sign of zero, swapped
    // bytes of a 16-bit type.
    #[test]
    fn every_fp8_value() {
        for byte in 0..=u8::MAX {
            assert_same(DType::F8E4M3, &[byte], by_definition(byte.into(), 4, 3, false));
            assert_same(DType::F8E5M2, &[byte], by_definition(byte.into(), 5, 2, true));
        }
        assert_eq!(DType::F8E4M3.decode(&[0x7E, 0x01]).unwrap(), [448.0, 2f32.powi(-9)]);
    }

    #[test]
    fn every_16_bit_value() {
        for bits in 0..=u16::MAX {
            assert_same(DType::F16, &bits.to_le_bytes(), by_definition(bits.into(), 5, 10, true));
            assert_same(DType::BF16, &bits.to_le_bytes(), by_definition(bits.into(), 8, 7, true));
        }
    }

    #[test]
    fn wide_floats_and_raw_types() {
        assert_eq!(DType::F32.decode(&1.5f32.to_le_bytes()).unwrap(), [1.5]);
        assert_eq!(DType::F64.decode(&0.1f64.to_le_bytes()).unwrap(), [0.1f32]);
        assert_eq!(DType::F64.decode(&f64::MAX.to_le_bytes()).unwrap(), [f32::INFINITY]);
        assert_eq!(DType::from_name("U8").unwrap().decode(&[1]), None);
        assert_eq!(DType::from_name("float32"), None);
    }

    #[test]
    fn sizes_that_lie_have_no_bytes() {
        assert_eq!(DType::F16.bytes_of(&[3, 5]), Some(30));
        assert_eq!(DType::F32.bytes_of(&[]), Some(4));
        assert_eq!(DType::F32.bytes_of(&[usize::MAX, 2]), None);
        assert_eq!(DType::F32.bytes_of(&[usize::MAX / 2]), None);
        assert_eq!(DType::from_name("F4").unwrap().bytes_of(&[3]), None);
        let packed = DType::Packed(Packing::Q4K);
        assert_eq!(packed.bytes_of(&[3, 512]), Some(3 * 2 * 144));
        assert_eq!(packed.bytes_of(&[256, 3]), None);
        assert_eq!(packed.bytes_of(&[]), None);
    }
}

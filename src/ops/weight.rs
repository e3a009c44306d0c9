//! Weight matrices on the GPU.

use std::borrow::Cow;

use crate::gpu::{ElementType, Gpu, GpuError, Result, Tensor};
use crate::weights::DType;

use super::packed::{Factors, arrange, is_packed};

/// The elements of a matrix as a checkpoint stores them.
#[derive(Clone, Debug)]
pub struct HostWeight<'a> {
    /// Little-endian elements.
    pub bytes: Cow<'a, [u8]>,
    /// Their type, on the host and on the GPU: F32, F16, BF16, or a type of 8 and fewer bits.
    pub dtype: DType,
    /// Factor of every element.
    pub scale: f32,
    /// Scales of elements that are single bytes.
    pub factors: Option<Factors>,
}

impl HostWeight<'_> {
    /// Floats of 16 or 32 bits.
    pub fn floats(bytes: Cow<[u8]>, dtype: DType) -> HostWeight {
        HostWeight { bytes, dtype, scale: 1.0, factors: None }
    }

    /// With a factor of every element.
    pub fn scaled(self, scale: f32) -> Self {
        Self { scale, ..self }
    }

    /// f32 elements.
    pub fn from_f32(values: &[f32]) -> HostWeight<'static> {
        HostWeight::floats(Cow::Owned(bytemuck::cast_slice(values).to_vec()), DType::F32)
    }
}

/// Columns of a weight that are stored alike.
#[derive(Clone, Debug)]
pub(super) struct Columns {
    /// `[k, n]` floats, or the words of packed weights.
    pub matrix: Tensor,
    pub dtype: DType,
    /// Padded extents.
    pub extents: [usize; 2],
    pub scale: f32,
    /// Groups of four rows that share a scale, where single bytes have scales.
    pub group4: u32,
}

/// The right-hand side of a matrix product on the GPU: `[k, n]` row-major with an optional bias for
/// each column. Both extents are padded with zeros to multiples of 4. Some columns may be stored in
/// another type than others.
#[derive(Clone, Debug)]
pub struct Weight {
    /// Side by side.
    pub(super) parts: Vec<Columns>,
    pub(super) bias: Option<Tensor>,
}

impl Weight {
    /// Stores `k * n` floats. Element `[k, n]` of the result is the source's element `index(k, n)`.
    /// `bias` has `n` values.
    ///
    /// # Errors
    /// An index outside the source, elements that are no floats of 16 or 32 bits, or an error of
    /// the GPU.
    pub fn pack(
        gpu: &Gpu,
        what: &str,
        source: &HostWeight,
        extents: [usize; 2],
        bias: Option<&[f32]>,
        index: impl Fn(usize, usize) -> usize,
    ) -> Result<Self> {
        let part = Columns::floats(gpu, what, source, extents, index)?;
        Self::of_parts(gpu, what, vec![part], bias)
    }

    /// A linear layer's weight as checkpoints store it: `[n, k]` row-major.
    ///
    /// # Errors
    /// As [`Self::joined`].
    pub fn linear(
        gpu: &Gpu,
        what: &str,
        source: &HostWeight,
        [n, k]: [usize; 2],
        bias: Option<&[f32]>,
    ) -> Result<Self> {
        Self::joined(gpu, what, std::slice::from_ref(source), &[n], k, bias)
    }

    /// Several linear layers with `k` inputs as one, their columns side by side: `[n, k]` row-major
    /// each, with `rows` as their `n`. All but the last have a multiple of four columns.
    ///
    /// # Errors
    /// A source with too few bytes, a type that no kernel reads, extents that do not fit its
    /// blocks, or an error of the GPU.
    pub fn joined(
        gpu: &Gpu,
        what: &str,
        sources: &[HostWeight],
        rows: &[usize],
        k: usize,
        bias: Option<&[f32]>,
    ) -> Result<Self> {
        if rows.iter().rev().skip(1).any(|rows| rows % 4 != 0) || rows.len() != sources.len() {
            return Err(GpuError::shape("weight", format!("{what} joins {} layers of {rows:?}", sources.len())));
        }
        let parts = sources.iter().zip(rows).map(|(source, &n)| {
            if is_packed(source.dtype) {
                return Columns::packed(gpu, what, source, [k, n]);
            }
            Columns::floats(gpu, what, source, [k, n], |row, column| column * k + row)
        });
        Self::of_parts(gpu, what, parts.collect::<Result<_>>()?, bias)
    }

    fn of_parts(gpu: &Gpu, what: &str, parts: Vec<Columns>, bias: Option<&[f32]>) -> Result<Self> {
        let mut weight = Self { parts, bias: None };
        weight.bias = bias.map(|values| vector(gpu, what, values, weight.n())).transpose()?;
        Ok(weight)
    }

    /// A matrix of activations `[k, n]` as the right-hand side of a product with the factor
    /// `scale`.
    ///
    /// # Errors
    /// `k` or `n` is no multiple of 4.
    pub fn view(matrix: &Tensor, scale: f32) -> Result<Self> {
        match *matrix.shape() {
            [k, n] if k % 4 == 0 && n % 4 == 0 => {
                let part = Columns { matrix: matrix.clone(), dtype: DType::F32, extents: [k, n], scale, group4: 1 };
                Ok(Self { parts: vec![part], bias: None })
            }
            _ => Err(GpuError::shape("weight", format!("{:?} is no matrix in groups of four", matrix.shape()))),
        }
    }

    /// Inner extent, padded.
    pub fn k(&self) -> usize {
        self.parts.first().map_or(0, |part| part.extents[0])
    }

    /// Columns of the product, padded.
    pub fn n(&self) -> usize {
        self.parts.iter().map(|part| part.extents[1]).sum()
    }

    /// Bytes on the GPU, without the bias.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.matrix.bytes()).sum()
    }

    /// The whole weight, stored in one type.
    ///
    /// # Errors
    /// It is stored in several.
    pub(super) fn whole(&self) -> Result<&Columns> {
        match &self.parts[..] {
            [part] => Ok(part),
            parts => Err(GpuError::shape("weight", format!("{} parts in the place of one", parts.len()))),
        }
    }
}

impl Columns {
    fn floats(
        gpu: &Gpu,
        what: &str,
        source: &HostWeight,
        [k, n]: [usize; 2],
        index: impl Fn(usize, usize) -> usize,
    ) -> Result<Self> {
        let extents = [k, n].map(|extent| extent.next_multiple_of(4));
        let (bytes, element_type) = match source.dtype {
            DType::F32 => (gather::<4>(&source.bytes, [k, n], extents, index), ElementType::F32),
            DType::F16 => (gather::<2>(&source.bytes, [k, n], extents, index), ElementType::F16),
            DType::BF16 => (gather::<2>(&source.bytes, [k, n], extents, index), ElementType::BF16),
            other => return Err(GpuError::shape("weight", format!("{what} is stored in {other}, not in floats"))),
        };
        let bytes = bytes.ok_or_else(|| {
            GpuError::shape("weight", format!("{what} has {} bytes, too few for {k} x {n}", source.bytes.len()))
        })?;
        let matrix = gpu.upload_weight(what, &bytes, &extents, element_type)?;
        Ok(Self { matrix, dtype: source.dtype, extents, scale: source.scale, group4: 1 })
    }

    fn packed(gpu: &Gpu, what: &str, source: &HostWeight, [k, n]: [usize; 2]) -> Result<Self> {
        let padded = n.next_multiple_of(4);
        let factors = source.factors.as_ref();
        let bytes = arrange(source.dtype, &source.bytes, [k, n], padded, factors).ok_or_else(|| {
            let size = source.bytes.len();
            GpuError::shape("weight", format!("{what} has {size} bytes of {}, not {k} x {n}", source.dtype))
        })?;
        let matrix = gpu.upload_weight(what, &bytes, &[bytes.len() / 4], ElementType::U32)?;
        let group4 = factors.map_or(k, |factors| factors.group).div_ceil(4) as u32;
        Ok(Self { matrix, dtype: source.dtype, extents: [k, padded], scale: source.scale, group4 })
    }
}

/// A vector of f32 weights on the GPU, padded with zeros to `length`.
///
/// # Errors
/// An error of the GPU.
pub fn vector(gpu: &Gpu, what: &str, values: &[f32], length: usize) -> Result<Tensor> {
    let mut padded = values.to_vec();
    padded.resize(length.max(values.len()), 0.0);
    gpu.upload_weight(what, bytemuck::cast_slice(&padded), &[padded.len()], ElementType::F32)
}

/// Writes elements of `SIZE` bytes into a zero-padded `[k, n]` matrix. `None` if an index is
/// outside the source.
fn gather<const SIZE: usize>(
    source: &[u8],
    [k, n]: [usize; 2],
    [padded_k, padded_n]: [usize; 2],
    index: impl Fn(usize, usize) -> usize,
) -> Option<Vec<u8>> {
    /// Columns written in one sweep over k. This number keeps reads and writes of a transposition
    /// in the cache.
    const BLOCK: usize = 32;
    let (elements, _) = source.as_chunks::<SIZE>();
    let mut out = vec![[0; SIZE]; padded_k * padded_n];
    for first in (0..n).step_by(BLOCK) {
        for row in 0..k {
            let end = (first + BLOCK).min(n);
            let target = &mut out[row * padded_n + first..row * padded_n + end];
            for (offset, element) in target.iter_mut().enumerate() {
                *element = *elements.get(index(row, first + offset))?;
            }
        }
    }
    Some(out.into_flattened())
}

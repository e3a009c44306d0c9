//! Weight matrices on the GPU.

use std::borrow::Cow;

use crate::gpu::{ElementType, Gpu, GpuError, Result, Tensor};

/// The elements of a matrix as a checkpoint stores them.
#[derive(Clone, Debug)]
pub struct HostWeight<'a> {
    /// Little-endian elements.
    pub bytes: Cow<'a, [u8]>,
    /// Their type, on the host and on the GPU.
    pub element_type: ElementType,
    /// Factor of every element: 1 unless the checkpoint is fp8 with scales.
    pub scale: f32,
}

impl HostWeight<'_> {
    /// f32 elements.
    pub fn from_f32(values: &[f32]) -> HostWeight<'static> {
        HostWeight {
            bytes: Cow::Owned(bytemuck::cast_slice(values).to_vec()),
            element_type: ElementType::F32,
            scale: 1.0,
        }
    }
}

/// The right-hand side of a matrix product on the GPU: `[k, n]` row-major with an optional bias for
/// each column. Both extents are padded with zeros to multiples of 4.
#[derive(Clone, Debug)]
pub struct Weight {
    pub(super) matrix: Tensor,
    pub(super) scale: f32,
    pub(super) bias: Option<Tensor>,
}

impl Weight {
    /// Packs `k * n` elements. Element `[k, n]` of the result is the source's element
    /// `index(k, n)`. `bias` has `n` values.
    ///
    /// # Errors
    /// An index outside the source, elements that are no floats, or an error of the GPU.
    pub fn pack(
        gpu: &Gpu,
        what: &str,
        source: &HostWeight,
        [k, n]: [usize; 2],
        bias: Option<&[f32]>,
        index: impl Fn(usize, usize) -> usize,
    ) -> Result<Self> {
        let shape = [k.next_multiple_of(4), n.next_multiple_of(4)];
        let bytes = match source.element_type {
            ElementType::F32 => gather::<4>(&source.bytes, [k, n], shape, index),
            ElementType::F16 | ElementType::BF16 => gather::<2>(&source.bytes, [k, n], shape, index),
            ElementType::U32 => return Err(GpuError::shape("weight", format!("{what} has no floats"))),
        };
        let bytes = bytes.ok_or_else(|| {
            GpuError::shape("weight", format!("{what} has {} bytes, too few for {k} x {n}", source.bytes.len()))
        })?;
        let matrix = gpu.upload_weight(what, &bytes, &shape, source.element_type)?;
        let bias = bias.map(|values| vector(gpu, what, values, shape[1])).transpose()?;
        Ok(Self { matrix, scale: source.scale, bias })
    }

    /// A linear layer's weight as checkpoints store it: `[n, k]` row-major.
    ///
    /// # Errors
    /// As [`Self::pack`].
    pub fn linear(
        gpu: &Gpu,
        what: &str,
        source: &HostWeight,
        [n, k]: [usize; 2],
        bias: Option<&[f32]>,
    ) -> Result<Self> {
        Self::pack(gpu, what, source, [k, n], bias, |row, column| column * k + row)
    }

    /// A matrix of activations `[k, n]` as the right-hand side of a product with the factor
    /// `scale`.
    ///
    /// # Errors
    /// `k` or `n` is no multiple of 4.
    pub fn view(matrix: &Tensor, scale: f32) -> Result<Self> {
        match *matrix.shape() {
            [k, n] if k % 4 == 0 && n % 4 == 0 => Ok(Self { matrix: matrix.clone(), scale, bias: None }),
            _ => Err(GpuError::shape("weight", format!("{:?} is no matrix in groups of four", matrix.shape()))),
        }
    }

    /// Inner extent, padded.
    pub fn k(&self) -> usize {
        self.matrix.shape()[0]
    }

    /// Columns of the product, padded.
    pub fn n(&self) -> usize {
        self.matrix.shape()[1]
    }

    /// Bytes on the GPU, without the bias.
    pub fn bytes(&self) -> u64 {
        self.matrix.bytes()
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

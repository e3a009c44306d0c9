//! Parts of tensors that may be bound.

use std::ops::Range;

use crate::gpu::Tensor;

/// The smallest bindable view around a range of elements: views must start at multiples of 256 bytes, so kernels are told where
/// theirs starts and subtract it from their indices.
#[derive(Debug)]
pub(super) struct Window {
    /// The view, one-dimensional.
    pub(super) tensor: Tensor,
    start: usize,
}

impl Window {
    /// A view of the f32 elements `range` of a tensor that itself starts at a multiple of 256 bytes.
    pub(super) fn new(of: &Tensor, range: Range<usize>) -> Self {
        const ALIGNED: usize = 256 / size_of::<f32>();
        let start = range.start / ALIGNED * ALIGNED;
        Self { tensor: of.reshape(&[of.len()]).slice(start, range.end - start), start }
    }

    /// First element of the view, in groups of four.
    pub(super) fn start4(&self) -> u32 {
        (self.start / 4) as u32
    }
}

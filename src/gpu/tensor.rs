//! A tensor: shape, element type, and a piece of GPU memory.

use std::sync::Arc;

use super::pool::Allocation;

/// Element types that live on the GPU. 16-bit types are packed two to a `u32`, first element in the
/// low half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ElementType {
    /// 32-bit float.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16: the upper half of an f32.
    BF16,
    /// Unsigned 32-bit integer.
    U32,
}

impl ElementType {
    /// Bytes of one element.
    pub fn size(self) -> u64 {
        match self {
            Self::F32 | Self::U32 => 4,
            Self::F16 | Self::BF16 => 2,
        }
    }
}

/// A Rust type that tensors are written from and read into.
pub trait Element: bytemuck::Pod {
    /// The element type of such a tensor.
    const TYPE: ElementType;
}

impl Element for f32 {
    const TYPE: ElementType = ElementType::F32;
}

impl Element for u32 {
    const TYPE: ElementType = ElementType::U32;
}

/// A dense row-major tensor on the GPU. Clones share the memory. The memory returns to the pool
/// when the last clone is dropped; later dispatches may reuse it at once, because the GPU runs
/// dispatches in order.
#[derive(Clone, Debug)]
pub struct Tensor {
    allocation: Arc<Allocation>,
    /// First byte of this view.
    offset: u64,
    shape: Vec<usize>,
    element_type: ElementType,
}

impl Tensor {
    pub(super) fn new(allocation: Allocation, shape: &[usize], element_type: ElementType) -> Self {
        Self { allocation: Arc::new(allocation), offset: 0, shape: shape.to_vec(), element_type }
    }

    /// Extents, slowest first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Element type.
    pub fn element_type(&self) -> ElementType {
        self.element_type
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size in bytes of this view.
    pub fn bytes(&self) -> u64 {
        self.len() as u64 * self.element_type.size()
    }

    /// Elements of one row: the last extent.
    pub fn columns(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Number of rows: the product of all extents but the last.
    pub fn rows(&self) -> usize {
        self.shape[..self.shape.len().saturating_sub(1)].iter().product()
    }

    /// The same memory under another shape with as many elements.
    pub fn reshape(&self, shape: &[usize]) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), self.len(), "reshape keeps the number of elements");
        Self { shape: shape.to_vec(), ..self.clone() }
    }

    /// A view of `count` slices from `start` along the first axis.
    ///
    /// # Panics
    /// The slices are not all inside the tensor.
    pub fn slice(&self, start: usize, count: usize) -> Self {
        assert!(start + count <= self.shape[0], "slice {start}+{count} of {:?}", self.shape);
        let stride: usize = self.shape[1..].iter().product();
        let mut shape = self.shape.clone();
        shape[0] = count;
        Self { offset: self.offset + (start * stride) as u64 * self.element_type.size(), shape, ..self.clone() }
    }

    /// Whether two tensors share memory. WebGPU cannot bind such a pair for reading and writing in
    /// one dispatch.
    pub fn shares_memory(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.allocation, &other.allocation)
    }

    pub(super) fn buffer(&self) -> &wgpu::Buffer {
        self.allocation.buffer()
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }
}

//! Parts of tensors that are small enough to bind, and parts of work that are small enough to
//! dispatch.

use std::ops::Range;

use crate::gpu::{Gpu, Tensor};

/// A view on `count` elements of an f32 tensor from `start`, which must be a multiple of four. The
/// view begins at a multiple of 256 bytes, as bindings must. The second value is the position of
/// element `start` in the view, in groups of four.
pub(super) fn window(tensor: &Tensor, start: usize, count: usize) -> (Tensor, u32) {
    /// f32 elements in 256 bytes.
    const ALIGNMENT: usize = 64;
    let first = start / ALIGNMENT * ALIGNMENT;
    let view = tensor.reshape(&[tensor.len()]).slice(first, start + count - first);
    (view, ((start - first) / 4) as u32)
}

/// A [`window`] on the elements `range`, for kernels that count from the tensor's first element.
/// The second value is the position of the view in the tensor, in groups of four: kernels subtract
/// it.
pub(super) fn window_from(tensor: &Tensor, range: Range<usize>) -> (Tensor, u32) {
    let (view, lead) = window(tensor, range.start, range.len());
    (view, (range.start / 4) as u32 - lead)
}

/// Ranges of at most `most` (and at least one) that cover `0..count`. All but the last are equally
/// long, and multiples of `step` unless `most` is smaller.
pub(super) fn ranges(count: usize, most: usize, step: usize) -> impl Iterator<Item = Range<usize>> {
    let most = if most > step { most / step * step } else { most.max(1) };
    (0..count).step_by(most).map(move |start| start..(start + most).min(count))
}

/// The number of items of `item_bytes` that fit a binding of `max_binding` bytes. 256 bytes are
/// reserved, because a [`window`] may begin earlier.
pub(super) fn fitting(max_binding: u64, item_bytes: usize) -> usize {
    (max_binding.saturating_sub(256) / item_bytes.max(1) as u64) as usize
}

/// Most bytes of a part of [`row_parts`]: the largest buffer that every WebGPU device has.
pub const LARGEST_PART: u64 = 256 << 20;

/// Parts of the rows of an f32 tensor that is too large to be made at once. The parts are nearly
/// equally long, fit a binding and [`LARGEST_PART`], and begin at multiples of 256 bytes.
pub fn row_parts(gpu: &Gpu, rows: usize, columns: usize) -> impl Iterator<Item = Range<usize>> + use<> {
    /// Rows that take a multiple of 256 bytes in any tensor, because columns come in groups of
    /// four.
    const STEP: usize = 16;
    let fit = (gpu.caps().max_binding.min(LARGEST_PART) / (4 * columns.max(1)) as u64) as usize;
    let most = (fit / STEP * STEP).max(STEP);
    let parts = rows.div_ceil(most).max(1);
    ranges(rows, rows.div_ceil(parts).next_multiple_of(STEP), STEP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_everything_once_in_steps() {
        for (count, most, step) in [(0, 5, 4), (1, 5, 4), (100, 9, 4), (100, 3, 4), (100, 1000, 8), (7, 0, 4)] {
            let mut next = 0;
            for range in ranges(count, most, step) {
                assert_eq!(range.start, next);
                assert!(range.len() <= most.max(1) && !range.is_empty());
                assert!(range.start % step == 0 || most < step, "{count} {most} {step}: {range:?}");
                next = range.end;
            }
            assert_eq!(next, count);
        }
    }

    #[test]
    fn parts_of_rows_are_nearly_equal() {
        let (gpu, _turn) = crate::ops::testing::base_gpu();
        let parts = |rows, columns| row_parts(&gpu, rows, columns).collect::<Vec<_>>();
        assert_eq!((parts(80, 4608).len(), parts(80, 4608)[0].len(), parts(0, 4).len()), (1, 80, 0));
        // The hidden layer of Wan2.1-1.3B at 480p, 81 frames: 1.2 GB in bindings of 128 MiB.
        let hidden = parts(32_760, 8960);
        assert_eq!((hidden.len(), hidden[0].clone(), hidden[8].clone()), (9, 0..3648, 29_184..32_760));
    }
}

//! Parts of tensors that are small enough to bind, and parts of work that are small enough to dispatch.

use std::ops::Range;

use crate::gpu::{Gpu, Tensor};

/// `count` elements of an f32 tensor from `start`, as a view that begins where bindings may begin (a multiple of 256 bytes), and
/// the position of the first wanted element in that view in groups of four. `start` must be a multiple of four.
pub(super) fn window(tensor: &Tensor, start: usize, count: usize) -> (Tensor, u32) {
    /// f32 elements in 256 bytes.
    const ALIGNMENT: usize = 64;
    let first = start / ALIGNMENT * ALIGNMENT;
    let view = tensor.reshape(&[tensor.len()]).slice(first, start + count - first);
    (view, ((start - first) / 4) as u32)
}

/// A [`window`] on the elements `range` for kernels that count from the tensor's first element: with what they must subtract, in
/// groups of four.
pub(super) fn window_from(tensor: &Tensor, range: Range<usize>) -> (Tensor, u32) {
    let (view, lead) = window(tensor, range.start, range.len());
    (view, (range.start / 4) as u32 - lead)
}

/// Ranges of at most `most` (at least one) that cover `0..count`, all but the last equally long and multiples of `step` where
/// `most` allows.
pub(super) fn ranges(count: usize, most: usize, step: usize) -> impl Iterator<Item = Range<usize>> {
    let most = if most > step { most / step * step } else { most.max(1) };
    (0..count).step_by(most).map(move |start| start..(start + most).min(count))
}

/// How many items of `item_bytes` fit a binding of `max_binding` bytes next to the lead-in of a [`window`].
pub(super) fn fitting(max_binding: u64, item_bytes: usize) -> usize {
    (max_binding.saturating_sub(256) / item_bytes.max(1) as u64) as usize
}

/// Bytes of a part of [`row_parts`] at most: the largest buffer that every WebGPU device has.
pub const LARGEST_PART: u64 = 256 << 20;

/// Parts of the rows of an f32 tensor too large to be made at once: of nearly equal length, each bindable and of at most
/// [`LARGEST_PART`], and beginning where bindings may.
pub fn row_parts(gpu: &Gpu, rows: usize, columns: usize) -> impl Iterator<Item = Range<usize>> + use<> {
    /// Of any tensor, as columns come in fours: 256 bytes.
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

//! Parts of tensors that are small enough to bind, and parts of work that are small enough to dispatch.

use std::ops::Range;

use crate::gpu::Tensor;

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
}

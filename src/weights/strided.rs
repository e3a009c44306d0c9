//! Tensors whose elements do not lie row-major: views that torch saved with their strides.

use super::DType;
use std::sync::OnceLock;

/// Steps between elements, and the elements in order once they were asked for.
#[derive(Debug)]
pub(super) struct Strided {
    strides: Vec<usize>,
    ordered: OnceLock<Vec<u8>>,
}

impl Strided {
    pub fn new(strides: Vec<usize>) -> Self {
        Self { strides, ordered: OnceLock::new() }
    }

    /// The elements row-major. They are put in order on the first call.
    pub fn row_major(&self, stored: &[u8], shape: &[usize], dtype: DType) -> &[u8] {
        self.ordered.get_or_init(|| gather(stored, shape, &self.strides, dtype.block().1 / 8))
    }
}

/// Elements of `size` bytes in the order of `shape`. An element outside `stored` is left out.
fn gather(stored: &[u8], shape: &[usize], strides: &[usize], size: usize) -> Vec<u8> {
    let count = shape.iter().product::<usize>();
    let mut ordered = Vec::with_capacity(count * size);
    let mut index = vec![0; shape.len()];
    let mut at = 0;
    for _ in 0..count {
        ordered.extend_from_slice(stored.get(at * size..(at + 1) * size).unwrap_or_default());
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            at -= strides[axis] * index[axis];
            index[axis] = 0;
        }
    }
    ordered
}

/// The number of elements from the first one to the last one, both counted. `None` on overflow.
pub(super) fn span(shape: &[usize], strides: &[usize]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape
        .iter()
        .zip(strides)
        .try_fold(1usize, |span, (size, stride)| span.checked_add((size - 1).checked_mul(*stride)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_put_in_order() {
        // A 3 x 2 matrix seen as its transpose, and with its middle axis at the end.
        assert_eq!(gather(&[0, 1, 2, 3, 4, 5], &[2, 3], &[1, 2], 1), [0, 2, 4, 1, 3, 5]);
        let stored: Vec<u8> = (0..24).collect();
        let expected: Vec<u8> =
            [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11].iter().flat_map(|i| [2 * i, 2 * i + 1]).collect();
        assert_eq!(gather(&stored, &[1, 4, 3], &[12, 1, 4], 2), expected);
        assert_eq!(span(&[2, 3], &[1, 2]), Some(6));
        assert_eq!(span(&[5], &[0]), Some(1));
        assert_eq!(span(&[usize::MAX, 2], &[3, 1]), None);
        assert_eq!(span(&[0, 7], &[9, 9]), Some(0));
    }
}

//! One tensor, borrowed from a mapped file.

use super::{Addition, DType, Scale, WeightsError};
use std::ops::Range;

/// A tensor as its file stores it: row-major, little-endian, not aligned to its element size.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct TensorView<'a> {
    /// The tensor's name, after any renaming.
    pub name: &'a str,
    /// How the elements are stored.
    pub dtype: DType,
    /// Sizes, outermost first; empty for a scalar.
    pub shape: &'a [usize],
    /// The elements. Opening the file checks that the length agrees with `dtype` and `shape`.
    pub bytes: &'a [u8],
    /// The factors by which the stored elements must be multiplied. Linear weights in 8 bits have
    /// them.
    pub scale: Option<&'a Scale>,
    /// What is added to the decoded and scaled elements: LoRAs.
    pub additions: &'a [Addition],
}

impl<'a> TensorView<'a> {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// All elements in f32, row-major, with the scale and the additions applied.
    ///
    /// # Errors
    /// [`WeightsError::NotDecodable`] if the dtype is a [`DType::Raw`] one.
    pub fn to_f32(&self) -> Result<Vec<f32>, WeightsError> {
        self.decode(self.bytes, 0)
    }

    /// The bytes of some rows. A row is everything under one index of the first dimension.
    ///
    /// # Errors
    /// [`WeightsError::Rows`] if the tensor does not have all of the rows. A scalar has no rows.
    pub fn rows(&self, rows: Range<usize>) -> Result<&'a [u8], WeightsError> {
        self.row_bytes(&rows).ok_or_else(|| WeightsError::Rows {
            name: self.name.into(),
            start: rows.start,
            end: rows.end,
            shape: self.shape.into(),
        })
    }

    /// Some rows in f32, with the scale applied. The text encoder looks up its embedding in this
    /// way, because the whole embedding of UMT5-XXL would take 4 GB in f32.
    ///
    /// # Errors
    /// The errors of [`TensorView::rows`] and [`TensorView::to_f32`].
    pub fn rows_to_f32(&self, rows: Range<usize>) -> Result<Vec<f32>, WeightsError> {
        self.decode(self.rows(rows.clone())?, rows.start)
    }

    fn row_bytes(&self, rows: &Range<usize>) -> Option<&'a [u8]> {
        let (&count, inner) = self.shape.split_first()?;
        let row = self.dtype.bytes_of(inner)?;
        if rows.start > rows.end || rows.end > count {
            return None;
        }
        self.bytes.get(rows.start.checked_mul(row)?..rows.end.checked_mul(row)?)
    }

    /// Decodes rows that begin with row `first`.
    fn decode(&self, bytes: &[u8], first: usize) -> Result<Vec<f32>, WeightsError> {
        let mut values = self
            .dtype
            .decode(bytes)
            .ok_or_else(|| WeightsError::NotDecodable { name: self.name.into(), dtype: self.dtype.name().into() })?;
        let width = self.shape.iter().skip(1).product::<usize>();
        if let Some(scale) = self.scale {
            scale.apply(&mut values, first, width);
        }
        let rows = first..first + values.len() / width.max(1);
        for addition in self.additions {
            addition.apply(&mut values, rows.clone(), width)?;
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const F8: [u8; 6] = [0x38, 0x40, 0x48, 0xB8, 0xC0, 0xC8];

    fn view<'a>(shape: &'a [usize], scale: Option<&'a Scale>) -> TensorView<'a> {
        TensorView { name: "t", dtype: DType::F8E4M3, shape, bytes: &F8, scale, additions: &[] }
    }

    #[test]
    fn decodes_with_and_without_scale() {
        assert_eq!(view(&[6], None).to_f32().unwrap(), [1.0, 2.0, 4.0, -1.0, -2.0, -4.0]);
        assert_eq!(view(&[2, 3], Some(&Scale::uniform(0.5))).to_f32().unwrap(), [0.5, 1.0, 2.0, -0.5, -1.0, -2.0]);
    }

    #[test]
    fn rows_are_slices_of_the_first_dimension() {
        let scale = Scale::uniform(10.0);
        let view = view(&[3, 2], Some(&scale));
        assert_eq!(view.rows(1..2).unwrap(), &F8[2..4]);
        assert_eq!(view.rows_to_f32(2..3).unwrap(), [-20.0, -40.0]);
        assert!(view.rows(0..0).unwrap().is_empty());
    }

    #[test]
    fn rows_outside_are_errors() {
        #[expect(clippy::reversed_empty_ranges, reason = "what is tested")]
        for rows in [2..4, 4..4, 2..1, 0..usize::MAX, usize::MAX..usize::MAX] {
            assert!(matches!(view(&[3, 2], None).rows(rows), Err(WeightsError::Rows { .. })));
        }
        let scalar = TensorView { shape: &[], bytes: &F8[..1], ..view(&[1], None) };
        assert!(scalar.rows(0..1).is_err());
        let raw = TensorView { dtype: DType::from_name("U8").unwrap(), ..view(&[6], None) };
        assert!(raw.to_f32().unwrap_err().to_string().contains("U8"));
    }
}

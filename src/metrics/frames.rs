//! The form of clips that this room compares.

use super::{Frame, MetricsError};

/// A clip's frames in sRGB with values in [0, 1]: rows from top to bottom, `R G B` for each pixel.
#[derive(Debug, Clone, PartialEq)]
pub struct FloatFrames {
    width: usize,
    height: usize,
    /// `[frames, height, width, 3]`, with at least one frame of at least one pixel.
    values: Vec<f32>,
}

impl FloatFrames {
    /// A clip of `frames` with `height * width * 3` values in [0, 1] each. Values outside this
    /// range are clamped, as a screen clamps them.
    ///
    /// # Errors
    /// [`MetricsError::NoFrames`]; [`MetricsError::FrameExtent`] if a side is 0;
    /// [`MetricsError::FrameSize`]; [`MetricsError::NotFinite`].
    pub fn from_unit(width: usize, height: usize, frames: &[impl AsRef<[f32]>]) -> Result<Self, MetricsError> {
        Self::from_floats(width, height, frames, |value| value)
    }

    /// The same as [`Self::from_unit`], for values in [-1, 1].
    ///
    /// # Errors
    /// The errors of [`Self::from_unit`].
    pub fn from_signed(width: usize, height: usize, frames: &[impl AsRef<[f32]>]) -> Result<Self, MetricsError> {
        Self::from_floats(width, height, frames, |value| value.mul_add(0.5, 0.5))
    }

    /// The same as [`Self::from_unit`], for bytes, where 255 is white.
    ///
    /// # Errors
    /// The errors of [`Self::from_unit`] except [`MetricsError::NotFinite`].
    pub fn from_bytes(width: usize, height: usize, frames: &[impl AsRef<[u8]>]) -> Result<Self, MetricsError> {
        Self::gather(width, height, frames, |byte| f32::from(byte) / 255.0)
    }

    fn from_floats(
        width: usize,
        height: usize,
        frames: &[impl AsRef<[f32]>],
        to_unit: impl Fn(f32) -> f32,
    ) -> Result<Self, MetricsError> {
        if let Some(index) = frames.iter().position(|frame| frame.as_ref().iter().any(|value| !value.is_finite())) {
            return Err(MetricsError::NotFinite { index });
        }
        Self::gather(width, height, frames, |value| to_unit(value).clamp(0.0, 1.0))
    }

    fn gather<T: Copy, F: AsRef<[T]>>(
        width: usize,
        height: usize,
        frames: &[F],
        convert: impl Fn(T) -> f32,
    ) -> Result<Self, MetricsError> {
        let expected = width.checked_mul(height).and_then(|pixels| pixels.checked_mul(3));
        let Some(expected) = expected.filter(|&n| n > 0) else {
            return Err(MetricsError::FrameExtent { width, height });
        };
        if frames.is_empty() {
            return Err(MetricsError::NoFrames);
        }
        let sizes = frames.iter().map(|frame| frame.as_ref().len());
        if let Some((index, actual)) = sizes.enumerate().find(|&(_, actual)| actual != expected) {
            return Err(MetricsError::FrameSize { index, expected, actual });
        }
        let values = frames.iter().flat_map(|frame| frame.as_ref()).map(|&value| convert(value)).collect();
        Ok(Self { width, height, values })
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The number of frames, at least 1.
    #[allow(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> usize {
        self.values.len() / (self.width * self.height * 3)
    }

    /// The frames, in order.
    pub fn frames(&self) -> impl ExactSizeIterator<Item = Frame<'_>> {
        let frames = self.values.chunks_exact(self.width * self.height * 3);
        frames.map(|values| Frame { width: self.width, height: self.height, values })
    }
}

//! SSIMULACRA2 (Jon Sneyers, Cloudinary), by the crate `fast-ssim2`.

use fast_ssim2::{PixelDescriptor, PixelSlice, TransferFunction, compute_ssimulacra2};

use super::{Frame, MetricsError, check};

/// SSIMULACRA2 of frame `b` against its original `a`: 100 for equal frames and lower for worse
/// frames, without a lower limit. Frames with a side below 8 pixels are mirrored at their borders.
///
/// # Errors
/// [`MetricsError::DifferentSize`]; [`MetricsError::Ssimulacra2`] for more than 268 million pixels.
pub fn ssimulacra2(a: Frame, b: Frame) -> Result<f64, MetricsError> {
    check("SSIMULACRA2", 1, a, b)?;
    compute_ssimulacra2(&pixels(a)?, &pixels(b)?).map_err(|error| MetricsError::Ssimulacra2(error.to_string()))
}

fn pixels(frame: Frame<'_>) -> Result<PixelSlice<'_>, MetricsError> {
    let side = |pixels| u32::try_from(pixels).map_err(|_| MetricsError::Ssimulacra2("the frame is too large".into()));
    let (width, height) = (side(frame.width)?, side(frame.height)?);
    let srgb = PixelDescriptor::RGBF32_LINEAR.with_transfer(TransferFunction::Srgb);
    let bytes_per_row = frame.width * 3 * size_of::<f32>();
    PixelSlice::new(bytemuck::cast_slice(frame.values), width, height, bytes_per_row, srgb)
        .map_err(|error| MetricsError::Ssimulacra2(error.to_string()))
}

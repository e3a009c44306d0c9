//! PNG, and APNG for clips of more than one frame. Both are lossless.

use png::{BitDepth, ColorType, Encoder, EncodingError, SrgbRenderingIntent};

use super::{Clip, MediaError, settings};

/// The clip as one file. Readers without APNG show the first frame.
pub(super) fn encode(clip: &Clip, settings: &str) -> Result<Vec<u8>, MediaError> {
    write(clip, clip.frames(), settings).map_err(encode_error)
}

/// One `frame` of the clip as a still picture.
pub(super) fn encode_still(clip: &Clip, frame: &Vec<u8>, settings: &str) -> Result<Vec<u8>, MediaError> {
    write(clip, std::slice::from_ref(frame), settings).map_err(encode_error)
}

fn write(clip: &Clip, frames: &[Vec<u8>], settings: &str) -> Result<Vec<u8>, EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, clip.width(), clip.height());
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_source_srgb(SrgbRenderingIntent::Perceptual);
    if !settings.is_empty() {
        encoder.add_itxt_chunk(settings::PNG_KEYWORD.into(), settings.into())?;
    }
    if frames.len() > 1 {
        encoder.set_animated(frames.len() as u32, 0)?; // 0 plays means forever
        encoder.set_frame_delay(1, clip.fps() as u16)?;
    }
    let mut writer = encoder.write_header()?;
    for frame in frames {
        writer.write_image_data(frame)?;
    }
    writer.finish()?;
    Ok(bytes)
}

fn encode_error(error: EncodingError) -> MediaError {
    MediaError::Encode { format: "PNG", reason: error.to_string() }
}

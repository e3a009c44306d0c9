//! YUV4MPEG2: raw frames with a line of text before each frame. ffmpeg, mpv and the reference tools
//! of metrics read it.

use super::Clip;
use super::color::{self, Matrix};

/// The clip as one file, 4:4:4 in limited range. The format has no tag for the matrix, and ffmpeg
/// reads every height as BT.601, so this is what is written. Readers accept headers of about 90
/// bytes, so the header has no room for settings.
pub(super) fn encode(clip: &Clip) -> Vec<u8> {
    let (width, height) = (clip.width(), clip.height());
    let mut bytes =
        format!("YUV4MPEG2 W{width} H{height} F{}:1 Ip A1:1 C444 XCOLORRANGE=LIMITED\n", clip.fps()).into_bytes();
    for frame in clip.frames() {
        let planes = color::to_444(frame, Matrix::Bt601);
        bytes.extend(b"FRAME\n");
        bytes.extend([planes.luma, planes.cb, planes.cr].concat());
    }
    bytes
}

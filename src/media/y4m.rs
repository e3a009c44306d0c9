//! YUV4MPEG2: raw frames with a line of text before each, the way ffmpeg, mpv and the metrics' reference tools read them.

use super::Clip;
use super::color::{self, Matrix};

/// 4:4:4, limited range. The header stays within the 90 bytes or so that readers accept, so it holds no settings.
pub(super) fn encode(clip: &Clip) -> Vec<u8> {
    let (width, height) = (clip.width(), clip.height());
    let mut bytes =
        format!("YUV4MPEG2 W{width} H{height} F{}:1 Ip A1:1 C444 XCOLORRANGE=LIMITED\n", clip.fps()).into_bytes();
    for frame in clip.frames() {
        let planes = color::to_444(frame, Matrix::for_height(height));
        bytes.extend(b"FRAME\n");
        bytes.extend([planes.luma, planes.cb, planes.cr].concat());
    }
    bytes
}

//! H.264 pictures of a clip, made by the `rusty_h264` encoder. This module adds the colour
//! description, which the encoder leaves out (ITU-T H.264; clause numbers are those of its 2021
//! edition).

use rusty_h264_common::YuvFrame;
use rusty_h264_encoder::{Encoder, EncoderConfig, Preset};

use super::color::{self, Matrix};
use super::{Clip, MediaError};

/// A coded clip: parameter sets and pictures as NAL units without start codes.
pub(super) struct Stream {
    /// Sequence parameter set: size, profile, level, colours.
    pub(super) sps: Vec<u8>,
    /// Picture parameter set.
    pub(super) pps: Vec<u8>,
    /// One picture for each frame, in the order of display.
    pub(super) pictures: Vec<Picture>,
    /// The coded width and height. An odd side of the clip grows by one pixel.
    pub(super) size: (u16, u16),
}

/// One coded frame.
pub(super) struct Picture {
    /// Decoding can start at this picture.
    pub(super) is_key: bool,
    /// The slices. Each is a 4-byte length and a NAL unit.
    pub(super) sample: Vec<u8>,
}

/// Constant quantizer from 0 (finest) to 51. With 12 the error of luma is close to the rounding
/// error (about 50 dB).
const QP: u8 = 12;
/// Seconds between pictures where decoding can start. Players seek to these pictures.
const KEY_INTERVAL: u32 = 2;
/// Number of pictures from which a picture may be predicted.
const REFERENCES: u8 = 3;
/// `MaxFS` of level 5.2, in macroblocks of 16 x 16 pixels. Level 5.2 is the highest level that most
/// players take.
const MAX_MACROBLOCKS: usize = 36_864;

const SPS: u8 = 7;
const PPS: u8 = 8;
const KEY_SLICE: u8 = 5;

/// Checks that frames of this size can be coded.
pub(super) fn check_size(width: usize, height: usize) -> Result<(), MediaError> {
    if width.div_ceil(16) * height.div_ceil(16) > MAX_MACROBLOCKS {
        return Err(MediaError::TooLargeForMp4 { width, height });
    }
    Ok(())
}

/// Encodes the clip.
pub(super) fn encode(clip: &Clip) -> Result<Stream, MediaError> {
    let width = (clip.width() as usize).next_multiple_of(2);
    let height = (clip.height() as usize).next_multiple_of(2);
    check_size(width, height)?;
    let matrix = Matrix::for_height(clip.height());
    let frames: Vec<YuvFrame> = clip
        .frames()
        .iter()
        .map(|rgb| color::to_420(rgb, clip.width() as usize, clip.height() as usize, matrix))
        .map(|planes| YuvFrame { width, height, y: planes.luma, u: planes.cb, v: planes.cr })
        .collect();
    let encoder = Encoder::new(config(width, height, clip.fps())).map_err(|error| failed(&error.to_string()))?;
    let units = encoder.encode_all(&frames).map_err(|error| failed(&error.to_string()))?;

    let mut stream =
        Stream { sps: Vec::new(), pps: Vec::new(), pictures: Vec::new(), size: (width as u16, height as u16) };
    for unit in &units {
        stream.pictures.push(split(unit, &mut stream.sps, &mut stream.pps));
    }
    if stream.sps.is_empty() || stream.pps.is_empty() || stream.pictures.len() != frames.len() {
        return Err(failed("parameter sets or pictures are missing"));
    }
    stream.sps = describe(&stream.sps, matrix, clip.fps());
    Ok(stream)
}

fn failed(reason: &str) -> MediaError {
    MediaError::Encode { format: "MP4", reason: reason.into() }
}

fn config(width: usize, height: usize, fps: u32) -> EncoderConfig {
    EncoderConfig {
        qp: QP,
        gop_size: KEY_INTERVAL * fps,
        scenecut: 0, // only KEY_INTERVAL places key pictures
        mbtree: false,
        aq_strength: 0.0, // the same fidelity everywhere, because the size of the file matters little
        framerate: fps as f32,
        num_ref_frames: REFERENCES.into(),
        preset: Preset::Balanced,
        ..EncoderConfig::new(width, height)
    }
}

/// Splits one access unit into its slices and its parameter sets.
fn split(unit: &[u8], sps: &mut Vec<u8>, pps: &mut Vec<u8>) -> Picture {
    let mut picture = Picture { is_key: false, sample: Vec::new() };
    for nal in nal_units(unit) {
        match nal[0] & 0x1f {
            SPS => *sps = nal.to_vec(),
            PPS => *pps = nal.to_vec(),
            kind => {
                picture.is_key |= kind == KEY_SLICE;
                picture.sample.extend((nal.len() as u32).to_be_bytes());
                picture.sample.extend(nal);
            }
        }
    }
    picture
}

/// The NAL units between start codes (annex B). A start code is `00 00 01`, often with another 0
/// before it. No NAL unit contains a start code.
fn nal_units(stream: &[u8]) -> Vec<&[u8]> {
    let starts: Vec<usize> = (0..stream.len()).filter(|&at| stream[at..].starts_with(&[0, 0, 1])).collect();
    let ends = starts.iter().skip(1).copied().chain([stream.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|(&start, end)| without_zeros(&stream[start + 3..end]))
        .filter(|nal| !nal.is_empty())
        .collect()
}

/// Removes zeros at the end. A NAL unit never ends in 0, so these zeros belong to the next start
/// code.
fn without_zeros(nal: &[u8]) -> &[u8] {
    let length = nal.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    &nal[..length]
}

/// Adds video usability information (annex E) to the sequence parameter set `sps`: square pixels,
/// limited range, BT.709 primaries with the sRGB curve, the matrix in use, the frame rate, and no
/// reordering of pictures.
fn describe(sps: &[u8], matrix: Matrix, fps: u32) -> Vec<u8> {
    let mut bits = Bits::of(&unescape(sps));
    bits.drop_trailing(); // rbsp_trailing_bits
    bits.0.pop(); // vui_parameters_present_flag, 0
    bits.push(1, 1);
    bits.push(1, 1); // aspect_ratio_info_present_flag
    bits.push(1, 8); // aspect_ratio_idc: square
    bits.push(0, 1); // overscan_info_present_flag
    bits.push(1, 1); // video_signal_type_present_flag
    bits.push(5, 3); // video_format: unspecified
    bits.push(0, 1); // video_full_range_flag
    bits.push(1, 1); // colour_description_present_flag
    bits.push(1, 8); // colour_primaries: BT.709, which sRGB shares
    bits.push(13, 8); // transfer_characteristics: sRGB
    bits.push(matrix.code().into(), 8);
    bits.push(0, 1); // chroma_loc_info_present_flag: the default position
    bits.push(1, 1); // timing_info_present_flag
    bits.push(1, 32); // num_units_in_tick
    bits.push(2 * fps, 32); // time_scale: ticks are fields
    bits.push(1, 1); // fixed_frame_rate_flag
    bits.push(0, 3); // no HRD parameters, no pic_struct
    bits.push(1, 1); // bitstream_restriction_flag
    bits.push(1, 1); // motion_vectors_over_pic_boundaries_flag
    for value in [0, 0, 15, 15, 0, REFERENCES.into()] {
        bits.push_golomb(value); // no size limits, any motion, no reordering, one buffer for each reference
    }
    bits.push(1, 1); // rbsp_stop_one_bit
    escape(&bits.into_bytes())
}

/// A string of bits. The first bit is the highest bit of the first byte.
struct Bits(Vec<bool>);

impl Bits {
    fn of(bytes: &[u8]) -> Self {
        Self(bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1)).collect())
    }

    /// Removes the last 1 and the 0s after it.
    fn drop_trailing(&mut self) {
        while self.0.pop() == Some(false) {}
    }

    fn push(&mut self, value: u32, count: u32) {
        self.0.extend((0..count).rev().map(|bit| value >> bit & 1 == 1));
    }

    /// Appends `ue(v)` (clause 9.1): one 0 for each bit below the highest 1 of value + 1, then
    /// value + 1.
    fn push_golomb(&mut self, value: u32) {
        let length = (value + 1).ilog2();
        self.push(0, length);
        self.push(value + 1, length + 1);
    }

    fn into_bytes(self) -> Vec<u8> {
        let byte = |bits: &[bool]| bits.iter().enumerate().fold(0, |byte, (i, &bit)| byte | u8::from(bit) << (7 - i));
        self.0.chunks(8).map(byte).collect()
    }
}

/// Removes the `03` of every `00 00 03` (clause 7.4.1).
fn unescape(nal: &[u8]) -> Vec<u8> {
    let is_escape = |at: usize| at >= 2 && nal[at - 2..=at] == [0, 0, 3];
    (0..nal.len()).filter(|&at| !is_escape(at)).map(|at| nal[at]).collect()
}

/// Inserts a `03` after two 0s wherever a decoder could see a start code (clause 7.4.1).
fn escape(payload: &[u8]) -> Vec<u8> {
    let mut nal = Vec::with_capacity(payload.len() + 8);
    for &byte in payload {
        if byte <= 3 && nal.ends_with(&[0, 0]) {
            nal.push(3);
        }
        nal.push(byte);
    }
    nal
}

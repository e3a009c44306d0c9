//! MP4 with one H.264 track (ISO/IEC 14496-12, 14496-15). The index comes first, so players can
//! begin before the file is loaded.

use super::h264::{self, Stream};
use super::{Clip, MediaError};

/// Duration of a frame in units of the track's clock. The clock runs at this multiple of the frame
/// rate.
const TICKS: u32 = 1000;
/// The unit matrix of `mvhd` and `tkhd`, in 16.16 and 2.30 fixed point.
const UNIT_MATRIX: [u32; 9] = [0x1_0000, 0, 0, 0, 0x1_0000, 0, 0, 0, 0x4000_0000];
/// The language "und" (undetermined) as three letters of five bits.
const UNDETERMINED: u16 = 0x55c4;

/// The clip as one file.
pub(super) fn encode(clip: &Clip, settings: &str) -> Result<Vec<u8>, MediaError> {
    let stream = h264::encode(clip)?;
    let samples: Vec<u8> = stream.pictures.iter().flat_map(|picture| &picture.sample).copied().collect();
    if u32::try_from(samples.len()).is_err() {
        let reason = "the clip takes more than 4 GiB".into();
        return Err(MediaError::Encode { format: "MP4", reason });
    }
    let matrix = super::color::Matrix::for_height(clip.height()).code();
    let index = |offset| movie(&stream, clip.fps(), matrix, settings, offset);

    let mut file = container(b"ftyp", &[b"isom", &be(&[0x200]), b"isomiso2avc1mp41"]);
    let offset = file.len() + index(0).len() + 8; // the size of the index does not depend on the offset
    file.extend(index(offset as u32));
    file.extend(container(b"mdat", &[&samples]));
    Ok(file)
}

/// A box: length, type, content.
fn container(kind: &[u8; 4], parts: &[&[u8]]) -> Vec<u8> {
    let length = 8 + parts.iter().map(|part| part.len()).sum::<usize>();
    [&(length as u32).to_be_bytes(), kind.as_slice(), &parts.concat()].concat()
}

fn be(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

fn be16(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

/// The box `moov` of a file whose samples start at byte `offset`.
fn movie(stream: &Stream, fps: u32, matrix: u8, settings: &str, offset: u32) -> Vec<u8> {
    let clock = fps * TICKS;
    let duration = stream.pictures.len() as u32 * TICKS;
    let header = container(
        b"mvhd",
        // version and flags, created, modified, clock, duration, rate 1.0, volume and reserved,
        // matrix, reserved, next track
        &[&be(&[0, 0, 0, clock, duration, 0x1_0000, 0x100_0000, 0, 0]), &be(&UNIT_MATRIX), &be(&[0; 6]), &be(&[2])],
    );
    let (width, height) = stream.size;
    let track_header = container(
        b"tkhd",
        // version and flags (enabled, in movie, in preview), created, modified, track, reserved,
        // duration, then mostly reserved
        &[
            &be(&[7, 0, 0, 1, 0, duration, 0, 0, 0, 0]),
            &be(&UNIT_MATRIX),
            &be(&[u32::from(width) << 16, u32::from(height) << 16]),
        ],
    );
    let media = container(
        b"mdia",
        &[
            &container(b"mdhd", &[&be(&[0, 0, 0, clock, duration]), &be16(&[UNDETERMINED, 0])]),
            &handler(b"vide", b"\0\0\0\0"),
            &container(
                b"minf",
                &[
                    &container(b"vmhd", &[&be(&[1, 0, 0])]),
                    &container(b"dinf", &[&container(b"dref", &[&be(&[0, 1]), &container(b"url ", &[&be(&[1])])])]),
                    &sample_table(stream, matrix, offset),
                ],
            ),
        ],
    );
    container(b"moov", &[&header, &container(b"trak", &[&track_header, &media]), &user_data(settings)])
}

fn handler(kind: &[u8; 4], manufacturer: &[u8; 4]) -> Vec<u8> {
    container(b"hdlr", &[&be(&[0, 0]), kind, manufacturer, &be(&[0, 0]), b"\0"])
}

/// The box `stbl`. All frames have the same duration and lie in one chunk.
fn sample_table(stream: &Stream, matrix: u8, offset: u32) -> Vec<u8> {
    let count = stream.pictures.len() as u32;
    let keys: Vec<u32> = (1..).zip(&stream.pictures).filter(|(_, picture)| picture.is_key).map(|(at, _)| at).collect();
    let sizes: Vec<u32> = stream.pictures.iter().map(|picture| picture.sample.len() as u32).collect();
    container(
        b"stbl",
        &[
            &container(b"stsd", &[&be(&[0, 1]), &sample_entry(stream, matrix)]),
            &container(b"stts", &[&be(&[0, 1, count, TICKS])]),
            &container(b"stss", &[&be(&[0, keys.len() as u32]), &be(&keys)]),
            &container(b"stsc", &[&be(&[0, 1, 1, count, 1])]),
            &container(b"stsz", &[&be(&[0, 0, count]), &be(&sizes)]),
            &container(b"stco", &[&be(&[0, 1, offset])]),
        ],
    )
}

/// The box `avc1`: size, decoder configuration, colours, pixel shape.
fn sample_entry(stream: &Stream, matrix: u8) -> Vec<u8> {
    let (width, height) = stream.size;
    container(
        b"avc1",
        &[
            &be16(&[0, 0, 0, 1]), // reserved, data reference
            &[0; 16],
            &be16(&[width, height, 72, 0, 72, 0, 0, 0, 1]), // 72 dots per inch, reserved, frames per sample
            &[0; 32],                                       // the encoder's name
            &be16(&[24, 0xffff]),                           // depth, no colour table
            &decoder_configuration(stream),
            &container(b"colr", &[b"nclx", &be16(&[1, 13, matrix.into()]), &[0]]), // as in the stream; limited range
            &container(b"pasp", &[&be(&[1, 1])]),
        ],
    )
}

/// The box `avcC` (ISO/IEC 14496-15, 5.3.3.1) for lengths of 4 bytes.
fn decoder_configuration(stream: &Stream) -> Vec<u8> {
    let [_, profile, compatibility, level, ..] = stream.sps[..] else { return Vec::new() };
    let high = [0xfd, 0xf8, 0xf8, 0]; // 4:2:0, 8 bits, 8 bits, no extensions; only for the High profiles
    container(
        b"avcC",
        &[
            &[1, profile, compatibility, level, 0xff, 0xe1],
            &be16(&[stream.sps.len() as u16]),
            &stream.sps,
            &[1],
            &be16(&[stream.pps.len() as u16]),
            &stream.pps,
            if profile >= 100 { &high } else { &[] },
        ],
    )
}

/// The box `udta` with the settings as a comment. iTunes, ffmpeg and most players look for comments
/// there.
fn user_data(settings: &str) -> Vec<u8> {
    if settings.is_empty() {
        return Vec::new();
    }
    let comment = container(b"\xa9cmt", &[&container(b"data", &[&be(&[1, 0]), settings.as_bytes()])]);
    let list = container(b"ilst", &[&comment]);
    container(b"udta", &[&container(b"meta", &[&be(&[0]), &handler(b"mdir", b"appl"), &list])])
}

use super::*;
use crate::media::{Clip, write};
use proptest::prelude::*;

fn clip() -> Clip {
    let frame = |t: usize| {
        let bit = |i: usize| if i % 8 >= t && i % 8 < t + 3 { 255 } else { 0 };
        (0..48).flat_map(|i| [bit(i); 3]).collect()
    };
    Clip::new(8, 6, 8, (0..5).map(frame).collect()).unwrap()
}

fn want() -> Vec<GrayFrame> {
    let gray = |frame: &Vec<u8>| frame.chunks(3).map(|pixel| pixel[0]).collect();
    clip().frames().iter().map(|frame| GrayFrame { width: 8, height: 6, values: gray(frame) }).collect()
}

#[test]
fn what_this_program_writes_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["clip.png", "clip.gif", "frames/"] {
        let path = folder.path().join(name);
        write(&path, &clip(), "").unwrap();
        assert_eq!(read_gray(&path).unwrap(), want(), "{name}");
    }
}

#[test]
fn a_picture_before_the_animation_is_no_frame() {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 2, 1);
    encoder.set_animated(2, 0).unwrap();
    encoder.set_sep_def_img(true).unwrap();
    let mut writer = encoder.write_header().unwrap();
    for picture in [[9, 9], [0, 255], [255, 0]] {
        writer.write_image_data(&picture).unwrap();
    }
    writer.finish().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mask.png");
    std::fs::write(&path, bytes).unwrap();
    let values: Vec<_> = read_gray(&path).unwrap().into_iter().map(|frame| frame.values).collect();
    assert_eq!(values, [[0, 255], [255, 0]]);
}

#[test]
fn numbers_in_names_sort_by_value() {
    let mut names = ["mask10.png", "mask2.png", "mask1.png", "mask002b.png"].map(PathBuf::from).to_vec();
    names.sort_by_cached_key(|path| natural_key(path));
    assert_eq!(names, ["mask1.png", "mask2.png", "mask002b.png", "mask10.png"].map(PathBuf::from));
}

#[test]
fn transparent_pixels_are_no_foreground_and_palettes_are_resolved() {
    let encode = |color: png::ColorType, data: &[u8], palette: Option<&[u8]>| {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 2, 1);
        encoder.set_color(color);
        if let Some(palette) = palette {
            encoder.set_palette(palette.to_vec());
        }
        encoder.write_header().unwrap().write_image_data(data).unwrap();
        decode(&bytes, &mut Budget { pixels: 100 }, 9).unwrap()[0].values.clone()
    };
    assert_eq!(encode(png::ColorType::Rgba, &[255, 255, 255, 0, 255, 255, 255, 255], None), [0, 255]);
    assert_eq!(encode(png::ColorType::Indexed, &[0, 1], Some(&[0, 0, 0, 255, 255, 255])), [0, 255]);
    assert_eq!(encode(png::ColorType::GrayscaleAlpha, &[100, 255, 100, 0], None), [100, 0]);
}

#[test]
fn sizes_that_the_bytes_cannot_hold_are_refused_before_memory_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clip.png");
    let still = Clip::new(8, 6, 8, clip().frames()[..1].to_vec()).unwrap();
    write(&path, &still, "").unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[16..24].copy_from_slice(&[0, 0, 0x20, 0, 0, 0, 0x20, 0]);
    let crc = crc32(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&crc.to_be_bytes());
    let message = decode(&bytes, &mut Budget { pixels: MOST_PIXELS }, 9).unwrap_err();
    assert!(message.contains("8192x8192"), "{message}");
    assert!(read_gray(&folder.path().join("none.png")).is_err());
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    assert!(read_gray(&empty).is_err());
}

/// CRC-32 of PNG, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0u32, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn broken_files_give_errors_or_frames_of_their_size(
        gif in any::<bool>(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        cut in any::<prop::sample::Index>(),
    ) {
        static FILES: std::sync::OnceLock<[Vec<u8>; 2]> = std::sync::OnceLock::new();
        let files = FILES.get_or_init(|| {
            let folder = tempfile::tempdir().unwrap();
            ["a.png", "a.gif"].map(|name| {
                write(&folder.path().join(name), &clip(), "").unwrap();
                std::fs::read(folder.path().join(name)).unwrap()
            })
        });
        let mut bytes = files[usize::from(gif)].clone();
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(cut.index(bytes.len()).max(bytes.len() / 2));
        if let Ok(frames) = decode(&bytes, &mut Budget { pixels: 1 << 20 }, 100) {
            prop_assert!(frames.iter().all(|frame| frame.values.len() == frame.width * frame.height));
        }
    }
}

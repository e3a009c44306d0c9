use std::f64::consts::TAU;
use std::fs;

use proptest::prelude::*;

use super::color::{Matrix, Planes};
use super::*;

const SETTINGS: &str = "{\"prompt\": \"a cat — 猫 😀\", \"steps\": 30}";

/// A clip of smooth, moving shapes in many colours.
fn clip(width: u32, height: u32, frames: u32) -> Clip {
    let wave = |v: u32, t: u32, period: f64| (127.5 + 127.5 * (TAU * f64::from(v + 2 * t) / period).sin()) as u8;
    let pixel = |x: u32, y: u32, t: u32| [wave(x, t, 64.0), wave(y, t, 48.0), wave(x + y, 3 * t, 96.0)];
    let frame = |t: u32| (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y, t))).collect();
    Clip::new(width, height, 16, (0..frames).map(frame).collect()).unwrap()
}

fn psnr(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    let error: f64 = a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
    10.0 * (255.0 * 255.0 * a.len() as f64 / error.max(1e-9)).log10()
}

/// Converts limited-range 4:4:4 to RGB. This inverse of `color` is an independent implementation of
/// H.273.
fn rgb_of(planes: &Planes, (kr, kb): (f64, f64)) -> Vec<u8> {
    let kg = 1.0 - kr - kb;
    let pixel = |i: usize| {
        let y = (f64::from(planes.luma[i]) - 16.0) / 219.0;
        let b = y + 2.0 * (1.0 - kb) * (f64::from(planes.cb[i]) - 128.0) / 224.0;
        let r = y + 2.0 * (1.0 - kr) * (f64::from(planes.cr[i]) - 128.0) / 224.0;
        [r, (y - kr * r - kb * b) / kg, b].map(|v| (255.0 * v).round() as u8)
    };
    (0..planes.luma.len()).flat_map(pixel).collect()
}

fn write_and_read(name: &str, clip: &Clip) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    write(&path, clip, SETTINGS).unwrap();
    fs::read(path).unwrap()
}

// The test catches these mutations: swapped weights or planes, full range, the other matrix (red is
// 81, 90, 240 in BT.601 and 63, 102, 240 in BT.709).
#[test]
fn primaries_have_the_published_codes() {
    let colors = [255, 255, 255, 0, 0, 0, 255, 0, 0, 0, 0, 255];
    let codes = |matrix| {
        let planes = color::to_444(&colors, matrix);
        (0..4).map(|i| [planes.luma[i], planes.cb[i], planes.cr[i]]).collect::<Vec<_>>()
    };
    assert_eq!(codes(Matrix::Bt601), [[235, 128, 128], [16, 128, 128], [81, 90, 240], [41, 240, 110]]);
    assert_eq!(codes(Matrix::Bt709), [[235, 128, 128], [16, 128, 128], [63, 102, 240], [32, 240, 118]]);
    assert_eq!((Matrix::for_height(719), Matrix::for_height(720)), (Matrix::Bt601, Matrix::Bt709));
}

// The test catches these mutations: chroma centred between columns or taken from one row, edges
// read from the opposite side.
#[test]
fn chroma_sits_on_even_columns_between_rows() {
    let mut rgb = vec![0; 4 * 2 * 3];
    rgb[2 * 3 + 2] = 255; // blue at (2, 0)
    let planes = color::to_420(&rgb, 4, 2, Matrix::Bt601);
    assert_eq!(planes.cb, [128, 128 + 28]); // 2/8 of 112; the first sample is two columns away
    rgb[2 * 3 + 2] = 0;
    rgb[3 * 3 + 2] = 255; // blue at (3, 0), the last column: only the sample to the left includes it
    assert_eq!(color::to_420(&rgb, 4, 2, Matrix::Bt601).cb, [128, 128 + 14]);
}

#[test]
fn bad_clips_are_refused() {
    assert!(matches!(Clip::new(4, 4, 16, vec![]), Err(MediaError::NoFrames)));
    assert!(matches!(Clip::new(0, 4, 16, vec![vec![]]), Err(MediaError::Size { .. })));
    assert!(matches!(Clip::new(4, u32::MAX, 16, vec![vec![]]), Err(MediaError::Size { .. })));
    assert!(matches!(Clip::new(4, 4, 0, vec![vec![0; 48]]), Err(MediaError::Fps(0))));
    let differing = Clip::new(4, 4, 16, vec![vec![0; 48], vec![0; 47]]);
    assert!(matches!(differing, Err(MediaError::FrameSize { index: 1, expected: 48, actual: 47 })));
}

#[test]
fn unknown_names_are_refused_with_the_choices() {
    for name in ["clip", "clip.avi", "clip.", ""] {
        let error = check_path(Path::new(name)).unwrap_err().to_string();
        assert!(error.contains(".mp4") && error.contains(".y4m"), "{error}");
    }
    assert!(matches!(check_path(Path::new("no/such/folder/a.mp4")), Err(MediaError::Write { .. })));
    check_path(Path::new("a.MP4")).unwrap();
    check_path(Path::new("a.apng")).unwrap();
    assert!(matches!(check_clip(Path::new("a.mp4"), 4096, 4096), Err(MediaError::TooLargeForMp4 { .. })));
    assert!(matches!(check_clip(Path::new("a.png"), 64, 9000), Err(MediaError::Size { .. })));
    check_clip(Path::new("a.png"), 4096, 4096).unwrap();
    check_path(Path::new("new-folder/")).unwrap();
}

// The test catches these mutations: frames in another order, a delay in another unit, a clip that
// plays only once.
#[test]
fn apng_is_exact() {
    let clip = clip(33, 17, 5);
    let bytes = write_and_read("a.png", &clip);
    let mut reader = ::png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
    let control = reader.info().animation_control.unwrap();
    assert_eq!((control.num_frames, control.num_plays), (5, 0));
    for frame in clip.frames() {
        let mut read = vec![0; frame.len()];
        reader.next_frame(&mut read).unwrap();
        assert_eq!(&read, frame);
        let control = reader.info().frame_control.unwrap();
        assert_eq!((control.delay_num, control.delay_den), (1, 16));
    }
}

#[test]
fn folder_holds_exact_frames() {
    let clip = clip(16, 8, 3);
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("frames/");
    write(&folder, &clip, SETTINGS).unwrap();
    for (index, frame) in clip.frames().iter().enumerate() {
        let file = std::io::BufReader::new(fs::File::open(folder.join(format!("{index:04}.png"))).unwrap());
        let mut reader = ::png::Decoder::new(file).read_info().unwrap();
        let mut read = vec![0; frame.len()];
        reader.next_frame(&mut read).unwrap();
        assert_eq!(&read, frame);
    }
    assert!(matches!(write(&folder, &clip, ""), Err(MediaError::FolderNotEmpty(_))));
    let empty = parent.path().join("empty");
    fs::create_dir(&empty).unwrap();
    write(&empty, &clip, "").unwrap();
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 3);
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 2, "nothing temporary is left");
}

/// A link stays a link: its target is written, whether it exists or not.
#[test]
#[cfg(unix)]
fn links_are_kept() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let clip = clip(8, 8, 2);
    fs::create_dir(at("big")).unwrap();
    symlink("big/new.gif", at("link.gif")).unwrap();
    symlink("link.gif", at("second.gif")).unwrap();
    for name in ["link.gif", "second.gif"] {
        check_path(&at(name)).unwrap();
        write(&at(name), &clip, SETTINGS).unwrap();
        assert!(at(name).is_symlink() && fs::read(at("big/new.gif")).unwrap().starts_with(b"GIF89a"), "{name}");
    }
    symlink(at("round.gif"), at("round.gif")).unwrap();
    assert!(matches!(check_path(&at("round.gif")), Err(MediaError::Write { .. })));
    for (name, there) in [("empty", true), ("absent", false)] {
        if there {
            fs::create_dir(at("big").join(name)).unwrap();
        }
        symlink(at("big").join(name), at(name)).unwrap();
        let slash = at(&format!("{name}/"));
        check_path(&slash).unwrap();
        write(&slash, &clip, SETTINGS).unwrap();
        assert!(at(name).is_symlink(), "{name}");
        assert_eq!(fs::read_dir(at("big").join(name)).unwrap().count(), 3, "{name}: two frames and the settings");
        assert!(matches!(check_path(&slash), Err(MediaError::FolderNotEmpty(_))));
    }
    assert_eq!(fs::read_dir(at("big")).unwrap().count(), 3, "nothing temporary is left");
}

/// A clip whose folder is gone at the end is not lost.
#[test]
fn a_clip_without_a_place_goes_elsewhere() {
    let [lost, temporary] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let clip = clip(8, 8, 2);
    for name in ["a.gif", "a.gif", "frames/"] {
        let path = lost.path().join("gone").join(name);
        assert!(write(&path, &clip, "").is_err());
        let place = keep_in(temporary.path(), &path, &clip, "").unwrap();
        assert!(place.starts_with(temporary.path()) && fs::metadata(&place).unwrap().len() > 0);
    }
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 3, "no file replaces another");
    let MediaError::Elsewhere { place, .. } = write_or_keep(&lost.path().join("gone/b.gif"), &clip, "").unwrap_err()
    else {
        panic!("another error")
    };
    fs::remove_file(place).unwrap();
}

#[test]
fn names_are_portable() {
    let pairs = [
        ("a cat.mp4", "a cat.mp4"),
        ("a<b>:\"c/d\\e|f?g*h\u{7}", "a-b---c-d-e-f-g-h-"),
        ("con.mp4", "con-.mp4"),
        ("LPT1", "LPT1-"),
        ("com0.png", "com0.png"),
        ("console", "console"),
        ("dots...", "dots"),
        ("猫", "猫"),
    ];
    for (name, portable) in pairs {
        assert_eq!(portable_name(name), portable);
    }
}

fn decode_gif(bytes: &[u8]) -> (Vec<Vec<u8>>, Vec<u16>, ::gif::Repeat) {
    let mut options = ::gif::DecodeOptions::new();
    options.set_color_output(::gif::ColorOutput::RGBA);
    let mut decoder = options.read_info(bytes).unwrap();
    let (mut frames, mut delays) = (Vec::new(), Vec::new());
    while let Some(frame) = decoder.read_next_frame().unwrap() {
        frames.push(frame.buffer.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect());
        delays.push(frame.delay);
    }
    (frames, delays, decoder.repeat())
}

// The test catches these mutations: a palette of the first frame only, a dither that is too strong
// or goes in one direction, delays that drift or are all rounded to 6.
#[test]
fn gif_is_close_and_keeps_time() {
    let clip = clip(64, 48, 16);
    let (frames, delays, repeat) = decode_gif(&write_and_read("a.gif", &clip));
    let quality = psnr(&frames.concat(), &clip.frames().concat());
    assert!(quality > 25.0, "{quality} dB"); // 256 colours for a clip of many thousand
    assert_eq!(delays.iter().sum::<u16>(), 100, "16 frames at 16 a second: {delays:?}");
    assert!(matches!(repeat, ::gif::Repeat::Infinite));
}

#[test]
fn gif_of_few_colors_is_exact() {
    let frames: Vec<Vec<u8>> =
        (0..3).map(|t| (0..16 * 16 * 3).map(|i| (i / 3 * 7 + t) as u8 & 0xf0).collect()).collect();
    let clip = Clip::new(16, 16, 100, frames).unwrap();
    let (frames, delays, _) = decode_gif(&write_and_read("a.gif", &clip));
    assert_eq!(frames, clip.frames());
    assert_eq!(delays, [2, 2, 2], "players slow down what is faster");
}

// The test catches these mutations: swapped planes, a wrong range, a header that differs from the
// data.
#[test]
fn y4m_holds_the_frames() {
    let clip = clip(30, 10, 3);
    let bytes = write_and_read("a.y4m", &clip);
    let header = b"YUV4MPEG2 W30 H10 F16:1 Ip A1:1 C444 XCOLORRANGE=LIMITED\n";
    let mut rest = bytes.strip_prefix(header).unwrap();
    for frame in clip.frames() {
        let (planes, after) = rest.strip_prefix(b"FRAME\n").unwrap().split_at(900);
        let [luma, cb, cr] = [0, 300, 600].map(|at| planes[at..at + 300].to_vec());
        let quality = psnr(&rgb_of(&Planes { luma, cb, cr }, (0.299, 0.114)), frame);
        assert!(quality > 50.0, "{quality} dB");
        rest = after;
    }
    assert!(rest.is_empty());
}

// The test catches these mutations: wrong offsets or sizes of samples, parameter sets that do not
// parse, wrong marks of key pictures, a quantizer that is too coarse, frames in another order,
// swapped chroma planes, a wrong clock.
#[test]
fn mp4_plays_back() {
    for (width, height, frames) in [(64, 64, 17), (48, 80, 40), (33, 17, 3), (16, 16, 1)] {
        let clip = clip(width, height, frames);
        let bytes = write_and_read("a.mp4", &clip);
        let moov = bytes.windows(4).position(|window| window == b"moov").unwrap();
        let mdat = bytes.windows(4).position(|window| window == b"mdat").unwrap();
        assert!(moov < mdat, "the index comes first");

        let mp4 = re_mp4::Mp4::read_bytes(&bytes).unwrap();
        let track = mp4.tracks().values().next().unwrap();
        let (even_width, even_height) = (width.next_multiple_of(2), height.next_multiple_of(2));
        assert_eq!((u32::from(track.width), u32::from(track.height)), (even_width, even_height));
        assert_eq!(track.samples.len(), frames as usize);
        assert_eq!(track.duration * 16, u64::from(frames) * track.timescale);
        let keys: Vec<usize> = (0..track.samples.len()).filter(|&at| track.samples[at].is_sync).collect();
        assert_eq!(keys, (0..frames as usize).step_by(32).collect::<Vec<_>>(), "a key picture every 2 seconds");

        let avc1 = track.trak(&mp4).mdia.minf.stbl.stsd.contents.clone();
        let re_mp4::StsdBoxContent::Avc1(avc1) = avc1 else { panic!("no H.264") };
        let mut stream: Vec<u8> = Vec::new();
        for set in [&avc1.avcc.sequence_parameter_sets[0], &avc1.avcc.picture_parameter_sets[0]] {
            stream.extend([&[0, 0, 0, 1], &set.bytes[..]].concat());
        }
        for sample in &track.samples {
            let mut units = &bytes[sample.offset as usize..][..sample.size as usize];
            while let Some((length, rest)) = units.split_first_chunk::<4>() {
                let (unit, after) = rest.split_at(u32::from_be_bytes(*length) as usize);
                stream.extend([&[0, 0, 0, 1], unit].concat());
                units = after;
            }
        }
        let decoded = rusty_h264_decoder::Decoder::new().decode_stream(&stream).unwrap();
        assert_eq!(decoded.len(), frames as usize);
        for (picture, frame) in decoded.iter().zip(clip.frames()) {
            let source = color::to_420(frame, width as usize, height as usize, Matrix::Bt601);
            assert_eq!((picture.width, picture.height), (even_width as usize, even_height as usize));
            for (coded, plane) in [(&picture.y, &source.luma), (&picture.u, &source.cb), (&picture.v, &source.cr)] {
                let quality = psnr(coded, plane);
                assert!(quality > 45.0, "{quality} dB");
            }
        }
    }
}

// The test catches bits of the colour description in another order or place.
#[test]
fn streams_say_their_colors() {
    for (height, matrix) in [(64, 6), (720, 1)] {
        let black = Clip::new(64, height, 16, vec![vec![0; 64 * height as usize * 3]]).unwrap();
        let bytes = write_and_read("a.mp4", &black);
        let nclx = [b"colrnclx".as_slice(), &[0, 1, 0, 13, 0, matrix, 0]].concat();
        assert!(bytes.windows(nclx.len()).any(|window| window == nclx), "in the container");
        // Aspect 1, square, no overscan, signal 1, format 5, limited range, description 1, then the
        // three codes.
        let sps = h264::encode(&black).unwrap().sps;
        let bits: String = sps.iter().map(|byte| format!("{byte:08b}")).collect();
        assert!(bits.contains(&format!("1000000010110101{:08b}{:08b}{matrix:08b}", 1, 13)), "in the stream: {bits}");
    }
}

#[test]
fn huge_frames_are_no_mp4() {
    let huge = Clip::new(4096, 4096, 1, vec![vec![0; 4096 * 4096 * 3]]).unwrap();
    assert!(matches!(mp4::encode(&huge, ""), Err(MediaError::TooLargeForMp4 { .. })));
}

#[test]
fn settings_come_back() {
    let clip = clip(16, 16, 2);
    let long = SETTINGS.repeat(3000);
    let folder = tempfile::tempdir().unwrap();
    for (at, settings) in [SETTINGS, &long, "x"].into_iter().enumerate() {
        for name in ["a.mp4", "a.gif", "a.png", "a.y4m", "frames/"] {
            let path = folder.path().join(format!("{at}{name}"));
            write(&path, &clip, settings).unwrap();
            assert_eq!(read_settings(&path).unwrap().as_deref(), Some(settings), "{name}");
        }
    }
    for name in ["none.mp4", "none.gif", "none.png", "none.y4m", "none/"] {
        let path = folder.path().join(name);
        write(&path, &clip, "").unwrap();
        assert_eq!(read_settings(&path).unwrap(), None, "{name}");
    }
    assert!(matches!(read_settings(&folder.path().join("absent.mp4")), Err(MediaError::Read { .. })));
}

#[test]
fn older_files_are_replaced_or_kept_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    fs::write(&path, "older").unwrap();
    write(&path, &clip(16, 16, 1), "").unwrap();
    assert!(fs::read(&path).unwrap().starts_with(b"\x89PNG"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing temporary is left");
    let error = write(&folder.path().join("absent/a.png"), &clip(16, 16, 1), "").unwrap_err().to_string();
    assert!(error.starts_with("cannot write ") && error.contains("a.png"), "{error}");
}

// The test catches these mutations: strips without the last frame, exchanged cells, a scale that
// smooths, clips that end early.
#[test]
fn sheets_show_all_clips_in_their_places() {
    let flat = |value: u8| vec![value; 4 * 2 * 3];
    let counting = Clip::new(4, 2, 16, (0..5).map(|t| flat(100 + t)).collect()).unwrap();
    let single = Clip::new(4, 2, 16, vec![flat(200)]).unwrap();
    let shown = strip(&counting, 3).unwrap();
    assert_eq!((shown.width(), shown.height(), shown.frames().len()), (2 + 3 * 6, 2 + 4, 1));
    let at = |x: usize| shown.frames()[0][(2 * 20 + x) * 3];
    assert_eq!([at(2), at(8), at(14), at(1), at(6)], [100, 102, 104, 32, 32]);
    assert_eq!(strip(&single, 3).unwrap().width(), 2 + 6);
    assert_eq!(strip(&counting, 9).unwrap(), strip(&counting, 5).unwrap(), "no frame twice, none left out");

    let cells = [&counting, &single, &counting].map(|clip| SheetCell { clip, caption: "" });
    let sheet = grid(&cells, 2, 2).unwrap();
    assert_eq!((sheet.width(), sheet.height(), sheet.frames().len()), ((2 + 2 * 6) * 2, (2 + 2 * 4) * 2, 5));
    let at = |time: usize, x: usize, y: usize| sheet.frames()[time][(y * 2 * 28 + x * 2) * 3];
    assert_eq!([at(0, 2, 2), at(0, 8, 2), at(0, 2, 6), at(0, 8, 6)], [100, 200, 100, 32]);
    assert_eq!([at(4, 2, 2), at(4, 8, 3), at(4, 5, 7)], [104, 200, 104]);
    assert!(matches!(grid(&[], 3, 1), Err(MediaError::NoFrames)));
    let one = [SheetCell { clip: &single, caption: "" }];
    assert!(matches!(grid(&one, 0, 1), Err(MediaError::NoFrames)));
    assert!(matches!(grid(&one, usize::MAX, 1), Err(MediaError::Size { .. })));
    assert!(matches!(grid(&one, 1, 0), Err(MediaError::Size { .. })));
}

// The test catches these mutations: captions over the pictures or below the wrong picture, text
// that runs into the next cell.
#[test]
fn captions_stand_below_their_clips() {
    let flat = Clip::new(64, 8, 16, vec![vec![200; 64 * 8 * 3]; 2]).unwrap();
    let captions = ["a cat", "", "a text that is much too long for its cell"];
    let sheet = grid(&captions.map(|caption| SheetCell { clip: &flat, caption }), 3, 1).unwrap();
    assert_eq!((sheet.width(), sheet.height(), sheet.frames().len()), (2 + 3 * 66, 2 + 10 + 16, 2));
    let bright = |left: usize, width: usize, top: usize, height: usize| {
        let pixel = |i: usize| sheet.frames()[1][((top + i / width) * 200 + left + i % width) * 3];
        (0..width * height).filter(|i| pixel(*i) > 120).count()
    };
    assert_eq!([bright(2, 64, 2, 8), bright(68, 64, 2, 8)], [64 * 8; 2], "the clips are whole");
    assert!(bright(2, 40, 10, 16) > 20 && bright(134, 64, 10, 16) > 60, "the captions are there");
    assert_eq!([bright(42, 24, 10, 16), bright(68, 64, 10, 16), bright(198, 2, 0, 28)], [0; 3], "and nowhere else");
}

proptest! {
    /// The search for settings ends without a panic for any bytes, because files may come from
    /// anywhere.
    #[test]
    fn any_bytes_can_be_searched(start in 0..4usize, bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let start: &[u8] = [b"".as_slice(), b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\0\0\0\x40moov\0\0\0\x38udta"][start];
        settings::find(&[start, &bytes].concat());
    }

    /// The same for real files with a changed byte or a missing end.
    #[test]
    fn damaged_files_can_be_searched(format in 0..3usize, cut in 0..2000usize, at in 0..2000usize, byte: u8) {
        let clip = clip(16, 16, 1);
        let mut bytes = [mp4::encode, gif::encode, png::encode][format](&clip, SETTINGS).unwrap();
        bytes.truncate(cut);
        if let Some(damaged) = bytes.get_mut(at) {
            *damaged = byte;
        }
        settings::find(&bytes);
    }
}

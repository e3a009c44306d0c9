use super::*;
use proptest::prelude::*;

fn text_bytes(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

/// A file with metadata of several kinds, a list of texts, and three tensors.
fn file() -> Vec<u8> {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend(3u64.to_le_bytes());
    bytes.extend(5u64.to_le_bytes());
    let mut value = |key: &str, kind: u32, data: &[u8]| {
        bytes.extend(text_bytes(key));
        bytes.extend(kind.to_le_bytes());
        bytes.extend(data);
    };
    value("general.architecture", 8, &text_bytes("wan"));
    value("general.alignment", 4, &64u32.to_le_bytes());
    let list = [&8u32.to_le_bytes()[..], &2u64.to_le_bytes(), &text_bytes("a"), &text_bytes("▁b")].concat();
    value("tokens", 9, &list);
    let floats = [&6u32.to_le_bytes()[..], &2u64.to_le_bytes(), &(-1.5f32).to_le_bytes(), &2f32.to_le_bytes()].concat();
    value("scores", 9, &floats);
    let shape = [&5u32.to_le_bytes()[..], &3u64.to_le_bytes(), &[2, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0]].concat();
    value("comfy.gguf.orig_shape.flat", 9, &shape);
    for (name, extents, kind, offset) in
        [("matrix", &[32u64, 2][..], 8u32, 0u64), ("flat", &[8], 1, 128), ("scalar", &[], 0, 192)]
    {
        bytes.extend(text_bytes(name));
        bytes.extend((extents.len() as u32).to_le_bytes());
        extents.iter().for_each(|extent| bytes.extend(extent.to_le_bytes()));
        bytes.extend(kind.to_le_bytes());
        bytes.extend(offset.to_le_bytes());
    }
    bytes.resize(bytes.len().next_multiple_of(64), 0);
    let mut data = vec![0; 196];
    data[..2].copy_from_slice(&half::f16::from_f32(0.5).to_le_bytes());
    data[2..34].fill(4);
    data[192..].copy_from_slice(&7f32.to_le_bytes());
    bytes.extend(data);
    bytes
}

fn read_bytes(bytes: &[u8]) -> Result<(Vec<Entry>, Metadata), WeightsError> {
    read(Path::new("m.gguf"), bytes)
}

#[test]
fn tensors_and_metadata() {
    let bytes = file();
    let (entries, metadata) = read_bytes(&bytes).unwrap();
    let value = |i: usize| entries[i].dtype.decode(&bytes[entries[i].range.clone()]).unwrap();
    assert_eq!((entries[0].name.as_str(), &entries[0].shape[..]), ("matrix", &[2, 32][..]));
    assert_eq!((value(0)[0], value(0)[32]), (2.0, 0.0));
    assert_eq!((&entries[1].shape[..], entries[1].dtype), (&[2, 1, 4][..], DType::F16));
    assert_eq!((&entries[2].shape[..], value(2)), (&[][..], vec![7.0]));
    assert_eq!(metadata.text(&bytes, "general.architecture"), Some("wan"));
    assert_eq!(metadata.texts(&bytes, "tokens"), Some(vec!["a", "▁b"]));
    assert_eq!(metadata.numbers(&bytes, "scores"), Some(vec![-1.5, 2.0]));
    assert_eq!(metadata.numbers(&bytes, "tokens"), None);
    assert_eq!(metadata.text(&bytes, "none"), None);
}

#[test]
fn what_cannot_be_read_is_named() {
    let problem = |bytes: &[u8]| read_bytes(bytes).unwrap_err().to_string();
    let at = |text: &str| file().windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
    let with = |at: usize, value: &[u8]| {
        let mut bytes = file();
        bytes[at..at + value.len()].copy_from_slice(value);
        bytes
    };
    assert!(problem(&with(4, &[1])).contains("version 1"));
    assert!(problem(&with(4, &[0, 0, 0, 3])).contains("big-endian"));
    let kind = at("matrix") + 6 + 4 + 16;
    assert!(problem(&with(kind, &[23])).contains("IQ4_XS"), "{}", problem(&with(kind, &[23])));
    assert!(problem(&with(kind - 16, &[33])).contains("does not lie in it"), "no multiple of a block");
    assert!(problem(&with(kind - 8, &[255; 8])).contains("does not lie in it"));
    assert!(problem(&with(at("general.alignment") + 21, &[3])).contains("alignment is 3"));
    assert!(problem(&with(8, &[255; 8])).contains("cut short"), "a claim of tensors");
    assert!(problem(&with(16, &[255; 8])).contains("cut short"), "a claim of metadata");
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = file();
    for cut in 4..bytes.len() {
        assert!(read_bytes(&bytes[..cut]).is_err(), "{cut}");
    }
}

proptest! {
    #[test]
    fn damaged_files_never_panic(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = file();
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok((entries, metadata)) = read_bytes(&bytes) {
            for entry in entries {
                prop_assert!(bytes.get(entry.range.clone()).is_some());
                entry.dtype.decode(&bytes[entry.range]);
            }
            for key in ["tokens", "scores", "general.alignment"] {
                _ = (metadata.texts(&bytes, key), metadata.numbers(&bytes, key), metadata.bytes(&bytes, key));
            }
        }
    }
}

use super::*;
use proptest::prelude::*;

fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

fn problem(header: &str, data: usize) -> String {
    let error = read(Path::new("m.safetensors"), &file(header, data)).unwrap_err();
    assert!(error.to_string().contains("m.safetensors"), "{error}");
    error.to_string()
}

const GOOD: &str = r#"{"__metadata__":{"format":"pt"},"b":{"dtype":"F16","shape":[2,3],"data_offsets":[4,16]},
    "a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"e":{"dtype":"F32","shape":[0,7],"data_offsets":[16,16]}}"#;

#[test]
fn lists_tensors_in_file_order() {
    let bytes = file(GOOD, 16);
    let entries = read(Path::new("m"), &bytes).unwrap();
    let names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "e"]);
    assert_eq!(entries[1].shape, [2, 3]);
    assert_eq!(entries[1].range, bytes.len() - 12..bytes.len());
}

// Each line is one header that contradicts itself or its file. Each fails if its check is
// removed from the code.
#[test]
fn lying_headers_are_named() {
    let one = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    let cases = [
        (one("F32", "[4611686018427387904,4]", "[0,0]"), 0, "which is not F32"),
        (one("F32", "[2]", "[0,8]"), 4, "the file holds 4"),
        (one("F32", "[2]", "[8,0]"), 8, "claims bytes 8..0"),
        (one("F32", "[2]", "[0,18446744073709551615]"), 8, "the file holds 8"),
        (one("F16", "[2]", "[0,8]"), 8, "has 8 bytes, which is not F16 [2]"),
        (one("F32", "[2]", "[4,12]"), 12, "leaves a gap"),
        (one("F32", "[2]", "[0,8]"), 12, "4 bytes at its end"),
        (one("F31", "[2]", "[0,8]"), 8, "unknown dtype F31"),
        (one("U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]"), 1, "9 dimensions"),
    ];
    for (header, data, expected) in cases {
        let problem = problem(&header, data);
        assert!(problem.contains(expected), "{header}: {problem}");
    }
    let overlap = GOOD.replace("[4,16]", "[2,14]");
    assert!(problem(&overlap, 16).contains("the tensor b overlaps"), "{}", problem(&overlap, 16));
}

#[test]
fn duplicates_json_and_lengths() {
    let twice =
        r#"{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#;
    assert!(problem(twice, 0).contains("stored twice"));
    for header in ["", "[]", "{", r#"{"a":1}"#, r#"{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,0]}}"#] {
        assert!(problem(header, 0).contains("JSON"), "{header}");
    }
    for bytes in [&b""[..], b"\x01\0\0", b"\xff\xff\xff\xff\xff\xff\xff\xff{}", b"\x03\0\0\0\0\0\0\0{}"] {
        assert!(matches!(read(Path::new("m"), bytes), Err(WeightsError::Malformed { .. })));
    }
}

#[test]
fn control_characters_do_not_reach_the_terminal() {
    let header = r#"{"\u001b[2J":{"dtype":"F3","shape":[],"data_offsets":[0,0]}}"#;
    assert!(!problem(header, 0).contains('\x1b'));
}

proptest! {
    #[test]
    fn damaged_files_never_panic(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8), cut in any::<prop::sample::Index>()) {
        let mut bytes = file(GOOD, 16);
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(cut.index(bytes.len() * 2));
        if let Ok(entries) = read(Path::new("m"), &bytes) {
            for entry in entries {
                prop_assert_eq!(entry.dtype.bytes_of(&entry.shape), Some(entry.range.len()));
                prop_assert!(bytes.get(entry.range).is_some());
            }
        }
    }
}

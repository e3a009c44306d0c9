use super::*;
use safetensors::tensor::{Dtype, TensorView as Saved};

/// A tensor to save: name, dtype, shape, bytes.
type Row<'a> = (&'a str, Dtype, &'a [usize], &'a [u8]);

fn save(path: &Path, rows: &[Row<'_>]) {
    let views =
        rows.iter().map(|(name, dtype, shape, bytes)| (*name, Saved::new(*dtype, shape.to_vec(), bytes).unwrap()));
    safetensors::serialize_to_file(views, None, path).unwrap();
}

fn names(checkpoint: &Checkpoint) -> Vec<&str> {
    checkpoint.tensors().map(|tensor| tensor.name).collect()
}

const ONE: &[u8] = &1.0f32.to_le_bytes();
const HALF: &[u8] = &0.5f32.to_le_bytes();

#[test]
fn reads_what_the_crate_wrote() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let f16 = [0x00, 0x3c, 0x00, 0xc0];
    save(&path, &[("b", Dtype::F16, &[2, 1], &f16), ("a", Dtype::F32, &[], ONE), ("n", Dtype::U8, &[3], b"xyz")]);
    for given in [&path, folder.path()] {
        let checkpoint = Checkpoint::open(given).unwrap();
        assert_eq!(names(&checkpoint), ["a", "b", "n"]);
        assert_eq!(checkpoint.len(), 3);
        assert_eq!(checkpoint.path(), path);
        let b = checkpoint.require("b", &[2, 1]).unwrap();
        assert_eq!((b.dtype, b.to_f32().unwrap()), (DType::F16, vec![1.0, -2.0]));
        assert_eq!(checkpoint.get("n").unwrap().bytes, b"xyz");
        assert!(matches!(checkpoint.require("b", &[2]), Err(WeightsError::Shape { .. })));
        assert!(matches!(checkpoint.require("c", &[2]), Err(WeightsError::MissingTensor { .. })));
    }
}

#[test]
fn reads_torch_archives() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/weights/state_dict.pth");
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(names(&checkpoint), ["bf16", "bytes", "column", "empty", "f16", "f32", "f64", "view"]);
    assert_eq!(checkpoint.require("view", &[3]).unwrap().to_f32().unwrap(), [3.0, 4.0, 5.0]);
}

/// Protocol 4, a nested state dict, parameters, strides and fp8 (tests/golden/pickles.py).
#[test]
fn reads_what_newer_torch_writes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/weights/protocol4.pth");
    let checkpoint = Checkpoint::open(&path).unwrap();
    let value = |name, shape: &[usize]| checkpoint.require(name, shape).unwrap().to_f32().unwrap();
    assert_eq!(names(&checkpoint), ["column", "fp8", "parameter", "transposed"]);
    assert_eq!(value("parameter", &[2, 3]), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(value("transposed", &[3, 2]), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    assert_eq!(value("column", &[2]), [1.0, 4.0]);
    assert_eq!(value("fp8", &[3]), [1.0, 2.0, -4.0]);
}

#[test]
fn fp8_scales_are_folded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let rows: &[Row<'_>] = &[
        ("p.scaled_fp8", Dtype::F8_E4M3, &[2], &[0, 0]),
        ("p.q.weight", Dtype::F8_E4M3, &[1, 2], &[0x38, 0x40]),
        ("p.q.scale_weight", Dtype::F32, &[], HALF),
        ("p.q.scale_input", Dtype::F32, &[], ONE),
        ("p.q.bias", Dtype::F32, &[1], ONE),
        ("p.k.weight", Dtype::F8_E5M2, &[1], &[0x3c]),
        ("p.k.weight_scale", Dtype::F32, &[1], HALF),
        ("p.plain.weight", Dtype::F8_E4M3, &[1], &[0x38]),
    ];
    save(&path, rows);
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(names(&checkpoint), ["p.k.weight", "p.plain.weight", "p.q.bias", "p.q.weight"]);
    let factor = |name| checkpoint.get(name).unwrap().scale.map(|scale| scale.as_uniform().unwrap());
    let value = |name| (factor(name), checkpoint.get(name).unwrap().to_f32().unwrap());
    assert_eq!(value("p.q.weight"), (Some(0.5), vec![0.5, 1.0]));
    assert_eq!(value("p.k.weight"), (Some(0.5), vec![0.5]));
    assert_eq!(value("p.plain.weight"), (None, vec![1.0]));
    let stripped = checkpoint.renamed(|name| name.strip_prefix("p.").map(String::from)).unwrap();
    assert_eq!(stripped.get("q.weight").unwrap().to_f32().unwrap(), [0.5, 1.0]);
}

#[test]
fn scales_that_cannot_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let open = |rows: &[Row<'_>]| {
        save(&path, rows);
        Checkpoint::open(&path).unwrap_err().to_string()
    };
    let weight: Row<'_> = ("q.weight", Dtype::F8_E4M3, &[1], &[0]);
    let nan = f32::NAN.to_le_bytes();
    assert!(open(&[weight, ("q.scale_weight", Dtype::F32, &[2], &[0; 8])]).contains("neither as a whole"));
    assert!(open(&[weight, ("q.scale_weight", Dtype::F32, &[], &nan)]).contains("finite"));
    assert!(open(&[weight, ("q.scale_weight", Dtype::U8, &[], &[1])]).contains("U8"));
    assert!(open(&[weight, ("k.scale_weight", Dtype::F32, &[], ONE)]).contains("k.weight is missing"));
    let both = [weight, ("q.scale_weight", Dtype::F32, &[], ONE), ("q.weight_scale", Dtype::F32, &[], HALF)];
    assert!(open(&both).contains("contradict"));
    for name in ["q.scale", "q.weight_scales", "q.absmax"] {
        let problem = open(&[weight, (name, Dtype::F32, &[], ONE)]);
        assert!(problem.contains(&format!("{name} beside the F8_E4M3 weight q.weight")), "{problem}");
    }
}

/// Scales for rows and blocks, under each name, and whole numbers of 8 bits.
#[test]
fn scales_of_rows_and_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let [two, three] = [2.0f32, 3.0].map(f32::to_le_bytes);
    let rows = [two, three].concat();
    let list: &[Row<'_>] = &[
        ("a.weight", Dtype::F8_E4M3, &[2, 2], &[0x38; 4]),
        ("a.weight_scale", Dtype::F32, &[2, 1], &rows),
        ("b.weight", Dtype::F8_E5M2, &[2, 2], &[0x3c; 4]),
        ("b.weight_scale_inv", Dtype::F32, &[1, 2], &rows),
        ("c.weight", Dtype::I8, &[2, 1], &[0xff, 4]),
        ("c.weight_scale", Dtype::F32, &[2], &rows),
        ("c.scale_weight", Dtype::F32, &[2], &rows),
        ("d.weight", Dtype::I8, &[1], &[5]),
    ];
    save(&path, list);
    let checkpoint = Checkpoint::open(&path).unwrap();
    let value = |name| checkpoint.get(name).unwrap().to_f32();
    assert_eq!(value("a.weight").unwrap(), [2.0, 2.0, 3.0, 3.0]);
    assert_eq!(value("b.weight").unwrap(), [2.0, 3.0, 2.0, 3.0]);
    assert_eq!(value("c.weight").unwrap(), [-2.0, 12.0]);
    assert_eq!(checkpoint.get("a.weight").unwrap().rows_to_f32(1..2).unwrap(), [3.0, 3.0]);
    assert!(value("d.weight").is_err(), "whole numbers without scales are no weights");
}

/// What the first bytes say counts, whatever the ending.
#[test]
fn first_bytes_decide() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    save(&at("m.safetensors"), &[("a", Dtype::F32, &[], ONE)]);
    std::fs::copy(at("m.safetensors"), at("m.pth")).unwrap();
    std::fs::copy(at("m.safetensors"), at("m.other")).unwrap();
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/weights/state_dict.pth");
    std::fs::copy(archive, at("z.safetensors")).unwrap();
    assert!(["m.pth", "m.other", "z.safetensors"].iter().all(|name| Checkpoint::open(at(name)).is_ok()));
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 11361920418\n";
    for (contents, advice) in [
        (&pointer[..], "git lfs pull"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"{\"error\": \"Repository not found\"}", "error message"),
        (b"\x80\x02}q\0.", "bare pickle"),
    ] {
        for name in ["x.safetensors", "x.pth", "x.gguf", "x"] {
            std::fs::write(at(name), contents).unwrap();
            let problem = Checkpoint::open(at(name)).unwrap_err().to_string();
            assert!(problem.contains(advice) && !problem.contains("damaged"), "{name}: {problem}");
        }
    }
}

#[test]
fn identities() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let save = |name: &str, bytes: &[u8]| {
        save(&at(name), &[("a", Dtype::U8, &[5000], bytes)]);
        Checkpoint::open(at(name)).unwrap()
    };
    let mut bytes = vec![7; 5000];
    let (first, copy) = (save("a.safetensors", &bytes), save("b.safetensors", &bytes));
    bytes[10] = 8;
    let other = save("c.safetensors", &bytes);
    assert_eq!((first.id(), first.sampled_id()), (copy.id(), copy.sampled_id()));
    assert_eq!(first.sampled_id(), other.sampled_id(), "the byte is in no sample");
    assert_ne!(first.id(), other.id());
    assert_ne!(first.stamp(), copy.stamp());
    assert_eq!(first.stamp(), Checkpoint::open(at("a.safetensors")).unwrap().stamp());
    assert_ne!(first.renamed(|_| Some("b".into())).unwrap().id(), first.id());
}

#[test]
fn renaming() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    save(&path, &[("alias", Dtype::F32, &[], HALF), ("kept", Dtype::F32, &[], ONE), ("x", Dtype::U8, &[0], &[])]);
    let checkpoint = Checkpoint::open(&path).unwrap();
    let rename = |name: &str| match name {
        "alias" => Some("kept".into()),
        "x" => None,
        name => Some(name.to_owned()),
    };
    let renamed = checkpoint.renamed(rename).unwrap();
    assert_eq!(names(&renamed), ["kept"]);
    assert_eq!(renamed.get("kept").unwrap().to_f32().unwrap(), [1.0]);
    assert!(matches!(checkpoint.renamed(|_| Some("same".into())), Err(WeightsError::Duplicate { .. })));
}

fn sharded(folder: &Path, index: &str) -> Result<Checkpoint, WeightsError> {
    save(&folder.join("m-00001-of-00002.safetensors"), &[("a", Dtype::F32, &[], ONE)]);
    save(&folder.join("m-00002-of-00002.safetensors"), &[("b", Dtype::F32, &[], HALF)]);
    std::fs::write(folder.join("m.safetensors.index.json"), index).unwrap();
    assert_eq!(names(&Checkpoint::open(folder)?), ["a", "b"], "a complete set needs no index");
    assert_eq!(Checkpoint::open(folder.join("m-00002-of-00002.safetensors"))?.len(), 2);
    Checkpoint::open(folder.join("m.safetensors.index.json"))
}

#[test]
fn shards() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = ["m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors"];
    let index = |a: &str, b: &str| format!(r#"{{"metadata":{{}},"weight_map":{{"a":"{a}","b":"{b}"}}}}"#);
    let checkpoint = sharded(folder.path(), &index(first, second)).unwrap();
    assert_eq!(names(&checkpoint), ["a", "b"]);
    assert_eq!(checkpoint.get("b").unwrap().to_f32().unwrap(), [0.5]);

    let problem = |index: &str| sharded(folder.path(), index).unwrap_err().to_string();
    assert!(problem(&index(first, first)).contains("b is missing"));
    assert!(problem(&index(first, "m-00003-of-00002.safetensors")).contains("shard m-00003"));
    for escape in ["../x.safetensors", "/x.safetensors", "..\\\\x.safetensors", "C:x.safetensors", "..", "", "x.txt"] {
        assert!(problem(&index(first, escape)).contains("not a file beside it"), "{escape}");
    }
    for text in ["", "{}", "[]", r#"{"weight_map":{"a":1}}"#] {
        assert!(problem(text).contains("JSON"), "{text}");
    }
    std::fs::remove_file(folder.path().join(second)).unwrap();
    let lone = Checkpoint::open(folder.path().join(first)).unwrap_err().to_string();
    assert!(lone.contains("needs the shard m-00002"), "{lone}");
    let again = tempfile::tempdir().unwrap();
    let rows: &[Row<'_>] = &[("a", Dtype::F32, &[], ONE), ("b", Dtype::F32, &[], ONE)];
    ["x.safetensors", "y.safetensors"].iter().for_each(|name| save(&again.path().join(name), rows));
    let place = again.path().join("m.safetensors.index.json");
    std::fs::write(&place, index("x.safetensors", "y.safetensors")).unwrap();
    let twice = Checkpoint::open(&place).unwrap_err().to_string();
    assert!(twice.contains("a is stored twice"), "{twice}");
}

#[test]
fn folders_and_odd_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    assert!(matches!(Checkpoint::open(folder.path()), Err(WeightsError::NoCheckpoint { .. })));
    save(&path("one.safetensors"), &[("a", Dtype::F32, &[], ONE)]);
    std::fs::write(path("z.pth"), "not looked at").unwrap();
    assert!(Checkpoint::open(folder.path()).is_ok());
    std::fs::copy(path("one.safetensors"), path("two.safetensors")).unwrap();
    let several = Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(several.contains("one.safetensors, two.safetensors"), "{several}");
    std::fs::copy(path("one.safetensors"), path("model.safetensors")).unwrap();
    assert!(Checkpoint::open(folder.path()).is_ok());

    assert!(matches!(Checkpoint::open(path("none.safetensors")), Err(WeightsError::Io { .. })));
    assert!(matches!(Checkpoint::open(path("z.pth")), Err(WeightsError::Malformed { .. })));
    std::fs::write(path("empty.safetensors"), "").unwrap();
    assert!(matches!(Checkpoint::open(path("empty.safetensors")), Err(WeightsError::Malformed { .. })));
    std::fs::write(path("notes.txt"), "some words").unwrap();
    assert!(matches!(Checkpoint::open(path("notes.txt")), Err(WeightsError::UnknownFormat { .. })));
}

proptest::proptest! {
    #[test]
    fn damaged_indices_never_panic(at in 0..90usize, with in "[ -~]{1,4}") {
        let folder = tempfile::tempdir().unwrap();
        save(&folder.path().join("a.safetensors"), &[("a", Dtype::F32, &[], ONE)]);
        save(&folder.path().join("b.safetensors"), &[("b", Dtype::F32, &[], HALF)]);
        let mut index = br#"{"metadata":{"total_size":8},"weight_map":{"a":"a.safetensors","b":"b.safetensors"}}"#.to_vec();
        let at = at.min(index.len());
        let end = (at + with.len()).min(index.len());
        index.splice(at..end, with.bytes());
        let path = folder.path().join("m.safetensors.index.json");
        std::fs::write(&path, index).unwrap();
        if let Ok(checkpoint) = Checkpoint::open(&path) {
            proptest::prop_assert!(checkpoint.tensors().all(|tensor| tensor.to_f32().is_ok()));
        }
    }
}

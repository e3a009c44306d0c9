use super::*;

fn problem(program: &[u8]) -> String {
    match read(Path::new("m.pth"), program) {
        Ok(tensors) => panic!("{} tensors", tensors.len()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn code_is_refused_by_name() {
    // The pickle of a malicious checkpoint, which calls `os.system("ls")`.
    let system = b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.";
    assert!(problem(system).contains("os.system"), "{}", problem(system));
    assert!(problem(b"\x80\x02cbuiltins\neval\n.").contains("builtins.eval"));
    assert!(problem(b"\x80\x02ctorch\nload\n.").contains("torch.load"));
    assert!(problem(b"\x80\x02ctorch._utils\n_rebuild_tensor_v3\n.").contains("_rebuild_tensor_v3"));
    // INST, OBJ, STACK_GLOBAL, EXT1 and NEWOBJ are other ways to call.
    for opcode in [b'i', b'o', 0x93, 0x82, 0x81] {
        assert!(problem(&[0x80, 2, b'(', opcode, b'.']).contains(&format!("0x{opcode:02x}")));
    }
}

#[test]
fn only_dicts_of_tensors() {
    assert_eq!(read(Path::new("m"), b"\x80\x02}.").unwrap_or_else(|e| panic!("{e}")).len(), 0);
    assert!(problem(b"\x80\x02K\x01.").contains("other than a dict"));
    assert!(problem(b"}X\x01\x00\x00\x00aK\x01s.").contains("entry a"));
    assert!(problem(b"}K\x01K\x01s.").contains("not names"));
    assert!(problem(b"ccollections\nOrderedDict\nK\x01\x85R.").contains("a call of"));
    assert!(problem(b"K\x01}b.").contains("attributes"));
}

#[test]
fn broken_programs_are_malformed() {
    let cases: [&[u8]; 14] = [
        b"",
        b"\x80",
        b"}",
        b".",
        b"\x85.",
        b"t.",
        b"u.",
        b"s.",
        b"h\x07.",
        b"q\x00.",
        b"X\xff\xff\xff\xff.",
        b"}(K\x01u.",
        b"K\x01Q.",
        b"(K\x01(\x85.",
    ];
    for program in cases {
        assert!(problem(program).contains("damaged"), "{program:?}: {}", problem(program));
    }
    assert!(problem(b"\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x01.").contains("64 bits"));
}

#[test]
fn deep_and_circular_values_are_harmless() {
    let mut deep = vec![b')'];
    deep.resize(200_000, 0x85);
    deep.push(b'.');
    assert!(problem(&deep).contains("other than a dict"));
    assert!(problem(b"}q\x00X\x01\x00\x00\x00ah\x00s.").contains("entry a"));
}

// The test catches these mutations: a stride compared with the size after it, a dimension of size 1
// compared, the last stride not required to be 1.
#[test]
fn contiguity() {
    assert!(is_contiguous(&[2, 3, 4], &[12, 4, 1]));
    assert!(is_contiguous(&[], &[]));
    assert!(is_contiguous(&[3, 1], &[1, 7]));
    assert!(is_contiguous(&[0, 3], &[9, 9]));
    assert!(!is_contiguous(&[2, 3], &[1, 2]));
    assert!(!is_contiguous(&[2, 3], &[6, 2]));
    assert!(!is_contiguous(&[2, 3], &[3]));
    assert!(!is_contiguous(&[usize::MAX, usize::MAX, 2], &[1, 2, 1]));
}

#[test]
fn integers() {
    let value = |bytes: &[u8]| {
        let mut machine = Machine::new(bytes);
        let id = machine.run().unwrap_or_else(|_| panic!("{bytes:?}"));
        match machine.value(id) {
            Value::Int(value) => *value,
            _ => panic!("no integer"),
        }
    };
    assert_eq!(value(b"K\xff."), 255);
    assert_eq!(value(b"M\x01\x02."), 0x0201);
    assert_eq!(value(b"J\xfe\xff\xff\xff."), -2);
    assert_eq!(value(b"\x8a\x00."), 0);
    assert_eq!(value(b"\x8a\x01\x80."), -128);
    assert_eq!(value(b"\x8a\x05\x00\x00\x00\x00\x01."), 1 << 32);
}

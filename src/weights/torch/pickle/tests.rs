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
    assert!(problem(b"\x80\x02ctorch._utils\n_rebuild_qtensor\n.").contains("_rebuild_qtensor"));
    // Protocol 4 names things by STACK_GLOBAL, and NEWOBJ calls.
    let system = b"\x80\x04\x95\0\0\0\0\0\0\0\0\x8c\x02os\x8c\x06system\x93\x8c\x02ls\x85R.";
    assert!(problem(system).contains("os.system"), "{}", problem(system));
    assert!(problem(b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93)\x81.").contains("builtins.exec"));
    // A callable that is known gets arguments that it does not take.
    assert!(problem(b"ccollections\nOrderedDict\nctorch\nload\n\x85R.").contains("torch.load"));
    assert!(problem(b"}}\x85R.").contains("a call of"));
    assert!(problem(b"\x8c\x01a)R.").contains("a call of"));
    // INST, OBJ, EXT1 to EXT4, NEWOBJ_EX, PERSID, REDUCE's relatives of other protocols, and out of
    // band buffers.
    for opcode in [b'i', b'o', 0x82, 0x83, 0x84, 0x92, b'P', b'I', b'L', b'F', b'S', b'V', b'g', b'p', b'd', b'l', 0x97]
    {
        assert!(problem(&[0x80, 2, b'(', opcode, b'.']).contains(&format!("0x{opcode:02x}")));
    }
}

#[test]
fn only_dicts_of_tensors() {
    assert_eq!(read(Path::new("m"), b"\x80\x02}.").unwrap_or_else(|e| panic!("{e}")).len(), 0);
    assert!(problem(b"\x80\x02K\x01.").contains("other than a dict"));
    assert!(problem(b"}X\x01\x00\x00\x00aK\x01s.").contains("other than a dict"));
    assert!(problem(b"}K\x01K\x01s.").contains("other than a dict"));
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
    assert!(problem(b"}q\x00X\x01\x00\x00\x00ah\x00s.").contains("other than a dict"));
    // Dicts that hold one another, twice each.
    let circle = b"}q\0}q\x01\x8c\x01ah\0s\x8c\x01bh\0s0h\0\x8c\x01ah\x01s\x8c\x01bh\x01s.";
    assert!(problem(circle).contains("other than a dict"), "{}", problem(circle));
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

/// A tensor `[2]` of f32 in the storage `0`, made with the memo and by protocol 2.
const TENSOR: &[u8] =
    b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x02tQK\0K\x02\x85K\x01\x85\x89}tR";

fn dict(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut program = vec![b'}'];
    for (name, value) in entries {
        program.extend([0x8c, name.len() as u8]);
        program.extend(name.as_bytes());
        program.extend(value);
        program.push(b's');
    }
    program
}

fn names_of(mut program: Vec<u8>) -> Result<Vec<String>, String> {
    program.push(b'.');
    let tensors = read(Path::new("m.pth"), &program).map_err(|error| error.to_string())?;
    Ok(tensors.iter().map(|tensor| tensor.name.to_owned()).collect())
}

#[test]
fn state_dicts_lie_where_training_puts_them() {
    let tensor = || TENSOR.to_vec();
    assert_eq!(names_of(dict(&[("w", tensor()), ("step", b"K\x07".to_vec())])).unwrap(), ["w"]);
    let inner = || dict(&[("w", tensor())]);
    let list = b"](K\x01K\x02e".to_vec();
    let nested = dict(&[("epoch", b"K\x07".to_vec()), ("state_dict", inner()), ("losses", list)]);
    assert_eq!(names_of(nested).unwrap(), ["w"]);
    // Adam's tensors lie deeper than the weights.
    let adam = dict(&[("state", dict(&[("0", dict(&[("exp_avg", tensor())]))]))]);
    assert_eq!(names_of(dict(&[("model", inner()), ("optimizer", adam)])).unwrap(), ["w"]);
    let several = names_of(dict(&[("generator", inner()), ("generator_ema", inner())])).unwrap_err();
    assert!(several.contains("generator, generator_ema"), "{several}");
    let twice = names_of(dict(&[("w", tensor()), ("w", tensor())])).unwrap_err();
    assert!(twice.contains("one name"), "{twice}");
}

#[test]
fn parameters_are_their_tensors() {
    let parameter = [b"ctorch._utils\n_rebuild_parameter\n(", TENSOR, b"\x88ccollections\nOrderedDict\n)RtR"].concat();
    assert_eq!(names_of(dict(&[("w", parameter)])).unwrap(), ["w"]);
    let wrong = b"ctorch._utils\n_rebuild_parameter\nK\x01\x85R".to_vec();
    assert!(names_of(dict(&[("w", wrong)])).unwrap_err().contains("parameter"));
}

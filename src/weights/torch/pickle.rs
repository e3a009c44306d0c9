//! A pickle reader that understands tensors and nothing else.
//!
//! A pickle is a program for a stack machine, and Python's machine can be told to call anything.
//! The machine here has only the opcodes that `torch.save` writes for dicts of tensors in protocols
//! 2 to 5 (see CPython's `Lib/pickletools.py`). It knows few callables by name: `OrderedDict`,
//! `_rebuild_tensor_v2`, `_rebuild_tensor_v3`, `_rebuild_parameter`, `torch.Size`, `torch.device`,
//! and the storage types of torch. Any other name is refused. Of the values only tensors, dicts and
//! the arguments of tensors are kept; all others (numbers, lists, bytes) become a constant.
//!
//! Values live in one list and refer to each other by index, so deep or circular structures cannot
//! exhaust the program's own stack. Every value costs at least one byte of the pickle, so a small
//! pickle cannot exhaust memory.

use crate::weights::bytes::Cursor;
use crate::weights::error::shown;
use crate::weights::safetensors_file::MOST_DIMENSIONS;
use crate::weights::{DType, WeightsError};
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// A tensor as the pickle describes it.
pub(super) struct PickledTensor<'a> {
    pub name: &'a str,
    pub dtype: DType,
    pub shape: Vec<usize>,
    /// Steps between elements for each dimension, unless the elements are row-major without gaps.
    pub strides: Option<Vec<usize>>,
    /// Name of the file under `data/` that holds the storage.
    pub storage: &'a str,
    /// Index of the first element within the storage.
    pub offset: usize,
}

/// Reads the state dict that `program` builds and returns its tensors in the order of the pickle.
/// The state dict is the whole value, or the only dict of tensors in a dict of other things.
///
/// # Errors
/// [`WeightsError::Refused`] for anything but a dict of tensors. [`WeightsError::Unsupported`] for
/// several dicts of tensors. [`WeightsError::Malformed`] if the program is cut short or underflows
/// its stack.
pub(super) fn read<'a>(path: &Path, program: &'a [u8]) -> Result<Vec<PickledTensor<'a>>, WeightsError> {
    let mut machine = Machine::new(program);
    let root = machine.run().and_then(|root| machine.state_dict(root));
    root.map_err(|problem| match problem {
        Problem::CutShort => WeightsError::malformed(path, "its pickle is cut short"),
        Problem::Malformed(what) => WeightsError::malformed(path, format!("its pickle {what}")),
        Problem::Refused(what) => WeightsError::refused(path, what),
        Problem::Several(names) => {
            let what = format!("it holds several dicts of tensors ({names}); save the one to use in a file of its own");
            WeightsError::unsupported(path, what)
        }
    })
}

/// Why a pickle cannot be read. [`read`] adds the path.
enum Problem {
    CutShort,
    Malformed(&'static str),
    Refused(String),
    /// The names of several dicts of tensors.
    Several(String),
}

/// Index of a value in [`Machine::values`].
type Id = usize;

#[derive(Clone)]
enum Value<'a> {
    /// A value that is never used: `None`, a truth value, a number that is not whole, bytes, a set.
    Constant,
    /// A list. Its items are never used.
    List,
    Int(i64),
    Text(&'a str),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    OrderedDict,
    /// `_rebuild_tensor_v2`, or v3, which takes the type as an argument.
    RebuildTensor,
    RebuildParameter,
    /// A type whose values are never used: `torch.Size`, `torch.device`.
    Unused,
    Type(DType),
    /// A storage type; `None` for storages of bytes.
    StorageType(Option<DType>),
    Storage {
        dtype: Option<DType>,
        key: &'a str,
    },
    Tensor(Tensor<'a>),
}

#[derive(Clone)]
struct Tensor<'a> {
    dtype: DType,
    storage: &'a str,
    offset: usize,
    shape: Vec<usize>,
    strides: Option<Vec<usize>>,
}

struct Machine<'a> {
    program: Cursor<'a>,
    values: Vec<Value<'a>>,
    stack: Vec<Id>,
    /// Stack heights at the open marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    fn new(program: &'a [u8]) -> Self {
        let program = Cursor::new(program, 0);
        Self { program, values: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() }
    }

    /// Runs to the end and returns the value on top of the stack.
    fn run(&mut self) -> Result<Id, Problem> {
        loop {
            let opcode = self.byte()?;
            match opcode {
                b'.' => return self.pop(),
                0x80 => _ = self.byte()?,
                // The length of a frame, by which readers fetch the program in pieces.
                0x95 => _ = self.program.u64().ok_or(Problem::CutShort)?,
                b'(' => self.marks.push(self.stack.len()),
                b'0' => _ = self.pop()?,
                b'1' => _ = self.pop_to_mark()?,
                b'N' | 0x88 | 0x89 => self.push(Value::Constant),
                b'G' => self.unused(8)?,
                b'C' | b'U' => self.counted(1)?,
                b'B' | b'T' | 0x8b => self.counted(4)?,
                0x8e => self.counted(8)?,
                b'K' | b'M' | b'J' | 0x8a => self.integer(opcode)?,
                0x8c | b'X' | 0x8d => self.text(opcode)?,
                b')' => self.push(Value::Tuple(Vec::new())),
                0x85..=0x87 => self.tuple(usize::from(opcode - 0x84))?,
                b't' => self.tuple_from_mark()?,
                b'}' => self.push(Value::Dict(Vec::new())),
                b']' | 0x8f => self.push(Value::List),
                b'a' => self.append(1)?,
                b'e' | 0x90 => self.append_from_mark()?,
                b's' | b'u' => self.set_items(opcode)?,
                b'q' | b'r' | b'h' | b'j' | 0x94 => self.memo(opcode)?,
                b'c' => self.global()?,
                0x93 => self.stack_global()?,
                b'Q' => self.persistent()?,
                b'R' | 0x81 => self.reduce()?,
                b'b' => self.build()?,
                other => {
                    return Err(Problem::Refused(format!("the pickle operation 0x{other:02x}")));
                }
            }
        }
    }

    /// Skips a value of `size` bytes that is never used.
    fn unused(&mut self, size: usize) -> Result<(), Problem> {
        self.program.take(size).ok_or(Problem::CutShort)?;
        self.push(Value::Constant);
        Ok(())
    }

    /// Skips a value whose length comes before it in `width` bytes.
    fn counted(&mut self, width: usize) -> Result<(), Problem> {
        let length = self.length(width)?;
        self.unused(length)
    }

    fn length(&mut self, width: usize) -> Result<usize, Problem> {
        let length = match width {
            1 => self.program.u8().map(u64::from),
            4 => self.program.u32().map(u64::from),
            _ => self.program.u64(),
        };
        length.and_then(|length| usize::try_from(length).ok()).ok_or(Problem::CutShort)
    }

    fn append(&mut self, count: usize) -> Result<(), Problem> {
        (0..count).try_for_each(|_| self.pop().map(|_| ()))?;
        self.require_list()
    }

    fn append_from_mark(&mut self) -> Result<(), Problem> {
        self.pop_to_mark()?;
        self.require_list()
    }

    fn require_list(&self) -> Result<(), Problem> {
        match self.stack.last().map(|&id| self.value(id)) {
            Some(Value::List) => Ok(()),
            _ => Err(Problem::Malformed("appends to something that is no list")),
        }
    }

    fn byte(&mut self) -> Result<u8, Problem> {
        self.program.u8().ok_or(Problem::CutShort)
    }

    fn push(&mut self, value: Value<'a>) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    fn pop(&mut self) -> Result<Id, Problem> {
        // Values below an open mark stay on the stack until the mark's group is closed.
        if self.marks.last().is_some_and(|&mark| self.stack.len() <= mark) {
            return Err(Problem::Malformed("takes more values than it has"));
        }
        self.stack.pop().ok_or(Problem::Malformed("takes more values than it has"))
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, Problem> {
        let mark = self.marks.pop().ok_or(Problem::Malformed("closes a group that it never opened"))?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn value(&self, id: Id) -> &Value<'a> {
        self.values.get(id).unwrap_or(&Value::Constant)
    }

    fn integer(&mut self, opcode: u8) -> Result<(), Problem> {
        let value = match opcode {
            b'K' => self.program.u8().map(i64::from),
            b'M' => self.program.u16().map(i64::from),
            b'J' => self.program.i32().map(i64::from),
            _ => self.long()?,
        };
        self.push(Value::Int(value.ok_or(Problem::CutShort)?));
        Ok(())
    }

    /// A little-endian two's complement integer of up to 8 bytes.
    fn long(&mut self) -> Result<Option<i64>, Problem> {
        let length = self.byte()?;
        if length > 8 {
            return Err(Problem::Refused("an integer of more than 64 bits".into()));
        }
        Ok(self.program.take(length.into()).map(|bytes| {
            let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
            let mut wide = [if negative { 0xFF } else { 0 }; 8];
            wide[..bytes.len()].copy_from_slice(bytes);
            i64::from_le_bytes(wide)
        }))
    }

    fn text(&mut self, opcode: u8) -> Result<(), Problem> {
        let length = self.length(match opcode {
            0x8c => 1,
            b'X' => 4,
            _ => 8,
        })?;
        let bytes = self.program.take(length).ok_or(Problem::CutShort)?;
        self.push(Value::Text(
            std::str::from_utf8(bytes).map_err(|_| Problem::Malformed("has text that is not UTF-8"))?,
        ));
        Ok(())
    }

    fn tuple(&mut self, count: usize) -> Result<(), Problem> {
        let mut items = (0..count).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        items.reverse();
        self.push(Value::Tuple(items));
        Ok(())
    }

    fn tuple_from_mark(&mut self) -> Result<(), Problem> {
        let items = self.pop_to_mark()?;
        self.push(Value::Tuple(items));
        Ok(())
    }

    fn set_items(&mut self, opcode: u8) -> Result<(), Problem> {
        let items = if opcode == b'u' {
            self.pop_to_mark()?
        } else {
            let value = self.pop()?;
            vec![self.pop()?, value]
        };
        let (pairs, rest) = items.as_chunks::<2>();
        match self.stack.last().and_then(|&id| self.values.get_mut(id)) {
            Some(Value::Dict(entries)) if rest.is_empty() => {
                entries.extend(pairs.iter().map(|&[key, value]| (key, value)))
            }
            _ => {
                return Err(Problem::Malformed("stores items in something that is no dict"));
            }
        }
        Ok(())
    }

    fn memo(&mut self, opcode: u8) -> Result<(), Problem> {
        let slot = match opcode {
            0x94 => u32::try_from(self.memo.len()).ok(),
            b'q' | b'h' => self.program.u8().map(u32::from),
            _ => self.program.u32(),
        };
        let slot = slot.ok_or(Problem::CutShort)?;
        if matches!(opcode, b'q' | b'r' | 0x94) {
            let top = *self.stack.last().ok_or(Problem::Malformed("remembers a value that it does not have"))?;
            self.memo.insert(slot, top);
        } else {
            let id = self.memo.get(&slot).ok_or(Problem::Malformed("recalls a value that it never had"))?;
            self.stack.push(*id);
        }
        Ok(())
    }

    fn global(&mut self) -> Result<(), Problem> {
        let mut line = || self.program.line().ok_or(Problem::CutShort).map(String::from_utf8_lossy);
        let (module, name) = (line()?, line()?);
        let value = named(&module, &name)?;
        self.push(value);
        Ok(())
    }

    fn stack_global(&mut self) -> Result<(), Problem> {
        let (name, module) = (self.pop()?, self.pop()?);
        let (&Value::Text(module), &Value::Text(name)) = (self.value(module), self.value(name)) else {
            return Err(Problem::Malformed("names something without a name"));
        };
        self.push(named(module, name)?);
        Ok(())
    }

    /// Handles a reference `('storage', type, key, location, elements)` to the storage in the file
    /// `data/<key>`.
    fn persistent(&mut self) -> Result<(), Problem> {
        let id = self.pop()?;
        let Value::Tuple(items) = self.value(id) else {
            return Err(Problem::Malformed("refers to no storage"));
        };
        let [kind, dtype, key, ..] = items[..] else {
            return Err(Problem::Malformed("refers to no storage"));
        };
        match (self.value(kind), self.value(dtype), self.value(key)) {
            (Value::Text("storage"), &Value::StorageType(dtype), &Value::Text(key)) => {
                self.push(Value::Storage { dtype, key });
                Ok(())
            }
            _ => Err(Problem::Malformed("refers to no storage")),
        }
    }

    fn reduce(&mut self) -> Result<(), Problem> {
        let (arguments, callable) = (self.pop()?, self.pop()?);
        let Value::Tuple(arguments) = self.value(arguments) else {
            return Err(Problem::Malformed("calls something without arguments"));
        };
        let made = match self.value(callable) {
            Value::OrderedDict if arguments.is_empty() => Value::Dict(Vec::new()),
            Value::RebuildTensor => Value::Tensor(self.tensor(arguments)?),
            Value::RebuildParameter => self.parameter(arguments)?,
            Value::Unused => Value::Constant,
            _ => {
                return Err(Problem::Refused("a call of something other than a tensor or a dict".into()));
            }
        };
        self.push(made);
        Ok(())
    }

    /// Handles a call `_rebuild_parameter(tensor, requires_grad, hooks)`.
    fn parameter(&self, arguments: &[Id]) -> Result<Value<'a>, Problem> {
        match arguments.first().map(|&id| self.value(id)) {
            Some(Value::Tensor(tensor)) => Ok(Value::Tensor(tensor.clone())),
            _ => Err(Problem::Malformed("builds a parameter from something else than a tensor")),
        }
    }

    /// Handles a call `_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)`. In
    /// `_rebuild_tensor_v3` the type follows, because the storage has none.
    fn tensor(&self, arguments: &[Id]) -> Result<Tensor<'a>, Problem> {
        let malformed =
            || Problem::Malformed("builds a tensor from something else than a storage, offset, size and stride");
        let [storage, offset, size, stride, ref rest @ ..] = *arguments else {
            return Err(malformed());
        };
        let of_call = match rest.get(2).map(|&id| self.value(id)) {
            Some(&Value::Type(dtype)) => Some(dtype),
            _ => None,
        };
        let (&Value::Storage { dtype, key }, &Value::Int(offset)) = (self.value(storage), self.value(offset)) else {
            return Err(malformed());
        };
        let shape = self.sizes(size).ok_or_else(malformed)?;
        let strides = self.sizes(stride).filter(|strides| strides.len() == shape.len()).ok_or_else(malformed)?;
        Ok(Tensor {
            dtype: dtype.or(of_call).ok_or_else(malformed)?,
            storage: key,
            offset: usize::try_from(offset).map_err(|_| malformed())?,
            strides: (!is_contiguous(&shape, &strides)).then_some(strides),
            shape,
        })
    }

    /// Reads a short tuple of integers that are not negative.
    fn sizes(&self, id: Id) -> Option<Vec<usize>> {
        let Value::Tuple(items) = self.value(id) else {
            return None;
        };
        let size = |&id: &Id| match *self.value(id) {
            Value::Int(size) => usize::try_from(size).ok(),
            _ => None,
        };
        (items.len() <= MOST_DIMENSIONS).then(|| items.iter().map(size).collect())?
    }

    /// Skips the attributes of a state dict (`_metadata`, the versions of modules), which are not
    /// needed.
    fn build(&mut self) -> Result<(), Problem> {
        let _attributes = self.pop()?;
        match self.stack.last().map(|&id| self.value(id)) {
            Some(Value::Dict(_)) => Ok(()),
            _ => Err(Problem::Refused("attributes on something that is no dict".into())),
        }
    }

    /// The tensors of the dict `root`, or of the only dict of tensors in it.
    fn state_dict(&self, root: Id) -> Result<Vec<PickledTensor<'a>>, Problem> {
        /// How deep a state dict may lie.
        const DEEPEST: usize = 4;
        let nothing = || Problem::Refused("something other than a dict of tensors".into());
        let Value::Dict(entries) = self.value(root) else { return Err(nothing()) };
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let mut level = vec![(String::new(), root)];
        for _ in 0..DEEPEST {
            let holders: Vec<_> = level.iter().filter(|(_, id)| self.holds_tensors(*id)).collect();
            match holders[..] {
                [] => {}
                [(_, dict)] => return self.tensors(*dict),
                _ => {
                    let names: Vec<_> = holders.iter().map(|(name, _)| name.as_str()).collect();
                    return Err(Problem::Several(names.join(", ")));
                }
            }
            level = level.iter().flat_map(|(_, id)| self.dicts_in(*id)).collect();
        }
        Err(nothing())
    }

    fn holds_tensors(&self, id: Id) -> bool {
        let Value::Dict(entries) = self.value(id) else { return false };
        entries.iter().any(|&(_, value)| matches!(self.value(value), Value::Tensor(_)))
    }

    /// The dicts that a dict holds, with their names.
    fn dicts_in(&self, id: Id) -> Vec<(String, Id)> {
        let Value::Dict(entries) = self.value(id) else { return Vec::new() };
        let dict = |&(key, value): &(Id, Id)| match (self.value(key), self.value(value)) {
            (Value::Text(name), Value::Dict(_)) => Some((shown(name), value)),
            _ => None,
        };
        entries.iter().filter_map(dict).collect()
    }

    /// The tensors of a dict. Its other entries are left out.
    fn tensors(&self, dict: Id) -> Result<Vec<PickledTensor<'a>>, Problem> {
        let Value::Dict(entries) = self.value(dict) else { return Ok(Vec::new()) };
        let mut seen = HashSet::with_capacity(entries.len());
        let mut tensors = Vec::new();
        for &(key, value) in entries {
            let Value::Tensor(Tensor { dtype, storage, offset, shape, strides }) = self.value(value) else { continue };
            let &Value::Text(name) = self.value(key) else {
                return Err(Problem::Refused("a dict whose keys are not names".into()));
            };
            if !seen.insert(name) {
                return Err(Problem::Malformed("stores two tensors under one name"));
            }
            let (shape, strides) = (shape.clone(), strides.clone());
            tensors.push(PickledTensor { name, dtype: *dtype, shape, strides, storage, offset: *offset });
        }
        Ok(tensors)
    }
}

/// What a name of Python stands for.
fn named<'a>(module: &str, name: &str) -> Result<Value<'a>, Problem> {
    Ok(match (module, name) {
        ("collections", "OrderedDict") => Value::OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2" | "_rebuild_tensor_v3") => Value::RebuildTensor,
        ("torch._utils", "_rebuild_parameter") => Value::RebuildParameter,
        ("torch", "Size" | "device") => Value::Unused,
        ("torch" | "torch.storage", "UntypedStorage") => Value::StorageType(None),
        ("torch", name) if let Some(dtype) = storage_type(name) => Value::StorageType(Some(dtype)),
        ("torch", name) if let Some(dtype) = element_type(name) => Value::Type(dtype),
        (module, name) => return Err(Problem::Refused(format!("{}.{}", shown(module), shown(name)))),
    })
}

fn element_type(name: &str) -> Option<DType> {
    DType::from_name(match name {
        "float64" => "F64",
        "float32" => "F32",
        "float16" => "F16",
        "bfloat16" => "BF16",
        "float8_e4m3fn" => "F8_E4M3",
        "float8_e5m2" => "F8_E5M2",
        "float8_e4m3fnuz" => "F8_E4M3FNUZ",
        "float8_e5m2fnuz" => "F8_E5M2FNUZ",
        "float8_e8m0fnu" => "F8_E8M0",
        "int64" => "I64",
        "int32" => "I32",
        "int16" => "I16",
        "int8" => "I8",
        "uint8" => "U8",
        "uint16" => "U16",
        "uint32" => "U32",
        "uint64" => "U64",
        "bool" => "BOOL",
        _ => return None,
    })
}

fn storage_type(name: &str) -> Option<DType> {
    DType::from_name(match name {
        "DoubleStorage" => "F64",
        "FloatStorage" => "F32",
        "HalfStorage" => "F16",
        "BFloat16Storage" => "BF16",
        "LongStorage" => "I64",
        "IntStorage" => "I32",
        "ShortStorage" => "I16",
        "CharStorage" => "I8",
        "ByteStorage" => "U8",
        "BoolStorage" => "BOOL",
        _ => return None,
    })
}

/// Whether the elements are stored row-major without gaps. The stride of a dimension of size 1 does
/// not matter, and a tensor without elements is always contiguous.
fn is_contiguous(shape: &[usize], stride: &[usize]) -> bool {
    let mut expected = 1usize;
    let row_major = shape.iter().zip(stride).rev().all(|(&size, &stride)| {
        let fits = size == 1 || stride == expected;
        expected = expected.saturating_mul(size);
        fits
    });
    shape.len() == stride.len() && (row_major || shape.contains(&0))
}

#[cfg(test)]
mod tests;

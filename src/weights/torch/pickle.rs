//! A pickle reader that understands tensors and nothing else.
//!
//! A pickle is a program for a stack machine, and Python's machine can be told to call anything.
//! The machine here has only the opcodes that `torch.save` writes for a state dict (protocol 2, see
//! CPython's `Lib/pickletools.py`). It knows three kinds of callable by name: `OrderedDict`,
//! `_rebuild_tensor_v2`, and the storage types of torch. Any other name is refused.
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
    /// Name of the file under `data/` that holds the storage.
    pub storage: &'a str,
    /// Index of the first element within the storage.
    pub offset: usize,
}

/// Reads the state dict that `program` builds and returns its tensors in the order of the pickle.
///
/// # Errors
/// [`WeightsError::Refused`] for anything but a dict of tensors. [`WeightsError::Unsupported`] for
/// tensors that are not contiguous. [`WeightsError::Malformed`] if the program is cut short or
/// underflows its stack.
pub(super) fn read<'a>(path: &Path, program: &'a [u8]) -> Result<Vec<PickledTensor<'a>>, WeightsError> {
    let mut machine = Machine::new(program);
    let root = machine.run().and_then(|root| machine.state_dict(root));
    root.map_err(|problem| match problem {
        Problem::CutShort => WeightsError::malformed(path, "its pickle is cut short"),
        Problem::Malformed(what) => WeightsError::malformed(path, format!("its pickle {what}")),
        Problem::Refused(what) => WeightsError::refused(path, what),
        Problem::Strided(name) => {
            WeightsError::unsupported(path, format!("the tensor {name} is not contiguous; save it after .contiguous()"))
        }
    })
}

/// Why a pickle cannot be read. [`read`] adds the path.
enum Problem {
    CutShort,
    Malformed(&'static str),
    Refused(String),
    /// The name of a tensor that is not contiguous.
    Strided(String),
}

/// Index of a value in [`Machine::values`].
type Id = usize;

#[derive(Clone)]
enum Value<'a> {
    /// `None`, `True` or `False`. Their values are never used.
    Constant,
    Int(i64),
    Text(&'a str),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    OrderedDict,
    RebuildTensor,
    StorageType(DType),
    Storage {
        dtype: DType,
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
    contiguous: bool,
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
                b'(' => self.marks.push(self.stack.len()),
                b'N' | 0x88 | 0x89 => self.push(Value::Constant),
                b'K' | b'M' | b'J' | 0x8a => self.integer(opcode)?,
                b'X' => self.text()?,
                b')' => self.push(Value::Tuple(Vec::new())),
                0x85..=0x87 => self.tuple(usize::from(opcode - 0x84))?,
                b't' => self.tuple_from_mark()?,
                b'}' => self.push(Value::Dict(Vec::new())),
                b's' | b'u' => self.set_items(opcode)?,
                b'q' | b'r' | b'h' | b'j' => self.memo(opcode)?,
                b'c' => self.global()?,
                b'Q' => self.persistent()?,
                b'R' => self.reduce()?,
                b'b' => self.build()?,
                other => {
                    return Err(Problem::Refused(format!("the pickle operation 0x{other:02x}")));
                }
            }
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

    fn text(&mut self) -> Result<(), Problem> {
        let length = self.program.u32().and_then(|length| usize::try_from(length).ok());
        let bytes = length.and_then(|length| self.program.take(length)).ok_or(Problem::CutShort)?;
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
            b'q' | b'h' => self.program.u8().map(u32::from),
            _ => self.program.u32(),
        };
        let slot = slot.ok_or(Problem::CutShort)?;
        if opcode == b'q' || opcode == b'r' {
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
        let value = match (module.as_ref(), name.as_ref()) {
            ("collections", "OrderedDict") => Value::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Value::RebuildTensor,
            ("torch", name) if let Some(dtype) = storage_type(name) => Value::StorageType(dtype),
            (module, name) => {
                return Err(Problem::Refused(format!("{}.{}", shown(module), shown(name))));
            }
        };
        self.push(value);
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
            _ => {
                return Err(Problem::Refused("a call of something other than a tensor or a dict".into()));
            }
        };
        self.push(made);
        Ok(())
    }

    /// Handles a call `_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)`.
    fn tensor(&self, arguments: &[Id]) -> Result<Tensor<'a>, Problem> {
        let malformed =
            || Problem::Malformed("builds a tensor from something else than a storage, offset, size and stride");
        let [storage, offset, size, stride, ..] = *arguments else {
            return Err(malformed());
        };
        let (&Value::Storage { dtype, key }, &Value::Int(offset)) = (self.value(storage), self.value(offset)) else {
            return Err(malformed());
        };
        let shape = self.sizes(size).ok_or_else(malformed)?;
        let stride = self.sizes(stride).ok_or_else(malformed)?;
        Ok(Tensor {
            dtype,
            storage: key,
            offset: usize::try_from(offset).map_err(|_| malformed())?,
            contiguous: is_contiguous(&shape, &stride),
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

    fn state_dict(&self, root: Id) -> Result<Vec<PickledTensor<'a>>, Problem> {
        let Value::Dict(entries) = self.value(root) else {
            return Err(Problem::Refused("something other than a dict of tensors".into()));
        };
        let mut seen = HashSet::with_capacity(entries.len());
        entries.iter().map(|&(key, value)| self.entry(key, value, &mut seen)).collect()
    }

    fn entry(&self, key: Id, value: Id, seen: &mut HashSet<&'a str>) -> Result<PickledTensor<'a>, Problem> {
        let &Value::Text(name) = self.value(key) else {
            return Err(Problem::Refused("a dict whose keys are not names".into()));
        };
        let Value::Tensor(tensor) = self.value(value) else {
            return Err(Problem::Refused(format!("the entry {}, which is no tensor", shown(name))));
        };
        if !seen.insert(name) {
            return Err(Problem::Malformed("stores two tensors under one name"));
        }
        if !tensor.contiguous {
            return Err(Problem::Strided(shown(name)));
        }
        let Tensor { dtype, storage, offset, ref shape, .. } = *tensor;
        Ok(PickledTensor { name, dtype, shape: shape.clone(), storage, offset })
    }
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

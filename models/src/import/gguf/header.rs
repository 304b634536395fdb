//! The header of a GGUF file, versions 2 and 3: metadata, and where each tensor is.
//!
//! The file is foreign bytes: every count, length and offset is held against what is left of it, strings and arrays are
//! borrowed from it, and nothing is allocated but one entry per key and per tensor. Format: the GGUF specification,
//! <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use core::fmt;
use std::collections::BTreeMap;
use std::ops::Range;

use super::storage::{Storage, TypeId};

/// What the file starts with.
pub(in crate::import) const MAGIC: [u8; 4] = *b"GGUF";
/// Most keys, and most tensors, of a file.
const MAX_ENTRIES: u64 = 1 << 16;
/// Longest name of a key or tensor, in bytes.
const MAX_NAME: usize = 1 << 10;
/// Most dimensions of a tensor.
const MAX_DIMENSIONS: u32 = 4;
/// Deepest nesting of arrays.
const MAX_DEPTH: u32 = 4;
/// Where the data starts, and each tensor: at a multiple of this, if `general.alignment` does not say otherwise.
const DEFAULT_ALIGNMENT: u64 = 32;
const ALIGNMENT_KEY: &str = "general.alignment";

/// A header that was read.
#[derive(Debug)]
pub(super) struct Header<'a> {
    pub(super) metadata: BTreeMap<&'a str, Value<'a>>,
    pub(super) tensors: BTreeMap<&'a str, TensorInfo>,
}

/// Where a tensor is and how it is stored.
#[derive(Clone, Debug)]
pub(super) struct TensorInfo {
    pub(super) storage: Storage,
    /// Outermost dimension first, as everywhere but in the file.
    pub(super) shape: Vec<usize>,
    /// In the file.
    pub(super) bytes: Range<usize>,
}

/// Why a header was refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderError {
    /// It breaks the format.
    Broken(String),
    /// A tensor is stored in a way that is not read.
    Type { tensor: String, found: TypeId },
}

impl From<&str> for HeaderError {
    fn from(reason: &str) -> Self {
        Self::Broken(reason.to_owned())
    }
}

impl From<String> for HeaderError {
    fn from(reason: String) -> Self {
        Self::Broken(reason)
    }
}

impl<'a> Header<'a> {
    pub(super) fn read(file: &'a [u8]) -> Result<Self, HeaderError> {
        let mut reader = Reader { file, at: 0 };
        if reader.array::<4>()? != MAGIC {
            return Err("it does not start with GGUF".into());
        }
        match reader.u32()? {
            2 | 3 => {}
            version if matches!(version.swap_bytes(), 1..=3) => return Err("it is big-endian".into()),
            version => return Err(format!("version {version} is neither 2 nor 3").into()),
        }
        let (tensors, keys) = (reader.u64()?, reader.u64()?);
        if tensors.max(keys) > MAX_ENTRIES {
            return Err(format!("{tensors} tensors and {keys} keys are more than {MAX_ENTRIES}").into());
        }
        let mut metadata = BTreeMap::new();
        for _ in 0..keys {
            let key = reader.name()?;
            let kind = reader.u32()?;
            let value = reader.value(kind, 0).map_err(|reason| format!("key `{key}`: {reason}"))?;
            if metadata.insert(key, value).is_some() {
                return Err(format!("key `{key}` is there twice").into());
            }
        }
        let tensors = read_tensors(&mut reader, tensors, alignment(&metadata)?)?;
        Ok(Self { metadata, tensors })
    }
}

/// A value of the metadata.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Unsigned(u64),
    Signed(i64),
    Single(f32),
    Double(f64),
    Bool(bool),
    String(&'a str),
    Array(Array<'a>),
}

impl Value<'_> {
    /// An integer that is not negative.
    pub(super) fn unsigned(&self) -> Option<u64> {
        match *self {
            Self::Unsigned(value) => Some(value),
            Self::Signed(value) => value.try_into().ok(),
            _ => None,
        }
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsigned(value) => value.fmt(f),
            Self::Signed(value) => value.fmt(f),
            Self::Single(value) => value.fmt(f),
            Self::Double(value) => value.fmt(f),
            Self::Bool(value) => value.fmt(f),
            // Names of methods and families are short; anything else would fill the screen.
            Self::String(text) => text.chars().take(64).collect::<String>().fmt(f),
            Self::Array(array) => write!(f, "(an array of {})", array.length),
        }
    }
}

/// An array, still in the file's bytes, which were checked to hold `length` elements of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Array<'a> {
    kind: u32,
    pub(super) length: usize,
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// The elements, if they are strings.
    pub(super) fn strings(self) -> Option<impl Iterator<Item = &'a str>> {
        let mut reader = Reader { file: self.bytes, at: 0 };
        (self.kind == kinds::STRING).then(|| (0..self.length).map_while(move |_| reader.string().ok()))
    }

    /// The elements, if they are 32-bit integers.
    pub(super) fn integers(self) -> Option<impl Iterator<Item = u32>> {
        let words = self.bytes.as_chunks::<4>().0.iter();
        matches!(self.kind, kinds::U32 | kinds::I32).then(|| words.map(|bytes| u32::from_le_bytes(*bytes)))
    }

    /// The bits of the elements, if they are singles.
    pub(super) fn singles(self) -> Option<impl Iterator<Item = u32>> {
        let words = self.bytes.as_chunks::<4>().0.iter();
        (self.kind == kinds::F32).then(|| words.map(|bytes| u32::from_le_bytes(*bytes)))
    }
}

/// The numbers of the kinds of values.
mod kinds {
    pub(super) const U8: u32 = 0;
    pub(super) const I8: u32 = 1;
    pub(super) const U16: u32 = 2;
    pub(super) const I16: u32 = 3;
    pub(super) const U32: u32 = 4;
    pub(super) const I32: u32 = 5;
    pub(super) const F32: u32 = 6;
    pub(super) const BOOL: u32 = 7;
    pub(super) const STRING: u32 = 8;
    pub(super) const ARRAY: u32 = 9;
    pub(super) const U64: u32 = 10;
    pub(super) const I64: u32 = 11;
    pub(super) const F64: u32 = 12;

    /// The bytes of one element, for kinds of which all have as many.
    pub(super) const fn width(kind: u32) -> Option<usize> {
        match kind {
            U8 | I8 | BOOL => Some(1),
            U16 | I16 => Some(2),
            U32 | I32 | F32 => Some(4),
            U64 | I64 | F64 => Some(8),
            _ => None,
        }
    }
}

fn alignment(metadata: &BTreeMap<&str, Value<'_>>) -> Result<u64, HeaderError> {
    match metadata.get(ALIGNMENT_KEY) {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(Value::Unsigned(alignment)) if (8..=1 << 20).contains(alignment) && alignment % 8 == 0 => {
            Ok(*alignment)
        }
        Some(value) => Err(format!("{ALIGNMENT_KEY} is {value}").into()),
    }
}

fn read_tensors<'a>(
    reader: &mut Reader<'a>,
    count: u64,
    alignment: u64,
) -> Result<BTreeMap<&'a str, TensorInfo>, HeaderError> {
    let mut entries = Vec::new();
    for _ in 0..count {
        let name = reader.name()?;
        let dimensions = reader.u32()?;
        if dimensions > MAX_DIMENSIONS {
            return Err(format!("tensor `{name}` has {dimensions} dimensions").into());
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            shape.push(reader.length()?);
        }
        shape.reverse();
        let found = TypeId(reader.u32()?);
        let storage = found.storage().ok_or_else(|| HeaderError::Type { tensor: name.to_owned(), found })?;
        entries.push((name, storage, shape, reader.u64()?));
    }
    let end = reader.file.len();
    let data = (reader.at as u64).next_multiple_of(alignment);
    let mut tensors = BTreeMap::new();
    for (name, storage, shape, offset) in entries {
        let place = || {
            let length = storage.length(&shape)?;
            let start = usize::try_from(data.checked_add(offset)?).ok()?;
            let bytes = start..start.checked_add(length)?;
            (offset % alignment == 0 && bytes.end <= end).then_some(bytes)
        };
        let bytes = place().ok_or_else(|| {
            format!("tensor `{name}` ({shape:?} at {offset}) is not a whole one inside the file")
        })?;
        if tensors.insert(name, TensorInfo { storage, shape, bytes }).is_some() {
            return Err(format!("tensor `{name}` is there twice").into());
        }
    }
    refuse_overlaps(&tensors)?;
    Ok(tensors)
}

/// Two tensors on the same bytes would let a small file stand for a large model.
fn refuse_overlaps(tensors: &BTreeMap<&str, TensorInfo>) -> Result<(), HeaderError> {
    let mut order: Vec<_> = tensors.iter().map(|(name, info)| (info.bytes.clone(), name)).collect();
    order.sort_unstable_by_key(|(bytes, _)| bytes.start);
    let clash = order.windows(2).find(|pair| pair[1].0.start < pair[0].0.end);
    clash.map_or(Ok(()), |pair| Err(format!("tensors `{}` and `{}` overlap", pair[0].1, pair[1].1).into()))
}

/// Little-endian values, one after the other.
#[derive(Clone, Copy, Debug)]
struct Reader<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], &'static str> {
        let rest = self.file.get(self.at..).and_then(|rest| rest.get(..length));
        let taken = rest.ok_or("the file ends inside its header")?;
        self.at += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let bytes = self.take(N)?;
        bytes.first_chunk().copied().ok_or("the file ends inside its header")
    }

    fn u32(&mut self) -> Result<u32, &'static str> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, &'static str> {
        self.array().map(u64::from_le_bytes)
    }

    fn length(&mut self) -> Result<usize, &'static str> {
        usize::try_from(self.u64()?).map_err(|_| "a length is larger than memory")
    }

    fn string(&mut self) -> Result<&'a str, &'static str> {
        let length = self.length()?;
        core::str::from_utf8(self.take(length)?).map_err(|_| "a string is not UTF-8")
    }

    fn name(&mut self) -> Result<&'a str, &'static str> {
        let name = self.string()?;
        if name.len() > MAX_NAME { Err("a name is longer than 1,024 bytes") } else { Ok(name) }
    }

    fn value(&mut self, kind: u32, depth: u32) -> Result<Value<'a>, String> {
        Ok(match kind {
            kinds::U8 => Value::Unsigned(u8::from_le_bytes(self.array()?).into()),
            kinds::I8 => Value::Signed(i8::from_le_bytes(self.array()?).into()),
            kinds::U16 => Value::Unsigned(u16::from_le_bytes(self.array()?).into()),
            kinds::I16 => Value::Signed(i16::from_le_bytes(self.array()?).into()),
            kinds::U32 => Value::Unsigned(self.u32()?.into()),
            kinds::I32 => Value::Signed(i32::from_le_bytes(self.array()?).into()),
            kinds::U64 => Value::Unsigned(self.u64()?),
            kinds::I64 => Value::Signed(i64::from_le_bytes(self.array()?)),
            kinds::F32 => Value::Single(f32::from_le_bytes(self.array()?)),
            kinds::F64 => Value::Double(f64::from_le_bytes(self.array()?)),
            kinds::BOOL => match self.array::<1>()? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                [byte] => return Err(format!("{byte} is neither true nor false")),
            },
            kinds::STRING => Value::String(self.string()?),
            kinds::ARRAY => Value::Array(self.elements(depth)?),
            kind => return Err(format!("values of kind {kind} do not exist")),
        })
    }

    /// Steps over an array; what can be wrong with its elements is found here.
    fn elements(&mut self, depth: u32) -> Result<Array<'a>, String> {
        if depth == MAX_DEPTH {
            return Err("arrays are nested too deeply".into());
        }
        let (kind, length) = (self.u32()?, self.length()?);
        let start = self.at;
        if let Some(width) = kinds::width(kind) {
            self.take(length.checked_mul(width).ok_or("an array is larger than memory")?)?;
        } else {
            // Each of these takes at least the eight bytes of its length: the end of the file ends the loop.
            for _ in 0..length {
                self.value(kind, depth + 1)?;
            }
        }
        Ok(Array { kind, length, bytes: &self.file[start..self.at] })
    }
}

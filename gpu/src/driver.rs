//! What the backend asks of a device's driver, and what it asks a device to do.
//!
//! CUDA's driver is one implementation; the kernels compiled for the host are another, with which everything above this trait is tested on
//! machines without a GPU.

use std::fmt::Debug;

use metis_kernels::BackendError;
use thiserror::Error;

/// What a driver reports.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DriverError {
    /// More memory than there is, or than the budget leaves.
    #[error("out of device memory: {bytes} bytes were asked for")]
    OutOfMemory {
        /// What was asked for.
        bytes: usize,
    },
    /// The device failed: it is not to be used any more.
    #[error("{0}")]
    Failed(String),
}

impl DriverError {
    pub(crate) fn on(self, device: String) -> BackendError {
        match self {
            Self::OutOfMemory { bytes } => BackendError::OutOfMemory { device, bytes },
            Self::Failed(reason) => BackendError::Device { device, reason },
        }
    }
}

/// One launch of a kernel of `gpu/kernels`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Launch {
    /// The kernel's name.
    pub kernel: &'static str,
    /// Blocks in three directions.
    pub grid: [u32; 3],
    /// Threads of a block: whole warps.
    pub threads: u32,
    /// Bytes of a block's memory besides what the kernel declares.
    pub shared: u32,
    /// The arguments, each from the start of a word on.
    pub arguments: Arguments,
}

/// A kernel's arguments in its parameters' order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Arguments {
    words: Vec<u64>,
    /// A bit for each word with which an argument begins.
    starts: u64,
}

impl Arguments {
    /// An argument of up to eight bytes.
    #[must_use]
    pub fn with(self, word: impl Into<Word>) -> Self {
        self.with_struct(&[word.into().0])
    }

    /// A structure, as it lies in memory. All arguments together have at most 64 words.
    #[must_use]
    pub fn with_struct(mut self, words: &[u64]) -> Self {
        debug_assert!(self.words.len() + words.len() <= u64::BITS as usize);
        self.starts |= 1 << self.words.len();
        self.words.extend_from_slice(words);
        self
    }

    /// One structure, the only argument.
    #[must_use]
    pub const fn of_struct(words: Vec<u64>) -> Self {
        Self { words, starts: 1 }
    }

    /// All words.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// The words from which on each argument lies.
    pub fn starts(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.words.len()).filter(|&word| self.starts >> word & 1 == 1)
    }
}

/// An argument's bytes, little-endian.
#[derive(Clone, Copy, Debug)]
pub struct Word(pub u64);

impl From<u64> for Word {
    fn from(value: u64) -> Self {
        Self(value)
    }
}

impl From<i64> for Word {
    fn from(value: i64) -> Self {
        Self(value as u64)
    }
}

impl From<u32> for Word {
    fn from(value: u32) -> Self {
        Self(value.into())
    }
}

impl From<i32> for Word {
    fn from(value: i32) -> Self {
        Self((value as u32).into())
    }
}

/// A dimension, which the bounds of the formats keep far below `2^31`.
impl From<usize> for Word {
    fn from(value: usize) -> Self {
        Self(value as u64)
    }
}

/// A device: memory, copies and launches, all executed in the order in which they are asked for.
pub trait Driver: Send + Sync + Debug + 'static {
    /// Memory of the device, freed when it is dropped. By then nothing that was launched uses it.
    type Memory: Send + Sync + Debug;

    /// The name that `selftest` and logs print.
    fn name(&self) -> String;

    /// How many multiprocessors it has: what grids are made for, which no result depends on.
    fn multiprocessors(&self) -> u32;

    /// Takes memory, at least eight-byte-aligned, with any contents.
    fn allocate(&self, bytes: usize) -> Result<Self::Memory, DriverError>;

    /// Where memory lies, as kernels see it.
    fn address(&self, memory: &Self::Memory) -> u64;

    /// Copies bytes to memory at `offset`. They can change after the call.
    fn upload(&self, to: &mut Self::Memory, offset: usize, bytes: &[u8]) -> Result<(), DriverError>;

    /// Waits for everything before it and copies memory from `offset` on.
    fn download(&self, from: &Self::Memory, offset: usize, bytes: &mut [u8]) -> Result<(), DriverError>;

    /// Begins launches, one after another.
    ///
    /// # Safety
    ///
    /// Each launch's arguments are those that its kernel declares, and every address among them is of memory that stays allocated until the
    /// launches are done and is as large as the kernel's shape arguments make it use.
    #[allow(unsafe_code, reason = "kernels use memory by address")]
    unsafe fn launch(&self, launches: &[Launch]) -> Result<(), DriverError>;

    /// Waits for everything before it.
    fn finish(&self) -> Result<(), DriverError>;
}

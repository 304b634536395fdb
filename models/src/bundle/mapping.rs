//! The bytes of a bundle's file: mapped, borrowed or owned.

use core::fmt;
use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::Mmap;

/// The bytes of one file.
pub(crate) enum FileBytes {
    /// Mapped from a file.
    Mapped(Mmap),
    /// Built into the binary, or built in memory.
    Memory(Cow<'static, [u8]>),
}

impl FileBytes {
    /// Maps a file for reading.
    #[allow(
        unsafe_code,
        reason = "memory-mapping is the one way to share weights between processes without a copy"
    )]
    pub(crate) fn map(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        // SAFETY: the mapping is private and read-only, and we only ever read it as bytes, for which every bit pattern is
        // valid. Nobody may change or truncate a model's files while it is open; `docs/bundle.md` makes this the
        // operator's duty, and everything that this crate writes goes to a new directory that is renamed into place.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Self::Mapped(map))
    }
}

impl AsRef<[u8]> for FileBytes {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Memory(bytes) => bytes,
        }
    }
}

impl fmt::Debug for FileBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.as_ref().len())
    }
}

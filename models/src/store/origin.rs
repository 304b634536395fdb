//! Where a store can be read from. Nothing that an origin gives is trusted.

use core::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;

use thiserror::Error;

/// A store that can be read: a folder, or a server by whatever protocol.
///
/// A call must end: an origin that can hang has timeouts.
pub trait Origin: fmt::Debug + Send + Sync {
    /// Where a file of the store is, for messages.
    fn locate(&self, name: &str) -> String;

    /// Opens a file of the store: from byte `from` on if the origin can, else from its beginning.
    fn open(&self, name: &str, from: u64) -> Result<Body<'_>, OriginError>;
}

/// The bytes that an origin gives for a file.
pub struct Body<'a> {
    /// The position in the file of the first byte that is read: what was asked for, or 0.
    pub start: u64,
    /// The length of the whole file, as far as the origin says it.
    pub length: Option<u64>,
    /// The bytes.
    pub reader: Box<dyn Read + 'a>,
}

impl fmt::Debug for Body<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body")
            .field("start", &self.start)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

/// Why an origin does not give a file.
#[derive(Debug, Error)]
pub enum OriginError {
    /// The origin has no such file.
    #[error("there is no such file (is this a store, and was the model published to it?)")]
    Missing,
    /// The origin cannot be reached or read.
    #[error("{0}")]
    Read(#[from] io::Error),
    /// The origin answers with something else than the file.
    #[error("{0}")]
    Answer(String),
}

/// A store in a folder: a disk, a stick, a network share.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// The store in this folder.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }
}

impl Origin for Folder {
    fn locate(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn open(&self, name: &str, from: u64) -> Result<Body<'_>, OriginError> {
        let path = self.0.join(name);
        let missing = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => OriginError::Missing,
            _ => OriginError::Read(error),
        };
        // Before it is opened: opening a pipe would wait for a writer.
        if !fs::metadata(&path).map_err(missing)?.is_file() {
            return Err(OriginError::Answer("this is not a regular file".into()));
        }
        let mut file = File::open(&path).map_err(missing)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(from))?;
        Ok(Body { start: from, length: Some(length), reader: Box::new(file) })
    }
}

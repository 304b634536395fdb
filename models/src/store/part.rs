//! A file that is being filled: what is in it, and how an origin goes on with it.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use alloy_primitives::B256;

use super::error::{Problem, StoreError};
use super::leaves::{LeafError, copy_leaves, list_length, root_of_list};
use super::origin::{Origin, OriginError};

/// Bytes that are read or written at once.
const BUFFER: usize = 256 << 10;
/// How often an origin that breaks off is asked to go on; each time it must have given something.
const CONTINUATIONS: usize = 16;

/// Why an attempt at an origin ended.
pub(super) enum Stop {
    /// The origin is at fault: another may do better.
    Origin(Problem),
    /// This machine is.
    Here(StoreError),
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        Self::Origin(problem)
    }
}

impl From<OriginError> for Stop {
    fn from(error: OriginError) -> Self {
        Self::Origin(error.into())
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Here(error)
    }
}

/// A file that is being filled.
#[derive(Debug)]
pub(super) struct Part {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Part {
    /// Opens it with what an earlier fetch left, which nobody has checked.
    pub(super) fn open(path: PathBuf) -> Result<Self, StoreError> {
        let open = || {
            // A pipe would wait for its other end, a link may lead anywhere.
            if path.symlink_metadata().is_ok_and(|found| !found.is_file()) {
                return Err(io::Error::other("not a regular file; remove it"));
            }
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
            let length = file.metadata()?.len();
            Ok((file, length))
        };
        let (file, length) = open().map_err(StoreError::io(&path))?;
        Ok(Self { path, file, length })
    }

    /// How many bytes it has.
    pub(super) const fn length(&self) -> u64 {
        self.length
    }

    /// Cuts it to `length` if it is longer.
    pub(super) fn cut(&mut self, length: u64) -> Result<(), StoreError> {
        if length < self.length {
            self.file.set_len(length).map_err(StoreError::io(&self.path))?;
            self.length = length;
        }
        Ok(())
    }

    /// Cuts it where it differs from the file of `length` bytes whose leaf hashes are at `list`.
    pub(super) fn cut_to_right(&mut self, list: &Path, length: u64) -> Result<(), StoreError> {
        let hashes = hashes(list, 0)?;
        let mut right = 0;
        let copied = copy_leaves(self.read()?, hashes, 0..length, |leaf| {
            right += leaf.len() as u64;
            Ok(())
        });
        match copied {
            Ok(()) | Err(LeafError::Ends(_) | LeafError::Damaged(_)) => self.cut(right),
            Err(LeafError::Read(error) | LeafError::Keep(error)) => Err(self.error(error)),
            Err(LeafError::List(error)) => Err(StoreError::io(list)(error)),
        }
    }

    /// The Merkle root, if it is a list of leaf hashes.
    pub(super) fn root_of_list(&self) -> Result<B256, StoreError> {
        root_of_list(self.read()?).map_err(StoreError::io(&self.path))
    }

    /// Fills it up to `length` from an origin. No byte of it can be checked alone.
    pub(super) fn fill(&mut self, origin: &dyn Origin, name: &str, length: u64) -> Result<(), Stop> {
        self.fill_by(origin, name, length, |part, body| {
            let mut out = part.append()?;
            let mut buffer = vec![0; BUFFER];
            let ended = loop {
                let rest = (length - part.length).min(BUFFER as u64) as usize;
                if rest == 0 {
                    break None;
                }
                match body.read(&mut buffer[..rest]) {
                    Ok(0) => break Some(ended_early()),
                    Ok(read) => {
                        out.write_all(&buffer[..read]).map_err(|error| part.error(error))?;
                        part.length += read as u64;
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => break Some(error),
                }
            };
            out.flush().map_err(|error| part.error(error))?;
            ended.map_or(Ok(()), |error| Err(part.broke_off(length, error)))
        })
    }

    /// Fills it up to `length` from an origin with leaves whose hashes are at `list`; `arrived` hears the length of each.
    pub(super) fn fill_with_leaves(
        &mut self,
        origin: &dyn Origin,
        name: &str,
        length: u64,
        list: &Path,
        mut arrived: impl FnMut(u64),
    ) -> Result<(), Stop> {
        self.fill_by(origin, name, length, |part, body| {
            let mut out = part.append()?;
            let hashes = hashes(list, part.length)?;
            let span = part.length..length;
            let result = copy_leaves(body, hashes, span, |leaf| {
                out.write_all(leaf)?;
                part.length += leaf.len() as u64;
                arrived(leaf.len() as u64);
                Ok(())
            });
            out.flush().map_err(|error| part.error(error))?;
            match result {
                Ok(()) => Ok(()),
                Err(LeafError::Read(error)) => Err(part.broke_off(length, error)),
                Err(LeafError::Ends(_)) => Err(part.broke_off(length, ended_early())),
                Err(LeafError::Damaged(leaf)) => Err(Problem::Damaged(leaf).into()),
                Err(LeafError::List(error)) => Err(StoreError::io(list)(error).into()),
                Err(LeafError::Keep(error)) => Err(part.error(error).into()),
            }
        })
    }

    /// Makes what is in it last.
    pub(super) fn finish(self) -> Result<(), StoreError> {
        self.file.sync_all().map_err(StoreError::io(&self.path))
    }

    /// Opens the file at an origin where this one ends, and once more if it breaks off after giving something.
    fn fill_by(
        &mut self,
        origin: &dyn Origin,
        name: &str,
        length: u64,
        mut take: impl FnMut(&mut Self, &mut dyn Read) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        for attempt in 0.. {
            let before = self.length;
            if before == length {
                break;
            }
            let result = self.body(origin, name, length).and_then(|mut body| {
                take(self, &mut body)?;
                // A byte more makes it another file; an error here does not matter, as all is there.
                match body.read(&mut [0]) {
                    Ok(1..) => Err(Problem::TooLong(length).into()),
                    Ok(0) | Err(_) => Ok(()),
                }
            });
            let gave_something = self.length > before && attempt < CONTINUATIONS;
            match result {
                Err(Stop::Origin(Problem::BrokeOff { .. })) if gave_something => {}
                result => return result,
            }
        }
        Ok(())
    }

    /// The file at an origin, from where this one ends.
    fn body<'o>(&self, origin: &'o dyn Origin, name: &str, length: u64) -> Result<impl Read + use<'o>, Stop> {
        let from = self.length;
        let body = origin.open(name, from)?;
        if let Some(actual) = body.length.filter(|&actual| actual != length) {
            return Err(Problem::Length { expected: length, actual }.into());
        }
        let skip = match body.start {
            start if start == from => 0,
            0 => from,
            actual => return Err(Problem::OtherStart { asked: from, actual }.into()),
        };
        let mut reader = BufReader::with_capacity(BUFFER, body.reader);
        match io::copy(&mut reader.by_ref().take(skip), &mut io::sink()) {
            Ok(skipped) if skipped == skip => Ok(reader),
            Ok(_) => Err(self.broke_off(length, ended_early())),
            Err(error) => Err(self.broke_off(length, error)),
        }
    }

    fn read(&self) -> Result<impl Read + use<>, StoreError> {
        read_from(&self.path, 0)
    }

    /// A writer at the end.
    fn append(&self) -> Result<BufWriter<File>, StoreError> {
        let append = || {
            let mut file = self.file.try_clone()?;
            file.seek(SeekFrom::Start(self.length))?;
            Ok(BufWriter::with_capacity(BUFFER, file))
        };
        append().map_err(StoreError::io(&self.path))
    }

    fn broke_off(&self, length: u64, error: io::Error) -> Stop {
        Problem::BrokeOff { kept: self.length, length, error }.into()
    }

    fn error(&self, error: io::Error) -> StoreError {
        StoreError::Io { path: self.path.clone(), error }
    }
}

/// The leaf hashes in a list, from that of the leaf at byte `from` of its file on.
fn hashes(list: &Path, from: u64) -> Result<impl Read + use<>, StoreError> {
    read_from(list, list_length(from))
}

fn read_from(path: &Path, start: u64) -> Result<BufReader<File>, StoreError> {
    let open = || {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(start))?;
        Ok(BufReader::with_capacity(BUFFER, file))
    };
    open().map_err(StoreError::io(path))
}

fn ended_early() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "nothing more came")
}

//! Files that appear complete or not at all, and one writer at a time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;

use super::error::StoreError;

/// Bytes that are written or compared at once.
const CHUNK: usize = 1 << 20;

/// How often a lock is taken anew because its file was replaced.
const ATTEMPTS: usize = 100;

/// The right to write to a place, for one process at a time. The system gives it back when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    file: File,
}

impl Lock {
    /// Takes the lock; waits while another process has it.
    pub(super) fn take(path: PathBuf) -> Result<Self, StoreError> {
        let take = || {
            // A pipe would wait for its other end, a link may lead anywhere.
            if path.symlink_metadata().is_ok_and(|found| !found.is_file()) {
                return Err(io::Error::other("not a regular file; remove it"));
            }
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    tracing::warn!(
                        "another process writes here and holds {}: waiting for it",
                        path.display()
                    );
                    file.lock()?;
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
            Ok(file)
        };
        for _ in 0..ATTEMPTS {
            let file = take().map_err(StoreError::io(&path))?;
            // Whoever held it may have removed it: what was waited for is then not what the next one sees.
            if is_at(&file, &path) {
                return Ok(Self { path, file });
            }
        }
        Err(StoreError::Io { path, error: io::Error::other("somebody replaces it again and again") })
    }

    /// Gives the lock back and removes its file where that can be done without two holders.
    pub(super) fn remove(self) {
        if cfg!(unix) {
            // What is left if this fails is an empty hidden file.
            drop(fs::remove_file(&self.path));
        }
        drop(self.file);
    }
}

/// Whether this file is the one that the path names.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), path.symlink_metadata()) {
        (Ok(held), Ok(named)) => (held.dev(), held.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

/// Nobody removes it here.
#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> bool {
    true
}

/// Gives a file these contents: false if it has them already. The caller is the only writer.
pub(super) fn put(path: &Path, contents: &[u8], progress: &ProgressBar) -> Result<bool, StoreError> {
    if same(path, contents).map_err(StoreError::io(path))? {
        progress.inc(contents.len() as u64);
        return Ok(false);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let partial = path.with_file_name(format!(".{name}.partial"));
    let write = || {
        // What was left there, or put there, is not written through.
        match fs::remove_file(&partial) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).open(&partial)?;
        for chunk in contents.chunks(CHUNK) {
            file.write_all(chunk)?;
            progress.inc(chunk.len() as u64);
        }
        file.sync_all()?;
        fs::rename(&partial, path)
    };
    write().map_err(|error| {
        // The next writer would begin anew anyway.
        drop(fs::remove_file(&partial));
        StoreError::Io { path: path.to_owned(), error }
    })?;
    Ok(true)
}

fn same(path: &Path, contents: &[u8]) -> io::Result<bool> {
    match path.symlink_metadata() {
        Ok(found) if found.is_file() && found.len() == contents.len() as u64 => {}
        Ok(_) => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    let mut file = File::open(path)?;
    let mut buffer = vec![0; CHUNK.min(contents.len())];
    for chunk in contents.chunks(CHUNK) {
        let found = &mut buffer[..chunk.len()];
        match file.read_exact(found) {
            Ok(()) if found == chunk => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Makes the names in a directory last: what was created or renamed in it survives a power failure.
pub(super) fn sync_directory(path: &Path) -> Result<(), StoreError> {
    // Elsewhere a directory cannot be opened as a file.
    if cfg!(unix) {
        File::open(path).and_then(|directory| directory.sync_all()).map_err(StoreError::io(path))?;
    }
    Ok(())
}

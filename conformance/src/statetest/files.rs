//! The files that are named by paths and folders.

use super::summary::{Failure, Skip, Summary};
use std::{io, path::PathBuf};
use walkdir::WalkDir;

/// The files of a run.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Files to read, sorted, each once.
    pub files: Vec<PathBuf>,
    /// Paths that cannot be read, and files in folders that are no JSON.
    pub problems: Summary,
}

/// All JSON files below the paths. A path that is a file itself is taken whatever its name.
///
/// Links to folders are followed only where they are given: a folder cannot contain itself.
pub fn find(paths: &[PathBuf]) -> Found {
    let mut found = Found::default();
    for path in paths {
        for entry in WalkDir::new(path).sort_by_file_name() {
            match entry {
                Ok(entry) if entry.path().is_dir() => {}
                Ok(entry)
                    if entry.depth() > 0 && entry.path().extension().is_none_or(|end| end != "json") =>
                {
                    let reason = "not a .json file".to_owned();
                    found.problems.skip(Skip { file: entry.into_path(), reason, tests: 1 });
                }
                Ok(entry) => found.files.push(entry.into_path()),
                Err(error) => {
                    let file = error.path().unwrap_or(path).to_path_buf();
                    let reason = unreadable(&error.into());
                    found.problems.fail(Failure { file, test: None, fork: None, index: None, reason });
                }
            }
        }
    }
    found.files.sort();
    found.files.dedup();
    found
}

/// The reason of a failure to read.
pub(super) fn unreadable(error: &io::Error) -> String {
    format!("cannot be read ({error}): give the path of a state test, or of a folder with some")
}

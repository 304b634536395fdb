//! A bundle out of stores that nobody trusts.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use alloy_primitives::{B256, keccak256};
use indicatif::ProgressBar;

use super::error::{Failure, Problem, StoreError};
use super::leaves::list_length;
use super::origin::{Origin, OriginError};
use super::part::{Part, Stop};
use super::place::{Lock, put, sync_directory};
use super::{file_name, leaves_name, manifest_name};
use crate::bundle::{
    Bundle, BundleError, FileEntry, LEAVES_SUFFIX, MANIFEST_FILE, MAX_MANIFEST_BYTES, Manifest,
    possible_manifest,
};

/// A model that is there.
#[derive(Debug)]
pub struct Fetched {
    /// The model.
    pub id: B256,
    /// Its bundle.
    pub directory: PathBuf,
    /// Whether all of it was there before.
    pub was_there: bool,
    /// Bytes that an earlier fetch had left and that were right.
    pub kept: u64,
    /// Bytes that arrived now and were right.
    pub received: u64,
    /// What origins did instead of giving what they were asked for.
    pub failures: Vec<Failure>,
}

/// Makes the bundle of model `id` in the directory `into/<id>`, from the first origin that has it, and what that lacks from the next.
///
/// Nothing that arrives is kept before its hash is checked. What is kept when all origins fail is checked again, and then used, by the next
/// fetch. The directory gets its name when all of it is there and was opened. `progress` counts bytes.
///
/// A model that no copy makes usable is kept as far as it shows that, be it no more than the manifest: a validator has to see for itself
/// that it refuses such a model like all others.
pub fn fetch(
    id: B256,
    origins: &[Box<dyn Origin>],
    into: &Path,
    progress: &ProgressBar,
) -> Result<Fetched, StoreError> {
    let directory = into.join(id.to_string());
    if is_there(&directory, id)? {
        return Ok(Fetched::before(id, directory));
    }
    fs::create_dir_all(into).map_err(StoreError::io(into))?;
    let lock = Lock::take(into.join(format!(".{id}.lock")))?;
    // Who held the lock before may have done it all.
    if is_there(&directory, id)? {
        lock.remove();
        return Ok(Fetched::before(id, directory));
    }
    let partial = into.join(format!(".{id}.partial"));
    fs::create_dir_all(&partial).map_err(StoreError::io(&partial))?;
    let mut download = Download {
        id,
        origins: origins.iter().map(|origin| &**origin).collect(),
        partial: partial.clone(),
        progress,
        kept: 0,
        received: 0,
        failures: Vec::new(),
    };
    let result = download.run(&directory);
    // No trace of what nobody has and of what nobody can use; a folder with something in it stays.
    let nothing_left = fs::remove_dir(&partial).is_ok() || !partial.exists();
    if nothing_left {
        lock.remove();
    }
    let Download { kept, received, failures, .. } = download;
    match result {
        Ok(()) => Ok(Fetched { id, directory, was_there: false, kept, received, failures }),
        Err(StoreError::NotFetched { id, file, failures, .. }) => {
            let partial = (!nothing_left).then_some(partial);
            Err(StoreError::NotFetched { id, file, failures, partial })
        }
        Err(error) => Err(error),
    }
}

impl Fetched {
    const fn before(id: B256, directory: PathBuf) -> Self {
        Self { id, directory, was_there: true, kept: 0, received: 0, failures: Vec::new() }
    }
}

/// Whether the directory is the model's bundle. If it is something else, somebody has to decide what becomes of it.
fn is_there(directory: &Path, id: B256) -> Result<bool, StoreError> {
    match directory.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(StoreError::Io { path: directory.to_owned(), error }),
        Ok(_) => {}
    }
    match open(directory, id) {
        Ok(()) => Ok(true),
        Err(problem) if problem.is_inherent() => Err(StoreError::unusable(id, directory, problem)),
        Err(problem) => {
            Err(StoreError::Occupied { directory: directory.to_owned(), id, problem: Box::new(problem) })
        }
    }
}

/// Opens a bundle, which is checking it.
fn open(directory: &Path, id: B256) -> Result<(), BundleError> {
    Bundle::open_model(directory, id)?.tokenizer().map(drop)
}

/// A bundle under construction, in a hidden directory that the next fetch goes on with.
struct Download<'a> {
    id: B256,
    /// The origins, those that failed last.
    origins: VecDeque<&'a dyn Origin>,
    partial: PathBuf,
    progress: &'a ProgressBar,
    kept: u64,
    received: u64,
    failures: Vec<Failure>,
}

impl Download<'_> {
    fn run(&mut self, directory: &Path) -> Result<(), StoreError> {
        let manifest = self.manifest(directory)?;
        let bytes = manifest.files.iter().map(|entry| entry.length + list_length(entry.length)).sum();
        self.progress.set_length(bytes);
        for entry in &manifest.files {
            self.leaves(entry)?;
            self.file(entry)?;
        }
        self.finish(directory)
    }

    fn manifest(&mut self, directory: &Path) -> Result<Manifest, StoreError> {
        let (id, path) = (self.id, self.partial.join(MANIFEST_FILE));
        let bytes = match File::open(&path).and_then(read_manifest) {
            Ok(bytes) if keccak256(&bytes) == id => bytes,
            _ => {
                let bytes = self.ask(MANIFEST_FILE, &manifest_name(id), |_, origin, name| {
                    let body = origin.open(name, 0)?;
                    if body.length.is_some_and(|length| length > MAX_MANIFEST_BYTES as u64) {
                        return Err(Problem::ManifestTooLarge.into());
                    }
                    let bytes = read_manifest(body.reader).map_err(OriginError::from)?;
                    match keccak256(&bytes) {
                        actual if actual == id => Ok(bytes),
                        _ if bytes.len() > MAX_MANIFEST_BYTES => Err(Problem::ManifestTooLarge.into()),
                        actual => Err(Problem::OtherManifest { length: bytes.len(), actual }.into()),
                    }
                })?;
                put(&path, &bytes, &ProgressBar::hidden())?;
                bytes
            }
        };
        possible_manifest(&bytes).or_else(|problem| self.unusable(directory, problem))
    }

    /// The list of a file's leaf hashes. Only all of it can be checked, against the root.
    fn leaves(&mut self, entry: &FileEntry) -> Result<(), StoreError> {
        let length = list_length(entry.length);
        let mut list = Part::open(self.leaves_path(entry))?;
        list.cut(length)?;
        if list.length() == length && list.root_of_list()? != entry.root {
            list.cut(0)?;
        }
        let mut kept = list.length();
        if kept < length {
            let file = format!("the list of leaf hashes of {}", entry.name);
            self.ask(&file, &leaves_name(entry.root), |_, origin, name| {
                let began_elsewhere = list.length() > 0;
                let mut result = fill_list(&mut list, origin, name, length, entry.root);
                if began_elsewhere && matches!(result, Err(Stop::Origin(Problem::OtherLeaves { .. }))) {
                    // It may be the beginning that is wrong: once more without.
                    result = fill_list(&mut list, origin, name, length, entry.root);
                    kept = 0;
                }
                kept = kept.min(list.length());
                result
            })?;
        }
        self.count(kept, length - kept);
        list.finish()
    }

    /// A file whose leaf hashes are there.
    fn file(&mut self, entry: &FileEntry) -> Result<(), StoreError> {
        let (list, length) = (self.leaves_path(entry), entry.length);
        let mut file = Part::open(self.partial.join(&entry.name))?;
        file.cut_to_right(&list, length)?;
        self.count(file.length(), 0);
        if file.length() < length {
            self.ask(&entry.name, &file_name(entry.root), |download, origin, name| {
                file.fill_with_leaves(origin, name, length, &list, |bytes| download.count(0, bytes))
            })?;
        }
        file.finish()
    }

    /// Gives the bundle its name, if it is one.
    fn finish(&self, directory: &Path) -> Result<(), StoreError> {
        match open(&self.partial, self.id) {
            Ok(()) => {}
            Err(problem) if problem.is_inherent() => return self.unusable(directory, problem),
            Err(problem) => {
                let (directory, problem) = (self.partial.clone(), Box::new(problem));
                return Err(StoreError::Changed { directory, problem });
            }
        }
        self.install(directory)
    }

    fn install(&self, directory: &Path) -> Result<(), StoreError> {
        sync_directory(&self.partial)?;
        fs::rename(&self.partial, directory).map_err(StoreError::io(directory))?;
        directory.parent().map_or(Ok(()), sync_directory)
    }

    /// Tries the origins, one after another, until one gives a file. One that fails comes last from then on.
    fn ask<T>(
        &mut self,
        file: &str,
        name: &str,
        mut attempt: impl FnMut(&mut Self, &dyn Origin, &str) -> Result<T, Stop>,
    ) -> Result<T, StoreError> {
        let mut failures = Vec::new();
        for others in (0..self.origins.len()).rev() {
            let Some(&origin) = self.origins.front() else { break };
            match attempt(self, origin, name) {
                Ok(value) => {
                    self.failures.append(&mut failures);
                    return Ok(value);
                }
                Err(Stop::Here(error)) => return Err(error),
                Err(Stop::Origin(problem)) => {
                    let failure = Failure { at: origin.locate(name), problem };
                    if others > 0 {
                        self.progress.suspend(|| tracing::warn!("{file}: {failure}; asking the next source"));
                    }
                    failures.push(failure);
                    self.origins.rotate_left(1);
                }
            }
        }
        let partial = Some(self.partial.clone());
        Err(StoreError::NotFetched { id: self.id, file: file.to_owned(), failures, partial })
    }

    /// The model is at fault, and what is there of it shows that.
    fn unusable<T>(&self, directory: &Path, problem: BundleError) -> Result<T, StoreError> {
        self.install(directory)?;
        Err(StoreError::unusable(self.id, directory, problem))
    }

    fn leaves_path(&self, entry: &FileEntry) -> PathBuf {
        self.partial.join(format!("{}{LEAVES_SUFFIX}", entry.name))
    }

    fn count(&mut self, kept: u64, received: u64) {
        self.kept += kept;
        self.received += received;
        self.progress.inc(kept + received);
    }
}

/// Fills a list of leaf hashes, and empties it if it is not the one of the root.
fn fill_list(list: &mut Part, origin: &dyn Origin, name: &str, length: u64, root: B256) -> Result<(), Stop> {
    list.fill(origin, name, length)?;
    match list.root_of_list()? {
        actual if actual == root => Ok(()),
        actual => {
            list.cut(0)?;
            Err(Problem::OtherLeaves { expected: root, actual }.into())
        }
    }
}

/// Reads one byte more than a manifest may have.
fn read_manifest(reader: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(MAX_MANIFEST_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

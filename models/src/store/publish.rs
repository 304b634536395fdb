//! A bundle into a store.

use std::fs;
use std::path::Path;

use alloy_primitives::B256;
use indicatif::ProgressBar;

use super::error::StoreError;
use super::place::{Lock, put, sync_directory};
use super::{file_name, leaves_name, list_length, manifest_name};
use crate::bundle::{Bundle, BundleError, FileEntry, TOKENIZER_FILE, WEIGHTS_FILE, merkle};

/// A model that is in a store.
#[derive(Clone, Debug)]
pub struct Published {
    /// The model.
    pub id: B256,
    /// Its manifest's name in the store.
    pub manifest: String,
    /// Whether the manifest was written, or was there before.
    pub written: bool,
    /// Its files.
    pub files: Vec<PublishedFile>,
}

/// A file that is in a store.
#[derive(Clone, Debug)]
pub struct PublishedFile {
    /// Its name in the bundle.
    pub name: &'static str,
    /// Its name in the store.
    pub stored: String,
    /// Its length.
    pub length: u64,
    /// Whether it was written, or was there before.
    pub written: bool,
}

/// Puts a bundle into the store at `store`, which is made if it is not there. `progress` counts bytes.
///
/// What is there and right stays as it is; what is there and wrong is replaced. The manifest comes last: who finds it finds the files.
pub fn publish(bundle: &Bundle, store: &Path, progress: &ProgressBar) -> Result<Published, StoreError> {
    for folder in ["manifests", "files"].map(|name| store.join(name)) {
        fs::create_dir_all(&folder).map_err(StoreError::io(folder))?;
    }
    let _lock = Lock::take(store.join(".lock"))?;
    let entries = &bundle.manifest().files;
    progress.set_length(entries.iter().map(|entry| entry.length + list_length(entry.length)).sum());
    let mut files = Vec::new();
    for name in [TOKENIZER_FILE, WEIGHTS_FILE] {
        let entry = bundle.manifest().file(name)?;
        let bytes = bundle.file(name).unwrap_or_default();
        let leaves = leaves(name, bytes, entry)?;
        let stored = file_name(entry.root);
        let mut written = put(&store.join(leaves_name(entry.root)), &leaves, progress)?;
        written |= put(&store.join(&stored), bytes, progress)?;
        files.push(PublishedFile { name, stored, length: entry.length, written });
    }
    sync_directory(&store.join("files"))?;
    let (id, manifest) = (bundle.id(), manifest_name(bundle.id()));
    let written = put(&store.join(&manifest), &bundle.manifest().encode()?, &ProgressBar::hidden())?;
    sync_directory(&store.join("manifests"))?;
    Ok(Published { id, manifest, written, files })
}

/// The leaf hashes of a file that is still what it was when the bundle was opened.
fn leaves(file: &'static str, bytes: &[u8], entry: &FileEntry) -> Result<Vec<u8>, BundleError> {
    let leaves = merkle::leaves(bytes);
    let list = leaves.iter().flatten().copied().collect();
    match merkle::root_of_leaves(leaves) {
        root if root == entry.root => Ok(list),
        actual => Err(BundleError::DamagedFile { file, expected: entry.root, actual, leaf: None }),
    }
}

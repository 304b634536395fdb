//! What can go wrong between a bundle and a store.

use core::fmt;
use std::io;
use std::path::{Path, PathBuf};

use alloy_primitives::B256;
use thiserror::Error;

use super::origin::OriginError;
use crate::bundle::{BundleError, DamagedLeaf, MAX_MANIFEST_BYTES};

/// Why a model was not published or not fetched.
#[derive(Debug, Error)]
pub enum StoreError {
    /// A file or directory of this machine could not be read or written.
    #[error("{path}: {error}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// What is to be published is not a bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The directory of the model is there, and is not the model.
    #[error("{directory} exists and is not model {id}: {problem}; remove it, then fetch again")]
    Occupied {
        /// The directory.
        directory: PathBuf,
        /// The model.
        id: B256,
        /// What is wrong with it.
        problem: Box<BundleError>,
    },
    /// The id names bytes that are no valid model: no other copy can be better.
    #[error(
        "model {id} cannot be used, whoever serves it: {problem}; a newer metisvm may read it, or its author has to publish another. {directory} \
         has what shows that, for a node to refuse it by"
    )]
    Unusable {
        /// The model.
        id: B256,
        /// Where what is wrong with it can be seen.
        directory: PathBuf,
        /// What is wrong with it.
        problem: Box<BundleError>,
    },
    /// All bytes were right when they arrived, and are not any more.
    #[error("{directory} changed while it was written: {problem}; check the disk, then fetch again")]
    Changed {
        /// The directory.
        directory: PathBuf,
        /// What is wrong with it.
        problem: Box<BundleError>,
    },
    /// No origin gave a file.
    #[error("{file} of model {id} could not be fetched{}; {}", listed(.failures), what_now(.partial))]
    NotFetched {
        /// The model.
        id: B256,
        /// The file of the bundle.
        file: String,
        /// What each origin did instead.
        failures: Vec<Failure>,
        /// Where the part is that is there already, if there is any.
        partial: Option<PathBuf>,
    },
}

impl StoreError {
    pub(super) fn unusable(id: B256, directory: &Path, problem: BundleError) -> Self {
        Self::Unusable { id, directory: directory.to_owned(), problem: Box::new(problem) }
    }

    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |error| Self::Io { path, error }
    }
}

fn listed(failures: &[Failure]) -> String {
    let failures: Vec<String> = failures.iter().map(|failure| format!(": {failure}")).collect();
    failures.concat()
}

fn what_now(partial: &Option<PathBuf>) -> String {
    match partial {
        None => "check the id and the address, or name another source".into(),
        Some(partial) => format!(
            "what was right is kept in {} and the same command goes on from there, also with another source",
            partial.display()
        ),
    }
}

/// An origin that did not give a file.
#[derive(Debug)]
pub struct Failure {
    /// Where the file should have been.
    pub at: String,
    /// What was there.
    pub problem: Problem,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.problem)
    }
}

/// What is wrong with what an origin gives.
#[derive(Debug, Error)]
pub enum Problem {
    /// It gives nothing.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// It stopped before the end.
    #[error("broke off after {kept} of {length} bytes: {error}")]
    BrokeOff {
        /// Bytes of the file that are right and kept.
        kept: u64,
        /// Bytes of the file.
        length: u64,
        /// What happened.
        error: io::Error,
    },
    /// The file there has another length than its manifest says.
    #[error(
        "the file there has {actual} bytes, the manifest says {expected}: it was cut, or is another file"
    )]
    Length {
        /// The length that follows from the manifest.
        expected: u64,
        /// The length that the origin gives.
        actual: u64,
    },
    /// The file there goes on after its end.
    #[error("the file there goes on after the {0} bytes that the manifest says: it is another file")]
    TooLong(u64),
    /// The manifest is too large to be one.
    #[error("a manifest has at most {MAX_MANIFEST_BYTES} bytes, and this has more: is this a store?")]
    ManifestTooLarge,
    /// The manifest is not that of the model.
    #[error(
        "the hash of these {length} bytes is {actual}: they are not the manifest of this model, or are damaged"
    )]
    OtherManifest {
        /// Their number.
        length: usize,
        /// Their hash.
        actual: B256,
    },
    /// The list of leaf hashes does not belong to the root.
    #[error(
        "these leaf hashes have the root {actual}, the manifest says {expected}: the list there is damaged"
    )]
    OtherLeaves {
        /// The root in the manifest.
        expected: B256,
        /// The root of the list.
        actual: B256,
    },
    /// A leaf is damaged.
    #[error("{0} is damaged there")]
    Damaged(DamagedLeaf),
    /// The origin began where it was not asked to.
    #[error("asked for byte {asked}, it answers from byte {actual} on")]
    OtherStart {
        /// Where reading should have begun.
        asked: u64,
        /// Where the answer begins.
        actual: u64,
    },
}

//! A store: models as files named by the hashes of their contents, in a folder that any web server, disk or stick can carry.
//! `docs/bundle.md`, section 12, is normative.
//!
//! [`publish`] puts a verified bundle into a store. [`fetch`] makes the bundle again from an id and any number of [`Origin`]s, none of
//! which is trusted: the manifest's hash is the id, the list of leaf hashes has the manifest's root, and each leaf of a file is checked as it
//! arrives. No transport is here: an origin over HTTP belongs to the program that has a client.

mod error;
mod fetch;
mod leaves;
mod origin;
mod part;
mod place;
mod publish;

use alloy_primitives::B256;

pub use error::{Failure, Problem, StoreError};
pub use fetch::{Fetched, fetch};
pub use leaves::{LeafError, copy_leaves, list_length, root_of_list};
pub use origin::{Body, Folder, Origin, OriginError};
pub use publish::{Published, PublishedFile, publish};

/// A model's manifest in a store.
pub fn manifest_name(id: B256) -> String {
    format!("manifests/{id}.json")
}

/// A file in a store, by its Merkle root.
pub fn file_name(root: B256) -> String {
    format!("files/{root}")
}

/// The hashes of a file's leaves in a store, by its Merkle root.
pub fn leaves_name(root: B256) -> String {
    format!("files/{root}{}", crate::bundle::LEAVES_SUFFIX)
}

#[cfg(test)]
mod tests;

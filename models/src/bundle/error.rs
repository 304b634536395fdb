//! What can be wrong with a bundle.

use core::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

use alloy_primitives::B256;
use metis_kernels::BoundsError;
use thiserror::Error;

use crate::tokenizer::TokenizerError;

/// Why a bundle was refused.
#[derive(Debug, Error)]
pub enum BundleError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The manifest is larger than any manifest needs to be.
    #[error("manifest.json has {actual} bytes; at most {max} are allowed")]
    ManifestTooLarge {
        /// Its length.
        actual: usize,
        /// The limit.
        max: usize,
    },
    /// The manifest is not JSON, lacks a field, or has one that this version does not know.
    #[error("manifest.json: {0}")]
    ManifestSyntax(#[from] serde_json::Error),
    /// The manifest says the right things in the wrong bytes; its hash would not be the model's only id.
    #[error(
        "manifest.json is not canonical at byte {offset}: keys must be sorted, without white space, numbers and strings in their shortest form"
    )]
    NotCanonical {
        /// The first byte that differs from the canonical encoding.
        offset: usize,
    },
    /// A field has a value that no bundle may have.
    #[error("manifest.json: `{field}` is {actual}; {rule}")]
    Manifest {
        /// The field.
        field: &'static str,
        /// Its value.
        actual: String,
        /// What is required.
        rule: String,
    },
    /// A shape for which the number formats are not proven.
    #[error("manifest.json: {0}")]
    Bounds(#[from] BoundsError),
    /// A file is shorter or longer than its manifest says.
    #[error(
        "{file} has {actual} bytes, its manifest says {expected}: the file was cut or belongs to another bundle; fetch it again"
    )]
    Length {
        /// The file.
        file: &'static str,
        /// The length in the manifest.
        expected: u64,
        /// The length found.
        actual: u64,
    },
    /// A file's bytes are not those that the manifest commits to.
    #[error("{file} is damaged{}: its root is {actual}, its manifest says {expected}; fetch it again", at_leaf(.leaf))]
    DamagedFile {
        /// The file.
        file: &'static str,
        /// The root in the manifest.
        expected: B256,
        /// The root of the bytes found.
        actual: B256,
        /// The first damaged leaf, when the bundle has a list of leaf hashes to tell.
        leaf: Option<Box<DamagedLeaf>>,
    },
    /// The weights are not a safetensors file of the expected layout.
    #[error("weights.safetensors: {0}")]
    Tensors(String),
    /// A tensor that the architecture needs is missing, or the caller asked for one that does not exist.
    #[error("weights.safetensors has no tensor `{0}`")]
    MissingTensor(String),
    /// A tensor that the architecture does not know.
    #[error("weights.safetensors has a tensor `{0}` that this architecture does not use")]
    UnknownTensor(String),
    /// A tensor of the wrong type or shape.
    #[error("tensor `{name}` is {actual}; the manifest's shapes need {expected}")]
    TensorShape {
        /// The tensor.
        name: String,
        /// Type and shape that are needed.
        expected: String,
        /// Type and shape found.
        actual: String,
    },
    /// An element that its format does not allow.
    #[error("tensor `{name}`, element {index}: {rule}")]
    Element {
        /// The tensor.
        name: String,
        /// The index of the element (for scales, of the channel).
        index: usize,
        /// What is required.
        rule: &'static str,
    },
    /// The tokenizer cannot be used.
    #[error("tokenizer.json: {0}")]
    Tokenizer(#[from] TokenizerError),
    /// The directory has a bundle of another model.
    #[error("the bundle is model {actual}, not {expected}")]
    OtherModel {
        /// The model that was looked for.
        expected: B256,
        /// The model that is there.
        actual: B256,
    },
    /// Nothing is ever overwritten.
    #[error("{0} exists already; remove it or choose another place")]
    TargetExists(PathBuf),
}

impl BundleError {
    /// Whether the model itself is at fault, so that no copy of it can be used: its bytes are those that its id names, and they are wrong.
    pub const fn is_inherent(&self) -> bool {
        match self {
            Self::Io { .. }
            // Nobody fetches a manifest that is longer than one may be, so nobody else could say this of it.
            | Self::ManifestTooLarge { .. }
            | Self::Length { .. }
            | Self::DamagedFile { .. }
            | Self::OtherModel { .. }
            | Self::TargetExists(_) => false,
            Self::ManifestSyntax(_)
            | Self::NotCanonical { .. }
            | Self::Manifest { .. }
            | Self::Bounds(_)
            | Self::Tensors(_)
            | Self::MissingTensor(_)
            | Self::UnknownTensor(_)
            | Self::TensorShape { .. }
            | Self::Element { .. }
            | Self::Tokenizer(_) => true,
        }
    }

    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

/// A leaf whose hash is not the committed one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedLeaf {
    /// Its index.
    pub index: usize,
    /// Where it is in the file.
    pub bytes: Range<u64>,
}

impl fmt::Display for DamagedLeaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "leaf {} (bytes {} to {})", self.index, self.bytes.start, self.bytes.end)
    }
}

fn at_leaf(leaf: &Option<Box<DamagedLeaf>>) -> String {
    leaf.as_ref().map_or_else(String::new, |leaf| format!(" at {leaf}"))
}

//! A bundle: one model as `manifest.json`, `weights.safetensors` and `tokenizer.json`. `docs/bundle.md` is normative.
//!
//! Opening a bundle checks every byte of it against its manifest, so whoever holds a [`Bundle`] holds the model that its
//! [id](Bundle::id) names.

mod error;
pub(crate) mod manifest;
mod mapping;
pub mod merkle;
pub(crate) mod tensors;
mod variant;
mod write;

use std::borrow::Cow;
use std::path::Path;

use alloy_primitives::{B256, keccak256};

pub use error::{BundleError, DamagedLeaf};
pub use manifest::{
    FORMAT_VERSION, FileEntry, Formats, MAX_EOS, MAX_LAYERS, MAX_MANIFEST_BYTES, MAX_NAME_BYTES,
    MAX_TOKENIZER_BYTES, Manifest, Work,
};
pub(crate) use manifest::{check_dimensions, valid_name};
pub(crate) use mapping::FileBytes;
pub(crate) use tensors::{Content, TensorSpec, layout, matrix_shape};
pub use tensors::{LAYER_MATRICES, LAYER_NORMS, Matrix};
pub use variant::{ActivationName, Architecture, Pooling, Variant};
pub use write::BundleParts;
pub(crate) use write::refuse_existing;

use crate::tokenizer::{Tokenizer, TokenizerError};
use tensors::TensorIndex;

/// The manifest's file name.
pub const MANIFEST_FILE: &str = "manifest.json";
/// The weights' file name.
pub const WEIGHTS_FILE: &str = "weights.safetensors";
/// The tokenizer's file name.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// Appended to a file's name: the list of its leaf hashes. Optional and no part of the identity; it tells which leaf is damaged.
pub const LEAVES_SUFFIX: &str = ".leaves";

/// A verified model.
#[derive(Debug)]
pub struct Bundle {
    id: B256,
    manifest: Manifest,
    weights: FileBytes,
    tokenizer: FileBytes,
    tensors: TensorIndex,
}

impl Bundle {
    /// Opens a bundle's directory, maps its files into memory and verifies them against the manifest.
    ///
    /// The files must not change while the bundle is open.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, BundleError> {
        Self::open_checked(directory.as_ref(), |_| Ok(()))
    }

    /// The same for a bundle that must be this model. The id is checked before anything else is looked at, so an error that
    /// [is inherent](BundleError::is_inherent) is one of the model; and the manifest before the other files, so that one which is none
    /// needs no files.
    pub fn open_model(directory: impl AsRef<Path>, id: B256) -> Result<Self, BundleError> {
        Self::open_checked(directory.as_ref(), is_model(id))
    }

    /// The manifest in a directory that must be this model's. No other file is looked at.
    pub fn read_manifest(directory: impl AsRef<Path>, id: B256) -> Result<Manifest, BundleError> {
        checked_manifest(&map(directory.as_ref(), MANIFEST_FILE)?, is_model(id))
    }

    /// The tokenizer in the directory of a model with this manifest. Weights are not looked at.
    pub fn read_tokenizer(
        directory: impl AsRef<Path>,
        manifest: &Manifest,
    ) -> Result<Tokenizer, BundleError> {
        let directory = directory.as_ref();
        let file = map(directory, TOKENIZER_FILE)?;
        verify_file(TOKENIZER_FILE, file.as_ref(), manifest.file(TOKENIZER_FILE)?, leaves_in(directory))?;
        tokenizer(manifest, file.as_ref())
    }

    fn open_checked(
        directory: &Path,
        check: impl FnOnce(&[u8]) -> Result<(), BundleError>,
    ) -> Result<Self, BundleError> {
        let bytes = map(directory, MANIFEST_FILE)?;
        let manifest = checked_manifest(&bytes, check)?;
        let (weights, tokenizer) = (map(directory, WEIGHTS_FILE)?, map(directory, TOKENIZER_FILE)?);
        Self::verify(keccak256(bytes.as_ref()), manifest, weights, tokenizer, leaves_in(directory))
    }

    /// A bundle from its files' contents, for a model that is built into a binary; verified like any other.
    pub fn from_parts(
        manifest: &[u8],
        weights: impl Into<Cow<'static, [u8]>>,
        tokenizer: impl Into<Cow<'static, [u8]>>,
    ) -> Result<Self, BundleError> {
        let (weights, tokenizer) = (FileBytes::Memory(weights.into()), FileBytes::Memory(tokenizer.into()));
        Self::verify(keccak256(manifest), Manifest::decode(manifest)?, weights, tokenizer, |_| None)
    }

    /// What the model is.
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The model's identity: `keccak256` of the manifest's bytes.
    pub const fn id(&self) -> B256 {
        self.id
    }

    /// A matrix by its name (`docs/bundle.md`, section 6): `embedding`, `head`, `layers.N.query`.
    ///
    /// With tied embeddings, `head` is the embedding.
    pub fn linear(&self, name: &str) -> Result<Matrix<'_>, BundleError> {
        let name = if name == "head" && self.manifest.tied_embeddings { "embedding" } else { name };
        let bytes = self.tensor(&format!("{name}.weight"))?;
        let scales = tensors::scales(self.tensor(&format!("{name}.scale"))?)
            .map_err(|_| BundleError::MissingTensor(name.to_owned()))?;
        let has_groups = self.manifest.formats.has_groups();
        let groups = has_groups.then(|| self.tensor(&format!("{name}.multiplier"))).transpose()?;
        let outputs = scales.len();
        Ok(Matrix { outputs, inputs: bytes.len() / outputs.max(1), bytes, scales, groups })
    }

    /// The gains of a norm by its name, Q20.
    pub fn gains(&self, name: &str) -> Result<Vec<i32>, BundleError> {
        Ok(tensors::int32s(self.tensor(&format!("{name}.gain"))?).collect())
    }

    /// A bias by its name: of a linear layer, Q16, or of a norm, Q20.
    pub fn bias(&self, name: &str) -> Result<Vec<i32>, BundleError> {
        Ok(tensors::int32s(self.tensor(&format!("{name}.bias"))?).collect())
    }

    /// Rotary frequencies in turns per token, Q64, one for each pair of channels: `rope.frequencies` or `rope.local_frequencies`.
    pub fn frequencies(&self, name: &str) -> Result<Vec<u64>, BundleError> {
        Ok(tensors::uint64s(self.tensor(name)?).collect())
    }

    /// The tokenizer; refused when it does not fit the manifest.
    pub fn tokenizer(&self) -> Result<Tokenizer, BundleError> {
        tokenizer(&self.manifest, self.tokenizer.as_ref())
    }

    /// The bytes of a file of the bundle other than the manifest, for Merkle proofs.
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        match name {
            WEIGHTS_FILE => Some(self.weights.as_ref()),
            TOKENIZER_FILE => Some(self.tokenizer.as_ref()),
            _ => None,
        }
    }

    pub(crate) fn tensor(&self, name: &str) -> Result<&[u8], BundleError> {
        self.tensors.bytes(self.weights.as_ref(), name)
    }

    fn verify(
        id: B256,
        manifest: Manifest,
        weights: FileBytes,
        tokenizer: FileBytes,
        leaves: impl Fn(&str) -> Option<Vec<u8>>,
    ) -> Result<Self, BundleError> {
        for (name, file) in [(TOKENIZER_FILE, &tokenizer), (WEIGHTS_FILE, &weights)] {
            verify_file(name, file.as_ref(), manifest.file(name)?, &leaves)?;
        }
        let tensors = TensorIndex::read(weights.as_ref(), &manifest)?;
        Ok(Self { id, manifest, weights, tokenizer, tensors })
    }
}

fn map(directory: &Path, name: &str) -> Result<FileBytes, BundleError> {
    let path = directory.join(name);
    FileBytes::map(&path).map_err(BundleError::io(path))
}

fn leaves_in(directory: &Path) -> impl Fn(&str) -> Option<Vec<u8>> {
    move |file| std::fs::read(directory.join(format!("{file}{LEAVES_SUFFIX}"))).ok()
}

fn is_model(id: B256) -> impl FnOnce(&[u8]) -> Result<(), BundleError> {
    move |manifest| match keccak256(manifest) {
        actual if actual == id => Ok(()),
        actual => Err(BundleError::OtherModel { expected: id, actual }),
    }
}

/// A manifest that says nothing impossible, from bytes that pass a check.
fn checked_manifest(
    bytes: &FileBytes,
    check: impl FnOnce(&[u8]) -> Result<(), BundleError>,
) -> Result<Manifest, BundleError> {
    let bytes = bytes.as_ref();
    if bytes.len() > MAX_MANIFEST_BYTES {
        return Err(BundleError::ManifestTooLarge { actual: bytes.len(), max: MAX_MANIFEST_BYTES });
    }
    check(bytes)?;
    possible_manifest(bytes)
}

/// A manifest whose weights have a length that its shapes can have: one of another length is refused before anything so long is asked for.
pub(crate) fn possible_manifest(bytes: &[u8]) -> Result<Manifest, BundleError> {
    let manifest = Manifest::decode(bytes)?;
    let (entry, possible) = (manifest.file(WEIGHTS_FILE)?, tensors::weights_lengths(&manifest));
    if possible.contains(&entry.length) {
        return Ok(manifest);
    }
    Err(BundleError::Manifest {
        field: "files",
        actual: format!("a {WEIGHTS_FILE} of {} bytes", entry.length),
        rule: format!("the shapes give {} to {}", possible.start(), possible.end()),
    })
}

fn tokenizer(manifest: &Manifest, json: &[u8]) -> Result<Tokenizer, BundleError> {
    let tokenizer = Tokenizer::from_json(json, manifest.vocabulary)?;
    let bos: Vec<u32> = tokenizer.prompt_prefix().iter().map(|token| token.0).collect();
    if bos != manifest.bos {
        return Err(TokenizerError::Bos { manifest: manifest.bos.clone(), tokenizer: bos }.into());
    }
    if let Some(chat) = &manifest.chat {
        chat.check(|token| tokenizer.is_special(token)).map_err(TokenizerError::from)?;
    }
    Ok(tokenizer)
}

fn verify_file(
    file: &'static str,
    bytes: &[u8],
    entry: &FileEntry,
    leaves: impl Fn(&str) -> Option<Vec<u8>>,
) -> Result<(), BundleError> {
    if bytes.len() as u64 != entry.length {
        return Err(BundleError::Length { file, expected: entry.length, actual: bytes.len() as u64 });
    }
    let found = merkle::leaves(bytes);
    let actual = merkle::root_of_leaves(found.clone());
    if actual == entry.root {
        return Ok(());
    }
    let leaf = leaves(file).and_then(|list| damaged_leaf(&found, &list, entry)).map(Box::new);
    Err(BundleError::DamagedFile { file, expected: entry.root, actual, leaf })
}

/// The first leaf that differs from the list, when the list itself belongs to the manifest's root.
fn damaged_leaf(found: &[B256], list: &[u8], entry: &FileEntry) -> Option<DamagedLeaf> {
    let (hashes, rest) = list.as_chunks::<32>();
    let hashes: Vec<B256> = hashes.iter().map(B256::from).collect();
    if !rest.is_empty() || hashes.len() != found.len() || merkle::root_of_leaves(hashes.clone()) != entry.root
    {
        return None;
    }
    let index = found.iter().zip(&hashes).position(|(a, b)| a != b)?;
    let start = (index * merkle::LEAF_BYTES) as u64;
    Some(DamagedLeaf { index, bytes: start..(start + merkle::LEAF_BYTES as u64).min(entry.length) })
}

#[cfg(test)]
mod tests;

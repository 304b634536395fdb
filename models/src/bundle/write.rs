//! Making a bundle: all of it or nothing.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use alloy_primitives::B256;
use safetensors::{Dtype, View};

use super::error::BundleError;
use super::manifest::{FileEntry, Manifest};
use super::tensors::{TensorIndex, layout};
use super::{Bundle, LEAVES_SUFFIX, MANIFEST_FILE, TOKENIZER_FILE, WEIGHTS_FILE, merkle};

/// The contents of a bundle's files.
#[derive(Clone, Debug)]
pub struct BundleParts {
    /// `manifest.json`.
    pub manifest: Vec<u8>,
    /// `weights.safetensors`.
    pub weights: Vec<u8>,
    /// `tokenizer.json`.
    pub tokenizer: Vec<u8>,
}

impl BundleParts {
    /// Serialises the tensors (the bytes of each by name), and completes the manifest with work and files.
    pub(crate) fn assemble(
        mut manifest: Manifest,
        mut tensors: BTreeMap<String, Vec<u8>>,
        tokenizer: Vec<u8>,
    ) -> Result<Self, BundleError> {
        manifest.work = manifest.derived_work();
        manifest.check_shapes()?;
        let mut views = Vec::new();
        for spec in layout(&manifest) {
            let bytes =
                tensors.remove(&spec.name).ok_or_else(|| BundleError::MissingTensor(spec.name.clone()))?;
            views.push((spec.name.clone(), StoredTensor { dtype: spec.dtype(), shape: spec.shape, bytes }));
        }
        let weights = safetensors::serialize(views, None).map_err(|e| BundleError::Tensors(e.to_string()))?;
        TensorIndex::read(&weights, &manifest)?;
        manifest.files = [(TOKENIZER_FILE, &tokenizer), (WEIGHTS_FILE, &weights)]
            .map(|(name, bytes)| FileEntry {
                name: name.to_owned(),
                length: bytes.len() as u64,
                root: merkle::root(bytes),
            })
            .into();
        let manifest = manifest.encode()?;
        Manifest::decode(&manifest)?;
        Ok(Self { manifest, weights, tokenizer })
    }

    /// The model's identity.
    pub fn id(&self) -> B256 {
        alloy_primitives::keccak256(&self.manifest)
    }

    /// The bundle in memory, without a directory.
    pub fn into_bundle(self) -> Result<Bundle, BundleError> {
        Bundle::from_parts(&self.manifest, self.weights, self.tokenizer)
    }

    /// Writes the bundle to a new directory. The files are complete on disk before the directory gets its name.
    pub fn write(&self, target: &Path) -> Result<(), BundleError> {
        refuse_existing(target)?;
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let partial = target.with_file_name(format!(".{name}.partial-{}", std::process::id()));
        fs::create_dir_all(target.parent().unwrap_or(Path::new(""))).map_err(BundleError::io(target))?;
        fs::create_dir(&partial).map_err(BundleError::io(&partial))?;
        let partial = Partial(partial);
        for (name, bytes) in [(TOKENIZER_FILE, &self.tokenizer), (WEIGHTS_FILE, &self.weights)] {
            let leaves: Vec<u8> = merkle::leaves(bytes).into_iter().flatten().collect();
            write_file(&partial.0.join(name), bytes)?;
            write_file(&partial.0.join(format!("{name}{LEAVES_SUFFIX}")), &leaves)?;
        }
        write_file(&partial.0.join(MANIFEST_FILE), &self.manifest)?;
        refuse_existing(target)?;
        fs::rename(&partial.0, target).map_err(BundleError::io(target))
    }
}

/// Refuses to write over anything.
pub(crate) fn refuse_existing(target: &Path) -> Result<(), BundleError> {
    if target.file_name().is_none() || target.symlink_metadata().is_ok() {
        return Err(BundleError::TargetExists(target.to_owned()));
    }
    Ok(())
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), BundleError> {
    let write = || {
        let mut file = File::create_new(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(BundleError::io(path))
}

/// A directory under construction; removed unless it was renamed away.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        // After the rename there is nothing to remove; a failure leaves only a hidden directory behind.
        drop(fs::remove_dir_all(&self.0));
    }
}

/// A tensor as `safetensors` takes it.
struct StoredTensor {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl View for StoredTensor {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

//! The model that the binary carries: the committed checkpoint, imported like any other.

use metis_models::bundle::BundleParts;
use metis_models::import::{ImportError, Options, ProgressBar, Source, convert};
use metis_models::{Bundle, BundleError};
use std::path::Path;

/// The model's name in its manifest.
pub const NAME: &str = "metis-intent-1";

/// The embedded bundle, verified like any other.
///
/// # Errors
/// Only for a binary that was built from a damaged repository.
pub fn bundle() -> Result<Bundle, BundleError> {
    Bundle::from_parts(
        include_bytes!("../bundle/manifest.json"),
        include_bytes!("../bundle/weights.safetensors").as_slice(),
        include_bytes!("../bundle/tokenizer.json").as_slice(),
    )
}

/// Imports a checkpoint of the default model: what `bundle/` holds is this of `checkpoint/`, byte for byte.
///
/// # Errors
/// As any import.
pub fn import(checkpoint: &Path) -> Result<BundleParts, ImportError> {
    let options = Options { name: Some(NAME.to_owned()), ..Options::default() };
    convert(&Source::HuggingFace(checkpoint.to_owned()), &options, &ProgressBar::hidden())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_bundle_is_the_import_of_the_committed_checkpoint() {
        let parts = import(&Path::new(env!("CARGO_MANIFEST_DIR")).join("checkpoint")).unwrap();
        assert_eq!(parts.id(), bundle().unwrap().id());
    }

    #[test]
    fn the_embedded_bundle_is_small() {
        let bundle = bundle().unwrap();
        let files = &bundle.manifest().files;
        assert!(files.iter().map(|file| file.length).sum::<u64>() <= 3 << 20);
    }
}

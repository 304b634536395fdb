//! Ids of models that cannot be used: no copy helps, and what shows that is kept.

use super::*;

/// The model with other weights, or with another manifest, in a store.
fn changed(
    weights: impl Fn(&mut Vec<u8>),
    manifest: impl Fn(&mut Manifest),
) -> (B256, BTreeMap<String, Vec<u8>>) {
    let mut parts = PARTS.clone();
    weights(&mut parts.weights);
    let mut changed = Manifest::decode(&parts.manifest).unwrap();
    changed.files[1].root = merkle::root(&parts.weights);
    changed.files[1].length = parts.weights.len() as u64;
    manifest(&mut changed);
    parts.manifest = changed.encode().unwrap();
    (parts.id(), stored(&parts))
}

/// What is there is what `kept` says, also when it is asked for again, and shows everybody that the model is at fault.
fn unusable(id: B256, files: BTreeMap<String, Vec<u8>>, says: &str, kept: &[&str]) {
    let into = tempfile::tempdir().unwrap();
    let origins: [Box<dyn Origin>; 1] = [Box::new(Memory::new(files))];
    for _ in 0..2 {
        let error = fetch(id, &origins, into.path(), &hidden()).unwrap_err();
        assert!(matches!(error, StoreError::Unusable { .. }), "{error}");
        let message = error.to_string();
        assert!(message.contains(says) && message.contains(&id.to_string()), "{message}");
        assert_eq!(fs::read_dir(into.path()).unwrap().count(), 1, "nothing but the bundle");
        let directory = into.path().join(id.to_string());
        for file in ["manifest.json", "tokenizer.json", "weights.safetensors"] {
            assert_eq!(directory.join(file).exists(), kept.contains(&file), "{file}");
        }
        assert!(Bundle::open_model(&directory, id).unwrap_err().is_inherent());
    }
}

#[test]
fn weights_that_are_none_are_the_models_fault() {
    let (id, files) = changed(
        |weights| {
            let last = weights.len() - 1;
            weights[last] = 0;
        },
        |_| (),
    );
    unusable(id, files, "-128 is not a weight", &["manifest.json", "tokenizer.json", "weights.safetensors"]);
}

#[test]
fn lengths_that_the_shapes_cannot_have_are_refused_before_anything_is_asked_for() {
    let shortest = PARTS.weights.len() as u64;
    for length in [0, shortest / 2, shortest + (2 << 20), u64::MAX] {
        let (id, mut files) = changed(|_| (), |manifest| manifest.files[1].length = length);
        files.retain(|name, _| name.starts_with("manifests/"));
        unusable(id, files, "the shapes give", &["manifest.json"]);
    }
}

#[test]
fn a_manifest_that_breaks_the_rules_is_the_models_fault() {
    let (id, files) = changed(|_| (), |manifest| manifest.format_version = 2);
    unusable(id, files, "`format_version` is 2", &["manifest.json"]);
    let bytes = b"{}".to_vec();
    let id = alloy_primitives::keccak256(&bytes);
    let files = BTreeMap::from([(manifest_name(id), bytes)]);
    unusable(id, files, "manifest.json: missing field", &["manifest.json"]);
}

#[test]
fn a_manifest_has_a_bound() {
    for lengths in [false, true] {
        let bytes = vec![b' '; crate::bundle::MAX_MANIFEST_BYTES + 1];
        let files = BTreeMap::from([(manifest_name(PARTS.id()), bytes)]);
        let into = tempfile::tempdir().unwrap();
        let error = fetch_from(vec![Memory { lengths, ..Memory::new(files) }], into.path()).unwrap_err();
        assert!(error.to_string().contains("a manifest has at most 65536 bytes"), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn a_pipe_or_a_folder_in_the_place_of_a_file_is_refused_and_not_waited_for() {
    let (store, into) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir_all(store.path().join(manifest_name(PARTS.id()))).unwrap();
    let origins: [Box<dyn Origin>; 1] = [Box::new(Folder::new(store.path()))];
    let error = fetch(PARTS.id(), &origins, into.path(), &hidden()).unwrap_err();
    assert!(error.to_string().contains("not a regular file"), "{error}");

    let into = interrupted(&[]);
    fs::create_dir(into.path().join(format!(".{}.partial/tokenizer.json", PARTS.id()))).unwrap();
    let error = fetch_from(vec![Memory::new(stored(&PARTS))], into.path()).unwrap_err();
    assert!(error.to_string().contains("tokenizer.json: not a regular file"), "{error}");
}

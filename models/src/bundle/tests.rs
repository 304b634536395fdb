mod groups;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

use super::*;
use crate::fixture::Fixture;

static PARTS: LazyLock<BundleParts> = LazyLock::new(|| {
    let place = tempfile::tempdir().unwrap();
    Fixture { layers: 1, ..Fixture::default() }.bundle(place.path()).unwrap()
});

fn from_parts(parts: BundleParts) -> Result<Bundle, BundleError> {
    parts.into_bundle()
}

/// The fixture's manifest after a change, in canonical bytes.
fn changed_manifest(change: impl Fn(&mut Value)) -> Vec<u8> {
    let mut value: Value = serde_json::from_slice(&PARTS.manifest).unwrap();
    change(&mut value);
    canonical(&value)
}

fn canonical(value: &Value) -> Vec<u8> {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<&String, &Value> = map.iter().collect();
            let fields: Vec<Vec<u8>> =
                sorted.iter().map(|(k, v)| [format!("{k:?}:").as_bytes(), &canonical(v)].concat()).collect();
            [b"{".as_slice(), &fields.join(&b','), b"}"].concat()
        }
        Value::Array(items) => {
            let items: Vec<Vec<u8>> = items.iter().map(canonical).collect();
            [b"[".as_slice(), &items.join(&b','), b"]"].concat()
        }
        leaf => leaf.to_string().into_bytes(),
    }
}

fn manifest_refused(change: impl Fn(&mut Value), message: &str) {
    let error = Manifest::decode(&changed_manifest(change)).unwrap_err().to_string();
    assert!(error.contains(message), "{error:?} does not say {message:?}");
}

#[test]
fn manifest_bytes_are_frozen() {
    // The layout is consensus: this text changes only with `FORMAT_VERSION`.
    let manifest = Manifest {
        format_version: 1,
        name: "tiny".into(),
        architecture: Architecture::Llama,
        vocabulary: 300,
        context: 128,
        hidden: 64,
        intermediate: 96,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        norm_epsilon_q32: 42_950,
        tied_embeddings: true,
        eos: vec![2],
        bos: vec![1],
        chat: None,
        formats: Formats::default(),
        variant: Variant::default(),
        work: Work { linear_macs: 61_440, attention_macs: 256, head_macs: 19_200 },
        files: vec![
            FileEntry { name: "tokenizer.json".into(), length: 5, root: B256::repeat_byte(0xab) },
            FileEntry { name: "weights.safetensors".into(), length: 7, root: B256::repeat_byte(0x01) },
        ],
    };
    let (ab, one) = ("ab".repeat(32), "01".repeat(32));
    let expected = format!(
        concat!(
            r#"{{"architecture":"llama","bos":[1],"context":128,"eos":[2],"files":["#,
            r#"{{"length":5,"name":"tokenizer.json","root":"0x{}"}},"#,
            r#"{{"length":7,"name":"weights.safetensors","root":"0x{}"}}],"format_version":1,"#,
            r#""formats":{{"activations":"int16-power-of-two","keys":"int16-power-of-two","#,
            r#""values":"int8-per-head","weights":"int8-per-channel"}},"head_dim":16,"heads":4,"hidden":64,"#,
            r#""intermediate":96,"kv_heads":2,"layers":2,"name":"tiny","norm_epsilon_q32":42950,"#,
            r#""tied_embeddings":true,"vocabulary":300,"#,
            r#""work":{{"attention_macs":256,"head_macs":19200,"linear_macs":61440}}}}"#
        ),
        ab, one
    );
    assert_eq!(String::from_utf8(manifest.encode().unwrap()).unwrap(), expected);
    assert_eq!(Manifest::decode(expected.as_bytes()).unwrap(), manifest);
}

#[test]
fn only_canonical_manifests_are_read() {
    let text = String::from_utf8(PARTS.manifest.clone()).unwrap();
    let not_canonical = |text: String| {
        assert!(matches!(Manifest::decode(text.as_bytes()), Err(BundleError::NotCanonical { .. })), "{text}");
    };
    not_canonical(text.replace(',', ", "));
    not_canonical(format!("{text}\n"));
    not_canonical(text.replace("\"llama\"", "\"l\\u006cama\""));
    not_canonical(
        text.replace("\"root\":\"0x", "\"root\":\"0X")
            .replace("0X", "0x")
            .replace("\"root\":\"0x", "\"root\":\""),
    );
    let (bos, rest) = (r#""bos":[1],"#, text.replace(r#""bos":[1],"#, ""));
    not_canonical(format!("{{{bos}{}", &rest[1..]));
    for wrong in [
        text.replace("[1]", "[1.0]"),
        text.replace("[1]", "[1e0]"),
        text.replace("[1]", "null"),
        text.replace("[1]", "[-1]"),
        text.replace("\"bos\":[1],", ""),
        text.replace("\"bos\":[1],", "\"bos\":[1],\"bos\":[1],"),
        text.replace("\"bos\":[1],", "\"bos\":[1],\"boss\":[1],"),
        text.replace("\"heads\":4", "\"heads\":99999999999999999999"),
    ] {
        assert!(matches!(Manifest::decode(wrong.as_bytes()), Err(BundleError::ManifestSyntax(_))), "{wrong}");
    }
    let long = vec![b' '; MAX_MANIFEST_BYTES + 1];
    assert!(matches!(Manifest::decode(&long), Err(BundleError::ManifestTooLarge { .. })));
}

#[test]
fn manifests_that_no_bundle_may_have_are_refused() {
    manifest_refused(|m| m["format_version"] = 2.into(), "format_version");
    manifest_refused(|m| m["architecture"] = "mamba".into(), "unknown variant `mamba`");
    manifest_refused(|m| m["name"] = "".into(), "name");
    manifest_refused(|m| m["name"] = "a/b".into(), "name");
    manifest_refused(|m| m["formats"]["weights"] = "float".into(), "formats");
    manifest_refused(|m| m["vocabulary"] = 0.into(), "vocabulary is 0");
    manifest_refused(|m| m["hidden"] = 131_072.into(), "hidden is 131072");
    manifest_refused(|m| m["intermediate"] = 131_072.into(), "intermediate");
    manifest_refused(|m| m["context"] = 131_072.into(), "context");
    manifest_refused(|m| m["layers"] = 257.into(), "layers");
    manifest_refused(|m| m["head_dim"] = 257.into(), "head dimension");
    manifest_refused(|m| m["head_dim"] = 15.into(), "odd");
    manifest_refused(|m| m["kv_heads"] = 3.into(), "cannot share");
    manifest_refused(|m| m["norm_epsilon_q32"] = 0.into(), "norm_epsilon_q32");
    manifest_refused(|m| m["norm_epsilon_q32"] = ((1u64 << 32) + 1).into(), "norm_epsilon_q32");
    manifest_refused(|m| m["eos"] = json!([2, 1]), "eos");
    manifest_refused(|m| m["eos"] = json!([2, 2]), "eos");
    manifest_refused(|m| m["eos"] = json!([300]), "eos");
    manifest_refused(|m| m["eos"] = (0..17).collect(), "eos");
    manifest_refused(|m| m["bos"] = json!([1, 2]), "bos");
    manifest_refused(|m| m["bos"] = json!([300]), "bos");
    manifest_refused(|m| m["work"]["linear_macs"] = 1.into(), "work");
    manifest_refused(|m| m["files"] = json!([]), "files");
    manifest_refused(|m| m["files"].as_array_mut().unwrap().swap(0, 1), "in this order");
    manifest_refused(|m| m["files"][0]["length"] = (1u64 << 40).into(), "files");
}

/// The fixture's weights after a change of its tensors, under a manifest that commits to them.
fn weights_refused(change: impl Fn(&mut BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>), message: &str) {
    let original = SafeTensors::deserialize(&PARTS.weights).unwrap();
    let mut tensors = original
        .iter()
        .map(|(name, t)| (name.to_owned(), (t.dtype(), t.shape().to_vec(), t.data().to_vec())))
        .collect();
    change(&mut tensors);
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        (name.clone(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    commit_and_refuse(safetensors::serialize(views, None).unwrap(), message);
}

fn commit_and_refuse(weights: Vec<u8>, message: &str) {
    let manifest = changed_manifest(|m| {
        m["files"][1]["length"] = weights.len().into();
        m["files"][1]["root"] = merkle::root(&weights).to_string().into();
    });
    let error =
        from_parts(BundleParts { manifest, weights, tokenizer: PARTS.tokenizer.clone() }).unwrap_err();
    assert!(error.to_string().contains(message), "{error} does not say {message:?}");
}

#[test]
fn tensors_are_exactly_those_of_the_architecture() {
    weights_refused(|t| drop(t.remove("layers.0.query.weight")), "no tensor `layers.0.query.weight`");
    weights_refused(|t| drop(t.insert("bias".into(), (Dtype::U8, vec![1], vec![1]))), "`bias`");
    weights_refused(|t| t.get_mut("layers.0.up.weight").unwrap().1 = vec![64, 96], "need U8 [96, 64]");
    weights_refused(|t| t.get_mut("layers.0.up.weight").unwrap().0 = Dtype::I8, "I8 [96, 64]");
    weights_refused(|t| t.get_mut("embedding.weight").unwrap().2[7] = 0, "element 7");
    weights_refused(|t| t.get_mut("layers.0.key.scale").unwrap().2[8 + 2] = 0, "element 1");
    weights_refused(|t| t.get_mut("final_norm.gain").unwrap().2[15] = 0x7f, "element 3");
    let mut huge = PARTS.weights.clone();
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    commit_and_refuse(huge, "header");
    commit_and_refuse(vec![], "weights.safetensors");
    let with_metadata = safetensors::serialize(
        SafeTensors::deserialize(&PARTS.weights).unwrap().iter(),
        Some([("author".to_owned(), "me".to_owned())].into()),
    );
    commit_and_refuse(with_metadata.unwrap(), "__metadata__");
}

#[test]
fn accessors_give_what_the_manifest_promises() {
    let bundle = from_parts(PARTS.clone()).unwrap();
    assert_eq!(bundle.id(), PARTS.id());
    assert_eq!(bundle.id(), bundle.manifest().id().unwrap());
    let m = bundle.manifest();
    for (name, shape) in [
        ("embedding", [300, 64]),
        ("head", [300, 64]),
        ("layers.0.key", [32, 64]),
        ("layers.0.down", [64, 96]),
    ] {
        let matrix = bundle.linear(name).unwrap();
        assert_eq!([matrix.outputs, matrix.inputs], shape, "{name}");
        assert_eq!(matrix.bytes.len(), shape[0] * shape[1]);
        assert_eq!(matrix.weights().scales.len(), shape[0]);
    }
    assert_eq!(bundle.gains("layers.0.mlp_norm").unwrap().len(), m.hidden);
    assert_eq!(bundle.gains("final_norm").unwrap().len(), m.hidden);
    assert_eq!(
        bundle.frequencies("rope.frequencies").unwrap(),
        metis_kernels::tables::rope_frequencies(10_000, 16)
    );
    assert_eq!(bundle.tokenizer().unwrap().prompt_prefix(), [metis_kernels::TokenId(1)]);
    assert!(matches!(bundle.linear("layers.1.key"), Err(BundleError::MissingTensor(_))));
    assert!(matches!(bundle.gains("layers.0.key"), Err(BundleError::MissingTensor(_))));
}

#[test]
fn a_tokenizer_of_another_bundle_is_refused() {
    let manifest = changed_manifest(|m| m["bos"] = json!([]));
    let bundle = from_parts(BundleParts { manifest, ..PARTS.clone() }).unwrap();
    assert!(matches!(bundle.tokenizer(), Err(BundleError::Tokenizer(TokenizerError::Bos { .. }))));
}

#[test]
fn a_damaged_leaf_is_named() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("bundle");
    PARTS.write(&directory).unwrap();
    Bundle::open(&directory).unwrap();
    let path = directory.join(WEIGHTS_FILE);
    let mut weights = fs::read(&path).unwrap();
    let at = weights.len() - 1;
    weights[at] ^= 4;
    fs::write(&path, &weights).unwrap();
    let start = at / merkle::LEAF_BYTES * merkle::LEAF_BYTES;
    let leaf = |directory: &Path| match Bundle::open(directory).unwrap_err() {
        BundleError::DamagedFile { file: WEIGHTS_FILE, leaf, .. } => leaf,
        other => panic!("{other}"),
    };
    let found = leaf(&directory).unwrap();
    assert_eq!(
        *found,
        DamagedLeaf { index: at / merkle::LEAF_BYTES, bytes: start as u64..weights.len() as u64 }
    );
    let message = Bundle::open(&directory).unwrap_err().to_string();
    assert!(
        message.contains(&format!("weights.safetensors is damaged at leaf {}", found.index)),
        "{message}"
    );

    // A list that does not belong to the root says nothing.
    let list = directory.join(format!("{WEIGHTS_FILE}{LEAVES_SUFFIX}"));
    let mut hashes = fs::read(&list).unwrap();
    hashes[0] ^= 1;
    fs::write(&list, hashes).unwrap();
    assert_eq!(leaf(&directory), None);
    fs::remove_file(&list).unwrap();
    assert_eq!(leaf(&directory), None);
}

#[test]
fn a_missing_file_is_named() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("bundle");
    PARTS.write(&directory).unwrap();
    assert!(matches!(PARTS.write(&directory), Err(BundleError::TargetExists(_))));
    fs::remove_file(directory.join(TOKENIZER_FILE)).unwrap();
    let error = Bundle::open(&directory).unwrap_err().to_string();
    assert!(error.contains("tokenizer.json"), "{error}");
    fs::create_dir(directory.join(TOKENIZER_FILE)).unwrap();
    assert!(matches!(Bundle::open(&directory), Err(BundleError::Io { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_flipped_bit_is_always_refused(file in 0usize..3, at: prop::sample::Index, bit in 0u32..8) {
        let mut parts = PARTS.clone();
        let bytes = [&mut parts.manifest, &mut parts.weights, &mut parts.tokenizer].into_iter().nth(file).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        // A flip in the manifest may spell another valid name: then it is another model, never this one.
        let same = from_parts(parts).is_ok_and(|bundle| bundle.id() == PARTS.id());
        prop_assert!(!same);
    }

    #[test]
    fn a_cut_file_is_always_refused(file in 0usize..3, at: prop::sample::Index) {
        let mut parts = PARTS.clone();
        let bytes = [&mut parts.manifest, &mut parts.weights, &mut parts.tokenizer].into_iter().nth(file).unwrap();
        bytes.truncate(at.index(bytes.len()));
        prop_assert!(from_parts(parts).is_err());
    }

    #[test]
    fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), at: prop::sample::Index, byte: u8) {
        prop_assert!(Manifest::decode(&bytes).is_err());
        // Weights that their manifest commits to, with a broken header.
        let header = u64::from_le_bytes(PARTS.weights[..8].try_into().unwrap()) as usize;
        let mut weights = PARTS.weights.clone();
        weights[8 + at.index(header)] = byte;
        for weights in [bytes, weights] {
            let manifest = changed_manifest(|m| {
                m["files"][1]["length"] = weights.len().into();
                m["files"][1]["root"] = merkle::root(&weights).to_string().into();
            });
            drop(from_parts(BundleParts { manifest, weights, tokenizer: PARTS.tokenizer.clone() }));
        }
    }
}

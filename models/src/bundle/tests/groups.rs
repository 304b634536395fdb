//! Bundles whose weights have groups.

use super::*;
use crate::import::{Options, ProgressBar, Source, convert};

static GROUPED: LazyLock<BundleParts> = LazyLock::new(|| {
    let place = tempfile::tempdir().unwrap();
    // The last group of `down` has four inputs.
    Fixture { layers: 1, intermediate: 100, ..Fixture::default() }.write(place.path()).unwrap();
    let options = Options { name: Some("fixture".into()), group_scales: true, ..Options::default() };
    convert(&Source::HuggingFace(place.path().to_owned()), &options, &ProgressBar::hidden()).unwrap()
});

type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// The weights after a change of their tensors, under a manifest that commits to them.
fn changed(change: impl Fn(&mut Tensors), manifest: impl Fn(&mut Value)) -> Result<Bundle, BundleError> {
    let mut tensors: Tensors = SafeTensors::deserialize(&GROUPED.weights)
        .unwrap()
        .iter()
        .map(|(name, t)| (name.to_owned(), (t.dtype(), t.shape().to_vec(), t.data().to_vec())))
        .collect();
    change(&mut tensors);
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        (name.clone(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    let weights = safetensors::serialize(views, None).unwrap();
    let mut value: Value = serde_json::from_slice(&GROUPED.manifest).unwrap();
    value["files"][1]["length"] = weights.len().into();
    value["files"][1]["root"] = merkle::root(&weights).to_string().into();
    manifest(&mut value);
    from_parts(BundleParts { manifest: canonical(&value), weights, tokenizer: GROUPED.tokenizer.clone() })
}

#[track_caller]
fn refused(change: impl Fn(&mut Tensors), message: &str) {
    let error = changed(change, |_| {}).unwrap_err().to_string();
    assert!(error.contains(message), "{error} does not say {message:?}");
}

#[test]
fn every_matrix_has_a_multiplier_for_each_group() {
    let bundle = changed(|_| {}, |_| {}).unwrap();
    assert_eq!(bundle.manifest().formats, Formats::grouped());
    assert!(bundle.manifest().formats.has_groups() && !Formats::default().has_groups());
    for (name, shape) in [("embedding", [300, 64]), ("layers.0.key", [32, 64]), ("layers.0.down", [64, 100])]
    {
        let matrix = bundle.linear(name).unwrap();
        assert_eq!([matrix.outputs, matrix.inputs], shape, "{name}");
        assert_eq!(matrix.groups.unwrap().len(), shape[0] * shape[1].div_ceil(32), "{name}");
        matrix.weights().check().unwrap();
    }
    assert_eq!(from_parts(PARTS.clone()).unwrap().linear("embedding").unwrap().groups, None);
}

#[test]
fn multipliers_are_exactly_those_of_the_shapes_and_never_zero() {
    let name = "layers.0.down.multiplier";
    refused(|t| drop(t.remove(name)), "no tensor `layers.0.down.multiplier`");
    refused(|t| t.get_mut(name).unwrap().2[5] = 0, "element 5");
    refused(|t| t.get_mut(name).unwrap().2[5] = 0, "multiplier must be within 1 ..= 255");
    refused(|t| t.get_mut(name).unwrap().1 = vec![4, 64], "need U8 [64, 4]");
    refused(|t| t.get_mut(name).unwrap().0 = Dtype::I8, "I8 [64, 4]");
    refused(|t| *t.get_mut(name).unwrap() = (Dtype::U8, vec![64, 3], vec![1; 192]), "need U8 [64, 4]");
}

#[test]
fn the_manifest_says_whether_there_are_groups() {
    let plain = |m: &mut Value| m["formats"]["weights"] = "int8-per-channel".into();
    let error = changed(|_| {}, plain).unwrap_err();
    assert!(matches!(&error, BundleError::UnknownTensor(name) if name.ends_with(".multiplier")), "{error}");
    manifest_refused(|m| m["formats"]["weights"] = "int8-per-group-of-64".into(), "formats");
    let mut value: Value = serde_json::from_slice(&PARTS.manifest).unwrap();
    value["formats"]["weights"] = "int8-per-group-of-32".into();
    let error = from_parts(BundleParts { manifest: canonical(&value), ..PARTS.clone() }).unwrap_err();
    assert!(matches!(&error, BundleError::MissingTensor(name) if name.ends_with(".multiplier")), "{error}");
    // The same weights are another model.
    assert_ne!(GROUPED.id(), PARTS.id());
}

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use proptest::prelude::*;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::bundle::Matrix;
use crate::fixture::Fixture;

/// The real checkpoint of the fixtures, or `None` with a line that says so.
pub(crate) fn stories260k() -> Option<Source> {
    let root = std::env::var_os("METISVM_FIXTURES").map(PathBuf::from);
    // Cargo runs tests in their crate's folder; a relative path means relative to the workspace.
    let folder = root
        .map(|root| Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(root).join("models/stories260K"));
    let Some(folder) = folder.filter(|folder| folder.exists()) else {
        // Past the test runner's capture: a skipped test must not look like one that ran.
        let _ = writeln!(std::io::stderr(), "skipped: fixtures not found (set METISVM_FIXTURES)");
        return None;
    };
    let (checkpoint, tokenizer) = (folder.join("stories260K.bin"), folder.join("tok512.bin"));
    Some(Source::Llama2c { checkpoint, tokenizer })
}

fn convert_quietly(source: &Source) -> Result<BundleParts, ImportError> {
    convert(source, &Options::default(), &ProgressBar::hidden())
}

/// A fixture in a folder of its own, whose name can be a model's name.
fn folder(fixture: &Fixture) -> (TempDir, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("fixture");
    fixture.write(&folder).unwrap();
    (place, folder)
}

fn dequantised(matrix: &Matrix<'_>) -> Vec<f64> {
    let value = |(i, byte): (usize, &u8)| {
        let scale = matrix.scales[i / matrix.inputs];
        f64::from((byte ^ 0x80) as i8) * scaled(scale.mantissa(), scale.exponent())
    };
    matrix.bytes.iter().enumerate().map(value).collect()
}

fn scaled(mantissa: u32, exponent: i32) -> f64 {
    f64::from(mantissa) * 2f64.powi(exponent)
}

#[test]
fn stories260k_has_one_identity() {
    let Some(source) = stories260k() else { return };
    let parts = convert_quietly(&source).unwrap();
    assert_eq!(
        parts.id().to_string(),
        "0x67e4cc8010d978d31effd8390343d0625df8b7200026bb845c0a2926f77b7562",
        "{}",
        String::from_utf8_lossy(&parts.manifest)
    );
}

#[test]
fn a_checkpoint_gives_the_same_bytes_every_time() {
    for tied in [true, false] {
        let fixture = Fixture { tied, ..Fixture::default() };
        let (one, two) = (folder(&fixture), folder(&fixture));
        let convert =
            |folder: &(TempDir, PathBuf)| convert_quietly(&Source::HuggingFace(folder.1.clone())).unwrap();
        let (one, two) = (convert(&one), convert(&two));
        assert_eq!(one.manifest, two.manifest);
        assert_eq!(one.weights, two.weights);
        assert_eq!(one.tokenizer, two.tokenizer);
        let bundle = one.into_bundle().unwrap();
        assert_eq!(bundle.manifest().tied_embeddings, tied);
        assert_eq!(bundle.linear("head").unwrap().outputs, fixture.vocabulary);
    }
}

#[test]
fn weights_survive_within_half_a_step() {
    let (_place, folder) = folder(&Fixture::default());
    let source = Source::HuggingFace(folder);
    let checkpoint = source.open().unwrap();
    let bundle = convert_quietly(&source).unwrap().into_bundle().unwrap();
    let matrix = bundle.linear("layers.1.down").unwrap();
    let original =
        checkpoint.bits("model.layers.1.mlp.down_proj.weight", &[matrix.outputs, matrix.inputs]).unwrap();
    for (i, (found, bits)) in dequantised(&matrix).into_iter().zip(original).enumerate() {
        let (distance, limit) = distance(found, bits, &matrix, i);
        assert!(distance <= limit, "element {i}: off by {distance}, more than {limit}");
    }
}

#[test]
fn weights_with_groups_survive_within_half_a_step_of_their_group() {
    let (_place, folder) = folder(&Fixture { intermediate: 100, ..Fixture::default() });
    let source = Source::HuggingFace(folder);
    let checkpoint = source.open().unwrap();
    let options = Options { group_scales: true, ..Options::default() };
    let bundle = convert(&source, &options, &ProgressBar::hidden()).unwrap().into_bundle().unwrap();
    let matrix = bundle.linear("layers.1.down").unwrap();
    let original =
        checkpoint.bits("model.layers.1.mlp.down_proj.weight", &[matrix.outputs, matrix.inputs]).unwrap();
    for (i, bits) in original.into_iter().enumerate() {
        let (row, group) = (i / matrix.inputs, i % matrix.inputs / 32);
        let multiplier = f64::from(matrix.groups.unwrap()[4 * row + group]);
        let step = multiplier * scaled(matrix.scales[row].mantissa(), matrix.scales[row].exponent());
        let found = f64::from((matrix.bytes[i] ^ 0x80) as i8) * step;
        let distance = (found - f64::from(f32::from_bits(bits))).abs();
        assert!(distance <= 0.500_000_1 * step, "element {i}: off by {distance}, more than half of {step}");
    }
}

fn distance(found: f64, bits: u32, matrix: &Matrix<'_>, element: usize) -> (f64, f64) {
    let scale = matrix.scales[element / matrix.inputs];
    let step = scaled(scale.mantissa(), scale.exponent());
    ((found - f64::from(f32::from_bits(bits))).abs(), 0.500_1 * step)
}

#[test]
fn half_precision_is_read_exactly() {
    // Numbers of 8 significant bits between 1/8 and 2 are the same in all three types: so is the model.
    let (_place, folder) = folder(&Fixture::default());
    let path = folder.join("model.safetensors");
    let file = fs::read(&path).unwrap();
    let rewrite = |dtype: Dtype| {
        let store = |bytes: &[u8; 4]| -> Vec<u8> {
            let bf16 = u16::from_le_bytes([bytes[2], bytes[3]]);
            let (sign, exponent, fraction) = (bf16 >> 15, bf16 >> 7 & 0xff, bf16 & 0x7f);
            match dtype {
                Dtype::F16 => (sign << 15 | (exponent + 15 - 127) << 10 | fraction << 3).to_le_bytes().into(),
                Dtype::BF16 => bf16.to_le_bytes().into(),
                _ => [[0, 0], bf16.to_le_bytes()].concat(),
            }
        };
        let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
        let stored: HashMap<String, (Vec<usize>, Vec<u8>)> = tensors
            .iter()
            .map(|(name, t)| {
                (
                    name.to_owned(),
                    (t.shape().to_vec(), t.data().as_chunks().0.iter().flat_map(store).collect()),
                )
            })
            .collect();
        let views = stored.iter().map(|(name, (shape, bytes))| {
            (name.clone(), TensorView::new(dtype, shape.clone(), bytes).unwrap())
        });
        fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
        convert_quietly(&Source::HuggingFace(folder.clone())).unwrap().id()
    };
    let ids = [Dtype::F32, Dtype::F16, Dtype::BF16].map(rewrite);
    assert_eq!(ids, [ids[0]; 3]);
}

#[test]
fn shards_are_the_same_model_as_one_file() {
    let (_place, folder) = folder(&Fixture::default());
    let source = Source::HuggingFace(folder.clone());
    let whole = convert_quietly(&source).unwrap().id();
    let file = fs::read(folder.join("model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
    let mut map = HashMap::new();
    for shard in 0..2 {
        let name = format!("model-{shard}.safetensors");
        let views: Vec<_> = tensors.iter().filter(|(n, _)| n.len() % 2 == shard).collect();
        views.iter().for_each(|(tensor, _)| drop(map.insert((*tensor).to_owned(), name.clone())));
        fs::write(folder.join(&name), safetensors::serialize(views, None).unwrap()).unwrap();
    }
    fs::remove_file(folder.join("model.safetensors")).unwrap();
    let index = serde_json::json!({"metadata": {}, "weight_map": map});
    fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
    assert_eq!(convert_quietly(&source).unwrap().id(), whole);
}

#[test]
fn an_import_appears_complete_or_not_at_all() {
    let (place, folder) = folder(&Fixture::default());
    let target = place.path().join("models/bundle");
    let source = Source::HuggingFace(folder.clone());
    let run = || import(&source, &target, &Options::default(), &ProgressBar::hidden());
    let imported = run().unwrap();
    assert_eq!(imported.id, convert_quietly(&source).unwrap().id());
    assert_eq!(Bundle::open(&target).unwrap().id(), imported.id);
    assert!(matches!(run(), Err(ImportError::Bundle(BundleError::TargetExists(_)))));

    fs::write(folder.join("tokenizer.json"), "{}").unwrap();
    let failed = place.path().join("failed");
    import(&source, &failed, &Options::default(), &ProgressBar::hidden()).unwrap_err();
    let left: Vec<_> = [place.path(), target.parent().unwrap()]
        .iter()
        .flat_map(|place| fs::read_dir(place).unwrap())
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(left.iter().all(|name| ["fixture", "models", "bundle"].contains(&name.as_str())), "{left:?}");
}

#[test]
fn the_author_names_the_model_and_may_shorten_its_context() {
    let (_place, folder) = folder(&Fixture::default());
    let source = Source::HuggingFace(folder);
    let convert = |name: &str, context| {
        let options = Options { name: Some(name.into()), context, ..Options::default() };
        convert(&source, &options, &ProgressBar::hidden()).map(|parts| parts.into_bundle().unwrap())
    };
    let bundle = convert("other", Some(32)).unwrap();
    assert_eq!((bundle.manifest().name.as_str(), bundle.manifest().context), ("other", 32));
    assert!(matches!(convert("other", Some(129)), Err(ImportError::Context { wanted: 129, trained: 128 })));
    assert!(matches!(convert("no spaces", None), Err(ImportError::Name(_))));
}

/// Imports the fixture with a changed `config.json` and expects a refusal that says `message`.
fn refused(change: impl Fn(&mut Value), message: &str) {
    let (_place, folder) = folder(&Fixture::default());
    let mut config = Fixture::default().config();
    change(&mut config);
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let error = convert_quietly(&Source::HuggingFace(folder)).unwrap_err().to_string();
    assert!(error.contains(message), "{error:?} does not say {message:?}");
}

#[test]
fn what_is_not_this_architecture_is_refused_by_name() {
    refused(|c| c["model_type"] = "mamba".into(), "mamba");
    refused(
        |c| c["architectures"] = serde_json::json!(["LlamaForSequenceClassification"]),
        "LlamaForSequenceClassification",
    );
    refused(|c| c["rope_scaling"] = serde_json::json!({"rope_type": "llama3"}), "factor");
    refused(
        |c| c["rope_scaling"] = serde_json::json!({"type": "dynamic", "factor": 2.0}),
        "rope_scaling dynamic",
    );
    refused(|c| c["sliding_window"] = 64.into(), "sliding_window");
    refused(|c| c["rope_parameters"] = serde_json::json!({"rope_type": "yarn"}), "yarn");
    refused(|c| c["rope_parameters"] = serde_json::json!({"type": "linear"}), "factor");
    refused(
        |c| c["rope_parameters"] = serde_json::json!({"partial_rotary_factor": 0.5}),
        "partial_rotary_factor",
    );
    refused(|c| c["vocab_size"] = serde_json::json!(1u64 << 62), "vocabulary");
    refused(|c| c["head_dim"] = serde_json::json!(1u64 << 40), "head dimension");
    refused(|c| c["max_position_embeddings"] = serde_json::json!(1u64 << 60), "context");
    refused(|c| c["attention_bias"] = true.into(), "attention_bias");
    refused(|c| c["mlp_bias"] = true.into(), "mlp_bias");
    refused(|c| c["hidden_act"] = "gelu".into(), "gelu");
    refused(|c| c["rope_theta"] = 10_000.5.into(), "whole number");
    refused(|c| c["rms_norm_eps"] = 2.5.into(), "rms_norm_eps");
    refused(|c| c["num_key_value_heads"] = 3.into(), "cannot share");
    refused(|c| c["num_hidden_layers"] = 1_000_000.into(), "layers");
    refused(|c| c["vocab_size"] = 301.into(), "[301, 64]");
    refused(|c| c["intermediate_size"] = 97.into(), "[97, 64]");
    refused(|c| c["num_hidden_layers"] = 3.into(), "model.layers.2.");
    refused(|c| c["num_hidden_layers"] = 1.into(), "model.layers.1.");
    refused(|c| c["tie_word_embeddings"] = false.into(), "lm_head.weight");
    refused(|c| c["vocab_size"] = 100.into(), "vocabulary");
    refused(|c| drop(c.as_object_mut().unwrap().remove("hidden_size")), "hidden_size");
}

#[test]
fn numbers_that_are_not_finite_are_named() {
    let (_place, folder) = folder(&Fixture::default());
    let path = folder.join("model.safetensors");
    let mut file = fs::read(&path).unwrap();
    // The last element of the tensor whose name is last.
    file.splice(file.len() - 4.., f32::NAN.to_le_bytes());
    fs::write(&path, file).unwrap();
    let error = convert_quietly(&Source::HuggingFace(folder)).unwrap_err();
    assert_eq!(error.to_string(), "tensor `model.norm.weight`, row 0: element 63 is not finite");
}

#[test]
fn damaged_llama2c_files_are_refused() {
    let Some(Source::Llama2c { checkpoint, tokenizer }) = stories260k() else { return };
    let place = tempfile::tempdir().unwrap();
    let copy = place.path().join("model.bin");
    let bytes = fs::read(&checkpoint).unwrap();
    let refused = |bytes: &[u8], message: &str| {
        fs::write(&copy, bytes).unwrap();
        let source = Source::detect(&copy, Some(&tokenizer)).unwrap();
        let error = convert_quietly(&source).unwrap_err().to_string();
        assert!(error.contains(message), "{error:?} does not say {message:?}");
    };
    refused(&bytes[..20], "shorter than its header");
    refused(&bytes[..bytes.len() - 1], "the header needs");
    refused(&[b"24ka".as_slice(), &bytes[4..]].concat(), "versioned");
    refused(&[[0xff; 28].as_slice(), &bytes[28..]].concat(), "is this a llama2.c checkpoint");

    let source = Source::Llama2c { checkpoint, tokenizer: copy.clone() };
    let pieces = fs::read(&tokenizer).unwrap();
    for (bytes, message) in
        [(&pieces[..pieces.len() - 1], "ends inside token 511"), (&[&pieces[..], &[0]].concat(), "more than")]
    {
        fs::write(&copy, bytes).unwrap();
        let error = convert_quietly(&source).unwrap_err().to_string();
        assert!(error.contains(message), "{error:?} does not say {message:?}");
    }
}

#[test]
fn rotary_rows_are_a_permutation_of_each_head() {
    for head_dim in [2, 8, 64] {
        let rows = 3 * head_dim;
        let mut sources: Vec<usize> =
            (0..rows).map(|r| RotaryPairs::Neighbours.source_row(r, head_dim)).collect();
        // Pair i of a head: rows i and i + head_dim / 2 of the bundle, 2i and 2i + 1 of the checkpoint.
        for (row, &source) in sources.iter().enumerate() {
            let (head, channel) = (row / head_dim, row % head_dim);
            assert_eq!(source / head_dim, head);
            assert_eq!(source % head_dim / 2, channel % (head_dim / 2));
            assert_eq!(source % 2, channel / (head_dim / 2));
        }
        sources.sort_unstable();
        assert!(sources.into_iter().eq(0..rows));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn foreign_files_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..2_000) {
        let (_place, folder) = folder(&Fixture::default());
        let weights = fs::read(folder.join("model.safetensors")).unwrap();
        for file in ["config.json", "model.safetensors", "tokenizer.json"] {
            let original = fs::read(folder.join(file)).unwrap();
            fs::write(folder.join(file), &bytes).unwrap();
            prop_assert!(convert_quietly(&Source::HuggingFace(folder.clone())).is_err());
            fs::write(folder.join(file), &original[..cut.min(original.len() - 1)]).unwrap();
            prop_assert!(convert_quietly(&Source::HuggingFace(folder.clone())).is_err());
            fs::write(folder.join(file), original).unwrap();
        }
        let path = folder.join("model.bin");
        fs::write(&path, [&bytes, &weights[..cut]].concat()).unwrap();
        let source = Source::Llama2c { checkpoint: path.clone(), tokenizer: path };
        prop_assert!(convert_quietly(&source).is_err());
    }
}

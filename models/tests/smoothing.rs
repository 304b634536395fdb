//! Claims about calibrated imports: the same model, closer to the float checkpoint, the same bytes everywhere.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]
#![allow(clippy::float_arithmetic, reason = "tests compare with float models")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use metis_kernels::TokenId;
use metis_models::Bundle;
use metis_models::engine::{BackendChoice, EngineOptions, Processor};
use metis_models::eval::{EvalReport, evaluate};
use metis_models::fixture::{FamilyFixture, families};
use metis_models::import::smoothing::{Calibrated, CalibrationError, Inputs, import_calibrated};
use metis_models::import::{Options, ProgressBar, Source, convert};
use metis_models::reference::Reference;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

const TEXT: &str = "Once upon a time, there was a little girl named Lily. She loved to play outside in the sun. \
    One day, she saw a big red ball in the park. She ran to the ball and kicked it very high. The ball went over the \
    fence and Lily was sad. Her friend Tom came to help. Do not be sad, said Tom. We can get the ball together.";

/// A checkpoint of a family in a folder of its own.
struct Checkpoint {
    place: tempfile::TempDir,
    source: Source,
}

impl Checkpoint {
    fn new(name: &str, outliers: bool) -> Self {
        let (_, fixture) = families().into_iter().find(|(family, _)| *family == name).unwrap();
        Self::of(&fixture, outliers)
    }

    fn of(fixture: &FamilyFixture, outliers: bool) -> Self {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("checkpoint");
        fixture.write(&folder).unwrap();
        if outliers {
            let is_gemma = fixture.config["model_type"].as_str().unwrap().starts_with("gemma");
            add_outliers(&folder, is_gemma);
        }
        Self { place, source: Source::HuggingFace(folder) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn calibrate(&self, target: &str, choice: BackendChoice, threads: usize) -> Calibrated {
        let processor = Processor::new(choice, threads).unwrap();
        let progress = |_| ProgressBar::hidden();
        let (target, options) = (self.path(target), Options::default());
        import_calibrated(&self.source, &target, &options, TEXT.as_bytes(), &processor, &progress).unwrap()
    }

    fn evaluate(&self, bundle: &Bundle, tokens: &[TokenId]) -> EvalReport {
        let processor = Processor::new(BackendChoice::Scalar, 1).unwrap();
        let model = processor.load(bundle, EngineOptions::default()).unwrap();
        let mut reference = Reference::load(&self.source).unwrap();
        let bos = bundle.manifest().bos.first().copied().map(TokenId);
        let window = bundle.manifest().context;
        evaluate(&mut |window| model.all_logits(window), &mut reference, tokens, bos, window).unwrap()
    }
}

/// Trained models have a few channels that are much louder than the others, and others with weights much larger than their
/// neighbours.
fn add_outliers(folder: &Path, is_gemma: bool) {
    let path = folder.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let tensors: BTreeMap<String, (Vec<usize>, Vec<u8>)> = SafeTensors::deserialize(&bytes)
        .unwrap()
        .iter()
        .map(|(name, tensor)| {
            let mut values: Vec<f32> =
                tensor.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            let (is_gain, is_layer) = (name.contains("layernorm.weight"), name.contains("layers."));
            let columns = tensor.shape()[tensor.shape().len() - 1];
            // Gemma stores gains less one.
            let one = if is_gemma { 1.0 } else { 0.0 };
            for (i, value) in values.iter_mut().enumerate() {
                match i % columns {
                    3 | 17 if is_gain => *value = 12.0 * (*value + one) - one,
                    // Inputs that are almost silent, with large weights.
                    8 | 40 if is_gain => *value = 0.05 * (*value + one) - one,
                    8 | 40 if is_layer => *value *= 10.0,
                    _ => {}
                }
            }
            let bytes = values.into_iter().flat_map(f32::to_le_bytes).collect();
            (name.to_owned(), (tensor.shape().to_vec(), bytes))
        })
        .collect();
    let views = tensors
        .iter()
        .map(|(name, (shape, bytes))| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

#[test]
fn a_model_with_outliers_comes_much_closer_to_the_float_model() {
    for family in ["llama3", "qwen2", "gemma"] {
        let checkpoint = Checkpoint::new(family, true);
        let calibrated = checkpoint.calibrate("bundle", BackendChoice::Auto, 1);
        let before = checkpoint.evaluate(&calibrated.plain, &calibrated.tokens);
        let smoothed = Bundle::open(&calibrated.imported.directory).unwrap();
        let after = checkpoint.evaluate(&smoothed, &calibrated.tokens);
        println!("{family}: KL {:.2e} -> {:.2e}; {:?}", before.kl, after.kl, calibrated.places);
        assert!(after.kl < before.kl / 2.0, "{family}: {before} -> {after}");
        assert_ne!(smoothed.id(), calibrated.plain.id());
    }
}

#[test]
fn the_bytes_depend_on_neither_instructions_nor_threads() {
    for family in ["qwen3", "gpt2", "bert"] {
        let checkpoint = Checkpoint::new(family, true);
        let of = |calibrated: &Calibrated| {
            let file = |name: &str| fs::read(calibrated.imported.directory.join(name)).unwrap();
            (file("manifest.json"), file("weights.safetensors"), calibrated.places.clone())
        };
        let scalar = of(&checkpoint.calibrate("scalar", BackendChoice::Scalar, 1));
        assert!(scalar.2.iter().any(|place| place.alpha_quarters > 0), "{family}: {:?}", scalar.2);
        for (target, choice, threads) in [
            ("auto", BackendChoice::Auto, 1),
            ("scalar two", BackendChoice::Scalar, 2),
            ("two", BackendChoice::Auto, 2),
        ] {
            // The folder's name is the model's unless it is given: the source's, not the target's.
            assert_eq!(of(&checkpoint.calibrate(target, choice, threads)), scalar, "{family}: {target}");
        }
    }
}

#[test]
fn the_plain_bundle_is_that_of_a_plain_import() {
    let checkpoint = Checkpoint::new("llama3", true);
    let calibrated = checkpoint.calibrate("bundle", BackendChoice::Auto, 1);
    let plain = convert(&checkpoint.source, &Options::default(), &ProgressBar::hidden()).unwrap();
    assert_eq!(calibrated.plain.id(), plain.id());
}

#[test]
fn an_encoder_is_smoothed_where_the_residual_stream_does_not_read() {
    let checkpoint = Checkpoint::new("bert", false);
    let calibrated = checkpoint.calibrate("bundle", BackendChoice::Auto, 1);
    assert!(calibrated.places.iter().all(|place| place.inputs == Inputs::Output));
    let left_out: Vec<Inputs> = calibrated.left_out().into_iter().map(|(inputs, _)| inputs).collect();
    assert_eq!(left_out, [Inputs::Attention, Inputs::Mlp, Inputs::Down]);
    let smoothed = Bundle::open(&calibrated.imported.directory).unwrap();
    let processor = Processor::new(BackendChoice::Scalar, 1).unwrap();
    let model = processor.load(&smoothed, EngineOptions::default()).unwrap();
    let tokens = &calibrated.tokens[..40];
    let fixed: Vec<f64> = model.embed(tokens).unwrap().into_iter().map(f64::from).collect();
    let float: Vec<f64> = Reference::load(&checkpoint.source)
        .unwrap()
        .embed(tokens)
        .unwrap()
        .into_iter()
        .map(f64::from)
        .collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let cosine = dot(&fixed, &float) / (dot(&fixed, &fixed) * dot(&float, &float)).sqrt();
    assert!(cosine > 0.999, "{cosine}");
}

#[test]
fn a_text_that_says_too_little_is_refused_before_anything_is_written() {
    let checkpoint = Checkpoint::new("llama3", false);
    let processor = Processor::new(BackendChoice::Scalar, 1).unwrap();
    for text in ["", "a", "too short"] {
        let target = checkpoint.path("bundle");
        let error = import_calibrated(
            &checkpoint.source,
            &target,
            &Options::default(),
            text.as_bytes(),
            &processor,
            &|_| ProgressBar::hidden(),
        )
        .unwrap_err();
        assert!(matches!(error, CalibrationError::TooShort { .. }), "{text}: {error}");
        assert!(!target.exists());
    }
}

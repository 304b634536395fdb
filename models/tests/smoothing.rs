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
use metis_models::import::{ImportError, Options, ProgressBar, Source, convert};
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
fn zz_experiment() {
    let root = PathBuf::from(std::env::var("METISVM_FIXTURES").unwrap()).join("models/stories260K");
    let place = tempfile::tempdir().unwrap();
    let source =
        Source::Llama2c { checkpoint: root.join("stories260K.bin"), tokenizer: root.join("tok512.bin") };
    let checkpoint = Checkpoint { place, source };
    let text = std::env::var("TEXT").map_or(TEXT.as_bytes().to_vec(), |path| fs::read(path).unwrap());
    let held = std::env::var("HELD").map_or(TEXT.as_bytes().to_vec(), |path| fs::read(path).unwrap());
    let processor = Processor::new(BackendChoice::Auto, 1).unwrap();
    let calibrated = import_calibrated(
        &checkpoint.source,
        &checkpoint.path("b"),
        &Options::default(),
        &text,
        &processor,
        &|_| ProgressBar::hidden(),
    )
    .unwrap();
    for place in &calibrated.places {
        println!("{place:?}");
    }
    let smoothed = Bundle::open(&calibrated.imported.directory).unwrap();
    println!(
        "own: {}\n  -> {}",
        checkpoint.evaluate(&calibrated.plain, &calibrated.tokens),
        checkpoint.evaluate(&smoothed, &calibrated.tokens)
    );
    let tokens = smoothed.tokenizer().unwrap().encode_continuation(&held).unwrap();
    println!(
        "held: {}\n  -> {}",
        checkpoint.evaluate(&calibrated.plain, &tokens),
        checkpoint.evaluate(&smoothed, &tokens)
    );
}

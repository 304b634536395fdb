//! Claims about single parts in fixed point: the mixed model is candle's float model, and what its parts cost is what the whole costs.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]
#![allow(clippy::float_arithmetic, reason = "tests compare with float models")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use metis_kernels::{Cpu, Scalar, TokenId};
use metis_models::candle::{FixedError, MixedLlama, Part};
use metis_models::engine::{Engine, InferenceModel};
use metis_models::eval::{EvalError, PartsReport, evaluate, evaluate_parts};
use metis_models::fixture::{FamilyFixture, Fixture, GgmlDType, families};
use metis_models::import::{Options, ProgressBar, Source, convert};
use metis_models::reference::Reference;
use metis_models::{Bundle, InferenceError};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use tempfile::TempDir;

fn tokens(count: usize, seed: u32) -> Vec<TokenId> {
    (0..count as u32)
        .map(|i| TokenId((i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 9) % 300))
        .collect()
}

/// The families whose parts can be replaced, each in a folder.
fn decoders() -> Vec<(&'static str, TempDir, Source)> {
    let llamas = families().into_iter().filter(|(name, fixture)| !fixture.is_encoder() && *name != "gpt2");
    llamas.map(written).collect()
}

fn written((name, fixture): (&'static str, FamilyFixture)) -> (&'static str, TempDir, Source) {
    let place = tempfile::tempdir().unwrap();
    fixture.write(place.path()).unwrap();
    let source = Source::HuggingFace(place.path().to_owned());
    (name, place, source)
}

fn bundle(source: &Source) -> Bundle {
    let options = Options { name: Some("parts".into()), ..Options::default() };
    convert(source, &options, &ProgressBar::hidden()).unwrap().into_bundle().unwrap()
}

fn mixed(source: &Source) -> MixedLlama<Scalar> {
    MixedLlama::load(source, &bundle(source), &Arc::new(Scalar::new())).unwrap()
}

fn engine(source: &Source) -> Engine<Scalar> {
    Engine::load(&bundle(source), Arc::new(Scalar::new())).unwrap()
}

fn costs(source: &Source) -> PartsReport {
    let (engine, model) = (engine(source), mixed(source));
    let hidden = ProgressBar::hidden();
    evaluate_parts(&mut |window| engine.all_logits(window), &model, &tokens(60, 5), None, 30, &hidden)
        .unwrap()
}

fn worst(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    assert_eq!((a.len(), a[0].len()), (b.len(), b[0].len()));
    a.iter().flatten().zip(b.iter().flatten()).fold(0.0, |worst, (a, b)| worst.max((a - b).abs()))
}

#[test]
fn without_a_fixed_part_it_is_candle_s_float_model() {
    let tokens = tokens(70, 11);
    for (name, _place, source) in decoders() {
        let logits = mixed(&source).logits(&tokens, &[]).unwrap().to_vec2().unwrap();
        let candle = Reference::load(&source).unwrap().logits(&tokens).unwrap();
        let worst = worst(&logits, &candle);
        println!("{name}: {worst:.1e}");
        assert!(worst < 1e-4, "{name}: {worst}");
    }
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("fixture.gguf");
    std::fs::write(&path, Fixture::default().gguf(GgmlDType::Q8_0).unwrap()).unwrap();
    let source = Source::Gguf(path);
    let logits = mixed(&source).logits(&tokens, &[]).unwrap().to_vec2().unwrap();
    let worst = worst(&logits, &Reference::load(&source).unwrap().logits(&tokens).unwrap());
    assert!(worst < 2e-3, "neighbouring pairs: {worst}");
}

#[test]
fn with_all_parts_fixed_it_is_almost_the_engine() {
    let tokens = tokens(50, 3);
    for (name, _place, source) in decoders() {
        let model = mixed(&source);
        let engine = engine(&source).all_logits(&tokens).unwrap();
        let engine: Vec<Vec<f32>> =
            engine.iter().map(|row| row.iter().map(|&x| x as f32 / 65_536.0).collect()).collect();
        let float = model.logits(&tokens, &[]).unwrap().to_vec2().unwrap();
        let all = model.logits(&tokens, &model.parts()).unwrap().to_vec2().unwrap();
        let (glue, whole) = (worst(&all, &engine), worst(&float, &engine));
        println!("{name}: all parts {glue:.1e} from the engine, floats {whole:.1e}");
        assert!(glue < 0.2 * whole, "{name}: {glue} {whole}");
    }
}

#[test]
fn all_parts_together_cost_what_the_engine_costs() {
    for (name, _place, source) in decoders() {
        let (model, engine, text) = (mixed(&source), engine(&source), tokens(120, 8));
        let mut reference = Reference::load(&source).unwrap();
        let mut all = |window: &[TokenId]| {
            let logits = model.logits(window, &model.parts())?.to_vec2::<f32>()?;
            let q16 = |row: Vec<f32>| row.into_iter().map(|x| (x * 65_536.0).round() as i32).collect();
            Ok::<_, FixedError>(logits.into_iter().map(q16).collect())
        };
        let parts = evaluate(&mut all, &mut reference, &text, None, 40).unwrap();
        let whole =
            evaluate(&mut |window| engine.all_logits(window), &mut reference, &text, None, 40).unwrap();
        println!("{name}: all parts {parts}; the engine {whole}");
        assert!((0.9..1.1).contains(&(parts.kl / whole.kl)), "{name}: {parts}; {whole}");
    }
}

#[test]
fn what_the_parts_cost_is_of_the_order_of_what_the_whole_costs() {
    for (name, _place, source) in decoders() {
        let report = costs(&source);
        let layers = report.parts.iter().filter_map(|part| part.part.layer()).max().unwrap() + 1;
        assert_eq!(report.parts.len(), 2 * layers + 2, "{name}");
        assert!(report.parts.iter().all(|part| part.report.kl > 0.0 && part.report.tokens == 58), "{name}");
        let ratio = report.sum_of_kl() / report.whole.kl;
        println!("{name}: the parts' sum is {ratio:.2} of the whole\n{report}");
        assert!((0.5..2.0).contains(&ratio), "{name}: {ratio}");
    }
}

/// Weights that are a power of two times `-127 ..= 127`, with 127 in every row, are int8 already.
fn made_exact(folder: &Path, layer: &str) {
    let path = folder.join("model.safetensors");
    let file = std::fs::read(&path).unwrap();
    let old = SafeTensors::deserialize(&file).unwrap();
    let changed: Vec<(String, Vec<usize>, Vec<u8>)> = old
        .iter()
        .map(|(name, view)| {
            let exact = name.contains(layer) && view.shape().len() == 2;
            let number = |(i, bytes): (usize, &[u8])| {
                let x = f32::from_le_bytes(bytes.try_into().unwrap());
                let first = i % view.shape().last().unwrap() == 0;
                let rounded = if first { 127.0 } else { (x * 512.0).round().clamp(-127.0, 127.0) };
                if exact { rounded / 512.0 } else { x }
            };
            let numbers = view.data().chunks_exact(4).enumerate().map(number);
            let data = numbers.flat_map(f32::to_le_bytes).collect();
            (name.to_owned(), view.shape().to_vec(), data)
        })
        .collect();
    let views = changed.iter().map(|(name, shape, data)| {
        (name, TensorView::new(safetensors::Dtype::F32, shape.clone(), data).unwrap())
    });
    let new = safetensors::serialize(views, None).unwrap();
    std::fs::write(path, new).unwrap();
}

#[test]
fn an_mlp_whose_weights_are_int8_already_costs_almost_nothing() {
    let (_, place, source) = written(families().swap_remove(1));
    let of = |report: &PartsReport, part: Part| {
        report.parts.iter().find(|line| line.part == part).unwrap().report.kl
    };
    let before = costs(&source);
    made_exact(place.path(), "layers.1.mlp");
    let after = costs(&source);
    println!("{before}\n{after}");
    assert!(of(&after, Part::Mlp(1)) < 1e-3 * of(&after, Part::Mlp(0)), "{after}");
    assert!(of(&before, Part::Mlp(1)) > 0.05 * of(&before, Part::Mlp(0)), "{before}");
}

#[test]
fn a_real_model_s_parts_are_cheap() {
    let root = std::env::var_os("METISVM_FIXTURES").map(PathBuf::from);
    // Cargo runs tests in their crate's folder; a relative path means relative to the workspace.
    let folder = root
        .map(|root| Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(root).join("models/stories260K"));
    let Some(folder) = folder.filter(|folder| folder.exists()) else {
        println!("skipped: fixtures not found (set METISVM_FIXTURES)");
        return;
    };
    let (checkpoint, tokenizer) = (folder.join("stories260K.bin"), folder.join("tok512.bin"));
    let source = Source::Llama2c { checkpoint, tokenizer };
    let model = MixedLlama::load(&source, &bundle(&source), &Arc::new(Cpu::new(2).unwrap())).unwrap();
    let engine = engine(&source);
    let text = engine
        .tokenizer()
        .encode_prompt(
            b"Once upon a time, there was a little girl named Lily. She loved to play outside in the sun.",
        )
        .unwrap();
    let float = Reference::load(&source).unwrap().logits(&text).unwrap();
    let own = model.logits(&text, &[]).unwrap().to_vec2().unwrap();
    assert!(worst(&float, &own) < 1e-3, "{}", worst(&float, &own));
    let hidden = ProgressBar::hidden();
    let report =
        evaluate_parts(&mut |window| engine.all_logits(window), &model, &text, None, 128, &hidden).unwrap();
    println!("{report}");
    assert!(report.sum_of_kl() < 4e-3 && report.parts.iter().all(|part| part.report.kl < 1e-3), "{report}");
}

#[test]
fn what_cannot_be_done_is_named() {
    for (name, fixture) in families() {
        let (_, _place, source) = written((name, fixture));
        let loaded = MixedLlama::load(&source, &bundle(&source), &Arc::new(Scalar::new()));
        match (name, name.split(' ').next().unwrap()) {
            (_, architecture @ ("gpt2" | "bert")) => {
                let error = loaded.unwrap_err();
                assert!(matches!(error, FixedError::Architecture(found) if found == architecture), "{error}");
                assert!(error.to_string().contains(&format!("`{architecture}`")), "{error}");
            }
            _ => {
                let model = loaded.unwrap();
                assert!(model.logits(&[], &[]).is_err() && model.logits(&[TokenId(300)], &[]).is_err());
                assert!(model.logits(&[TokenId(300)], &[Part::Embedding]).is_err());
                assert!(model.logits(&tokens(model.manifest().context + 1, 0), &[]).is_err());
                let mut none = |_: &[TokenId]| Err::<_, InferenceError>(InferenceError::EmptyPrompt);
                let hidden = ProgressBar::hidden();
                let short = evaluate_parts(&mut none, &model, &tokens(1, 0), None, 16, &hidden);
                assert!(matches!(short, Err(EvalError::TooShort(1))));
                let failed = evaluate_parts(&mut none, &model, &tokens(9, 0), None, 16, &hidden);
                assert!(matches!(failed, Err(EvalError::Fixed(_))));
                let mut narrow =
                    |window: &[TokenId]| Ok::<_, InferenceError>(vec![vec![0; 299]; window.len()]);
                let other = evaluate_parts(&mut narrow, &model, &tokens(9, 0), None, 16, &hidden);
                assert!(matches!(other, Err(EvalError::Mismatch { what: "vocabulary", fixed: 299, .. })));
            }
        }
    }
}

#[test]
fn a_bundle_of_another_checkpoint_is_refused_by_what_differs() {
    let decoders = decoders();
    let of = |name: &str| &decoders.iter().find(|decoder| decoder.0 == name).unwrap().2;
    for (checkpoint, other, differs) in [
        ("gemma", "gemma2", "layers"),
        ("llama3", "qwen2", "tied_embeddings"),
        ("llama3", "qwen3", "head_dim"),
        ("llama3", "mistral", "variant"),
        ("gpt2", "llama3", "architecture"),
    ] {
        let family = families().into_iter().find(|(name, _)| *name == checkpoint).unwrap();
        let (_, _place, source) = written(family);
        let error = MixedLlama::load(&source, &bundle(of(other)), &Arc::new(Scalar::new())).unwrap_err();
        assert!(
            matches!(error, FixedError::OtherCheckpoint { field, .. } if field == differs),
            "{checkpoint} and {other}: {error}"
        );
    }
}

#[test]
fn a_bundle_with_a_shorter_context_is_of_the_same_checkpoint() {
    let (_, _place, source) = decoders().swap_remove(0);
    let options = Options { context: Some(20), ..Options::default() };
    let short = convert(&source, &options, &ProgressBar::hidden()).unwrap().into_bundle().unwrap();
    let model = MixedLlama::load(&source, &short, &Arc::new(Scalar::new())).unwrap();
    assert_eq!(model.manifest().context, 20);
    assert!(model.logits(&tokens(20, 1), &[]).is_ok() && model.logits(&tokens(21, 1), &[]).is_err());
}

//! The second implementation, written in Python from docs/numerics.md alone, recomputes every logit.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use metis_kernels::{Scalar, TokenId};
use metis_models::bundle::BundleParts;
use metis_models::engine::{Engine, InferenceModel, Request};
use metis_models::fixture::{FamilyFixture, families};
use metis_models::import::{Options, ProgressBar, Source, import};
use metis_models::{Bundle, engine::Finish};
use metis_tests::fixtures;
use serde_json::json;

/// `None`, with a line that says so, when there is no python3 to run.
fn python() -> Option<PathBuf> {
    let found = Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        fixtures::skipped("python3 not found");
    }
    found.then(|| "python3".into())
}

/// Compares all logits of a prompt and its greedy answer, as the engine computes them, with the second implementation's.
fn compare(python: &Path, bundle: &Path, prompts: &[&str], max_new: usize) {
    let model = Engine::load(&Bundle::open(bundle).unwrap(), Arc::new(Scalar::new())).unwrap();
    for prompt in prompts {
        let prompt = model.tokenizer().encode_prompt(prompt.as_bytes()).unwrap();
        let request = Request {
            prompt: prompt.clone(),
            max_new,
            sampling: Default::default(),
            stop: vec![],
            constraint: None,
        };
        let answer = model.generate(&request).unwrap();
        assert!(answer.finish == Finish::Eos || answer.tokens.len() == max_new);
        recompute(python, bundle, &positions(&model, &[prompt, answer.tokens].concat()));
    }
}

/// A line of every position of a sequence.
fn positions(model: &dyn InferenceModel, tokens: &[TokenId]) -> String {
    let mut lines = String::new();
    for (position, (token, logits)) in tokens.iter().zip(model.all_logits(tokens).unwrap()).enumerate() {
        let logits = serde_json::to_string(&logits).unwrap();
        writeln!(lines, r#"{{"position":{position},"token":{token},"logits":{logits}}}"#).unwrap();
    }
    lines
}

/// A line of a text that an encoder reads.
fn text(model: &dyn InferenceModel, tokens: &[TokenId]) -> String {
    let ids: Vec<u32> = tokens.iter().map(|token| token.0).collect();
    let mut line = json!({"tokens": ids, "vector": model.embed(tokens).unwrap()});
    if let Ok(classes) = model.classify(tokens) {
        line["classes"] = json!(classes);
    }
    format!("{line}\n")
}

/// Fails unless the second implementation finds every number of these lines.
fn recompute(python: &Path, bundle: &Path, lines: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("logits.jsonl");
    fs::write(&file, lines).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference/logits.py");
    let output = Command::new(python).arg(script).arg(bundle).arg("--compare").arg(&file).output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Compares all numbers of a fixture, imported through `place/checkpoint`.
fn compare_family(python: &Path, fixture: &FamilyFixture, place: &Path) {
    compare_bundle(python, fixture, fixture.bundle(&place.join("checkpoint")).unwrap(), place);
}

/// Compares all numbers of a fixture's bundle, written to `place/bundle`.
fn compare_bundle(python: &Path, fixture: &FamilyFixture, parts: BundleParts, place: &Path) {
    let bundle = place.join("bundle");
    parts.write(&bundle).unwrap();
    let model = Engine::load(&Bundle::open(&bundle).unwrap(), Arc::new(Scalar::new())).unwrap();
    let tokens = |count: u32| -> Vec<TokenId> { (0..count).map(|i| TokenId((i * 89 + 5) % 300)).collect() };
    let lines = match fixture.is_encoder() {
        true => [1, 2, 24].map(|count| text(&model, &tokens(count))).concat(),
        false => positions(&model, &tokens(24)),
    };
    recompute(python, &bundle, &lines);
}

#[test]
fn every_number_of_every_family() {
    let Some(python) = python() else { return };
    for (name, mut fixture) in families() {
        println!("{name}");
        // A window shorter than the sequence, so that something is out of sight, and a divisor that is not the head's width.
        for (field, value) in [("sliding_window", 7), ("query_pre_attn_scalar", 24)] {
            if let Some(number) = fixture.config.get_mut(field) {
                *number = value.into();
            }
        }
        compare_family(&python, &fixture, tempfile::tempdir().unwrap().path());
    }
}

#[test]
fn every_number_of_models_whose_weights_have_groups() {
    let Some(python) = python() else { return };
    for (name, mut fixture) in families() {
        if !["gemma2", "gpt2", "bert classifier"].contains(&name) {
            continue;
        }
        println!("{name}");
        // The last group of each row of `down` has eight inputs.
        if let Some(intermediate) = fixture.config.get_mut("intermediate_size") {
            *intermediate = 104.into();
        }
        let place = tempfile::tempdir().unwrap();
        let parts = fixture.grouped_bundle(&place.path().join("checkpoint")).unwrap();
        compare_bundle(&python, &fixture, parts, place.path());
    }
}

#[test]
fn every_number_of_an_encoder_that_pools_by_its_first_token() {
    let Some(python) = python() else { return };
    let (_, fixture) = families().into_iter().find(|(name, _)| *name == "bert").unwrap();
    let place = tempfile::tempdir().unwrap();
    let pooling = place.path().join("checkpoint/1_Pooling");
    fs::create_dir_all(&pooling).unwrap();
    fs::write(pooling.join("config.json"), r#"{"pooling_mode_cls_token":true}"#).unwrap();
    compare_family(&python, &fixture, place.path());
}

#[test]
fn every_logit_of_the_default_model() {
    let Some(python) = python() else { return };
    let bundle = Path::new(env!("CARGO_MANIFEST_DIR")).join("../default-model/bundle");
    let prompts = [
        "hey, could you please send twelve and a half METIS to alice? thanks",
        "lovely weather today",
        "V0te Yes on 42!",
    ];
    compare(&python, &bundle, &prompts, 24);
}

#[test]
fn every_logit_of_stories260k() {
    let Some(models) = fixtures::find("models/stories260K") else { return };
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("bundle");
    let source = Source::detect(&models.join("stories260K.bin"), Some(&models.join("tok512.bin"))).unwrap();
    import(&source, &bundle, &Options::default(), &ProgressBar::hidden()).unwrap();
    compare(&python, &bundle, &["Once upon a time"], 60);
}

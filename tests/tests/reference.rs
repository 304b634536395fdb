//! The second implementation, written in Python from docs/numerics.md alone, recomputes every logit.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use metis_kernels::{Scalar, TokenId};
use metis_models::engine::{Engine, InferenceModel, Request};
use metis_models::import::{Options, ProgressBar, Source, import};
use metis_models::{Bundle, engine::Finish};
use metis_tests::fixtures;

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
        let tokens: Vec<TokenId> = [prompt, answer.tokens].concat();
        let mut lines = String::new();
        for (position, (token, logits)) in tokens.iter().zip(model.all_logits(&tokens).unwrap()).enumerate() {
            let logits = serde_json::to_string(&logits).unwrap();
            writeln!(lines, r#"{{"position":{position},"token":{token},"logits":{logits}}}"#).unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("logits.jsonl");
        fs::write(&file, lines).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference/logits.py");
        let output =
            Command::new(python).arg(script).arg(bundle).arg("--compare").arg(&file).output().unwrap();
        assert!(
            output.status.success(),
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
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

//! How many launches a step is: neighbours are one.
#![cfg(shim)]
#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

use std::sync::Arc;

use metis_gpu::Gpu;
use metis_gpu_shim::{Record, Shim};
use metis_kernels::{Sampling, TokenId};
use metis_models::Bundle;
use metis_models::engine::{Engine, InferenceModel, Request};
use metis_models::fixture::families;

/// The kernels of the last decoding step of a family.
fn last_step(family: &str) -> Vec<&'static str> {
    let (_, fixture) = families().into_iter().find(|(name, _)| *name == family).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let parts = fixture.bundle(&folder.path().join("checkpoint")).unwrap();
    let bundle = Bundle::from_parts(&parts.manifest, parts.weights, parts.tokenizer).unwrap();
    let record = Record::default();
    let shim = Shim::new(1).recorded(&record);
    let model = Engine::load(&bundle, Arc::new(Gpu::new(shim, usize::MAX).unwrap())).unwrap();
    let request = Request {
        prompt: vec![TokenId(5), TokenId(6)],
        max_new: 3,
        sampling: Sampling::GREEDY,
        stop: vec![],
        constraint: None,
    };
    model.generate(&request).unwrap();
    // What comes after the last choice but one.
    let launches = record.lock().unwrap();
    let before = launches[..launches.len() - 1].iter().rposition(|&kernel| kernel == "choose").unwrap();
    launches[before + 1..].to_vec()
}

/// Checks that a step is these kernels, then layers of those, then the head.
fn check(family: &str, before: &[&str], layer: &[&str], after: &[&str]) {
    let step = last_step(family);
    let layers = step.strip_prefix(before).and_then(|step| step.strip_suffix(after));
    let layers = layers.unwrap_or_else(|| panic!("{family}: {step:?}"));
    assert!(layers.chunks(layer.len()).all(|one| one == layer), "{family}: {step:?}");
}

const ATTENTION: [&str; 2] = ["products_1", "attention_near"];
const HEAD: [&str; 3] = ["select_rows", "products_1", "choose"];

#[test]
fn a_layer_of_one_row_is_five_launches() {
    let layer = [&ATTENTION[..], &["products_1"; 3]].concat();
    for family in ["llama3", "mistral", "qwen2", "qwen3", "gemma"] {
        check(family, &["embed"], &layer, &HEAD);
    }
    check("gpt2", &["embed", "embed", "add"], &layer, &HEAD);
}

#[test]
fn norms_after_products_are_launches_of_their_own() {
    let normed = ["products_1", "normalise", "add"];
    let layer = [&ATTENTION[..], &normed, &["products_1"], &normed].concat();
    check("gemma3", &["embed"], &layer, &HEAD);
}

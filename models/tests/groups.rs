//! Claims about models whose weights have groups.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]
#![allow(clippy::float_arithmetic, reason = "tests compare with float models")]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use metis_kernels::{Cpu, CpuKind, Sampling, Scalar, TokenId};
use metis_models::Bundle;
use metis_models::engine::{Engine, InferenceModel, Request, Verdict};
use metis_models::fixture::{Fixture, families};
use metis_models::import::{Options, ProgressBar, Source, convert};
use metis_models::reference::Reference;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

fn tokens(count: u32, seed: u32) -> Vec<TokenId> {
    (0..count).map(|i| TokenId((i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 9) % 300)).collect()
}

fn import(folder: &Path, group_scales: bool) -> Bundle {
    let options = Options { name: Some("fixture".into()), group_scales, ..Options::default() };
    let source = Source::HuggingFace(folder.to_owned());
    convert(&source, &options, &ProgressBar::hidden()).unwrap().into_bundle().unwrap()
}

/// Makes one weight of each row of every matrix 16 times as large.
fn add_outliers(folder: &Path) {
    let path = folder.join("model.safetensors");
    let file = fs::read(&path).unwrap();
    let with_outliers = |shape: &[usize], data: &[u8]| {
        let mut singles: Vec<u32> =
            data.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
        if let [_, inputs] = *shape {
            for (i, row) in singles.chunks_exact_mut(inputs).enumerate() {
                row[i * 37 % inputs] += 4 << 23;
            }
        }
        singles.into_iter().flat_map(u32::to_le_bytes).collect::<Vec<u8>>()
    };
    let tensors: Vec<_> = SafeTensors::deserialize(&file)
        .unwrap()
        .iter()
        .map(|(name, t)| (name.to_owned(), t.dtype(), t.shape().to_vec(), with_outliers(t.shape(), t.data())))
        .collect();
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn log_softmax(logits: impl Iterator<Item = f64>) -> Vec<f64> {
    let logits: Vec<f64> = logits.collect();
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_sum = logits.iter().map(|logit| (logit - max).exp()).sum::<f64>().ln() + max;
    logits.into_iter().map(|logit| logit - log_sum).collect()
}

/// Mean divergence from the float model in nats, and mean squared error of logits.
fn errors(fixed: &[Vec<i32>], float: &[Vec<f32>]) -> (f64, f64) {
    let (mut kl, mut squares) = (0.0, 0.0);
    for (fixed, float) in fixed.iter().zip(float) {
        let fixed: Vec<f64> = fixed.iter().map(|&v| f64::from(v) / 65_536.0).collect();
        let p = log_softmax(float.iter().map(|&v| f64::from(v)));
        let q = log_softmax(fixed.iter().copied());
        kl += p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
        squares += fixed.iter().zip(float).map(|(a, &b)| (a - f64::from(b)).powi(2)).sum::<f64>();
    }
    let rows = fixed.len() as f64;
    (kl / rows, squares / (rows * fixed[0].len() as f64))
}

#[test]
fn groups_are_much_closer_where_a_few_weights_are_large() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("checkpoint");
    let (_, mut fixture) = families().into_iter().find(|(name, _)| *name == "llama3").unwrap();
    fixture.config["hidden_size"] = 256.into();
    fixture.config["intermediate_size"] = 384.into();
    fixture.write(&folder).unwrap();
    let tokens = tokens(60, 17);
    let measure = || {
        let float = Reference::load(&Source::HuggingFace(folder.clone())).unwrap().logits(&tokens).unwrap();
        [false, true].map(|group_scales| {
            let model = Engine::load(&import(&folder, group_scales), Arc::new(Cpu::new(1).unwrap())).unwrap();
            errors(&model.all_logits(&tokens).unwrap(), &float)
        })
    };
    // Where all weights are alike there is nothing to gain, and little to lose.
    let [plain, grouped] = measure();
    println!("alike:    (KL, squared error) per channel {plain:?}, per group {grouped:?}");
    assert!(grouped.0 < 1.2 * plain.0 && grouped.1 < 1.2 * plain.1, "{plain:?} {grouped:?}");
    add_outliers(&folder);
    let [plain, grouped] = measure();
    println!("outliers: (KL, squared error) per channel {plain:?}, per group {grouped:?}");
    assert!(4.0 * grouped.0 < plain.0 && 4.0 * grouped.1 < plain.1, "{plain:?} {grouped:?}");
}

#[test]
fn every_backend_gives_the_same_bits() {
    let kinds = CpuKind::ALL.into_iter().filter(|kind| kind.is_available());
    let cpus: Vec<Arc<Cpu>> = kinds.map(|kind| Arc::new(Cpu::with_kind(kind, 2).unwrap())).collect();
    for (name, fixture) in families() {
        let place = tempfile::tempdir().unwrap();
        let bundle = fixture.grouped_bundle(place.path()).unwrap().into_bundle().unwrap();
        let tokens = tokens(60, 23);
        let answer = |model: &dyn InferenceModel| match fixture.is_encoder() {
            true => vec![model.embed(&tokens).unwrap()],
            false => model.all_logits(&tokens).unwrap(),
        };
        let expected = answer(&Engine::load(&bundle, Arc::new(Scalar::new())).unwrap());
        for cpu in &cpus {
            let engine = Engine::load(&bundle, Arc::clone(cpu)).unwrap();
            assert!(answer(&engine) == expected, "{name} on {}", cpu.kind());
        }
    }
}

#[test]
fn answers_are_checked_in_one_pass() {
    let place = tempfile::tempdir().unwrap();
    Fixture::default().write(place.path()).unwrap();
    let engine = Engine::load(&import(place.path(), true), Arc::new(Cpu::new(1).unwrap())).unwrap();
    for seed in 0..20 {
        let prompt = tokens(5 + seed, seed);
        let sampling = Sampling::GREEDY;
        let request = Request { prompt, max_new: 20, sampling, stop: vec![], constraint: None };
        let answer = engine.generate(&request).unwrap();
        assert_eq!(engine.verify(&request, &answer).unwrap(), Verdict::Same);
        let mut forged = answer.clone();
        let Some(token) = forged.tokens.get_mut(seed as usize % 3) else { continue };
        token.0 = (token.0 + 1) % 300;
        assert_ne!(engine.verify(&request, &forged).unwrap(), Verdict::Same);
    }
}

#[test]
fn an_import_with_groups_gives_the_same_bytes_every_time_and_another_model() {
    let place = tempfile::tempdir().unwrap();
    Fixture::default().write(place.path()).unwrap();
    let (one, two, plain) =
        (import(place.path(), true), import(place.path(), true), import(place.path(), false));
    assert_eq!(one.id(), two.id());
    assert_ne!(one.id(), plain.id());
    assert_eq!(one.manifest().work, plain.manifest().work);
}

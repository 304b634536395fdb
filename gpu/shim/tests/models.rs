//! Whole models on the kernels: every family, batches, verification, a device that is too small and one that is lost.
#![cfg(shim)]
#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

use std::sync::Arc;

use metis_gpu::Gpu;
use metis_gpu_shim::Shim;
use metis_kernels::{BackendError, Sampling, Scalar, TokenId};
use metis_models::engine::{
    Engine, EngineOptions, Failover, Generation, InferenceModel, LoadError, Request, Verdict,
};
use metis_models::fixture::{Fixture, families};
use metis_models::{Bundle, InferenceError};

fn bundle(fixture: Fixture) -> Bundle {
    let folder = tempfile::tempdir().unwrap();
    let parts = fixture.bundle(&folder.path().join("checkpoint")).unwrap();
    Bundle::from_parts(&parts.manifest, parts.weights, parts.tokenizer).unwrap()
}

fn scalar(bundle: &Bundle) -> Engine<Scalar> {
    Engine::load(bundle, Arc::new(Scalar::new())).unwrap()
}

fn gpu(seed: u64) -> Arc<Gpu<Shim>> {
    Arc::new(Gpu::new(Shim::new(seed), usize::MAX).unwrap())
}

fn tokens(count: usize, seed: u32) -> Vec<TokenId> {
    (0..count as u32).map(|i| TokenId((i * i + 7 * i * seed + seed) % 290)).collect()
}

/// Greedy and sampled requests of several lengths.
fn requests() -> Vec<Request> {
    let sampled = Sampling { temperature_q16: 1 << 16, top_p_q16: 60_000, top_k: 40, seed: 7 };
    (1..=8)
        .map(|i| Request {
            prompt: tokens(5 * i as usize, i),
            max_new: 6,
            sampling: if i % 2 == 0 { Sampling::GREEDY } else { sampled },
            stop: vec![TokenId(3 * i)],
            constraint: None,
        })
        .collect()
}

fn unwrapped(answers: Vec<Result<Generation, InferenceError>>) -> Vec<Generation> {
    answers.into_iter().map(Result::unwrap).collect()
}

#[test]
fn every_family_gives_the_scalar_engines_bits() {
    for (seed, (name, family)) in (1..).zip(families()) {
        let folder = tempfile::tempdir().unwrap();
        for grouped in [false, true] {
            let checkpoint = folder.path().join(format!("{name}-{grouped}"));
            let parts = if grouped { family.grouped_bundle(&checkpoint) } else { family.bundle(&checkpoint) }
                .unwrap();
            let bundle = Bundle::from_parts(&parts.manifest, parts.weights, parts.tokenizer).unwrap();
            let (expected, actual) = (scalar(&bundle), Engine::load(&bundle, gpu(seed)).unwrap());
            let tokens = tokens(20, seed as u32);
            if family.is_encoder() {
                match expected.classify(&tokens) {
                    Ok(logits) => assert_eq!(actual.classify(&tokens).unwrap(), logits, "{name}"),
                    Err(_) => assert!(actual.classify(&tokens).is_err(), "{name}"),
                }
                match expected.embed(&tokens) {
                    Ok(vector) => assert_eq!(actual.embed(&tokens).unwrap(), vector, "{name}"),
                    Err(_) => assert!(actual.embed(&tokens).is_err(), "{name}"),
                }
            } else {
                assert_eq!(
                    actual.all_logits(&tokens).unwrap(),
                    expected.all_logits(&tokens).unwrap(),
                    "{name}"
                );
            }
        }
    }
}

#[test]
fn generations_batches_scores_and_verdicts_are_the_scalar_engines() {
    let bundle = bundle(Fixture::default());
    let (expected, actual) = (scalar(&bundle), Engine::load(&bundle, gpu(3)).unwrap());
    let requests = requests();
    let answers = unwrapped(expected.generate_batch(&requests));
    assert_eq!(unwrapped(actual.generate_batch(&requests)), answers);
    for (request, answer) in requests.iter().zip(&answers) {
        assert_eq!(actual.generate(request).unwrap(), *answer);
        assert_eq!(actual.verify(request, answer).unwrap(), Verdict::Same);
        let mut forged = answer.clone();
        if let Some(last) = forged.tokens.last_mut() {
            last.0 = (last.0 + 1) % 290;
            assert_eq!(actual.verify(request, &forged).unwrap(), expected.verify(request, &forged).unwrap());
        }
    }
    let labels = [tokens(3, 5), tokens(1, 9), tokens(4, 2)];
    assert_eq!(
        actual.score(&tokens(10, 4), &labels).unwrap(),
        expected.score(&tokens(10, 4), &labels).unwrap()
    );
}

#[test]
fn threads_that_ask_at_once_get_their_own_answers() {
    let bundle = bundle(Fixture::default());
    let (expected, actual) = (scalar(&bundle), Engine::load(&bundle, gpu(4)).unwrap());
    let requests = requests();
    std::thread::scope(|scope| {
        for request in &requests {
            scope.spawn(|| {
                assert_eq!(actual.generate(request).unwrap(), expected.generate(request).unwrap());
                let (own, other) = (actual.all_logits(&request.prompt), expected.all_logits(&request.prompt));
                assert_eq!(own.unwrap(), other.unwrap());
            });
        }
    });
}

/// A model on a device, with the CPU to go on with.
fn failover(bundle: Bundle, device: Gpu<Shim>) -> Result<Failover, LoadError> {
    let model = Arc::new(Engine::load_with(&bundle, Arc::new(device), EngineOptions::default())?);
    Ok(Failover::new(model, move || Ok(Arc::new(Engine::load(&bundle, Arc::new(Scalar::new()))?))))
}

#[test]
fn a_device_that_is_lost_in_the_middle_changes_no_answer() {
    let requests = requests();
    let answers = unwrapped(scalar(&bundle(Fixture::default())).generate_batch(&requests));
    for launches in [0, 1, 20, 40, 80] {
        let device = Gpu::new(Shim::new(launches).lost_after(launches + 1), usize::MAX).unwrap();
        let model = failover(bundle(Fixture::default()), device).unwrap();
        assert!(!model.is_lost());
        assert_eq!(unwrapped(model.generate_batch(&requests)), answers, "lost after {launches} launches");
        assert!(model.is_lost());
        assert_eq!(model.verify(&requests[0], &answers[0]).unwrap(), Verdict::Same);
        assert!(matches!(
            model.generate(&Request { prompt: vec![], ..requests[0].clone() }),
            Err(InferenceError::EmptyPrompt)
        ));
    }
}

#[test]
fn a_device_without_memory_is_asked_again_and_changes_no_answer() {
    let all = gpu(5);
    let weights = {
        let _model = Engine::load(&bundle(Fixture::default()), Arc::clone(&all)).unwrap();
        all.allocated()
    };
    // Room for the weights, and for ever more of a call.
    let requests = requests();
    let answers = unwrapped(scalar(&bundle(Fixture::default())).generate_batch(&requests));
    for more in [0, 20_000, 200_000, 1_000_000] {
        let device = Gpu::new(Shim::new(9), weights + more).unwrap();
        let model = failover(bundle(Fixture::default()), device).unwrap();
        assert_eq!(unwrapped(model.generate_batch(&requests)), answers, "{more} bytes more");
        assert!(!model.is_lost());
        assert_eq!(model.generate(&requests[1]).unwrap(), answers[1]);
    }
    let small = Gpu::new(Shim::new(9), weights / 2).unwrap();
    let error = failover(bundle(Fixture::default()), small).unwrap_err();
    assert!(matches!(error, LoadError::Backend(BackendError::OutOfMemory { .. })), "{error}");
}

#[test]
fn memory_comes_back() {
    let device = gpu(6);
    let before = device.allocated();
    let model = Engine::load(&bundle(Fixture::default()), Arc::clone(&device)).unwrap();
    let mut after = Vec::new();
    for _ in 0..3 {
        unwrapped(model.generate_batch(&requests()));
        after.push(device.allocated());
    }
    assert_eq!(after[1], after[2], "calls that come again take nothing more");
    drop(model);
    // Pages and intermediate results are kept for the next model, weights are not.
    assert!(device.allocated() < after[2] - 30_000);
    assert!(device.allocated() >= before);
}

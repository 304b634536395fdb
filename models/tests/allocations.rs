//! The claim that decoding allocates nothing per token. It counts the allocations of the whole process, so it is alone in its binary.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

use std::alloc::System;
use std::sync::Arc;

use metis_kernels::{Cpu, Sampling, TokenId};
use metis_models::engine::{Engine, EngineOptions, InferenceModel, Request};
use metis_models::fixture::Fixture;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Caches grow by doubling, so that twice as many tokens make each layer's four vectors grow once.
const LAYERS: usize = 2;

#[test]
fn a_token_allocates_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = Fixture { layers: LAYERS, context: 1_024, ..Fixture::default() };
    let bundle = fixture.bundle(&folder.path().join("checkpoint")).unwrap().into_bundle().unwrap();
    let hot = Sampling { temperature_q16: 70_000, top_p_q16: 60_000, top_k: 40, seed: 7 };
    for threads in [1, 2] {
        let backend = Arc::new(Cpu::new(threads).unwrap());
        let engine = Engine::load_with(&bundle, backend, EngineOptions::UNCACHED).unwrap();
        for (sampling, batch) in [(Sampling::GREEDY, 1), (hot, 1), (Sampling::GREEDY, 8), (hot, 8)] {
            let allocations = |max_new: usize| {
                let requests: Vec<_> = (0..batch)
                    .map(|i| Request {
                        prompt: vec![TokenId(10 + i)],
                        max_new,
                        sampling,
                        stop: Vec::new(),
                        constraint: None,
                    })
                    .collect();
                let region = Region::new(ALLOCATOR);
                let answers = engine.generate_batch(&requests);
                let change = region.change();
                let tokens: usize = answers.into_iter().map(|answer| answer.unwrap().tokens.len()).sum();
                (change.allocations + change.reallocations, tokens)
            };
            allocations(400);
            let ((few, short), (many, long)) = (allocations(200), allocations(400));
            assert!(long >= short + 100, "answers end too early to tell: {short}, {long}");
            let growth = 4 * LAYERS * batch as usize;
            assert!(
                many <= few + growth,
                "{threads} threads, a batch of {batch}, {sampling:?}: {few} allocations for {short} tokens, {many} for {long}"
            );
        }
    }
}

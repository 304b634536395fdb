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
/// The thread pool's queue grows by one allocation for so many steps, or more.
const QUEUED: usize = 50;
/// Tokens of the longer answers: more than the first allocation of a cache holds.
const LONG: usize = 400;

#[test]
fn a_token_allocates_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = Fixture { layers: LAYERS, context: 1_024, ..Fixture::default() };
    let bundle = fixture.bundle(&folder.path().join("checkpoint")).unwrap().into_bundle().unwrap();
    let hot = Sampling { temperature_q16: 70_000, top_p_q16: 60_000, top_k: 40, seed: 7 };
    for threads in [1, 2] {
        let backend = Arc::new(Cpu::new(threads).unwrap());
        let engine = Engine::load_with(&bundle, backend, EngineOptions::UNCACHED).unwrap();
        for sampling in [Sampling::GREEDY, hot] {
            let request = |prompt, max_new| Request {
                prompt: vec![TokenId(prompt)],
                max_new,
                sampling,
                stop: Vec::new(),
                constraint: None,
            };
            // Prompts whose answers no token ends.
            let goes_on =
                |&prompt: &u32| engine.generate(&request(prompt, LONG)).unwrap().tokens.len() == LONG;
            let prompts: Vec<u32> = (3..300).filter(goes_on).take(8).collect();
            assert_eq!(prompts.len(), 8);
            for batch in [1, 8] {
                let allocations = |max_new| {
                    let requests: Vec<_> =
                        prompts[..batch].iter().map(|&prompt| request(prompt, max_new)).collect();
                    let region = Region::new(ALLOCATOR);
                    let answers = engine.generate_batch(&requests);
                    let change = region.change();
                    assert!(answers.into_iter().all(|answer| answer.unwrap().tokens.len() == max_new));
                    change.allocations + change.reallocations
                };
                let (few, many) = (allocations(LONG / 2), allocations(LONG));
                assert!(
                    many <= few + 4 * LAYERS * batch + LONG / 2 / QUEUED,
                    "{threads} threads, a batch of {batch}, {sampling:?}: {few} allocations for {} tokens each, {many} for {LONG}",
                    LONG / 2
                );
            }
        }
    }
}

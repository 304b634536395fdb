//! Claims about requests that share an engine: neither who else is there nor what is kept of earlier prompts can change an answer.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

use std::sync::{Arc, Barrier};
use std::thread;

use metis_kernels::{Cpu, Sampling, Scalar, TokenId};
use metis_models::Bundle;
use metis_models::engine::{Engine, EngineOptions, Generation, InferenceModel, Request, Verdict};
use metis_models::fixture::Fixture;
use proptest::prelude::*;

const VOCABULARY: u32 = 300;
/// The context of every model here.
const CONTEXT: usize = 128;
/// Tokens of a block of the prefix cache.
const BLOCK: u64 = 16;

fn bundle(fixture: Fixture) -> Bundle {
    let folder = tempfile::tempdir().unwrap();
    fixture.bundle(&folder.path().join("checkpoint")).unwrap().into_bundle().unwrap()
}

fn small(seed: u64) -> Fixture {
    Fixture { seed, hidden: 32, intermediate: 40, layers: 1, heads: 4, kv_heads: 2, ..Fixture::default() }
}

fn fixture() -> impl Strategy<Value = Fixture> {
    let heads = prop_oneof![Just((1, 1)), Just((4, 1)), Just((4, 2)), Just((3, 3))];
    (1u64.., any::<bool>(), heads, 4usize..12, 1usize..60, 1usize..3).prop_map(
        |(seed, tied, (heads, kv_heads), pairs, intermediate, layers)| {
            let hidden = heads * 2 * pairs;
            Fixture { seed, tied, hidden, intermediate, layers, heads, kv_heads, ..Fixture::default() }
        },
    )
}

fn engine(bundle: &Bundle, options: EngineOptions) -> Engine<Cpu> {
    Engine::load_with(bundle, Arc::new(Cpu::new(1).unwrap()), options).unwrap()
}

/// An engine that answers one request at a time and keeps nothing.
fn alone(bundle: &Bundle) -> Engine<Scalar> {
    let options = EngineOptions { lanes: 1, rows: 1, prefix_cache_bytes: 0 };
    Engine::load_with(bundle, Arc::new(Scalar::new()), options).unwrap()
}

fn ids(ids: impl IntoIterator<Item = u32>) -> Vec<TokenId> {
    ids.into_iter().map(TokenId).collect()
}

/// A request that is not ended by a token of its own.
fn greedy(prompt: impl IntoIterator<Item = u32>, max_new: usize) -> Request {
    Request { prompt: ids(prompt), max_new, sampling: Sampling::GREEDY, stop: Vec::new(), constraint: None }
}

fn sampling() -> impl Strategy<Value = Sampling> {
    prop_oneof![
        Just(Sampling::GREEDY),
        (1u32 << 14..1 << 18, 1u32 << 12..=1 << 16, 0u16..40, any::<u64>()).prop_map(
            |(temperature_q16, top_p_q16, top_k, seed)| Sampling { temperature_q16, top_p_q16, top_k, seed }
        ),
    ]
}

/// Prompts of three stems, so that many share prefixes of every length, with tails of their own.
fn prompt() -> impl Strategy<Value = Vec<TokenId>> {
    (0u32..3, 0u32..70, prop::collection::vec(0..VOCABULARY, 1..20)).prop_map(|(stem, length, tail)| {
        ids((0..length).map(|i| (stem + 1) * (i + 7) % VOCABULARY).chain(tail))
    })
}

fn request() -> impl Strategy<Value = Request> {
    let stop = prop::collection::vec((0..VOCABULARY).prop_map(TokenId), 0..4);
    (prompt(), 0usize..24, sampling(), stop).prop_map(|(prompt, max_new, sampling, stop)| Request {
        prompt,
        max_new,
        sampling,
        stop,
        constraint: None,
    })
}

/// A request that somebody sends to see whether others suffer: without an answer, or as long as can be.
fn hostile() -> impl Strategy<Value = Request> {
    let outside =
        (request(), any::<prop::sample::Index>(), VOCABULARY..).prop_map(|(mut request, at, id)| {
            let at = at.index(request.prompt.len());
            request.prompt[at] = TokenId(id);
            request
        });
    let too_hot = request().prop_map(|request| {
        let sampling = Sampling { temperature_q16: 1, ..Sampling::GREEDY };
        Request { sampling, ..request }
    });
    prop_oneof![
        Just(greedy([], 5)),
        outside,
        too_hot,
        request().prop_map(|request| Request { max_new: usize::MAX, ..request }),
        Just(greedy(vec![3; CONTEXT + 1], 1)),
        (0..VOCABULARY).prop_map(|id| greedy(vec![id; CONTEXT], 1)),
        (0..VOCABULARY).prop_map(|id| greedy([id], CONTEXT)),
    ]
}

fn options() -> impl Strategy<Value = EngineOptions> {
    let bytes = prop_oneof![Just(0usize), 1usize..20_000, Just(usize::MAX)];
    (0usize..6, 0usize..40, bytes).prop_map(|(lanes, rows, prefix_cache_bytes)| EngineOptions {
        lanes,
        rows,
        prefix_cache_bytes,
    })
}

/// An answer as it can be compared: errors by what they say.
fn said(answer: Result<Generation, metis_models::InferenceError>) -> Result<Generation, String> {
    answer.map_err(|error| error.to_string())
}

#[test]
fn an_answer_is_the_one_that_the_request_has_alone() {
    let requests = prop::collection::vec(prop_oneof![4 => request(), 1 => hostile()], 1..12);
    // Several batches on one engine: the later ones find what the earlier ones left.
    let batches = prop::collection::vec(requests, 1..4);
    proptest!(ProptestConfig::with_cases(64), |(fixture in fixture(), batches in batches, options in options())| {
        let bundle = bundle(fixture);
        let (shared, alone) = (engine(&bundle, options), alone(&bundle));
        for requests in batches {
            let answers = shared.generate_batch(&requests);
            prop_assert_eq!(answers.len(), requests.len());
            for (request, answer) in requests.iter().zip(answers) {
                let answer = said(answer);
                prop_assert_eq!(&answer, &said(alone.generate(request)));
                if let Ok(answer) = answer {
                    prop_assert_eq!(shared.verify(request, &answer).unwrap(), Verdict::Same);
                }
            }
        }
    });
}

#[test]
fn logits_and_scores_do_not_depend_on_what_is_kept() {
    let bundle = bundle(small(4));
    let labels = prop::collection::vec(prop::collection::vec((0..VOCABULARY).prop_map(TokenId), 1..5), 1..4);
    let asked = prop::collection::vec((prompt(), labels), 1..6);
    proptest!(ProptestConfig::with_cases(24), |(asked in asked, options in options(), forget: bool)| {
        let (shared, alone) = (engine(&bundle, options), alone(&bundle));
        for (prompt, labels) in asked {
            prop_assert_eq!(shared.last_logits(&prompt).unwrap(), alone.last_logits(&prompt).unwrap());
            if forget {
                shared.forget_prefixes();
            }
            prop_assert_eq!(shared.score(&prompt, &labels).unwrap(), alone.score(&prompt, &labels).unwrap());
        }
    });
}

#[test]
fn a_prefix_that_many_share_is_computed_once() {
    let bundle = bundle(small(2));
    let shared = engine(&bundle, EngineOptions { lanes: 4, rows: 32, ..EngineOptions::default() });
    let prefix: Vec<u32> = (10..58).collect();
    let requests: Vec<Request> =
        (0..10).map(|i| greedy(prefix.iter().copied().chain([100 + i, 200 + i]), 1)).collect();
    let of = |requests: &[Request]| {
        let before = shared.statistics();
        shared.generate_batch(requests).into_iter().for_each(|answer| drop(answer.unwrap()));
        let after = shared.statistics();
        (after.rows - before.rows, after.restored - before.restored)
    };
    // Three blocks, and two tokens of each request's own; the first request computes what the other nine copy.
    assert_eq!(of(&requests), (3 * BLOCK + 2 * 10, 9 * 3 * BLOCK));
    assert_eq!(of(&requests), (2 * 10, 10 * 3 * BLOCK), "in a later call, too");
    // Checking and scoring find it as well.
    let before = shared.statistics().restored;
    shared.verify(&requests[0], &shared.generate(&requests[0]).unwrap()).unwrap();
    shared.score(&requests[0].prompt, &[ids([1]), ids([2, 3])]).unwrap();
    assert_eq!(shared.statistics().restored - before, 3 * 3 * BLOCK);

    shared.forget_prefixes();
    assert_eq!(of(&requests), (3 * BLOCK + 2 * 10, 9 * 3 * BLOCK));
}

#[test]
fn a_prompt_that_is_known_to_its_end_still_computes_its_last_token() {
    let bundle = bundle(small(2));
    let shared = engine(&bundle, EngineOptions::default());
    let request = greedy(20..20 + 2 * BLOCK as u32, 1);
    let first = shared.generate(&request).unwrap();
    let before = shared.statistics();
    assert_eq!(shared.generate(&request).unwrap(), first);
    let after = shared.statistics();
    assert_eq!((after.rows - before.rows, after.restored - before.restored), (BLOCK, BLOCK));
}

#[test]
fn a_long_prompt_delays_nobody() {
    let bundle = bundle(small(3));
    let shared = engine(&bundle, EngineOptions { lanes: 8, rows: 16, prefix_cache_bytes: 0 });
    let short: Vec<Request> = (0..4).map(|i| greedy([20 + i], 12)).collect();
    let long = greedy((0..CONTEXT as u32).map(|i| (i * 31 + 5) % VOCABULARY), 1);
    // Whatever ends early ends early alone, too: what counts is how many tokens were chosen.
    let steps = |requests: &[Request]| -> Vec<u64> {
        let served = shared.serve(requests);
        served.iter().map(|served| served.finished - served.admitted).collect()
    };
    let undisturbed = steps(&short);
    let chosen = |request: &Request| shared.generate(request).unwrap().sampled() as u64;
    assert_eq!(undisturbed, short.iter().map(chosen).collect::<Vec<_>>(), "a step a token");

    for place in 0..=4 {
        let mut requests = short.clone();
        requests.insert(place, long.clone());
        requests.insert(0, long.clone());
        let mut disturbed = steps(&requests);
        disturbed.remove(place + 1);
        disturbed.remove(0);
        assert_eq!(disturbed, undisturbed);
    }
}

#[test]
fn a_short_prompt_does_not_wait_for_a_long_one() {
    let bundle = bundle(small(3));
    let shared = engine(&bundle, EngineOptions { lanes: 8, rows: 16, prefix_cache_bytes: 0 });
    let prompt = |n: u32, salt: u32| (0..n).map(move |i| (i * 31 + salt) % VOCABULARY);
    let served =
        shared.serve(&[greedy(prompt(120, 1), 1), greedy(prompt(120, 2), 1), greedy(prompt(5, 3), 1)]);
    // A third of sixteen rows is enough for five tokens; the others share the rest.
    assert_eq!(served[2].finished, 1);
    assert_eq!([served[0].finished, served[1].finished], [16, 16]);
}

#[test]
fn a_lane_that_ends_makes_room_for_the_next_in_order() {
    let bundle = bundle(small(3));
    let shared = engine(&bundle, EngineOptions { lanes: 2, rows: 2, prefix_cache_bytes: 0 });
    let served =
        shared.serve(&[greedy([1; 8], 1), greedy([9], 1), greedy([4], 1), greedy([5], 1), greedy([], 1)]);
    let times: Vec<_> = served.iter().map(|served| (served.admitted, served.finished)).collect();
    // The long one has a row a step, and both when nobody is left.
    assert_eq!(times, [(0, 6), (0, 1), (1, 2), (2, 3), (0, 0)]);
    assert!(served[4].answer.is_err());
}

#[test]
fn callers_on_several_threads_get_their_own_answers() {
    const CALLERS: usize = 6;
    let bundle = bundle(small(5));
    let alone = alone(&bundle);
    let calls = prop::collection::vec(
        prop::collection::vec(prop_oneof![4 => request(), 1 => hostile()], 0..5),
        CALLERS,
    );
    proptest!(ProptestConfig::with_cases(24), |(calls in calls, options in options())| {
        let shared = engine(&bundle, options);
        let start = Barrier::new(CALLERS);
        let answers: Vec<_> = thread::scope(|scope| {
            let ask = |requests| {
                start.wait();
                shared.generate_batch(requests)
            };
            let callers: Vec<_> = calls.iter().map(|requests| scope.spawn(move || ask(requests))).collect();
            callers.into_iter().map(|caller| caller.join().unwrap()).collect()
        });
        for (requests, answers) in calls.iter().zip(answers) {
            prop_assert_eq!(requests.len(), answers.len());
            for (request, answer) in requests.iter().zip(answers) {
                prop_assert_eq!(said(answer), said(alone.generate(request)));
            }
        }
    });
}

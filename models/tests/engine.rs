//! Claims about the engine, on tiny random models: how a question is put to it cannot change the answer.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

use std::sync::Arc;

use metis_kernels::{Sampling, Scalar, TokenId, TokenMask};
use metis_models::constraint::Constraint;
use metis_models::engine::{Engine, Finish, InferenceModel, Request};
use metis_models::fixture::Fixture;
use metis_models::{Bundle, InferenceError};
use proptest::prelude::*;

fn bundle(fixture: Fixture) -> Bundle {
    let folder = tempfile::tempdir().unwrap();
    let parts = fixture.bundle(&folder.path().join("checkpoint")).unwrap();
    Bundle::from_parts(&parts.manifest, parts.weights, parts.tokenizer).unwrap()
}

fn engine(bundle: &Bundle, threads: usize) -> Engine<Scalar> {
    Engine::load(bundle, Arc::new(Scalar::with_threads(threads).unwrap())).unwrap()
}

fn fixtures() -> [Fixture; 2] {
    [Fixture::default(), Fixture { tied: false, seed: 5, heads: 8, kv_heads: 8, ..Fixture::default() }]
}

fn tokens(max: usize) -> impl Strategy<Value = Vec<TokenId>> {
    prop::collection::vec((0u32..300).prop_map(TokenId), 1..max)
}

fn sampling() -> impl Strategy<Value = Sampling> {
    prop_oneof![
        Just(Sampling::GREEDY),
        (1u32 << 14..1 << 18, 1u32 << 12..=1 << 16, 0u16..40, any::<u64>()).prop_map(
            |(temperature_q16, top_p_q16, top_k, seed)| Sampling { temperature_q16, top_p_q16, top_k, seed }
        ),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let stop = prop::collection::vec((0u32..300).prop_map(TokenId), 0..4);
    (tokens(40), 0usize..20, sampling(), stop, constraint()).prop_map(
        |(prompt, max_new, sampling, stop, constraint)| Request {
            prompt,
            max_new,
            sampling,
            stop,
            constraint,
        },
    )
}

/// Answers that must have a form end in every way: at once, by the form, by the model, by a stop token, by length.
fn constraint() -> impl Strategy<Value = Option<Arc<Constraint>>> {
    let form = |pattern: &str| Some(Arc::new(Constraint::pattern(pattern.as_bytes(), 1_024).unwrap()));
    let forms = ["yes|no", "[a-z]+", "[0-9]{1,3}", ".*", "", "(hello|the) [^ ]{0,9}"].map(form);
    prop_oneof![3 => Just(None), 1 => prop::sample::select(forms.to_vec())]
}

#[test]
fn prefill_of_n_tokens_equals_n_decode_steps() {
    for fixture in fixtures() {
        let bundle = bundle(fixture);
        let engine = engine(&bundle, 1);
        proptest!(ProptestConfig::with_cases(16), |(tokens in tokens(100), cut: prop::sample::Index)| {
            let at_once = engine.session(tokens.len()).unwrap().feed_all(&tokens).unwrap();
            let mut one_by_one = engine.session(tokens.len()).unwrap();
            for (token, logits) in tokens.iter().zip(&at_once) {
                prop_assert_eq!(&one_by_one.feed(&[*token]).unwrap(), logits);
            }
            // Any split into two, after going back.
            let cut = cut.index(tokens.len());
            one_by_one.rewind(cut);
            prop_assert_eq!(&one_by_one.feed_all(&tokens[cut..]).unwrap()[..], &at_once[cut..]);
        });
    }
}

#[test]
fn batch_composition_changes_nothing() {
    let bundle = bundle(Fixture::default());
    let engine = engine(&bundle, 1);
    proptest!(ProptestConfig::with_cases(24), |(requests in prop::collection::vec(request(), 1..6))| {
        let together = engine.generate_batch(&requests);
        for (request, answer) in requests.iter().zip(together) {
            prop_assert_eq!(engine.generate(request).unwrap(), answer.unwrap());
        }
    });
}

#[test]
fn thread_count_changes_nothing() {
    let bundle = bundle(Fixture { seed: 3, ..Fixture::default() });
    let engines = [1, 2, 3, 5].map(|threads| engine(&bundle, threads));
    proptest!(ProptestConfig::with_cases(12), |(request in request(), tokens in tokens(80))| {
        let answer = engines[0].generate(&request).unwrap();
        let logits = engines[0].all_logits(&tokens).unwrap();
        for engine in &engines[1..] {
            prop_assert_eq!(&engine.generate(&request).unwrap(), &answer);
            prop_assert_eq!(&engine.all_logits(&tokens).unwrap(), &logits);
        }
    });
}

#[test]
fn generation_is_choosing_from_all_logits() {
    let bundle = bundle(Fixture::default());
    let engine = engine(&bundle, 1);
    proptest!(ProptestConfig::with_cases(24), |(request in request())| {
        let request = Request { constraint: None, ..request };
        let answer = engine.generate(&request).unwrap();
        let sequence = [request.prompt.as_slice(), &answer.tokens].concat();
        let logits = engine.all_logits(&sequence).unwrap();
        for (i, &token) in answer.tokens.iter().enumerate() {
            let position = request.prompt.len() + i;
            prop_assert_eq!(request.sampling.choose(&logits[position - 1], position as u64), token);
        }
        let next = (answer.tokens.len() < request.max_new)
            .then(|| request.sampling.choose(&logits[sequence.len() - 1], sequence.len() as u64));
        match answer.finish {
            Finish::Length => prop_assert_eq!(answer.tokens.len(), request.max_new),
            Finish::Eos => prop_assert_eq!(next, Some(TokenId(2))),
            Finish::Stop => prop_assert!(request.stop.contains(&next.unwrap())),
            Finish::Complete | Finish::Stuck => prop_assert!(false, "no form was asked for"),
        }
        prop_assert!(answer.sampled() <= request.max_new);
    });
}

#[test]
fn an_answer_with_a_form_is_choosing_among_what_leads_to_it() {
    let bundle = bundle(Fixture::default());
    let engine = engine(&bundle, 1);
    let words = prop::collection::vec("[helo ]{1,8}", 1..5);
    proptest!(ProptestConfig::with_cases(48), |(request in request(), words in words, max_new in 1usize..12)| {
        let options = words.iter().map(|word| word.clone().into_bytes()).collect();
        let constraint = Some(Arc::new(Constraint::options(options, 1_024).unwrap()));
        let request = Request { constraint, stop: Vec::new(), max_new, ..request };
        let answer = engine.generate(&request).unwrap();

        let (mut expected, mut text) = (Vec::new(), String::new());
        let finish = loop {
            let mut mask = TokenMask::none(300);
            for token in (3..300).map(TokenId) {
                let piece = String::from_utf8(engine.tokenizer().decode(&[token])).unwrap_or_default();
                let longer = format!("{text}{piece}");
                if !piece.is_empty() && words.iter().any(|word| word.starts_with(&longer)) {
                    mask.allow(token);
                }
            }
            if mask.is_empty() { break Finish::Complete; }
            if expected.len() == max_new { break Finish::Length; }
            if words.contains(&text) { mask.allow(TokenId(2)); }
            let sequence = [request.prompt.as_slice(), &expected].concat();
            let logits = engine.last_logits(&sequence).unwrap();
            let token = request.sampling.choose_among(&logits, &mask, sequence.len() as u64).unwrap();
            if token == TokenId(2) { break Finish::Eos; }
            expected.push(token);
            text = String::from_utf8(engine.tokenizer().decode(&expected)).unwrap();
        };
        prop_assert_eq!((&answer.tokens, answer.finish), (&expected, finish));
        prop_assert!(finish == Finish::Length || words.contains(&text));
        prop_assert!(answer.sampled() <= max_new);
    });
}

#[test]
fn scores_are_sums_of_log_probabilities_and_do_not_depend_on_other_labels() {
    let bundle = bundle(Fixture::default());
    let engine = engine(&bundle, 1);
    let labels = prop::collection::vec(tokens(6), 1..5);
    proptest!(ProptestConfig::with_cases(16), |(prompt in tokens(30), labels in labels)| {
        let scores = engine.score(&prompt, &labels).unwrap();
        for (label, &score) in labels.iter().zip(&scores) {
            let logits = engine.all_logits(&[prompt.as_slice(), label].concat()).unwrap();
            let sum: i64 = label.iter().enumerate()
                .map(|(i, t)| metis_kernels::softmax::log_probability_q16(&logits[prompt.len() - 1 + i], t.index()).unwrap())
                .sum();
            prop_assert_eq!(score, sum);
            prop_assert_eq!(engine.score(&prompt, std::slice::from_ref(label)).unwrap(), [score]);
        }
    });
}

#[test]
fn what_has_no_answer_is_an_error() {
    let bundle = bundle(Fixture::default());
    let engine = engine(&bundle, 1);
    let request = |prompt: Vec<u32>, max_new| Request {
        prompt: prompt.into_iter().map(TokenId).collect(),
        max_new,
        sampling: Sampling::GREEDY,
        stop: Vec::new(),
        constraint: None,
    };
    assert!(matches!(engine.generate(&request(vec![], 1)), Err(InferenceError::EmptyPrompt)));
    assert!(matches!(engine.generate(&request(vec![300], 1)), Err(InferenceError::TokenOutOfRange { .. })));
    assert!(matches!(
        engine.generate(&request(vec![1; 129], 1)),
        Err(InferenceError::ContextExceeded { .. })
    ));
    assert!(matches!(
        engine.generate(&request(vec![1; 100], 30)),
        Err(InferenceError::ContextExceeded { .. })
    ));
    assert!(engine.generate(&request(vec![1; 100], 29)).is_ok());
    assert!(matches!(
        engine.generate(&request(vec![1], usize::MAX)),
        Err(InferenceError::ContextExceeded { .. })
    ));
    assert!(matches!(engine.score(&[TokenId(1)], &[vec![]]), Err(InferenceError::EmptyLabel(0))));
    assert!(matches!(engine.all_logits(&[]), Err(InferenceError::EmptyPrompt)));
    let hot = Sampling { temperature_q16: 1, ..Sampling::GREEDY };
    assert!(matches!(
        engine.generate(&Request { sampling: hot, ..request(vec![1], 1) }),
        Err(InferenceError::Sampling(_))
    ));
}

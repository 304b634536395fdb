//! One-pass verification accepts what the model generates and nothing else, and says where a forged answer differs.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

use std::sync::Arc;

use metis_kernels::{Cpu, Sampling, TokenId};
use metis_models::constraint::Constraint;
use metis_models::engine::{Difference, Engine, Finish, Generation, InferenceModel, Request, Step, Verdict};
use metis_models::fixture::Fixture;
use proptest::prelude::*;
use proptest::sample::Index;

fn engine(fixture: Fixture) -> Engine<Cpu> {
    let folder = tempfile::tempdir().unwrap();
    let bundle = fixture.bundle(&folder.path().join("checkpoint")).unwrap().into_bundle().unwrap();
    Engine::load(&bundle, Arc::new(Cpu::new(1).unwrap())).unwrap()
}

fn token() -> impl Strategy<Value = TokenId> {
    (0u32..300).prop_map(TokenId)
}

fn sampling() -> impl Strategy<Value = Sampling> {
    prop_oneof![
        Just(Sampling::GREEDY),
        (1u32 << 14..1 << 18, 1u32 << 12..=1 << 16, 0u16..40, any::<u64>()).prop_map(
            |(temperature_q16, top_p_q16, top_k, seed)| Sampling { temperature_q16, top_p_q16, top_k, seed }
        ),
    ]
}

/// Many stop tokens, so that answers end in every way; some answers span several passes.
fn request() -> impl Strategy<Value = Request> {
    let max_new = prop_oneof![4 => 0usize..12, 1 => 30usize..60];
    let (prompt, stop) = (prop::collection::vec(token(), 1..68), prop::collection::vec(token(), 0..40));
    (prompt, max_new, sampling(), stop, constraint()).prop_map(
        |(prompt, max_new, sampling, stop, constraint)| Request {
            prompt,
            max_new,
            sampling,
            stop,
            constraint,
        },
    )
}

/// Forms that end at once, soon, late and never.
fn constraint() -> impl Strategy<Value = Option<Arc<Constraint>>> {
    let form = |pattern: &str| Some(Arc::new(Constraint::pattern(pattern.as_bytes(), 1_024).unwrap()));
    let forms = ["yes|no", "[a-z]+", "[0-9]{1,3}", ".*", "", "(hello|the) [^ ]{0,50}", "[a-z]{9}"].map(form);
    prop_oneof![1 => Just(None), 1 => prop::sample::select(forms.to_vec())]
}

#[derive(Clone, Debug)]
enum Forgery {
    Replace(Index, TokenId),
    Insert(Index, TokenId),
    Remove(Index),
    Truncate(Index),
    Append(Vec<TokenId>),
    Outside(Index),
    Finish(Finish),
}

fn forgery() -> impl Strategy<Value = Forgery> {
    let finish = prop::sample::select(vec![
        Finish::Eos,
        Finish::Length,
        Finish::Stop,
        Finish::Complete,
        Finish::Stuck,
    ]);
    prop_oneof![
        (any::<Index>(), token()).prop_map(|(at, token)| Forgery::Replace(at, token)),
        (any::<Index>(), token()).prop_map(|(at, token)| Forgery::Insert(at, token)),
        any::<Index>().prop_map(Forgery::Remove),
        any::<Index>().prop_map(Forgery::Truncate),
        prop::collection::vec(token(), 1..200).prop_map(Forgery::Append),
        any::<Index>().prop_map(Forgery::Outside),
        finish.prop_map(Forgery::Finish),
    ]
}

fn forge(answer: &Generation, forgery: Forgery) -> Generation {
    let mut forged = answer.clone();
    let tokens = &mut forged.tokens;
    match forgery {
        Forgery::Replace(at, token) if !tokens.is_empty() => {
            let at = at.index(tokens.len());
            tokens[at] = token;
        }
        Forgery::Insert(at, token) => tokens.insert(at.index(tokens.len() + 1), token),
        Forgery::Remove(at) if !tokens.is_empty() => drop(tokens.remove(at.index(tokens.len()))),
        Forgery::Truncate(at) => tokens.truncate(at.index(tokens.len() + 1)),
        Forgery::Append(more) => tokens.extend(more),
        Forgery::Outside(at) if !tokens.is_empty() => {
            let at = at.index(tokens.len());
            tokens[at] = TokenId(u32::MAX);
        }
        Forgery::Finish(finish) => forged.finish = finish,
        _ => {}
    }
    forged
}

fn steps(answer: &Generation) -> Vec<Step> {
    answer.tokens.iter().copied().map(Step::Token).chain([Step::End(answer.finish)]).collect()
}

/// What a check must say of `claimed` when the model gives `answer`.
fn expected(answer: &Generation, claimed: &Generation) -> Verdict {
    let (answer, claimed) = (steps(answer), steps(claimed));
    match answer.iter().zip(&claimed).position(|(a, b)| a != b) {
        Some(position) => {
            Verdict::Differs(Difference { position, expected: answer[position], claimed: claimed[position] })
        }
        None => Verdict::Same,
    }
}

#[test]
fn ten_thousand_answers_and_forgeries() {
    let shapes = [
        Fixture { hidden: 32, intermediate: 48, layers: 1, ..Fixture::default() },
        Fixture {
            tied: false,
            seed: 5,
            hidden: 32,
            intermediate: 40,
            heads: 8,
            kv_heads: 8,
            ..Fixture::default()
        },
    ];
    for engine in shapes.map(engine) {
        let forgeries = prop::collection::vec(forgery(), 4);
        proptest!(ProptestConfig::with_cases(1_000), |(request in request(), forgeries in forgeries)| {
            let answer = engine.generate(&request).unwrap();
            prop_assert_eq!(engine.verify(&request, &answer).unwrap(), Verdict::Same);
            for forgery in forgeries {
                let forged = forge(&answer, forgery);
                prop_assert_eq!(engine.verify(&request, &forged).unwrap(), expected(&answer, &forged));
            }
        });
    }
}

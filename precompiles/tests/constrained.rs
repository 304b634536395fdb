//! Answers of a form that the caller gives: what they are, what they cost, and what is refused.

#![allow(clippy::unwrap_used, reason = "test code outside test functions")]

mod support;

use std::sync::Arc;

use alloy_primitives::{B256, Bytes};
use alloy_sol_types::{SolCall, SolError};
use metis_kernels::TokenId;
use metis_models::Manifest;
use metis_models::constraint::Constraint as Form;
use metis_models::engine::Request;
use metis_precompiles::abi::*;
use metis_precompiles::gas::AutomatonSize;
use metis_precompiles::{Caps, Gas, Inference, Outcome};
use proptest::prelude::*;
use support::{GREEDY, Mock, PLENTY, answer, chain, chain_with, error, real};

const PROMPT: &[u8] = b"the hello world";
const WARM: Sampling = Sampling { temperatureQ16: 1 << 17, topPQ16: 1 << 16, topK: 0, seed: 5 };

fn matching(pattern: impl Into<Vec<u8>>, max_new: u32) -> generateConstrainedCall {
    let c = Constraint { pattern: pattern.into().into(), options: vec![] };
    generateConstrainedCall { model: B256::ZERO, prompt: PROMPT.into(), maxNew: max_new, s: GREEDY, c }
}

fn listed(options: &[&[u8]]) -> Vec<Bytes> {
    options.iter().map(|option| Bytes::copy_from_slice(option)).collect()
}

fn choose(options: &[&[u8]]) -> chooseCall {
    chooseCall { model: B256::ZERO, prompt: PROMPT.into(), s: GREEDY, options: listed(options) }
}

#[test]
fn an_answer_has_its_form_and_is_the_models() {
    let (model, inference) = (real(), chain(real()));
    let prompt = model.tokenizer().encode_prompt(PROMPT).unwrap();
    for pattern in ["yes|no", "-?[0-9]{1,5}", "[a-z]{3}( [a-z]+){2}", r#"\{"n":[0-9]{1,2}\}"#, "(|x)"] {
        for temperature in [0, WARM.temperatureQ16] {
            let s = Sampling { temperatureQ16: temperature, ..WARM };
            let (got, _) = answer(&inference, &generateConstrainedCall { s, ..matching(pattern, 40) });
            let form = Arc::new(Form::pattern(pattern.as_bytes(), 1_024).unwrap());
            let sampling = metis_kernels::Sampling {
                temperature_q16: temperature,
                top_p_q16: WARM.topPQ16,
                top_k: 0,
                seed: WARM.seed,
            };
            let request = Request {
                prompt: prompt.clone(),
                max_new: 40,
                sampling,
                stop: vec![],
                constraint: Some(Arc::clone(&form)),
            };
            let expected = model.generate(&request).unwrap();
            assert_eq!(got.tokens, expected.tokens.iter().map(|t| t.0).collect::<Vec<_>>());
            assert_eq!(got.text, model.tokenizer().decode(&expected.tokens));
            assert_eq!(got.promptTokens as usize, prompt.len());
            let whole = matches!(got.finish, Finish::Eos | Finish::Complete);
            assert!(form.matches(&got.text) || !whole, "{pattern}: {:?}", got.text);
            assert!(whole || got.tokens.len() == 40);
        }
    }
}

#[test]
fn an_answer_ends_at_once_when_nothing_can_follow() {
    let inference = chain(real());
    let (got, _) = answer(&inference, &matching("[0-9]{4}", 100));
    assert_eq!((got.finish, got.text.len()), (Finish::Complete, 4));
    // Also with the last token that was asked for.
    let (same, _) = answer(&inference, &matching("[0-9]{4}", got.tokens.len() as u32));
    assert_eq!((same.finish, same.tokens), (Finish::Complete, got.tokens));
    let (short, _) = answer(&inference, &matching("[0-9]{4}", 2));
    assert_eq!((short.finish, short.tokens.len()), (Finish::Length, 2));
    let (none, _) = answer(&inference, &matching("[0-9]{4}", 0));
    assert_eq!((none.finish, none.tokens.len()), (Finish::Length, 0));
}

#[test]
fn choosing_names_the_option_that_the_answer_is() {
    let inference = chain(real());
    let options: [&[u8]; 5] = [b"no", b"none", b"\xff\x00", b"yes", b"no"];
    for s in [GREEDY, WARM, Sampling { seed: 6, ..WARM }] {
        let (index, _) = answer(&inference, &chooseCall { s: s.clone(), ..choose(&options) });
        let c = Constraint { pattern: Bytes::new(), options: listed(&options) };
        let (text, _) = answer(&inference, &generateConstrainedCall { c, s, ..matching("", 4) });
        assert_eq!(options[index as usize], &text.text[..]);
        assert!(index != 4, "of equals the lowest");
    }
    assert_eq!(answer(&inference, &choose(&[b"only this one"])).0, 0);
}

/// A chain whose caps are small.
fn strict() -> Inference {
    chain_with(Arc::new(Mock::new()), |config| {
        config.caps = Caps {
            max_prompt_bytes: 1_000,
            max_labels: 2,
            max_label_bytes: 40,
            max_pattern_bytes: 20,
            max_automaton_states: 16,
            max_new_tokens: 30,
            ..Caps::default()
        };
    })
}

#[test]
fn every_mistake_has_its_error() {
    let inference = strict();
    let bad = BadCalldata {}.abi_encode();
    let refused = |call: &generateConstrainedCall| error(&inference, call).0.to_vec();
    let both = Constraint { pattern: "a".into(), options: listed(&[b"a"]) };
    assert_eq!(refused(&matching("", 1)), bad, "neither");
    assert_eq!(refused(&generateConstrainedCall { c: both, ..matching("", 1) }), bad, "both");
    assert_eq!(refused(&matching("a".repeat(21), 1)), bad, "pattern bytes");
    assert_eq!(refused(&generateConstrainedCall { prompt: Bytes::new(), ..matching("a", 1) }), bad);
    let prompt = "x".repeat(1_001).into_bytes().into();
    assert_eq!(refused(&generateConstrainedCall { prompt, ..matching("a", 1) }), bad);

    let at = |position| BadConstraint { position }.abi_encode();
    assert_eq!(refused(&matching("a{3,2}", 1)), at(5));
    assert_eq!(refused(&matching("(a", 1)), at(2));
    assert_eq!(refused(&matching(")", 0)), at(0), "also when nothing is generated");
    let too_large = ConstraintTooLarge { max: 16 }.abi_encode();
    assert_eq!(refused(&matching("a{17}", 1)), too_large, "positions");
    assert_eq!(refused(&matching("(a|b)*a(a|b){4}", 1)), too_large, "states");

    let too_many = |requested, max| TooManyNewTokens { requested, max }.abi_encode();
    assert_eq!(refused(&matching("a", 31)), too_many(31, 30));
    let prompt = "x".repeat(120).into_bytes().into();
    assert_eq!(refused(&generateConstrainedCall { prompt, ..matching("a", 9) }), too_many(9, 8));
    let s = Sampling { temperatureQ16: 1, ..GREEDY };
    assert_eq!(refused(&generateConstrainedCall { s, ..matching("a", 1) }), BadSampling {}.abi_encode());
    let model = B256::repeat_byte(7);
    let unknown = UnknownModel { model }.abi_encode();
    assert_eq!(
        refused(&generateConstrainedCall { model, ..matching(")", 1) }),
        unknown,
        "before the pattern"
    );

    let refused = |call: &chooseCall| error(&inference, call).0.to_vec();
    assert_eq!(refused(&choose(&[])), bad);
    assert_eq!(refused(&choose(&[b"a", b""])), bad);
    assert_eq!(refused(&choose(&[b"a", b"b", b"c"])), bad);
    assert_eq!(refused(&choose(&[&[b'a'; 41]])), bad);
    assert_eq!(refused(&choose(&[&[b'a'; 31]])), too_many(31, 30), "the longest option");
    assert_eq!(refused(&choose(&[&[b'a'; 16]])), too_large);
}

/// A chain whose model has no token for `z`.
fn speechless() -> Arc<Mock> {
    let mut json = metis_models::synthetic::tokenizer_json();
    json["model"]["vocab"].as_object_mut().unwrap().remove("z").unwrap();
    let tokenizer = metis_models::Tokenizer::from_json(json.to_string().as_bytes(), 300).unwrap();
    Arc::new(Mock { tokenizer, ..Mock::new() })
}

#[test]
fn what_a_model_cannot_spell_is_an_error_that_pays_for_the_way_there() {
    let mock = speechless();
    let inference = chain(mock);
    let (output, at_once) = error(&inference, &matching("z", 5));
    assert_eq!(output, CannotSpell { tokens: 0 }.abi_encode());
    let (output, later) = error(&inference, &matching("xxxz", 5));
    assert_eq!(output, CannotSpell { tokens: 3 }.abi_encode());
    assert!(later > at_once);
    // A text that could go on is complete where the model cannot go on.
    assert_eq!(answer(&inference, &matching("xxz?", 5)).0.finish, Finish::Complete);
    assert_eq!(error(&inference, &choose(&[b"z"])).0, CannotSpell { tokens: 0 }.abi_encode());
}

/// `docs/gas.md`, written a second time.
fn formula(
    inference: &Inference,
    calldata: &[u8],
    constraint: (usize, usize, usize, usize),
    answer: Answered,
) -> Gas {
    let gas = inference.gas();
    let mock = Mock::new();
    let spelled: usize = (0..300).map(|id| mock.tokenizer.decode(&[TokenId(id)]).len()).sum();
    let Manifest { work, layers, .. } = mock.manifest;
    let (bytes, states, classes, positions) = constraint;
    let n = answer.chosen;
    let t = if n == 0 { 0 } else { answer.prompt + n - 1 };
    let macs = t * (u128::from(work.linear_macs) + layers as u128 * u128::from(gas.macs_per_layer))
        + t * (t + 1) / 2 * u128::from(work.attention_macs) * u128::from(gas.attention_weight)
        + n * u128::from(work.head_macs)
        + n * 300 * u128::from(gas.macs_per_logit)
        + (answer.tokens + 1) * spelled as u128 * u128::from(gas.macs_per_spelled_byte);
    let total = u128::from(gas.base.0)
        + u128::from(gas.per_word.0) * calldata.len().div_ceil(32) as u128
        + u128::from(gas.per_byte.0) * PROMPT.len() as u128
        + u128::from(gas.per_constraint_byte.0) * bytes as u128
        + u128::from(gas.per_transition.0)
            * (states * classes + (positions * positions).div_ceil(16)) as u128
        + u128::from(gas.per_token.0) * t
        + macs.div_ceil(u128::from(gas.macs_per_gas));
    Gas(total.try_into().unwrap())
}

struct Answered {
    prompt: u128,
    tokens: u128,
    chosen: u128,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_form_is_charged_by_its_automaton_and_its_masks(
        // Pattern, states, classes, positions.
        form in prop::sample::select(vec![
            ("yes|no", 6, 6, 5), ("[0-9]{1,3}", 4, 2, 3), ("a*", 2, 2, 1), ("(a|b)*a(a|b)", 5, 3, 5), ("(|x)", 2, 2, 1),
        ]),
        max_new in 1u32..20, seed: u64,
    ) {
        let inference = chain(Arc::new(Mock::new()));
        let (pattern, states, classes, positions) = form;
        let call = generateConstrainedCall { s: Sampling { seed, ..WARM }, ..matching(pattern, max_new) };
        let (got, gas) = answer(&inference, &call);
        let tokens = got.tokens.len() as u128;
        let chosen = tokens + u128::from(got.finish == Finish::Eos);
        let answered = Answered { prompt: got.promptTokens.into(), tokens, chosen };
        let size = (pattern.len(), states, classes, positions);
        prop_assert_eq!(gas, formula(&inference, &call.abi_encode(), size, answered));
        // It needs gas for the largest automaton, or for as many tokens and masks as were asked for.
        let most = u128::from(max_new);
        let asked = Answered { prompt: got.promptTokens.into(), tokens: most, chosen: most };
        let run = formula(&inference, &call.abi_encode(), size, asked);
        let automaton = AutomatonSize { states: 1_024, classes, positions };
        let paid = inference.gas().input(call.abi_encode().len()).plus(inference.gas().constraint(pattern.len()));
        let required = run.max(paid.plus(inference.gas().automaton(automaton)));
        prop_assert!(inference.call(&call.abi_encode(), required).unwrap() != Outcome::OutOfGas);
        prop_assert_eq!(inference.call(&call.abi_encode(), Gas(required.0 - 1)).unwrap(), Outcome::OutOfGas);
    }
}

#[test]
fn an_automaton_that_is_too_large_costs_the_largest() {
    let inference = chain(Arc::new(Mock::new()));
    let call = matching("(a|b)*a(a|b){12}", 1);
    let gas = inference.gas();
    let paid = gas.input(call.abi_encode().len()).plus(gas.constraint(16));
    let most = gas.automaton(AutomatonSize { states: 1_024, classes: 3, positions: 27 });
    assert_eq!(error(&inference, &call).1, paid.plus(most));
    let limit = Gas(paid.plus(most).0 - 1);
    assert_eq!(inference.call(&call.abi_encode(), limit).unwrap(), Outcome::OutOfGas);
    // A pattern with too many positions is refused before anything is built.
    let call = matching("a{1025}", 1);
    assert_eq!(error(&inference, &call).1, gas.input(call.abi_encode().len()).plus(gas.constraint(7)));
}

#[test]
fn too_little_gas_does_no_model_work() {
    let mock = Arc::new(Mock::new());
    let inference = chain(mock.clone());
    let calldata = matching("yes|no", 30).abi_encode();
    let Outcome::Return { gas, .. } = inference.call(&calldata, PLENTY).unwrap() else { panic!() };
    assert_eq!(inference.call(&calldata, gas).unwrap(), Outcome::OutOfGas);
    assert_eq!(mock.asked(), 1);
}

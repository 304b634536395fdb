//! The promises of `docs/gas.md`, as properties of calls.

#![allow(clippy::unwrap_used, reason = "test code outside test functions")]

mod support;

use std::sync::Arc;

use alloy_primitives::{B256, Bytes};
use alloy_sol_types::SolCall;
use metis_models::Manifest;
use metis_models::bundle::Formats;
use metis_models::engine::EngineOptions;
use metis_precompiles::abi::*;
use metis_precompiles::gas::QUOTED_BYTES_PER_TOKEN;
use metis_precompiles::{Gas, Inference, Outcome};
use proptest::prelude::*;
use support::{GREEDY, Mock, PLENTY, answer, chain, chain_with, engine, generate, real};

/// The formula of `docs/gas.md`, written a second time.
fn formula(
    inference: &Inference,
    calldata: &[u8],
    text: usize,
    t: u128,
    pairs: u128,
    rows: u128,
    choices: u128,
) -> Gas {
    let gas = inference.gas();
    let Manifest { work, layers, .. } = Mock::new().manifest;
    let vocabulary = Mock::new().manifest.vocabulary as u128;
    let macs = t * (u128::from(work.linear_macs) + layers as u128 * u128::from(gas.macs_per_layer))
        + pairs * u128::from(work.attention_macs) * u128::from(gas.attention_weight)
        + rows * u128::from(work.head_macs)
        + choices * vocabulary * u128::from(gas.macs_per_logit);
    let total = u128::from(gas.base.0)
        + u128::from(gas.per_word.0) * calldata.len().div_ceil(32) as u128
        + u128::from(gas.per_byte.0) * text as u128
        + u128::from(gas.per_token.0) * t
        + macs.div_ceil(u128::from(gas.macs_per_gas));
    Gas(total.try_into().unwrap())
}

fn quote(inference: &Inference, prompt_tokens: u32, max_new: u32) -> Gas {
    Gas(answer(inference, &quoteCall { model: B256::ZERO, promptTokens: prompt_tokens, maxNew: max_new }).0)
}

fn tokens(prompt: Vec<u32>, max_new: u32, stop: Vec<u32>) -> generateTokensCall {
    generateTokensCall { model: B256::ZERO, prompt, maxNew: max_new, s: GREEDY, stopIds: stop }
}

#[test]
fn a_quote_is_the_dearest_generate_tokens_plus_the_text_it_allows_for() {
    let inference = chain(real());
    let caps = inference.caps();
    let max_new = 9;
    let dearest = tokens(vec![5; 20], max_new, vec![299; caps.max_stop_ids as usize]);
    let (got, gas) = answer(&inference, &dearest);
    assert_eq!(got.finish, Finish::Length, "the fixture does not stop here");
    let allowance = inference.gas().text(20 * QUOTED_BYTES_PER_TOKEN as usize);
    assert_eq!(quote(&inference, 20, max_new), gas.plus(allowance));
}

#[test]
fn a_model_with_groups_pays_for_their_multipliers() {
    let plain = chain(Arc::new(Mock::new()));
    let mut mock = Mock::new();
    mock.manifest.formats = Formats::grouped();
    let (work, grouped) = (mock.manifest.work, chain(Arc::new(mock)));
    let gas = plain.gas();
    for (prompt, new) in [(1, 1), (9, 1), (9, 12)] {
        let fed = u64::from(prompt + new - 1);
        let multipliers = fed * work.linear_macs.div_ceil(32) + u64::from(new) * work.head_macs.div_ceil(32);
        let more = quote(&grouped, prompt, new).0 - quote(&plain, prompt, new).0;
        assert!((gas.macs_per_multiplier * multipliers / gas.macs_per_gas).abs_diff(more) <= 1);
    }
}

#[test]
fn tokenize_detokenize_and_the_rest_cost_what_the_text_says() {
    let inference = chain(real());
    let gas = inference.gas();
    let text = Bytes::from_static(b"the hello world");
    let call = tokenizeCall { model: B256::ZERO, text: text.clone() };
    let (ids, paid) = answer(&inference, &call);
    let expected = gas.input(call.abi_encode().len()).plus(gas.text(text.len())).plus(gas.tokens(ids.len()));
    assert_eq!(paid, expected);

    let call = detokenizeCall { model: B256::ZERO, ids: ids.clone() };
    let (_, paid) = answer(&inference, &call);
    assert_eq!(paid, gas.input(call.abi_encode().len()).plus(gas.tokens(ids.len())));

    let call = quoteCall { model: B256::ZERO, promptTokens: 1, maxNew: 1 };
    assert_eq!(answer(&inference, &call).1, gas.input(4 + 3 * 32));
    assert_eq!(answer(&inference, &modelInfoCall { model: B256::ZERO }).1, gas.input(4 + 32));

    let call = logitsCall { model: B256::ZERO, prompt: text.clone(), ids: vec![1, 2] };
    let n = ids.len() as u128;
    let expected = formula(&inference, &call.abi_encode(), text.len(), n, n * (n + 1) / 2, 1, 0);
    assert_eq!(answer(&inference, &call).1, expected);
}

#[test]
fn too_little_gas_for_the_worst_case_does_no_model_work() {
    let mock = Arc::new(Mock::new());
    let inference = chain(mock.clone());
    let calldata = generate("the hello world", 40).abi_encode();
    let Outcome::Return { gas, .. } = inference.call(&calldata, PLENTY).unwrap() else { panic!() };
    assert_eq!(mock.asked(), 1);
    // The mock ends early, so what it costs is not enough to ask it.
    assert_eq!(inference.call(&calldata, gas).unwrap(), Outcome::OutOfGas);
    assert_eq!(inference.call(&calldata, Gas(0)).unwrap(), Outcome::OutOfGas);
    assert_eq!(mock.asked(), 1);
}

#[test]
fn a_prefix_that_is_known_changes_no_gas() {
    let (cold, warm) = (engine(EngineOptions::UNCACHED), engine(EngineOptions::default()));
    let (without, with) = (chain(cold.clone()), chain(warm.clone()));
    // Equal prefixes of every length, in every function that asks a model.
    let text = |length: usize, tail: &str| {
        [&"the hello world ".repeat(4).as_bytes()[..length], tail.as_bytes()].concat()
    };
    let mut calls: Vec<Vec<u8>> = Vec::new();
    for length in (0..60).step_by(7) {
        for tail in ["a", "b"] {
            let prompt = Bytes::from(text(length, tail));
            calls.push(generate(prompt.clone(), 6).abi_encode());
            calls.push(
                scoreCall {
                    model: B256::ZERO,
                    prompt: prompt.clone(),
                    labels: vec!["x".into(), "yz".into()],
                }
                .abi_encode(),
            );
            calls.push(logitsCall { model: B256::ZERO, prompt, ids: vec![1, 2] }.abi_encode());
            calls
                .push(tokens((0..length as u32 + 1).map(|i| i * 7 % 300).collect(), 3, vec![5]).abi_encode());
        }
    }
    for calldata in calls.iter().chain(&calls) {
        let outcome = with.call(calldata, PLENTY).unwrap();
        assert!(matches!(outcome, Outcome::Return { .. }));
        assert_eq!(outcome, without.call(calldata, PLENTY).unwrap());
    }
    assert!(warm.statistics().restored > 1_000, "the prefixes were known: {:?}", warm.statistics());
    assert_eq!(cold.statistics().restored, 0);
}

#[derive(Clone, Debug)]
enum Asked {
    Generate(generateCall),
    Tokens(generateTokensCall),
    Score(scoreCall),
    Other(Vec<u8>),
}

impl Asked {
    fn calldata(&self) -> Vec<u8> {
        match self {
            Self::Generate(call) => call.abi_encode(),
            Self::Tokens(call) => call.abi_encode(),
            Self::Score(call) => call.abi_encode(),
            Self::Other(calldata) => calldata.clone(),
        }
    }
}

fn text(longest: usize) -> impl Strategy<Value = Bytes> {
    prop_oneof![
        proptest::string::string_regex(&format!("[a-z é]{{0,{longest}}}"))
            .unwrap()
            .prop_map(|text| text.into_bytes().into()),
        prop::collection::vec(any::<u8>(), 0..longest).prop_map(Bytes::from),
        (any::<u8>(), 0..longest).prop_map(|(byte, n)| vec![byte; n].into()),
    ]
}

fn sampling() -> impl Strategy<Value = metis_precompiles::abi::Sampling> {
    (prop_oneof![Just(0), 1u32..1 << 18], 0u32..70_000, any::<u16>(), any::<u64>()).prop_map(
        |(temperature, top_p, top_k, seed)| metis_precompiles::abi::Sampling {
            temperatureQ16: temperature,
            topPQ16: top_p,
            topK: top_k,
            seed,
        },
    )
}

fn model() -> impl Strategy<Value = B256> {
    prop_oneof![8 => Just(B256::ZERO), 1 => any::<[u8; 32]>().prop_map(B256::from)]
}

fn asked() -> impl Strategy<Value = Asked> {
    let stop = || prop::collection::vec(0u32..310, 0..18);
    let ids = || prop::collection::vec(0u32..302, 0..140);
    let generation =
        (model(), text(160), 0u32..140, sampling(), stop()).prop_map(|(model, prompt, max_new, s, stop)| {
            Asked::Generate(generateCall { model, prompt, maxNew: max_new, s, stopIds: stop })
        });
    let by_tokens =
        (model(), ids(), 0u32..140, sampling(), stop()).prop_map(|(model, prompt, max_new, s, stop)| {
            Asked::Tokens(generateTokensCall { model, prompt, maxNew: max_new, s, stopIds: stop })
        });
    let scoring = (model(), text(160), prop::collection::vec(text(40), 0..70))
        .prop_map(|(model, prompt, labels)| Asked::Score(scoreCall { model, prompt, labels }));
    let small = prop_oneof![
        (model(), text(160), ids())
            .prop_map(|(model, prompt, ids)| logitsCall { model, prompt, ids }.abi_encode()),
        (model(), text(160)).prop_map(|(model, text)| tokenizeCall { model, text }.abi_encode()),
        (model(), text(160)).prop_map(|(model, text)| embedCall { model, text }.abi_encode()),
        (model(), ids()).prop_map(|(model, ids)| detokenizeCall { model, ids }.abi_encode()),
        (model(), any::<u32>(), any::<u32>()).prop_map(|(model, prompt, new)| {
            quoteCall { model, promptTokens: prompt, maxNew: new }.abi_encode()
        }),
        model().prop_map(|model| modelInfoCall { model }.abi_encode()),
    ];
    let pattern = prop_oneof![
        "[a-c(|)*+?{}0-3]{0,12}".prop_map(|pattern| pattern.into_bytes().into()),
        prop::collection::vec(any::<u8>(), 0..1_030).prop_map(Bytes::from),
        prop::sample::select(vec!["[0-9]{1,3}", ".*", "(yes|no)!?", "(a|b)*a(a|b){12}"])
            .prop_map(Bytes::from),
        Just(Bytes::new()),
    ];
    let options = || prop_oneof![Just(vec![]), prop::collection::vec(text(20), 0..70)];
    let constrained = (model(), text(160), 0u32..140, sampling(), pattern, options()).prop_map(
        |(model, prompt, max_new, s, pattern, options)| {
            let c = metis_precompiles::abi::Constraint { pattern, options };
            generateConstrainedCall { model, prompt, maxNew: max_new, s, c }.abi_encode()
        },
    );
    let choosing = (model(), text(160), sampling(), options())
        .prop_map(|(model, prompt, s, options)| chooseCall { model, prompt, s, options }.abi_encode());
    let roles = vec![Role::System, Role::User, Role::User, Role::User, Role::Assistant];
    let message =
        (prop::sample::select(roles), text(60)).prop_map(|(role, content)| Message { role, content });
    let chatting = (model(), prop::collection::vec(message, 0..4), 0u32..140, sampling()).prop_map(
        |(model, messages, max_new, s)| {
            let c = metis_precompiles::abi::Constraint { pattern: Bytes::new(), options: vec![] };
            generateChatCall { model, messages, maxNew: max_new, s, c }.abi_encode()
        },
    );
    let small = prop_oneof![3 => small, 1 => constrained, 1 => choosing, 1 => chatting];
    prop_oneof![3 => generation, 2 => by_tokens, 2 => scoring, 2 => small.prop_map(Asked::Other)]
}

/// Calldata of every kind: well-formed, damaged, and noise.
fn calldata() -> impl Strategy<Value = Vec<u8>> {
    let damaged = (asked(), prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6))
        .prop_map(|(asked, damage)| {
            let mut calldata = asked.calldata();
            for (at, byte) in damage {
                let at = at.index(calldata.len());
                calldata[at] = byte;
            }
            calldata
        });
    let cut = (asked(), any::<prop::sample::Index>()).prop_map(|(asked, at)| {
        let calldata = asked.calldata();
        calldata[..at.index(calldata.len())].to_vec()
    });
    prop_oneof![asked().prop_map(|asked| asked.calldata()), damaged, cut, any::<Vec<u8>>()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_calldata_has_one_outcome_whatever_the_gas_limit(calldata in calldata(), limits: [u32; 4]) {
        let inference = chain(Arc::new(Mock::new()));
        let free = inference.call(&calldata, PLENTY).unwrap();
        let (Outcome::Return { gas, .. } | Outcome::Revert { gas, .. }) = &free else {
            panic!("out of gas with all of it");
        };
        let limits: Vec<u64> = limits.iter().map(|&l| u64::from(l)).chain([0, gas.0, gas.0.saturating_sub(1)]).collect();
        let mut enough = u64::MAX;
        let mut short = 0;
        for limit in limits {
            match inference.call(&calldata, Gas(limit)).unwrap() {
                Outcome::OutOfGas => short = short.max(limit),
                outcome => {
                    prop_assert_eq!(&outcome, &free);
                    prop_assert!(gas.0 <= limit);
                    enough = enough.min(limit);
                }
            }
        }
        prop_assert!(short < enough, "more gas is never too little");
    }

    #[test]
    fn a_memo_changes_nothing(calldata in prop::collection::vec(calldata(), 1..5), limit: u32) {
        let mock = || Arc::new(Mock::new());
        let plain = chain(mock());
        let memo = chain(mock()).with_memo(2);
        for calldata in calldata.iter().chain(&calldata) {
            for limit in [Gas(limit.into()), PLENTY, Gas(limit.into())] {
                prop_assert_eq!(memo.call(calldata, limit).unwrap(), plain.call(calldata, limit).unwrap());
            }
        }
    }

    #[test]
    fn known_prefixes_change_nothing(calldata in prop::collection::vec(calldata(), 1..5), limit: u32) {
        let known = chain(real());
        let unknown = chain(engine(EngineOptions::UNCACHED));
        for calldata in calldata.iter().chain(&calldata) {
            for limit in [Gas(limit.into()), PLENTY] {
                prop_assert_eq!(known.call(calldata, limit).unwrap(), unknown.call(calldata, limit).unwrap());
            }
        }
    }

    #[test]
    fn a_quote_covers_every_generation(asked in asked()) {
        let inference = chain(Arc::new(Mock::new()));
        let calldata = asked.calldata();
        let outcome = inference.call(&calldata, PLENTY).unwrap();
        let (quoted, gas) = match (asked, outcome) {
            (Asked::Generate(call), Outcome::Return { output, gas }) => {
                let got = generateCall::abi_decode_returns_validate(&output).unwrap();
                let long = (call.prompt.len() as u32).div_ceil(QUOTED_BYTES_PER_TOKEN);
                prop_assert!(long <= got.promptTokens, "the fixture's tokens are short");
                (quote(&inference, got.promptTokens, call.maxNew), gas)
            }
            (Asked::Tokens(call), Outcome::Return { gas, .. }) => {
                (quote(&inference, call.prompt.len() as u32, call.maxNew), gas)
            }
            _ => return Ok(()),
        };
        prop_assert!(gas <= quoted);
        prop_assert!(inference.call(&calldata, quoted).unwrap() != Outcome::OutOfGas);
    }

    #[test]
    fn generations_are_charged_for_the_tokens_that_were_chosen(asked in asked()) {
        let inference = chain(Arc::new(Mock::new()));
        let calldata = asked.calldata();
        let outcome = inference.call(&calldata, PLENTY).unwrap();
        let (p, n, text, gas) = match (asked, outcome) {
            (Asked::Generate(call), Outcome::Return { output, gas }) => {
                let got = generateCall::abi_decode_returns_validate(&output).unwrap();
                let ended = u128::from(got.finish != Finish::Length);
                (u128::from(got.promptTokens), got.tokens.len() as u128 + ended, call.prompt.len(), gas)
            }
            (Asked::Tokens(call), Outcome::Return { output, gas }) => {
                let got = generateTokensCall::abi_decode_returns_validate(&output).unwrap();
                let ended = u128::from(got.finish != Finish::Length);
                (call.prompt.len() as u128, got.tokens.len() as u128 + ended, 0, gas)
            }
            _ => return Ok(()),
        };
        let t = if n == 0 { 0 } else { p + n - 1 };
        prop_assert_eq!(gas, formula(&inference, &calldata, text, t, t * (t + 1) / 2, n, n));
    }

    #[test]
    fn scores_are_charged_by_the_positions_that_are_fed(prompt in text(60), labels in prop::collection::vec(text(30), 1..5)) {
        let inference = chain(Arc::new(Mock::new()));
        let tokenizer = &support::Mock::new().tokenizer;
        let call = scoreCall { model: B256::ZERO, prompt: prompt.clone(), labels: labels.clone() };
        let calldata = call.abi_encode();
        let Outcome::Return { gas, .. } = inference.call(&calldata, PLENTY).unwrap() else { return Ok(()) };
        let p = tokenizer.encode_prompt(&prompt).unwrap().len() as u128;
        let (mut t, mut pairs, mut rows, mut choices) = (p, p * (p + 1) / 2, 1, 0);
        for label in &labels {
            let length = tokenizer.encode_continuation(label).unwrap().len() as u128;
            for position in p + 1..p + length {
                (t, pairs, rows) = (t + 1, pairs + position, rows + 1);
            }
            choices += length;
        }
        let text = prompt.len() + labels.iter().map(|l| l.len()).sum::<usize>();
        prop_assert_eq!(gas, formula(&inference, &calldata, text, t, pairs, rows, choices));
    }
}

#[test]
fn long_texts_with_few_tokens_are_covered_by_the_longer_of_both_counts() {
    // Prices at which text dominates: quote's rule for texts of more than 16 bytes a token.
    let inference = chain_with(Arc::new(Mock::new()), |config| config.gas.per_byte = Gas(1_000_000));
    let prompt = "hello".repeat(20);
    let (got, gas) = answer(&inference, &generate(prompt.clone(), 3));
    let tokens = got.promptTokens.max((prompt.len() as u32).div_ceil(QUOTED_BYTES_PER_TOKEN));
    assert!(quote(&inference, tokens, 3) >= gas);
}

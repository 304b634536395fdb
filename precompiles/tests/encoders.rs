//! What an encoder answers, what it costs, and what it cannot do.

#![allow(clippy::unwrap_used, reason = "test code outside test functions")]

mod support;

use std::sync::Arc;

use alloy_primitives::{B256, Bytes};
use alloy_sol_types::{SolCall, SolError};
use metis_kernels::Scalar;
use metis_kernels::softmax::log_probability_q16;
use metis_models::fixture::families;
use metis_models::{Engine, InferenceModel, Manifest};
use metis_precompiles::abi::*;
use metis_precompiles::{Gas, Inference, Outcome};
use support::{GREEDY, answer, chain, chain_with, error, generate};

const DEFAULT: B256 = B256::ZERO;

/// A tiny random model of a family.
fn model(family: &str) -> Arc<dyn InferenceModel> {
    let (_, fixture) = families().into_iter().find(|(name, _)| *name == family).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let bundle = fixture.bundle(folder.path()).unwrap().into_bundle().unwrap();
    Arc::new(Engine::load(&bundle, Arc::new(Scalar::new())).unwrap())
}

fn embed(text: &str) -> embedCall {
    embedCall { model: DEFAULT, text: Bytes::copy_from_slice(text.as_bytes()) }
}

fn score(prompt: &str, labels: &[&str]) -> scoreCall {
    let labels = labels.iter().map(|label| Bytes::copy_from_slice(label.as_bytes())).collect();
    scoreCall { model: DEFAULT, prompt: Bytes::copy_from_slice(prompt.as_bytes()), labels }
}

fn errors_of(inference: &Inference, asked: &impl SolCall) -> Vec<u8> {
    error(inference, asked).0.into()
}

#[test]
fn embed_answers_what_the_model_says_for_the_work_of_reading() {
    let model = model("bert");
    let inference = chain(model.clone());
    for text in ["hello", "hello world!", "the unknown \u{fffd} singing", &"hello ".repeat(90)] {
        let tokens = model.tokenizer().encode_prompt(text.as_bytes()).unwrap();
        let (vector, gas) = answer(&inference, &embed(text));
        assert_eq!(vector, model.embed(&tokens).unwrap());
        let Manifest { work, layers, .. } = *model.manifest();
        let (n, macs_per_gas) = (tokens.len() as u64, inference.gas().macs_per_gas);
        let token = work.linear_macs + layers as u64 * inference.gas().macs_per_layer;
        let macs = n * token + n * n * work.attention_macs * inference.gas().attention_weight;
        let calldata = embed(text).abi_encode().len();
        let expected = inference.gas().input(calldata).0
            + inference.gas().text(text.len()).0
            + inference.gas().tokens(tokens.len()).0
            + macs.div_ceil(macs_per_gas);
        assert_eq!(gas.0, expected, "{n} tokens");
        // One less ends out of gas.
        let less = inference.call(&embed(text).abi_encode(), Gas(expected - 1)).unwrap();
        assert!(matches!(less, Outcome::OutOfGas), "{less:?}");
    }
}

#[test]
fn a_classifier_scores_the_names_of_its_classes() {
    let model = model("bert classifier");
    let inference = chain(model.clone());
    let tokens = model.tokenizer().encode_prompt(b"hello world").unwrap();
    let logits = model.classify(&tokens).unwrap();
    let expected: Vec<i64> = [2, 0].map(|class| log_probability_q16(&logits, class).unwrap()).into();
    let (got, _) = answer(&inference, &score("hello world", &["perhaps", "no"]));
    assert_eq!(got.logProbQ16, expected);
    assert_eq!(got.best, u32::from(expected[1] > expected[0]));

    let bad = BadCalldata {}.abi_encode();
    assert_eq!(errors_of(&inference, &score("hello", &["no", "never"])), bad);
    assert_eq!(errors_of(&inference, &score("", &["no"])), bad);
    assert_eq!(errors_of(&inference, &score("hello", &[])), bad);
    assert_eq!(
        answer(&inference, &embed("hello")).0,
        model.embed(&model.tokenizer().encode_prompt(b"hello").unwrap()).unwrap()
    );
}

#[test]
fn what_an_encoder_cannot_do_is_a_typed_error() {
    let inference = chain_with(model("bert"), |config| config.caps.max_prompt_bytes = 4_000);
    let unsupported = |selector: [u8; 4]| NotSupported { selector: selector.into() }.abi_encode();
    assert_eq!(errors_of(&inference, &generate(b"hello", 4)), unsupported(generateCall::SELECTOR));
    let tokens =
        generateTokensCall { model: DEFAULT, prompt: vec![2], maxNew: 1, s: GREEDY, stopIds: vec![] };
    assert_eq!(errors_of(&inference, &tokens), unsupported(generateTokensCall::SELECTOR));
    let logits = logitsCall { model: DEFAULT, prompt: "hello".into(), ids: vec![] };
    assert_eq!(errors_of(&inference, &logits), unsupported(logitsCall::SELECTOR));
    assert_eq!(errors_of(&inference, &score("hello", &["yes"])), unsupported(scoreCall::SELECTOR));

    let options = vec![Bytes::from("a"), Bytes::from("b")];
    let chosen = chooseCall { model: DEFAULT, prompt: "hello".into(), options: options.clone(), s: GREEDY };
    assert_eq!(errors_of(&inference, &chosen), unsupported(chooseCall::SELECTOR));
    let c = Constraint { pattern: Bytes::new(), options };
    let constrained = generateConstrainedCall {
        model: DEFAULT,
        prompt: "hello".into(),
        maxNew: 1,
        s: GREEDY,
        c: c.clone(),
    };
    assert_eq!(errors_of(&inference, &constrained), unsupported(generateConstrainedCall::SELECTOR));
    let messages = vec![Message { role: Role::User, content: "hello".into() }];
    let chat = generateChatCall { model: DEFAULT, messages, maxNew: 1, s: GREEDY, c };
    assert_eq!(errors_of(&inference, &chat), unsupported(generateChatCall::SELECTOR));

    let bad = BadCalldata {}.abi_encode();
    assert_eq!(errors_of(&inference, &embed("")), bad);
    assert_eq!(errors_of(&inference, &embed(&"x".repeat(4_001))), bad);
    // 95 words and the two special tokens.
    let long = PromptTooLong { tokens: 97, max: 96 }.abi_encode();
    assert_eq!(errors_of(&inference, &embed(&"the ".repeat(95))), long);
}

//! What each function answers, next to what the model itself says.

#![allow(clippy::unwrap_used, reason = "test code outside test functions")]

mod support;

use std::sync::Arc;

use alloy_primitives::{B256, Bytes};
use alloy_sol_types::{SolCall, SolError};
use metis_kernels::{Sampling, TokenId};
use metis_models::engine::{Finish, Request};
use metis_precompiles::abi::*;
use metis_precompiles::{ModelEntry, ModelStatus};
use support::{GREEDY, Mock, answer, call, chain, chain_with, error, generate, real};

const DEFAULT: B256 = B256::ZERO;
const PROMPT: &[u8] = b"the hello world";

#[test]
fn generate_answers_what_the_model_says() {
    let (model, inference) = (real(), chain(real()));
    let prompt = model.tokenizer().encode_prompt(PROMPT).unwrap();
    let request = Request {
        prompt: prompt.clone(),
        max_new: 12,
        sampling: Sampling::GREEDY,
        stop: vec![],
        constraint: None,
    };
    let expected = model.generate(&request).unwrap();

    let (got, _) = answer(&inference, &generate(PROMPT, 12));
    assert_eq!(got.tokens, expected.tokens.iter().map(|t| t.0).collect::<Vec<_>>());
    assert_eq!(got.text, model.tokenizer().decode(&expected.tokens));
    assert_eq!(got.promptTokens as usize, prompt.len());
    assert_eq!(got.finish as u8, expected.finish as u8);

    let tokens = generateTokensCall {
        model: model.id(),
        prompt: prompt.iter().map(|t| t.0).collect(),
        maxNew: 12,
        s: GREEDY,
        stopIds: vec![],
    };
    let (by_tokens, _) = answer(&inference, &tokens);
    assert_eq!((by_tokens.tokens, by_tokens.finish), (got.tokens, got.finish));
}

#[test]
fn sampling_reaches_the_model_and_stop_ids_end_an_answer() {
    let inference = chain(real());
    let s = |seed| abi_sampling(1 << 17, 1 << 16, 0, seed);
    let with = |seed| generateCall { s: s(seed), ..generate(PROMPT, 8) };
    let (one, _) = answer(&inference, &with(1));
    assert_eq!(answer(&inference, &with(1)).0.tokens, one.tokens, "the seed decides");
    assert_ne!(answer(&inference, &with(2)).0.tokens, one.tokens, "at temperature 2 on random weights");

    let third = one.tokens[2];
    let (stopped, _) = answer(&inference, &generateCall { stopIds: vec![third], ..with(1) });
    let before = one.tokens.iter().position(|&t| t == third).unwrap();
    assert_eq!((stopped.finish, &stopped.tokens[..]), (abi_stop(), &one.tokens[..before]));
}

fn abi_sampling(temperature: u32, top_p: u32, top_k: u16, seed: u64) -> metis_precompiles::abi::Sampling {
    metis_precompiles::abi::Sampling { temperatureQ16: temperature, topPQ16: top_p, topK: top_k, seed }
}

fn abi_stop() -> metis_precompiles::abi::Finish {
    metis_precompiles::abi::Finish::Stop
}

#[test]
fn no_new_tokens_are_an_empty_answer_without_model_work() {
    let mock = Arc::new(Mock::new());
    let inference = chain(mock.clone());
    let (got, _) = answer(&inference, &generate(PROMPT, 0));
    assert!(got.text.is_empty() && got.tokens.is_empty());
    assert_eq!(got.finish, metis_precompiles::abi::Finish::Length);
    assert!(got.promptTokens > 0);
    assert_eq!(mock.asked(), 0);
}

#[test]
fn score_rates_labels_as_the_model_does() {
    let (model, inference) = (real(), chain(real()));
    let labels: [&[u8]; 3] = [b" hello", b" world", b" a longer label"];
    let prompt = model.tokenizer().encode_prompt(PROMPT).unwrap();
    let tokens: Vec<Vec<TokenId>> =
        labels.iter().map(|l| model.tokenizer().encode_continuation(l).unwrap()).collect();
    let expected = model.score(&prompt, &tokens).unwrap();
    let (got, _) = answer(&inference, &score(PROMPT, &labels));
    assert_eq!(got.logProbQ16, expected);
    let best = expected.iter().enumerate().max_by_key(|(_, p)| **p).unwrap().0;
    assert_eq!(got.best as usize, best);
    let (same, _) = answer(&inference, &score(PROMPT, &[b"x", b"x"]));
    assert_eq!(same.best, 0, "ties to the lowest index");
}

fn score(prompt: &[u8], labels: &[&[u8]]) -> scoreCall {
    let labels = labels.iter().map(|label| Bytes::copy_from_slice(label)).collect();
    scoreCall { model: DEFAULT, prompt: Bytes::copy_from_slice(prompt), labels }
}

#[test]
fn logits_are_those_after_the_prompt() {
    let (model, inference) = (real(), chain(real()));
    let row = model.last_logits(&model.tokenizer().encode_prompt(PROMPT).unwrap()).unwrap();
    let asked = |ids: Vec<u32>| logitsCall { model: DEFAULT, prompt: PROMPT.into(), ids };
    let (got, _) = answer(&inference, &asked(vec![0, 299, 7, 7]));
    assert_eq!(got, [row[0], row[299], row[7], row[7]]);
    assert_eq!(answer(&inference, &asked(vec![])).0, Vec::<i32>::new());
}

#[test]
fn tokenize_gives_what_generate_feeds_and_detokenize_gives_the_bytes_back() {
    let (model, inference) = (real(), chain(real()));
    for text in [PROMPT, b"", b"\xff\xfe not UTF-8", "ünï".as_bytes(), b"</s> is text here"] {
        let ids = answer(&inference, &tokenizeCall { model: DEFAULT, text: text.to_vec().into() }).0;
        let expected = model.tokenizer().encode_prompt(text).unwrap();
        assert_eq!(ids, expected.iter().map(|t| t.0).collect::<Vec<_>>());
        let (back, _) = answer(&inference, &detokenizeCall { model: DEFAULT, ids });
        assert_eq!(&*back, String::from_utf8_lossy(text).as_bytes());
    }
}

#[test]
fn model_info_is_the_manifest() {
    let (model, inference) = (real(), chain(real()));
    let (info, _) = answer(&inference, &modelInfoCall { model: DEFAULT });
    let manifest = model.manifest();
    assert_eq!(info.modelId, model.id());
    assert_eq!(&info.architecture[..6], b"llama\0");
    assert_eq!((info.vocab, info.context, info.layers, info.hidden), (300, 128, 2, 64));
    assert_eq!(info.linearMacs, manifest.work.linear_macs);
    assert_eq!(info.bundleBytes, manifest.files.iter().map(|f| f.length).sum::<u64>());
    assert_eq!(info.name, "fixture");
}

/// A chain with the mock as the active default and two models that may not be called.
fn errors_of(asked: &impl SolCall) -> Bytes {
    let inference = chain_with(Arc::new(Mock::new()), |config| {
        config.caps.max_new_tokens = 100;
        config.caps.max_labels = 2;
        config.caps.max_ids = 3;
        config.caps.max_stop_ids = 1;
        config.caps.max_label_bytes = 4;
        config.caps.max_prompt_bytes = 1_000;
        for (id, status) in [(8, ModelStatus::Pending), (9, ModelStatus::Deprecated)] {
            config.models.push(ModelEntry { id: B256::repeat_byte(id), path: None, status });
        }
    });
    let (output, gas) = error(&inference, asked);
    assert!(gas >= inference.gas().input(asked.abi_encode().len()));
    output
}

#[test]
fn every_mistake_has_its_error() {
    let bad = BadCalldata {}.abi_encode();
    let nobody = B256::repeat_byte(7);
    let tokens = |prompt: Vec<u32>, max_new| generateTokensCall {
        model: DEFAULT,
        prompt,
        maxNew: max_new,
        s: GREEDY,
        stopIds: vec![],
    };

    assert_eq!(errors_of(&modelInfoCall { model: nobody }), UnknownModel { model: nobody }.abi_encode());
    for id in [B256::repeat_byte(8), B256::repeat_byte(9)] {
        assert_eq!(errors_of(&modelInfoCall { model: id }), ModelNotActive { model: id }.abi_encode());
    }

    assert_eq!(errors_of(&generate("", 1)), bad);
    assert_eq!(errors_of(&tokens(vec![], 1)), bad);
    assert_eq!(errors_of(&generate("x".repeat(1_001), 1)), bad, "bytes cap");
    assert_eq!(
        errors_of(&generate("x".repeat(200), 1)),
        PromptTooLong { tokens: 201, max: 128 }.abi_encode()
    );
    assert_eq!(errors_of(&tokens(vec![5; 129], 1)), PromptTooLong { tokens: 129, max: 128 }.abi_encode());

    let too_many = |requested, max| TooManyNewTokens { requested, max }.abi_encode();
    assert_eq!(errors_of(&tokens(vec![5; 28], 101)), too_many(101, 100), "the chain's cap");
    assert_eq!(errors_of(&tokens(vec![5; 120], 10)), too_many(10, 9), "the context");
    assert_eq!(errors_of(&quoteCall { model: DEFAULT, promptTokens: 120, maxNew: 10 }), too_many(10, 9));
    assert_eq!(errors_of(&quoteCall { model: DEFAULT, promptTokens: 0, maxNew: 1 }), bad);

    for (temperature, top_p) in [(1, 65_536), (1 << 23, 65_536), (65_536, 0), (65_536, 65_537)] {
        let s = abi_sampling(temperature, top_p, 0, 0);
        assert_eq!(errors_of(&generateCall { s, ..generate("x", 1) }), BadSampling {}.abi_encode());
    }

    let out = |id| TokenOutOfRange { id, vocab: 300 }.abi_encode();
    assert_eq!(errors_of(&tokens(vec![299, 300], 1)), out(300));
    assert_eq!(errors_of(&generateCall { stopIds: vec![u32::MAX], ..generate("x", 1) }), out(u32::MAX));
    assert_eq!(errors_of(&generateCall { stopIds: vec![1, 2], ..generate("x", 1) }), bad);
    assert_eq!(errors_of(&logitsCall { model: DEFAULT, prompt: "x".into(), ids: vec![300] }), out(300));
    assert_eq!(errors_of(&logitsCall { model: DEFAULT, prompt: "x".into(), ids: vec![1; 4] }), bad);
    assert_eq!(errors_of(&logitsCall { model: DEFAULT, prompt: Bytes::new(), ids: vec![1] }), bad);
    assert_eq!(errors_of(&detokenizeCall { model: DEFAULT, ids: vec![301] }), out(301));
    assert_eq!(errors_of(&detokenizeCall { model: DEFAULT, ids: vec![1; 4] }), bad);

    assert_eq!(errors_of(&score(b"", &[b"x"])), bad);
    assert_eq!(errors_of(&score(b"x", &[])), bad);
    assert_eq!(errors_of(&score(b"x", &[b"x", b""])), bad);
    assert_eq!(errors_of(&score(b"x", &[b"x", b"x", b"x"])), bad);
    assert_eq!(errors_of(&score(b"x", &[b"xxxxx"])), bad);
    let full = "x".repeat(126);
    let positions = PromptTooLong { tokens: 130, max: 128 }.abi_encode();
    assert_eq!(
        errors_of(&score(full.as_bytes(), &[b"xxxx"])),
        positions,
        "127 tokens and 3 fed of the label"
    );

    let embed = embedCall { model: DEFAULT, text: "x".into() };
    let unsupported = NotSupported { selector: embedCall::SELECTOR.into() }.abi_encode();
    assert_eq!(errors_of(&embed), unsupported);
    assert_eq!(
        errors_of(&embedCall { model: nobody, text: "x".into() }),
        UnknownModel { model: nobody }.abi_encode()
    );
}

#[test]
fn the_context_can_be_filled_to_the_last_position() {
    let inference = chain(real());
    let tokens =
        generateTokensCall { model: DEFAULT, prompt: vec![5; 100], maxNew: 29, s: GREEDY, stopIds: vec![] };
    answer(&inference, &tokens);
    answer(&inference, &generateTokensCall { prompt: vec![5; 128], maxNew: 1, ..tokens });
    answer(&inference, &score("x".repeat(125).as_bytes(), &[b"xxx"]));
    answer(&inference, &score("x".repeat(127).as_bytes(), &[b"x"]));
}

#[test]
fn the_request_to_the_model_is_the_one_that_was_made() {
    // The mock's answers are a hash of the whole request, so equal answers mean equal requests.
    let mock = Mock::new();
    let prompt = vec![TokenId(4), TokenId(9)];
    let sampling = Sampling { temperature_q16: 1 << 16, top_p_q16: 1 << 15, top_k: 3, seed: 99 };
    let request = Request { prompt, max_new: 50, sampling, stop: vec![TokenId(17)], constraint: None };
    let expected = metis_models::InferenceModel::generate(&mock, &request).unwrap();
    let asked = generateTokensCall {
        model: DEFAULT,
        prompt: vec![4, 9],
        maxNew: 50,
        s: abi_sampling(1 << 16, 1 << 15, 3, 99),
        stopIds: vec![17],
    };
    let (got, _) = answer(&chain(Arc::new(mock)), &asked);
    assert_eq!(got.tokens.len(), expected.tokens.len());
    assert_eq!(got.finish as u8, expected.finish as u8);
    assert_ne!(expected.finish, Finish::Length);
}

#[test]
fn a_call_that_no_function_has_is_bad_calldata() {
    let inference = chain(real());
    for calldata in [&b""[..], b"abc", &[0xff; 4], &[0xff; 400], &generateCall::SELECTOR] {
        let outcome = inference.call(calldata, support::PLENTY).unwrap();
        let expected = metis_precompiles::Outcome::Revert {
            output: BadCalldata {}.abi_encode().into(),
            gas: inference.gas().input(calldata.len()),
        };
        assert_eq!(outcome, expected);
    }
    assert!(matches!(
        call(&inference, &modelInfoCall { model: DEFAULT }),
        metis_precompiles::Outcome::Return { .. }
    ));
}

//! Conversations: what the model is asked, what it costs, and what is refused.

#![allow(clippy::unwrap_used, reason = "test code outside test functions")]

mod support;

use std::sync::Arc;

use alloy_primitives::{B256, Bytes};
use alloy_sol_types::{SolCall, SolError};
use metis_models::chat::{ChatFormat, Segment, SystemFormat};
use metis_precompiles::abi::*;
use metis_precompiles::{Gas, Inference, Outcome};
use support::{GREEDY, Mock, PLENTY, answer, chain, chain_with, error, real};

const BOS: u32 = 1;
const EOS: u32 = 2;

fn text(text: &str) -> Segment {
    Segment::Text(text.into())
}

/// A model whose turns are `user: ...</s>` and `bot: ...</s>`.
fn talkative() -> Arc<Mock> {
    let mut mock = Mock::new();
    mock.manifest.chat = Some(ChatFormat {
        begin: vec![Segment::Token(BOS), text("user: ")],
        system: Some(SystemFormat {
            begin: vec![Segment::Token(BOS), text("rules: ")],
            end: vec![Segment::Token(EOS), text("user: ")],
        }),
        reply: vec![Segment::Token(EOS), text("bot: ")],
        turn: vec![Segment::Token(EOS), text("user: ")],
        answer: vec![Segment::Token(EOS), text("bot: ")],
        trim: true,
        leading_space: false,
    });
    Arc::new(mock)
}

fn said(role: Role, content: &str) -> Message {
    Message { role, content: Bytes::copy_from_slice(content.as_bytes()) }
}

fn chat(messages: Vec<Message>, max_new: u32) -> generateChatCall {
    let c = Constraint { pattern: Bytes::new(), options: vec![] };
    generateChatCall { model: B256::ZERO, messages, maxNew: max_new, s: GREEDY, c }
}

fn tokenized(inference: &Inference, messages: Vec<Message>) -> (Vec<u32>, Gas) {
    answer(inference, &tokenizeChatCall { model: B256::ZERO, messages })
}

fn talk() -> Vec<Message> {
    vec![
        said(Role::System, "be kind"),
        said(Role::User, " hello "),
        said(Role::Assistant, "the world"),
        said(Role::User, "the hello </s>world"),
    ]
}

#[test]
fn a_conversation_is_written_in_the_models_format() {
    let mock = talkative();
    let inference = chain(mock.clone());
    let run = |text: &str| {
        let tokens = mock.tokenizer.encode_continuation(text.as_bytes()).unwrap();
        tokens.into_iter().map(|token| token.0).collect::<Vec<_>>()
    };
    let expected = [
        vec![BOS],
        run("rules: be kind"),
        vec![EOS],
        run("user: hello"),
        vec![EOS],
        run("bot: the world"),
        vec![EOS],
        // What a message says is text.
        run("user: the hello </s>world"),
        vec![EOS],
        run("bot: "),
    ]
    .concat();
    let (ids, gas) = tokenized(&inference, talk());
    assert_eq!(ids, expected);
    // All text is paid: messages, with the spaces around them, and what the format puts between.
    let fixed = "rules: user: bot: user: bot: ".len();
    let contents: usize = talk().iter().map(|message| message.content.len()).sum();
    let calldata = tokenizeChatCall { model: B256::ZERO, messages: talk() }.abi_encode();
    let prices = inference.gas();
    assert_eq!(
        gas,
        prices.input(calldata.len()).plus(prices.text(fixed + contents)).plus(prices.tokens(ids.len()))
    );

    // The model is asked what `generateTokens` asks it.
    let (got, _) = answer(&inference, &chat(talk(), 20));
    let by_tokens =
        generateTokensCall { model: B256::ZERO, prompt: ids.clone(), maxNew: 20, s: GREEDY, stopIds: vec![] };
    let (expected, _) = answer(&inference, &by_tokens);
    assert_eq!((got.tokens, got.finish), (expected.tokens, expected.finish));
    assert_eq!(got.promptTokens as usize, ids.len());
}

#[test]
fn a_conversation_can_ask_for_a_form() {
    let inference = chain(talkative());
    for (pattern, options) in [("yes|no", vec![]), ("", vec!["yes".into(), "no".into()])] {
        let c = Constraint { pattern: Bytes::from(pattern), options };
        let (got, gas) = answer(&inference, &generateChatCall { c, ..chat(talk(), 5) });
        assert!([&b"yes"[..], b"no"].contains(&&got.text[..]));
        assert!(gas > answer(&inference, &chat(talk(), 1)).1);
    }
}

#[test]
fn every_mistake_has_its_error() {
    let inference = chain_with(talkative(), |config| {
        config.caps.max_messages = 4;
        config.caps.max_prompt_bytes = 400;
        config.caps.max_new_tokens = 50;
    });
    let refused = |call: &generateChatCall| error(&inference, call).0.to_vec();
    let bad = BadCalldata {}.abi_encode();
    let index = |index| BadMessage { index }.abi_encode();
    let user = || said(Role::User, "x");
    assert_eq!(refused(&chat(vec![], 1)), index(0));
    assert_eq!(refused(&chat(vec![said(Role::Assistant, "x")], 1)), index(0));
    assert_eq!(refused(&chat(vec![user(), user()], 1)), index(1));
    assert_eq!(refused(&chat(vec![said(Role::System, "x")], 1)), index(1));
    assert_eq!(refused(&chat(vec![user(), said(Role::Assistant, "x")], 1)), index(2));
    assert_eq!(refused(&chat(vec![user(); 5], 1)), bad, "too many");
    assert_eq!(refused(&chat(vec![said(Role::User, &"x".repeat(401))], 1)), bad, "too long");
    let long = |n: usize| vec![said(Role::User, &"x".repeat(n))];
    assert!(refused(&chat(long(150), 1)).starts_with(&PromptTooLong::SELECTOR));
    assert!(refused(&chat(long(90), 50)).starts_with(&TooManyNewTokens::SELECTOR));
    assert_eq!(refused(&chat(talk(), 51)), TooManyNewTokens { requested: 51, max: 50 }.abi_encode());
    let c = Constraint { pattern: Bytes::from("("), options: vec![] };
    assert_eq!(
        refused(&generateChatCall { c, ..chat(vec![], 1) }),
        BadConstraint { position: 1 }.abi_encode()
    );
    let both = Constraint { pattern: Bytes::from("a"), options: vec!["a".into()] };
    assert_eq!(refused(&generateChatCall { c: both, ..chat(talk(), 1) }), bad);

    // A model without a format does not chat; nobody does under an unknown id.
    let mute = chain(real());
    let unsupported = |selector: [u8; 4]| NotSupported { selector: selector.into() }.abi_encode();
    assert_eq!(error(&mute, &chat(talk(), 1)).0, unsupported(generateChatCall::SELECTOR));
    let call = tokenizeChatCall { model: B256::ZERO, messages: talk() };
    assert_eq!(error(&mute, &call).0, unsupported(tokenizeChatCall::SELECTOR));
    let model = B256::repeat_byte(7);
    assert_eq!(error(&mute, &tokenizeChatCall { model, ..call }).0, UnknownModel { model }.abi_encode());
    // A role that there is not: the word before the last three, which are an offset, a length and the content.
    let mut calldata = tokenizeChatCall { model: B256::ZERO, messages: vec![user()] }.abi_encode();
    let role = calldata.len() - 4 * 32 + 31;
    assert_eq!(calldata[role], Role::User as u8);
    calldata[role] = 3;
    let Outcome::Revert { output, .. } = inference.call(&calldata, PLENTY).unwrap() else { panic!() };
    assert_eq!(output, bad);
}

#[test]
fn too_little_gas_does_no_model_work() {
    let mock = talkative();
    let inference = chain(mock.clone());
    let calldata = chat(talk(), 40).abi_encode();
    let Outcome::Return { gas, .. } = inference.call(&calldata, PLENTY).unwrap() else { panic!() };
    for limit in [gas, Gas(gas.0 / 2), Gas(0)] {
        assert_eq!(inference.call(&calldata, limit).unwrap(), Outcome::OutOfGas);
    }
    assert_eq!(mock.asked(), 1);
}

//! The inputs that take the most time for their gas, function by function.

use alloy_primitives::{B256, Bytes};
use alloy_sol_types::SolCall;
use metis_kernels::{Sampling, TokenId};

use super::{CalibrationError, Options, worst_forms};
use crate::abi::{
    self, chooseCall, detokenizeCall, generateCall, generateTokensCall, logitsCall, modelInfoCall, quoteCall,
    scoreCall, tokenizeCall,
};
use crate::gas::Work;
use crate::inference::{FatalError, Inference};
use crate::registry::{ActiveModel, Unavailable};

/// One call, with other arguments of the same kind each time: caches are no part of the price.
pub(super) struct Input {
    pub(super) name: String,
    pub(super) calldata: Box<dyn Fn(u64) -> Vec<u8>>,
    /// Whether it is refused, after work.
    pub(super) reverts: bool,
}

impl Input {
    pub(super) fn answered(name: impl Into<String>, calldata: Vec<u8>) -> Self {
        Self { name: name.into(), calldata: Box::new(move |_| calldata.clone()), reverts: false }
    }

    pub(super) fn refused(name: impl Into<String>, calldata: Vec<u8>) -> Self {
        Self { reverts: true, ..Self::answered(name, calldata) }
    }
}

pub(super) const GREEDY: abi::Sampling = abi::Sampling { temperatureQ16: 0, topPQ16: 0, topK: 0, seed: 0 };
/// All tokens stay candidates and all of them are sorted.
const HOT: abi::Sampling = abi::Sampling {
    temperatureQ16: Sampling::MAX_TEMPERATURE_Q16,
    topPQ16: Sampling::TOP_P_ONE,
    topK: 0,
    seed: 1,
};

pub(super) fn of_default_model(
    inference: &Inference,
    options: &Options,
) -> Result<Vec<Input>, CalibrationError> {
    let model = inference.models().get(B256::ZERO).map_err(|why| match why {
        Unavailable::Failed(error) => CalibrationError::Fatal(error.into()),
        Unavailable::Unknown | Unavailable::NotActive => {
            CalibrationError::Input { name: "default model".into(), reason: "it is not active".into() }
        }
    })?;
    let mut inputs = vec![
        Input::answered("`modelInfo`", modelInfoCall { model: B256::ZERO }.abi_encode()),
        Input::answered("`quote`", quoteCall { model: B256::ZERO, promptTokens: 1, maxNew: 1 }.abi_encode()),
        Input::refused("unknown selector, 1 MB", vec![0xff; 1 << 20]),
        Input::refused("`score` with 10,000 empty labels", score("x", vec![Bytes::new(); 10_000])),
        Input::refused("`detokenize` with 30,000 ids", detokenize(vec![1; 30_000])),
    ];
    let bytes = inference.caps().max_prompt_bytes as usize;
    for (name, text) in TEXTS {
        let tokenize =
            move |run| tokenizeCall { model: B256::ZERO, text: text(bytes, run).into() }.abi_encode();
        let named = format!("`tokenize`, {name}");
        inputs.push(Input { name: named, calldata: Box::new(tokenize), reverts: false });

        let tokens = model.model.tokenizer().encode_prompt(&text(bytes, 0)).map_or(0, |tokens| tokens.len());
        if tokens / 2 > model.context as usize {
            let generate = move |run| generate_text(text(bytes, run), 1);
            let name = format!("`generate`, a prompt too long: {name}");
            inputs.push(Input { name, calldata: Box::new(generate), reverts: true });
        }
    }
    let max_ids = inference.caps().max_ids as usize;
    inputs.push(Input::answered(
        "`detokenize`, the longest token",
        detokenize(vec![longest_token(model); max_ids]),
    ));
    inputs.extend(worst_forms::all());
    run_model(inference, model, options, &mut inputs)?;
    Ok(inputs)
}

/// Calls that run the model. `tokens` is a length that fits its context and the options.
fn run_model(
    inference: &Inference,
    model: &ActiveModel,
    options: &Options,
    inputs: &mut Vec<Input>,
) -> Result<(), CalibrationError> {
    let mut add = |name: &str, calldata: Vec<u8>| inputs.push(Input::answered(name, calldata));
    let macs = |tokens| inference.gas().macs(&model.costs, Work::generation(tokens, 1));
    let affordable = |&tokens: &usize| macs(tokens) <= options.macs_per_input.into();
    let tokens = (4..=model.context as usize).take_while(affordable).last().unwrap_or(4);
    let room = inference.caps().max_new_tokens.min(model.context);
    let id = plain_token(model);
    let prompt = |n: usize| vec![id; n];

    add(
        &format!("`generateTokens`, prompt of {tokens}, one new token"),
        generate(prompt(tokens), 1, GREEDY, vec![]),
    );
    let new = (tokens as u32).min(room);
    for (name, sampling) in [("greedy", GREEDY), ("hot", HOT)] {
        add(
            &format!("`generateTokens`, prompt of 1, {new} new tokens, {name}"),
            generate(prompt(1), new, sampling, vec![]),
        );
    }
    let first = first_token(model, id)?;
    let at_once = generate(prompt(1), room, GREEDY, vec![first]);
    add(&format!("`generateTokens`, {room} new tokens asked for, stops at the first"), at_once);
    add("`generateTokens`, prompt of 1, one new token", generate(prompt(1), 1, GREEDY, vec![]));
    add("`generateTokens`, prompt of 1, one new token, hot", generate(prompt(1), 1, HOT, vec![]));

    // Every step has another state, and every token of the vocabulary can be read.
    let bytes = inference.caps().max_automaton_states.saturating_sub(1).max(1);
    for (name, sampling) in [("greedy", GREEDY), ("hot", HOT)] {
        let anything = format!("[^\\x00]{{{bytes}}}").into_bytes();
        let new = (new / 2).max(1);
        add(
            &format!("`generateConstrained`, one letter, {new} new tokens of anything, {name}"),
            worst_forms::matching(anything, new, sampling),
        );
    }
    let options = vec!["0123456789abcdef".into(), "0123456789abcdeg".into()];
    let choose = chooseCall { model: B256::ZERO, prompt: "a".into(), s: GREEDY, options };
    add("`choose`, one letter, two long options", choose.abi_encode());

    add("`generate`, one letter", generate_text(b"a".to_vec(), (tokens as u32 / 2).max(1)));
    let labels = inference.caps().max_labels as usize;
    add(&format!("`score`, one letter, {labels} labels of a letter"), score("a", vec!["a".into(); labels]));
    let long = (tokens / 2).clamp(1, inference.caps().max_label_bytes as usize);
    add(
        "`score`, one letter, one long label",
        score("a", vec!["a ".repeat(long.div_ceil(2)).into_bytes().into()]),
    );
    let ids = inference.caps().max_ids as usize;
    let asked = logitsCall { model: B256::ZERO, prompt: "a".into(), ids: vec![id; ids] };
    add(&format!("`logits`, one letter, {ids} ids"), asked.abi_encode());
    Ok(())
}

fn generate(prompt: Vec<u32>, max_new: u32, s: abi::Sampling, stop: Vec<u32>) -> Vec<u8> {
    generateTokensCall { model: B256::ZERO, prompt, maxNew: max_new, s, stopIds: stop }.abi_encode()
}

fn generate_text(prompt: Vec<u8>, max_new: u32) -> Vec<u8> {
    let prompt = Bytes::from(prompt);
    generateCall { model: B256::ZERO, prompt, maxNew: max_new, s: GREEDY, stopIds: vec![] }.abi_encode()
}

fn score(prompt: &'static str, labels: Vec<Bytes>) -> Vec<u8> {
    scoreCall { model: B256::ZERO, prompt: prompt.into(), labels }.abi_encode()
}

fn detokenize(ids: Vec<u32>) -> Vec<u8> {
    detokenizeCall { model: B256::ZERO, ids }.abi_encode()
}

fn longest_token(model: &ActiveModel) -> u32 {
    let length = |id: &u32| model.model.tokenizer().decode(&[TokenId(*id)]).len();
    (0..model.costs.vocabulary).max_by_key(length).unwrap_or(0)
}

/// A token that is text.
fn plain_token(model: &ActiveModel) -> u32 {
    let tokenizer = model.model.tokenizer();
    tokenizer.encode_continuation(b"a").ok().and_then(|tokens| tokens.last().copied()).unwrap_or_default().0
}

fn first_token(model: &ActiveModel, id: u32) -> Result<u32, CalibrationError> {
    let logits = model.model.last_logits(&[TokenId(id)]);
    let logits = logits.map_err(|error| FatalError::Engine(error.to_string()))?;
    Ok(metis_kernels::sampling::argmax(&logits).0)
}

/// A text of at most so many bytes, another one in each run.
type Text = fn(usize, u64) -> Vec<u8>;

/// Texts that tokenizers find hard, each for another reason.
const TEXTS: [(&str, Text); 12] = [
    ("one letter", |bytes, run| vec![b'a' + (run % 26) as u8; bytes]),
    ("spaces", |bytes, _| vec![b' '; bytes]),
    ("English", |bytes, _| {
        repeat("The quick brown fox, having jumped over 13 lazy dogs, went home. ", bytes)
    }),
    ("random letters, no spaces", |bytes, run| random(bytes, 1, run, |r| char::from(b'a' + (r % 26) as u8))),
    ("random short words", |bytes, run| {
        random(bytes, 1, run, |r| char::from(b"etaoinsrhldc    "[(r % 16) as usize]))
    }),
    ("random printable ASCII", |bytes, run| random(bytes, 1, run, |r| char::from(b' ' + (r % 95) as u8))),
    ("random digits and newlines", |bytes, run| {
        random(bytes, 1, run, |r| char::from(b"0123456789\n\r"[(r % 12) as usize]))
    }),
    ("random Chinese", |bytes, run| {
        random(bytes, 3, run, |r| char::from_u32(0x4e00 + r % 0x5000).unwrap_or('a'))
    }),
    ("random emoji", |bytes, run| {
        random(bytes, 4, run, |r| char::from_u32(0x1f300 + r % 0x300).unwrap_or('a'))
    }),
    ("one letter under accents", |bytes, _| [&b"e"[..], &repeat("\u{301}\u{323}", bytes - 1)].concat()),
    ("a character that NFKC writes as 18", |bytes, _| repeat("\u{fdfa}", bytes)),
    ("not UTF-8", |bytes, _| vec![0xff; bytes]),
];

fn repeat(unit: &str, bytes: usize) -> Vec<u8> {
    unit.repeat(bytes / unit.len()).into_bytes()
}

/// Characters of `width` bytes.
fn random(bytes: usize, width: usize, seed: u64, character: fn(u32) -> char) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        character((state >> 40) as u32)
    };
    std::iter::repeat_with(next).take(bytes / width).collect::<String>().into_bytes()
}

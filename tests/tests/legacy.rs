//! The Metis SDK's precompile: raw text in, raw text out.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

use alloy_primitives::{Address, B256, Bytes};
use alloy_sol_types::SolCall;
use metis_precompiles::abi::{Sampling, generateCall};
use metis_precompiles::{INFERENCE_ADDRESS, LEGACY_ADDRESS, LegacyConfig};
use metis_tests::chain::{Kind, Probed, SENDER};
use metis_tests::economy::Economy;
use metis_vm::{MeteredBlock, Status, Transaction};

const PROMPT: &[u8] = b"send five metis to alice";

fn chain(max_new_tokens: u32) -> Economy {
    Economy::new(|config| config.legacy = LegacyConfig { enabled: true, max_new_tokens }).unwrap()
}

fn ask(chain: &mut Economy, prompt: impl Into<Bytes>) -> metis_vm::Outcome {
    chain.vm.transact(&Transaction::call(SENDER, LEGACY_ADDRESS, prompt)).unwrap()
}

/// What `generate` answers and takes.
fn generate(chain: &mut Economy, prompt: &[u8], max_new: u32) -> (Vec<u8>, u64) {
    let call = generateCall {
        model: B256::ZERO,
        prompt: Bytes::copy_from_slice(prompt),
        maxNew: max_new,
        s: Sampling { temperatureQ16: 0, topPQ16: 0, topK: 0, seed: 0 },
        stopIds: Vec::new(),
    };
    let data = call.abi_encode();
    let gas = chain.node.inference().gas();
    let input = gas.input(data.len());
    let outcome = chain.vm.simulate(&Transaction::call(SENDER, INFERENCE_ADDRESS, data.clone())).unwrap();
    let answer = generateCall::abi_decode_returns(&outcome.output).unwrap();
    let charged = match chain.node.inference().call(&data, metis_precompiles::Gas(u64::MAX)).unwrap() {
        metis_precompiles::Outcome::Return { gas, .. } => gas,
        other => panic!("{other:?}"),
    };
    (answer.text.to_vec(), charged.minus(input).0)
}

#[test]
fn a_prompt_is_answered_with_text_by_the_default_model() {
    let mut chain = chain(24);
    let outcome = ask(&mut chain, PROMPT);
    assert_eq!(outcome.status, Status::Success);
    assert_eq!(&outcome.output[..], b"transfer 5 METIS to alice");
    assert_eq!(outcome.output.to_vec(), generate(&mut chain, PROMPT, 24).0);
}

#[test]
fn it_costs_what_generate_costs_and_reserves_it_before() {
    use metis_precompiles::{Gas, Outcome, Site};
    let mut chain = chain(24);
    let (_, work) = generate(&mut chain, PROMPT, 24);
    let inference = chain.node.inference();
    let call = |gas| inference.call_legacy(PROMPT, Gas(gas), &mut Site::nowhere()).unwrap().unwrap().outcome;
    let Outcome::Return { gas: Gas(gas), .. } = call(u64::MAX) else { panic!() };
    assert_eq!(gas, inference.gas().input(PROMPT.len()).0 + work);
    // What suffices for the answer does not suffice for the worst case.
    assert_eq!(call(gas), Outcome::OutOfGas);
}

#[test]
fn errors_are_empty_and_give_the_rest_of_the_gas_back() {
    let mut chain = chain(24);
    let long = vec![b'x'; 65_537];
    for prompt in [Vec::new(), long] {
        let outcome = ask(&mut chain, prompt);
        assert_eq!((outcome.status, outcome.output.len()), (Status::Revert, 0));
        assert!(outcome.gas_used < 5_000_000);
    }
    // Too many tokens for the model.
    let outcome = ask(&mut chain, vec![b'7'; 4_000]);
    assert_eq!((outcome.status, outcome.output.len()), (Status::Revert, 0));
    // What is not UTF-8 is read, not fatal.
    assert_eq!(ask(&mut chain, vec![0xff, 0xfe, b'h', b'i']).status, Status::Success);
}

#[test]
fn answers_end_with_the_context() {
    let mut chain = chain(4_096);
    let context = chain.node.default_model().unwrap().manifest().context as u32;
    let tokens = chain.node.default_model().unwrap().tokenizer().encode_prompt(PROMPT).unwrap().len() as u32;
    let outcome = ask(&mut chain, PROMPT);
    assert_eq!(outcome.output.to_vec(), generate(&mut chain, PROMPT, context - tokens + 1).0);
}

#[test]
fn every_kind_of_call_reaches_it_and_the_market_counts_it() {
    let mut chain = chain(8);
    let mut probe = Probed::deploy(&chain.node, Address::ZERO, &[]).unwrap();
    let answers = [Kind::Call, Kind::StaticCall, Kind::DelegateCall]
        .map(|kind| probe.probe(kind, LEGACY_ADDRESS, 0, PROMPT).unwrap());
    assert!(answers.iter().all(|(success, output, _)| *success && *output == answers[0].1));
    let block = chain.vm.config().block.clone();
    let metered = Some(MeteredBlock { base_fee: 0, gas_limit: 10_000 });
    chain.vm.set_block(metis_vm::BlockInfo { metered, ..block });
    let outcome = ask(&mut chain, PROMPT);
    assert_eq!((outcome.status, outcome.output.len()), (Status::Revert, 0), "the block has no room");
    assert!(chain.vm.metered() <= 10_000);
}

#[test]
fn a_chain_that_does_not_want_it_has_nothing_there() {
    let mut chain = Economy::new(|_| {}).unwrap();
    let outcome = ask(&mut chain, PROMPT);
    assert_eq!((outcome.status, outcome.output.len()), (Status::Success, 0));
    let calldata: u64 = PROMPT.len() as u64 * 16;
    assert!(outcome.gas_used <= 21_000 + calldata * 3, "an account without code: {}", outcome.gas_used);
}

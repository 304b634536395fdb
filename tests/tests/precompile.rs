//! The precompile as contracts see it, through compiled Solidity.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

use alloy_primitives::{Address, B256, Bytes};
use alloy_sol_types::{SolCall, SolError};
use metis_models::engine::{BackendChoice, Processor};
use metis_precompiles::abi::{
    BadCalldata, BadSampling, NotSupported, Sampling, TooManyNewTokens, UnknownModel,
};
use metis_precompiles::abi::{embedCall, generateCall, quoteCall};
use metis_precompiles::{ChainConfig, Gas, INFERENCE_ADDRESS, ModelEntry, ModelStatus};
use metis_tests::chain::{IProbe, Kind, Probed, SENDER, generate, node, score, tokenize};
use metis_vm::{Status, Transaction, VmError, fork};
use metisvm::machine::Machine;
use metisvm::node::{Node, embedded_bundle};

const KINDS: [Kind; 3] = [Kind::Call, Kind::StaticCall, Kind::DelegateCall];

#[test]
fn every_kind_of_call_gets_the_same_answer_for_the_same_gas() {
    let node = node("Osaka").unwrap();
    let mut chain = Probed::deploy(&node, Address::ZERO, &[]).unwrap();
    for data in
        [generate("send 5 metis to alice", 12), score("hello there", &["none", "vote"]), tokenize("hi")]
    {
        let direct = match node.inference().call(&data, Gas(u64::MAX)).unwrap() {
            metis_precompiles::Outcome::Return { output, .. } => output,
            other => panic!("{other:?}"),
        };
        let answers = KINDS.map(|kind| chain.probe(kind, INFERENCE_ADDRESS, 0, &data).unwrap());
        for (success, output, _) in &answers {
            assert!(success);
            assert_eq!(output, &direct);
        }
        // The opcodes have the same price here: the address is warm and no value is sent.
        let gas = answers.map(|(_, _, gas)| gas);
        assert!(gas.iter().all(|g| g.abs_diff(gas[0]) < 100), "{gas:?}");
    }
}

#[test]
fn nested_calls_and_constructors_reach_it() {
    let node = node("Osaka").unwrap();
    let data = generate("stake 3 eth", 8);
    let mut chain = Probed::deploy(&node, INFERENCE_ADDRESS, &data).unwrap();
    let (_, expected, _) = chain.probe(Kind::StaticCall, INFERENCE_ADDRESS, 0, &data).unwrap();
    for path in [
        vec![Kind::StaticCall, Kind::StaticCall],
        vec![Kind::DelegateCall, Kind::Call],
        vec![Kind::Call, Kind::StaticCall, Kind::DelegateCall],
    ] {
        let gas_limit = alloy_primitives::U256::ZERO;
        let call = IProbe::nestedCall {
            path,
            target: INFERENCE_ADDRESS,
            gasLimit: gas_limit,
            data: data.clone().into(),
        };
        let outcome = chain.send(call.abi_encode()).unwrap();
        let answer = IProbe::nestedCall::abi_decode_returns(&outcome.output).unwrap();
        assert!(answer.success);
        assert_eq!(answer.output, expected);
    }
    let outcome = chain.send(IProbe::constructedDataCall {}.abi_encode()).unwrap();
    assert_eq!(IProbe::constructedDataCall::abi_decode_returns(&outcome.output).unwrap(), expected);
}

#[test]
fn eth_call_gives_the_answer_and_keeps_nothing() {
    let node = node("Osaka").unwrap();
    let mut chain = Probed::deploy(&node, Address::ZERO, &[]).unwrap();
    let before = chain.vm.state().digest();
    let data = generate("vote yes on 7", 12);
    let outcome = chain.vm.simulate(&Transaction::call(SENDER, INFERENCE_ADDRESS, data.clone())).unwrap();
    assert_eq!(outcome.status, Status::Success);
    assert_eq!(chain.vm.state().digest(), before);
    let (_, expected, _) = chain.probe(Kind::StaticCall, INFERENCE_ADDRESS, 0, &data).unwrap();
    assert_eq!(outcome.output, expected);
}

/// The least gas with which a call of `data` is not out of gas, and the gas that it is charged.
fn thresholds(node: &Node, data: &[u8]) -> (u64, u64) {
    let (mut low, mut high) = (0, 100_000_000);
    let charged = |gas: u64| match node.inference().call(data, Gas(gas)).unwrap() {
        metis_precompiles::Outcome::Return { gas, .. } | metis_precompiles::Outcome::Revert { gas, .. } => {
            Some(gas.0)
        }
        metis_precompiles::Outcome::OutOfGas => None,
    };
    while low < high {
        let middle = (low + high) / 2;
        if charged(middle).is_some() { high = middle } else { low = middle + 1 }
    }
    (low, charged(low).unwrap())
}

#[test]
fn out_of_gas_at_every_stage_costs_the_limit_and_nothing_else() {
    let node = node("Osaka").unwrap();
    let mut chain = Probed::deploy(&node, Address::ZERO, &[]).unwrap();
    for data in
        [generate("send 5 metis to alice", 6), score("hi", &["none", "swap"]), tokenize("hello world")]
    {
        let (required, charged) = thresholds(&node, &data);
        assert!(charged <= required);
        // Before the base price, in the calldata, in the text, in the worst case, one below, exactly, above.
        let limits = [1, 100, required / 8, required / 2, required - 1, required, required + 1, 2 * required];
        for limit in limits {
            for kind in KINDS {
                let (success, output, used) = chain.probe(kind, INFERENCE_ADDRESS, limit, &data).unwrap();
                assert_eq!(success, limit >= required, "limit {limit} of {required}");
                if success {
                    assert!(used >= charged && used < charged + 3_000, "{used} for {charged}");
                } else {
                    assert!(output.is_empty());
                    assert!(used >= limit, "all of the limit is gone");
                }
            }
        }
    }
}

#[test]
fn typed_errors_bubble_unchanged_and_give_the_gas_back() {
    let node = node("Osaka").unwrap();
    let mut chain = Probed::deploy(&node, Address::ZERO, &[]).unwrap();
    let sampling = |temperature| Sampling { temperatureQ16: temperature, topPQ16: 0, topK: 0, seed: 0 };
    let call = |model: B256, temperature: u32, max_new: u32| {
        let prompt = Bytes::from_static(b"hi");
        generateCall { model, prompt, maxNew: max_new, s: sampling(temperature), stopIds: vec![] }
            .abi_encode()
    };
    let unknown = B256::repeat_byte(7);
    let embed = embedCall { model: B256::ZERO, text: Bytes::from_static(b"x") }.abi_encode();
    let (context, prompt) = (embedded_bundle().unwrap().manifest().context as u32, {
        let tokens = chain.probe(Kind::Call, INFERENCE_ADDRESS, 0, &tokenize("hi")).unwrap().1;
        (tokens.len() as u32 - 64) / 32
    });
    let cases: [(Vec<u8>, Vec<u8>); 7] = [
        (call(unknown, 0, 1), UnknownModel { model: unknown }.abi_encode()),
        (call(B256::ZERO, 1, 1), BadSampling {}.abi_encode()),
        (
            call(B256::ZERO, 0, 4_000),
            TooManyNewTokens { requested: 4_000, max: context - prompt + 1 }.abi_encode(),
        ),
        (embed, NotSupported { selector: embedCall::SELECTOR.into() }.abi_encode()),
        (vec![], BadCalldata {}.abi_encode()),
        (vec![1, 2, 3, 4], BadCalldata {}.abi_encode()),
        (generate("hi", 1)[..60].to_vec(), BadCalldata {}.abi_encode()),
    ];
    for (data, expected) in cases {
        let (success, output, gas) = chain.probe(Kind::StaticCall, INFERENCE_ADDRESS, 0, &data).unwrap();
        assert!(!success);
        assert_eq!(output, Bytes::from(expected.clone()));
        assert!(gas < 200_000, "{gas}");
        let bubble = IProbe::bubbleCall { kind: Kind::Call, target: INFERENCE_ADDRESS, data: data.into() };
        let outcome = chain.send(bubble.abi_encode()).unwrap();
        assert_eq!((outcome.status, outcome.output), (Status::Revert, expected.into()));
    }
}

#[test]
fn quote_covers_the_charge_of_every_prompt() {
    let node = node("Osaka").unwrap();
    let model = node.default_model().unwrap();
    for (prompt, max_new) in
        [("a", 1), ("send 5 metis to alice", 24), ("what is the weather like in lisbon today?", 8)]
    {
        let tokens = model.tokenizer().encode_prompt(prompt.as_bytes()).unwrap().len() as u32;
        let quote = quoteCall { model: B256::ZERO, promptTokens: tokens, maxNew: max_new }.abi_encode();
        let quoted = match node.inference().call(&quote, Gas(u64::MAX)).unwrap() {
            metis_precompiles::Outcome::Return { output, .. } => {
                quoteCall::abi_decode_returns(&output).unwrap()
            }
            other => panic!("{other:?}"),
        };
        let (required, charged) = thresholds(&node, &generate(prompt, max_new));
        assert!(charged <= required && required <= quoted, "{charged} {required} {quoted}");
    }
}

#[test]
fn it_is_there_on_every_fork() {
    let data = generate("swap 2 eth for dai", 12);
    let mut answers = Vec::new();
    for spec in fork::all() {
        let node = node(fork::name(spec)).unwrap();
        let mut vm = node.vm(metis_vm::State::default());
        let outcome = vm.transact(&Transaction::call(SENDER, INFERENCE_ADDRESS, data.clone())).unwrap();
        assert!(outcome.is_success(), "{}: {}", fork::name(spec), outcome.status);
        answers.push(outcome.output);
    }
    assert!(answers.len() > 10);
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn a_node_without_an_active_models_weights_stops() {
    let mut config = ChainConfig::embedded(embedded_bundle().unwrap().id());
    let id = B256::repeat_byte(9);
    config.models.push(ModelEntry { id, path: Some("/nowhere/bundle".into()), status: ModelStatus::Active });
    let machine = Machine::from(Processor::new(BackendChoice::Auto, 1).unwrap());
    let error = format!("{:#}", Node::with_config(config.clone(), &machine).unwrap_err());
    assert!(error.contains(&id.to_string()) && error.contains("/nowhere/bundle"), "{error}");

    // The same at a call, for a node that loads late: fatal, and no outcome.
    let models = metis_precompiles::ModelSet::new(&config);
    let inference = std::sync::Arc::new(metis_precompiles::Inference::new(&config, models));
    let precompiles = metis_precompiles::MetisPrecompiles::new(fork::DEFAULT, inference);
    let mut vm = metis_vm::EvmBuilder::new().build(precompiles);
    let call = Transaction::call(SENDER, INFERENCE_ADDRESS, generate("hi", 1));
    assert!(matches!(vm.transact(&call), Err(VmError::Fatal(reason)) if reason.contains("not loaded")));
}

#[test]
fn a_pending_model_is_not_active() {
    let mut config = ChainConfig::embedded(embedded_bundle().unwrap().id());
    let id = B256::repeat_byte(9);
    config.models.push(ModelEntry { id, path: None, status: ModelStatus::Pending });
    let machine = Machine::from(Processor::new(BackendChoice::Auto, 1).unwrap());
    let node = Node::with_config(config, &machine).unwrap();
    let call = generateCall {
        model: id,
        prompt: Bytes::from_static(b"hi"),
        maxNew: 1,
        s: Sampling { temperatureQ16: 0, topPQ16: 0, topK: 0, seed: 0 },
        stopIds: vec![],
    };
    match node.inference().call(&call.abi_encode(), Gas(u64::MAX)).unwrap() {
        metis_precompiles::Outcome::Revert { output, .. } => {
            assert_eq!(
                output,
                Bytes::from(metis_precompiles::abi::ModelNotActive { model: id }.abi_encode())
            );
        }
        other => panic!("{other:?}"),
    }
}

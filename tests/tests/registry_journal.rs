//! What the precompile reads of the registry is what a contract would read at that point of the transaction.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

use alloy_primitives::{Address, U256, hex};
use alloy_sol_types::SolCall;
use metis_precompiles::abi::{self, modelInfoCall, quoteCall};
use metis_precompiles::{INFERENCE_ADDRESS, REGISTRY_ADDRESS};
use metis_tests::economy::{AUTHOR, Economy, USER, free, generate, priced};
use metis_vm::{Account, MeteredBlock, Outcome, Status, Transaction};
use metisvm::contracts::Registry;

const NOTHING: U256 = U256::ZERO;

/// Code as it is written by hand: what calls, and what reports.
#[derive(Debug, Default)]
struct Code(Vec<u8>);

impl Code {
    fn raw(mut self, text: &str) -> Self {
        self.0.extend(hex::decode(text).unwrap());
        self
    }

    /// Calls `to` with calldata, leaving on the stack whether it succeeded.
    fn call(mut self, to: Address, data: &[u8]) -> Self {
        for (at, word) in data.chunks(32).enumerate() {
            let mut padded = [0; 32];
            padded[..word.len()].copy_from_slice(word);
            self.0.push(0x7f); // push32, push2, mstore
            self.0.extend(padded);
            self.0.push(0x61);
            self.0.extend(((at * 32) as u16).to_be_bytes());
            self.0.push(0x52);
        }
        // call(gas, to, 0, 0, length, 0, 0)
        self.0.extend([0x5f, 0x5f, 0x61]);
        self.0.extend((data.len() as u16).to_be_bytes());
        self.0.extend([0x5f, 0x5f, 0x73]);
        self.0.extend(to);
        self.0.extend([0x5a, 0xf1]);
        self
    }

    /// Reverts or returns with the word on top of the stack.
    fn end(self, opcode: u8) -> Self {
        let mut code = self.raw("5f52 6020 5f".replace(' ', "").as_str());
        code.0.push(opcode);
        code
    }
}

/// A contract with this code.
fn put(chain: &mut Economy, address: Address, code: Code) {
    chain.vm.set_account(address, &Account { code: code.0.into(), nonce: 1, ..Account::default() });
}

fn word(outcome: &Outcome) -> U256 {
    U256::from_be_slice(&outcome.output)
}

#[test]
fn a_price_that_was_set_in_a_frame_which_reverts_was_never_set() {
    let mut chain = Economy::new(|_| {}).unwrap();
    let model = chain.model(1).unwrap();
    let id = model.id;
    chain.activate(&model, priced(5, 0)).unwrap();
    let (inner, outer) = (Address::repeat_byte(0x1a), Address::repeat_byte(0x2a));
    chain
        .ok(AUTHOR, REGISTRY_ADDRESS, NOTHING, &Registry::transferOwnershipCall { model: id, to: inner })
        .unwrap();
    chain.ok(inner, REGISTRY_ADDRESS, NOTHING, &Registry::acceptOwnershipCall { model: id }).unwrap();
    let set = Registry::setPriceCall { model: id, perCall: Default::default(), perGas: 0 }.abi_encode();
    let ask = generate(id).abi_encode();
    // The owner sets the price to nothing and asks; it reverts with both answers as bits.
    let frame = |end| {
        Code::default().call(REGISTRY_ADDRESS, &set).call(INFERENCE_ADDRESS, &ask).raw("60011b17").end(end)
    };
    // Somebody has it do so, takes what it says (which is 3: both succeed), and asks as well.
    let report = || {
        Code::default()
            .call(inner, &[])
            .raw("50 6020 5f 5f 3e 5f51".replace(' ', "").as_str()) // drop it; returndatacopy(0, 0, 32); mload(0)
            .call(INFERENCE_ADDRESS, &ask)
            .raw("60021b17") // what the frame said, and 4 if the second answer came
            .end(0xf3)
    };
    put(&mut chain, inner, frame(0xfd));
    put(&mut chain, outer, report());
    let outcome = chain.send(USER, outer, NOTHING, Vec::new()).unwrap();
    assert_eq!((&outcome.status, word(&outcome)), (&Status::Success, U256::from(0b011)));
    let billing = Registry::billingOfCall { model: id };
    assert_eq!(chain.view(REGISTRY_ADDRESS, &billing).unwrap().perCall, U256::from(5));

    // Without the revert the second answer comes, too.
    put(&mut chain, inner, frame(0xf3));
    let outcome = chain.send(USER, outer, NOTHING, Vec::new()).unwrap();
    assert_eq!(word(&outcome), U256::from(0b111));
    assert_eq!(chain.view(REGISTRY_ADDRESS, &billing).unwrap().perCall, NOTHING);
}

#[test]
fn a_second_look_up_in_a_transaction_is_warm() {
    let mut chain = Economy::new(|_| {}).unwrap();
    let model = chain.model(1).unwrap();
    chain.activate(&model, free()).unwrap();
    let info = modelInfoCall { model: model.id }.abi_encode();
    // The gas that a call takes, measured around it: gas, call, pop, gas, sub.
    let measured = |before: usize| {
        let code = (0..before).fold(Code::default(), |code, _| code.call(INFERENCE_ADDRESS, &info).raw("50"));
        code.raw("5a").call(INFERENCE_ADDRESS, &info).raw("50 5a 90 03".replace(' ', "").as_str()).end(0xf3)
    };
    let contract = Address::repeat_byte(0x3a);
    let mut gas = |calls| {
        put(&mut chain, contract, measured(calls));
        let outcome = chain.send(USER, contract, NOTHING, Vec::new()).unwrap();
        assert_eq!(outcome.status, Status::Success);
        word(&outcome).to::<u64>()
    };
    let (cold, warm, again) = (gas(0), gas(1), gas(2));
    // Memory is paid by the first call that writes to it: two words.
    let memory = 2 * 3;
    assert_eq!(cold - warm, 6_800 - 3 * 100 + memory);
    assert_eq!(warm, again);
}

#[test]
fn inference_that_runs_out_of_gas_counts_what_it_had_paid_and_gives_nothing_back() {
    let metered = MeteredBlock { base_fee: 0, gas_limit: 10_000_000 };
    let mut chain = Economy::new(|_| {}).unwrap();
    let model = chain.model(1).unwrap();
    chain.activate(&model, free()).unwrap();
    let block = chain.vm.config().block.clone();
    chain.vm.set_block(metis_vm::BlockInfo { metered: Some(metered), ..block });
    let data = generate(model.id).abi_encode();
    let all = chain.send(USER, INFERENCE_ADDRESS, NOTHING, data.clone()).unwrap();
    assert!(all.is_success() && all.metered_gas_used > 0);
    let before = chain.vm.metered();
    let input = chain.node.inference().gas().input(data.len()).0;
    let text = chain.node.inference().gas().text(4).0;
    let less = all.gas_used - all.metered_gas_used + input + 6_800 + text;
    let out = chain.vm.transact(&Transaction::call(USER, INFERENCE_ADDRESS, data).with_gas(less)).unwrap();
    assert!(matches!(out.status, Status::Halt { .. }), "{}", out.status);
    assert_eq!(out.gas_used, less);
    assert_eq!(out.metered_gas_used, input + 6_800 + text);
    assert_eq!(chain.vm.metered(), before + out.metered_gas_used);
}

#[test]
fn a_quote_has_what_looking_up_costs_at_the_fork() {
    for (fork, look_up) in [("Cancun", 6_800), ("Osaka", 6_800), ("Amsterdam", 7_200)] {
        let mut chain = Economy::new(|config| config.fork = fork.into()).unwrap();
        let model = chain.model(1).unwrap();
        chain.activate(&model, free()).unwrap();
        let quote = |model| quoteCall { model, promptTokens: 4, maxNew: 4 };
        let quoted = chain.view(INFERENCE_ADDRESS, &quote(model.id)).unwrap();
        let active = chain.node.inference();
        let bundle = metis_models::Bundle::open(chain.folder.path().join(model.id.to_string())).unwrap();
        let costs =
            metis_precompiles::ModelCosts::of(bundle.manifest(), &bundle.tokenizer().unwrap()).unwrap();
        assert_eq!(quoted - active.gas().quote(&costs, active.caps(), 4, 4).0, look_up, "{fork}");
    }
}

#[test]
fn a_reorganisation_undoes_what_the_registry_did() {
    let mut chain = Economy::new(|_| {}).unwrap();
    let model = chain.model(1).unwrap();
    chain.activate(&model, priced(5, 0)).unwrap();
    let (state, block) = (chain.vm.state(), chain.vm.config().block.clone());
    let set = Registry::setPriceCall { model: model.id, perCall: Default::default(), perGas: 0 };
    chain.ok(AUTHOR, REGISTRY_ADDRESS, NOTHING, &set).unwrap();
    chain.ok(USER, INFERENCE_ADDRESS, NOTHING, &generate(model.id)).unwrap();
    chain.vm = chain.node.vm(state);
    chain.vm.set_block(block);
    let required = abi::PaymentRequired { model: model.id };
    chain.reverts(USER, INFERENCE_ADDRESS, NOTHING, &generate(model.id), &required).unwrap();
}

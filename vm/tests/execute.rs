//! Transactions through a machine with a precompile that Ethereum does not have.
#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its failure report")]

mod support;

use alloy_primitives::{Address, Bytes, U256, bytes};
use metis_vm::{
    Account, BlockInfo, EvmBuilder, HaltReason, SpecId, State, Status, Transaction, VmError, fork,
};
use revm::context::result::{InvalidTransaction, OutOfGasError};
use support::{ALICE, BOB, CONTRACT, DUMMY, DUMMY_GAS, Dummy, Via, forwarder, state_with, vm};

/// Stores calldata word 0 in slot 0 and returns what is now there.
const STORE: [u8; 16] =
    [0x60, 0x00, 0x35, 0x60, 0x00, 0x55, 0x60, 0x00, 0x54, 0x60, 0x00, 0x52, 0x60, 0x20, 0x60, 0x00];

fn store() -> Bytes {
    [STORE.as_slice(), &[0xf3]].concat().into()
}

fn word(value: u64) -> Bytes {
    U256::from(value).to_be_bytes_vec().into()
}

#[test]
fn every_fork_executes_stores_and_creates() {
    for fork in fork::all() {
        let mut vm = vm(fork, store());
        let outcome = vm.transact(&Transaction::call(ALICE, CONTRACT, word(42))).unwrap();
        assert_eq!(outcome.status, Status::Success, "{fork}");
        assert_eq!(outcome.output, word(42), "{fork}");
        assert_eq!(vm.state().accounts[&CONTRACT].storage[&U256::ZERO], U256::from(42), "{fork}");

        // codecopy(0, 12, 17); return(0, 17)
        let initcode = [&bytes!("6011 600c 6000 39 6011 6000 f3")[..], &store()].concat();
        let created = vm.transact(&Transaction::create(ALICE, initcode)).unwrap();
        let address = created.created_address.unwrap_or_else(|| panic!("{fork}: {created:?}"));
        assert_eq!(vm.state().accounts[&address].code, store(), "{fork}");
        assert_eq!(vm.nonce(ALICE), 2, "{fork}");
    }
}

#[test]
fn an_opcode_exists_only_from_its_fork_on() {
    let push0: Bytes = bytes!("5f 5f f3");
    for fork in fork::all() {
        let status = vm(fork, push0.clone())
            .transact(&Transaction::call(ALICE, CONTRACT, Bytes::new()))
            .unwrap()
            .status;
        let expected = match fork.is_enabled_in(SpecId::SHANGHAI) {
            true => Status::Success,
            false => Status::Halt { reason: HaltReason::NotActivated },
        };
        assert_eq!(status, expected, "{fork}");
    }
}

#[test]
fn contracts_reach_the_precompile_by_every_kind_of_call() {
    for (via, mark) in [(Via::Call, 1), (Via::DelegateCall, 3), (Via::StaticCall, 4)] {
        let mut vm = vm(SpecId::OSAKA, forwarder(via, DUMMY));
        let outcome = vm.transact(&Transaction::call(ALICE, CONTRACT, bytes!("00abcd"))).unwrap();
        assert_eq!(
            (outcome.status, outcome.output),
            (Status::Success, [0, 0xab, 0xcd, mark].into()),
            "{via:?}"
        );
    }
}

#[test]
fn a_user_reaches_the_precompile_directly() {
    let outcome =
        vm(SpecId::OSAKA, Bytes::new()).transact(&Transaction::call(ALICE, DUMMY, bytes!("00"))).unwrap();
    assert_eq!(outcome.output, bytes!("0001"));
    assert_eq!(outcome.gas_used, 21_000 + 4 + DUMMY_GAS);
}

#[test]
fn the_precompile_reads_storage_through_the_journal() {
    // sstore(1, 7), then the dummy's answer to 04
    let code = [&bytes!("6007 6001 55")[..], &forwarder(Via::StaticCall, DUMMY)].concat();
    // The forwarder's only jump target moves by the five bytes before it.
    let code = shift_jump(code, 5);
    let outcome =
        vm(SpecId::OSAKA, code).transact(&Transaction::call(ALICE, CONTRACT, bytes!("04"))).unwrap();
    assert_eq!((outcome.status, outcome.output), (Status::Success, word(7)));
}

fn shift_jump(mut code: Vec<u8>, by: u8) -> Vec<u8> {
    let jumpi = code.iter().rposition(|&op| op == 0x57).unwrap();
    code[jumpi - 1] += by;
    code
}

#[test]
fn the_precompiles_revert_data_bubbles_up_unchanged() {
    let mut vm = vm(SpecId::OSAKA, forwarder(Via::StaticCall, DUMMY));
    let outcome = vm.transact(&Transaction::call(ALICE, CONTRACT, bytes!("01c0ffee"))).unwrap();
    assert_eq!((outcome.status, outcome.output), (Status::Revert, bytes!("01c0ffee")));
    assert!(outcome.logs.is_empty());
}

#[test]
fn a_fatal_precompile_is_an_error_and_never_an_outcome() {
    for via in [Via::Call, Via::DelegateCall, Via::StaticCall] {
        let mut vm = vm(SpecId::OSAKA, forwarder(via, DUMMY));
        let before = vm.state();
        let fatal = Err(VmError::Fatal("the dummy has no weights".to_owned()));
        assert_eq!(vm.transact(&Transaction::call(ALICE, CONTRACT, bytes!("02"))), fatal);
        assert_eq!(vm.simulate(&Transaction::call(ALICE, CONTRACT, bytes!("02"))), fatal);
        assert_eq!(vm.transact(&Transaction::call(ALICE, DUMMY, bytes!("02"))), fatal);
        assert_eq!(vm.state(), before, "a fatal error leaves no mark");
        // The machine is still good.
        let outcome = vm.transact(&Transaction::call(ALICE, CONTRACT, bytes!("0055"))).unwrap();
        assert!(outcome.is_success());
    }
}

#[test]
fn out_of_gas_halts_and_costs_all_of_it() {
    let mut vm = vm(SpecId::OSAKA, store());
    let outcome = vm.transact(&Transaction::call(ALICE, CONTRACT, word(1)).with_gas(30_000)).unwrap();
    assert_eq!(outcome.status, Status::Halt { reason: HaltReason::OutOfGas(OutOfGasError::Basic) });
    assert_eq!(outcome.gas_used, 30_000);
    assert!(vm.state().accounts[&CONTRACT].storage.is_empty());

    let direct = vm.transact(&Transaction::call(ALICE, DUMMY, bytes!("03")).with_gas(50_000)).unwrap();
    assert_eq!(direct.status, Status::Halt { reason: HaltReason::OutOfGas(OutOfGasError::Precompile) });
    assert_eq!(direct.gas_used, 50_000);
}

#[test]
fn value_and_fees_move() {
    let miner = Address::repeat_byte(0xcb);
    let block = BlockInfo { base_fee: 7, coinbase: miner, ..BlockInfo::default() };
    let mut vm = EvmBuilder::new().block(block).state(state_with(Bytes::new())).build(Dummy::new());
    let before = vm.state().accounts[&ALICE].balance;
    let tx = Transaction::call(ALICE, BOB, Bytes::new()).with_value(U256::from(1234)).with_gas_price(10);
    let outcome = vm.transact(&tx).unwrap();
    let after = vm.state();
    assert_eq!(outcome.gas_used, 21_000);
    assert_eq!(after.accounts[&BOB].balance, U256::from(1234));
    assert_eq!(after.accounts[&ALICE].balance, before - U256::from(1234 + 10 * 21_000));
    assert_eq!(after.accounts[&miner].balance, U256::from(3 * 21_000), "the base fee is burnt");
}

#[test]
fn a_simulation_leaves_no_mark_and_needs_no_key() {
    let mut vm = vm(SpecId::OSAKA, store());
    vm.set_block(BlockInfo { base_fee: 9, ..BlockInfo::default() });
    let before = vm.state();
    for from in [ALICE, BOB, CONTRACT] {
        let tx = Transaction::call(from, CONTRACT, word(5)).with_nonce(77);
        assert_eq!(vm.simulate(&tx).unwrap().output, word(5));
    }
    assert_eq!(vm.state(), before);
    // And the rules for transactions are what they were.
    let free = Transaction::call(ALICE, CONTRACT, word(5)).with_gas_price(0);
    assert_eq!(vm.transact(&free), Err(VmError::Rejected(InvalidTransaction::GasPriceLessThanBasefee)));
    let contract = Transaction::call(CONTRACT, CONTRACT, word(5)).with_gas_price(9).with_gas(0);
    assert!(matches!(vm.transact(&contract), Err(VmError::Rejected(_))));
}

#[test]
fn impossible_transactions_are_rejected() {
    let mut vm = vm(SpecId::OSAKA, Bytes::new());
    let before = vm.state();
    let tx = Transaction::call(ALICE, BOB, Bytes::new());
    let rejected = |vm: &mut metis_vm::Vm<Dummy>, tx: &Transaction| match vm.transact(tx) {
        Err(VmError::Rejected(why)) => why,
        other => panic!("{other:?}"),
    };
    let too_low = rejected(&mut vm, &tx.clone().with_gas(20_999));
    assert!(matches!(too_low, InvalidTransaction::CallGasCostMoreThanGasLimit { .. }));
    let nonce = rejected(&mut vm, &tx.with_nonce(3));
    assert_eq!(nonce, InvalidTransaction::NonceTooHigh { tx: 3, state: 0 });
    let poor = rejected(&mut vm, &Transaction::call(BOB, ALICE, Bytes::new()).with_value(U256::ONE));
    assert!(matches!(poor, InvalidTransaction::LackOfFundForMaxFee { .. }));
    assert_eq!(vm.state(), before);
}

#[test]
fn the_gas_cap_is_the_forks_own_until_raised() {
    const OSAKA_CAP: u64 = 1 << 24;
    let greedy = Transaction::call(ALICE, BOB, Bytes::new()).with_gas(OSAKA_CAP + 1);
    let builder = EvmBuilder::new().state(state_with(Bytes::new()));
    let refused = builder.clone().build(Dummy::new()).transact(&greedy);
    assert!(
        matches!(refused, Err(VmError::Rejected(InvalidTransaction::TxGasLimitGreaterThanCap { .. }))),
        "{refused:?}"
    );
    assert!(builder.clone().fork(SpecId::PRAGUE).build(Dummy::new()).transact(&greedy).unwrap().is_success());
    let mut raised = builder.clone().tx_gas_limit_cap(1 << 28).build(Dummy::new());
    assert_eq!(raised.complete(&Transaction::call(ALICE, BOB, Bytes::new())).gas, 1 << 28);
    assert!(raised.transact(&greedy).unwrap().is_success());
    let open = Transaction::call(ALICE, BOB, Bytes::new());
    assert_eq!(builder.build(Dummy::new()).complete(&open).gas, OSAKA_CAP);
}

#[test]
fn contracts_see_the_block_and_the_chain() {
    // number timestamp basefee gaslimit prevrandao coinbase chainid, each stored at its own word
    let mut code = vec![];
    for (i, op) in [0x43u8, 0x42, 0x48, 0x45, 0x44, 0x41, 0x46].into_iter().enumerate() {
        code.extend([op, 0x60, 32 * i as u8, 0x52]);
    }
    code.extend(bytes!("60e0 6000 f3"));
    let block = BlockInfo {
        number: 11,
        timestamp: 12,
        base_fee: 13,
        gas_limit: 14_000_000,
        prevrandao: U256::from(15).into(),
        coinbase: Address::with_last_byte(16),
        metered: None,
    };
    for fork in [SpecId::LONDON, SpecId::OSAKA] {
        let builder = EvmBuilder::new().fork(fork).chain_id(17).block(block.clone());
        let mut vm = builder.state(state_with(code.clone())).build(Dummy::new());
        let output = vm.transact(&Transaction::call(ALICE, CONTRACT, Bytes::new())).unwrap().output;
        let words: Vec<u64> = output.chunks(32).map(|w| U256::from_be_slice(w).to()).collect();
        assert_eq!(words, [11, 12, 13, 14_000_000, 15, 16, 17], "{fork}");
    }
}

#[test]
fn events_are_in_the_outcome() {
    // log2(data = calldata, topics 0xaa 0xbb)
    let code = bytes!("36 6000 6000 37 60bb 60aa 36 6000 a2");
    let outcome =
        vm(SpecId::OSAKA, code).transact(&Transaction::call(ALICE, CONTRACT, bytes!("beef"))).unwrap();
    let [log] = outcome.logs.as_slice() else { panic!("{outcome:?}") };
    assert_eq!((log.address, &log.data), (CONTRACT, &bytes!("beef")));
    assert_eq!(log.topics, [U256::from(0xaa).into(), U256::from(0xbb).into()] as [alloy_primitives::B256; 2]);
}

#[test]
fn a_destroyed_contract_is_gone_and_an_overlay_replaces_whole_accounts() {
    // selfdestruct(BOB) before Cancun
    let code = [&[0x73][..], BOB.as_slice(), &[0xff]].concat();
    let mut vm = vm(SpecId::LONDON, code);
    vm.transact(&Transaction::call(ALICE, CONTRACT, Bytes::new()).with_value(U256::from(5))).unwrap();
    let state = vm.state();
    assert!(!state.accounts.contains_key(&CONTRACT));
    assert_eq!(state.accounts[&BOB].balance, U256::from(5));

    let top = State::from_iter([(BOB, Account { nonce: 3, ..Account::default() })]);
    vm.overlay(&top);
    assert_eq!(vm.state().accounts[&BOB], top.accounts[&BOB]);
    let mut value = state;
    value.overlay(top);
    assert_eq!(vm.state(), value);
}

/// A precompile may read the state of an account that the transaction has not touched.
#[test]
fn a_precompile_reads_storage_in_a_transaction_of_its_own() {
    let mut vm = vm(SpecId::OSAKA, store());
    vm.transact(&Transaction::call(ALICE, CONTRACT, word(42))).unwrap();
    let outcome = vm.transact(&Transaction::call(ALICE, DUMMY, [4u8])).unwrap();
    assert_eq!((outcome.status, outcome.output), (Status::Success, word(0)));
}

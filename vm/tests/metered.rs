//! Metered gas: a second price and a second limit within one gas limit.
#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

mod support;

use alloy_primitives::{Address, Bytes, U256, bytes};
use metis_vm::{BlockInfo, EvmBuilder, MeteredBlock, Record, Recorder, Status, Transaction, Vm, VmError};
use proptest::prelude::*;
use support::{ALICE, CONTRACT, DUMMY, DUMMY_GAS, Dummy, Via, forwarder, state_with};

const MINER: Address = Address::repeat_byte(0xcb);

fn machine(code: impl Into<Bytes>, base_fee: u64, metered: Option<MeteredBlock>) -> Vm<Dummy> {
    let block = BlockInfo { base_fee, coinbase: MINER, metered, ..BlockInfo::default() };
    EvmBuilder::new().block(block).state(state_with(code)).build(Dummy::new())
}

fn balance(vm: &Vm<Dummy>, address: Address) -> U256 {
    vm.state().accounts.get(&address).map_or(U256::ZERO, |account| account.balance)
}

fn times(gas: u64, price: u64) -> U256 {
    U256::from(gas) * U256::from(price)
}

proptest! {
    #[test]
    fn each_part_pays_its_own_price_and_never_more_than_was_offered(
        base_fee in 0u64..100,
        metered_base_fee in 0u64..300,
        offered in 0u64..400,
        tip in proptest::option::of(0u64..50),
        gas in 22_000u64..200_000,
        input in prop_oneof![Just(vec![0u8, 7]), Just(vec![1]), Just(vec![3])],
    ) {
        let offered = offered.max(base_fee).max(tip.unwrap_or(0));
        let metered_block = MeteredBlock { base_fee: metered_base_fee, gas_limit: 1_000_000 };
        let mut vm = machine(forwarder(Via::Call, DUMMY), base_fee, Some(metered_block));
        let before = balance(&vm, ALICE);
        let mut tx = Transaction::call(ALICE, CONTRACT, input).with_gas(gas).with_gas_price(offered.into());
        tx.max_priority_fee = tip.map(u128::from);
        let outcome = vm.transact(&tx).unwrap();

        let effective = |base: u64| tip.map_or(offered, |tip| offered.min(base + tip));
        let (used, metered) = (outcome.gas_used, outcome.metered_gas_used);
        prop_assert!(metered <= used);
        let affordable = offered >= metered_base_fee;
        prop_assert!(affordable || metered == 0);
        let paid = before - balance(&vm, ALICE);
        let expected = times(used - metered, effective(base_fee)) + times(metered, effective(metered_base_fee));
        prop_assert_eq!(paid, expected);
        prop_assert!(paid <= times(gas, offered));
        let burnt = times(used - metered, base_fee) + times(metered, metered_base_fee);
        prop_assert_eq!(balance(&vm, MINER), paid - burnt);
    }

    #[test]
    fn without_a_second_price_nothing_changes(base_fee in 0u64..100, more in 0u64..100, input: Vec<u8>) {
        let tx = Transaction::call(ALICE, CONTRACT, input).with_gas(100_000);
        let tx = tx.with_gas_price((base_fee + more).into());
        let mut plain = machine(forwarder(Via::Call, DUMMY), base_fee, None);
        let same = MeteredBlock { base_fee, gas_limit: u64::MAX };
        let mut metered = machine(forwarder(Via::Call, DUMMY), base_fee, Some(same));
        match (plain.transact(&tx), metered.transact(&tx)) {
            (Ok(plain_outcome), Ok(mut outcome)) => {
                outcome.metered_gas_used = 0;
                prop_assert_eq!(plain_outcome, outcome);
            }
            (plain_error, error) => prop_assert_eq!(plain_error, error),
        }
        prop_assert_eq!(plain.state(), metered.state());
    }
}

#[test]
fn what_is_metered_counts_even_where_the_frame_reverts() {
    let block = MeteredBlock { base_fee: 5, gas_limit: 10_000 };
    let mut vm = machine(forwarder(Via::Call, DUMMY), 1, Some(block));
    let outcome = vm.transact(&Transaction::call(ALICE, CONTRACT, bytes!("01")).with_gas_price(9)).unwrap();
    assert_eq!((outcome.status, outcome.metered_gas_used), (Status::Revert, DUMMY_GAS));
    assert_eq!(vm.metered(), DUMMY_GAS);
}

#[test]
fn the_block_has_a_limit_and_the_next_block_another() {
    let block = MeteredBlock { base_fee: 0, gas_limit: 2 * DUMMY_GAS + 1 };
    let mut vm = machine(forwarder(Via::Call, DUMMY), 0, Some(block));
    let tx = Transaction::call(ALICE, CONTRACT, bytes!("00"));
    // A simulation takes nothing from the block.
    assert!(vm.simulate(&tx).unwrap().is_success());
    let succeeded: Vec<bool> = (0..3).map(|_| vm.transact(&tx).unwrap().is_success()).collect();
    assert_eq!(succeeded, [true, true, false]);
    assert_eq!(vm.metered(), 2 * DUMMY_GAS);
    vm.set_block(BlockInfo { number: 2, ..vm.config().block.clone() });
    assert!(vm.transact(&tx).unwrap().is_success());
}

#[test]
fn a_fatal_or_rejected_transaction_takes_nothing_from_the_block() {
    let block = MeteredBlock { base_fee: 0, gas_limit: DUMMY_GAS };
    let mut vm = machine(forwarder(Via::Call, DUMMY), 0, Some(block));
    let before = vm.state();
    assert!(matches!(vm.transact(&Transaction::call(ALICE, CONTRACT, bytes!("02"))), Err(VmError::Fatal(_))));
    assert_eq!((vm.metered(), vm.state()), (0, before));
    assert!(vm.transact(&Transaction::call(ALICE, CONTRACT, bytes!("00"))).unwrap().is_success());
}

#[test]
fn a_sender_must_be_able_to_pay_the_offered_price_for_all_gas() {
    let block = MeteredBlock { base_fee: 1_000, gas_limit: u64::MAX };
    let mut vm = machine(forwarder(Via::Call, DUMMY), 1, Some(block));
    let rich = balance(&vm, ALICE);
    let price: u128 = (rich / U256::from(100_000)).to::<u128>() + 1;
    let tx = Transaction::call(ALICE, CONTRACT, bytes!("00")).with_gas(100_000);
    assert!(matches!(vm.transact(&tx.clone().with_gas_price(price)), Err(VmError::Rejected(_))));
    let outcome = vm.transact(&tx.with_gas_price(price - 1)).unwrap();
    assert!(outcome.is_success());
    assert_eq!(balance(&vm, ALICE), rich - times(outcome.gas_used, (price - 1) as u64));
}

#[test]
fn refunds_of_storage_take_nothing_off_what_is_metered() {
    // Calls the dummy 100 times if there is calldata, then clears ten slots.
    let mut code =
        bytes!("36 15 6029 57 6064 5b 6000 6000 6000 6000 6000 61a100 5a f1 50 6001 90 03 80 6007 57 50 5b")
            .to_vec();
    let end = code.len() as u8 - 1;
    code[3] = end;
    for slot in 1..=10u8 {
        code.extend([0x60, 0, 0x60, slot, 0x55]);
    }
    let block = MeteredBlock { base_fee: 0, gas_limit: u64::MAX };
    let run = |metered: Option<MeteredBlock>, input: Bytes| {
        let mut state = state_with(code.clone());
        let slots = (1..=10u64).map(|slot| (U256::from(slot), U256::from(1)));
        state.accounts.get_mut(&CONTRACT).unwrap().storage.extend(slots);
        let info = BlockInfo { metered, ..BlockInfo::default() };
        let mut vm = EvmBuilder::new().block(info).state(state).build(Dummy::new());
        vm.transact(&Transaction::call(ALICE, CONTRACT, input)).unwrap()
    };
    let without = run(Some(block), Bytes::new());
    assert_eq!(
        (without.metered_gas_used, without.gas_refunded),
        (0, (without.gas_used + without.gas_refunded) / 5)
    );
    let with = run(Some(block), bytes!("01"));
    assert_eq!(with.metered_gas_used, 100 * DUMMY_GAS);
    let execution = with.gas_used + with.gas_refunded - with.metered_gas_used;
    assert_eq!(with.gas_refunded, execution / 5, "a fifth of what is not metered");
    assert!(run(None, bytes!("01")).gas_refunded > with.gas_refunded);
}

#[test]
fn a_record_that_begins_within_a_block_knows_what_the_block_had_used() {
    let block = MeteredBlock { base_fee: 0, gas_limit: 2 * DUMMY_GAS };
    let mut vm = machine(forwarder(Via::Call, DUMMY), 0, Some(block));
    let tx = Transaction::call(ALICE, CONTRACT, bytes!("00"));
    assert!(vm.transact(&tx).unwrap().is_success());
    let mut recorder = Recorder::new(vm, serde_json::Value::Null);
    let succeeded = [(); 2].map(|()| recorder.transact(&tx).unwrap().is_success());
    assert_eq!(succeeded, [true, false], "the block has room for one more");
    let (record, _) = recorder.finish();
    let text = record.to_json().unwrap();
    assert!(text.contains("\"meteredGasUsed\": 1000"), "{text}");
    Record::from_json(&text).unwrap().verify(Dummy::new()).unwrap();
    let forgetful = Record { metered_gas_used: 0, ..record };
    assert!(forgetful.verify(Dummy::new()).is_err());
}

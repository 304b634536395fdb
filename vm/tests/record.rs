//! Records: written, read, replayed, and caught lying.
#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its failure report")]

mod support;

use alloy_primitives::{B256, Bytes, U256, bytes};
use metis_vm::{
    Difference, EvmBuilder, Record, RecordError, Recorder, SpecId, Status, Transaction, VerifyError, VmError,
    record::{Field, Place},
};
use proptest::{prelude::*, sample::Index};
use serde_json::json;
use std::sync::LazyLock;
use support::{ALICE, BOB, CONTRACT, DUMMY, Dummy, Via, forwarder, state_with};

/// A run with a success, an event, a creation, a revert, a halt, a refund and a transfer.
fn recorded() -> Record {
    let vm = EvmBuilder::new()
        .chain_id(7)
        .state(state_with(forwarder(Via::StaticCall, DUMMY)))
        .build(Dummy::new());
    let mut recorder = Recorder::new(vm, json!({"name": "test", "macsPerGas": 10}));
    // initcode: sstore(0, 1); log1(0, 32, 0xaa); return the code `sstore(0, 0)`
    let initcode = bytes!("6001 6000 55 60aa 6020 6000 a1 64 6000 6000 55 6000 52 6005 601b f3");
    let call = |input: Bytes| Transaction::call(ALICE, CONTRACT, input).with_gas(100_000);
    recorder.transact(&call(bytes!("0001"))).unwrap();
    let created =
        recorder.transact(&Transaction::create(ALICE, initcode).with_gas(200_000)).unwrap().created_address;
    recorder.transact(&call(bytes!("01c0ffee"))).unwrap();
    recorder.transact(&Transaction::call(ALICE, DUMMY, bytes!("03")).with_gas(50_000)).unwrap();
    let clear = Transaction::call(ALICE, created.unwrap(), Bytes::new()).with_gas(100_000);
    recorder.transact(&clear).unwrap();
    recorder
        .transact(&Transaction::call(ALICE, BOB, Bytes::new()).with_value(U256::from(5)).with_gas(21_000))
        .unwrap();
    // Neither of these is part of the run.
    recorder.simulate(&call(bytes!("00"))).unwrap();
    assert!(matches!(recorder.transact(&call(bytes!("02"))), Err(VmError::Fatal(_))));
    assert!(matches!(recorder.transact(&call(bytes!("00")).with_nonce(99)), Err(VmError::Rejected(_))));

    let (record, vm) = recorder.finish();
    assert_eq!(record.post_state_digest, vm.state().digest());
    let outcomes = &record.outcomes;
    assert_eq!(outcomes.len(), 6);
    assert_eq!(outcomes[1].logs.len(), 1);
    assert_eq!(outcomes[2].status, Status::Revert);
    assert!(matches!(outcomes[3].status, Status::Halt { .. }));
    assert!(outcomes[4].gas_refunded > 0);
    record
}

static RECORD: LazyLock<Record> = LazyLock::new(recorded);

fn difference(record: &Record) -> Difference {
    match record.verify(Dummy::new()) {
        Err(VerifyError::Differs(difference)) => difference,
        other => panic!("{other:?}"),
    }
}

fn field_of(record: &Record) -> (usize, Field) {
    match difference(record).place {
        Place::Transaction { index, field } => (index, field),
        Place::PostState => panic!("only the post state differs"),
    }
}

#[test]
fn a_record_is_confirmed_also_through_text() {
    RECORD.verify(Dummy::new()).unwrap();
    let text = RECORD.to_json().unwrap();
    let back = Record::from_json(&text).unwrap();
    assert_eq!(back, *RECORD);
    assert_eq!(back.to_json().unwrap(), text);
    back.verify(Dummy::new()).unwrap();
}

#[test]
fn the_format_is_frozen() {
    let value = serde_json::to_value(&*RECORD).unwrap();
    let keys: Vec<_> = value.as_object().unwrap().keys().collect();
    let expected = [
        "block",
        "chain",
        "chainId",
        "fork",
        "outcomes",
        "postStateDigest",
        "preState",
        "transactions",
        "txGasLimitCap",
        "version",
    ];
    let mut sorted = keys.clone();
    sorted.sort();
    assert_eq!(sorted, expected);
    assert_eq!(value["fork"], "Osaka");
    assert_eq!(value["outcomes"][0]["status"], "success");
    assert_eq!(value["outcomes"][2]["status"], "revert");
    assert_eq!(value["outcomes"][3]["status"], json!({"halt": {"reason": {"OutOfGas": "Precompile"}}}));
    assert_eq!(value["transactions"][1]["to"], serde_json::Value::Null);
    assert_eq!(value["transactions"][5]["value"], "0x5");
    assert_eq!(value["outcomes"][0]["createdAddress"], serde_json::Value::Null);
    assert_eq!(value["transactions"][0]["gasPrice"], 0);
}

#[test]
fn each_changed_field_of_an_outcome_is_found() {
    type Change = fn(&mut metis_vm::Outcome);
    let changes: [(usize, Field, Change); 8] = [
        (0, Field::Status, |o| o.status = Status::Revert),
        (0, Field::Output, |o| o.output = bytes!("01")),
        (3, Field::GasUsed, |o| o.gas_used += 1),
        (4, Field::GasRefunded, |o| o.gas_refunded = 0),
        (1, Field::CreatedAddress, |o| o.created_address = None),
        (1, Field::Log(0), |o| o.logs[0].topics[0] = B256::ZERO),
        (1, Field::LogCount, |o| o.logs.clear()),
        (5, Field::LogCount, |o| {
            o.logs.push(metis_vm::Log { address: BOB, topics: vec![], data: bytes!("") });
        }),
    ];
    for (index, field, change) in changes {
        let mut record = RECORD.clone();
        change(&mut record.outcomes[index]);
        assert_eq!(field_of(&record), (index, field));
    }
    let mut record = RECORD.clone();
    record.outcomes[3].gas_used = 49_999;
    assert_eq!(difference(&record).to_string(), "transaction 3: gas used: recorded 49999, recomputed 50000");
}

#[test]
fn each_changed_input_of_the_run_is_found() {
    type Change = fn(&mut Record);
    let changes: [(&str, Change); 9] = [
        ("from", |r| r.transactions[0].from = BOB),
        ("to", |r| r.transactions[5].to = Some(CONTRACT)),
        ("value", |r| r.transactions[5].value = U256::from(6)),
        ("input", |r| r.transactions[0].input = bytes!("0002")),
        ("gas", |r| r.transactions[3].gas = 60_000),
        ("gasPrice", |r| r.transactions[0].gas_price = 1),
        ("nonce", |r| r.transactions[0].nonce = 1),
        ("fork", |r| r.fork = SpecId::HOMESTEAD),
        ("preState", |r| _ = r.pre_state.accounts.remove(&ALICE)),
    ];
    for (name, change) in changes {
        let mut record = RECORD.clone();
        change(&mut record);
        assert!(matches!(record.verify(Dummy::new()), Err(VerifyError::Differs(_))), "{name}");
    }
    let mut record = RECORD.clone();
    record.post_state_digest = B256::ZERO;
    assert_eq!(difference(&record).place, Place::PostState);
}

#[test]
fn a_transaction_that_may_not_be_executed_is_a_difference() {
    let mut record = RECORD.clone();
    record.transactions[2].nonce = 40;
    assert_eq!(field_of(&record), (2, Field::Accepted));
}

#[test]
fn a_machine_without_weights_confirms_nothing_and_denies_nothing() {
    let mut record = RECORD.clone();
    record.transactions[0].input = bytes!("02");
    let result = record.verify(Dummy::new());
    assert!(matches!(result, Err(VerifyError::Fatal { index: 0, .. })), "{result:?}");
}

#[test]
fn malformed_records_are_typed_errors() {
    assert!(matches!(Record::from_json("{}"), Err(RecordError::Json(_))));
    assert!(matches!(Record::from_json(r#"{"version": 2, "later": []}"#), Err(RecordError::Version(2))));
    let mut record = RECORD.clone();
    record.outcomes.pop();
    let text = record.to_json().unwrap();
    assert!(matches!(Record::from_json(&text), Err(RecordError::Counts { transactions: 6, outcomes: 5 })));
    assert!(matches!(record.verify(Dummy::new()), Err(VerifyError::Malformed(_))));

    let mut value = serde_json::to_value(&*RECORD).unwrap();
    value["surprise"] = json!(1);
    let error = Record::from_json(&value.to_string()).unwrap_err().to_string();
    assert!(error.contains("surprise"), "{error}");
    let bad_state = RECORD.to_json().unwrap().replacen("\"nonce\": 1", "\"nonce\": \"one\"", 1);
    let error = Record::from_json(&bad_state).unwrap_err().to_string();
    assert!(error.contains("field nonce") && error.contains("line "), "{error}");
    assert!(Record::from_json(&RECORD.to_json().unwrap().replace("\"Osaka\"", "\"Oslo\"")).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn mutated_text_never_panics(edits in proptest::collection::vec((any::<Index>(), 0u8..8, any::<u8>()), 1..5)) {
        static TEXT: LazyLock<String> = LazyLock::new(|| serde_json::to_string(&*RECORD).unwrap());
        let mut text = TEXT.as_bytes().to_vec();
        for (place, kind, byte) in edits {
            let at = place.index(text.len());
            match kind {
                0 => text[at] = byte,
                1 => text[at] = b"0123456789abcdefx\"{}[],:-."[usize::from(byte) % 26],
                2 => _ = text.remove(at),
                3 => text.insert(at, b"0123456789abcdef"[usize::from(byte) % 16]),
                // Most of the text is hexadecimal digits: this often leaves a record.
                _ => text[at] = b"0123456789abcdef"[usize::from(byte) % 16],
            }
        }
        replay(&String::from_utf8_lossy(&text));
    }

    /// As above, but the text stays JSON: any value is replaced by another.
    #[test]
    fn mutated_values_never_panic(edits in proptest::collection::vec((any::<Index>(), any::<Index>()), 1..4)) {
        let words = [
            json!(null), json!(true), json!(-1), json!(0), json!(1.5), json!(u64::MAX), json!([]), json!({}), json!(""),
            json!("0x"), json!("0x0"), json!("0xef0100"), json!("0xff"), json!(U256::MAX), json!(B256::ZERO), json!(ALICE),
            json!(CONTRACT), json!(DUMMY), json!("0x600035ff"), json!("0x5b600056"), json!("Frontier"), json!("Amsterdam"),
        ];
        let mut value = serde_json::to_value(&*RECORD).unwrap();
        for (place, word) in edits {
            let mut paths = vec![];
            paths_of(&value, String::new(), &mut paths);
            let path = &paths[place.index(paths.len())];
            *value.pointer_mut(path).unwrap() = words[word.index(words.len())].clone();
        }
        replay(&value.to_string());
    }
}

/// Reads and executes it as it comes, only the gas is cut to what a test can wait for.
fn replay(text: &str) {
    if let Ok(mut record) = Record::from_json(text) {
        for tx in &mut record.transactions {
            tx.gas = tx.gas.min(1 << 24);
        }
        let _ = record.verify(Dummy::new());
    }
}

fn paths_of(value: &serde_json::Value, path: String, paths: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(map) => {
            map.iter().for_each(|(key, value)| paths_of(value, format!("{path}/{key}"), paths));
        }
        serde_json::Value::Array(list) => {
            list.iter().enumerate().for_each(|(i, value)| paths_of(value, format!("{path}/{i}"), paths));
        }
        _ => {}
    }
    paths.push(path);
}

//! What transactions to the system contracts cost: `contracts/gas-snapshot.txt`, written by `METISVM_BLESS=1`.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

use std::fmt::Write as _;
use std::path::Path;

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_sol_types::{SolCall, SolEvent};
use metis_precompiles::abi::{Sampling, generateCall};
use metis_precompiles::{GATEWAY_ADDRESS, REGISTRY_ADDRESS, SHARES_ADDRESS};
use metis_tests::economy::{AUTHOR, DAY, Economy, STRANGER, USER, free, priced};
use metis_tests::signer::{Authorization, Signer};
use metis_vm::Outcome;
use metisvm::contracts::{Gateway, Registry, Shares};

const NOTHING: U256 = U256::ZERO;
/// What a paid call may cost on top of the inference.
const MOST_OF_A_PAID_CALL: u64 = 80_000;

struct Snapshot {
    chain: Economy,
    text: String,
}

impl Snapshot {
    fn line(&mut self, contract: &str, function: &str, gas: u64) {
        writeln!(self.text, "{contract:<9} {function:<44} {gas:>8}").unwrap();
    }

    /// A transaction's gas, calldata and the 21,000 of every transaction included, without that of the inference in it.
    fn measure<C: SolCall>(
        &mut self,
        from: Address,
        to: Address,
        value: U256,
        call: &C,
        note: &str,
    ) -> Outcome {
        let (outcome, _) = self.chain.ok(from, to, value, call).unwrap();
        let contract =
            [(REGISTRY_ADDRESS, "registry"), (GATEWAY_ADDRESS, "gateway"), (SHARES_ADDRESS, "shares")];
        let contract = contract.iter().find(|(address, _)| *address == to).unwrap().1;
        let name = C::SIGNATURE.split('(').next().unwrap();
        let function = if note.is_empty() { name.to_owned() } else { format!("{name}, {note}") };
        let inference = inference(&outcome);
        self.line(contract, &function, outcome.gas_used + outcome.gas_refunded - inference);
        outcome
    }
}

/// Gas of the inference in a call of the gateway.
fn inference(outcome: &Outcome) -> u64 {
    let called = outcome
        .logs
        .iter()
        .find_map(|log| Gateway::Called::decode_raw_log(log.topics.iter().copied(), &log.data).ok());
    called.map_or(0, |called| called.gasUsed.to())
}

fn generate(model: B256) -> Bytes {
    let prompt = "Review: the food was cold and the waiter was rude. In one word, the review is";
    generateCall {
        model,
        prompt: Bytes::from_static(prompt.as_bytes()),
        maxNew: 8,
        s: Sampling { temperatureQ16: 0, topPQ16: 0, topK: 0, seed: 0 },
        stopIds: Vec::new(),
    }
    .abi_encode()
    .into()
}

#[test]
fn gas_is_as_the_snapshot_says() {
    let chain = Economy::new(|_| {}).unwrap();
    let mut snapshot = Snapshot { chain, text: String::new() };
    let s = &mut snapshot;
    let (first, second) = (s.chain.model(1).unwrap(), s.chain.model(2).unwrap());
    let id = first.id;
    let salt = B256::repeat_byte(1);
    let commitment = Registry::commitmentOfCall { model: id, author: AUTHOR, salt };
    let commitment = s.chain.view(REGISTRY_ADDRESS, &commitment).unwrap();
    s.measure(AUTHOR, REGISTRY_ADDRESS, NOTHING, &Registry::commitCall { commitment }, "");
    s.chain.wait(1);
    let terms = priced(1_000_000, 7);
    let register = Registry::registerCall { model: id, claims: first.claims, terms, salt };
    s.measure(AUTHOR, REGISTRY_ADDRESS, Economy::bond(), &register, "");
    s.chain.wait(100);
    let activate = Registry::activateCall { model: id, daysPaid: 1 };
    s.measure(AUTHOR, REGISTRY_ADDRESS, Economy::rent(1), &activate, "with 200,000 for each MiB");
    let extend = Registry::extendCall { model: id, daysPaid: 1 };
    s.measure(USER, REGISTRY_ADDRESS, Economy::rent(1), &extend, "");
    let price = Registry::setPriceCall { model: id, perCall: register.terms.perCall, perGas: 8 };
    s.measure(AUTHOR, REGISTRY_ADDRESS, NOTHING, &price, "");
    let transfer = Registry::transferOwnershipCall { model: id, to: STRANGER };
    s.measure(AUTHOR, REGISTRY_ADDRESS, NOTHING, &transfer, "");
    s.measure(STRANGER, REGISTRY_ADDRESS, NOTHING, &Registry::acceptOwnershipCall { model: id }, "");
    s.measure(AUTHOR, REGISTRY_ADDRESS, NOTHING, &Registry::collectCall {}, "");
    // Another one dies.
    s.chain.activate(&second, free()).unwrap();
    s.measure(AUTHOR, REGISTRY_ADDRESS, NOTHING, &Registry::deprecateCall { model: second.id }, "");
    s.chain.wait(50);
    s.measure(USER, REGISTRY_ADDRESS, NOTHING, &Registry::evictCall { model: second.id }, "");
    s.measure(AUTHOR, REGISTRY_ADDRESS, NOTHING, &Registry::withdrawBondCall { model: second.id }, "");

    let class = U256::from(1);
    let mint = |share: u64, value: u64, expire_at| Shares::mintCall {
        classId: class,
        to: USER,
        value: U256::from(value),
        shareRatio: U256::from(share),
        expireAt: expire_at,
    };
    let end = s.chain.time() + DAY / 4;
    s.measure(STRANGER, SHARES_ADDRESS, NOTHING, &mint(100, 0, 0), "shares");
    s.measure(STRANGER, SHARES_ADDRESS, NOTHING, &mint(100, 0, end), "shares that expire");
    s.measure(STRANGER, SHARES_ADDRESS, NOTHING, &mint(0, 1 << 40, 0), "a quota");
    let quota = (class << 64) | U256::from(4);

    let data = generate(id);
    let money = U256::from(1u64 << 40);
    let call = Gateway::callCall { data: data.clone() };
    let paid = s.measure(USER, GATEWAY_ADDRESS, money, &call, "the first of a model");
    assert!(paid.gas_used - inference(&paid) <= MOST_OF_A_PAID_CALL + 20_000);
    let paid = s.measure(USER, GATEWAY_ADDRESS, money, &call, "");
    let over = paid.gas_used - inference(&paid);
    assert!(over <= MOST_OF_A_PAID_CALL, "a paid call costs {over} on top of the inference");
    let by_quota = Gateway::callWithQuotaCall { tokenId: quota, data: data.clone() };
    s.measure(USER, GATEWAY_ADDRESS, NOTHING, &by_quota, "");
    let signer = Signer::new(5);
    s.measure(USER, GATEWAY_ADDRESS, money, &Gateway::depositCall { account: signer.address }, "");
    let signed = |nonce: u64| {
        let authorization = Authorization {
            signer: signer.address,
            callHash: keccak256(&data),
            tokenId: NOTHING,
            maxPrice: U256::MAX,
            nonce: U256::from(nonce),
            deadline: U256::MAX,
        };
        let signature = signer.sign(1, GATEWAY_ADDRESS, &authorization);
        Gateway::callForCall { authorization: (&authorization).into(), signature, data: data.clone() }
    };
    s.measure(STRANGER, GATEWAY_ADDRESS, NOTHING, &signed(0), "the first of a signer");
    s.measure(STRANGER, GATEWAY_ADDRESS, NOTHING, &signed(1), "");
    s.measure(USER, GATEWAY_ADDRESS, NOTHING, &Gateway::cancelNonceCall { nonce: NOTHING }, "");
    s.measure(USER, GATEWAY_ADDRESS, U256::from(9), &Gateway::depositCall { account: USER }, "one's own");
    let withdraw = Gateway::withdrawCall { amount: U256::from(4), to: USER };
    s.measure(USER, GATEWAY_ADDRESS, NOTHING, &withdraw, "");

    let settle = Shares::settleRevenueETHCall { classId: class };
    s.measure(USER, SHARES_ADDRESS, money, &settle, "");
    s.chain.wait(DAY / 4 + 1);
    let observe = Shares::observeExpiryCall { tokenId: (class << 64) | U256::from(3) };
    s.measure(STRANGER, SHARES_ADDRESS, NOTHING, &observe, "the first of a time");
    s.measure(USER, SHARES_ADDRESS, money, &settle, "after an expiry that was observed");
    s.chain.ok(STRANGER, SHARES_ADDRESS, NOTHING, &mint(100, 0, s.chain.time() + 1)).unwrap();
    s.chain.wait(2);
    s.measure(USER, SHARES_ADDRESS, money, &settle, "after an expiry that was not");
    let claim = |number: u64, to| Shares::claimCall {
        tokenId: (class << 64) | U256::from(number),
        asset: Address::ZERO,
        to,
    };
    s.measure(AUTHOR, SHARES_ADDRESS, NOTHING, &claim(1, AUTHOR), "");
    s.measure(USER, SHARES_ADDRESS, NOTHING, &claim(3, USER), "of a token that has expired");
    // The worst that a settlement can find.
    for second in 1..=32 {
        s.chain.ok(STRANGER, SHARES_ADDRESS, NOTHING, &mint(1, 0, s.chain.time() + second)).unwrap();
    }
    s.chain.wait(33);
    s.measure(USER, SHARES_ADDRESS, money, &settle, "after 32 expiries that were not");

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contracts/gas-snapshot.txt");
    let text = format!(
        "Gas of transactions to the system contracts, refunds not taken off: the 21,000 of every transaction and\n\
         calldata included, the gas of the inference itself taken off. cargo test -p metis-tests --test gas_snapshot\n\n{}",
        snapshot.text
    );
    if std::env::var_os("METISVM_BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(written, text, "METISVM_BLESS=1 writes it anew");
}

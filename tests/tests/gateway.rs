//! Calls of models that have a price: by money, by quota, and signed for.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_sol_types::{SolCall, SolEvent};
use metis_precompiles::abi::{self, Sampling, generateCall};
use metis_precompiles::{GATEWAY_ADDRESS, INFERENCE_ADDRESS, REGISTRY_ADDRESS, SHARES_ADDRESS};
use metis_tests::economy::{AUTHOR, Economy, STRANGER, USER, free, priced};
use metis_tests::signer::{Authorization, Signer};
use metis_vm::{Account, Outcome, Status, Transaction};
use metisvm::contracts::{Gateway, Registry, Shares};

const NOTHING: U256 = U256::ZERO;
const PER_CALL: u64 = 1_000_000;
const PER_GAS: u64 = 7;

fn generate(model: B256, max_new: u32) -> Vec<u8> {
    generateCall {
        model,
        prompt: Bytes::from_static(b"once"),
        maxNew: max_new,
        s: Sampling { temperatureQ16: 0, topPQ16: 0, topK: 0, seed: 0 },
        stopIds: Vec::new(),
    }
    .abi_encode()
}

/// A chain with an active priced model; the model and its class.
fn chain() -> (Economy, B256, U256) {
    let mut chain = Economy::new(|_| {}).unwrap();
    let model = chain.model(1).unwrap();
    let class = chain.activate(&model, priced(PER_CALL, PER_GAS)).unwrap();
    (chain, model.id, class)
}

fn founder_token(class: U256) -> U256 {
    (class << 64) | U256::from(1)
}

fn called(outcome: &Outcome) -> Gateway::Called {
    let log = outcome.logs.iter().find(|log| log.topics[0] == Gateway::Called::SIGNATURE_HASH).unwrap();
    Gateway::Called::decode_raw_log(log.topics.iter().copied(), &log.data).unwrap()
}

#[test]
fn a_paid_call_answers_pays_the_shares_and_gives_the_rest_back() {
    let (mut chain, model, class) = chain();
    let data = generate(model, 4);
    let quote = Gateway::quoteCall { model, promptTokens: 8, maxNew: 4 };
    let most = chain.view(GATEWAY_ADDRESS, &quote).unwrap();
    let before = chain.balance(USER);
    let call = Gateway::callCall { data: data.clone().into() };
    let (outcome, answer) = chain.ok(USER, GATEWAY_ADDRESS, most, &call).unwrap();
    let event = called(&outcome);
    assert_eq!((event.model, event.payer, event.tokenId), (model, USER, NOTHING));
    assert_eq!(event.price, U256::from(PER_CALL) + U256::from(PER_GAS) * event.gasUsed);
    assert!(event.price <= most);
    assert_eq!(chain.balance(USER), before - event.price, "what is too much comes back");
    assert_eq!(chain.balance(GATEWAY_ADDRESS), NOTHING);

    // The answer is the model's own, and the gas is what the precompile took.
    chain
        .ok(
            AUTHOR,
            REGISTRY_ADDRESS,
            NOTHING,
            &Registry::setPriceCall { model, perCall: Default::default(), perGas: 0 },
        )
        .unwrap();
    let direct = chain.vm.simulate(&Transaction::call(USER, INFERENCE_ADDRESS, data)).unwrap();
    assert_eq!(answer, direct.output);

    let token = founder_token(class);
    let pending = Shares::pendingRevenueCall { tokenId: token, asset: Address::ZERO };
    let owed = chain.view(SHARES_ADDRESS, &pending).unwrap();
    assert!(event.price - owed <= U256::from(6_000), "{owed} of {}", event.price);
    let before = chain.balance(AUTHOR);
    let claim = Shares::claimCall { tokenId: token, asset: Address::ZERO, to: AUTHOR };
    assert_eq!(chain.ok(AUTHOR, SHARES_ADDRESS, NOTHING, &claim).unwrap().1, owed);
    assert_eq!(chain.balance(AUTHOR), before + owed);
}

#[test]
fn a_call_that_is_not_paid_does_not_happen() {
    let (mut chain, model, _) = chain();
    let call = Gateway::callCall { data: generate(model, 4).into() };
    let most = U256::from(u64::MAX);
    let (outcome, _) = chain.ok(USER, GATEWAY_ADDRESS, most, &call).unwrap();
    let price = called(&outcome).price;
    let exact = chain.send(USER, GATEWAY_ADDRESS, price, call.abi_encode()).unwrap();
    assert!(exact.is_success());
    let less = price - U256::from(1);
    let exceeded = Gateway::PriceExceeded { price, max: less };
    chain.reverts(USER, GATEWAY_ADDRESS, less, &call, &exceeded).unwrap();
    chain
        .reverts(
            USER,
            GATEWAY_ADDRESS,
            NOTHING,
            &Gateway::callCall { data: vec![1; 35].into() },
            &Gateway::BadCall {},
        )
        .unwrap();

    // What the precompile says reaches the caller, and nothing is paid.
    let data = generate(model, u32::MAX).into();
    let max = chain.node.config().caps.max_new_tokens;
    let error = abi::TooManyNewTokens { requested: u32::MAX, max };
    let before = chain.balance(USER);
    chain.reverts(USER, GATEWAY_ADDRESS, most, &Gateway::callCall { data }, &error).unwrap();
    assert_eq!(chain.balance(USER), before);
}

#[test]
fn free_models_and_the_default_model_cost_nothing_there() {
    let mut chain = Economy::new(|_| {}).unwrap();
    let model = chain.model(1).unwrap();
    chain.activate(&model, free()).unwrap();
    for id in [model.id, B256::ZERO] {
        let call = Gateway::callCall { data: generate(id, 2).into() };
        let (outcome, _) = chain.ok(USER, GATEWAY_ADDRESS, NOTHING, &call).unwrap();
        assert_eq!(called(&outcome).price, NOTHING);
    }
}

#[test]
fn a_quota_pays_for_its_gas_and_no_more() {
    let (mut chain, model, class) = chain();
    let mint = |value: u64, to: Address| Shares::mintCall {
        classId: class,
        to,
        value: U256::from(value),
        shareRatio: NOTHING,
        expireAt: 0,
    };
    let (_, token) = chain.ok(AUTHOR, SHARES_ADDRESS, NOTHING, &mint(10_000_000, USER)).unwrap();
    let data: Bytes = generate(model, 4).into();
    let call = Gateway::callWithQuotaCall { tokenId: token, data: data.clone() };
    let (outcome, _) = chain.ok(USER, GATEWAY_ADDRESS, NOTHING, &call).unwrap();
    let event = called(&outcome);
    assert_eq!((event.tokenId, event.price), (token, NOTHING));
    let left = chain.view(SHARES_ADDRESS, &Shares::valueOfCall { tokenId: token }).unwrap();
    assert_eq!(left, U256::from(10_000_000) - event.gasUsed);

    let not_owner = Gateway::NotTokenOwner { tokenId: token, caller: STRANGER };
    chain.reverts(STRANGER, GATEWAY_ADDRESS, NOTHING, &call, &not_owner).unwrap();
    let (_, small) = chain.ok(AUTHOR, SHARES_ADDRESS, NOTHING, &mint(10, USER)).unwrap();
    let call = Gateway::callWithQuotaCall { tokenId: small, data: data.clone() };
    let exceeded = Shares::QuotaExceeded { tokenId: small, wanted: event.gasUsed, left: U256::from(10) };
    chain.reverts(USER, GATEWAY_ADDRESS, NOTHING, &call, &exceeded).unwrap();

    // A token of another class is of no use.
    let other = Shares::createClassCall {
        metadataURI: String::new(),
        integrityHash: B256::ZERO,
        unitDecimals: 0,
        policyURI: String::new(),
    };
    let (_, other) = chain.ok(USER, SHARES_ADDRESS, NOTHING, &other).unwrap();
    let forged = Shares::mintCall { classId: other, ..mint(u64::MAX, USER) };
    let (_, forged) = chain.ok(USER, SHARES_ADDRESS, NOTHING, &forged).unwrap();
    let call = Gateway::callWithQuotaCall { tokenId: forged, data };
    let wrong = Gateway::WrongClass { tokenId: forged, classId: class };
    chain.reverts(USER, GATEWAY_ADDRESS, NOTHING, &call, &wrong).unwrap();
}

fn for_signer(authorization: &Authorization, signature: Bytes, data: &[u8]) -> Gateway::callForCall {
    let data = Bytes::copy_from_slice(data);
    Gateway::callForCall { authorization: authorization.into(), signature, data }
}

#[test]
fn what_is_signed_holds_once_for_one_call_on_one_chain() {
    let (mut chain, model, _) = chain();
    let signer = Signer::new(7);
    let chain_id = chain.node.config().chain_id;
    let data = generate(model, 4);
    let deposit = Gateway::depositCall { account: signer.address };
    chain.ok(USER, GATEWAY_ADDRESS, U256::from(1u64 << 50), &deposit).unwrap();

    let good = Authorization {
        signer: signer.address,
        callHash: keccak256(&data),
        tokenId: NOTHING,
        maxPrice: U256::from(1u64 << 40),
        nonce: U256::from(300),
        deadline: U256::from(chain.time() + 10),
    };
    let signature = signer.sign(chain_id, GATEWAY_ADDRESS, &good);
    let bad_signature = Gateway::BadSignature { signer: signer.address };
    // Other chain, other contract, other terms, no signature.
    for (authorization, signature) in [
        (good.clone(), signer.sign(chain_id + 1, GATEWAY_ADDRESS, &good)),
        (good.clone(), signer.sign(chain_id, SHARES_ADDRESS, &good)),
        (Authorization { maxPrice: good.maxPrice + U256::from(1), ..good.clone() }, signature.clone()),
        (Authorization { nonce: NOTHING, ..good.clone() }, signature.clone()),
        (good.clone(), Bytes::new()),
    ] {
        let call = for_signer(&authorization, signature, &data);
        chain.reverts(STRANGER, GATEWAY_ADDRESS, NOTHING, &call, &bad_signature).unwrap();
    }
    let other = generate(model, 5);
    let wrong = Gateway::WrongCall { signed: good.callHash, actual: keccak256(&other) };
    chain
        .reverts(STRANGER, GATEWAY_ADDRESS, NOTHING, &for_signer(&good, signature.clone(), &other), &wrong)
        .unwrap();

    // A price above what was signed for changes nothing, not even the nonce.
    let cheap = Authorization { maxPrice: U256::from(5), ..good };
    let call = for_signer(&cheap, signer.sign(chain_id, GATEWAY_ADDRESS, &cheap), &data);
    assert_eq!(
        chain.send(STRANGER, GATEWAY_ADDRESS, NOTHING, call.abi_encode()).unwrap().status,
        Status::Revert
    );

    let call = for_signer(&good, signature, &data);
    let (outcome, _) = chain.ok(STRANGER, GATEWAY_ADDRESS, NOTHING, &call).unwrap();
    let event = called(&outcome);
    assert_eq!(event.payer, signer.address);
    let held = chain.view(GATEWAY_ADDRESS, &Gateway::depositOfCall { account: signer.address }).unwrap();
    assert_eq!(held, U256::from(1u64 << 50) - event.price);
    let replayed = Gateway::NonceReplayed { signer: signer.address, nonce: good.nonce };
    chain.reverts(STRANGER, GATEWAY_ADDRESS, NOTHING, &call, &replayed).unwrap();

    let late = Authorization { nonce: U256::from(301), ..good };
    let call = for_signer(&late, signer.sign(chain_id, GATEWAY_ADDRESS, &late), &data);
    chain.wait(11);
    let passed = Gateway::DeadlinePassed { deadline: late.deadline };
    chain.reverts(STRANGER, GATEWAY_ADDRESS, NOTHING, &call, &passed).unwrap();
}

#[test]
fn a_signer_takes_back_what_they_signed_and_what_they_left() {
    let (mut chain, model, class) = chain();
    let signer = Signer::new(7);
    let chain_id = chain.node.config().chain_id;
    let address = signer.address;
    chain.vm.set_account(address, &Account { balance: U256::from(1u64 << 60), ..Account::default() });
    let data = generate(model, 4);
    let authorization = Authorization {
        signer: address,
        callHash: keccak256(&data),
        tokenId: NOTHING,
        maxPrice: U256::MAX,
        nonce: U256::from(1),
        deadline: U256::MAX,
    };
    chain.ok(address, GATEWAY_ADDRESS, NOTHING, &Gateway::cancelNonceCall { nonce: U256::from(1) }).unwrap();
    let call = for_signer(&authorization, signer.sign(chain_id, GATEWAY_ADDRESS, &authorization), &data);
    let replayed = Gateway::NonceReplayed { signer: address, nonce: U256::from(1) };
    chain.reverts(STRANGER, GATEWAY_ADDRESS, NOTHING, &call, &replayed).unwrap();

    chain.ok(address, GATEWAY_ADDRESS, U256::from(50), &Gateway::depositCall { account: address }).unwrap();
    let withdraw = |amount: u64| Gateway::withdrawCall { amount: U256::from(amount), to: STRANGER };
    let exceeded = Gateway::PriceExceeded { price: U256::from(51), max: U256::from(50) };
    chain.reverts(address, GATEWAY_ADDRESS, NOTHING, &withdraw(51), &exceeded).unwrap();
    let before = chain.balance(STRANGER);
    chain.ok(address, GATEWAY_ADDRESS, NOTHING, &withdraw(50)).unwrap();
    assert_eq!(chain.balance(STRANGER), before + U256::from(50));

    // With a quota instead of a deposit, up to so much gas.
    let mint =
        Shares::mintCall { classId: class, to: address, value: U256::MAX, shareRatio: NOTHING, expireAt: 0 };
    let (_, token) = chain.ok(AUTHOR, SHARES_ADDRESS, NOTHING, &mint).unwrap();
    let by_quota = |max: u64, nonce: u64| Authorization {
        tokenId: token,
        maxPrice: U256::from(max),
        nonce: U256::from(nonce),
        ..authorization.clone()
    };
    let plenty = by_quota(100_000_000, 2);
    let call = for_signer(&plenty, signer.sign(chain_id, GATEWAY_ADDRESS, &plenty), &data);
    let (outcome, _) = chain.ok(STRANGER, GATEWAY_ADDRESS, NOTHING, &call).unwrap();
    let used = called(&outcome).gasUsed;
    let little = by_quota(5, 3);
    let call = for_signer(&little, signer.sign(chain_id, GATEWAY_ADDRESS, &little), &data);
    let exceeded = Gateway::PriceExceeded { price: used, max: U256::from(5) };
    chain.reverts(STRANGER, GATEWAY_ADDRESS, NOTHING, &call, &exceeded).unwrap();
}

#[test]
fn code_of_others_that_runs_for_the_gateway_is_not_the_gateway() {
    // The gateway sends change to a contract that then asks the precompile by DELEGATECALL, where the gateway is the caller.
    let (mut chain, model, _) = chain();
    let data = generate(model, 1);
    let contract = Address::repeat_byte(0xcc);
    let push = |value: usize| [0x61, (value >> 8) as u8, value as u8];
    let change = |offset: usize| {
        let mut code = Vec::new();
        code.extend([push(data.len()), push(offset), push(0)].concat());
        code.push(0x39); // codecopy(0, offset, length)
        code.extend([push(0), push(0), push(data.len()), push(0), push(0xa100)].concat());
        code.extend([0x5a, 0xf4]); // delegatecall(gas, 0xa100, 0, length, 0, 0)
        code.extend([push(1).as_slice(), &[0x01], &push(0), &[0x55, 0x00]].concat()); // sstore(0, success + 1)
        code
    };
    let mut paid = vec![0x5b, 0x36]; // jumpdest, calldatasize
    paid.extend([push(0), push(0)].concat());
    paid.push(0x37); // calldatacopy(0, 0, calldatasize)
    paid.extend([push(0), push(0)].concat());
    paid.push(0x36);
    paid.extend(push(0));
    paid.push(0x34);
    paid.extend(push(0xa201));
    paid.extend([0x5a, 0xf1]); // call(gas, 0xa201, callvalue, 0, calldatasize, 0, 0)
    paid.extend([push(0x40).as_slice(), &[0x55, 0x00]].concat()); // sstore(0x40, success)
    let middle = 5 + change(0).len();
    let mut code = [&[0x36][..], &push(middle), &[0x57]].concat(); // with calldata: to `paid`
    code.extend(change(middle + paid.len()));
    code.extend(&paid);
    code.extend(&data);
    chain.vm.set_account(contract, &Account { code: code.into(), nonce: 1, ..Account::default() });

    let call = Gateway::callCall { data: data.into() }.abi_encode();
    let outcome = chain.send(USER, contract, U256::from(1u64 << 50), call).unwrap();
    assert!(outcome.is_success(), "{}", outcome.status);
    let storage = chain.vm.state().accounts[&contract].storage.clone();
    assert_eq!(storage.get(&NOTHING), Some(&U256::from(1)), "the precompile refused");
    assert_eq!(storage.get(&U256::from(0x40)), Some(&U256::from(1)), "the paid call went through");
}

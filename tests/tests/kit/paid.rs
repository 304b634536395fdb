//! `MetisPaid`: calls that cost money or quota.

use alloy_primitives::{Address, B256, U256};
use alloy_sol_types::{SolCall, SolError, SolEvent, SolValue};
use metis_models::fixture::{Fixture, families};
use metis_precompiles::abi::{self, Constraint, Sampling, generateCall, generateConstrainedCall};
use metis_precompiles::{GATEWAY_ADDRESS, SHARES_ADDRESS};
use metis_tests::economy::{AUTHOR, Economy, USER, free, priced, small_bundle};
use metis_vm::{Outcome, Status};
use metisvm::contracts::{Gateway, Shares};

use super::contracts::{MetisUnavailable, Payer, Unfinished};
use super::{NOTHING, add_chat, bytes, chain_with_bundle, chain_with_model, deployed, listed};

const GREEDY: Sampling = Sampling { temperatureQ16: 0, topPQ16: 0, topK: 0, seed: 0 };
/// More than any call here costs.
const PLENTY: u64 = 1_000_000_000;

fn payer(chain: &mut Economy, money: u64, accepts: bool) -> Address {
    deployed(chain, U256::from(money), &Payer::BYTECODE, &accepts.abi_encode())
}

fn money(max: u64) -> Payer::Payment {
    Payer::Payment { maxPrice: U256::from(max), tokenId: NOTHING }
}

fn quota(token: U256) -> Payer::Payment {
    Payer::Payment { maxPrice: NOTHING, tokenId: token }
}

fn ask(by: Payer::Payment, model: B256) -> Payer::askCall {
    Payer::askCall { by, model, prompt: bytes("once"), maxNew: 4 }
}

/// What the gateway said that a call cost.
fn called(outcome: &Outcome) -> Gateway::Called {
    let mut logs = outcome.logs.iter().filter(|log| log.address == GATEWAY_ADDRESS);
    let log = logs.next().unwrap();
    assert!(logs.next().is_none(), "one call");
    Gateway::Called::decode_raw_log(log.topics.iter().copied(), &log.data).unwrap()
}

#[test]
fn a_contract_pays_with_its_money_and_gets_the_rest_back() {
    let (mut chain, model) = chain_with_model(priced(500, 3));
    let payer = payer(&mut chain, 10_000_000, true);
    let (outcome, answer) = chain.ok(USER, payer, NOTHING, &ask(money(PLENTY), model)).unwrap();
    let called = called(&outcome);
    assert_eq!((called.model, called.payer), (model, payer));
    assert_eq!(called.price, U256::from(500) + U256::from(3) * called.gasUsed);
    assert_eq!(answer.price, called.price);
    assert_eq!(chain.balance(payer), U256::from(10_000_000) - called.price);
    assert_eq!(chain.balance(GATEWAY_ADDRESS), NOTHING);
    // What the model says does not depend on how it is paid.
    let free = generateCall { model, prompt: bytes("once"), maxNew: 4, s: GREEDY, stopIds: vec![] };
    let data = free.abi_encode().into();
    let (_, raw) = chain.ok(USER, GATEWAY_ADDRESS, U256::from(PLENTY), &Gateway::callCall { data }).unwrap();
    assert_eq!(generateCall::abi_decode_returns(&raw).unwrap().text, answer.text);
    // Its founder has all shares that there are, so all of it.
    let token = (U256::from(1) << 64) | U256::from(1);
    let pending = Shares::pendingRevenueCall { tokenId: token, asset: Address::ZERO };
    let pending = chain.view(SHARES_ADDRESS, &pending).unwrap();
    assert_eq!(pending, U256::from(2) * called.price, "two calls of one price");
}

#[test]
fn what_is_sent_along_pays_too() {
    let (mut chain, model) = chain_with_model(priced(500, 0));
    let payer = payer(&mut chain, 0, true);
    let (_, answer) = chain.ok(USER, payer, U256::from(700), &ask(money(600), model)).unwrap();
    assert_eq!(answer.price, U256::from(500));
    assert_eq!(chain.balance(payer), U256::from(200), "the change is the contract's");
}

#[test]
fn a_call_costs_at_most_what_was_said_or_is_there() {
    let (mut chain, model) = chain_with_model(priced(500, 0));
    let payer = payer(&mut chain, 499, true);
    let exceeded = |max: u64| Gateway::PriceExceeded { price: U256::from(500), max: U256::from(max) };
    chain.reverts(USER, payer, NOTHING, &ask(money(PLENTY), model), &exceeded(499)).unwrap();
    chain.reverts(USER, payer, U256::from(100), &ask(money(123), model), &exceeded(123)).unwrap();
    assert_eq!(chain.balance(payer), U256::from(499));
    chain.ok(USER, payer, U256::from(1), &ask(money(500), model)).unwrap();
    assert_eq!(chain.balance(payer), NOTHING);
}

#[test]
fn a_contract_that_takes_no_change_cannot_pay_too_much() {
    let (mut chain, model) = chain_with_model(priced(500, 0));
    let payer = payer(&mut chain, 10_000, false);
    let failed = Gateway::TransferFailed { to: payer, amount: U256::from(1) };
    chain.reverts(USER, payer, NOTHING, &ask(money(501), model), &failed).unwrap();
    // The exact price needs no change.
    chain.ok(USER, payer, NOTHING, &ask(money(500), model)).unwrap();
}

#[test]
fn a_quota_pays_in_gas_and_costs_no_money() {
    let (mut chain, model) = chain_with_model(priced(500, 3));
    let payer = payer(&mut chain, 10_000, true);
    let mint = Shares::mintCall {
        classId: U256::from(1),
        to: payer,
        value: U256::from(10_000_000),
        shareRatio: NOTHING,
        expireAt: 0,
    };
    let (_, token) = chain.ok(AUTHOR, SHARES_ADDRESS, NOTHING, &mint).unwrap();
    let (outcome, answer) = chain.ok(USER, payer, NOTHING, &ask(quota(token), model)).unwrap();
    let called = called(&outcome);
    assert_eq!((called.tokenId, called.price, answer.price), (token, NOTHING, NOTHING));
    let left = chain.view(SHARES_ADDRESS, &Shares::valueOfCall { tokenId: token }).unwrap();
    assert_eq!(left, U256::from(10_000_000) - called.gasUsed);
    assert_eq!(chain.balance(payer), U256::from(10_000));

    let founders = (U256::from(1) << 64) | U256::from(1);
    let foreign = Gateway::NotTokenOwner { tokenId: founders, caller: payer };
    chain.reverts(USER, payer, NOTHING, &ask(quota(founders), model), &foreign).unwrap();
}

#[test]
fn every_function_is_paid_and_answers_as_the_precompile_does() {
    let (mut chain, model) = chain_with_model(priced(500, 1));
    let payer = payer(&mut chain, PLENTY, true);
    let (by, prompt) = (money(PLENTY), bytes("once"));
    let options = listed(&["yes", "no", "perhaps"]);
    let mut spent = NOTHING;
    macro_rules! paid {
        ($call:ident { $($field:ident: $value:expr),* }) => {{
            let call = Payer::$call { by: by.clone(), model, $($field: $value),* };
            let (outcome, answer) = chain.ok(USER, payer, NOTHING, &call).unwrap();
            assert_eq!(called(&outcome).price, answer.price);
            spent += answer.price;
            answer
        }};
    }
    let pattern = paid!(askForCall { prompt: prompt.clone(), maxNew: 8, pattern: bytes("[a-f]{3}") });
    assert!(pattern.text.len() == 3 && pattern.text.iter().all(|byte| (b'a'..=b'f').contains(byte)));
    let yes = paid!(askYesNoCall { prompt: prompt.clone() });
    let index = paid!(chooseCall { prompt: prompt.clone(), options: listed(&["no", "yes"]) });
    assert_eq!(index.index, U256::from(yes.yes));
    for digits in [1u8, 2, 11, 77] {
        let number = paid!(askNumberCall { prompt: prompt.clone(), digits: digits });
        assert!(number.number < U256::from(10).pow(U256::from(digits)));
    }
    let chosen = paid!(generateOneOfCall { prompt: prompt.clone(), maxNew: 8, options: options.clone() });
    let expected = paid!(chooseCall { prompt: prompt.clone(), options: options.clone() });
    assert_eq!(chosen.result.text, options[expected.index.to::<usize>()]);
    assert_eq!(chosen.result.finish, 3);
    let label = paid!(classifyCall { prompt: prompt.clone(), labels: options });
    assert!(label.index < U256::from(3));
    let tokens = paid!(generateTokensCall { prompt: vec![1, 40, 41], maxNew: 5 });
    assert!(tokens.tokens.len() == 5 || tokens.finish == 0);
    let logits = paid!(logitsCall { prompt: prompt, ids: vec![7, 8, 9] });
    assert_eq!(logits.logitQ16.len(), 3);
    assert_eq!(chain.balance(payer), U256::from(PLENTY) - spent);
}

#[test]
fn models_that_chat_and_that_embed_are_paid_too() {
    let mut parts = small_bundle(Fixture { context: 512, ..Fixture::default() }).unwrap();
    add_chat(&mut parts, false);
    let (mut chain, model) = chain_with_bundle(&parts, priced(500, 1));
    let payer = payer(&mut chain, PLENTY, true);
    let chat = Payer::chatCall { by: money(PLENTY), model, content: bytes("hi"), maxNew: 4 };
    let (outcome, answer) = chain.ok(USER, payer, NOTHING, &chat).unwrap();
    assert_eq!(called(&outcome).price, answer.price);
    assert!(answer.result.tokens.len() == 4 || answer.result.finish == 0);

    let folder = tempfile::tempdir().unwrap();
    let (_, bert) = families().into_iter().find(|(name, _)| *name == "bert").unwrap();
    let encoder = chain.publish(&bert.bundle(folder.path()).unwrap()).unwrap();
    chain.activate(&encoder, priced(500, 1)).unwrap();
    let embed = Payer::embedCall { by: money(PLENTY), model: encoder.id, text: bytes("hello world") };
    let (outcome, answer) = chain.ok(USER, payer, NOTHING, &embed).unwrap();
    assert_eq!(called(&outcome).price, answer.price);
    assert_eq!(answer.vectorQ16.len(), 64);
}

#[test]
fn quotes_suffice_and_prices_are_the_gateways() {
    let (mut chain, model) = chain_with_model(priced(500, 7));
    let payer = payer(&mut chain, PLENTY, true);
    let tokenize = abi::tokenizeCall { model, text: bytes("once") };
    let tokens = chain.view(metis_precompiles::INFERENCE_ADDRESS, &tokenize).unwrap().len() as u32;
    let quote = chain.view(payer, &Payer::quoteCall { model, promptTokens: tokens, maxNew: 4 }).unwrap();
    let (_, answer) = chain.ok(USER, payer, NOTHING, &ask(money(quote.to()), model)).unwrap();
    assert!(answer.price <= quote && answer.price > quote / U256::from(2), "{} of {quote}", answer.price);
    let price = chain.view(payer, &Payer::priceOfCall { model, gasUsed: U256::from(100) }).unwrap();
    assert_eq!(price, U256::from(1_200));
    assert_eq!(chain.view(payer, &Payer::moneyCall { maxPrice: U256::from(5) }).unwrap(), money(5));
    assert_eq!(
        chain.view(payer, &Payer::quotaCall { tokenId: U256::from(5) }).unwrap(),
        quota(U256::from(5))
    );
}

#[test]
fn a_model_without_a_price_costs_nothing() {
    let (mut chain, model) = chain_with_model(free());
    let payer = payer(&mut chain, 77, true);
    for model in [model, B256::ZERO] {
        let (_, answer) = chain.ok(USER, payer, NOTHING, &ask(money(0), model)).unwrap();
        assert_eq!((answer.price, chain.balance(payer)), (NOTHING, U256::from(77)));
    }
}

#[test]
fn errors_arrive_unchanged_and_nothing_is_paid() {
    let (mut chain, model) = chain_with_model(priced(500, 1));
    let payer = payer(&mut chain, PLENTY, true);
    let by = money(PLENTY);
    let unknown = B256::repeat_byte(9);
    let error = abi::UnknownModel { model: unknown };
    chain.reverts(USER, payer, NOTHING, &ask(by.clone(), unknown), &error).unwrap();
    let embed = Payer::embedCall { by: by.clone(), model, text: bytes("x") };
    let error = abi::NotSupported { selector: abi::embedCall::SELECTOR.into() };
    chain.reverts(USER, payer, NOTHING, &embed, &error).unwrap();
    let chat = Payer::chatCall { by: by.clone(), model, content: bytes("hi"), maxNew: 4 };
    let error = abi::NotSupported { selector: abi::generateChatCall::SELECTOR.into() };
    chain.reverts(USER, payer, NOTHING, &chat, &error).unwrap();
    for digits in [0, 78] {
        let number = Payer::askNumberCall { by: by.clone(), model, prompt: bytes("hi"), digits };
        chain.reverts(USER, payer, NOTHING, &number, &abi::BadConstraint { position: 0 }).unwrap();
    }
    let cut = Payer::askForCall { by, model, prompt: bytes("once"), maxNew: 2, pattern: bytes("[a-f]{9}") };
    let c = Constraint { pattern: bytes("[a-f]{9}"), options: vec![] };
    let raw = generateConstrainedCall { model, prompt: bytes("once"), maxNew: 2, s: GREEDY, c };
    let data = raw.abi_encode().into();
    let (_, answer) =
        chain.ok(USER, GATEWAY_ADDRESS, U256::from(PLENTY), &Gateway::callCall { data }).unwrap();
    let text = generateConstrainedCall::abi_decode_returns(&answer).unwrap().text;
    chain.reverts(USER, payer, NOTHING, &cut, &Unfinished { text }).unwrap();
    assert_eq!(chain.balance(payer), U256::from(PLENTY));
}

#[test]
fn a_chain_without_a_gateway_has_its_error() {
    let node = metis_tests::chain::node("Osaka").unwrap();
    let mut vm = node.vm(metis_vm::State::default());
    let code = [&Payer::BYTECODE[..], &true.abi_encode()].concat();
    let create = metis_vm::Transaction::create(USER, code);
    let payer = vm.transact(&create).unwrap().created_address.unwrap();
    let call = ask(money(0), B256::ZERO).abi_encode();
    let outcome = vm.transact(&metis_vm::Transaction::call(USER, payer, call)).unwrap();
    assert_eq!(outcome.status, Status::Revert);
    assert_eq!(outcome.output, MetisUnavailable {}.abi_encode());
}

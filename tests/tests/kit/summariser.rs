//! `GovernanceSummariser`: a treasury that pays for summaries.

use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_sol_types::{SolCall, SolEvent, SolValue};
use metis_precompiles::abi::{self, Sampling, generateCall};
use metis_precompiles::{GATEWAY_ADDRESS, SHARES_ADDRESS};
use metis_tests::economy::{AUTHOR, Economy, STRANGER, USER, priced};
use metis_vm::Outcome;
use metisvm::contracts::{Gateway, Registry, Shares};

use super::contracts::GovernanceSummariser;
use super::{NOTHING, bytes, chain_with_model, deployed};

const TEXT: &str = "Plant trees.";
const TREASURY: u64 = 10_000_000;
const CAP: u64 = 5_000_000;
const MAX_NEW: u32 = 8;

/// A summariser with money, whose treasurer is the model's author and whose member is the user.
fn council() -> (Economy, B256, Address) {
    let (mut chain, model) = chain_with_model(priced(1_000, 2));
    let arguments = (model, MAX_NEW, U256::from(CAP)).abi_encode_params();
    let council = deployed(&mut chain, U256::from(TREASURY), &GovernanceSummariser::BYTECODE, &arguments);
    let member = GovernanceSummariser::setMemberCall { account: USER, member: true };
    chain.ok(AUTHOR, council, NOTHING, &member).unwrap();
    (chain, model, council)
}

fn propose(chain: &mut Economy, council: Address) -> U256 {
    let propose = GovernanceSummariser::proposeCall { text: TEXT.into() };
    chain.ok(USER, council, NOTHING, &propose).unwrap().1
}

fn summarise(id: U256, text: &str) -> GovernanceSummariser::summariseCall {
    GovernanceSummariser::summariseCall { id, text: text.into() }
}

/// The first event of a kind that a contract has emitted.
fn event<E: SolEvent>(outcome: &Outcome, by: Address) -> E {
    let mut logs = outcome.logs.iter().filter(|log| log.address == by);
    logs.find_map(|log| E::decode_raw_log(log.topics.iter().copied(), &log.data).ok()).unwrap()
}

#[test]
fn a_summary_is_paid_from_the_treasury_and_earns_its_models_owner_money() {
    let (mut chain, model, council) = council();
    let id = propose(&mut chain, council);
    let quote = chain.view(council, &GovernanceSummariser::quoteCall { text: TEXT.into() }).unwrap();
    let (outcome, summary) = chain.ok(STRANGER, council, NOTHING, &summarise(id, TEXT)).unwrap();
    let called: Gateway::Called = event(&outcome, GATEWAY_ADDRESS);
    assert_eq!((called.model, called.payer), (model, council));
    assert!(called.price <= quote && called.price > U256::from(1_000));
    assert_eq!(chain.balance(council), U256::from(TREASURY) - called.price);

    let prompt = format!("Proposal: {TEXT}\nSummary:");
    let asked = GovernanceSummariser::promptForCall { text: TEXT.into() };
    assert_eq!(chain.view(council, &asked).unwrap(), bytes(&prompt));
    let s = Sampling { temperatureQ16: 0, topPQ16: 0, topK: 0, seed: 0 };
    let call = generateCall { model, prompt: bytes(&prompt), maxNew: MAX_NEW, s, stopIds: vec![] };
    let call = Gateway::callCall { data: call.abi_encode().into() };
    let (_, raw) = chain.ok(AUTHOR, GATEWAY_ADDRESS, U256::from(TREASURY), &call).unwrap();
    let answer = generateCall::abi_decode_returns(&raw).unwrap();
    assert_eq!(summary, answer.text);

    let proposal = chain.view(council, &GovernanceSummariser::proposalOfCall { id }).unwrap();
    let expected = GovernanceSummariser::Proposal {
        proposer: USER,
        summarised: true,
        complete: u8::from(answer.finish) == 0,
        yes: 0,
        no: 0,
        textHash: keccak256(TEXT),
        price: called.price,
        summary: summary.clone(),
    };
    assert_eq!(proposal, expected);
    let summarised: GovernanceSummariser::Summarised = event(&outcome, council);
    let complete = expected.complete;
    assert_eq!(summarised, GovernanceSummariser::Summarised { id, price: called.price, complete, summary });

    // The owner takes what both calls brought.
    let before = chain.balance(AUTHOR);
    let token = (U256::from(1) << 64) | U256::from(1);
    let claim = Shares::claimCall { tokenId: token, asset: Address::ZERO, to: AUTHOR };
    let (_, claimed) = chain.ok(AUTHOR, SHARES_ADDRESS, NOTHING, &claim).unwrap();
    assert_eq!(claimed, U256::from(2) * called.price);
    assert_eq!(chain.balance(AUTHOR), before + claimed);
}

#[test]
fn members_vote_once_and_on_what_has_a_summary() {
    let (mut chain, _, council) = council();
    let id = propose(&mut chain, council);
    let vote = |support| GovernanceSummariser::voteCall { id, support };
    chain.reverts(USER, council, NOTHING, &vote(true), &GovernanceSummariser::NotSummarised { id }).unwrap();
    chain.ok(STRANGER, council, NOTHING, &summarise(id, TEXT)).unwrap();
    let (outcome, _) = chain.ok(USER, council, NOTHING, &vote(true)).unwrap();
    let voted = GovernanceSummariser::Voted { id, member: USER, support: true };
    assert_eq!(event::<GovernanceSummariser::Voted>(&outcome, council), voted);
    let again = GovernanceSummariser::AlreadyVoted { id, member: USER };
    chain.reverts(USER, council, NOTHING, &vote(false), &again).unwrap();
    let not_member = GovernanceSummariser::NotMember { caller: STRANGER };
    chain.reverts(STRANGER, council, NOTHING, &vote(false), &not_member).unwrap();
    let member = GovernanceSummariser::setMemberCall { account: STRANGER, member: true };
    chain.ok(AUTHOR, council, NOTHING, &member).unwrap();
    chain.ok(STRANGER, council, NOTHING, &vote(false)).unwrap();
    let proposal = chain.view(council, &GovernanceSummariser::proposalOfCall { id }).unwrap();
    assert_eq!((proposal.yes, proposal.no), (1, 1));
    let has_voted = GovernanceSummariser::hasVotedCall { id, member: STRANGER };
    assert!(chain.view(council, &has_voted).unwrap());
}

#[test]
fn a_summary_costs_at_most_its_cap_whatever_the_owner_asks_for() {
    let (mut chain, model, council) = council();
    let id = propose(&mut chain, council);
    let price = Registry::setPriceCall { model, perCall: "6000000".parse().unwrap(), perGas: 0 };
    chain.ok(AUTHOR, metis_precompiles::REGISTRY_ADDRESS, NOTHING, &price).unwrap();
    let exceeded = |max: u64| Gateway::PriceExceeded { price: U256::from(6_000_000), max: U256::from(max) };
    chain.reverts(USER, council, NOTHING, &summarise(id, TEXT), &exceeded(CAP)).unwrap();
    let proposal = chain.view(council, &GovernanceSummariser::proposalOfCall { id }).unwrap();
    assert!(!proposal.summarised, "it can be tried again");
    // A higher cap, and then a treasury that is empty but for so much.
    let cap = GovernanceSummariser::setCapCall { cap_: U256::from(7_000_000) };
    let (outcome, _) = chain.ok(AUTHOR, council, NOTHING, &cap).unwrap();
    assert_eq!(event::<GovernanceSummariser::CapSet>(&outcome, council).cap, U256::from(7_000_000));
    let out = GovernanceSummariser::withdrawCall { to: STRANGER, amount: U256::from(TREASURY - 5) };
    chain.ok(AUTHOR, council, NOTHING, &out).unwrap();
    chain.reverts(USER, council, NOTHING, &summarise(id, TEXT), &exceeded(5)).unwrap();
    // Anybody can fill the treasury.
    assert!(chain.send(STRANGER, council, U256::from(6_000_000), Vec::new()).unwrap().is_success());
    chain.ok(USER, council, NOTHING, &summarise(id, TEXT)).unwrap();
    assert_eq!(chain.balance(council), U256::from(5));
}

#[test]
fn every_mistake_has_its_error() {
    let (mut chain, model, council) = council();
    let not_member = GovernanceSummariser::NotMember { caller: STRANGER };
    let proposal = GovernanceSummariser::proposeCall { text: TEXT.into() };
    chain.reverts(STRANGER, council, NOTHING, &proposal, &not_member).unwrap();
    let id = propose(&mut chain, council);
    let wrong = GovernanceSummariser::WrongText { id, textHash: keccak256("Fell trees.") };
    chain.reverts(USER, council, NOTHING, &summarise(id, "Fell trees."), &wrong).unwrap();
    let next = U256::from(1);
    assert_eq!(chain.view(council, &GovernanceSummariser::proposalCountCall {}).unwrap(), next);
    let unknown = GovernanceSummariser::UnknownProposal { id: next };
    chain.reverts(USER, council, NOTHING, &summarise(next, TEXT), &unknown).unwrap();
    let vote = GovernanceSummariser::voteCall { id: next, support: true };
    chain.reverts(USER, council, NOTHING, &vote, &unknown).unwrap();
    let proposal = GovernanceSummariser::proposalOfCall { id: next };
    chain.reverts(USER, council, NOTHING, &proposal, &unknown).unwrap();

    chain.ok(USER, council, NOTHING, &summarise(id, TEXT)).unwrap();
    let again = GovernanceSummariser::AlreadySummarised { id };
    chain.reverts(USER, council, NOTHING, &summarise(id, TEXT), &again).unwrap();

    let stranger = GovernanceSummariser::NotTreasurer { caller: STRANGER };
    let member = GovernanceSummariser::setMemberCall { account: STRANGER, member: true };
    chain.reverts(STRANGER, council, NOTHING, &member, &stranger).unwrap();
    let cap = GovernanceSummariser::setCapCall { cap_: U256::MAX };
    chain.reverts(STRANGER, council, NOTHING, &cap, &stranger).unwrap();
    let out = GovernanceSummariser::withdrawCall { to: STRANGER, amount: U256::from(1) };
    chain.reverts(STRANGER, council, NOTHING, &out, &stranger).unwrap();
    // The registry takes no plain transfers.
    let to = metis_precompiles::REGISTRY_ADDRESS;
    let out = GovernanceSummariser::withdrawCall { to, amount: U256::from(1) };
    let failed = GovernanceSummariser::TransferFailed { to, amount: U256::from(1) };
    chain.reverts(AUTHOR, council, NOTHING, &out, &failed).unwrap();

    // What does not fit into the model is the precompile's to say.
    let long = "x".repeat(600);
    let proposal = GovernanceSummariser::proposeCall { text: long.clone() };
    let (_, id) = chain.ok(USER, council, NOTHING, &proposal).unwrap();
    let tokenize = abi::tokenizeCall { model, text: bytes(&format!("Proposal: {long}\nSummary:")) };
    let tokens = chain.view(metis_precompiles::INFERENCE_ADDRESS, &tokenize).unwrap().len() as u32;
    let error = abi::PromptTooLong { tokens, max: 512 };
    chain.reverts(USER, council, NOTHING, &summarise(id, &long), &error).unwrap();
}

#[test]
fn who_leaves_can_no_longer_propose() {
    let (mut chain, model, council) = council();
    assert_eq!(chain.view(council, &GovernanceSummariser::treasurerCall {}).unwrap(), AUTHOR);
    assert_eq!(chain.view(council, &GovernanceSummariser::modelCall {}).unwrap(), model);
    let member = GovernanceSummariser::setMemberCall { account: USER, member: false };
    let (outcome, _) = chain.ok(AUTHOR, council, NOTHING, &member).unwrap();
    let set = GovernanceSummariser::MemberSet { member: USER, isMember: false };
    assert_eq!(event::<GovernanceSummariser::MemberSet>(&outcome, council), set);
    let proposal = GovernanceSummariser::proposeCall { text: TEXT.into() };
    let error = GovernanceSummariser::NotMember { caller: USER };
    chain.reverts(USER, council, NOTHING, &proposal, &error).unwrap();
}

//! The registry of models, and what the precompile makes of it.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

use alloy_primitives::{B256, Bytes, U256};
use alloy_sol_types::SolCall;
use metis_precompiles::abi::{self, Sampling, generateCall};
use metis_precompiles::{INFERENCE_ADDRESS, REGISTRY_ADDRESS};
use metis_tests::economy::{AUTHOR, DAY, Economy, STRANGER, USER, free, priced};
use metis_vm::VmError;
use metisvm::contracts::Registry;

const NOTHING: U256 = U256::ZERO;

fn generate(model: B256) -> generateCall {
    generateCall {
        model,
        prompt: Bytes::from_static(b"once"),
        maxNew: 4,
        s: Sampling { temperatureQ16: 0, topPQ16: 0, topK: 0, seed: 0 },
        stopIds: Vec::new(),
    }
}

#[test]
fn a_model_lives_from_registration_to_retirement() {
    let mut chain = Economy::new(|_| {}).unwrap();
    let model = chain.model(1).unwrap();
    let id = model.id;
    let call = generate(id);
    chain.reverts(USER, INFERENCE_ADDRESS, NOTHING, &call, &abi::UnknownModel { model: id }).unwrap();

    assert_eq!(chain.register(&model, free()).unwrap(), U256::from(1));
    chain.reverts(USER, INFERENCE_ADDRESS, NOTHING, &call, &abi::ModelNotActive { model: id }).unwrap();
    let activate = Registry::activateCall { model: id, daysPaid: 1 };
    let matures = U256::from(chain.time() + 100);
    let early = Registry::NotMature { model: id, maturesAt: matures };
    chain.reverts(AUTHOR, REGISTRY_ADDRESS, Economy::rent(1), &activate, &early).unwrap();
    chain.wait(100);
    chain.ok(AUTHOR, REGISTRY_ADDRESS, Economy::rent(1), &activate).unwrap();
    let (_, answer) = chain.ok(USER, INFERENCE_ADDRESS, NOTHING, &call).unwrap();
    assert_eq!(answer.tokens.len(), 4);

    // Its rent ends, and anybody may make room for others.
    let evict = Registry::evictCall { model: id };
    let paid = Registry::RentPaid { model: id, activeUntil: U256::from(chain.time() + DAY) };
    chain.reverts(STRANGER, REGISTRY_ADDRESS, NOTHING, &evict, &paid).unwrap();
    chain.wait(DAY);
    chain.reverts(USER, INFERENCE_ADDRESS, NOTHING, &call, &abi::ModelNotActive { model: id }).unwrap();
    chain.ok(STRANGER, REGISTRY_ADDRESS, NOTHING, &evict).unwrap();
    assert_eq!(chain.view(REGISTRY_ADDRESS, &Registry::residentMebibytesCall {}).unwrap(), NOTHING);

    chain.ok(AUTHOR, REGISTRY_ADDRESS, Economy::rent(1), &activate).unwrap();
    chain
        .ok(USER, REGISTRY_ADDRESS, Economy::rent(2), &Registry::extendCall { model: id, daysPaid: 2 })
        .unwrap();
    chain.ok(AUTHOR, REGISTRY_ADDRESS, NOTHING, &Registry::deprecateCall { model: id }).unwrap();
    chain.wait(49);
    chain.ok(USER, INFERENCE_ADDRESS, NOTHING, &call).unwrap();
    chain.wait(1);
    chain.reverts(USER, INFERENCE_ADDRESS, NOTHING, &call, &abi::ModelNotActive { model: id }).unwrap();
    chain.ok(STRANGER, REGISTRY_ADDRESS, NOTHING, &evict).unwrap();
    let before = chain.balance(AUTHOR);
    chain.ok(AUTHOR, REGISTRY_ADDRESS, NOTHING, &Registry::withdrawBondCall { model: id }).unwrap();
    assert_eq!(chain.balance(AUTHOR), before + Economy::bond());
    let collector = chain.node.config().registry.as_ref().unwrap().collector;
    chain.ok(STRANGER, REGISTRY_ADDRESS, NOTHING, &Registry::collectCall {}).unwrap();
    assert_eq!(chain.balance(collector), Economy::rent(4));
    assert_eq!(chain.balance(REGISTRY_ADDRESS), NOTHING, "nothing is left");
}

#[test]
fn a_bundle_that_is_not_what_was_claimed_is_refused_at_activation() {
    let mut chain = Economy::new(|_| {}).unwrap();
    let mut model = chain.model(1).unwrap();
    model.claims.headMacs -= alloy_primitives::aliases::U40::from(1);
    chain.register(&model, free()).unwrap();
    chain.wait(100);
    let activate = Registry::activateCall { model: model.id, daysPaid: 1 };
    let field = B256::right_padding_from(b"headMacs");
    let mismatch = abi::BundleMismatch { model: model.id, field };
    chain.reverts(AUTHOR, REGISTRY_ADDRESS, Economy::rent(1), &activate, &mismatch).unwrap();
}

#[test]
fn a_validator_without_the_bundle_stops_and_says_how_to_get_it() {
    let mut chain = Economy::new(|_| {}).unwrap();
    let model = chain.model(1).unwrap();
    chain.activate(&model, free()).unwrap();
    let state = chain.vm.state();
    let block = chain.vm.config().block.clone();

    let other = Economy::new(|_| {}).unwrap();
    let mut vm = other.node.vm(state);
    vm.set_block(block);
    let call = metis_vm::Transaction::call(USER, INFERENCE_ADDRESS, generate(model.id).abi_encode());
    let before = vm.state();
    let Err(VmError::Fatal(reason)) = vm.transact(&call) else { panic!("an outcome was made up") };
    let command = format!("metisvm model fetch {} --from", model.id);
    assert!(reason.contains(&command) && reason.contains("is registered on this chain"), "{reason}");
    assert_eq!(vm.state(), before);
}

#[test]
fn a_model_with_a_price_cannot_be_called_around_the_gateway() {
    let mut chain = Economy::new(|_| {}).unwrap();
    let model = chain.model(1).unwrap();
    chain.activate(&model, priced(5, 0)).unwrap();
    let required = abi::PaymentRequired { model: model.id };
    chain.reverts(USER, INFERENCE_ADDRESS, NOTHING, &generate(model.id), &required).unwrap();
    // What only describes is free.
    let quote = abi::quoteCall { model: model.id, promptTokens: 4, maxNew: 4 };
    chain.ok(USER, INFERENCE_ADDRESS, NOTHING, &quote).unwrap();
}

#[test]
fn a_founder_has_one_share_at_least_and_all_at_most() {
    let mut chain = Economy::new(|_| {}).unwrap();
    let model = chain.model(1).unwrap();
    let salt = B256::repeat_byte(7);
    let commitment = Registry::commitmentOfCall { model: model.id, author: AUTHOR, salt };
    let commitment = chain.view(REGISTRY_ADDRESS, &commitment).unwrap();
    chain.ok(AUTHOR, REGISTRY_ADDRESS, NOTHING, &Registry::commitCall { commitment }).unwrap();
    chain.wait(1);
    let register = |share: u16| Registry::registerCall {
        model: model.id,
        claims: model.claims.clone(),
        terms: Registry::ModelTerms { founderShare: share, ..free() },
        salt,
    };
    for share in [0, 10_001, u16::MAX] {
        let wrong = Registry::WrongShare { share: U256::from(share) };
        chain.reverts(AUTHOR, REGISTRY_ADDRESS, Economy::bond(), &register(share), &wrong).unwrap();
    }
    chain.ok(AUTHOR, REGISTRY_ADDRESS, Economy::bond(), &register(1)).unwrap();
}

#[test]
fn an_id_that_was_given_up_with_its_bond_is_free_again() {
    let mut chain = Economy::new(|_| {}).unwrap();
    let model = chain.model(1).unwrap();
    let id = model.id;
    chain.register(&model, free()).unwrap();
    let heir = Registry::transferOwnershipCall { model: id, to: STRANGER };
    chain.ok(AUTHOR, REGISTRY_ADDRESS, NOTHING, &heir).unwrap();
    chain.ok(AUTHOR, REGISTRY_ADDRESS, NOTHING, &Registry::deprecateCall { model: id }).unwrap();

    let salt = B256::repeat_byte(8);
    let commitment = Registry::commitmentOfCall { model: id, author: USER, salt };
    let commitment = chain.view(REGISTRY_ADDRESS, &commitment).unwrap();
    chain.ok(USER, REGISTRY_ADDRESS, NOTHING, &Registry::commitCall { commitment }).unwrap();
    chain.wait(1);
    let claims = model.claims.clone();
    let register = Registry::registerCall { model: id, claims, terms: free(), salt };
    let taken = Registry::AlreadyRegistered { model: id };
    chain.reverts(USER, REGISTRY_ADDRESS, Economy::bond(), &register, &taken).unwrap();
    chain.ok(AUTHOR, REGISTRY_ADDRESS, NOTHING, &Registry::withdrawBondCall { model: id }).unwrap();
    let (_, class) = chain.ok(USER, REGISTRY_ADDRESS, Economy::bond(), &register).unwrap();
    assert_eq!(class, U256::from(2), "its earlier owner keeps the earlier shares");

    // Nothing of its earlier life holds.
    let accept = Registry::acceptOwnershipCall { model: id };
    let not_pending = Registry::NotPendingOwner { model: id, caller: STRANGER };
    chain.reverts(STRANGER, REGISTRY_ADDRESS, NOTHING, &accept, &not_pending).unwrap();
    let not_owner = Registry::NotModelOwner { model: id, caller: AUTHOR };
    let deprecate = Registry::deprecateCall { model: id };
    chain.reverts(AUTHOR, REGISTRY_ADDRESS, NOTHING, &deprecate, &not_owner).unwrap();
    let activate = Registry::activateCall { model: id, daysPaid: 1 };
    let early = Registry::NotMature { model: id, maturesAt: U256::from(chain.time() + 100) };
    chain.reverts(USER, REGISTRY_ADDRESS, Economy::rent(1), &activate, &early).unwrap();
    chain.wait(100);
    chain.ok(USER, REGISTRY_ADDRESS, Economy::rent(1), &activate).unwrap();
    chain.ok(STRANGER, INFERENCE_ADDRESS, NOTHING, &generate(id)).unwrap();
}

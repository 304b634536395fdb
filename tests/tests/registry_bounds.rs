//! What the registry refuses: models of the configuration, bonds that would go round, and bundles that show what is wrong at once.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

use alloy_primitives::{B256, U256, keccak256};
use alloy_sol_types::SolCall;
use metis_models::fixture::Fixture;
use metis_precompiles::abi;
use metis_precompiles::{ModelEntry, ModelStatus as Listed, REGISTRY_ADDRESS};
use metis_tests::economy::{AUTHOR, Economy, USER, Unregistered, free, small_bundle};
use metisvm::contracts::{ModelStatus, Registry};
use metisvm::node::embedded_bundle;

const NOTHING: U256 = U256::ZERO;

#[test]
fn models_of_the_configuration_cannot_be_registered() {
    // One of them is the default model, by an id that the configuration spells out.
    let bundles = tempfile::tempdir().unwrap();
    let parts = small_bundle(Fixture { seed: 9, ..Fixture::default() }).unwrap();
    let (default, path) = (parts.id(), bundles.path().join("default"));
    parts.write(&path).unwrap();
    let pending = B256::repeat_byte(0x77);
    let mut chain = Economy::new(|config| {
        config.default_model = default;
        config.models.push(ModelEntry { id: default, path: Some(path), status: Listed::Active });
        config.models.push(ModelEntry { id: pending, path: None, status: Listed::Pending });
    })
    .unwrap();
    let embedded = embedded_bundle().unwrap().id();
    let claims = chain.model(1).unwrap().claims;
    for (salt, id) in (1..).zip([default, embedded, pending]) {
        let salt = B256::repeat_byte(salt);
        let commitment = Registry::commitmentOfCall { model: id, author: AUTHOR, salt };
        let commitment = chain.view(REGISTRY_ADDRESS, &commitment).unwrap();
        chain.ok(AUTHOR, REGISTRY_ADDRESS, NOTHING, &Registry::commitCall { commitment }).unwrap();
        chain.wait(1);
        let register = Registry::registerCall { model: id, claims: claims.clone(), terms: free(), salt };
        let wrong = Registry::WrongStatus { model: id, status: ModelStatus::Configured as u8 };
        chain.reverts(AUTHOR, REGISTRY_ADDRESS, Economy::bond(), &register, &wrong).unwrap();
        chain.reverts(USER, REGISTRY_ADDRESS, NOTHING, &Registry::evictCall { model: id }, &wrong).unwrap();
        let model = chain.view(REGISTRY_ADDRESS, &Registry::modelOfCall { model: id }).unwrap();
        assert_eq!(ModelStatus::from_number(model.status), Some(ModelStatus::Configured));
        assert!(!chain.view(REGISTRY_ADDRESS, &Registry::isActiveCall { model: id }).unwrap());
    }
}

#[test]
fn a_model_may_be_made_from_one_of_the_configuration() {
    let mut chain = Economy::new(|_| {}).unwrap();
    let model = chain.model(1).unwrap();
    let terms = Registry::ModelTerms { parent: embedded_bundle().unwrap().id(), ..free() };
    chain.register(&model, terms).unwrap();
}

#[test]
fn a_bond_does_not_go_round_before_a_notice_after_maturity() {
    let mut chain = Economy::new(|_| {}).unwrap();
    let Unregistered { id, .. } = {
        let model = chain.model(1).unwrap();
        chain.register(&model, free()).unwrap();
        model
    };
    let registered = chain.time();
    chain.ok(AUTHOR, REGISTRY_ADDRESS, NOTHING, &Registry::deprecateCall { model: id }).unwrap();
    let withdraw = Registry::withdrawBondCall { model: id };
    let until = U256::from(registered + 100 + 50);
    let locked = Registry::BondLocked { model: id, until };
    chain.reverts(AUTHOR, REGISTRY_ADDRESS, NOTHING, &withdraw, &locked).unwrap();
    chain.wait(149);
    chain.reverts(AUTHOR, REGISTRY_ADDRESS, NOTHING, &withdraw, &locked).unwrap();
    chain.wait(1);
    let before = chain.balance(AUTHOR);
    chain.ok(AUTHOR, REGISTRY_ADDRESS, NOTHING, &withdraw).unwrap();
    assert_eq!(chain.balance(AUTHOR), before + Economy::bond());
}

/// A registered and matured model whose bundle is nothing but these bytes of a manifest; its id is their hash.
fn only_a_manifest(chain: &mut Economy, manifest: &[u8]) -> B256 {
    let mut model = chain.model(1).unwrap();
    model.id = keccak256(manifest);
    let folder = chain.folder.path().join(model.id.to_string());
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("manifest.json"), manifest).unwrap();
    chain.register(&model, free()).unwrap();
    chain.wait(100);
    model.id
}

#[test]
fn a_manifest_that_is_none_is_enough_to_refuse_a_model() {
    let mut chain = Economy::new(|_| {}).unwrap();
    let id = only_a_manifest(&mut chain, b"{}");
    let activate = Registry::activateCall { model: id, daysPaid: 1 };
    let refused = abi::BundleRefused { model: id };
    chain.reverts(AUTHOR, REGISTRY_ADDRESS, Economy::rent(1), &activate, &refused).unwrap();
}

#[test]
fn a_manifest_that_nobody_fetches_stops_this_node() {
    let mut chain = Economy::new(|_| {}).unwrap();
    let id = only_a_manifest(&mut chain, &[b' '; (64 << 10) + 1]);
    let activate = Registry::activateCall { model: id, daysPaid: 1 }.abi_encode();
    let error = chain.send(AUTHOR, REGISTRY_ADDRESS, Economy::rent(1), activate).unwrap_err().to_string();
    assert!(error.contains("at most 65536 are allowed") && error.contains("metisvm model fetch"), "{error}");
}

#[test]
fn what_differs_from_its_registration_is_refused_without_its_weights() {
    let mut chain = Economy::new(|_| {}).unwrap();
    let mut model = chain.model(1).unwrap();
    let folder = chain.folder.path().join(model.id.to_string());
    std::fs::remove_file(folder.join("weights.safetensors")).unwrap();
    model.claims.layers += 1;
    chain.register(&model, free()).unwrap();
    chain.wait(100);
    let activate = Registry::activateCall { model: model.id, daysPaid: 1 };
    let mismatch = abi::BundleMismatch { model: model.id, field: B256::right_padding_from(b"layers") };
    chain.reverts(AUTHOR, REGISTRY_ADDRESS, Economy::rent(1), &activate, &mismatch).unwrap();
}

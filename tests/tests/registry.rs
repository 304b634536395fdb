//! The registry of models, and what the precompile makes of it.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

use alloy_primitives::aliases::U24;
use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_sol_types::SolCall;
use metis_precompiles::abi;
use metis_precompiles::{INFERENCE_ADDRESS, REGISTRY_ADDRESS, SHARES_ADDRESS};
use metis_tests::economy::{AUTHOR, DAY, Economy, STRANGER, USER, free, generate, priced};
use metis_vm::{Account, Status, VmError};
use metisvm::contracts::{ModelStatus, Registry, Shares};

const NOTHING: U256 = U256::ZERO;

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

    // Validators may have let go of it, so it matures again.
    let matures = U256::from(chain.time() + 100);
    let early = Registry::NotMature { model: id, maturesAt: matures };
    chain.reverts(AUTHOR, REGISTRY_ADDRESS, Economy::rent(1), &activate, &early).unwrap();
    chain.wait(100);
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
    // Nobody but the registry makes validators look for a bundle.
    let verify = abi::verifyBundleCall { model: model.id };
    let refused = abi::NotSupported { selector: abi::verifyBundleCall::SELECTOR.into() };
    chain.reverts(USER, INFERENCE_ADDRESS, NOTHING, &verify, &refused).unwrap();
    // What only describes is free.
    let quote = abi::quoteCall { model: model.id, promptTokens: 4, maxNew: 4 };
    chain.ok(USER, INFERENCE_ADDRESS, NOTHING, &quote).unwrap();
}

#[test]
fn registration_takes_an_announcement_that_nobody_can_copy() {
    let mut chain = Economy::new(|_| {}).unwrap();
    let model = chain.model(1).unwrap();
    let salt = B256::repeat_byte(3);
    let commitment = |chain: &mut Economy, author| {
        let call = Registry::commitmentOfCall { model: model.id, author, salt };
        chain.view(REGISTRY_ADDRESS, &call).unwrap()
    };
    let (ours, theirs) = (commitment(&mut chain, AUTHOR), commitment(&mut chain, STRANGER));
    let register =
        Registry::registerCall { model: model.id, claims: model.claims.clone(), terms: free(), salt };
    let unknown = Registry::NotCommitted { commitment: ours };
    chain.reverts(AUTHOR, REGISTRY_ADDRESS, Economy::bond(), &register, &unknown).unwrap();

    let commit = Registry::commitCall { commitment: ours };
    chain.ok(AUTHOR, REGISTRY_ADDRESS, NOTHING, &commit).unwrap();
    // In the same block, somebody could have seen it; and who saw it cannot use it or make it younger.
    chain.reverts(AUTHOR, REGISTRY_ADDRESS, Economy::bond(), &register, &unknown).unwrap();
    let copied = Registry::NotCommitted { commitment: theirs };
    chain.wait(1);
    chain.reverts(STRANGER, REGISTRY_ADDRESS, Economy::bond(), &register, &copied).unwrap();
    let known = Registry::AlreadyCommitted { commitment: ours };
    chain.reverts(STRANGER, REGISTRY_ADDRESS, NOTHING, &commit, &known).unwrap();

    chain.wait(DAY);
    chain.reverts(AUTHOR, REGISTRY_ADDRESS, Economy::bond(), &register, &unknown).unwrap();
    chain.ok(AUTHOR, REGISTRY_ADDRESS, NOTHING, &commit).unwrap();
    chain.wait(DAY);
    chain.ok(AUTHOR, REGISTRY_ADDRESS, Economy::bond(), &register).unwrap();
    // It is used up, and the model has an owner.
    chain.reverts(AUTHOR, REGISTRY_ADDRESS, Economy::bond(), &register, &unknown).unwrap();
    chain.ok(AUTHOR, REGISTRY_ADDRESS, NOTHING, &commit).unwrap();
    chain.wait(1);
    let taken = Registry::AlreadyRegistered { model: model.id };
    chain.reverts(AUTHOR, REGISTRY_ADDRESS, Economy::bond(), &register, &taken).unwrap();
}

#[test]
fn what_cannot_be_registered_is_named() {
    let mut chain = Economy::new(|_| {}).unwrap();
    let model = chain.model(1).unwrap();
    let parent = B256::repeat_byte(9);
    let mut salt = 0u8;
    let mut refused =
        |chain: &mut Economy, id: B256, claims: &Registry::ModelClaims, terms, bond, error: &[u8]| {
            salt += 1;
            let salt = B256::repeat_byte(salt);
            let call = Registry::commitmentOfCall { model: id, author: AUTHOR, salt };
            let commitment = chain.view(REGISTRY_ADDRESS, &call).unwrap();
            chain.ok(AUTHOR, REGISTRY_ADDRESS, NOTHING, &Registry::commitCall { commitment }).unwrap();
            chain.wait(1);
            let call = Registry::registerCall { model: id, claims: claims.clone(), terms, salt };
            let outcome = chain.send(AUTHOR, REGISTRY_ADDRESS, bond, call.abi_encode()).unwrap();
            assert_eq!((outcome.status, &outcome.output[..]), (Status::Revert, error));
        };
    use alloy_sol_types::SolError;
    let (claims, bond) = (&model.claims, Economy::bond());
    let size = |mebibytes: u64| Registry::WrongSize { mebibytes: U256::from(mebibytes), max: U256::from(4) };
    let text =
        |length: u64, max: u64| Registry::WrongText { length: U256::from(length), max: U256::from(max) };
    let less = bond - U256::from(1);
    let payment = Registry::WrongPayment { required: bond, sent: less };
    refused(&mut chain, model.id, claims, free(), less, &payment.abi_encode());
    let terms = Registry::ModelTerms { parent, ..free() };
    refused(
        &mut chain,
        model.id,
        claims,
        terms,
        bond,
        &Registry::NotRegistered { model: parent }.abi_encode(),
    );
    refused(&mut chain, B256::ZERO, claims, free(), bond, &size(1).abi_encode());
    let none = Registry::ModelClaims { weightsBytes: 0, ..claims.clone() };
    refused(&mut chain, model.id, &none, free(), bond, &size(1).abi_encode());
    let huge = Registry::ModelClaims { weightsBytes: u64::MAX, tokenizerBytes: u64::MAX, ..claims.clone() };
    refused(&mut chain, model.id, &huge, free(), bond, &size(1 << 45).abi_encode());
    for (share, error) in [(0, 0u64), (10_001, 10_001)] {
        let terms = Registry::ModelTerms { founderShare: share, ..free() };
        let error = Registry::WrongShare { share: U256::from(error) };
        refused(&mut chain, model.id, claims, terms, bond, &error.abi_encode());
    }
    for (licence, uri, error) in [
        (String::new(), String::new(), text(0, 128)),
        ("x".repeat(129), String::new(), text(129, 128)),
        ("MIT".into(), "x".repeat(513), text(513, 512)),
    ] {
        let terms = Registry::ModelTerms { licence, uri, ..free() };
        refused(&mut chain, model.id, claims, terms, bond, &error.abi_encode());
    }
}

#[test]
fn only_a_models_owner_decides_and_gives_it_away_in_two_steps() {
    let mut chain = Economy::new(|_| {}).unwrap();
    let model = chain.model(1).unwrap();
    let class = chain.activate(&model, free()).unwrap();
    let id = model.id;
    let not_owner = Registry::NotModelOwner { model: id, caller: STRANGER };
    macro_rules! refused {
        ($($call:expr),*) => { $(
            chain.reverts(STRANGER, REGISTRY_ADDRESS, NOTHING, &$call, &not_owner).unwrap();
        )* };
    }
    refused!(
        Registry::activateCall { model: id, daysPaid: 1 },
        Registry::deprecateCall { model: id },
        Registry::setPriceCall { model: id, perCall: Default::default(), perGas: 1 },
        Registry::transferOwnershipCall { model: id, to: STRANGER },
        Registry::withdrawBondCall { model: id }
    );
    let accept = Registry::acceptOwnershipCall { model: id };
    let not_pending = Registry::NotPendingOwner { model: id, caller: STRANGER };
    chain.reverts(STRANGER, REGISTRY_ADDRESS, NOTHING, &accept, &not_pending).unwrap();
    let transfer = Registry::transferOwnershipCall { model: id, to: STRANGER };
    chain.ok(AUTHOR, REGISTRY_ADDRESS, NOTHING, &transfer).unwrap();
    let controller = Shares::controllerOfCall { classId: class };
    assert_eq!(chain.view(SHARES_ADDRESS, &controller).unwrap(), AUTHOR, "not before it is accepted");
    chain.ok(STRANGER, REGISTRY_ADDRESS, NOTHING, &accept).unwrap();
    assert_eq!(chain.view(SHARES_ADDRESS, &controller).unwrap(), STRANGER);
    chain.reverts(STRANGER, REGISTRY_ADDRESS, NOTHING, &accept, &not_pending).unwrap();
    chain.ok(STRANGER, REGISTRY_ADDRESS, NOTHING, &Registry::deprecateCall { model: id }).unwrap();
    let unknown = B256::repeat_byte(8);
    let call = Registry::evictCall { model: unknown };
    chain
        .reverts(USER, REGISTRY_ADDRESS, NOTHING, &call, &Registry::NotRegistered { model: unknown })
        .unwrap();
}

#[test]
fn each_step_of_a_life_has_its_place() {
    let mut chain = Economy::new(|_| {}).unwrap();
    let model = chain.model(1).unwrap();
    let id = model.id;
    let wrong = |status: ModelStatus| Registry::WrongStatus { model: id, status: status as u8 };
    let (activate, extend) = (
        |days| Registry::activateCall { model: id, daysPaid: days },
        |days| Registry::extendCall { model: id, daysPaid: days },
    );
    let (evict, bond) = (Registry::evictCall { model: id }, Registry::withdrawBondCall { model: id });
    let deprecate = Registry::deprecateCall { model: id };
    let registry = REGISTRY_ADDRESS;

    chain.register(&model, free()).unwrap();
    let pending = wrong(ModelStatus::Pending);
    chain.reverts(USER, registry, Economy::rent(1), &extend(1), &pending).unwrap();
    chain.reverts(USER, registry, NOTHING, &evict, &pending).unwrap();
    chain.reverts(AUTHOR, registry, NOTHING, &bond, &pending).unwrap();
    chain.wait(100);
    let days = |days: u64| Registry::WrongDays { daysPaid: U256::from(days), max: U256::from(30) };
    chain.reverts(AUTHOR, registry, NOTHING, &activate(0), &days(0)).unwrap();
    chain.reverts(AUTHOR, registry, Economy::rent(31), &activate(31), &days(31)).unwrap();
    let payment = Registry::WrongPayment { required: Economy::rent(2), sent: Economy::rent(1) };
    chain.reverts(AUTHOR, registry, Economy::rent(1), &activate(2), &payment).unwrap();
    chain.ok(AUTHOR, registry, Economy::rent(2), &activate(2)).unwrap();

    let active = wrong(ModelStatus::Active);
    chain.reverts(AUTHOR, registry, Economy::rent(1), &activate(1), &active).unwrap();
    chain.reverts(AUTHOR, registry, NOTHING, &bond, &active).unwrap();
    chain.reverts(USER, registry, Economy::rent(29), &extend(29), &days(29)).unwrap();
    chain.ok(AUTHOR, registry, NOTHING, &deprecate).unwrap();
    let sunset = wrong(ModelStatus::Sunset);
    chain.reverts(AUTHOR, registry, NOTHING, &deprecate, &sunset).unwrap();
    chain.reverts(USER, registry, Economy::rent(1), &extend(1), &sunset).unwrap();
    chain.reverts(AUTHOR, registry, NOTHING, &bond, &sunset).unwrap();
    chain.wait(50);
    chain.ok(STRANGER, registry, NOTHING, &evict).unwrap();
    let retired = wrong(ModelStatus::Retired);
    chain.reverts(AUTHOR, registry, Economy::rent(1), &activate(1), &retired).unwrap();
    chain.reverts(AUTHOR, registry, NOTHING, &deprecate, &retired).unwrap();
    chain.reverts(USER, registry, NOTHING, &evict, &retired).unwrap();
}

#[test]
fn the_resident_budget_is_never_exceeded() {
    let mut chain = Economy::new(|_| {}).unwrap();
    let models = [1, 2, 3].map(|seed| chain.model(seed).unwrap());
    for model in &models[..2] {
        chain.activate(model, free()).unwrap();
    }
    chain.register(&models[2], free()).unwrap();
    chain.wait(100);
    let activate = Registry::activateCall { model: models[2].id, daysPaid: 1 };
    let over = Registry::OverBudget { mebibytes: U256::from(1), free: NOTHING };
    chain.reverts(AUTHOR, REGISTRY_ADDRESS, Economy::rent(1), &activate, &over).unwrap();
    // A model whose rent is over still counts until it is evicted.
    chain.wait(11 * DAY);
    chain.reverts(AUTHOR, REGISTRY_ADDRESS, Economy::rent(1), &activate, &over).unwrap();
    chain.ok(USER, REGISTRY_ADDRESS, NOTHING, &Registry::evictCall { model: models[0].id }).unwrap();
    chain.ok(AUTHOR, REGISTRY_ADDRESS, Economy::rent(1), &activate).unwrap();
    let larger = Registry::ModelClaims { weightsBytes: 3 << 20, ..models[2].claims.clone() };
    let size = Registry::mebibytesOfCall { claims: larger };
    assert_eq!(chain.view(REGISTRY_ADDRESS, &size).unwrap(), U256::from(4));
}

#[test]
fn every_claim_is_compared_with_the_bundle() {
    let mut chain = Economy::new(|config| config.registry.as_mut().unwrap().resident_mebibytes = 99).unwrap();
    let model = chain.model(1).unwrap();
    let one = U24::from(1);
    type Change = fn(&mut Registry::ModelClaims);
    let wrong: [(&str, Change); 12] = [
        ("weightsRoot", |claims| claims.weightsRoot = B256::ZERO),
        ("tokenizerRoot", |claims| claims.tokenizerRoot = B256::ZERO),
        ("weightsBytes", |claims| claims.weightsBytes += 1),
        ("tokenizerBytes", |claims| claims.tokenizerBytes -= 1),
        ("linearMacs", |claims| claims.linearMacs = Default::default()),
        ("attentionMacs", |claims| claims.attentionMacs += 1),
        ("headMacs", |claims| claims.headMacs = Default::default()),
        ("layers", |claims| claims.layers += 1),
        ("vocabulary", |claims| claims.vocabulary = Default::default()),
        ("context", |claims| claims.context = Default::default()),
        ("spelledBytes", |claims| claims.spelledBytes += 1),
        ("grouped", |claims| claims.grouped ^= true),
    ];
    assert!(model.claims.context > one);
    for (field, change) in wrong {
        let state = chain.vm.state();
        let block = chain.vm.config().block.clone();
        let mut changed = model.clone();
        change(&mut changed.claims);
        chain.register(&changed, free()).unwrap();
        chain.wait(100);
        let activate = Registry::activateCall { model: model.id, daysPaid: 1 };
        let field = B256::right_padding_from(field.as_bytes());
        let mismatch = abi::BundleMismatch { model: model.id, field };
        chain.reverts(AUTHOR, REGISTRY_ADDRESS, Economy::rent(1), &activate, &mismatch).unwrap();
        chain.vm = chain.node.vm(state);
        chain.vm.set_block(block);
    }
}

#[test]
fn a_bundle_that_no_node_can_execute_is_refused_everywhere() {
    let mut chain = Economy::new(|_| {}).unwrap();
    let mut model = chain.model(1).unwrap();
    // The manifest's bytes are what the new id names, and they are no manifest.
    let folder = chain.folder.path().join(model.id.to_string());
    let manifest = folder.join("manifest.json");
    let mut bytes = std::fs::read(&manifest).unwrap();
    bytes.insert(0, b' ');
    std::fs::write(&manifest, &bytes).unwrap();
    model.id = alloy_primitives::keccak256(&bytes);
    std::fs::rename(&folder, chain.folder.path().join(model.id.to_string())).unwrap();
    chain.register(&model, free()).unwrap();
    chain.wait(100);
    let activate = Registry::activateCall { model: model.id, daysPaid: 1 };
    let refused = abi::BundleRefused { model: model.id };
    chain.reverts(AUTHOR, REGISTRY_ADDRESS, Economy::rent(1), &activate, &refused).unwrap();
}

#[test]
fn a_damaged_copy_is_this_nodes_matter_and_not_the_models() {
    let mut chain = Economy::new(|_| {}).unwrap();
    let model = chain.model(1).unwrap();
    let weights = chain.folder.path().join(model.id.to_string()).join("weights.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&weights, &bytes).unwrap();
    chain.register(&model, free()).unwrap();
    chain.wait(100);
    let activate = Registry::activateCall { model: model.id, daysPaid: 1 };
    let error = chain.send(AUTHOR, REGISTRY_ADDRESS, Economy::rent(1), activate.abi_encode()).unwrap_err();
    let error = format!("{error:#}");
    assert!(error.contains("damaged") && error.contains("metisvm model fetch"), "{error}");
}

#[test]
fn money_that_cannot_be_sent_stays() {
    // An owner that is a contract which takes no money.
    let mut chain = Economy::new(|_| {}).unwrap();
    let model = chain.model(1).unwrap();
    chain.register(&model, free()).unwrap();
    let stubborn = Address::repeat_byte(0x57);
    chain
        .ok(
            AUTHOR,
            REGISTRY_ADDRESS,
            NOTHING,
            &Registry::transferOwnershipCall { model: model.id, to: stubborn },
        )
        .unwrap();
    chain
        .ok(stubborn, REGISTRY_ADDRESS, NOTHING, &Registry::acceptOwnershipCall { model: model.id })
        .unwrap();
    chain.ok(stubborn, REGISTRY_ADDRESS, NOTHING, &Registry::deprecateCall { model: model.id }).unwrap();
    chain.wait(150);
    let nonce = chain.vm.nonce(stubborn);
    let refuses = Account { code: Bytes::from_static(&[0x5f, 0x5f, 0xfd]), nonce, ..Account::default() };
    chain.vm.set_account(stubborn, &refuses);
    let call = Registry::withdrawBondCall { model: model.id };
    let tx = metis_vm::Transaction::call(stubborn, REGISTRY_ADDRESS, call.abi_encode());
    let outcome = chain.vm.simulate(&tx).unwrap();
    let failed = Registry::TransferFailed { to: stubborn, amount: Economy::bond() };
    use alloy_sol_types::SolError;
    assert_eq!((outcome.status, outcome.output), (Status::Revert, failed.abi_encode().into()));
    assert_eq!(chain.balance(REGISTRY_ADDRESS), Economy::bond());
}

#[test]
fn looking_a_model_up_costs_what_reading_storage_costs() {
    let mut chain = Economy::new(|_| {}).unwrap();
    let model = chain.model(1).unwrap();
    chain.activate(&model, free()).unwrap();
    let gas = |chain: &mut Economy, data: Vec<u8>| {
        let tx = metis_vm::Transaction::call(USER, INFERENCE_ADDRESS, data);
        let outcome = chain.vm.transact(&tx).unwrap();
        assert!(outcome.is_success());
        outcome.gas_used
    };
    let info = |model| abi::modelInfoCall { model }.abi_encode();
    // Of the default model nothing is read; the calldata costs more where the id has fewer zeros.
    let zeros = model.id.iter().filter(|byte| **byte == 0).count() as u64;
    let calldata = (32 - zeros) * 12;
    let (default, registered) = (gas(&mut chain, info(B256::ZERO)), gas(&mut chain, info(model.id)));
    assert_eq!(registered - default, 6_800 + calldata);
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
    chain.wait(150);
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

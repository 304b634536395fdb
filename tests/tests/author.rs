//! The author's road inside one process, with a real checkpoint: import, publish, fetch, register, activate, earn, end. `cli/tests/author.rs` goes
//! it by the program's commands.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]
#![allow(missing_docs, reason = "the macro's items; what they mean is in contracts/src")]

use std::path::Path;

use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_sol_types::{SolCall, SolValue, sol};
use metis_models::Bundle;
use metis_models::import::{Options, ProgressBar, Source, import};
use metis_models::store::{Folder, Origin, fetch, publish};
use metis_precompiles::abi::{self, Sampling, generateCall};
use metis_precompiles::costs::ModelCosts;
use metis_precompiles::{Claims, GATEWAY_ADDRESS, INFERENCE_ADDRESS, REGISTRY_ADDRESS, SHARES_ADDRESS};
use metis_tests::economy::{AUTHOR, Economy, STRANGER, USER, Unregistered, priced, small_model};
use metis_tests::fixtures;
use metis_vm::{Transaction, VmError};
use metisvm::contracts::{Gateway, Registry, Shares};

sol!(
    #[derive(Debug)]
    GovernanceSummariser,
    "../contracts/artifacts/GovernanceSummariser.json"
);

const NOTHING: U256 = U256::ZERO;
const TREASURY: u64 = 1_000_000_000;

fn call(model: B256, prompt: &str, max_new: u32) -> generateCall {
    generateCall {
        model,
        prompt: Bytes::copy_from_slice(prompt.as_bytes()),
        maxNew: max_new,
        s: Sampling { temperatureQ16: 0, topPQ16: 0, topK: 0, seed: 0 },
        stopIds: vec![],
    }
}

fn paid(model: B256, prompt: &str, max_new: u32) -> Gateway::callCall {
    Gateway::callCall { data: call(model, prompt, max_new).abi_encode().into() }
}

/// Imports stories260K, publishes it into a store and fetches it from there into `bundles`; what there is to register.
fn published(models: &Path, bundles: &Path) -> Unregistered {
    let work = tempfile::tempdir().unwrap();
    let (made, store) = (work.path().join("made"), work.path().join("store"));
    let source = Source::detect(&models.join("stories260K.bin"), Some(&models.join("tok512.bin"))).unwrap();
    let progress = ProgressBar::hidden();
    let id = import(&source, &made, &Options::default(), &progress).unwrap().id;
    assert_eq!(publish(&Bundle::open(&made).unwrap(), &store, &progress).unwrap().id, id);
    std::fs::remove_dir_all(&made).unwrap();

    let origins: [Box<dyn Origin>; 1] = [Box::new(Folder::new(&store))];
    let fetched = fetch(id, &origins, bundles, &progress).unwrap();
    assert_eq!((fetched.id, &fetched.directory), (id, &bundles.join(id.to_string())));
    let bundle = Bundle::open(&fetched.directory).unwrap();
    let costs = ModelCosts::of(bundle.manifest(), &bundle.tokenizer().unwrap()).unwrap();
    Unregistered { id, claims: (&Claims::of(bundle.manifest(), &costs)).into() }
}

#[test]
fn author_makes_a_model_that_a_contract_pays_for() {
    let Some(models) = fixtures::find("models/stories260K") else { return };
    let mut chain = Economy::new(|_| {}).unwrap();
    let model = published(&models, chain.folder.path());
    let id = model.id;

    // Unknown, pending, active.
    let unknown = abi::UnknownModel { model: id };
    chain.reverts(USER, INFERENCE_ADDRESS, NOTHING, &call(id, "Once", 2), &unknown).unwrap();
    let class = chain.register(&model, priced(100, 7)).unwrap();
    let pending = abi::ModelNotActive { model: id };
    chain.reverts(USER, INFERENCE_ADDRESS, NOTHING, &call(id, "Once", 2), &pending).unwrap();
    let status = chain.view(REGISTRY_ADDRESS, &Registry::modelOfCall { model: id }).unwrap();
    let early = Registry::NotMature { model: id, maturesAt: U256::from(status.maturesAt) };
    let activate = Registry::activateCall { model: id, daysPaid: 1 };
    chain.reverts(AUTHOR, REGISTRY_ADDRESS, Economy::rent(1), &activate, &early).unwrap();
    chain.wait(100);
    chain.ok(AUTHOR, REGISTRY_ADDRESS, Economy::rent(1), &activate).unwrap();

    // A contract pays from its treasury and gets a story.
    let arguments = (id, 16u32, U256::from(TREASURY)).abi_encode_params();
    let code = &GovernanceSummariser::BYTECODE;
    let created = chain.deploy(AUTHOR, U256::from(TREASURY), code, &arguments).unwrap();
    let council = created.created_address.unwrap();
    let member = GovernanceSummariser::setMemberCall { account: USER, member: true };
    chain.ok(AUTHOR, council, NOTHING, &member).unwrap();
    let text = "Once upon a time, Lily had a ball.";
    let propose = GovernanceSummariser::proposeCall { text: text.into() };
    let proposal = chain.ok(USER, council, NOTHING, &propose).unwrap().1;
    let ask = GovernanceSummariser::summariseCall { id: proposal, text: text.into() };
    let (outcome, summary) = chain.ok(STRANGER, council, NOTHING, &ask).unwrap();
    let price = U256::from(TREASURY) - chain.balance(council);
    let story = call(id, &format!("Proposal: {text}\nSummary:"), 16);
    let (_, answer) = chain
        .ok(
            USER,
            GATEWAY_ADDRESS,
            U256::from(TREASURY),
            &Gateway::callCall { data: story.abi_encode().into() },
        )
        .unwrap();
    assert_eq!(summary, generateCall::abi_decode_returns(&answer).unwrap().text);
    assert!(summary.len() > 16, "sixteen tokens are a sentence: {summary}");
    assert!(price > U256::from(100) && price < U256::from(100 + 7 * outcome.gas_used), "{price}");

    // A record of the paid call is what other validators compute, too.
    let mut record = metis_vm::Record::begin(&chain.vm, chain.node.chain().unwrap());
    let data = paid(id, "Once upon a time", 8).abi_encode();
    let paid_call = Transaction::call(USER, GATEWAY_ADDRESS, data).with_value(U256::from(TREASURY));
    let complete = chain.vm.complete(&paid_call);
    let outcome = chain.vm.transact(&paid_call).unwrap();
    assert!(outcome.is_success());
    record.push(complete, outcome);
    record.end(&chain.vm);
    record.verify(chain.node.precompiles()).unwrap();

    // Somebody who holds half of the founder's share gets it; nobody gets anything twice.
    let token = (class << 64usize) | U256::from(1);
    let owed = |chain: &mut Economy| {
        let call = Shares::pendingRevenueCall { tokenId: token, asset: Address::ZERO };
        chain.view(SHARES_ADDRESS, &call).unwrap()
    };
    let pending = owed(&mut chain);
    assert!(pending > price, "two calls and more: {pending}");
    let claim = Shares::claimCall { tokenId: token, asset: Address::ZERO, to: AUTHOR };
    let before = chain.balance(AUTHOR);
    let claimed = chain.ok(AUTHOR, SHARES_ADDRESS, NOTHING, &claim).unwrap().1;
    assert_eq!((claimed, chain.balance(AUTHOR)), (pending, before + pending));
    assert_eq!(owed(&mut chain), NOTHING);

    // Deprecated, then gone when the notice is over.
    chain.ok(AUTHOR, REGISTRY_ADDRESS, NOTHING, &Registry::deprecateCall { model: id }).unwrap();
    chain.wait(50);
    let ended = abi::ModelNotActive { model: id };
    let late = paid(id, "Once", 2);
    chain.reverts(USER, GATEWAY_ADDRESS, U256::from(TREASURY), &late, &ended).unwrap();
}

#[test]
fn author_cannot_activate_more_than_validators_hold() {
    let mut chain = Economy::new(|_| {}).unwrap();
    let registered = [1, 2, 3].map(|seed| {
        let model = chain.model(seed).unwrap();
        chain.register(&model, priced(1, 1)).unwrap();
        model.id
    });
    chain.wait(100);
    let activate = |model| Registry::activateCall { model, daysPaid: 1 };
    for model in &registered[..2] {
        chain.ok(AUTHOR, REGISTRY_ADDRESS, Economy::rent(1), &activate(*model)).unwrap();
    }
    let over = Registry::OverBudget { mebibytes: U256::from(1), free: NOTHING };
    chain.reverts(AUTHOR, REGISTRY_ADDRESS, Economy::rent(1), &activate(registered[2]), &over).unwrap();
    let inactive = abi::ModelNotActive { model: registered[2] };
    chain
        .reverts(USER, GATEWAY_ADDRESS, U256::from(TREASURY), &paid(registered[2], "a", 1), &inactive)
        .unwrap();
}

#[test]
fn author_is_asked_for_the_bundle_by_validators_without_it() {
    let mut chain = Economy::new(|_| {}).unwrap();
    let model = chain.model(5).unwrap();
    chain.activate(&model, priced(9, 1)).unwrap();
    let bundles = chain.folder.path();
    let store = tempfile::tempdir().unwrap();
    let bundle = Bundle::open(bundles.join(model.id.to_string())).unwrap();
    publish(&bundle, store.path(), &ProgressBar::hidden()).unwrap();

    // A validator with another bundle: no answer, and what to do.
    let validator = Economy::new(|_| {}).unwrap();
    small_model(validator.folder.path(), 6).unwrap();
    let mut vm = validator.node.vm(chain.vm.state());
    vm.set_block(chain.vm.config().block.clone());
    let call = paid(model.id, "Once", 2).abi_encode();
    let call = Transaction::call(USER, GATEWAY_ADDRESS, call).with_value(U256::from(TREASURY));
    let Err(VmError::Fatal(reason)) = vm.transact(&call) else { panic!("an outcome was made up") };
    assert!(reason.contains(&format!("metisvm model fetch {} --from", model.id)), "{reason}");
    assert_eq!(vm.state(), chain.vm.state());

    // It does that, and computes the same.
    let origins: [Box<dyn Origin>; 1] = [Box::new(Folder::new(store.path()))];
    fetch(model.id, &origins, validator.folder.path(), &ProgressBar::hidden()).unwrap();
    assert_eq!(vm.transact(&call).unwrap(), chain.vm.transact(&call).unwrap());
    assert_eq!(vm.state(), chain.vm.state());
}

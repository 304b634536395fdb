//! The Solidity kit on a chain with a registry: the library of paid calls, leaves of bundles, and the examples that are new with it.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

mod contracts;
mod dialogue;
mod merkle;
mod oracle;
mod paid;
mod summariser;

use alloy_primitives::{Address, B256, Bytes, U256};
use metis_models::Manifest;
use metis_models::bundle::BundleParts;
use metis_models::chat::{ChatFormat, Segment, SystemFormat};
use metis_models::fixture::Fixture;
use metis_tests::economy::{AUTHOR, Economy, small_bundle};
use metisvm::contracts::Registry;

const NOTHING: U256 = U256::ZERO;

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn listed(texts: &[&str]) -> Vec<Bytes> {
    texts.iter().copied().map(bytes).collect()
}

/// A chain with a small random model that reads 512 tokens, active under these terms.
fn chain_with_model(terms: Registry::ModelTerms) -> (Economy, B256) {
    let parts = small_bundle(Fixture { seed: 3, context: 512, ..Fixture::default() }).unwrap();
    chain_with_bundle(&parts, terms)
}

/// A chain with a model, active under these terms, with all shares its founder's: then no wei is lost to rounding.
fn chain_with_bundle(parts: &BundleParts, terms: Registry::ModelTerms) -> (Economy, B256) {
    let mut chain = Economy::new(|_| {}).unwrap();
    let model = chain.publish(parts).unwrap();
    chain.activate(&model, Registry::ModelTerms { founderShare: 10_000, ..terms }).unwrap();
    (chain, model.id)
}

/// Gives a bundle a chat format, with a place for a system message or without.
fn add_chat(parts: &mut BundleParts, system: bool) {
    let token = Segment::Token;
    let text = |text: &str| Segment::Text(text.into());
    let mut manifest = Manifest::decode(&parts.manifest).unwrap();
    manifest.chat = Some(ChatFormat {
        begin: vec![token(1)],
        system: system.then(|| SystemFormat { begin: vec![token(1)], end: vec![token(2)] }),
        reply: vec![token(2), text("A:")],
        turn: vec![token(2), text("B:")],
        answer: vec![token(2), text("A:")],
        trim: false,
        leading_space: false,
    });
    parts.manifest = manifest.encode().unwrap();
}

/// Deploys a contract as the author.
fn deployed(chain: &mut Economy, value: U256, code: &[u8], arguments: &[u8]) -> Address {
    let outcome = chain.deploy(AUTHOR, value, code, arguments).unwrap();
    assert!(outcome.is_success(), "{} {}", outcome.status, outcome.output);
    outcome.created_address.unwrap()
}

//! `MetisMerkle`: leaves of a registered model's files.

use alloy_primitives::{Address, B256, Bytes, U256};
use metis_models::bundle::merkle;
use metis_models::fixture::Fixture;
use metis_precompiles::REGISTRY_ADDRESS;
use metis_tests::economy::{AUTHOR, Economy, free, small_bundle};
use metisvm::contracts::Registry;

use super::contracts::Leaves;
use super::{NOTHING, deployed};

struct Verifier {
    chain: Economy,
    leaves: Address,
}

impl Verifier {
    fn new() -> Self {
        let mut chain = Economy::new(|_| {}).unwrap();
        let leaves = deployed(&mut chain, NOTHING, &Leaves::BYTECODE, &[]);
        Self { chain, leaves }
    }

    fn accepts(&mut self, root: B256, length: usize, proof: &merkle::Proof, leaf: &[u8]) -> bool {
        let call = Leaves::isLeafCall {
            root,
            length: U256::from(length),
            index: U256::from(proof.index),
            leaf: Bytes::copy_from_slice(leaf),
            siblings: proof.siblings.clone(),
        };
        let accepted = self.chain.view(self.leaves, &call).unwrap();
        assert_eq!(
            accepted,
            merkle::verify_leaf(root, length, proof, leaf),
            "the contract and the library agree"
        );
        accepted
    }
}

#[test]
fn every_leaf_of_a_file_has_a_proof_and_no_other() {
    let mut verifier = Verifier::new();
    // One leaf, a short one, powers of two of them, odd levels.
    for length in [1usize, 1_023, 1_024, 1_025, 3_000, 4_096, 5 * 1_024 + 1, 7 * 1_024, 9_000] {
        let file: Vec<u8> = (0..length).map(|i| ((i * 31) >> 3) as u8 ^ (i >> 10) as u8).collect();
        let root = merkle::root(&file);
        for (index, leaf) in file.chunks(merkle::LEAF_BYTES).enumerate() {
            let proof = merkle::proof(&file, index).unwrap();
            assert!(verifier.accepts(root, length, &proof, leaf));
            assert!(!verifier.accepts(root, length, &proof, &leaf[1..]), "another length");
            assert!(!verifier.accepts(root, length, &proof, &[leaf, &[0]].concat()), "another length");
            assert!(!verifier.accepts(B256::ZERO, length, &proof, leaf), "another root");
            let mut wrong = leaf.to_vec();
            wrong[0] ^= 1;
            assert!(!verifier.accepts(root, length, &proof, &wrong), "another byte");
            let beyond = merkle::Proof { index: file.len().div_ceil(merkle::LEAF_BYTES), ..proof.clone() };
            assert!(!verifier.accepts(root, length, &beyond, leaf), "beyond the end");
            let mut longer = proof.clone();
            longer.siblings.push(root);
            assert!(!verifier.accepts(root, length, &longer, leaf), "a hash left over");
            let mut shorter = proof;
            if shorter.siblings.pop().is_some() {
                assert!(!verifier.accepts(root, length, &shorter, leaf), "a hash missing");
            }
        }
    }
}

#[test]
fn an_empty_file_has_no_leaf() {
    let proof = merkle::Proof { index: 0, siblings: vec![] };
    assert!(!Verifier::new().accepts(merkle::root(&[]), 0, &proof, &[]));
}

#[test]
fn a_node_does_not_pass_for_a_leaf() {
    let mut verifier = Verifier::new();
    let file = vec![7; 2_048];
    let leaves = merkle::leaves(&file);
    let node = [leaves[0].as_slice(), leaves[1].as_slice()].concat();
    let proof = merkle::Proof { index: 0, siblings: vec![] };
    assert!(!verifier.accepts(merkle::root(&file), node.len(), &proof, &node));
}

#[test]
fn leaves_of_a_registered_model_are_found_by_its_id() {
    let mut verifier = Verifier::new();
    let parts = small_bundle(Fixture::default()).unwrap();
    let model = verifier.chain.publish(&parts).unwrap();
    let leaves = verifier.leaves;
    let (weights, tokenizer) = (&parts.weights, &parts.tokenizer);
    let accepted = |chain: &mut Economy, index: usize| {
        let proof = |file: &[u8]| merkle::proof(file, index).unwrap().siblings;
        let leaf = |file: &[u8]| Bytes::copy_from_slice(file.chunks(merkle::LEAF_BYTES).nth(index).unwrap());
        let place = U256::from(index);
        let (siblings, bytes) = (proof(weights), leaf(weights));
        let of_weights = Leaves::isInWeightsCall {
            model: model.id,
            index: place,
            leaf: bytes.clone(),
            siblings: siblings.clone(),
        };
        let mixed = Leaves::isInTokenizerCall { model: model.id, index: place, leaf: bytes, siblings };
        let (siblings, bytes) = (proof(tokenizer), leaf(tokenizer));
        let of_tokenizer = Leaves::isInTokenizerCall { model: model.id, index: place, leaf: bytes, siblings };
        assert!(!chain.view(leaves, &mixed).unwrap(), "of another file");
        (chain.view(leaves, &of_weights).unwrap(), chain.view(leaves, &of_tokenizer).unwrap())
    };
    assert_eq!(accepted(&mut verifier.chain, 0), (false, false), "nobody has registered it");
    verifier.chain.register(&model, free()).unwrap();
    assert_eq!(accepted(&mut verifier.chain, 0), (false, false), "nobody has compared it with its bundle");
    verifier.chain.wait(100);
    let activate = Registry::activateCall { model: model.id, daysPaid: 1 };
    verifier.chain.ok(AUTHOR, REGISTRY_ADDRESS, Economy::rent(1), &activate).unwrap();
    for index in [0, 1, tokenizer.len() / merkle::LEAF_BYTES] {
        assert_eq!(accepted(&mut verifier.chain, index), (true, true));
    }
}

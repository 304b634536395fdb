//! Recorded mainnet blocks under every interpreter: each must be what its header says, and bit for bit the same.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

mod fixtures;

use metis_conformance::blocks::{BlockReport, Recording};
use metis_vm::{FusionCache, FusionConfig, Interpreter};

fn cache(interpreter: Interpreter) -> FusionCache {
    // So little that in these few blocks, too, much of the code becomes hot.
    FusionCache::new(FusionConfig { interpreter, hot_gas: 20_000, ..FusionConfig::default() })
}

fn same(reference: &BlockReport, other: &BlockReport, interpreter: Interpreter) {
    for (index, (expected, found)) in reference.transactions.iter().zip(&other.transactions).enumerate() {
        let place = format!("block {}, transaction {index}, {interpreter}", reference.number);
        assert_eq!(expected.result, found.result, "{place}");
        assert_eq!(expected.digest, found.digest, "{place}: another state");
    }
    assert_eq!(reference, other, "{interpreter}");
}

#[test]
fn every_interpreter_replays_mainnet_as_it_was() {
    let Some(folder) = fixtures::unpack("mainnet-blocks.tar.zst") else { return };
    let recording = Recording::open(folder.path().join("mainnet-blocks")).unwrap();
    let numbers = recording.numbers().unwrap();
    assert_eq!(numbers.len(), 48);
    // One cache for the whole chain, as a node has it.
    let caches = Interpreter::ALL.map(|interpreter| (interpreter, cache(interpreter)));

    let mut without_root = 0;
    for number in numbers {
        let block = recording.block(number).unwrap();
        let reference = block.replay(&cache(Interpreter::Revm)).unwrap();
        assert!(reference.matches(), "{reference:#?}");
        without_root += usize::from(reference.receipts_match().is_none());
        for (interpreter, cache) in caches.iter().filter(|(interpreter, _)| *interpreter != Interpreter::Revm)
        {
            same(&reference, &block.replay(cache).unwrap(), *interpreter);
            // What became hot here is fused in the next block.
            cache.wait();
        }
    }
    // Otherwise this test would compare revm with itself.
    for (interpreter, cache) in &caches {
        assert_eq!(cache.stats().made > 0, *interpreter != Interpreter::Revm, "{interpreter}");
    }
    // The blocks before Byzantium, whose receipts hold state roots.
    assert_eq!(without_root, 8);
}

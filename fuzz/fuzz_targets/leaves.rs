//! Foreign bytes as leaf hashes and as the file that they should belong to: nothing is kept that the hashes do not name, and nothing panics.

#![no_main]

use std::io::Read;

use alloy_primitives::B256;
use libfuzzer_sys::fuzz_target;
use metis_models::bundle::merkle;
use metis_models::store::{LeafError, copy_leaves, list_length, root_of_list};

fuzz_target!(|input: (u64, u8, Vec<u8>, Vec<u8>, bool)| {
    let (length, first, mut list, body, fits) = input;
    if fits {
        // A list that belongs to the body, or to its beginning, so that leaves are kept at all.
        list = merkle::leaves(&body).into_iter().flatten().collect();
    }
    let hashes: Vec<B256> = list.as_chunks::<32>().0.iter().map(B256::from).collect();
    let root = root_of_list(&*list).expect("memory can be read");
    assert_eq!(root, merkle::root_of_leaves(hashes.clone()));
    let _ = list_length(length);

    let start = u64::from(first) * merkle::LEAF_BYTES as u64;
    let span = start..length.max(start);
    let mut kept = Vec::new();
    // A body that gives little at a time.
    let trickle = body.chunks(700).fold(Box::new(std::io::empty()) as Box<dyn Read>, |read, next| Box::new(read.chain(next)));
    let result = copy_leaves(trickle, &*list, span.clone(), |leaf| {
        kept.extend_from_slice(leaf);
        Ok(())
    });
    assert!(body.starts_with(&kept));
    let found = merkle::leaves(&kept);
    assert!(hashes.starts_with(&found));
    match result {
        Ok(()) => assert_eq!(kept.len() as u64, span.end - span.start),
        Err(LeafError::Damaged(leaf)) => assert_eq!(leaf.bytes.start, start + kept.len() as u64),
        Err(LeafError::Ends(at)) => assert_eq!(at, start + body.len() as u64),
        Err(LeafError::List(_)) => assert_eq!(found.len(), hashes.len()),
        Err(LeafError::Read(error) | LeafError::Keep(error)) => panic!("{error}"),
    }
});

//! Merkle roots over leaves of 1,024 bytes, so that a contract can check any leaf and a downloader any prefix.
//!
//! `leaf = keccak256(0x00 || bytes)`, `node = keccak256(0x01 || left || right)`; the last node of an odd level moves up
//! unchanged; an empty file has the root `keccak256(0x00)`.

use alloy_primitives::{B256, Keccak256, keccak256};
use rayon::prelude::*;

/// Bytes in a leaf; the last leaf of a file may be shorter.
pub const LEAF_BYTES: usize = 1_024;

/// Leaves that one task hashes: enough that scheduling costs nothing.
const LEAVES_PER_TASK: usize = 256;

/// The hashes on the way from a leaf to the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The index of the leaf in the file.
    pub index: usize,
    /// The sibling at each level that has one, from the leaf upwards.
    pub siblings: Vec<B256>,
}

/// The root of a file.
pub fn root(file: &[u8]) -> B256 {
    root_of_leaves(leaves(file))
}

/// The hashes of a file's leaves, in order; none for an empty file.
pub fn leaves(file: &[u8]) -> Vec<B256> {
    file.par_chunks(LEAF_BYTES).with_min_len(LEAVES_PER_TASK).map(leaf_hash).collect()
}

/// The hash of one leaf's bytes.
pub fn leaf_hash(leaf: &[u8]) -> B256 {
    let mut hasher = Keccak256::new();
    hasher.update([0]);
    hasher.update(leaf);
    hasher.finalize()
}

/// The root of a file whose leaf hashes are known.
pub fn root_of_leaves(mut level: Vec<B256>) -> B256 {
    if level.is_empty() {
        return keccak256([0]);
    }
    while level.len() > 1 {
        level = parents(&level);
    }
    level[0]
}

/// The root of leaf hashes that come one after another: it keeps one hash for each level and no list.
#[derive(Clone, Debug, Default)]
pub struct RootBuilder {
    leaves: u64,
    /// Roots of the full trees that the leaves so far make, the largest first: one for each bit of their number.
    full: Vec<B256>,
}

impl RootBuilder {
    /// Takes the hash of the next leaf.
    pub fn push(&mut self, leaf: B256) {
        let mut hash = leaf;
        for _ in 0..self.leaves.trailing_ones() {
            if let Some(left) = self.full.pop() {
                hash = node(left, hash);
            }
        }
        self.full.push(hash);
        self.leaves += 1;
    }

    /// The root of the leaves so far.
    pub fn root(self) -> B256 {
        let joined = self.full.into_iter().rev().reduce(|right, left| node(left, right));
        joined.unwrap_or_else(|| keccak256([0]))
    }
}

/// The proof that leaf `index` belongs to `file`; `None` when there is no such leaf.
pub fn proof(file: &[u8], index: usize) -> Option<Proof> {
    let mut level = leaves(file);
    if index >= level.len() {
        return None;
    }
    let (mut siblings, mut position) = (Vec::new(), index);
    while level.len() > 1 {
        siblings.extend(level.get(position ^ 1));
        level = parents(&level);
        position /= 2;
    }
    Some(Proof { index, siblings })
}

/// Whether `leaf` is leaf `proof.index` of the file of `length` bytes with this root.
pub fn verify_leaf(root: B256, length: usize, proof: &Proof, leaf: &[u8]) -> bool {
    let mut width = length.div_ceil(LEAF_BYTES);
    if proof.index >= width || leaf.len() != LEAF_BYTES.min(length - proof.index * LEAF_BYTES) {
        return false;
    }
    let (mut hash, mut position) = (leaf_hash(leaf), proof.index);
    let mut siblings = proof.siblings.iter();
    while width > 1 {
        if position ^ 1 < width {
            let Some(&sibling) = siblings.next() else { return false };
            hash = if position.is_multiple_of(2) { node(hash, sibling) } else { node(sibling, hash) };
        }
        position /= 2;
        width = width.div_ceil(2);
    }
    siblings.next().is_none() && hash == root
}

fn parents(level: &[B256]) -> Vec<B256> {
    level
        .par_chunks(2)
        .with_min_len(LEAVES_PER_TASK)
        .map(|pair| if let [left, right] = *pair { node(left, right) } else { pair[0] })
        .collect()
}

fn node(left: B256, right: B256) -> B256 {
    let mut bytes = [1; 65];
    bytes[1..33].copy_from_slice(left.as_slice());
    bytes[33..].copy_from_slice(right.as_slice());
    keccak256(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn roots_are_what_the_text_says() {
        let leaf = |bytes: &[u8]| keccak256([&[0], bytes].concat());
        let pair = |l: B256, r: B256| keccak256([&[1], l.as_slice(), r.as_slice()].concat());
        let file: Vec<u8> = (0..2_500u32).map(|i| i as u8).collect();
        let (a, b, c) = (leaf(&file[..1024]), leaf(&file[1024..2048]), leaf(&file[2048..]));
        assert_eq!(root(&file), pair(pair(a, b), c));
        assert_eq!(root(&file[..1024]), a);
        assert_eq!(root(&[]), keccak256([0]));
    }

    #[test]
    fn one_by_one_leaves_give_the_same_root() {
        let mut builder = RootBuilder::default();
        let mut hashes = Vec::new();
        for next in 0..200u8 {
            assert_eq!(builder.clone().root(), root_of_leaves(hashes.clone()), "{next} leaves");
            let hash = leaf_hash(&[next]);
            builder.push(hash);
            hashes.push(hash);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_leaf_has_a_proof_and_no_other(length in 1usize..12_000, flip: prop::sample::Index, other: prop::sample::Index) {
            let file: Vec<u8> = (0..length).map(|i| ((i * 31) >> 3) as u8 ^ (i >> 10) as u8).collect();
            let root = root(&file);
            let count = length.div_ceil(LEAF_BYTES);
            for (index, leaf) in file.chunks(LEAF_BYTES).enumerate() {
                let proof = proof(&file, index).unwrap();
                prop_assert!(verify_leaf(root, length, &proof, leaf));
                prop_assert!(!verify_leaf(root, length, &proof, &leaf[1..]));
                let mut wrong = leaf.to_vec();
                let at = flip.index(leaf.len());
                wrong[at] ^= 1;
                prop_assert!(!verify_leaf(root, length, &proof, &wrong));
                let mut longer = proof.clone();
                longer.siblings.push(root);
                prop_assert!(!verify_leaf(root, length, &longer, leaf));
                let moved = Proof { index: other.index(count), ..proof.clone() };
                prop_assert_eq!(verify_leaf(root, length, &moved, leaf), moved.index == index);
                if !proof.siblings.is_empty() {
                    let mut shorter = proof;
                    shorter.siblings.pop();
                    prop_assert!(!verify_leaf(root, length, &shorter, leaf));
                }
            }
            prop_assert!(proof(&file, count).is_none());
        }
    }
}

//! Hashes of short inputs, remembered.
//!
//! Mapping slots hash the same 64 bytes again and again. An entry is only used where the whole input is equal, so that
//! nothing depends on what is in the memo.

use alloy_primitives::keccak256;

/// Longest input that is remembered: a mapping's key and slot.
pub(super) const LONGEST: usize = 64;
/// Entries, a power of two: about 110 KB.
const ENTRIES: usize = 1024;

/// A bounded, exact memo of Keccak-256. It takes no memory before the first hash.
#[derive(Default)]
pub(super) struct Memo {
    entries: Vec<Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    /// The input, zeros behind it.
    input: [u64; LONGEST / 8],
    hash: [u64; 4],
    /// Bytes of the input; 0 is a free entry.
    len: u8,
}

impl std::fmt::Debug for Memo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memo").finish_non_exhaustive()
    }
}

impl Memo {
    /// The hash of `input` as a stack word, least limb first.
    pub(super) fn keccak256(&mut self, input: &[u8]) -> [u64; 4] {
        if input.is_empty() || input.len() > LONGEST {
            return hash(input);
        }
        if self.entries.is_empty() {
            let free = Entry { input: [0; LONGEST / 8], hash: [0; 4], len: 0 };
            self.entries.resize(ENTRIES, free);
        }
        let words = words(input);
        let entry = &mut self.entries[index(&words) % ENTRIES];
        if usize::from(entry.len) != input.len() || entry.input != words {
            *entry = Entry { input: words, hash: hash(input), len: input.len() as u8 };
        }
        entry.hash
    }
}

fn hash(input: &[u8]) -> [u64; 4] {
    *alloy_primitives::U256::from_be_bytes(keccak256(input).0).as_limbs()
}

fn words(input: &[u8]) -> [u64; LONGEST / 8] {
    let mut words = [0; LONGEST / 8];
    let (whole, rest) = input.as_chunks::<8>();
    for (word, bytes) in words.iter_mut().zip(whole) {
        *word = u64::from_le_bytes(*bytes);
    }
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        words[whole.len()] = u64::from_le_bytes(last);
    }
    words
}

/// Where an input would be. Addresses and slots differ in few bytes, so all words are mixed.
fn index(words: &[u64; LONGEST / 8]) -> usize {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mixed = words.iter().fold(0u64, |mixed, word| (mixed.rotate_left(5) ^ word).wrapping_mul(ODD));
    (mixed >> 40) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Inputs from a small alphabet collide and repeat.
        #[test]
        fn the_memo_is_keccak(inputs in proptest::collection::vec(proptest::collection::vec(0u8..2, 0..70), 0..300)) {
            let mut memo = Memo::default();
            for input in inputs.iter().chain(&inputs) {
                prop_assert_eq!(memo.keccak256(input), hash(input));
            }
        }
    }
}

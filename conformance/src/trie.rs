//! Merkle-Patricia roots: of a state, of an account's storage, of a list.

use alloy_primitives::{Address, B256, U256};

pub use alloy_trie::{EMPTY_ROOT_HASH, TrieAccount};

/// The root of a state.
///
/// Which accounts exist is the caller's question: an empty account that is given here gets a leaf.
pub fn state_root(accounts: impl IntoIterator<Item = (Address, TrieAccount)>) -> B256 {
    alloy_trie::root::state_root_unhashed(accounts)
}

/// The root of one account's storage. A slot that holds zero does not exist.
pub fn storage_root(slots: impl IntoIterator<Item = (U256, U256)>) -> B256 {
    let filled = slots.into_iter().filter(|(_, value)| !value.is_zero());
    alloy_trie::root::storage_root_unhashed(filled.map(|(slot, value)| (slot.into(), value)))
}

/// The root of a list whose items are encoded already, keyed by the RLP of their index: transactions, receipts,
/// withdrawals.
pub fn list_root<T: AsRef<[u8]>>(items: &[T]) -> B256 {
    alloy_trie::root::ordered_trie_root_encoded(items)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::{address, keccak256};

    #[test]
    fn nothing_has_the_empty_root() {
        assert_eq!(state_root([]), EMPTY_ROOT_HASH);
        assert_eq!(storage_root([(U256::ONE, U256::ZERO)]), EMPTY_ROOT_HASH);
        assert_eq!(list_root::<&[u8]>(&[]), EMPTY_ROOT_HASH);
    }

    #[test]
    fn roots_do_not_depend_on_the_order_of_accounts_and_slots() {
        let slots = [1_u64, 2, 300].map(|n| (U256::from(n), U256::from(n * n)));
        let reversed = slots.iter().rev().copied();
        assert_eq!(storage_root(slots), storage_root(reversed));

        let one = (address!("1000000000000000000000000000000000000001"), TrieAccount::default());
        let two = (address!("2000000000000000000000000000000000000002"), TrieAccount::default());
        assert_eq!(state_root([one, two]), state_root([two, one]));
        assert_ne!(state_root([one, two]), state_root([one]));
    }

    #[test]
    fn a_list_of_one_item_is_one_leaf_whose_key_is_the_rlp_of_zero() {
        // rlp([leaf of the nibbles 8, 0; "item"]).
        let leaf = [0xc8, 0x82, 0x20, 0x80, 0x84, b'i', b't', b'e', b'm'];
        assert_eq!(list_root(&["item"]), keccak256(leaf));
    }

    #[test]
    fn storage_of_one_slot_is_one_leaf_whose_key_is_the_hash_of_the_slot() {
        let key = keccak256(U256::from(7).to_be_bytes::<32>());
        let leaf = [[0xe3, 0xa1, 0x20].as_slice(), key.as_slice(), &[0x05]].concat();
        assert_eq!(storage_root([(U256::from(7), U256::from(5))]), keccak256(leaf));
    }
}

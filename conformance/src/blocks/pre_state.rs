//! The recorded state as a database.

use alloy_primitives::{
    Address, B256, U256,
    map::{AddressMap, B256Map, HashMap},
};
use revm::{
    DatabaseRef,
    database_interface::DBErrorMarker,
    state::{AccountInfo, Bytecode},
};
use std::{collections::BTreeMap, sync::Arc};

/// What a block may read. An account that is not recorded does not exist; any other gap is an error, for a made-up zero
/// could make a wrong execution look right.
#[derive(Clone, Debug)]
pub struct PreState {
    pub(super) accounts: AddressMap<(AccountInfo, HashMap<U256, U256>)>,
    pub(super) codes: Arc<B256Map<Bytecode>>,
    pub(super) block_hashes: Arc<BTreeMap<u64, B256>>,
}

/// A read that the recording cannot answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unrecorded {
    /// A slot of a recorded account.
    #[error("slot {slot} of {address} is not in the recording")]
    Slot {
        /// The account.
        address: Address,
        /// The slot.
        slot: U256,
    },
    /// A code by its hash.
    #[error("code {0} is not in the recording")]
    Code(B256),
    /// A block's hash.
    #[error("the hash of block {0} is not in the recording")]
    BlockHash(u64),
}

impl DBErrorMarker for Unrecorded {}

impl DatabaseRef for PreState {
    type Error = Unrecorded;

    fn basic_ref(&self, address: Address) -> Result<Option<AccountInfo>, Unrecorded> {
        Ok(self.accounts.get(&address).map(|(info, _)| info.clone()))
    }

    fn code_by_hash_ref(&self, hash: B256) -> Result<Bytecode, Unrecorded> {
        self.codes.get(&hash).cloned().ok_or(Unrecorded::Code(hash))
    }

    fn storage_ref(&self, address: Address, slot: U256) -> Result<U256, Unrecorded> {
        match self.accounts.get(&address) {
            None => Ok(U256::ZERO),
            Some((_, storage)) => storage.get(&slot).copied().ok_or(Unrecorded::Slot { address, slot }),
        }
    }

    fn block_hash_ref(&self, number: u64) -> Result<B256, Unrecorded> {
        self.block_hashes.get(&number).copied().ok_or(Unrecorded::BlockHash(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_in_the_recording_is_an_error_and_an_unknown_account_does_not_exist() {
        let known = Address::with_last_byte(1);
        let state = PreState {
            accounts: AddressMap::from_iter([(
                known,
                (AccountInfo::default(), HashMap::from_iter([(U256::ONE, U256::ZERO)])),
            )]),
            codes: Arc::default(),
            block_hashes: Arc::default(),
        };
        assert_eq!(state.storage_ref(known, U256::ONE), Ok(U256::ZERO));
        let gap = Unrecorded::Slot { address: known, slot: U256::ZERO };
        assert_eq!(state.storage_ref(known, U256::ZERO), Err(gap));
        assert_eq!(state.block_hash_ref(7), Err(Unrecorded::BlockHash(7)));
        assert_eq!(state.basic_ref(Address::with_last_byte(2)), Ok(None));
    }
}

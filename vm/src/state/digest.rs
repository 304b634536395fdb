//! The digest of a state.

use super::State;
use alloy_primitives::{B256, Keccak256, keccak256};

/// Opens the encoding, so that no other kind of document has the same preimage.
const DOMAIN: &[u8] = b"metis-state-v1";

/// keccak256 of: domain, number of accounts, then for each non-empty account in ascending order of its address:
/// address (20), nonce (8), balance (32), keccak of the code (32), number of slots (8), and for each non-zero slot in ascending
/// order: slot (32), value (32). Integers are big-endian, counts are 8 bytes.
pub(super) fn of(state: &State) -> B256 {
    let accounts: Vec<_> = state.accounts.iter().filter(|(_, account)| !account.is_empty()).collect();
    let mut hash = Keccak256::new();
    hash.update(DOMAIN);
    hash.update((accounts.len() as u64).to_be_bytes());
    for (address, account) in accounts {
        hash.update(address);
        hash.update(account.nonce.to_be_bytes());
        hash.update(account.balance.to_be_bytes::<32>());
        hash.update(keccak256(&account.code));
        hash.update((account.slots().count() as u64).to_be_bytes());
        for (slot, value) in account.slots() {
            hash.update(slot.to_be_bytes::<32>());
            hash.update(value.to_be_bytes::<32>());
        }
    }
    hash.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Account;
    use alloy_primitives::{Address, U256, b256, bytes};

    #[test]
    fn the_encoding_is_frozen() {
        assert_eq!(State::default().digest(), keccak256([DOMAIN, &[0; 8]].concat()));
        let account = Account {
            balance: U256::from(5),
            nonce: 7,
            code: bytes!("6000"),
            storage: [(U256::from(1), U256::from(2)), (U256::from(3), U256::ZERO)].into(),
        };
        let state =
            State::from_iter([(Address::with_last_byte(9), account), (Address::ZERO, Account::default())]);
        let word = |byte: u8| B256::with_last_byte(byte).0.to_vec();
        let long = |byte: u8| vec![0, 0, 0, 0, 0, 0, 0, byte];
        let address = Address::with_last_byte(9).to_vec();
        let code = keccak256([0x60, 0x00]).to_vec();
        let preimage =
            [DOMAIN.to_vec(), long(1), address, long(7), word(5), code, long(1), word(1), word(2)].concat();
        assert_eq!(state.digest(), keccak256(preimage));
        assert_eq!(state.digest(), b256!("4e2d2a4b28e14d3e79a1e183926b5cab07288e6067c53eb533121be64a64a6df"));
    }
}

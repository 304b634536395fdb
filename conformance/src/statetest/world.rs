//! The state before, as a database, and the state after, as a root.

use super::suite::Account;
use crate::trie::{self, TrieAccount};
use alloy_primitives::{
    Address, B256, KECCAK256_EMPTY, U256, keccak256,
    map::{AddressMap, B256Map, U256Map},
};
use revm::{
    Database,
    bytecode::Bytecode,
    state::{AccountInfo, EvmState},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
};

/// The state before the transaction, shared by the subtests of one test.
#[derive(Debug)]
pub(super) struct World {
    accounts: AddressMap<(AccountInfo, U256Map<U256>)>,
    codes: B256Map<Bytecode>,
}

impl World {
    /// # Errors
    /// Which account has a nonce that is too large.
    pub(super) fn new(pre: &BTreeMap<Address, Account>) -> Result<Self, String> {
        let mut world = Self { accounts: AddressMap::default(), codes: B256Map::default() };
        for (address, account) in pre {
            // A delegation that is cut short is code like any other.
            let code = Bytecode::new_raw_checked(account.code.clone())
                .unwrap_or_else(|_| Bytecode::new_legacy(account.code.clone()));
            let nonce = account
                .nonce
                .to_u64()
                .ok_or_else(|| format!("pre: the nonce of {address} needs more than 64 bits"))?;
            let storage: U256Map<U256> =
                account.storage.iter().map(|(slot, value)| (slot.0, value.0)).collect();
            // EIP-7610: a creation also fails at an address that has storage only. revm looks at the nonce and at the
            // code's hash, so this account gets a hash of zero, which means "no code" to revm as well. Only EXTCODEHASH
            // of such an account would tell, and only if it has a balance.
            let only_storage =
                nonce == 0 && account.code.is_empty() && storage.values().any(|v| !v.is_zero());
            let code_hash = if only_storage { B256::ZERO } else { keccak256(&account.code) };
            world.codes.insert(code_hash, code.clone());
            let info = AccountInfo {
                balance: account.balance.0,
                nonce,
                code_hash,
                account_id: None,
                code: Some(code),
            };
            world.accounts.insert(*address, (info, storage));
        }
        Ok(world)
    }

    /// The state after the transaction that made these changes.
    pub(super) fn after(&self, changes: &EvmState) -> State {
        let mut state: BTreeMap<Address, PlainAccount> = self
            .accounts
            .iter()
            .map(|(address, (info, storage))| (*address, PlainAccount::new(info, storage)))
            .collect();
        for (address, account) in changes.iter().filter(|(_, account)| account.is_touched()) {
            // EIP-161. For forks before it, revm marks the empty accounts that stay as created.
            if account.is_selfdestructed() || (account.is_empty() && !account.is_created()) {
                state.remove(address);
                continue;
            }
            let mut plain = PlainAccount::new(&account.info, &U256Map::default());
            if !account.is_created()
                && let Some(before) = state.remove(address)
            {
                plain.storage = before.storage;
            }
            for (slot, value) in &account.storage {
                plain.set(*slot, value.present_value());
            }
            state.insert(*address, plain);
        }
        State(state)
    }

    /// The first thing, by address, that these changes alter, as one must know it of a rejected transaction. Accounts that
    /// were only read are no change, and neither are empty ones that do not exist.
    pub(super) fn first_change(&self, changes: &EvmState) -> Option<String> {
        let mut sorted: Vec<_> = changes.iter().collect();
        sorted.sort_unstable_by_key(|(address, _)| **address);
        sorted.into_iter().find_map(|(address, account)| {
            let known = self.accounts.get(address).map(|(info, _)| info);
            let before = known.cloned().unwrap_or_default();
            let now = &account.info;
            let change = if now.balance != before.balance {
                format!("its balance is {} after {}", now.balance, before.balance)
            } else if now.nonce != before.nonce {
                format!("its nonce is {} after {}", now.nonce, before.nonce)
            } else if now.code_hash != before.code_hash {
                format!("its code hash is {} after {}", now.code_hash, before.code_hash)
            } else if let Some((slot, value)) = account.changed_storage_slots().next() {
                format!("its slot {slot:#x} holds {:#x}", value.present_value())
            } else if account.is_created() || account.is_selfdestructed() {
                "it was created or destroyed".to_owned()
            } else {
                return None;
            };
            Some(format!("account {address} is changed: {change}"))
        })
    }

    /// The state as the EVM reads it.
    pub(super) const fn reader(&self) -> Reader<'_> {
        Reader(self)
    }
}

/// A state as a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State(BTreeMap<Address, PlainAccount>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct PlainAccount {
    nonce: u64,
    balance: U256,
    code_hash: B256,
    /// Slots that hold something.
    storage: BTreeMap<U256, U256>,
}

impl PlainAccount {
    fn new(info: &AccountInfo, storage: &U256Map<U256>) -> Self {
        let code_hash = if info.code_hash.is_zero() { KECCAK256_EMPTY } else { info.code_hash };
        let mut account =
            Self { nonce: info.nonce, balance: info.balance, code_hash, storage: BTreeMap::new() };
        for (slot, value) in storage {
            account.set(*slot, *value);
        }
        account
    }

    fn set(&mut self, slot: U256, value: U256) {
        if value.is_zero() {
            self.storage.remove(&slot);
        } else {
            self.storage.insert(slot, value);
        }
    }

    fn leaf(&self) -> TrieAccount {
        let slots = self.storage.iter().map(|(slot, value)| (*slot, *value));
        TrieAccount::new(self.nonce, self.balance, trie::storage_root(slots), self.code_hash)
    }
}

impl State {
    /// The state that a test writes out. `None` when a nonce is too large.
    pub(super) fn of(accounts: &BTreeMap<Address, Account>) -> Option<Self> {
        let plain = accounts.iter().map(|(address, account)| {
            let mut plain = PlainAccount {
                nonce: account.nonce.to_u64()?,
                balance: account.balance.0,
                code_hash: keccak256(&account.code),
                storage: BTreeMap::new(),
            };
            for (slot, value) in &account.storage {
                plain.set(slot.0, value.0);
            }
            Some((*address, plain))
        });
        plain.collect::<Option<_>>().map(Self)
    }

    /// Makes an empty account, unless there is one already.
    pub(super) fn touch(&mut self, address: Address) {
        let empty = || PlainAccount::new(&AccountInfo::default(), &U256Map::default());
        self.0.entry(address).or_insert_with(empty);
    }

    /// The root of its trie.
    pub(super) fn root(&self) -> B256 {
        trie::state_root(self.0.iter().map(|(address, account)| (*address, account.leaf())))
    }

    /// The first thing, by address, in which it is not as it should be.
    pub(super) fn first_difference(&self, should: &Self) -> Option<String> {
        let addresses: BTreeSet<&Address> = self.0.keys().chain(should.0.keys()).collect();
        addresses.into_iter().find_map(|address| {
            let difference = match (self.0.get(address), should.0.get(address)) {
                (Some(_), None) => "should not exist".to_owned(),
                (None, Some(_)) => "does not exist".to_owned(),
                (Some(is), Some(should)) => is.first_difference(should)?,
                (None, None) => return None,
            };
            Some(format!("account {address}: {difference}"))
        })
    }
}

impl PlainAccount {
    fn first_difference(&self, should: &Self) -> Option<String> {
        if self.nonce != should.nonce {
            return Some(format!("nonce {}, should be {}", self.nonce, should.nonce));
        }
        if self.balance != should.balance {
            return Some(format!("balance {}, should be {}", self.balance, should.balance));
        }
        if self.code_hash != should.code_hash {
            return Some(format!("code hash {}, should be {}", self.code_hash, should.code_hash));
        }
        let slots: BTreeSet<&U256> = self.storage.keys().chain(should.storage.keys()).collect();
        slots.into_iter().find_map(|slot| {
            let [is, should] =
                [self, should].map(|account| account.storage.get(slot).copied().unwrap_or_default());
            (is != should).then(|| format!("slot {slot:#x} holds {is:#x}, should hold {should:#x}"))
        })
    }
}

/// A [`World`] as revm's database.
#[derive(Debug)]
pub(super) struct Reader<'a>(&'a World);

impl Database for Reader<'_> {
    type Error = Infallible;

    fn basic(&mut self, address: Address) -> Result<Option<AccountInfo>, Infallible> {
        Ok(self.0.accounts.get(&address).map(|(info, _)| info.clone()))
    }

    fn code_by_hash(&mut self, hash: B256) -> Result<Bytecode, Infallible> {
        Ok(self.0.codes.get(&hash).cloned().unwrap_or_default())
    }

    fn storage(&mut self, address: Address, slot: U256) -> Result<U256, Infallible> {
        let value = self.0.accounts.get(&address).and_then(|(_, storage)| storage.get(&slot));
        Ok(value.copied().unwrap_or_default())
    }

    /// State tests have no chain: by agreement, a block's hash is that of its number in decimal.
    fn block_hash(&mut self, number: u64) -> Result<B256, Infallible> {
        Ok(keccak256(number.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use revm::state::{Account as Journaled, EvmStorageSlot, TransactionId};

    const KNOWN: Address = Address::repeat_byte(1);

    fn world() -> World {
        let pre = r#"{"nonce": "0x1", "balance": "0x5", "code": "0x", "storage": {"0x0": "0x7"}}"#;
        World::new(&BTreeMap::from([(KNOWN, serde_json::from_str(pre).unwrap())])).unwrap()
    }

    #[test]
    fn whatever_a_rejected_transaction_changes_is_named() {
        let world = world();
        let change = |address, edit: &dyn Fn(&mut Journaled)| {
            let info = world.reader().basic(address).unwrap().unwrap_or_default();
            let mut account = Journaled::new_not_existing(TransactionId::ZERO).with_info(info);
            edit(&mut account);
            world.first_change(&EvmState::from_iter([(address, account)]))
        };
        let slot =
            |now: u64| EvmStorageSlot::new_changed(U256::from(7), U256::from(now), TransactionId::ZERO);
        // Read, or touched while empty.
        assert_eq!(change(KNOWN, &|_| {}), None);
        assert_eq!(change(KNOWN, &|account| account.storage.extend([(U256::ZERO, slot(7))])), None);
        assert_eq!(change(Address::ZERO, &Journaled::mark_touch), None);

        let named = |change: Option<String>, says: &str| assert!(change.unwrap().contains(says), "{says}");
        named(change(KNOWN, &|account| account.info.nonce += 1), "nonce is 2 after 1");
        named(change(KNOWN, &|account| account.info.balance = U256::ZERO), "balance is 0 after 5");
        named(change(Address::ZERO, &|account| account.info.balance = U256::ONE), "balance is 1 after 0");
        named(change(KNOWN, &|account| account.info.code_hash = B256::ZERO), "code hash");
        named(
            change(KNOWN, &|account| account.storage.extend([(U256::ZERO, slot(8))])),
            "slot 0x0 holds 0x8",
        );
        named(change(Address::ZERO, &Journaled::mark_created), "created");
    }
}

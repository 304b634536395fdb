//! Between [`State`] and revm's database.

use super::{Account, State};
use crate::fork::SpecId;
use alloy_primitives::{Address, Bytes};
use revm::{
    bytecode::Bytecode,
    database::{
        CacheDB, EmptyDB,
        in_memory_db::{AccountState, DbAccount},
    },
    state::AccountInfo,
};

impl State {
    /// A database with exactly these accounts.
    pub(crate) fn to_database(&self) -> CacheDB<EmptyDB> {
        let mut db = CacheDB::new(EmptyDB::new());
        for (address, account) in &self.accounts {
            insert(&mut db, *address, account);
        }
        db
    }

    /// The accounts of a database. Before Spurious Dragon an empty account is not the same as none, so it stays.
    pub(crate) fn from_database(db: &CacheDB<EmptyDB>, fork: SpecId) -> Self {
        let keep_empty = !fork.is_enabled_in(SpecId::SPURIOUS_DRAGON);
        db.cache
            .accounts
            .iter()
            .filter(|(_, account)| account.account_state != AccountState::NotExisting)
            .map(|(address, account)| (*address, export(db, account)))
            .filter(|(_, account)| keep_empty || !account.is_empty())
            .collect()
    }
}

/// The account at `address`; an empty one where there is none.
pub(crate) fn account(db: &CacheDB<EmptyDB>, address: Address) -> Account {
    db.cache.accounts.get(&address).map_or_else(Account::default, |account| export(db, account))
}

/// Replaces the account at `address`.
pub(crate) fn insert(db: &mut CacheDB<EmptyDB>, address: Address, account: &Account) {
    let code = bytecode(&account.code);
    let mut info = AccountInfo::new(account.balance, account.nonce, code.hash_slow(), code);
    db.insert_contract(&mut info);
    let storage = account.slots().collect();
    let stored = DbAccount { info, account_state: AccountState::StorageCleared, storage };
    db.cache.accounts.insert(address, stored);
}

/// An EIP-7702 delegation where the bytes are one, plain code otherwise.
fn bytecode(code: &Bytes) -> Bytecode {
    Bytecode::new_raw_checked(code.clone()).unwrap_or_else(|_| Bytecode::new_legacy(code.clone()))
}

fn export(db: &CacheDB<EmptyDB>, account: &DbAccount) -> Account {
    let info = &account.info;
    let code = info.code.as_ref().or_else(|| db.cache.contracts.get(&info.code_hash));
    Account {
        balance: info.balance,
        nonce: info.nonce,
        code: code.map(Bytecode::original_bytes).unwrap_or_default(),
        storage: account
            .storage
            .iter()
            .map(|(slot, value)| (*slot, *value))
            .filter(|(_, value)| !value.is_zero())
            .collect(),
    }
}

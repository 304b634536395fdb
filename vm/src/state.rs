//! Accounts as a value.
//!
//! A [`State`] is what a user writes as an overlay, what a record starts from, and what a machine ends with. It is
//! ordered by address and slot, so that no hash map's order can reach a file or a digest.
//!
//! ```json
//! {
//!   "0x00000000000000000000000000000000000000aa": {
//!     "balance": "0xde0b6b3a7640000",
//!     "nonce": 1,
//!     "code": "0x6001600055",
//!     "storage": { "0x00": "0x01" }
//!   }
//! }
//! ```
//! Every field of an account may be left out. Numbers are JSON integers, or strings that are `0x` hexadecimal or decimal.
//! Unknown fields, and anything given twice, are errors.

mod database;
mod digest;
mod parse;

pub(crate) use database::{account, insert};
pub use parse::{Problem, StateError};

use alloy_primitives::{Address, B256, Bytes, U256, hex};
use serde::{Serialize, Serializer, ser::SerializeMap};
use std::collections::BTreeMap;

/// All accounts of a chain, or of an overlay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The accounts by address.
    pub accounts: BTreeMap<Address, Account>,
}

/// One account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Wei.
    pub balance: U256,
    /// Transactions sent, or contracts created.
    pub nonce: u64,
    /// Runtime code. Empty for a plain account.
    pub code: Bytes,
    /// Storage. A zero value is the same as no entry.
    pub storage: BTreeMap<U256, U256>,
}

impl Account {
    /// Whether nothing can be told from the account not being there: EIP-161's emptiness, and no storage.
    pub fn is_empty(&self) -> bool {
        self.balance.is_zero() && self.nonce == 0 && self.code.is_empty() && self.slots().next().is_none()
    }

    /// The storage without its zero slots, in ascending order.
    pub fn slots(&self) -> impl Iterator<Item = (U256, U256)> {
        self.storage.iter().map(|(slot, value)| (*slot, *value)).filter(|(_, value)| !value.is_zero())
    }
}

impl State {
    /// Reads the JSON form.
    ///
    /// # Errors
    /// [`StateError`], with the place in the text.
    pub fn from_json(text: &str) -> Result<Self, StateError> {
        parse::state(text)
    }

    /// The JSON form: accounts by ascending address, slots ascending, no zero slots, 32-byte slots and values.
    pub fn to_json(&self) -> String {
        // A map with string keys always serialises.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// What identifies the state; the encoding is in `docs/evm.md`. Empty accounts and zero slots do not count.
    pub fn digest(&self) -> B256 {
        digest::of(self)
    }

    /// Lays `top` over this state: its accounts replace accounts with the same address as a whole.
    pub fn overlay(&mut self, top: Self) {
        self.accounts.extend(top.accounts);
    }
}

impl FromIterator<(Address, Account)> for State {
    fn from_iter<I: IntoIterator<Item = (Address, Account)>>(accounts: I) -> Self {
        Self { accounts: accounts.into_iter().collect() }
    }
}

impl Serialize for State {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        // Not `Address`'s own form, whose checksum is mixed case: text order shall be byte order.
        to.collect_map(
            self.accounts.iter().map(|(address, account)| (hex::encode_prefixed(address), account)),
        )
    }
}

impl Serialize for Account {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("balance", &self.balance)?;
        map.serialize_entry("nonce", &self.nonce)?;
        if !self.code.is_empty() {
            map.serialize_entry("code", &self.code)?;
        }
        let storage: BTreeMap<_, _> =
            self.slots().map(|(slot, value)| (B256::from(slot), B256::from(value))).collect();
        if !storage.is_empty() {
            map.serialize_entry("storage", &storage)?;
        }
        map.end()
    }
}

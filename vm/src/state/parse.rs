//! The JSON form of a state, read strictly.
//!
//! The visitors keep a [`Trail`] of where they are; when one of them fails, the trail is left standing and becomes the
//! location in the [`StateError`].

use super::{Account, State};
use crate::quantity;
use alloy_primitives::{Address, Bytes, U256, hex};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use std::{
    cell::RefCell,
    collections::{BTreeMap, btree_map::Entry},
    fmt,
};

/// A text that is not a state, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateError {
    /// Line of the text, from 1.
    pub line: usize,
    /// Column of the text, from 1, just after what is wrong.
    pub column: usize,
    /// The account as the text writes it, where the problem is inside one.
    pub account: Option<String>,
    /// The field of the account, where the problem is inside one. A slot is `storage[0x01]`.
    pub field: Option<String>,
    /// What is wrong.
    pub problem: Problem,
}

/// What can be wrong with a state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Not JSON, or a JSON value of the wrong kind. The text is the parser's.
    #[error("{0}")]
    Json(String),
    /// A key of the outer object is not an address.
    #[error("an address is 0x and 40 hexadecimal digits")]
    NotAnAddress,
    /// An address stands twice, perhaps in different letter case.
    #[error("this account is given twice")]
    DuplicateAccount,
    /// A field that accounts do not have.
    #[error("unknown field; an account has balance, nonce, code, storage")]
    UnknownField,
    /// A field stands twice.
    #[error("this field is given twice")]
    DuplicateField,
    /// A slot stands twice, perhaps written differently.
    #[error("this slot is given twice")]
    DuplicateSlot,
    /// Not a number that fits.
    #[error("{0}")]
    NotANumber(&'static str),
    /// Code that is not hexadecimal.
    #[error("code is 0x and an even number of hexadecimal digits")]
    NotHex,
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: ", self.line, self.column)?;
        write_place(f, self.account.as_deref(), self.field.as_deref())?;
        self.problem.fmt(f)
    }
}

impl std::error::Error for StateError {}

fn write_place(to: &mut impl fmt::Write, account: Option<&str>, field: Option<&str>) -> fmt::Result {
    match (account, field) {
        (Some(account), Some(field)) => write!(to, "account {account}, field {field}: "),
        (Some(account), None) => write!(to, "account {account}: "),
        _ => Ok(()),
    }
}

/// Parses a whole text.
pub(super) fn state(text: &str) -> Result<State, StateError> {
    let trail = Trail::default();
    let mut json = serde_json::Deserializer::from_str(text);
    let result = StateSeed(&trail).deserialize(&mut json).and_then(|state| json.end().map(|()| state));
    result.map_err(|error| trail.into_error(&error))
}

impl<'de> Deserialize<'de> for State {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        StateSeed(&Trail::default()).deserialize(from)
    }
}

/// Where a parse is, and what stopped it.
#[derive(Default)]
struct Trail {
    account: RefCell<Option<String>>,
    field: RefCell<Option<String>>,
    problem: RefCell<Option<Problem>>,
}

impl Trail {
    fn enter_account(&self, key: &str) {
        *self.account.borrow_mut() = Some(key.to_owned());
    }

    fn enter_field(&self, name: String) {
        *self.field.borrow_mut() = Some(name);
    }

    fn leave_field(&self) {
        *self.field.borrow_mut() = None;
    }

    fn leave_account(&self) {
        *self.account.borrow_mut() = None;
    }

    /// Notes the problem and makes the parser stop with a message that stands on its own.
    fn fail<E: Error>(&self, problem: Problem) -> E {
        let mut message = String::new();
        let written =
            write_place(&mut message, self.account.borrow().as_deref(), self.field.borrow().as_deref());
        debug_assert!(written.is_ok(), "a String takes everything");
        message.push_str(&problem.to_string());
        *self.problem.borrow_mut() = Some(problem);
        E::custom(message)
    }

    fn into_error(self, error: &serde_json::Error) -> StateError {
        StateError {
            line: error.line(),
            column: error.column(),
            account: self.account.into_inner(),
            field: self.field.into_inner(),
            problem: self.problem.into_inner().unwrap_or_else(|| Problem::Json(without_position(error))),
        }
    }
}

/// serde_json's message without the position that it appends, which [`StateError`] has in its own fields.
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// Implements `DeserializeSeed` for a seed that is also the visitor of one kind of JSON value.
macro_rules! seed {
    ($seed:ident -> $value:ty, $method:ident) => {
        impl<'de> DeserializeSeed<'de> for $seed<'_> {
            type Value = $value;

            fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<$value, D::Error> {
                from.$method(self)
            }
        }
    };
}

struct StateSeed<'a>(&'a Trail);
seed!(StateSeed -> State, deserialize_map);

impl<'de> Visitor<'de> for StateSeed<'_> {
    type Value = State;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object from addresses to accounts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<State, A::Error> {
        let mut accounts = BTreeMap::new();
        while let Some(key) = map.next_key::<String>()? {
            self.0.enter_account(&key);
            let address = address(&key).ok_or_else(|| self.0.fail(Problem::NotAnAddress))?;
            let Entry::Vacant(place) = accounts.entry(address) else {
                return Err(self.0.fail(Problem::DuplicateAccount));
            };
            place.insert(map.next_value_seed(AccountSeed(self.0))?);
            self.0.leave_account();
        }
        Ok(State { accounts })
    }
}

struct AccountSeed<'a>(&'a Trail);
seed!(AccountSeed -> Account, deserialize_map);

impl<'de> Visitor<'de> for AccountSeed<'_> {
    type Value = Account;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an account object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Account, A::Error> {
        let trail = self.0;
        let (mut balance, mut nonce, mut code, mut storage) = (None, None, None, None);
        while let Some(key) = map.next_key::<String>()? {
            trail.enter_field(key.clone());
            let known = match key.as_str() {
                "balance" => balance.replace(map.next_value_seed(NumberSeed(trail))?).is_none(),
                "nonce" => {
                    let value = map.next_value_seed(NumberSeed(trail))?;
                    let value = u64::try_from(value)
                        .map_err(|_| trail.fail(Problem::NotANumber("a nonce fits into 64 bits")))?;
                    nonce.replace(value).is_none()
                }
                "code" => code.replace(map.next_value_seed(CodeSeed(trail))?).is_none(),
                "storage" => storage.replace(map.next_value_seed(StorageSeed(trail))?).is_none(),
                _ => return Err(trail.fail(Problem::UnknownField)),
            };
            if !known {
                return Err(trail.fail(Problem::DuplicateField));
            }
            trail.leave_field();
        }
        Ok(Account {
            balance: balance.unwrap_or_default(),
            nonce: nonce.unwrap_or_default(),
            code: code.unwrap_or_default(),
            storage: storage.unwrap_or_default(),
        })
    }
}

struct StorageSeed<'a>(&'a Trail);
seed!(StorageSeed -> BTreeMap<U256, U256>, deserialize_map);

impl<'de> Visitor<'de> for StorageSeed<'_> {
    type Value = BTreeMap<U256, U256>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object from slots to values")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let trail = self.0;
        let mut storage = BTreeMap::new();
        while let Some(key) = map.next_key::<String>()? {
            trail.enter_field(format!("storage[{key}]"));
            let slot = quantity::parse(&key).map_err(|why| trail.fail(Problem::NotANumber(why)))?;
            let Entry::Vacant(place) = storage.entry(slot) else {
                return Err(trail.fail(Problem::DuplicateSlot));
            };
            place.insert(map.next_value_seed(NumberSeed(trail))?);
            trail.enter_field("storage".to_owned());
        }
        Ok(storage)
    }
}

/// A JSON integer, or a string with a number in it.
struct NumberSeed<'a>(&'a Trail);
seed!(NumberSeed -> U256, deserialize_any);

impl Visitor<'_> for NumberSeed<'_> {
    type Value = U256;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, or a string with a number in it")
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<U256, E> {
        Ok(U256::from(value))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<U256, E> {
        quantity::parse(text).map_err(|why| self.0.fail(Problem::NotANumber(why)))
    }
}

struct CodeSeed<'a>(&'a Trail);
seed!(CodeSeed -> Bytes, deserialize_str);

impl Visitor<'_> for CodeSeed<'_> {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string with hexadecimal code in it")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Bytes, E> {
        let digits = text.strip_prefix("0x").filter(|digits| !digits.starts_with("0x"));
        let bytes = digits.and_then(|digits| hex::decode(digits).ok());
        bytes.map(Bytes::from).ok_or_else(|| self.0.fail(Problem::NotHex))
    }
}

fn address(text: &str) -> Option<Address> {
    let digits = text.strip_prefix("0x").filter(|digits| digits.len() == 40 && !digits.starts_with("0x"))?;
    let bytes: [u8; 20] = hex::decode(digits).ok()?.try_into().ok()?;
    Some(Address::from(bytes))
}

//! The JSON of a file.
//!
//! A key that is not known is an error: a misspelt one would be a field that silently has its default. Fields that begin
//! with `_` are known and not needed.

use super::quantity::Quantity;
use alloy_primitives::{Address, B256, Bytes};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{collections::BTreeMap, fmt, marker::PhantomData};

/// What a file holds, by name and in its order. A name may stand there twice.
pub(super) type Suite<'a> = Vec<(String, Entry<'a>)>;

/// One entry of a file.
#[derive(Debug)]
pub(super) enum Entry<'a> {
    /// A state test.
    Test(Box<Test<'a>>),
    /// It looks like a state test.
    Unreadable(serde_json::Error),
    /// It is clearly something else, which is no fault.
    AnotherKind(&'static str),
    /// It is no test at all, by its keys. Next to state tests, a fault.
    Unknown,
}

/// Reads a file.
///
/// # Errors
/// It is no JSON, or not an object.
pub(super) fn parse(text: &str) -> Result<Suite<'_>, SuiteError> {
    let entries: Ordered<&RawValue> = match serde_json::from_str(text) {
        Ok(entries) => entries,
        Err(_) => {
            let _: IgnoredAny = serde_json::from_str(text).map_err(SuiteError::Malformed)?;
            return Err(SuiteError::NoObject);
        }
    };
    Ok(entries.0.into_iter().map(|(name, raw)| (name, entry(raw))).collect())
}

/// Why a file has no entries.
#[derive(Debug, thiserror::Error)]
pub(super) enum SuiteError {
    /// It is no JSON at all.
    #[error("not JSON ({0}): fetch the file again, or leave it out")]
    Malformed(serde_json::Error),
    /// It holds something else, which is no fault.
    #[error("something unknown, not a state test")]
    NoObject,
}

fn entry(raw: &RawValue) -> Entry<'_> {
    // Entries of another kind are rare: they cost a second look.
    serde_json::from_str(raw.get()).map_or_else(|error| diagnose(raw, error), Entry::Test)
}

fn diagnose<'a>(raw: &RawValue, error: serde_json::Error) -> Entry<'a> {
    let keys: Ordered<IgnoredAny> = serde_json::from_str(raw.get()).unwrap_or_default();
    let has = |key: &str| keys.0.iter().any(|(known, _)| known == key);
    let of_state_tests = ["env", "pre", "transaction", "post"].into_iter().filter(|key| has(key)).count();
    if has("genesisBlockHeader") && has("pre") && (has("network") || has("blocks")) {
        Entry::AnotherKind("blockchain tests")
    } else if has("exec") && !has("transaction") {
        Entry::AnotherKind("VM tests")
    } else if has("txbytes") && has("result") {
        Entry::AnotherKind("transaction tests")
    } else if has("expect") && !has("post") && (has("transaction") || has("blocks")) {
        Entry::AnotherKind("fillers of tests")
    } else if of_state_tests >= 3 {
        // With one key that is misspelt it must not pass for something else.
        Entry::Unreadable(error)
    } else {
        Entry::Unknown
    }
}

/// An object in the order of the text, with every entry of a name that stands there twice.
#[derive(Debug)]
pub(super) struct Ordered<T>(pub(super) Vec<(String, T)>);

impl<T> Default for Ordered<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Ordered<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = Ordered<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered<T>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Ordered(entries))
            }
        }
        from.deserialize_map(Entries(PhantomData))
    }
}

/// One test: a state, a block, the parts of a transaction, and what must come of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Test<'a> {
    pub(super) env: Env,
    pub(super) pre: BTreeMap<Address, Account>,
    pub(super) transaction: Transaction,
    /// The subtests of every fork.
    #[serde(borrow)]
    pub(super) post: Ordered<Vec<Post<'a>>>,
    #[serde(default)]
    pub(super) config: Config,
    #[serde(default, rename = "_info")]
    _info: IgnoredAny,
}

/// The block.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Env {
    #[serde(rename = "currentChainID")]
    pub(super) chain_id: Option<Quantity>,
    pub(super) current_coinbase: Address,
    #[serde(default)]
    pub(super) current_difficulty: Quantity,
    pub(super) current_random: Option<Quantity>,
    pub(super) current_gas_limit: Quantity,
    pub(super) current_number: Quantity,
    pub(super) current_timestamp: Quantity,
    pub(super) current_base_fee: Option<Quantity>,
    pub(super) current_excess_blob_gas: Option<Quantity>,
    #[serde(default)]
    pub(super) slot_number: Quantity,
    #[serde(default, rename = "previousHash")]
    _previous_hash: IgnoredAny,
    #[serde(default, rename = "currentBeaconRoot")]
    _beacon_root: IgnoredAny,
    #[serde(default, rename = "currentWithdrawalsRoot")]
    _withdrawals_root: IgnoredAny,
    #[serde(default, rename = "currentBlobGasUsed")]
    _blob_gas_used: IgnoredAny,
    #[serde(default, rename = "parentBlobGasUsed")]
    _parent_blob_gas_used: IgnoredAny,
    #[serde(default, rename = "parentExcessBlobGas")]
    _parent_excess_blob_gas: IgnoredAny,
}

/// An account.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Account {
    pub(super) nonce: Quantity,
    pub(super) balance: Quantity,
    pub(super) code: Bytes,
    pub(super) storage: BTreeMap<Quantity, Quantity>,
}

/// The parts of which the subtests make their transactions. Numbers stay text: some tests want numbers that cannot be
/// decoded, and say that the transaction must be rejected for it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Transaction {
    #[serde(rename = "type")]
    pub(super) tx_type: Option<String>,
    pub(super) chain_id: Option<String>,
    pub(super) nonce: String,
    pub(super) sender: Option<Address>,
    pub(super) secret_key: Option<String>,
    #[serde(default, deserialize_with = "address_or_nothing")]
    pub(super) to: Option<Address>,
    pub(super) data: Vec<String>,
    pub(super) gas_limit: Vec<String>,
    pub(super) value: Vec<String>,
    pub(super) gas_price: Option<String>,
    pub(super) max_fee_per_gas: Option<String>,
    pub(super) max_priority_fee_per_gas: Option<String>,
    /// In step with `data`.
    #[serde(default)]
    pub(super) access_lists: Vec<Option<Vec<AccessedAccount>>>,
    pub(super) max_fee_per_blob_gas: Option<String>,
    pub(super) blob_versioned_hashes: Option<Vec<B256>>,
    pub(super) authorization_list: Option<Vec<Authorization>>,
}

/// One line of an access list (EIP-2930).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct AccessedAccount {
    pub(super) address: Address,
    pub(super) storage_keys: Vec<Quantity>,
}

/// One authorization (EIP-7702).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Authorization {
    pub(super) chain_id: String,
    pub(super) address: Address,
    pub(super) nonce: String,
    pub(super) v: Option<String>,
    pub(super) y_parity: Option<String>,
    pub(super) r: String,
    pub(super) s: String,
    #[serde(default, rename = "signer")]
    _signer: IgnoredAny,
}

/// One subtest: which parts, and what must come of it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Post<'a> {
    pub(super) indexes: Indexes,
    /// The root of the state.
    pub(super) hash: B256,
    /// The hash of the logs.
    pub(super) logs: B256,
    pub(super) expect_exception: Option<String>,
    /// The whole state, in newer files. Read only to explain a failure.
    #[serde(borrow)]
    pub(super) state: Option<&'a RawValue>,
    #[serde(default, rename = "txbytes")]
    _bytes: IgnoredAny,
    #[serde(default, rename = "receipt")]
    _receipt: IgnoredAny,
}

/// Which of the transaction's parts a subtest takes.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Indexes {
    pub(super) data: usize,
    pub(super) gas: usize,
    pub(super) value: usize,
}

/// What newer files say about the chain.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Config {
    /// Some generators write `chainid`.
    #[serde(alias = "chainid")]
    pub(super) chain_id: Option<Quantity>,
    #[serde(default)]
    pub(super) blob_schedule: BTreeMap<String, Blobs>,
}

/// A fork's parameters for blobs (EIP-7840).
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Blobs {
    pub(super) max: Quantity,
    pub(super) base_fee_update_fraction: Quantity,
    #[serde(default, rename = "target")]
    _target: IgnoredAny,
}

/// A creation has an empty text where a call has its callee.
fn address_or_nothing<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Address>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    text.filter(|text| !text.is_empty())
        .map(|text| text.parse().map_err(serde::de::Error::custom))
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(text: &str) -> Entry<'_> {
        let mut suite = parse(text).unwrap();
        assert_eq!(suite.len(), 1);
        suite.remove(0).1
    }

    #[test]
    fn entries_of_another_kind_are_told_from_broken_ones() {
        let kind = |text: &str| match only(text) {
            Entry::AnotherKind(kind) => kind.to_owned(),
            Entry::Unreadable(error) => format!("broken: {error}"),
            Entry::Unknown => "unknown".to_owned(),
            Entry::Test(_) => "test".to_owned(),
        };
        assert_eq!(
            kind(r#"{"a": {"genesisBlockHeader": {}, "pre": {}, "network": "Cancun"}}"#),
            "blockchain tests"
        );
        assert_eq!(kind(r#"{"a": {"txbytes": "0x", "result": {}}}"#), "transaction tests");
        assert_eq!(kind(r#"{"a": {"env": {}, "pre": {}, "exec": {}, "post": {}}}"#), "VM tests");
        assert_eq!(
            kind(r#"{"a": {"env": {}, "pre": {}, "transaction": {}, "expect": []}}"#),
            "fillers of tests"
        );
        for text in [r#"{"a": 1}"#, r#"{"a": []}"#, r#"{"a": {"env": {}, "pre": {}}}"#] {
            assert_eq!(kind(text), "unknown", "{text}");
        }
        for keys in [
            ["env", "pre", "transaction", "post"],
            ["env", "pre", "transactoin", "post"],
            ["env", "pre", "transaction", "posst"],
            ["emv", "pre", "transaction", "post"],
        ] {
            let [a, b, c, d] = keys;
            let text = format!(r#"{{"a": {{"{a}": {{}}, "{b}": {{}}, "{c}": {{}}, "{d}": {{}}}}}}"#);
            assert!(kind(&text).starts_with("broken: "), "{text}");
        }
    }

    #[test]
    fn a_misspelt_key_is_refused_wherever_it_stands() {
        let good = include_str!("../../tests/data/transfer.json");
        assert!(matches!(only(good), Entry::Test(_)));
        for key in ["pre", "currentBaseFee", "balance", "gasPrice", "logs", "gas"] {
            let bad = good.replacen(&format!("\"{key}\""), "\"misspelt\"", 1);
            let Entry::Unreadable(error) = only(&bad) else { panic!("{key} is not missed") };
            assert!(error.to_string().contains("misspelt"), "{key}: {error}");
        }
    }

    #[test]
    fn a_file_without_entries_is_told_from_no_json() {
        assert!(matches!(parse(r#"["a"]"#), Err(SuiteError::NoObject)));
        assert!(matches!(parse(r#"{"a": "#), Err(SuiteError::Malformed(_))));
        assert!(parse("{}").unwrap().is_empty());
        let names: Vec<String> =
            parse(r#"{"b": 1, "a": 2, "b": 3}"#).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["b", "a", "b"]);
    }
}

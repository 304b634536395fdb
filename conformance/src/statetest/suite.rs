//! The JSON of a file.

use super::quantity::Quantity;
use alloy_primitives::{Address, B256, Bytes};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, value::RawValue};
use std::collections::BTreeMap;

/// The tests of a file by name.
pub(super) type Suite<'a> = BTreeMap<String, Test<'a>>;

/// Reads a file.
///
/// # Errors
/// [`SuiteError`], which tells files of another kind from broken ones.
pub(super) fn parse(text: &str) -> Result<Suite<'_>, SuiteError> {
    // Files of another kind are rare: they cost a second look.
    serde_json::from_str(text).map_err(|error| diagnose(text, error))
}

/// Why a file gives no state tests.
#[derive(Debug, thiserror::Error)]
pub(super) enum SuiteError {
    /// It holds something else, which is no fault.
    #[error("{kind}, not a state test")]
    AnotherKind {
        /// What it holds.
        kind: &'static str,
        /// How many.
        tests: u64,
    },
    /// It is no JSON at all.
    #[error("not JSON ({0}): fetch the file again, or leave it out")]
    Malformed(serde_json::Error),
    /// It looks like state tests.
    #[error("not a readable state test ({0}): fill the test again, or leave the file out")]
    Unreadable(serde_json::Error),
}

fn diagnose(text: &str, error: serde_json::Error) -> SuiteError {
    let value: Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(malformed) => return SuiteError::Malformed(malformed),
    };
    let tests: Vec<&Value> = value.as_object().map(|object| object.values().collect()).unwrap_or_default();
    let all_have = |keys: &[&str]| {
        !tests.is_empty() && tests.iter().all(|test| keys.iter().all(|key| test.get(key).is_some()))
    };
    let kind = if all_have(&["env", "pre", "transaction", "post"]) {
        return SuiteError::Unreadable(error);
    } else if all_have(&["genesisBlockHeader", "pre", "network"]) {
        "blockchain tests"
    } else if all_have(&["env", "pre", "exec"]) {
        "VM tests"
    } else if all_have(&["txbytes", "result"]) {
        "transaction tests"
    } else {
        "something unknown"
    };
    SuiteError::AnotherKind { kind, tests: tests.len().max(1) as u64 }
}

/// One test: a state, a block, the parts of a transaction, and what must come of it.
#[derive(Debug, Deserialize)]
pub(super) struct Test<'a> {
    pub(super) env: Env,
    pub(super) pre: BTreeMap<Address, Account>,
    pub(super) transaction: Transaction,
    /// The subtests of every fork.
    #[serde(borrow)]
    pub(super) post: BTreeMap<String, Vec<Post<'a>>>,
    #[serde(default)]
    pub(super) config: Config,
}

/// The block.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
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
}

/// An account.
#[derive(Debug, Deserialize)]
pub(super) struct Account {
    pub(super) nonce: Quantity,
    pub(super) balance: Quantity,
    pub(super) code: Bytes,
    pub(super) storage: BTreeMap<Quantity, Quantity>,
}

/// The parts of which the subtests make their transactions. Numbers stay text: some tests want numbers that cannot be
/// decoded, and say that the transaction must be rejected for it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
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
#[serde(rename_all = "camelCase")]
pub(super) struct AccessedAccount {
    pub(super) address: Address,
    pub(super) storage_keys: Vec<Quantity>,
}

/// One authorization (EIP-7702).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Authorization {
    pub(super) chain_id: String,
    pub(super) address: Address,
    pub(super) nonce: String,
    pub(super) v: Option<String>,
    pub(super) y_parity: Option<String>,
    pub(super) r: String,
    pub(super) s: String,
}

/// One subtest: which parts, and what must come of it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
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
}

/// Which of the transaction's parts a subtest takes.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Indexes {
    pub(super) data: usize,
    pub(super) gas: usize,
    pub(super) value: usize,
}

/// What newer files say about the chain.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Config {
    /// Some generators write `chainid`.
    #[serde(alias = "chainid")]
    pub(super) chain_id: Option<Quantity>,
    #[serde(default)]
    pub(super) blob_schedule: BTreeMap<String, Blobs>,
}

/// A fork's parameters for blobs (EIP-7840).
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Blobs {
    pub(super) max: Quantity,
    pub(super) base_fee_update_fraction: Quantity,
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

    #[test]
    fn files_of_another_kind_are_told_from_broken_ones() {
        let kind = |text: &str| parse(text).unwrap_err().to_string();
        assert!(
            kind(r#"{"a": {"genesisBlockHeader": {}, "pre": {}, "network": "Cancun"}}"#)
                .contains("blockchain tests, not")
        );
        assert!(kind(r#"{"a": {"txbytes": "0x", "result": {}}}"#).contains("transaction tests, not"));
        assert!(kind(r#"{"a": {"env": {}, "pre": {}, "exec": {}, "post": {}}}"#).contains("VM tests, not"));
        assert!(kind(r#"["a"]"#).contains("something unknown"));
        assert!(
            kind(r#"{"a": {"env": {}, "pre": {}, "transaction": {}, "post": {}}}"#)
                .contains("not a readable state test (missing field")
        );
        assert!(kind(r#"{"a": "#).contains("not JSON (EOF"));
        assert!(parse("{}").unwrap().is_empty());
    }
}

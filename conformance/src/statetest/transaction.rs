//! The transaction of one subtest.

use super::{
    quantity::{parse, parse_u64},
    suite::{Authorization, Indexes, Transaction},
};
use alloy_primitives::{Address, Bytes, TxKind, U256};
use k256::ecdsa::SigningKey;
use revm::{
    context::{TransactionType, TxEnv, either::Either},
    context_interface::transaction::{
        AccessList, AccessListItem, Authorization as Delegation, SignedAuthorization,
    },
};

/// Why a subtest has no transaction.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoTransaction {
    /// No node could decode it, so it is rejected before any rule of the EVM.
    Undecodable(String),
    /// The test itself is at fault.
    Broken(String),
}

impl Transaction {
    /// The transaction with the parts that `indexes` names, on a chain.
    pub(super) fn choose(&self, indexes: Indexes, chain_id: u64) -> Result<TxEnv, NoTransaction> {
        let tx_type = self.tx_type(indexes)?;
        let kind = match self.to {
            Some(to) => TxKind::Call(to),
            None if tx_type >= TransactionType::Eip4844 as u8 => {
                return Err(NoTransaction::Undecodable(format!("type {tx_type} has no creations")));
            }
            None => TxKind::Create,
        };
        let data = chosen("data", &self.data, indexes.data)?;
        let gas_price = self.gas_price.as_ref().or(self.max_fee_per_gas.as_ref());
        Ok(TxEnv {
            tx_type,
            caller: self.sender()?,
            gas_limit: decoded("gasLimit", parse_u64(chosen("gasLimit", &self.gas_limit, indexes.gas)?))?,
            gas_price: fee("gasPrice", gas_price)?.unwrap_or_default(),
            kind,
            value: decoded("value", parse(chosen("value", &self.value, indexes.value)?))?,
            data: decoded("data", data.parse::<Bytes>().map_err(|problem| problem.to_string()))?,
            nonce: decoded("nonce", parse_u64(&self.nonce))?,
            chain_id: Some(match &self.chain_id {
                Some(chain_id) => decoded("chainId", parse_u64(chain_id))?,
                None => chain_id,
            }),
            access_list: self.access_list(indexes),
            gas_priority_fee: fee("maxPriorityFeePerGas", self.max_priority_fee_per_gas.as_ref())?,
            blob_hashes: self.blob_versioned_hashes.clone().unwrap_or_default(),
            max_fee_per_blob_gas: fee("maxFeePerBlobGas", self.max_fee_per_blob_gas.as_ref())?
                .unwrap_or_default(),
            authorization_list: self
                .authorization_list
                .iter()
                .flatten()
                .map(|authorization| authorization.signed().map(Either::Left))
                .collect::<Result<_, _>>()?,
        })
    }

    /// The type, which most files leave to be seen from the fields.
    fn tx_type(&self, indexes: Indexes) -> Result<u8, NoTransaction> {
        let tx_type = if let Some(written) = &self.tx_type {
            let number = decoded("type", parse_u64(written))?;
            // EIP-2718: what follows the type is defined by it, so nobody can decode a type without a definition.
            return u8::try_from(number)
                .ok()
                .filter(|number| *number <= TransactionType::Eip7702 as u8)
                .ok_or_else(|| NoTransaction::Undecodable(format!("type: {written} is unknown")));
        } else if self.max_fee_per_blob_gas.is_some() || self.blob_versioned_hashes.is_some() {
            TransactionType::Eip4844
        } else if self.authorization_list.is_some() {
            TransactionType::Eip7702
        } else if self.max_fee_per_gas.is_some() {
            TransactionType::Eip1559
        } else if self.access_lists.get(indexes.data).is_some_and(Option::is_some) {
            TransactionType::Eip2930
        } else {
            TransactionType::Legacy
        };
        Ok(tx_type as u8)
    }

    fn sender(&self) -> Result<Address, NoTransaction> {
        if let Some(sender) = self.sender {
            return Ok(sender);
        }
        // Without either, the test is about a signature that nobody can recover.
        let key = self.secret_key.as_ref().ok_or_else(|| {
            NoTransaction::Undecodable("neither sender nor secretKey: the signature is void".to_owned())
        })?;
        let no_key = |problem: String| NoTransaction::Broken(format!("secretKey: {problem}"));
        let bytes = parse(key).map_err(no_key)?.to_be_bytes::<32>();
        let key = SigningKey::from_slice(&bytes).map_err(|problem| no_key(problem.to_string()))?;
        Ok(Address::from_public_key(key.verifying_key()))
    }

    fn access_list(&self, indexes: Indexes) -> AccessList {
        let accounts = self.access_lists.get(indexes.data).and_then(Option::as_ref);
        let items = accounts.into_iter().flatten().map(|account| AccessListItem {
            address: account.address,
            storage_keys: account.storage_keys.iter().map(|key| key.0.into()).collect(),
        });
        AccessList(items.collect())
    }
}

impl Authorization {
    fn signed(&self) -> Result<SignedAuthorization, NoTransaction> {
        let parity = self.y_parity.as_ref().or(self.v.as_ref());
        let parity =
            parity.ok_or_else(|| NoTransaction::Broken("an authorization has no yParity".to_owned()))?;
        let parity = decoded("yParity", parse_u64(parity))?;
        let parity = u8::try_from(parity)
            .map_err(|_| NoTransaction::Undecodable("yParity: needs more than 8 bits".to_owned()))?;
        let delegation = Delegation {
            chain_id: decoded("chainId of an authorization", parse(&self.chain_id))?,
            address: self.address,
            nonce: decoded("nonce of an authorization", parse_u64(&self.nonce))?,
        };
        let number = |name, text: &str| -> Result<U256, NoTransaction> { decoded(name, parse(text)) };
        Ok(SignedAuthorization::new_unchecked(
            delegation,
            parity,
            number("r", &self.r)?,
            number("s", &self.s)?,
        ))
    }
}

fn chosen<'a>(name: &str, parts: &'a [String], index: usize) -> Result<&'a str, NoTransaction> {
    parts
        .get(index)
        .map(String::as_str)
        .ok_or_else(|| NoTransaction::Broken(format!("there is no {name} with index {index}")))
}

fn decoded<T>(name: &str, value: Result<T, String>) -> Result<T, NoTransaction> {
    value.map_err(|problem| NoTransaction::Undecodable(format!("{name}: {problem}")))
}

/// A fee. A larger one than fits 128 bits is cut down to them: no sender can pay it either way.
fn fee(name: &str, text: Option<&String>) -> Result<Option<u128>, NoTransaction> {
    text.map(|text| decoded(name, parse(text)).map(|fee| fee.saturating_to())).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::address;

    const PARTS: &str = r#"
        "nonce": "0x01", "data": ["0x", "0xff"], "gasLimit": ["0x5208"], "gasPrice": "0x0a",
        "secretKey": "0x45a915e4d060149eb4365960e6a7a45f334393093061116b197e3240065ff2d8"
    "#;
    const FIRST: Indexes = Indexes { data: 0, gas: 0, value: 0 };

    fn transaction(more: &str) -> Transaction {
        serde_json::from_str(&format!("{{{PARTS}, {more}}}")).unwrap()
    }

    #[test]
    fn the_sender_is_found_by_its_key() {
        let tx = transaction(r#""to": "", "value": ["0x00"]"#).choose(FIRST, 1).unwrap();
        assert_eq!(tx.caller, address!("a94f5374fce5edbc8e2a8697c15331677e6ebf0b"));
        assert_eq!((tx.kind, tx.tx_type, tx.gas_limit), (TxKind::Create, 0, 21_000));
    }

    #[test]
    fn the_type_is_seen_from_the_fields() {
        let to = r#""value": ["0x0"], "to": "0x00000000000000000000000000000000000000aa""#;
        let tx_type =
            |more: &str, indexes| transaction(&format!("{to}{more}")).choose(indexes, 1).unwrap().tx_type;
        let second = Indexes { data: 1, ..FIRST };
        assert_eq!(tx_type(r#", "accessLists": [null, []]"#, FIRST), 0);
        assert_eq!(tx_type(r#", "accessLists": [null, []]"#, second), 1);
        assert_eq!(tx_type(r#", "accessLists": [[]], "maxFeePerGas": "0x1""#, FIRST), 2);
        assert_eq!(tx_type(r#", "maxFeePerGas": "0x1", "blobVersionedHashes": []"#, FIRST), 3);
        assert_eq!(tx_type(r#", "maxFeePerGas": "0x1", "authorizationList": []"#, FIRST), 4);
        assert_eq!(tx_type(r#", "maxFeePerGas": "0x1", "type": "0x00""#, FIRST), 0);
    }

    #[test]
    fn what_no_node_can_decode_is_told_from_a_broken_test() {
        let value = |value: &str| transaction(&format!(r#""to": "", "value": ["{value}"]"#)).choose(FIRST, 1);
        let huge = "0x:bigint 0x10000000000000000000000000000000000000000000000000000000000000001";
        assert!(matches!(value(huge), Err(NoTransaction::Undecodable(problem)) if problem.contains("value")));

        let tx = transaction(r#""to": "", "value": []"#);
        assert!(
            matches!(tx.choose(FIRST, 1), Err(NoTransaction::Broken(problem)) if problem.contains("index 0"))
        );

        let blobs_without_callee = transaction(r#""to": "", "value": ["0x0"], "blobVersionedHashes": []"#);
        assert!(matches!(blobs_without_callee.choose(FIRST, 1), Err(NoTransaction::Undecodable(_))));
    }
}

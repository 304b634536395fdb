//! What a user sends.

use alloy_primitives::{Address, Bytes, TxKind, U256};
use serde::{Deserialize, Serialize};

/// One transaction. Fields that are `None` are filled in from the machine when it executes.
///
/// Signatures are not this crate's concern: `from` is taken as authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// The sender.
    pub from: Address,
    /// The callee, or `None` to create a contract from `input`.
    pub to: Option<Address>,
    /// Wei moved to the callee.
    pub value: U256,
    /// Calldata, or initcode.
    pub input: Bytes,
    /// Gas limit. `None`: as much as the block and the fork's cap allow.
    pub gas: Option<u64>,
    /// Wei per gas. `None`: the base fee for a transaction, 0 for a simulation. With `max_priority_fee`, the most that is paid.
    pub gas_price: Option<u128>,
    /// Wei per gas for the block's beneficiary on top of the base fee (EIP-1559). `None`: whatever the gas price leaves.
    pub max_priority_fee: Option<u128>,
    /// `None`: the sender's next nonce.
    pub nonce: Option<u64>,
}

impl Transaction {
    /// A call of `to` with calldata `input`.
    pub fn call(from: Address, to: Address, input: impl Into<Bytes>) -> Self {
        Self::new(from, Some(to), input.into())
    }

    /// The creation of a contract. `initcode` is the compiled bytecode followed by the encoded constructor arguments.
    pub fn create(from: Address, initcode: impl Into<Bytes>) -> Self {
        Self::new(from, None, initcode.into())
    }

    fn new(from: Address, to: Option<Address>, input: Bytes) -> Self {
        Self {
            from,
            to,
            value: U256::ZERO,
            input,
            gas: None,
            gas_price: None,
            max_priority_fee: None,
            nonce: None,
        }
    }

    /// The same with this value in wei.
    #[must_use]
    pub fn with_value(mut self, wei: U256) -> Self {
        self.value = wei;
        self
    }

    /// The same with this gas limit.
    #[must_use]
    pub fn with_gas(mut self, gas: u64) -> Self {
        self.gas = Some(gas);
        self
    }

    /// The same with this price in wei per gas.
    #[must_use]
    pub fn with_gas_price(mut self, wei: u128) -> Self {
        self.gas_price = Some(wei);
        self
    }

    /// The same with at most this much for the block's beneficiary, in wei per gas.
    #[must_use]
    pub fn with_max_priority_fee(mut self, wei: u128) -> Self {
        self.max_priority_fee = Some(wei);
        self
    }

    /// The same with this nonce.
    #[must_use]
    pub fn with_nonce(mut self, nonce: u64) -> Self {
        self.nonce = Some(nonce);
        self
    }
}

/// A transaction with nothing left open, as records keep it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CompleteTransaction {
    /// The sender.
    pub from: Address,
    /// The callee; `null` creates a contract.
    pub to: Option<Address>,
    /// Wei.
    pub value: U256,
    /// Calldata, or initcode.
    pub input: Bytes,
    /// Gas limit.
    pub gas: u64,
    /// Wei per gas; with `max_priority_fee`, the most that is paid.
    pub gas_price: u128,
    /// Wei per gas for the block's beneficiary (EIP-1559); a legacy transaction has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_priority_fee: Option<u128>,
    /// The sender's nonce.
    pub nonce: u64,
}

impl CompleteTransaction {
    /// Call or creation, in revm's words.
    pub(crate) fn kind(&self) -> TxKind {
        self.to.map_or(TxKind::Create, TxKind::Call)
    }
}

impl From<&CompleteTransaction> for Transaction {
    fn from(tx: &CompleteTransaction) -> Self {
        Self {
            from: tx.from,
            to: tx.to,
            value: tx.value,
            input: tx.input.clone(),
            gas: Some(tx.gas),
            gas_price: Some(tx.gas_price),
            max_priority_fee: tx.max_priority_fee,
            nonce: Some(tx.nonce),
        }
    }
}

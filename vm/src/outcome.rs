//! What came of a transaction.

use alloy_primitives::{Address, B256, Bytes};
use revm::context::result::ExecutionResult;
use serde::{Deserialize, Serialize};
use std::fmt;

pub use revm::context::result::HaltReason;

/// The result of an executed transaction: everything that a receipt and a caller see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Outcome {
    /// How it ended.
    pub status: Status,
    /// Gas paid for, refunds already taken off: the receipt's number.
    pub gas_used: u64,
    /// Gas given back (EIP-3529), already taken off `gas_used`.
    pub gas_refunded: u64,
    /// Of `gas_used`, what precompiled contracts metered, where the block does.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub metered_gas_used: u64,
    /// Return data, revert data, or the code of a created contract. Empty after a halt.
    pub output: Bytes,
    /// Events in the order of emission.
    pub logs: Vec<Log>,
    /// The contract that was created, where the transaction was a successful creation.
    pub created_address: Option<Address>,
}

pub(crate) fn is_zero(gas: &u64) -> bool {
    *gas == 0
}

impl Outcome {
    /// Whether the transaction took effect.
    pub fn is_success(&self) -> bool {
        self.status == Status::Success
    }
}

impl From<ExecutionResult> for Outcome {
    fn from(result: ExecutionResult) -> Self {
        let gas = *result.gas();
        let created_address = result.created_address();
        let logs = result.logs().iter().map(Log::from).collect();
        let status = match &result {
            ExecutionResult::Success { .. } => Status::Success,
            ExecutionResult::Revert { .. } => Status::Revert,
            ExecutionResult::Halt { reason, .. } => Status::Halt { reason: reason.clone() },
        };
        Self {
            status,
            gas_used: gas.tx_gas_used(),
            gas_refunded: gas.final_refunded(),
            metered_gas_used: 0,
            output: result.into_output().unwrap_or_default(),
            logs,
            created_address,
        }
    }
}

/// How an executed transaction ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Status {
    /// It took effect.
    Success,
    /// A contract called it off and said why in the output; unused gas came back.
    Revert,
    /// It broke a rule of the EVM and lost all its gas.
    Halt {
        /// The rule.
        reason: HaltReason,
    },
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Success => f.write_str("success"),
            Self::Revert => f.write_str("revert"),
            Self::Halt { reason } => write!(f, "halt: {reason}"),
        }
    }
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// The contract that emitted it.
    pub address: Address,
    /// Up to four indexed words; the first is the event's signature.
    pub topics: Vec<B256>,
    /// The rest.
    pub data: Bytes,
}

impl From<&alloy_primitives::Log> for Log {
    fn from(log: &alloy_primitives::Log) -> Self {
        Self { address: log.address, topics: log.topics().to_vec(), data: log.data.data.clone() }
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} {}", self.address, self.topics, self.data)
    }
}

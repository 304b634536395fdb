//! A run as a document.
//!
//! A [`Record`] has everything that execution depends on, and what came out: anybody with the same precompiles can
//! [`verify`](Record::verify) it and is told the first difference. The JSON form is specified in `docs/evm.md`.
//!
//! A [`Recorder`] writes one around a [`Vm`].

mod recorder;
mod verify;

pub use recorder::Recorder;
pub use verify::{Difference, Field, Place, VerifyError};

use crate::{
    config::{BlockInfo, EvmConfig},
    evm::{Precompiles, Vm},
    fork::{self, SpecId},
    outcome::Outcome,
    state::State,
    transaction::CompleteTransaction,
};
use alloy_primitives::B256;
use serde::{Deserialize, Serialize};

/// The version of the format that this build reads and writes.
pub const VERSION: u64 = 1;

/// A run: where it began, what was executed, what came of it.
///
/// Its transactions are all in one block. Nothing in it is trusted; [`verify`](Self::verify) recomputes all of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Record {
    /// [`VERSION`].
    pub version: u64,
    /// The chain's configuration, as the caller describes it. Opaque to this crate: the caller builds the precompiles from it.
    pub chain: serde_json::Value,
    /// The fork, by name.
    #[serde(with = "fork::serde_name")]
    pub fork: SpecId,
    /// The chain id.
    pub chain_id: u64,
    /// The gas cap of a transaction; `null` for the fork's own.
    pub tx_gas_limit_cap: Option<u64>,
    /// The block of all transactions.
    pub block: BlockInfo,
    /// Metered gas that transactions of the block before the first have used.
    #[serde(default, skip_serializing_if = "crate::outcome::is_zero")]
    pub metered_gas_used: u64,
    /// The state before the first transaction.
    pub pre_state: State,
    /// The transactions in order.
    pub transactions: Vec<CompleteTransaction>,
    /// What came of each.
    pub outcomes: Vec<Outcome>,
    /// [`State::digest`] after the last.
    pub post_state_digest: B256,
    /// What helps to re-execute faster, as the caller describes it: answers of models, which the caller's precompiles check. Opaque to
    /// this crate, never trusted, `null` where there is nothing.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub answers: serde_json::Value,
}

impl Record {
    /// Begins a record on the present state and block of a machine. `chain` is what the caller needs to build the precompiles again.
    pub fn begin<P: Precompiles>(vm: &Vm<P>, chain: serde_json::Value) -> Self {
        let config = vm.config().clone();
        Self {
            version: VERSION,
            chain,
            fork: config.fork,
            chain_id: config.chain_id,
            tx_gas_limit_cap: config.tx_gas_limit_cap,
            block: config.block,
            metered_gas_used: vm.metered(),
            pre_state: vm.state(),
            transactions: Vec::new(),
            outcomes: Vec::new(),
            post_state_digest: B256::ZERO,
            answers: serde_json::Value::Null,
        }
    }

    /// Writes down a transaction that was executed, and what came of it.
    pub fn push(&mut self, tx: CompleteTransaction, outcome: Outcome) {
        self.transactions.push(tx);
        self.outcomes.push(outcome);
    }

    /// Ends it on the present state of its machine.
    pub fn end<P: Precompiles>(&mut self, vm: &Vm<P>) {
        self.post_state_digest = vm.state().digest();
    }

    /// Reads the JSON form.
    ///
    /// # Errors
    /// [`RecordError`]. No text makes this panic.
    pub fn from_json(text: &str) -> Result<Self, RecordError> {
        /// Read first, so that a later version is named and not called malformed.
        #[derive(Deserialize)]
        struct Head {
            version: u64,
        }

        let head: Head = serde_json::from_str(text).map_err(RecordError::Json)?;
        if head.version != VERSION {
            return Err(RecordError::Version(head.version));
        }
        let record: Self = serde_json::from_str(text).map_err(RecordError::Json)?;
        record.check_counts()?;
        Ok(record)
    }

    /// The JSON form. Equal records give equal text.
    ///
    /// # Errors
    /// [`RecordError::Json`], which only a `chain` value that JSON cannot express would cause.
    pub fn to_json(&self) -> Result<String, RecordError> {
        serde_json::to_string_pretty(self).map_err(RecordError::Json)
    }

    /// The rules and the block of the run.
    pub fn config(&self) -> EvmConfig {
        EvmConfig {
            fork: self.fork,
            chain_id: self.chain_id,
            tx_gas_limit_cap: self.tx_gas_limit_cap,
            block: self.block.clone(),
        }
    }

    fn check_counts(&self) -> Result<(), RecordError> {
        if self.transactions.len() != self.outcomes.len() {
            return Err(RecordError::Counts {
                transactions: self.transactions.len(),
                outcomes: self.outcomes.len(),
            });
        }
        Ok(())
    }
}

/// A text or value that is not a record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Not JSON, or not this format. The message has the line.
    #[error("malformed record: {0}")]
    Json(#[source] serde_json::Error),
    /// Another version of the format.
    #[error("record version {0} is not supported; this build reads version {VERSION}")]
    Version(u64),
    /// Not one outcome for each transaction.
    #[error("malformed record: {transactions} transactions but {outcomes} outcomes")]
    Counts {
        /// How many transactions.
        transactions: usize,
        /// How many outcomes.
        outcomes: usize,
    },
}

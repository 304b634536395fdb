//! Replaying a record.

use super::{Record, RecordError};
use crate::{
    error::VmError,
    evm::{EvmBuilder, Precompiles},
    outcome::Outcome,
    transaction::Transaction,
};
use std::fmt;

impl Record {
    /// Executes the run again with `precompiles`, which must be what [`Record::chain`] describes, and compares.
    ///
    /// # Errors
    /// [`VerifyError::Differs`] with the first difference; [`VerifyError::Fatal`] where this machine cannot say.
    pub fn verify<P: Precompiles>(&self, precompiles: P) -> Result<(), VerifyError> {
        self.check_counts().map_err(VerifyError::Malformed)?;
        let builder = EvmBuilder::new().config(self.config()).state(self.pre_state.clone());
        let mut vm = builder.metered_gas_used(self.metered_gas_used).build(precompiles);
        for (index, (tx, recorded)) in self.transactions.iter().zip(&self.outcomes).enumerate() {
            let difference = match vm.transact(&Transaction::from(tx)) {
                Ok(recomputed) => first_difference(recorded, &recomputed),
                Err(VmError::Fatal(reason)) => return Err(VerifyError::Fatal { index, reason }),
                Err(error) => Some((Field::Accepted, "executed".to_owned(), error.to_string())),
            };
            if let Some((field, recorded, recomputed)) = difference {
                return Err(
                    Difference { place: Place::Transaction { index, field }, recorded, recomputed }.into()
                );
            }
        }
        let digest = vm.state().digest();
        if digest != self.post_state_digest {
            return Err(Difference {
                place: Place::PostState,
                recorded: self.post_state_digest.to_string(),
                recomputed: digest.to_string(),
            }
            .into());
        }
        Ok(())
    }
}

/// The first field in which two outcomes differ, with both values.
fn first_difference(recorded: &Outcome, recomputed: &Outcome) -> Option<(Field, String, String)> {
    // Without `..`: a new field of an outcome cannot be forgotten here.
    let Outcome { status, gas_used, gas_refunded, metered_gas_used, output, logs, created_address } =
        recorded;
    differ(Field::Status, status, &recomputed.status)
        .or_else(|| differ(Field::Output, output, &recomputed.output))
        .or_else(|| differ(Field::GasUsed, gas_used, &recomputed.gas_used))
        .or_else(|| differ(Field::GasRefunded, gas_refunded, &recomputed.gas_refunded))
        .or_else(|| differ(Field::MeteredGasUsed, metered_gas_used, &recomputed.metered_gas_used))
        .or_else(|| {
            differ(Field::CreatedAddress, &Created(*created_address), &Created(recomputed.created_address))
        })
        .or_else(|| {
            let pairs = logs.iter().zip(&recomputed.logs).enumerate();
            pairs.into_iter().find_map(|(i, (a, b))| differ(Field::Log(i), a, b))
        })
        .or_else(|| differ(Field::LogCount, &logs.len(), &recomputed.logs.len()))
}

fn differ<T: PartialEq + fmt::Display>(
    field: Field,
    recorded: &T,
    recomputed: &T,
) -> Option<(Field, String, String)> {
    (recorded != recomputed).then(|| (field, recorded.to_string(), recomputed.to_string()))
}

#[derive(PartialEq)]
struct Created(Option<alloy_primitives::Address>);

impl fmt::Display for Created {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("none"),
        }
    }
}

/// Why a record was not confirmed.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The run gives something else.
    #[error(transparent)]
    Differs(#[from] Difference),
    /// A precompile could not answer here. Says nothing about the record.
    #[error("transaction {index}: fatal: {reason}")]
    Fatal {
        /// The transaction, from 0.
        index: usize,
        /// The provider's words.
        reason: String,
    },
    /// The record contradicts itself.
    #[error(transparent)]
    Malformed(RecordError),
}

/// The first thing in a record that execution does not confirm.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: recorded {recorded}, recomputed {recomputed}")]
pub struct Difference {
    /// Where.
    pub place: Place,
    /// What the record says.
    pub recorded: String,
    /// What execution says.
    pub recomputed: String,
}

/// A place in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the outcome of a transaction.
    Transaction {
        /// The transaction, from 0.
        index: usize,
        /// The field of its outcome.
        field: Field,
    },
    /// The digest of the state after all transactions.
    PostState,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transaction { index, field } => write!(f, "transaction {index}: {field}"),
            Self::PostState => f.write_str("digest of the state after the run"),
        }
    }
}

/// A field of an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Whether the transaction may be executed at all.
    Accepted,
    /// [`Outcome::status`].
    Status,
    /// [`Outcome::output`].
    Output,
    /// [`Outcome::gas_used`].
    GasUsed,
    /// [`Outcome::gas_refunded`].
    GasRefunded,
    /// [`Outcome::metered_gas_used`].
    MeteredGasUsed,
    /// [`Outcome::created_address`].
    CreatedAddress,
    /// The event with this index.
    Log(usize),
    /// The number of events.
    LogCount,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted => f.write_str("validity"),
            Self::Status => f.write_str("status"),
            Self::Output => f.write_str("output"),
            Self::GasUsed => f.write_str("gas used"),
            Self::GasRefunded => f.write_str("gas refunded"),
            Self::MeteredGasUsed => f.write_str("metered gas used"),
            Self::CreatedAddress => f.write_str("created address"),
            Self::Log(index) => write!(f, "log {index}"),
            Self::LogCount => f.write_str("number of logs"),
        }
    }
}

//! Why a transaction has no outcome.

use revm::context::result::{EVMError, InvalidHeader, InvalidTransaction};
use std::convert::Infallible;

/// A transaction that was not executed. The state is what it was before; an outcome never comes with one of these.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VmError {
    /// A precompile provider could not answer, for example because a model's weights are not on this machine. The machine
    /// must stop here: any outcome would be invented.
    #[error("fatal: {0}")]
    Fatal(String),
    /// The transaction may not be in a block at all (nonce, balance, gas limit, fee).
    #[error("transaction rejected: {0}")]
    Rejected(InvalidTransaction),
    /// The block environment lacks something that the fork needs.
    #[error("invalid block: {0}")]
    Block(InvalidHeader),
}

impl From<EVMError<Infallible>> for VmError {
    fn from(error: EVMError<Infallible>) -> Self {
        match error {
            EVMError::Transaction(error) => Self::Rejected(error),
            EVMError::Header(error) => Self::Block(error),
            EVMError::Database(never) => match never {},
            EVMError::Custom(message) => Self::Fatal(message),
            EVMError::CustomAny(error) => Self::Fatal(error.to_string()),
        }
    }
}

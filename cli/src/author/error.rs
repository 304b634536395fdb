//! What a chain answers instead of what it was asked.

use alloy_primitives::{Bytes, hex};
use alloy_sol_types::SolError;
use alloy_transport::TransportError;
use thiserror::Error;

use crate::errors::describe_error;
use crate::report::printable;

/// Characters of a node's own words that are shown.
const SHOWN: usize = 400;

/// Why a chain did not answer.
#[derive(Debug, Error)]
pub enum ChainError {
    /// A contract reverts.
    #[error("it would revert with {}", name(.0))]
    Reverts(Bytes),
    /// The node refuses.
    #[error("the node says: {0}")]
    Refused(String),
    /// There is no answer, or none that makes sense.
    #[error("{0}")]
    NoAnswer(String),
}

impl ChainError {
    /// Whether a contract reverts with this error.
    pub fn is<E: SolError>(&self) -> bool {
        matches!(self, Self::Reverts(data) if data.starts_with(&E::SELECTOR))
    }
}

impl From<TransportError> for ChainError {
    fn from(error: TransportError) -> Self {
        let Some(answer) = error.as_error_resp() else {
            // The causes of its own transport say it all; others are about the text of an answer, which is not repeated.
            let text = if error.is_transport_error() { error.to_string() } else { what(&error).to_owned() };
            return Self::NoAnswer(shortened(&text));
        };
        match answer.as_revert_data() {
            Some(data) if describe_error(&data).is_some() => Self::Reverts(data),
            _ => Self::Refused(shortened(&answer.message)),
        }
    }
}

fn what(error: &TransportError) -> &'static str {
    match error {
        TransportError::NullResp => "the answer is empty",
        _ => "the answer is not what Ethereum's JSON-RPC has there: is this the address of a node?",
    }
}

fn shortened(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    printable(&shown)
}

fn name(data: &Bytes) -> String {
    describe_error(data).unwrap_or_else(|| hex::encode_prefixed(data))
}

//! What of a model enters the price of its calls, and which models have one.

use metis_kernels::TokenId;
use metis_models::{Manifest, Tokenizer};
use thiserror::Error;

/// Smallest width of a model that the gas schedule is calibrated for.
pub const MIN_HIDDEN: usize = 64;
/// Smallest head dimension that the gas schedule is calibrated for.
pub const MIN_HEAD_DIM: usize = 8;
/// Longest text of one token, in bytes: bounds what an answer can weigh.
pub const MAX_PIECE_BYTES: usize = 1_024;

/// What of a model enters its price. All but the spelled bytes are in its manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelCosts {
    /// Multiply-accumulates of the linear layers for one fed token.
    pub linear_macs: u64,
    /// Of attention for one pair of positions.
    pub attention_macs: u64,
    /// Of the head for one row of logits.
    pub head_macs: u64,
    /// Its layers.
    pub layers: u32,
    /// Logits in a row.
    pub vocabulary: u32,
    /// Bytes that all tokens have together.
    pub spelled_bytes: u64,
    /// Whether its weights have groups.
    pub has_groups: bool,
}

impl ModelCosts {
    /// What of a bundle enters its price.
    ///
    /// # Errors
    /// A dimension for which the prices do not hold: its name, its value and the rule.
    pub fn of(manifest: &Manifest, tokenizer: &Tokenizer) -> Result<Self, NotPriced> {
        let check = |what, actual: usize, holds: bool, rule: String| {
            if holds { Ok(()) } else { Err(NotPriced { what, actual, rule }) }
        };
        let at_least = |what, actual, min| check(what, actual, actual >= min, format!("at least {min}"));
        at_least("hidden", manifest.hidden, MIN_HIDDEN)?;
        at_least("head_dim", manifest.attention().head_dim, MIN_HEAD_DIM)?;
        let dimension = |what, actual: usize| {
            let rule = format!("at most {}", u32::MAX);
            u32::try_from(actual).map_err(|_| NotPriced { what, actual, rule })
        };
        let vocabulary = dimension("vocabulary", manifest.vocabulary)?;
        dimension("context", manifest.context)?;
        let lengths = (0..vocabulary).map(|id| tokenizer.decode(&[TokenId(id)]).len());
        let (longest, spelled_bytes) =
            lengths.fold((0, 0), |(longest, sum), length| (length.max(longest), sum + length as u64));
        let rule = format!("at most {MAX_PIECE_BYTES} bytes");
        check("the longest token", longest, longest <= MAX_PIECE_BYTES, rule)?;
        let work = manifest.work;
        Ok(Self {
            linear_macs: work.linear_macs,
            attention_macs: work.attention_macs,
            head_macs: work.head_macs,
            layers: manifest.layers as u32,
            vocabulary,
            spelled_bytes,
            has_groups: manifest.formats.has_groups(),
        })
    }
}

/// A model for which the gas schedule is not honest.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{what} is {actual}, and the gas schedule holds for {rule}")]
pub struct NotPriced {
    /// The dimension.
    pub what: &'static str,
    /// Its value.
    pub actual: usize,
    /// What is priced.
    pub rule: String,
}

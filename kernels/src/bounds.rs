//! Shapes for which no sum can overflow. Checked when weights are loaded, never on values at run time.

use thiserror::Error;

/// Largest width of a linear layer's input: `131,071 * 128 * 127 < 2^31` for each byte half of an activation, and
/// `131,071 * 32,512 * 127 < 2^39` for both together. With groups, `32 * 32,512 * 127 < 2^27` for each and
/// `131,071 * 32,512 * 127 * 255 < 2^47` for all, times their multipliers.
pub const MAX_INPUTS: usize = 131_071;
/// Largest number of rows of a matrix (vocabulary included).
pub const MAX_OUTPUTS: usize = 1 << 20;
/// Largest head dimension: `256 * 32,512^2 < 2^38`.
pub const MAX_HEAD_DIM: usize = 256;
/// Largest context: softmax sums stay below `2^17 * 2^30`, value sums below `2^17 * 32,512 * 127 < 2^39`.
pub const MAX_CONTEXT: usize = 131_071;
/// Largest magnitude of an RMSNorm gain, exclusive, as a real number.
pub const MAX_GAIN: i64 = 1 << 10;

/// Head counts and head dimension of an attention layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key-value heads; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Channels of a head, even.
    pub head_dim: usize,
}

/// A shape that the formats are not proven for.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BoundsError {
    /// A dimension is zero or too large.
    #[error("{what} is {actual}; it must be between 1 and {max}")]
    OutOfRange {
        /// The dimension.
        what: &'static str,
        /// Its value.
        actual: usize,
        /// The largest allowed value.
        max: usize,
    },
    /// An array's length does not fit the shape.
    #[error("{what} has {actual} elements; its shape needs {expected}")]
    Length {
        /// The array.
        what: &'static str,
        /// What the shape needs.
        expected: usize,
        /// What was given.
        actual: usize,
    },
    /// Heads that cannot be shared out.
    #[error("{heads} query heads cannot share {kv_heads} key-value heads evenly")]
    Heads {
        /// Query heads.
        heads: usize,
        /// Key-value heads.
        kv_heads: usize,
    },
    /// Rotary pairs need an even head.
    #[error("head dimension {0} is odd")]
    OddHead(usize),
    /// A stored weight byte is 0x00, that is -128, outside the symmetric range.
    #[error("weight {index} is -128; weights are within -127 ..= 127")]
    Weight {
        /// Its index in the matrix.
        index: usize,
    },
    /// A group whose multiplier is zero, which would hide its weights.
    #[error("multiplier {index} is 0; multipliers are within 1 ..= 255")]
    Multiplier {
        /// Its index in the matrix of multipliers.
        index: usize,
    },
    /// A gain or epsilon that the formats cannot hold.
    #[error("{what} is out of range")]
    Value {
        /// What was out of range.
        what: &'static str,
    },
}

/// Checks `1 <= actual <= max`.
pub const fn within(what: &'static str, actual: usize, max: usize) -> Result<(), BoundsError> {
    if actual == 0 || actual > max { Err(BoundsError::OutOfRange { what, actual, max }) } else { Ok(()) }
}

/// Checks that an array has as many elements as its shape says.
pub const fn length(what: &'static str, expected: usize, actual: usize) -> Result<(), BoundsError> {
    if expected == actual { Ok(()) } else { Err(BoundsError::Length { what, expected, actual }) }
}

impl AttentionShape {
    /// Checks head counts and dimension against the bounds.
    pub fn check(self) -> Result<(), BoundsError> {
        within("head dimension", self.head_dim, MAX_HEAD_DIM)?;
        within("query heads", self.heads, 1 << 12)?;
        within("key-value heads", self.kv_heads, self.heads)?;
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(BoundsError::Heads { heads: self.heads, kv_heads: self.kv_heads });
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(BoundsError::OddHead(self.head_dim));
        }
        within("attention width", self.heads * self.head_dim, MAX_INPUTS)
    }

    /// Channels of all query heads.
    pub const fn query_width(self) -> usize {
        self.heads * self.head_dim
    }

    /// Channels of all key-value heads.
    pub const fn kv_width(self) -> usize {
        self.kv_heads * self.head_dim
    }
}

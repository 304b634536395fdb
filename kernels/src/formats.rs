//! The number formats, as types and constants. `docs/numerics.md`, section "Formats", is normative.

use core::fmt;

/// Fractional bits of the residual stream, of every linear output and of the logits (`i32`, Q16).
pub const RESIDUAL_BITS: u32 = 16;
/// Fractional bits of RMSNorm gains (`i32`, Q20).
pub const GAIN_BITS: u32 = 20;
/// Fractional bits of a normalised value before its gain (`i64`, Q20).
pub const NORMALISED_BITS: u32 = 20;
/// Fractional bits of a norm's epsilon (`i64`, Q32: the square of a Q16 value).
pub const EPSILON_BITS: u32 = 32;
/// Fractional bits of softmax weights and of the exp2 and sigmoid tables (Q30).
pub const WEIGHT_BITS: u32 = 30;
/// Fractional bits of the RoPE cosines and sines (`i32`, Q30).
pub const ROTATION_BITS: u32 = 30;
/// Largest magnitude of an int16 activation: `256 * 127`, so that `a = 256 * hi + lo` with both halves in `i8`.
pub const ACTIVATION_LIMIT: i64 = 32_512;
/// Largest magnitude of an int8 weight or value.
pub const BYTE_LIMIT: i64 = 127;
/// Neighbouring inputs that share a multiplier, where weights have groups; the last group of a row may be shorter.
pub const GROUP_INPUTS: usize = 32;
/// Largest multiplier of a group; the smallest is 1.
pub const MULTIPLIER_LIMIT: i64 = 255;
/// Bits of a [`Scale`]'s mantissa: a product of a 39-bit accumulator and a mantissa stays below `2^62`.
pub const MANTISSA_BITS: u32 = 23;

/// The index of a token in a model's vocabulary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub u32);

impl TokenId {
    /// The index for slices.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A positive real factor `mantissa * 2^exponent` with `2^22 <= mantissa < 2^23`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scale {
    mantissa: u32,
    exponent: i32,
}

impl Scale {
    /// The factor one.
    pub const ONE: Self = Self { mantissa: 1 << (MANTISSA_BITS - 1), exponent: 1 - MANTISSA_BITS as i32 };

    /// Smallest and largest exponent that a bundle may hold. Outside it every product is zero or saturated anyway.
    pub const EXPONENT_RANGE: core::ops::RangeInclusive<i32> = -1_024..=1_024;

    /// A scale from its stored parts; `None` when the mantissa is not normalised or the exponent is out of range.
    pub const fn new(mantissa: u32, exponent: i32) -> Option<Self> {
        let normal = mantissa >> (MANTISSA_BITS - 1) == 1;
        if normal && exponent >= *Self::EXPONENT_RANGE.start() && exponent <= *Self::EXPONENT_RANGE.end() {
            Some(Self { mantissa, exponent })
        } else {
            None
        }
    }

    /// The mantissa, in `2^22 .. 2^23`.
    pub const fn mantissa(self) -> u32 {
        self.mantissa
    }

    /// The exponent of two.
    pub const fn exponent(self) -> i32 {
        self.exponent
    }
}

//! RMSNorm in integers: pre-shift, exact sum of squares, one integer square root, gain fused into the quantisation.

use crate::backend::NormWeights;
use crate::bounds::{BoundsError, MAX_GAIN, MAX_INPUTS, within};
use crate::formats::{EPSILON_BITS, GAIN_BITS, NORMALISED_BITS};
use crate::quantise::activation_shift;
use crate::rounding::{isqrt, round_shift, shift_by};

/// Bits of the pre-shifted values: `131,071 * 2^46 < 2^63`.
const SQUARED_BITS: u32 = 23;

/// Gains and epsilon.
#[derive(Clone, Debug)]
pub struct Norm {
    gains_q20: Vec<i32>,
    epsilon_q32: i64,
}

impl Norm {
    /// Checks the width, the gains (`|gain| < 1024`) and the epsilon (`0 ..= 1`).
    pub fn new(weights: NormWeights<'_>) -> Result<Self, BoundsError> {
        within("norm width", weights.gains_q20.len(), MAX_INPUTS)?;
        if weights.gains_q20.iter().any(|g| i64::from(*g).abs() >= MAX_GAIN << GAIN_BITS) {
            return Err(BoundsError::Value { what: "norm gain" });
        }
        if !(0..=1 << EPSILON_BITS).contains(&weights.epsilon_q32) {
            return Err(BoundsError::Value { what: "norm epsilon" });
        }
        Ok(Self { gains_q20: weights.gains_q20.to_vec(), epsilon_q32: weights.epsilon_q32 })
    }

    /// Channels.
    pub const fn width(&self) -> usize {
        self.gains_q20.len()
    }
}

/// Normalises one row, applies the gains and quantises; returns the exponent of the activations.
///
/// `x` and `out` are as wide as the norm.
#[inline(always)]
pub fn rmsnorm_row(x: &[i32], norm: &Norm, out: &mut [i16]) -> i32 {
    let factor = Factor::new(x, norm.epsilon_q32);
    let scaled = |(&x, &gain): (&i32, &i32)| factor.apply(x) * i64::from(gain);
    // Two passes instead of a buffer of 64-bit products.
    let max = x.iter().zip(&norm.gains_q20).map(scaled).fold(0, |max, v| max.max(v.unsigned_abs()));
    let shift = activation_shift(max);
    for (out, channel) in out.iter_mut().zip(x.iter().zip(&norm.gains_q20)) {
        *out = shift_by(scaled(channel), shift) as i16;
    }
    shift - (NORMALISED_BITS + GAIN_BITS) as i32
}

/// `1 / sqrt(mean(x^2) + epsilon)` as `root * 2^-shift`, for results in Q20.
struct Factor {
    root: i64,
    shift: u32,
}

impl Factor {
    #[inline(always)]
    fn new(x: &[i32], epsilon_q32: i64) -> Self {
        let width = x.len() as u64;
        let max = x.iter().fold(0u32, |max, v| max.max(v.unsigned_abs()));
        let pre = (32 - max.leading_zeros()).saturating_sub(SQUARED_BITS);
        let squares: u64 = x
            .iter()
            .map(|&v| {
                let v = round_shift(i64::from(v), pre);
                (v * v) as u64
            })
            .sum();
        let epsilon = round_shift(width as i64 * epsilon_q32, 2 * pre) as u64;
        let sum = (squares + epsilon).max(1);
        let bits = |n: u64| 64 - n.leading_zeros();
        let half = (60 + bits(sum) - bits(width)) / 2;
        let root = isqrt((u128::from(width) << (2 * half)) / u128::from(sum)) as i64;
        Self { root, shift: pre + half - NORMALISED_BITS }
    }

    #[inline(always)]
    fn apply(&self, x: i32) -> i64 {
        round_shift(i64::from(x) * self.root, self.shift)
    }
}

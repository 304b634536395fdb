//! RMSNorm and LayerNorm in integers: pre-shift, exact sum of squares, one integer square root, gain fused into the quantisation.

use crate::backend::NormWeights;
use crate::bounds::{BoundsError, MAX_GAIN, MAX_INPUTS, length, within};
use crate::formats::{EPSILON_BITS, GAIN_BITS, NORMALISED_BITS, RESIDUAL_BITS};
use crate::quantise::activation_shift;
use crate::rounding::{isqrt, round_div, round_shift, saturate32, shift_by};

/// Bits of the pre-shifted values: `131,071 * 2^46 < 2^63`.
const SQUARED_BITS: u32 = 23;

/// Gains, biases and epsilon.
#[derive(Clone, Debug)]
pub struct Norm {
    gains_q20: Vec<i32>,
    /// Of a LayerNorm; empty for an RMSNorm.
    biases_q20: Vec<i32>,
    epsilon_q32: i64,
}

impl Norm {
    /// Checks the width, the gains and biases (`|gain| < 1024`) and the epsilon (`0 ..= 1`).
    pub fn new(weights: NormWeights<'_>) -> Result<Self, BoundsError> {
        let NormWeights { gains_q20, biases_q20, epsilon_q32 } = weights;
        within("norm width", gains_q20.len(), MAX_INPUTS)?;
        let too_large = |values: &[i32]| values.iter().any(|v| i64::from(*v).abs() >= MAX_GAIN << GAIN_BITS);
        if too_large(gains_q20) {
            return Err(BoundsError::Value { what: "norm gain" });
        }
        if let Some(biases) = biases_q20 {
            length("norm biases", gains_q20.len(), biases.len())?;
            if too_large(biases) {
                return Err(BoundsError::Value { what: "norm bias" });
            }
        }
        if !(0..=1 << EPSILON_BITS).contains(&epsilon_q32) {
            return Err(BoundsError::Value { what: "norm epsilon" });
        }
        Ok(Self {
            gains_q20: gains_q20.to_vec(),
            biases_q20: biases_q20.unwrap_or_default().to_vec(),
            epsilon_q32,
        })
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
pub fn norm_row(x: &[i32], norm: &Norm, out: &mut [i16]) -> i32 {
    if norm.biases_q20.is_empty() {
        let factor = Factor::new(x.len(), x.iter().copied(), norm.epsilon_q32);
        let gained = |(&x, &gain): (&i32, &i32)| factor.apply(x) * i64::from(gain);
        return quantised(x.iter().zip(&norm.gains_q20).map(gained), out);
    }
    let mean = mean(x);
    let factor = Factor::new(x.len(), x.iter().map(|&x| centred(x, mean)), norm.epsilon_q32);
    let gained = |((&x, &gain), &bias): ((&i32, &i32), &i32)| {
        factor.apply(centred(x, mean)) * i64::from(gain) + (i64::from(bias) << NORMALISED_BITS)
    };
    quantised(x.iter().zip(&norm.gains_q20).zip(&norm.biases_q20).map(gained), out)
}

/// Normalises one row and applies the gains, in place, Q16.
#[inline(always)]
pub fn normalise_row(x: &mut [i32], norm: &Norm) {
    let mean = if norm.biases_q20.is_empty() { 0 } else { mean(x) };
    let factor = Factor::new(x.len(), x.iter().map(|&x| centred(x, mean)), norm.epsilon_q32);
    for (i, (x, &gain)) in x.iter_mut().zip(&norm.gains_q20).enumerate() {
        let bias = norm.biases_q20.get(i).map_or(0, |&bias| i64::from(bias) << NORMALISED_BITS);
        let value = factor.apply(centred(*x, mean)) * i64::from(gain) + bias;
        *x = saturate32(round_shift(value, NORMALISED_BITS + GAIN_BITS - RESIDUAL_BITS));
    }
}

/// Quantises Q40 numbers, in two passes instead of a buffer for them.
#[inline(always)]
fn quantised(values: impl Iterator<Item = i64> + Clone, out: &mut [i16]) -> i32 {
    let shift = activation_shift(values.clone().fold(0, |max, v| max.max(v.unsigned_abs())));
    for (out, value) in out.iter_mut().zip(values) {
        *out = shift_by(value, shift) as i16;
    }
    shift - (NORMALISED_BITS + GAIN_BITS) as i32
}

#[inline(always)]
fn mean(x: &[i32]) -> i64 {
    round_div(x.iter().map(|&v| i64::from(v)).sum(), x.len() as i64)
}

#[inline(always)]
fn centred(x: i32, mean: i64) -> i32 {
    saturate32(i64::from(x) - mean)
}

/// `1 / sqrt(mean(x^2) + epsilon)` as `root * 2^-shift`, for results in Q20.
struct Factor {
    root: i64,
    shift: u32,
}

impl Factor {
    #[inline(always)]
    fn new(width: usize, x: impl Iterator<Item = i32> + Clone, epsilon_q32: i64) -> Self {
        let width = width as u64;
        let max = x.clone().fold(0u32, |max, v| max.max(v.unsigned_abs()));
        let pre = (32 - max.leading_zeros()).saturating_sub(SQUARED_BITS);
        let squares: u64 = x
            .map(|v| {
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

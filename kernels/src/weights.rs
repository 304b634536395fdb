//! Weight rows from the exact dyadic rationals that a checkpoint stores.
//!
//! A `bf16`, `f16` or `f32` number is `sign * m * 2^e` with integers `m` and `e`. Quantising works on those integers, so the same
//! checkpoint gives the same bytes on every machine. `docs/numerics.md`, section "Weights", is normative.

use thiserror::Error;

use crate::bounds::MAX_GAIN;
use crate::formats::{BYTE_LIMIT, GAIN_BITS, GROUP_INPUTS, MULTIPLIER_LIMIT, RESIDUAL_BITS, Scale};
use crate::rounding::{round_div, scale_from};

/// A stored number that cannot be a weight.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum WeightError {
    /// NaN or infinity.
    #[error("element {index} is not finite")]
    NotFinite {
        /// Index in the row.
        index: usize,
    },
    /// A bias outside +-32768.
    #[error("bias {index} is outside +-32768")]
    BiasTooLarge {
        /// Index in the row.
        index: usize,
    },
    /// A norm's gain outside +-1024.
    #[error("gain {index} is outside +-{MAX_GAIN}")]
    GainTooLarge {
        /// Index in the row.
        index: usize,
    },
}

/// `(mantissa, exponent)` of an IEEE single given by its bits: the value is `mantissa * 2^exponent` exactly; `None` if it is not finite.
pub const fn dyadic(bits: u32) -> Option<(i64, i32)> {
    let (field, fraction) = ((bits >> 23) & 0xff, (bits & 0x7f_ffff) as i64);
    if field == 0xff {
        return None;
    }
    let (magnitude, exponent) =
        if field == 0 { (fraction, -149) } else { (fraction | 1 << 23, field as i32 - 150) };
    Some((if bits >> 31 == 1 { -magnitude } else { magnitude }, exponent))
}

/// Quantises one output channel, given as the bits of IEEE singles, to `w ^ 0x80` bytes and its scale.
///
/// `w = round(127 x / max|x|)`; the scale is `max|x| / 127` rounded to 23 bits. A zero row has scale one.
pub fn quantise_row(bits: &[u32], out: &mut [u8]) -> Result<Scale, WeightError> {
    debug_assert_eq!(bits.len(), out.len());
    let Some((max, max_exponent)) = largest(bits)? else {
        out.fill(0x80);
        return Ok(Scale::ONE);
    };
    for (out, &b) in out.iter_mut().zip(bits) {
        let (m, e) = dyadic(b).unwrap_or((0, max_exponent));
        let drop = max_exponent - e;
        // Below half a step: |m| * 127 < 2^31 and max >= 2^23 once exponents differ.
        let w = if drop > 32 { 0 } else { round_div(m * BYTE_LIMIT, max << drop) };
        *out = (w as i8 as u8) ^ 0x80;
    }
    Ok(scale_from(((max as u128) << 64) / BYTE_LIMIT as u128, max_exponent - 64))
}

/// Quantises one output channel in groups of [`GROUP_INPUTS`] neighbours to `w ^ 0x80` bytes, a multiplier for each group and its scale.
///
/// With `M = max|x|`, the scale is `M / (127 * 255)` rounded to 23 bits. A group with `G = max|x|` has the multiplier
/// `ceil(255 G / M)`, or 1 if that is zero, and `w = round(x / (multiplier * scale))` with the scale as rounded. A zero row has scale one.
pub fn quantise_grouped_row(bits: &[u32], out: &mut [u8], groups: &mut [u8]) -> Result<Scale, WeightError> {
    debug_assert_eq!(bits.len(), out.len());
    debug_assert_eq!(bits.len().div_ceil(GROUP_INPUTS), groups.len());
    let Some((max, max_exponent)) = largest(bits)? else {
        out.fill(0x80);
        groups.fill(1);
        return Ok(Scale::ONE);
    };
    let divisor = (BYTE_LIMIT * MULTIPLIER_LIMIT) as u128;
    let scale = scale_from(((max as u128) << 64) / divisor, max_exponent - 64);
    let parts = bits.chunks(GROUP_INPUTS).zip(out.chunks_mut(GROUP_INPUTS));
    for ((bits, out), group) in parts.zip(groups) {
        let multiplier = largest(bits)?.map_or(1, |(m, e)| multiplier(m, max_exponent - e, max));
        *group = multiplier as u8;
        for (out, &b) in out.iter_mut().zip(bits) {
            let (m, e) = dyadic(b).unwrap_or((0, scale.exponent()));
            // The row's largest weight is 2^15 scales, so a shifted significand is below 2^15 * 2^23; below half a step beyond 2^25.
            let step = multiplier * i64::from(scale.mantissa());
            let w = match e - scale.exponent() {
                up @ 0.. => round_div(m << up, step),
                down @ -25..0 => round_div(m, step << -down),
                _ => 0,
            };
            *out = (w as i8 as u8) ^ 0x80;
        }
    }
    Ok(scale)
}

/// `ceil(255 G / M)` for `G = group * 2^-drop` and `M = max` in the same unit, `0 < G <= M`.
const fn multiplier(group: i64, drop: i32, max: i64) -> i64 {
    // Below one: 255 * group < 2^32 and max >= 2^23 once exponents differ.
    if drop > 9 { 1 } else { (group * MULTIPLIER_LIMIT + (max << drop) - 1) / (max << drop) }
}

/// The largest magnitude of a row as mantissa and exponent; `None` if it is zero.
fn largest(bits: &[u32]) -> Result<Option<(i64, i32)>, WeightError> {
    if let Some(index) = bits.iter().position(|&b| dyadic(b).is_none()) {
        return Err(WeightError::NotFinite { index });
    }
    // The order of finite magnitudes is the order of their bit patterns.
    let largest = bits.iter().map(|b| b & 0x7fff_ffff).max().unwrap_or(0);
    Ok(dyadic(largest).filter(|&(m, _)| m != 0))
}

/// Converts a norm's gains or biases, given as the bits of IEEE singles, to Q20, with `plus` added (a whole number).
pub fn gains_q20(bits: &[u32], plus: i64) -> Result<Vec<i32>, WeightError> {
    let gain = |(index, &b): (usize, &u32)| {
        let gain = fixed(b, GAIN_BITS).ok_or(WeightError::NotFinite { index })?;
        let gain = gain.saturating_add(plus << GAIN_BITS);
        if gain.unsigned_abs() >= (MAX_GAIN << GAIN_BITS) as u64 {
            return Err(WeightError::GainTooLarge { index });
        }
        Ok(gain as i32)
    };
    bits.iter().enumerate().map(gain).collect()
}

/// Converts the biases of a linear layer, given as the bits of IEEE singles, to Q16.
pub fn biases_q16(bits: &[u32]) -> Result<Vec<i32>, WeightError> {
    let bias = |(index, &b): (usize, &u32)| {
        let bias = fixed(b, RESIDUAL_BITS).ok_or(WeightError::NotFinite { index })?;
        i32::try_from(bias).ok().filter(|&bias| bias != i32::MIN).ok_or(WeightError::BiasTooLarge { index })
    };
    bits.iter().enumerate().map(bias).collect()
}

/// A finite single as a fixed-point number, rounded; saturated far outside every format.
fn fixed(bits: u32, fractional: u32) -> Option<i64> {
    let (m, e) = dyadic(bits)?;
    Some(match e + fractional as i32 {
        // |m| < 2^24.
        38.. if m != 0 => m.signum() * i64::MAX,
        38.. => 0,
        shift @ 0.. => m << shift,
        shift => crate::rounding::round_shift(m, shift.unsigned_abs()),
    })
}

#[cfg(test)]
#[allow(clippy::float_arithmetic, reason = "tests compare with the real functions")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn finite() -> impl Strategy<Value = u32> {
        any::<u32>().prop_filter("finite", |b| (b >> 23) & 0xff != 0xff)
    }

    proptest! {
        #[test]
        fn rows_use_the_whole_symmetric_range(bits in prop::collection::vec(finite(), 1..50)) {
            let mut out = vec![0u8; bits.len()];
            let scale = quantise_row(&bits, &mut out).unwrap();
            let values: Vec<f64> = bits.iter().map(|&b| f64::from(f32::from_bits(b))).collect();
            let max = values.iter().fold(0.0f64, |m, v| m.max(v.abs()));
            let step = f64::from(scale.mantissa()) * 2f64.powi(scale.exponent());
            for (value, byte) in values.iter().zip(&out) {
                let w = (byte ^ 0x80) as i8;
                prop_assert!(w != -128);
                if max > 0.0 {
                    prop_assert!((value - f64::from(w) * step).abs() <= step * 0.500_1);
                }
            }
            if max > 0.0 {
                prop_assert!(out.iter().any(|b| ((b ^ 0x80) as i8).unsigned_abs() == 127));
            }
        }

        #[test]
        fn groups_have_steps_of_their_own(rows in prop::collection::vec((0u32..60, prop::collection::vec(finite(), 32)), 1..6), cut in 0usize..32) {
            // Groups of very different sizes, the last one shorter.
            let shrink = |(down, bits): &(u32, Vec<u32>)| bits.iter().map(|&b| {
                let exponent = ((b >> 23) & 0xff).saturating_sub(*down);
                b & 0x807f_ffff | exponent << 23
            }).collect::<Vec<u32>>();
            let mut bits: Vec<u32> = rows.iter().flat_map(shrink).collect();
            bits.truncate(bits.len() - cut);
            let (mut out, mut groups) = (vec![0u8; bits.len()], vec![0u8; bits.len().div_ceil(32)]);
            let scale = quantise_grouped_row(&bits, &mut out, &mut groups).unwrap();
            let values: Vec<f64> = bits.iter().map(|&b| f64::from(f32::from_bits(b))).collect();
            let largest = |values: &[f64]| values.iter().fold(0.0f64, |m, v| m.max(v.abs()));
            let (scale, max) = (f64::from(scale.mantissa()) * 2f64.powi(scale.exponent()), largest(&values));
            for (g, &multiplier) in groups.iter().enumerate() {
                prop_assert!(multiplier > 0);
                let (values, bytes) = (values.chunks(32).nth(g).unwrap(), out.chunks(32).nth(g).unwrap());
                let step = f64::from(multiplier) * scale;
                if max > 0.0 {
                    // The smallest multiplier that reaches the group's largest weight.
                    let exact = 255.0 * largest(values) / max;
                    prop_assert!(f64::from(multiplier) >= exact && f64::from(multiplier) < exact.max(1e-9) + 1.0);
                }
                for (value, byte) in values.iter().zip(bytes) {
                    let w = (byte ^ 0x80) as i8;
                    prop_assert!(w != -128);
                    if max > 0.0 {
                        prop_assert!((value - f64::from(w) * step).abs() <= step * 0.500_000_1);
                    }
                }
            }
        }

        #[test]
        fn gains_are_rounded_to_q20(value in -1000.0f32..1000.0) {
            let gain = gains_q20(&[value.to_bits()], 0).unwrap()[0];
            prop_assert!((f64::from(value) - f64::from(gain) / f64::from(1 << 20)).abs() <= 0.5 / f64::from(1 << 20));
        }
    }

    #[test]
    fn gains_may_be_stored_less_one() {
        let bits = [0.5f32, -1.0, 1023.5].map(f32::to_bits);
        assert_eq!(gains_q20(&bits[..2], 1), Ok(vec![3 << 19, 0]));
        assert_eq!(gains_q20(&bits, 1), Err(WeightError::GainTooLarge { index: 2 }));
    }

    #[test]
    fn biases_are_rounded_to_q16() {
        let bits = [1.5f32, -0.25, 1e-9, 32_767.5, -32_767.996].map(f32::to_bits);
        assert_eq!(biases_q16(&bits), Ok(vec![98_304, -16_384, 0, 2_147_450_880, -2_147_483_392]));
        for (value, error) in [
            (32_768f32, WeightError::BiasTooLarge { index: 0 }),
            (-32_768f32, WeightError::BiasTooLarge { index: 0 }),
            (1e30, WeightError::BiasTooLarge { index: 0 }),
            (f32::NAN, WeightError::NotFinite { index: 0 }),
        ] {
            assert_eq!(biases_q16(&[value.to_bits()]), Err(error));
        }
        assert_eq!(gains_q20(&[1e30f32.to_bits()], 0), Err(WeightError::GainTooLarge { index: 0 }));
    }

    #[test]
    fn what_is_not_finite_is_named() {
        let mut out = [0u8; 2];
        assert_eq!(
            quantise_row(&[0, f32::NAN.to_bits()], &mut out),
            Err(WeightError::NotFinite { index: 1 })
        );
        assert_eq!(gains_q20(&[f32::INFINITY.to_bits()], 0), Err(WeightError::NotFinite { index: 0 }));
        assert_eq!(gains_q20(&[1024f32.to_bits()], 0), Err(WeightError::GainTooLarge { index: 0 }));
    }

    #[test]
    fn a_zero_row_is_zero() {
        let mut out = [0u8; 2];
        assert_eq!(quantise_row(&[0, 0x8000_0000], &mut out), Ok(Scale::ONE));
        assert_eq!(out, [0x80, 0x80]);
        let (mut out, mut groups) = ([0u8; 40], [0; 2]);
        assert_eq!(quantise_grouped_row(&[0; 40], &mut out, &mut groups), Ok(Scale::ONE));
        assert_eq!((out, groups), ([0x80; 40], [1; 2]));
    }
}

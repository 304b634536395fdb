//! Activations to int16 with a power-of-two exponent per row: no division, only a rounding shift.

use crate::formats::{ACTIVATION_LIMIT, BYTE_LIMIT};
use crate::rounding::{round_div, shift_by};

/// The shift `s` for which `round(max * 2^-s)` is as large as it can be within [`ACTIVATION_LIMIT`].
///
/// May be negative. Zero for `max == 0`. `max < 2^62`.
#[inline(always)]
pub const fn activation_shift(max: u64) -> i32 {
    if max == 0 {
        return 0;
    }
    let bits = 64 - max.leading_zeros() as i32;
    let shift = bits - 15;
    if shift_by(max as i64, shift) > ACTIVATION_LIMIT { shift + 1 } else { shift }
}

/// Quantises a row of fixed-point numbers with `fractional_bits`, and returns the exponent `e` such that
/// `values[i] * 2^-fractional_bits ~ out[i] * 2^e`.
///
/// `values` and `out` have the same length; `|values[i]| < 2^62`.
#[inline(always)]
pub fn quantise(values: &[i64], fractional_bits: u32, out: &mut [i16]) -> i32 {
    debug_assert_eq!(values.len(), out.len());
    let max = values.iter().fold(0u64, |max, v| max.max(v.unsigned_abs()));
    let shift = activation_shift(max);
    for (out, &value) in out.iter_mut().zip(values) {
        *out = shift_by(value, shift) as i16;
    }
    shift - fractional_bits as i32
}

/// Quantises a row of Q16 numbers: [`quantise`] without the widening copy.
#[inline(always)]
pub fn quantise_q16(values: &[i32], out: &mut [i16]) -> i32 {
    debug_assert_eq!(values.len(), out.len());
    let max = values.iter().fold(0u64, |max, v| max.max(u64::from(v.unsigned_abs())));
    let shift = activation_shift(max);
    for (out, &value) in out.iter_mut().zip(values) {
        *out = shift_by(i64::from(value), shift) as i16;
    }
    shift - crate::formats::RESIDUAL_BITS as i32
}

/// Quantises a value head to int8 relative to its own largest magnitude, which is returned (Q16).
///
/// `values[i] ~ out[i] * max / 127`.
#[inline(always)]
pub fn quantise_value_head(values: &[i32], out: &mut [i8]) -> u32 {
    debug_assert_eq!(values.len(), out.len());
    let max = values.iter().fold(0u32, |max, v| max.max(v.unsigned_abs()));
    for (out, &value) in out.iter_mut().zip(values) {
        *out = if max == 0 { 0 } else { round_div(i64::from(value) * BYTE_LIMIT, i64::from(max)) as i8 };
    }
    max
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn shift_is_the_smallest_that_fits(max in 1u64..1 << 62) {
            let shift = activation_shift(max);
            prop_assert!(shift_by(max as i64, shift) <= ACTIVATION_LIMIT);
            prop_assert!(i128::from(shift_by(max as i64, shift)) * 2 + 2 > i128::from(ACTIVATION_LIMIT));
            if shift > 0 {
                prop_assert!(shift_by(max as i64, shift - 1) > ACTIVATION_LIMIT);
            }
        }

        #[test]
        fn both_paths_agree_and_stay_within_the_limit(values in prop::collection::vec(-i32::MAX..=i32::MAX, 1..40)) {
            let wide: Vec<i64> = values.iter().map(|&v| i64::from(v)).collect();
            let (mut a, mut b) = (vec![0; values.len()], vec![0; values.len()]);
            prop_assert_eq!(quantise(&wide, 16, &mut a), quantise_q16(&values, &mut b));
            prop_assert_eq!(&a, &b);
            prop_assert!(a.iter().all(|&v| i64::from(v).abs() <= ACTIVATION_LIMIT));
        }

        #[test]
        fn value_heads_stay_within_a_byte(values in prop::collection::vec(-i32::MAX..=i32::MAX, 1..40)) {
            let mut out = vec![0i8; values.len()];
            quantise_value_head(&values, &mut out);
            prop_assert!(out.iter().all(|&v| i64::from(v).abs() <= BYTE_LIMIT));
        }
    }

    #[test]
    fn zero_rows_have_the_exponent_of_their_format() {
        let mut out = [1i16; 3];
        assert_eq!(quantise(&[0, 0, 0], 34, &mut out), -34);
        assert_eq!(out, [0; 3]);
    }
}

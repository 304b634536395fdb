//! Order-free softmax: the maximum first, then each weight from the final maximum, then exact sums.
//!
//! An online (rescaling) softmax would round in the order of arrival and tie every device to one order for ever.

use crate::formats::{BYTE_LIMIT, Scale};
use crate::rounding::{isqrt, reciprocal, rescale, round_shift, scale_from};
use crate::tables::{LN2_Q32, LOG2E_Q62, exp2_neg, log2_q32};

/// `log2(e) / sqrt(head_dim)`: turns a dot product of query and key into log2 units.
pub const fn attention_scale(head_dim: usize) -> Scale {
    let square = LOG2E_Q62 as u128 * LOG2E_Q62 as u128 / head_dim as u128;
    scale_from(isqrt(square), -62)
}

/// A score in log2 units, Q16: the dot product of a query and a key head with their exponents.
#[inline(always)]
pub const fn score(dot: i64, exponents: i32, scale: Scale) -> i32 {
    rescale(dot, scale.mantissa(), exponents + scale.exponent() + 16)
}

/// The weight `2^(score - max)` in Q30.
#[inline(always)]
pub fn weight(score: i32, max: i32) -> u32 {
    exp2_neg((i64::from(max) - i64::from(score)) as u64)
}

/// `1 / (127 * sum)` for a sum of Q30 weights that contains a weight of one: the factor that ends an attention head.
#[inline(always)]
pub const fn normaliser(sum: u64) -> Scale {
    let d = round_shift((BYTE_LIMIT as u64 * sum) as i64, 14) as u64;
    let r = reciprocal(d);
    match Scale::new(r.mantissa(), r.exponent() - 14) {
        Some(scale) => scale,
        None => r,
    }
}

/// Natural logarithm of `softmax(logits)[target]`, Q16, rounded; at most zero. Logits are natural, Q16.
///
/// `None` when `target` is out of range.
pub fn log_probability_q16(logits: &[i32], target: usize) -> Option<i64> {
    let own = i64::from(*logits.get(target)?);
    let max = i64::from(*logits.iter().max()?);
    let sum: u64 = logits.iter().map(|&l| u64::from(exp2_neg(log2_units((max - i64::from(l)) as u64)))).sum();
    // ln(sum / 2^30): Q32 * Q32 -> Q16.
    let log2 = log2_q32(sum) - (30 << 32);
    let ln = ((u128::from(log2) * u128::from(LN2_Q32) + (1 << 47)) >> 48) as i64;
    Some(own - max - ln)
}

/// A natural-logarithm difference in Q16 as log2 units in Q16.
fn log2_units(delta_q16: u64) -> u64 {
    ((u128::from(delta_q16) * u128::from(crate::tables::LOG2E_Q32) + (1 << 31)) >> 32) as u64
}

#[cfg(test)]
#[allow(clippy::float_arithmetic, reason = "tests compare with the real functions")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn log_probabilities_are_close_and_never_positive(
            logits in prop::collection::vec(-(20i32 << 16)..20 << 16, 1..200), pick: prop::sample::Index,
        ) {
            let target = pick.index(logits.len());
            let real: Vec<f64> = logits.iter().map(|&l| f64::from(l) / 65536.0).collect();
            let max = real.iter().copied().fold(f64::MIN, f64::max);
            let expected = real[target] - max - real.iter().map(|l| (l - max).exp()).sum::<f64>().ln();
            let got = log_probability_q16(&logits, target).unwrap();
            prop_assert!(got <= 0);
            prop_assert!((got as f64 / 65536.0 - expected).abs() < 3e-5);
        }

        #[test]
        fn normaliser_is_close(sum in 1u64 << 30..1 << 47) {
            let s = normaliser(sum);
            let got = f64::from(s.mantissa()) * 2f64.powi(s.exponent());
            prop_assert!((got * 127.0 * sum as f64 - 1.0).abs() < 4e-7);
        }
    }

    #[test]
    fn attention_scales_are_close() {
        for d in [2usize, 8, 64, 128, 256] {
            let s = attention_scale(d);
            let got = f64::from(s.mantissa()) * 2f64.powi(s.exponent());
            assert!((got * (d as f64).sqrt() / std::f64::consts::LOG2_E - 1.0).abs() < 2e-7);
        }
    }

    #[test]
    fn out_of_range_targets_have_no_probability() {
        assert_eq!(log_probability_q16(&[1, 2], 2), None);
        assert_eq!(log_probability_q16(&[], 0), None);
    }
}

//! Numbers of a configuration, exactly: they arrive as IEEE numbers and leave as integers.

use metis_kernels::formats::EPSILON_BITS;
use metis_kernels::rounding::{isqrt, round_shift};

/// `(mantissa, exponent)` of a positive finite double: the value is `mantissa * 2^exponent` exactly.
fn dyadic(value: f64) -> Option<(i64, i32)> {
    let bits = value.to_bits();
    let (field, fraction) = ((bits >> 52) as i32, (bits & ((1 << 52) - 1)) as i64);
    match field {
        0 => Some((fraction, -1_074)),
        1..0x7ff => Some((fraction | 1 << 52, field - 1_075)),
        // Infinite, not a number, or (with the sign's bit in the field) negative.
        _ => None,
    }
}

/// A norm's epsilon in Q32, rounded to nearest; `None` unless it is in `0 ..= 1`.
pub(crate) fn epsilon_q32(value: f64) -> Option<i64> {
    let (mantissa, exponent) = dyadic(value)?;
    // At most one: a mantissa of 53 bits needs an exponent of -52 or less.
    let shift = -(exponent + EPSILON_BITS as i32);
    let rounded = if shift >= 20 { round_shift(mantissa, shift.unsigned_abs()) } else { return None };
    (rounded <= 1 << EPSILON_BITS).then_some(rounded)
}

/// A double between 0 and 2^30 with `bits` fractional bits (at most 32), rounded to nearest.
pub(super) fn fixed(value: f64, bits: u32) -> Option<i64> {
    let (mantissa, exponent) = dyadic(value)?;
    let shift = -(exponent + bits as i32);
    match shift {
        // 2^30 with 32 bits stays below 2^62: a mantissa of 53 bits may move up by 9.
        -9..=0 => Some(mantissa << -shift),
        1.. => Some(round_shift(mantissa, shift.unsigned_abs())),
        _ => (mantissa == 0).then_some(0),
    }
}

/// `sqrt(n)` as the mantissa and exponent of a scale, for `n` between 1 and 2^32.
pub(super) fn square_root(n: u64) -> (u32, i32) {
    // 23 bits and a rest to round: n * 2^(2k) has 64 or 63 bits, its root 32.
    let k = (n.max(1).leading_zeros() / 2) as i32;
    let root = isqrt(u128::from(n.max(1)) << (2 * k)) as u64;
    let rounded = (root + (1 << 8)) >> 9;
    if rounded >> 23 == 0 { (rounded as u32, 9 - k) } else { ((rounded >> 1) as u32, 10 - k) }
}

/// A double that is a whole number.
pub(super) fn whole(value: f64) -> Option<u64> {
    let (mantissa, exponent) = dyadic(value)?;
    match exponent {
        0..=10 => Some((mantissa as u64) << exponent),
        -63..0 if mantissa.trailing_zeros() >= exponent.unsigned_abs() => {
            Some(mantissa as u64 >> exponent.unsigned_abs())
        }
        _ => (mantissa == 0).then_some(0),
    }
}

/// A frequency over a factor, given as the bits of a single, rounded down; `None` unless the factor is in `1 .. 2^24`.
pub(super) fn slowed(frequency: u64, factor: u32) -> Option<u64> {
    let (field, fraction) = (factor >> 23, factor & ((1 << 23) - 1));
    // The factor is an integer of 24 bits over two to the power of 23 to 0.
    let shift = 150u32.checked_sub(field).filter(|shift| *shift <= 23)?;
    let quotient = (u128::from(frequency) << shift) / u128::from(fraction | 1 << 23);
    u64::try_from(quotient).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epsilons_are_rounded_to_nearest() {
        assert_eq!(epsilon_q32(1e-5), Some(42_950));
        assert_eq!(epsilon_q32(1e-6), Some(4_295));
        assert_eq!(epsilon_q32(1.0), Some(1 << 32));
        assert_eq!(epsilon_q32(0.0), Some(0));
        assert_eq!(epsilon_q32(1e-300), Some(0));
        assert_eq!([1.5, -1e-5, f64::NAN, f64::INFINITY, 1e300].map(epsilon_q32), [None; 5]);
    }

    #[test]
    fn fixed_point_numbers_are_rounded_to_nearest() {
        assert_eq!(fixed(50.0, 16), Some(50 << 16));
        assert_eq!(fixed(0.1, 16), Some(6_554));
        assert_eq!(fixed(8.0, 32), Some(8 << 32));
        assert_eq!(fixed(0.0, 32), Some(0));
        assert_eq!([-1.0, f64::NAN, f64::INFINITY, 1e30].map(|value| fixed(value, 32)), [None; 4]);
    }

    #[test]
    fn square_roots_are_scales() {
        assert_eq!(square_root(1), (1 << 22, -22));
        assert_eq!(square_root(2_304), (48 << 17, -17));
        for n in 1..100_000u64 {
            let (mantissa, exponent) = square_root(n);
            assert!((1 << 22..1 << 23).contains(&mantissa), "{n}");
            // mantissa^2 * 2^(2 exponent) is n up to half a step of the mantissa.
            let (m, scale) = (u128::from(mantissa), (-2 * exponent).unsigned_abs());
            let n = u128::from(n) << (scale + 2);
            assert!((2 * m - 1).pow(2) <= n + (1 << 24) && n <= (2 * m + 1).pow(2) + (1 << 24), "{n}");
        }
    }

    #[test]
    fn frequencies_are_divided_exactly() {
        let slow = |frequency, factor: f32| slowed(frequency, factor.to_bits());
        assert_eq!(slow(u64::MAX, 1.0), Some(u64::MAX));
        assert_eq!(slow(1_001, 8.0), Some(125));
        assert_eq!(slow(1 << 60, 1.5), Some((1 << 61) / 3));
        assert_eq!(slow(u64::MAX, 16_777_215.0), Some(u64::MAX / 16_777_215));
        // A single is not the decimal that it was written as.
        assert_eq!(slow(1 << 60, 1.1), Some(((1u128 << 83) / 9_227_469) as u64));
        let refused = [0.0, 0.99, -1.0, 16_777_216.0, f32::NAN, f32::INFINITY, f32::MIN_POSITIVE];
        assert_eq!(refused.map(|factor| slow(1, factor)), [None; 7]);
    }

    #[test]
    fn whole_numbers_are_exact() {
        assert_eq!(whole(10_000.0), Some(10_000));
        assert_eq!(whole(500_000.0), Some(500_000));
        assert_eq!(whole(9_007_199_254_740_993.0), Some(9_007_199_254_740_992));
        assert_eq!(whole(0.0), Some(0));
        assert_eq!([0.5, 10_000.5, -1.0, f64::NAN, 1e30].map(whole), [None; 5]);
    }
}

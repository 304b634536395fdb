//! The one rounding rule: to nearest, ties toward plus infinity. Every rounding in the engine goes through here.

use crate::formats::{MANTISSA_BITS, Scale};

/// `floor((x + 2^(shift-1)) / 2^shift)`; `x` itself for a shift of zero.
///
/// Exact for every `x` with `|x| <= 2^62` and every shift (from 63 on the result is zero), and for any `x` that leaves room for
/// half a step when the shift is at most 32.
#[inline(always)]
pub const fn round_shift(x: i64, shift: u32) -> i64 {
    debug_assert!(shift <= 32 || x.unsigned_abs() <= 1 << 62);
    if shift == 0 {
        x
    } else if shift > 62 {
        0
    } else {
        (x + (1i64 << (shift - 1))) >> shift
    }
}

/// `x * 2^-shift` for a shift of either sign: [`round_shift`] when positive, an exact left shift otherwise.
///
/// The caller guarantees that a left shift does not leave `i64`.
#[inline(always)]
pub const fn shift_by(x: i64, shift: i32) -> i64 {
    if shift >= 0 { round_shift(x, shift as u32) } else { x << -shift }
}

/// `floor((2n + d) / 2d)`: the quotient to nearest, ties toward plus infinity. `d` is positive.
#[inline(always)]
pub const fn round_div(n: i64, d: i64) -> i64 {
    debug_assert!(d > 0);
    if n.unsigned_abs() < 1 << 61 && d < 1 << 61 {
        return (2 * n + d).div_euclid(2 * d);
    }
    (2 * n as i128 + d as i128).div_euclid(2 * d as i128) as i64
}

/// Saturation to `+-(2^31 - 1)`.
#[inline(always)]
pub const fn saturate32(x: i64) -> i32 {
    const LIMIT: i64 = i32::MAX as i64;
    if x > LIMIT {
        i32::MAX
    } else if x < -LIMIT {
        -i32::MAX
    } else {
        x as i32
    }
}

/// `saturate32(round(acc * mantissa * 2^exponent))`: the requantisation of every accumulator.
///
/// Needs `|acc| <= 2^39`, which the shape bounds guarantee; then `acc * mantissa` stays within `2^62`.
#[inline(always)]
pub const fn rescale(acc: i64, mantissa: u32, exponent: i32) -> i32 {
    debug_assert!(acc.unsigned_abs() <= 1 << 39 && mantissa >> MANTISSA_BITS == 0);
    let product = acc * mantissa as i64;
    if exponent <= 0 {
        saturate32(round_shift(product, exponent.unsigned_abs()))
    } else if product == 0 {
        0
    } else if exponent >= 31 {
        // |product| >= 2^22, so the shifted value is past the limit by far.
        if product > 0 { i32::MAX } else { -i32::MAX }
    } else {
        let wide = (product as i128) << exponent;
        if wide > i32::MAX as i128 {
            i32::MAX
        } else if wide < -(i32::MAX as i128) {
            -i32::MAX
        } else {
            wide as i32
        }
    }
}

/// [`rescale`] of a sum of weights with groups: needs `|acc| <= 2^48`, so that `acc * mantissa` is a number of 71 bits.
#[inline(always)]
pub const fn rescale_wide(acc: i64, mantissa: u32, exponent: i32) -> i32 {
    debug_assert!(acc.unsigned_abs() <= 1 << 48 && mantissa >> MANTISSA_BITS == 0);
    const LIMIT: i128 = i32::MAX as i128;
    let product = acc as i128 * mantissa as i128;
    let value = match exponent {
        // |product| is zero or at least 2^22: past the limit by far.
        31.. => product.signum() * LIMIT,
        0.. => product << exponent,
        -71..0 => (product + (1 << (-exponent - 1))) >> -exponent,
        // Less than a half.
        _ => 0,
    };
    if value > LIMIT {
        i32::MAX
    } else if value < -LIMIT {
        -i32::MAX
    } else {
        value as i32
    }
}

/// `1 / d` as a [`Scale`]: relative error at most `2^-22`. `d` is in `1 .. 2^40`.
pub const fn reciprocal(d: u64) -> Scale {
    debug_assert!(d > 0 && d < 1 << 40);
    let bits = 64 - d.leading_zeros();
    let top = 1u64 << (bits + MANTISSA_BITS - 1);
    let mantissa = (2 * top + d) / (2 * d);
    normalised(mantissa, -((bits + MANTISSA_BITS - 1) as i32))
}

/// A positive fixed-point number `value * 2^exponent` rounded to a [`Scale`].
///
/// The exponent stays within range for everything this crate derives; weights check theirs on their own.
pub(crate) const fn scale_from(value: u128, exponent: i32) -> Scale {
    debug_assert!(value > 0 && value < 1 << 127);
    let bits = 128 - value.leading_zeros();
    if bits <= MANTISSA_BITS {
        let up = MANTISSA_BITS - bits;
        return normalised((value as u64) << up, exponent - up as i32);
    }
    let down = bits - MANTISSA_BITS;
    let rounded = (value + (1u128 << (down - 1))) >> down;
    normalised(rounded as u64, exponent + down as i32)
}

/// The mantissa and exponent of a product of two scales, rounded to 23 bits.
pub const fn product(mantissa: u32, exponent: i32, factor: Scale) -> (u32, i32) {
    let exact = mantissa as u64 * factor.mantissa() as u64;
    // Between 2^44 and 2^46.
    let down = 64 - exact.leading_zeros() - MANTISSA_BITS;
    let rounded = (exact + (1 << (down - 1))) >> down;
    let exponent = exponent + factor.exponent() + down as i32;
    if rounded >> MANTISSA_BITS == 0 {
        (rounded as u32, exponent)
    } else {
        ((rounded >> 1) as u32, exponent + 1)
    }
}

/// A mantissa in `2^22 ..= 2^23` brought below `2^23`.
const fn normalised(mantissa: u64, exponent: i32) -> Scale {
    let (mantissa, exponent) =
        if mantissa >> MANTISSA_BITS == 0 { (mantissa, exponent) } else { (mantissa >> 1, exponent + 1) };
    match Scale::new(mantissa as u32, exponent) {
        Some(scale) => scale,
        None => Scale::ONE,
    }
}

/// `floor(sqrt(n))` of a 128-bit integer.
pub const fn isqrt(n: u128) -> u128 {
    n.isqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use num_bigint::BigInt;
    use proptest::prelude::*;

    fn floor_div(n: &BigInt, d: &BigInt) -> BigInt {
        let (q, r) = (n / d, n % d);
        if r < BigInt::from(0) { q - 1 } else { q }
    }

    /// `floor(x * 2^e + 1/2)` on arbitrary integers.
    fn exact(x: &BigInt, exponent: i32) -> BigInt {
        if exponent >= 0 {
            x << exponent as usize
        } else {
            let d = BigInt::from(1) << (-exponent) as usize;
            floor_div(&(x * 2 + &d), &(d * 2))
        }
    }

    proptest! {
        #[test]
        fn round_shift_is_the_exact_rounding(x in -(1i64 << 62)..(1i64 << 62), shift in 0u32..200) {
            prop_assert_eq!(BigInt::from(round_shift(x, shift)), exact(&BigInt::from(x), -(shift as i32)));
        }

        #[test]
        fn round_div_is_the_exact_rounding(n: i64, d in 1i64..) {
            let expected = floor_div(&(BigInt::from(n) * 2 + d), &(BigInt::from(d) * 2));
            prop_assert_eq!(BigInt::from(round_div(n, d)), expected);
        }

        #[test]
        fn rescale_is_the_exact_rounding_saturated(
            acc in -(1i64 << 39)..=(1i64 << 39), mantissa in 1u32 << 22..1 << 23, exponent in -130i32..130,
        ) {
            let limit = BigInt::from(i32::MAX);
            let expected = exact(&(BigInt::from(acc) * mantissa), exponent).min(limit.clone()).max(-limit);
            prop_assert_eq!(BigInt::from(rescale(acc, mantissa, exponent)), expected);
        }

        #[test]
        fn wide_rescaling_is_the_exact_rounding_saturated(
            acc in -(1i64 << 48)..=(1i64 << 48), down in 0u32..49, mantissa in 1u32 << 22..1 << 23, exponent in -130i32..130,
        ) {
            let limit = BigInt::from(i32::MAX);
            let acc = acc >> down;
            let expected = exact(&(BigInt::from(acc) * mantissa), exponent).min(limit.clone()).max(-limit);
            prop_assert_eq!(BigInt::from(rescale_wide(acc, mantissa, exponent)), expected);
        }

        #[test]
        fn narrow_and_wide_rescaling_agree(
            acc in -(1i64 << 39)..=(1i64 << 39), down in 0u32..40, mantissa in 1u32 << 22..1 << 23, exponent in -130i32..130,
        ) {
            let acc = acc >> down;
            prop_assert_eq!(rescale(acc, mantissa, exponent), rescale_wide(acc, mantissa, exponent));
        }

        #[test]
        fn products_are_within_half_a_step(a in 1u32 << 22..1 << 23, b in 1u32 << 22..1 << 23, e in -90i32..90) {
            let (mantissa, exponent) = product(a, e, Scale::new(b, -7).unwrap());
            prop_assert!((1 << 22..1 << 23).contains(&mantissa));
            let (exact, rounded) = (u64::from(a) * u64::from(b), u64::from(mantissa) << (exponent - e + 7));
            prop_assert!(exact.abs_diff(rounded) << 23 <= exact);
            prop_assert_eq!(product(a, e, Scale::ONE), (a, e));
        }

        #[test]
        fn reciprocal_is_within_its_error(d in 1u64..1 << 40) {
            let scale = reciprocal(d);
            let product = BigInt::from(scale.mantissa()) * d;
            let one = BigInt::from(1) << (-scale.exponent()) as usize;
            let error = if product > one { &product - &one } else { &one - &product };
            prop_assert!(error << 22usize <= one);
        }
    }

    #[test]
    fn ties_go_toward_plus_infinity() {
        assert_eq!(
            [round_shift(3, 1), round_shift(-3, 1), round_shift(1, 1), round_shift(-1, 1)],
            [2, -1, 1, 0]
        );
        assert_eq!([round_div(3, 2), round_div(-3, 2)], [2, -1]);
    }
}

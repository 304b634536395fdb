//! Tables and elementary functions from integer formulas: no `libm`, the same entries everywhere.
//!
//! The series work in Q62 with truncating (floor) steps; their definitions in `docs/numerics.md`, section "Tables", are exact,
//! so a table is a formula and not a file.

use crate::rounding::round_shift;

/// `floor(ln(2) * 2^62)`.
pub const LN2_Q62: u64 = 3_196_577_161_300_663_914;
/// `floor(log2(e) * 2^62)`.
pub const LOG2E_Q62: u64 = 6_653_256_548_922_161_245;
/// `round(log2(e) * 2^32)`.
pub const LOG2E_Q32: u64 = 6_196_328_019;
/// `round(ln(2) * 2^32)`.
pub const LN2_Q32: u64 = 2_977_044_472;
/// `floor(pi / 2 * 2^62)`.
pub const HALF_PI_Q62: u64 = 7_244_019_458_077_122_842;
/// `floor(2^62 / (2 * pi))`: radians to turns.
pub const TURN_Q62: u64 = 733_972_625_820_500_306;

/// One in Q62.
const ONE_Q62: u64 = 1 << 62;

/// Entries of [`EXP2`] per octave.
const EXP2_STEPS: usize = 256;
/// `EXP2[i] = 2^(-i/256)` in Q30, `i = 0 ..= 256`.
pub static EXP2: [u32; EXP2_STEPS + 1] = exp2_table();

/// The sigmoid table covers `-16 ..= 16` in steps of 1/64.
pub const SIGMOID_RANGE: i64 = 16;
const SIGMOID_STEPS: usize = 2 * SIGMOID_RANGE as usize * 64;
/// `SIGMOID[i] = sigmoid(-16 + i/64)` in Q30, `i = 0 ..= 2048`.
pub static SIGMOID: [i32; SIGMOID_STEPS + 1] = sigmoid_table();

const fn mul_q62(a: u64, b: u64) -> u64 {
    ((a as u128 * b as u128) >> 62) as u64
}

/// `2^-x` for `0 <= x < 1` in Q62, as a Q62 number: 20 terms of the exponential series of `-x ln 2`.
pub const fn exp2_neg_q62(x: u64) -> u64 {
    debug_assert!(x < ONE_Q62);
    let y = mul_q62(x, LN2_Q62);
    let (mut plus, mut minus) = (ONE_Q62, 0);
    let mut term = ONE_Q62;
    let mut k = 1;
    while k <= 20 {
        term = mul_q62(term, y) / k;
        if k % 2 == 1 {
            minus += term;
        } else {
            plus += term;
        }
        k += 1;
    }
    plus - minus
}

const fn exp2_table() -> [u32; EXP2_STEPS + 1] {
    let mut table = [1 << 29; EXP2_STEPS + 1];
    let mut i = 0;
    while i < EXP2_STEPS {
        table[i] = round_shift(exp2_neg_q62((i as u64) << 54) as i64, 32) as u32;
        i += 1;
    }
    table
}

const fn sigmoid_table() -> [i32; SIGMOID_STEPS + 1] {
    let mut table = [0; SIGMOID_STEPS + 1];
    let half = SIGMOID_STEPS / 2;
    let mut i = 0;
    while i <= half {
        // e^(-i/64) = 2^-(i log2(e) / 64): whole octaves are a shift, the rest is the series.
        let log = i as u128 * LOG2E_Q62 as u128 / 64;
        let e = exp2_neg_q62((log % (1 << 62)) as u64) >> (log >> 62);
        let denominator = ONE_Q62 as u128 + e as u128;
        let upper = (((1u128 << 93) + denominator) / (2 * denominator)) as i32;
        table[half + i] = upper;
        table[half - i] = (1 << 30) - upper;
        i += 1;
    }
    table
}

/// `2^-delta` for `delta >= 0` in Q16, as a Q30 number: 257 entries, linear interpolation, a rounding shift for whole octaves.
#[inline(always)]
pub fn exp2_neg(delta_q16: u64) -> u32 {
    // In 32 bits and without branches, so that loops over it become vector loops: `2^30 (1 - 2^(-1/256)) 255 < 2^31`.
    let delta = delta_q16.min(32 << 16) as u32;
    let (octaves, index, rest) = ((delta >> 16) & 31, ((delta >> 8) & 0xff) as usize, delta & 0xff);
    let (high, low) = (EXP2[index], EXP2[index + 1]);
    let value = high - (((high - low) * rest + 128) >> 8);
    let rounded = (value + ((1 << octaves) >> 1)) >> octaves;
    if delta < 32 << 16 { rounded } else { 0 }
}

/// `sigmoid(x)` for `x` in Q16, as a Q30 number: 2,049 entries, linear interpolation; 0 below -16 and 1 from 16 on.
#[inline(always)]
pub fn sigmoid(x_q16: i32) -> i32 {
    // As above: `2^30 / 256 * 1,023 + 512 < 2^32`, as the steepest step of 1/64 rises by less than 1/256.
    const SPAN: i32 = (2 * SIGMOID_RANGE as i32) << 16;
    let offset = x_q16.saturating_add(SPAN / 2);
    let inside = offset.clamp(0, SPAN - 1) as u32;
    let (index, rest) = ((inside >> 10) as usize, inside & 0x3ff);
    let (low, high) = (SIGMOID[index], SIGMOID[index + 1]);
    let value = low + ((((high - low) as u32) * rest + 512) >> 10) as i32;
    if offset < 0 {
        0
    } else if offset >= SPAN {
        1 << 30
    } else {
        value
    }
}

/// `log2(x)` for `x >= 1` in Q32, truncated.
pub const fn log2_q32(x: u64) -> u64 {
    log2(x, 32)
}

/// `log2(x)` with `bits` fractional bits (at most 57), by repeated squaring of the Q62 mantissa.
const fn log2(x: u64, bits: u32) -> u64 {
    debug_assert!(x > 0 && bits <= 57);
    let whole = 63 - x.leading_zeros();
    // Mantissa in [1, 2) as Q62.
    let mut m = if whole <= 62 { x << (62 - whole) } else { x >> 1 };
    let mut log = whole as u64;
    let mut bit = 0;
    while bit < bits {
        let square = (m as u128 * m as u128) >> 62;
        let carry = (square >> 63) as u64;
        m = (square >> carry) as u64;
        log = log << 1 | carry;
        bit += 1;
    }
    log
}

/// `(cos, sin)` in Q30 of an angle in turns (Q64, so that adding angles wraps as it should).
///
/// The top two bits are the quadrant; the rest is an angle below a quarter turn whose sine and cosine are 12 terms of
/// their series in Q62.
pub fn cos_sin(turns_q64: u64) -> (i32, i32) {
    let x = mul_q62(turns_q64 & (ONE_Q62 - 1), HALF_PI_Q62);
    let square = mul_q62(x, x);
    let (mut cos, mut sin) = (ONE_Q62 as i64, x as i64);
    let (mut cos_term, mut sin_term) = (ONE_Q62, x);
    for k in 1..=12u64 {
        cos_term = mul_q62(cos_term, square) / ((2 * k - 1) * (2 * k));
        sin_term = mul_q62(sin_term, square) / ((2 * k) * (2 * k + 1));
        let sign = if k % 2 == 1 { -1 } else { 1 };
        cos += sign * cos_term as i64;
        sin += sign * sin_term as i64;
    }
    let (c, s) = (round_shift(cos, 32) as i32, round_shift(sin, 32) as i32);
    match turns_q64 >> 62 {
        0 => (c, s),
        1 => (-s, c),
        2 => (-c, -s),
        _ => (s, -c),
    }
}

/// RoPE frequencies in turns per token (Q64): `theta^(-2i/head_dim) / (2 pi)` for `i = 0 .. head_dim / 2`.
///
/// `theta` is an integer of at least 2. Used at import; a bundle ships the result under its hash.
pub fn rope_frequencies(theta: u64, head_dim: usize) -> Vec<u64> {
    debug_assert!(theta >= 2 && head_dim >= 2);
    let log = u128::from(log2(theta, 57));
    (0..head_dim / 2)
        .map(|i| {
            // theta^(-2i/d) = 2^-(log * 2i/d), Q57.
            let exponent = log * (2 * i) as u128 / head_dim as u128;
            let (octaves, fraction) = ((exponent >> 57) as u32, (exponent & ((1 << 57) - 1)) as u64);
            let power = exp2_neg_q62(fraction << 5);
            // Q62 * Q62 -> Q64.
            ((u128::from(power) * u128::from(TURN_Q62)) >> 60 >> octaves) as u64
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::float_arithmetic, reason = "tests compare with the real functions")]
mod tests {
    use super::*;
    use num_bigint::BigUint;
    use proptest::prelude::*;

    #[test]
    fn exp2_entries_are_correctly_rounded() {
        for (i, &entry) in EXP2.iter().enumerate() {
            // 2t - 1 <= 2 * 2^30 * 2^(-i/256) < 2t + 1, both sides to the 256th power.
            let exact = BigUint::from(1u8) << (31 * 256 - i);
            assert!(BigUint::from(2 * entry - 1).pow(256) <= exact, "entry {i}");
            assert!(BigUint::from(2 * entry + 1).pow(256) > exact, "entry {i}");
        }
    }

    #[test]
    fn constants_are_the_real_ones() {
        let close = |value: u64, bits: i32, real: f64| {
            (value as f64 / 2f64.powi(bits) - real).abs() < 4e-16 * real.max(1.0)
        };
        assert!(close(LN2_Q62, 62, std::f64::consts::LN_2));
        assert!(close(LOG2E_Q62, 62, std::f64::consts::LOG2_E));
        assert!(close(HALF_PI_Q62, 62, std::f64::consts::FRAC_PI_2));
        assert!(close(TURN_Q62, 62, 0.5 * std::f64::consts::FRAC_1_PI));
        assert_eq!(LOG2E_Q32, (std::f64::consts::LOG2_E * 2f64.powi(32)).round() as u64);
        assert_eq!(LN2_Q32, (std::f64::consts::LN_2 * 2f64.powi(32)).round() as u64);
    }

    #[test]
    fn sigmoid_is_monotonic_symmetric_and_close() {
        assert!(SIGMOID.windows(2).all(|w| w[0] < w[1]));
        for (i, &entry) in SIGMOID.iter().enumerate() {
            let real = 1.0 / (1.0 + (-(i as f64 / 64.0 - 16.0)).exp()) * 2f64.powi(30);
            assert!((f64::from(entry) - real).abs() < 0.51, "entry {i}");
        }
    }

    proptest! {
        #[test]
        fn sigmoid_interpolates_within_its_bound(x in -(20i32 << 16)..20 << 16) {
            let real = 1.0 / (1.0 + (-f64::from(x) / 65536.0).exp());
            prop_assert!((f64::from(sigmoid(x)) / 2f64.powi(30) - real).abs() < 4e-6);
        }

        #[test]
        fn exp2_is_close_and_never_above_one(delta in 0u64..40 << 16) {
            let real = (-(delta as f64) / 65536.0).exp2();
            prop_assert!((f64::from(exp2_neg(delta)) / 2f64.powi(30) - real).abs() < 2e-6);
            prop_assert!(exp2_neg(delta) <= 1 << 30);
            prop_assert!(exp2_neg(delta) >= exp2_neg(delta + 1));
        }

        #[test]
        fn log2_is_close(x in 1u64..) {
            prop_assert!((log2_q32(x) as f64 / 2f64.powi(32) - (x as f64).log2()).abs() < 2e-9);
        }

        #[test]
        fn rotations_are_close(turns: u64) {
            let (c, s) = cos_sin(turns);
            let angle = turns as f64 / 2f64.powi(64) * std::f64::consts::TAU;
            prop_assert!((f64::from(c) - angle.cos() * 2f64.powi(30)).abs() < 1.0);
            prop_assert!((f64::from(s) - angle.sin() * 2f64.powi(30)).abs() < 1.0);
        }

        #[test]
        fn frequencies_are_close(theta in 100u64..2_000_000, half in 1usize..128) {
            for (i, f) in rope_frequencies(theta, 2 * half).into_iter().enumerate() {
                let real = (theta as f64).powf(-(i as f64) / half as f64) / std::f64::consts::TAU;
                prop_assert!((f as f64 / 2f64.powi(64) / real - 1.0).abs() < 1e-12);
            }
        }
    }
}

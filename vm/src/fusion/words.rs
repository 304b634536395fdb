//! Arithmetic on stack words, with short ways where the operands are small.

use super::machine::{Limbs, saturated, small};
use alloy_primitives::U256;

pub(super) const ZERO: Limbs = [0; 4];

#[inline(always)]
pub(super) fn boolean(value: bool) -> Limbs {
    [value.into(), 0, 0, 0]
}

#[inline(always)]
pub(super) fn is_zero(a: Limbs) -> bool {
    a[0] | a[1] | a[2] | a[3] == 0
}

#[inline(always)]
pub(super) fn add(a: Limbs, b: Limbs) -> Limbs {
    let (r0, carry) = a[0].carrying_add(b[0], false);
    let (r1, carry) = a[1].carrying_add(b[1], carry);
    let (r2, carry) = a[2].carrying_add(b[2], carry);
    let (r3, _) = a[3].carrying_add(b[3], carry);
    [r0, r1, r2, r3]
}

#[inline(always)]
pub(super) fn sub(a: Limbs, b: Limbs) -> Limbs {
    let (r0, borrow) = a[0].borrowing_sub(b[0], false);
    let (r1, borrow) = a[1].borrowing_sub(b[1], borrow);
    let (r2, borrow) = a[2].borrowing_sub(b[2], borrow);
    let (r3, _) = a[3].borrowing_sub(b[3], borrow);
    [r0, r1, r2, r3]
}

#[inline(always)]
pub(super) fn negate(a: Limbs) -> Limbs {
    sub(ZERO, a)
}

#[inline(always)]
pub(super) fn less(a: Limbs, b: Limbs) -> bool {
    super::intrinsics::less(a, b)
}

/// `a < b` as two's complement numbers.
#[inline(always)]
pub(super) fn signed_less(a: Limbs, b: Limbs) -> bool {
    const SIGN: u64 = 1 << 63;
    less([a[0], a[1], a[2], a[3] ^ SIGN], [b[0], b[1], b[2], b[3] ^ SIGN])
}

#[inline(always)]
pub(super) fn equal(a: Limbs, b: Limbs) -> bool {
    (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) == 0
}

#[inline(always)]
pub(super) fn bitwise(a: Limbs, b: Limbs, op: impl Fn(u64, u64) -> u64) -> Limbs {
    [op(a[0], b[0]), op(a[1], b[1]), op(a[2], b[2]), op(a[3], b[3])]
}

#[inline(always)]
pub(super) fn not(a: Limbs) -> Limbs {
    [!a[0], !a[1], !a[2], !a[3]]
}

#[inline(always)]
fn product(a: u64, b: u64) -> u128 {
    u128::from(a) * u128::from(b)
}

/// The low 256 bits of a product.
#[inline(always)]
pub(super) fn multiply(a: Limbs, b: Limbs) -> Limbs {
    if let (Some(a), Some(b)) = (small(a), small(b)) {
        let wide = product(a, b);
        return [wide as u64, (wide >> 64) as u64, 0, 0];
    }
    // Column by column; only the low halves of the last column count.
    let p00 = product(a[0], b[0]);
    let p01 = product(a[0], b[1]);
    let p10 = product(a[1], b[0]);
    let (low, high) = (|p: u128| p as u64, |p: u128| (p >> 64) as u64);
    let c1 = u128::from(high(p00)) + u128::from(low(p01)) + u128::from(low(p10));
    let p02 = product(a[0], b[2]);
    let p11 = product(a[1], b[1]);
    let p20 = product(a[2], b[0]);
    let c2 = u128::from(high(c1))
        + u128::from(high(p01))
        + u128::from(high(p10))
        + u128::from(low(p02))
        + u128::from(low(p11))
        + u128::from(low(p20));
    let c3 = high(c2)
        .wrapping_add(high(p02))
        .wrapping_add(high(p11))
        .wrapping_add(high(p20))
        .wrapping_add(a[0].wrapping_mul(b[3]))
        .wrapping_add(a[1].wrapping_mul(b[2]))
        .wrapping_add(a[2].wrapping_mul(b[1]))
        .wrapping_add(a[3].wrapping_mul(b[0]));
    [low(p00), low(c1), low(c2), c3]
}

#[inline(always)]
pub(super) fn shift_left(shift: Limbs, a: Limbs) -> Limbs {
    let shift = saturated(shift);
    let bits = (shift % 64) as u32;
    // The two steps keep the carry zero for a shift by whole limbs.
    let carry = |limb: u64| limb >> 1 >> (63 - bits);
    match shift / 64 {
        0 => {
            [a[0] << bits, a[1] << bits | carry(a[0]), a[2] << bits | carry(a[1]), a[3] << bits | carry(a[2])]
        }
        1 => [0, a[0] << bits, a[1] << bits | carry(a[0]), a[2] << bits | carry(a[1])],
        2 => [0, 0, a[0] << bits, a[1] << bits | carry(a[0])],
        3 => [0, 0, 0, a[0] << bits],
        _ => ZERO,
    }
}

/// Shifts right, `fill` coming in from above.
#[inline(always)]
fn shift_right_filling(shift: u64, a: Limbs, fill: u64) -> Limbs {
    let bits = (shift % 64) as u32;
    let join = |low: u64, high: u64| low >> bits | high << 1 << (63 - bits);
    match shift / 64 {
        0 => [join(a[0], a[1]), join(a[1], a[2]), join(a[2], a[3]), join(a[3], fill)],
        1 => [join(a[1], a[2]), join(a[2], a[3]), join(a[3], fill), fill],
        2 => [join(a[2], a[3]), join(a[3], fill), fill, fill],
        3 => [join(a[3], fill), fill, fill, fill],
        _ => [fill; 4],
    }
}

#[inline(always)]
pub(super) fn shift_right(shift: Limbs, a: Limbs) -> Limbs {
    shift_right_filling(saturated(shift), a, 0)
}

#[inline(always)]
pub(super) fn shift_right_signed(shift: Limbs, a: Limbs) -> Limbs {
    shift_right_filling(saturated(shift), a, sign(a))
}

/// All ones if negative, else zero.
#[inline(always)]
pub(super) fn sign(a: Limbs) -> u64 {
    ((a[3] as i64) >> 63) as u64
}

/// The byte at `index`, counted from the most significant.
#[inline(always)]
pub(super) fn byte(index: Limbs, a: Limbs) -> Limbs {
    let index = saturated(index);
    if index >= 32 {
        return ZERO;
    }
    let limb = match index / 8 {
        0 => a[3],
        1 => a[2],
        2 => a[1],
        _ => a[0],
    };
    [limb >> (56 - 8 * (index % 8)) & 0xff, 0, 0, 0]
}

/// SIGNEXTEND: `index` is the byte, counted from the least significant, whose top bit is the sign.
#[inline(always)]
pub(super) fn sign_extend(index: Limbs, a: Limbs) -> Limbs {
    let index = saturated(index);
    if index >= 31 {
        return a;
    }
    let up = (56 - 8 * (index % 8)) as u32;
    let extend = |limb: u64| ((limb << up) as i64 >> up) as u64;
    let fill = |limb: u64| ((limb as i64) >> 63) as u64;
    match index / 8 {
        0 => {
            let limb = extend(a[0]);
            [limb, fill(limb), fill(limb), fill(limb)]
        }
        1 => {
            let limb = extend(a[1]);
            [a[0], limb, fill(limb), fill(limb)]
        }
        2 => {
            let limb = extend(a[2]);
            [a[0], a[1], limb, fill(limb)]
        }
        _ => [a[0], a[1], a[2], extend(a[3])],
    }
}

/// Quotient and remainder of `high * 2^64 + low` by `divisor`, where `high < divisor`.
#[inline(always)]
fn divide_two_limbs(high: u64, low: u64, divisor: u64) -> (u64, u64) {
    super::intrinsics::divide(high, low, divisor)
}

/// Quotient and remainder by one limb that is not zero.
#[inline(always)]
fn divide_by_limb(a: Limbs, divisor: u64) -> (Limbs, u64) {
    if a[1] | a[2] | a[3] == 0 {
        return ([a[0] / divisor, 0, 0, 0], a[0] % divisor);
    }
    let (q3, r) = (a[3] / divisor, a[3] % divisor);
    let (q2, r) = divide_two_limbs(r, a[2], divisor);
    let (q1, r) = divide_two_limbs(r, a[1], divisor);
    let (q0, r) = divide_two_limbs(r, a[0], divisor);
    ([q0, q1, q2, q3], r)
}

/// Where a number that is a power of two has its bit.
#[inline(always)]
fn power_of_two(a: Limbs) -> Option<u64> {
    let below = sub(a, [1, 0, 0, 0]);
    is_zero(bitwise(a, below, |a, b| a & b)).then(|| {
        let limb = a.iter().position(|&limb| limb != 0).unwrap_or(0);
        64 * limb as u64 + u64::from(a[limb].trailing_zeros())
    })
}

/// DIV where it is quick: by zero, by one limb, by a power of two.
#[inline(always)]
pub(super) fn divide(a: Limbs, b: Limbs) -> Option<Limbs> {
    if let Some(divisor) = small(b) {
        return Some(if divisor == 0 { ZERO } else { divide_by_limb(a, divisor).0 });
    }
    power_of_two(b).map(|bit| shift_right_filling(bit, a, 0))
}

/// DIV of any operands.
pub(super) fn divide_slow(a: Limbs, b: Limbs) -> Limbs {
    if is_zero(b) {
        return ZERO;
    }
    *(U256::from_limbs(a) / U256::from_limbs(b)).as_limbs()
}

/// MOD where it is quick.
#[inline(always)]
pub(super) fn remainder(a: Limbs, b: Limbs) -> Option<Limbs> {
    if let Some(divisor) = small(b) {
        return Some([if divisor == 0 { 0 } else { divide_by_limb(a, divisor).1 }, 0, 0, 0]);
    }
    let below = sub(b, [1, 0, 0, 0]);
    is_zero(bitwise(b, below, |a, b| a & b)).then(|| bitwise(a, below, |a, b| a & b))
}

/// MOD of any operands.
pub(super) fn remainder_slow(a: Limbs, b: Limbs) -> Limbs {
    if is_zero(b) {
        return ZERO;
    }
    *(U256::from_limbs(a) % U256::from_limbs(b)).as_limbs()
}

#[inline(always)]
fn absolute(a: Limbs) -> Limbs {
    if sign(a) == 0 { a } else { negate(a) }
}

#[inline(always)]
fn with_sign(a: Limbs, negative: bool) -> Limbs {
    if negative { negate(a) } else { a }
}

/// SDIV: the quotient of the absolute values, negative if the signs differ. The most negative number by -1 is itself.
#[inline(always)]
pub(super) fn signed_divide(a: Limbs, b: Limbs) -> Option<Limbs> {
    divide(absolute(a), absolute(b)).map(|quotient| with_sign(quotient, sign(a) != sign(b)))
}

/// SDIV of any operands.
pub(super) fn signed_divide_slow(a: Limbs, b: Limbs) -> Limbs {
    with_sign(divide_slow(absolute(a), absolute(b)), sign(a) != sign(b))
}

/// SMOD: the remainder of the absolute values, with the dividend's sign.
#[inline(always)]
pub(super) fn signed_remainder(a: Limbs, b: Limbs) -> Option<Limbs> {
    remainder(absolute(a), absolute(b)).map(|remainder| with_sign(remainder, sign(a) != 0))
}

/// SMOD of any operands.
pub(super) fn signed_remainder_slow(a: Limbs, b: Limbs) -> Limbs {
    with_sign(remainder_slow(absolute(a), absolute(b)), sign(a) != 0)
}

/// `base` to the power of `exponent`: a shift if the base is a power of two.
pub(super) fn power(base: Limbs, exponent: Limbs) -> Limbs {
    if let (false, Some(bit), Some(exponent)) = (is_zero(base), power_of_two(base), small(exponent)) {
        return shift_left([bit.saturating_mul(exponent), 0, 0, 0], [1, 0, 0, 0]);
    }
    *U256::from_limbs(base).pow(U256::from_limbs(exponent)).as_limbs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Limbs whose edges meet often: zeros, ones, powers of two, small numbers, anything.
    fn limbs() -> impl Strategy<Value = Limbs> {
        let limb = prop_oneof![
            4 => Just(0u64),
            1 => Just(u64::MAX),
            1 => Just(1u64 << 63),
            2 => 0u64..300,
            1 => (0u32..64).prop_map(|bit| 1 << bit),
            2 => any::<u64>(),
        ];
        prop_oneof![
            4 => proptest::array::uniform4(limb),
            1 => (0u32..256).prop_map(|bit| *(U256::ONE << bit as usize).as_limbs()),
            1 => Just([u64::MAX; 4]),
            1 => (0u64..600).prop_map(|small| [small, 0, 0, 0]),
        ]
    }

    fn word(limbs: Limbs) -> U256 {
        U256::from_limbs(limbs)
    }

    fn is_negative(a: U256) -> bool {
        a.bit(255)
    }

    fn magnitude(a: U256) -> U256 {
        if is_negative(a) { a.wrapping_neg() } else { a }
    }

    /// The yellow paper's definitions, on another library's numbers.
    fn expected(op: &str, a: U256, b: U256) -> U256 {
        let shift = usize::try_from(a).unwrap_or(256).min(256);
        let signed =
            |magnitude: U256, negative: bool| if negative { magnitude.wrapping_neg() } else { magnitude };
        let by_zero = b.is_zero();
        match op {
            "ADD" => a.wrapping_add(b),
            "SUB" => a.wrapping_sub(b),
            "MUL" => a.wrapping_mul(b),
            "LT" => U256::from(a < b),
            "SLT" => U256::from(
                (is_negative(a), a) != (is_negative(b), b) && {
                    if is_negative(a) == is_negative(b) { a < b } else { is_negative(a) }
                },
            ),
            "EQ" => U256::from(a == b),
            "SHL" => {
                if shift > 255 {
                    U256::ZERO
                } else {
                    b << shift
                }
            }
            "SHR" => {
                if shift > 255 {
                    U256::ZERO
                } else {
                    b >> shift
                }
            }
            "SAR" if shift > 255 => signed(U256::from(is_negative(b)), true),
            "SAR" => b.arithmetic_shr(shift),
            "BYTE" => {
                if a < U256::from(32) {
                    U256::from(b.byte(31 - shift))
                } else {
                    U256::ZERO
                }
            }
            "DIV" => {
                if by_zero {
                    U256::ZERO
                } else {
                    a / b
                }
            }
            "MOD" => {
                if by_zero {
                    U256::ZERO
                } else {
                    a % b
                }
            }
            "SDIV" if by_zero => U256::ZERO,
            "SDIV" => signed(magnitude(a) / magnitude(b), is_negative(a) != is_negative(b)),
            "SMOD" if by_zero => U256::ZERO,
            "SMOD" => signed(magnitude(a) % magnitude(b), is_negative(a)),
            "EXP" => a.pow(b),
            "SIGNEXTEND" if a >= U256::from(31) => b,
            _ => {
                let unused = 256 - 8 * (shift + 1);
                (b << unused).arithmetic_shr(unused)
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn words_are_the_yellow_papers(a in limbs(), b in limbs()) {
            let check = |op: &str, ours: Limbs| {
                let theirs = expected(op, word(a), word(b));
                prop_assert_eq!(word(ours), theirs, "{} {:?} {:?}", op, a, b);
                Ok(())
            };
            check("ADD", add(a, b))?;
            check("SUB", sub(a, b))?;
            check("MUL", multiply(a, b))?;
            check("LT", boolean(less(a, b)))?;
            check("SLT", boolean(signed_less(a, b)))?;
            check("EQ", boolean(equal(a, b)))?;
            check("SHL", shift_left(a, b))?;
            check("SHR", shift_right(a, b))?;
            check("SAR", shift_right_signed(a, b))?;
            check("BYTE", byte(a, b))?;
            check("SIGNEXTEND", sign_extend(a, b))?;
            check("EXP", power(a, b))?;
            for (op, quick, slow) in [
                ("DIV", divide(a, b), divide_slow(a, b)),
                ("MOD", remainder(a, b), remainder_slow(a, b)),
                ("SDIV", signed_divide(a, b), signed_divide_slow(a, b)),
                ("SMOD", signed_remainder(a, b), signed_remainder_slow(a, b)),
            ] {
                check(op, slow)?;
                if let Some(quick) = quick {
                    check(op, quick)?;
                }
            }
        }
    }
}

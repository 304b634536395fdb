//! The functions between the two halves of an MLP, and the soft cap: everything that is a smooth step.

use crate::formats::{Scale, WEIGHT_BITS};
use crate::quantise::activation_shift;
use crate::rounding::{reciprocal, rescale, round_shift, shift_by};
use crate::tables::{LOG2E_Q32, LOG2E_Q62, exp2_neg_q62, sigmoid};

/// What an MLP does to its gate, or to its only branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x sigmoid(x)`.
    Silu,
    /// GELU by the hyperbolic tangent, `x sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3))` (Hendrycks and Gimpel, arXiv:1606.08415).
    GeluTanh,
    /// GELU by the normal distribution, `x Phi(x)`.
    GeluErf,
}

impl Activation {
    /// The function of one Q16 number, Q16; its magnitude is at most that of `x`.
    #[inline(always)]
    pub fn apply(self, x: i32) -> i64 {
        let share = match self {
            Self::Silu => sigmoid(x),
            Self::GeluTanh => gelu_tanh_share(x),
            Self::GeluErf => normal_cdf(x),
        };
        round_shift(i64::from(x) * i64::from(share), WEIGHT_BITS)
    }
}

/// Activates one row, multiplies it by `up` if there is one, and quantises; returns the exponent. All have the same length.
#[inline(always)]
pub fn gate_row(activation: Activation, gate: &[i32], up: Option<&[i32]>, out: &mut [i16]) -> i32 {
    // The match is outside the loops, so that each loop is compiled for one function.
    match (activation, up) {
        (Activation::Silu, Some(up)) => gated(|x| Activation::Silu.apply(x), gate, up, out),
        (Activation::GeluTanh, Some(up)) => gated(|x| Activation::GeluTanh.apply(x), gate, up, out),
        (Activation::GeluErf, Some(up)) => gated(|x| Activation::GeluErf.apply(x), gate, up, out),
        (Activation::Silu, None) => plain(|x| Activation::Silu.apply(x), gate, out),
        (Activation::GeluTanh, None) => plain(|x| Activation::GeluTanh.apply(x), gate, out),
        (Activation::GeluErf, None) => plain(|x| Activation::GeluErf.apply(x), gate, out),
    }
}

#[inline(always)]
fn gated(f: impl Fn(i32) -> i64, gate: &[i32], up: &[i32], out: &mut [i16]) -> i32 {
    let product = |(&gate, &up): (&i32, &i32)| f(gate) * i64::from(up);
    let max = gate.iter().zip(up).map(product).fold(0, |max, v| max.max(v.unsigned_abs()));
    let shift = activation_shift(max);
    for (out, pair) in out.iter_mut().zip(gate.iter().zip(up)) {
        *out = shift_by(product(pair), shift) as i16;
    }
    shift - 32
}

#[inline(always)]
fn plain(f: impl Fn(i32) -> i64, x: &[i32], out: &mut [i16]) -> i32 {
    let max = x.iter().map(|&x| f(x)).fold(0, |max, v| max.max(v.unsigned_abs()));
    let shift = activation_shift(max);
    for (out, &x) in out.iter_mut().zip(x) {
        *out = shift_by(f(x), shift) as i16;
    }
    shift - 16
}

/// `round(2 sqrt(2 / pi) * 2^30)`.
const GELU_LINEAR_Q30: i64 = 1_713_444_047;
/// `round(2 sqrt(2 / pi) * 0.044715 * 2^30)`.
const GELU_CUBIC_Q30: i64 = 76_616_651;
/// Where GELU has long become zero or the identity: 8 in Q16.
const GELU_RANGE: i32 = 8 << 16;

/// `sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3))`, Q30.
#[inline(always)]
fn gelu_tanh_share(x: i32) -> i32 {
    let x = i64::from(x.clamp(-GELU_RANGE, GELU_RANGE));
    let square = round_shift(x * x, 16);
    let slope = GELU_LINEAR_Q30 + round_shift(GELU_CUBIC_Q30 * square, 16);
    // |x| <= 2^19 and slope < 2^33: the argument is below 49.
    sigmoid(round_shift(x * slope, 30) as i32)
}

/// The table of the normal distribution covers `-8 ..= 8` in steps of 1/128.
const NORMAL_RANGE: i32 = 8;
const NORMAL_STEPS: usize = 2 * NORMAL_RANGE as usize * 128;
/// `NORMAL[i] = Phi(-8 + i/128)` in Q30, `i = 0 ..= 2048`.
pub static NORMAL: [i32; NORMAL_STEPS + 1] = normal_table();

/// `Phi(x)` for `x` in Q16, as a Q30 number: 2,049 entries, linear interpolation; 0 below -8 and 1 from 8 on.
#[inline(always)]
pub fn normal_cdf(x_q16: i32) -> i32 {
    const SPAN: i32 = (2 * NORMAL_RANGE) << 16;
    let offset = x_q16.saturating_add(SPAN / 2);
    let inside = offset.clamp(0, SPAN - 1) as u32;
    let (index, rest) = ((inside >> 9) as usize, inside & 0x1ff);
    let (low, high) = (NORMAL[index], NORMAL[index + 1]);
    // The steepest step of 1/128 rises by less than 2^30 * 0.4 / 128 < 2^22.
    let value = low + ((((high - low) as u32) * rest + 256) >> 9) as i32;
    if offset < 0 {
        0
    } else if offset >= SPAN {
        1 << 30
    } else {
        value
    }
}

/// `floor(2^62 / sqrt(2 pi))`.
const INV_SQRT_TAU_Q62: u64 = 1_839_796_536_686_825_613;

/// `Phi(x) = 1/2 + phi(x) (x + x^3/3 + x^5/15 + ...)` (Marsaglia, J. Stat. Softw. 2004), a series without cancellation.
const fn normal_table() -> [i32; NORMAL_STEPS + 1] {
    let mut table = [0; NORMAL_STEPS + 1];
    let half = NORMAL_STEPS / 2;
    let mut i = 0;
    while i <= half {
        let square = (i * i) as u128;
        // The series in Q56: below 2^103, and each step's product below 2^124.
        let mut term = (i as u128) << 49;
        let mut sum = term;
        let mut odd = 3;
        while term > 0 {
            term = term * square / (odd << 14);
            sum += term;
            odd += 2;
        }
        // e^(-x^2/2) = 2^-(i^2 log2(e) / 2^15): whole octaves are a shift, the rest is the series.
        let log = (square * LOG2E_Q62 as u128) >> 15;
        let density = (exp2_neg_q62((log % (1 << 62)) as u64) as u128 * INV_SQRT_TAU_Q62 as u128) >> 62;
        let spare = (128 - sum.leading_zeros()).saturating_sub(64);
        let shift = 88 + (log >> 62) as u32 - spare;
        let above = (((sum >> spare) * density + (1 << (shift - 1))) >> shift) as i32;
        table[half + i] = (1 << 29) + above;
        table[half - i] = (1 << 29) - above;
        i += 1;
    }
    table
}

/// `cap * tanh(x / cap)`: what keeps scores and logits within bounds (Gemma Team, arXiv:2408.00118).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoftCap {
    cap: i64,
    /// `1 / cap`, where the cap is the Q16 integer.
    inverse: Scale,
}

impl SoftCap {
    /// A cap in Q16, between 1 and 2^14; `None` for anything else.
    pub fn new(cap_q16: i32) -> Option<Self> {
        (1 << 16..=1 << 30).contains(&cap_q16).then(|| Self::of(cap_q16.unsigned_abs()))
    }

    fn of(cap_q16: u32) -> Self {
        Self { cap: i64::from(cap_q16), inverse: reciprocal(u64::from(cap_q16)) }
    }

    /// The cap, Q16.
    pub const fn cap_q16(self) -> i64 {
        self.cap
    }

    /// The reciprocal of [`cap_q16`](Self::cap_q16).
    pub const fn inverse(self) -> Scale {
        self.inverse
    }

    /// The same cap for numbers in log2 units: attention's scores.
    pub fn in_log2_units(self) -> Self {
        // 2^30 log2(e) < 2^31.
        Self::of(((self.cap as u128 * u128::from(LOG2E_Q32) + (1 << 31)) >> 32) as u32)
    }

    /// The capped number; Q16 in and out.
    #[inline(always)]
    pub fn apply(self, x: i32) -> i32 {
        // tanh(z) = 2 sigmoid(2z) - 1.
        let twice = rescale(i64::from(x), self.inverse.mantissa(), self.inverse.exponent() + 17);
        let tanh = 2 * i64::from(sigmoid(twice)) - (1 << WEIGHT_BITS);
        round_shift(self.cap * tanh, WEIGHT_BITS) as i32
    }
}

/// Bounds a row in place.
#[inline(always)]
pub fn cap_row(row: &mut [i32], cap: SoftCap) {
    row.iter_mut().for_each(|x| *x = cap.apply(*x));
}

#[cfg(test)]
#[allow(clippy::float_arithmetic, reason = "tests compare with the real functions")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `Phi` by the continued fraction and the series: good to 1e-14.
    fn phi(x: f64) -> f64 {
        let density = (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt();
        if x.abs() < 4.0 {
            let (mut term, mut sum) = (x, x);
            for k in 1..200 {
                term *= x * x / f64::from(2 * k + 1);
                sum += term;
            }
            0.5 + density * sum
        } else {
            let tail = density / (1..60).rev().fold(x.abs(), |below, k| x.abs() + f64::from(k) / below);
            if x > 0.0 { 1.0 - tail } else { tail }
        }
    }

    #[test]
    fn the_normal_table_is_monotonic_symmetric_and_close() {
        assert!(NORMAL.windows(2).all(|w| w[0] <= w[1]));
        for (i, &entry) in NORMAL.iter().enumerate() {
            let real = phi(i as f64 / 128.0 - 8.0) * 2f64.powi(30);
            assert!((f64::from(entry) - real).abs() < 0.51, "entry {i}: {entry} {real}");
        }
    }

    proptest! {
        #[test]
        fn gelu_is_close(x in -(12i32 << 16)..12 << 16) {
            let real = f64::from(x) / 65536.0;
            let tanh = real / (1.0 + (-1.595_769_121_605_731 * (real + 0.044_715 * real.powi(3))).exp());
            let step = 2f64.powi(-16);
            let erf = real * phi(real);
            prop_assert!((Activation::GeluTanh.apply(x) as f64 * step - tanh).abs() < step * (1.0 + real.abs()));
            prop_assert!((Activation::GeluErf.apply(x) as f64 * step - erf).abs() < step * (1.0 + real.abs()));
        }

        #[test]
        fn far_from_zero_gelu_is_zero_or_the_identity(x in 9i32 << 16..=i32::MAX) {
            for form in [Activation::GeluTanh, Activation::GeluErf] {
                prop_assert_eq!(form.apply(x), i64::from(x));
                prop_assert_eq!(form.apply(-x), 0);
            }
        }

        #[test]
        fn soft_caps_are_close(x in -i32::MAX..=i32::MAX, cap in 1i32 << 16..200 << 16) {
            let soft = SoftCap::new(cap).unwrap();
            let (x_real, cap_real) = (f64::from(x) / 65536.0, f64::from(cap) / 65536.0);
            let real = cap_real * (x_real / cap_real).tanh();
            prop_assert!((f64::from(soft.apply(x)) / 65536.0 - real).abs() < 2e-5 + cap_real * 1e-5);
            prop_assert!(soft.apply(x).abs() <= cap);
            let log2 = soft.in_log2_units();
            prop_assert!((log2.cap as f64 / 65536.0 - cap_real * std::f64::consts::LOG2_E).abs() < 1e-5);
        }
    }

    #[test]
    fn caps_have_bounds() {
        assert!([0, -1, 65_535, (1 << 30) + 1].into_iter().all(|cap| SoftCap::new(cap).is_none()));
        assert!([1 << 16, 1 << 30].into_iter().all(|cap| SoftCap::new(cap).is_some()));
    }
}

//! From an encoder's hidden states to one vector.

use crate::rounding::{isqrt, round_div, saturate32};

/// The unit vector in the direction of a sum of Q16 rows, Q16; zero stays zero.
///
/// A mean has the direction of its sum. `|sum| < 2^47`, which `2^16` rows cannot exceed.
pub fn unit_vector_q16(sum: &[i64]) -> Vec<i32> {
    debug_assert!(sum.iter().all(|v| v.unsigned_abs() < 1 << 47));
    let square: u128 = sum.iter().map(|&v| u128::from(v.unsigned_abs()).pow(2)).sum();
    match isqrt(square) as i64 {
        0 => vec![0; sum.len()],
        length => sum.iter().map(|&v| saturate32(round_div(v << 16, length))).collect(),
    }
}

#[cfg(test)]
#[allow(clippy::float_arithmetic, reason = "tests compare with the real functions")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn vectors_have_length_one(sum in prop::collection::vec(-(1i64 << 40)..1 << 40, 1..500)) {
            let length = sum.iter().map(|&v| (v as f64).powi(2)).sum::<f64>().sqrt();
            for (&v, got) in sum.iter().zip(unit_vector_q16(&sum)) {
                prop_assert!((f64::from(got) - v as f64 / length * 65536.0).abs() < 0.51);
            }
        }
    }

    #[test]
    fn zero_has_no_direction() {
        assert_eq!(unit_vector_q16(&[0, 0]), [0, 0]);
        assert_eq!(unit_vector_q16(&[-3]), [-65_536]);
    }
}

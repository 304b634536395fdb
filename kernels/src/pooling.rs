//! From an encoder's hidden states to one vector.

use crate::rounding::{isqrt, saturate32};

/// The unit vector in the direction of a sum of Q16 rows, Q16; zero stays zero.
///
/// A mean has the direction of its sum. `|sum| < 2^48`: more rows than the largest context cannot be.
pub fn unit_vector_q16(sum: &[i64]) -> Vec<i32> {
    debug_assert!(sum.iter().all(|v| v.unsigned_abs() < 1 << 48));
    let square: u128 = sum.iter().map(|&v| u128::from(v.unsigned_abs()).pow(2)).sum();
    let length = isqrt(square) as i128;
    if length == 0 {
        return vec![0; sum.len()];
    }
    // Rounded to nearest, ties toward plus infinity; at most 2^64 before the division.
    let component = |&v: &i64| saturate32(((i128::from(v) << 17) + length).div_euclid(2 * length) as i64);
    sum.iter().map(component).collect()
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
        let most = (1i64 << 48) - 1;
        assert_eq!(unit_vector_q16(&[most, -most]), [46_341, -46_341]);
    }
}

//! How much an encoder's vectors differ in fixed point.

use core::fmt;

use metis_kernels::TokenId;

use super::{EvalError, q16, same, single};
use crate::reference::Reference;

/// The figures of an encoder.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EncoderReport {
    /// Texts that were read.
    pub texts: usize,
    /// Mean cosine between the vectors of a text in fixed point and in floats, `-1 ..= 1`.
    pub mean_cosine: f64,
    /// The smallest of them.
    pub worst_cosine: f64,
}

/// The fixed-point encoder: the Q16 vector of a text.
pub type FixedVector<'a, E> = dyn FnMut(&[TokenId]) -> Result<Vec<i32>, E> + 'a;

/// Compares the vectors of texts, given as whole prompts, with the reference's.
///
/// An error if there is no text, if either model fails or if their vectors have different lengths.
pub fn evaluate_encoder<E: fmt::Display>(
    fixed: &mut FixedVector<'_, E>,
    reference: &mut Reference,
    texts: &[Vec<TokenId>],
) -> Result<EncoderReport, EvalError> {
    let (mut sum, mut worst) = (0.0, 1f64);
    for tokens in texts {
        let fixed = fixed(tokens).map_err(|error| EvalError::Fixed(error.to_string()))?;
        let reference = reference.embed(tokens)?;
        same("channels", fixed.len(), reference.len())?;
        let cosine = cosine(q16(&fixed), single(&reference));
        (sum, worst) = (sum + cosine, worst.min(cosine));
    }
    match texts.len() {
        0 => Err(EvalError::NoTexts),
        count => Ok(EncoderReport { texts: count, mean_cosine: sum / count as f64, worst_cosine: worst }),
    }
}

/// Zero if either vector is.
fn cosine(a: impl Iterator<Item = f64>, b: impl Iterator<Item = f64>) -> f64 {
    let add = |[ab, aa, bb]: [f64; 3], (a, b): (f64, f64)| [ab + a * b, aa + a * a, bb + b * b];
    let [ab, aa, bb] = a.zip(b).fold([0.0; 3], add);
    if aa * bb > 0.0 { ab / (aa * bb).sqrt() } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cosine_is_of_directions_and_zero_for_a_vector_without_one() {
        let of = |a: [f64; 2], b: [f64; 2]| cosine(a.into_iter(), b.into_iter());
        assert!((of([3.0, 4.0], [6.0, 8.0]) - 1.0).abs() < 1e-12);
        assert!((of([3.0, 4.0], [-6.0, -8.0]) + 1.0).abs() < 1e-12);
        assert!((of([3.0, 4.0], [4.0, 3.0]) - 0.96).abs() < 1e-12);
        assert_eq!(of([1.0, 0.0], [0.0, 2.0]), 0.0);
        assert_eq!(of([0.0, 0.0], [1.0, 2.0]), 0.0);
    }
}

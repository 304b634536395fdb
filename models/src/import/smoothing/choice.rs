//! Choosing exponents: a few candidates for each place, the one with the least estimated error wins.

use metis_kernels::bounds::MAX_GAIN;
use metis_kernels::formats::GAIN_BITS;
use metis_kernels::rounding::{round_shift, shift_by};
use metis_kernels::tables::log2_q32;

use super::estimate::{Load, Singles};
use super::places::{Inputs, Place};
use super::{LARGEST_EXPONENT, Squares};
use crate::bundle::{Bundle, BundleError};

/// The largest alpha, in quarters.
const MOST_QUARTERS: u32 = 4;
/// A gain keeps this many bits or stays as it is: its own rounding must not be what is left of the error.
const GAIN_LEAST_BITS: u32 = 12;
/// Weights from `2^100` on stay as they are: their multiples could be infinite.
const LARGEST_WEIGHT: i32 = 100;

/// What came of one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// Alpha times four.
    pub(super) quarters: u32,
    /// The exponent of each channel.
    pub(super) exponents: Vec<i32>,
    /// The estimated error without exponents, in a unit of the place's own.
    pub(super) plain: u128,
    /// The same with them.
    pub(super) error: u128,
}

/// The best of the candidates; the smallest alpha among equals.
pub(super) fn choose(
    place: &Place,
    index: usize,
    squares: &Squares,
    fits: &Fits,
    readers: &[Singles],
) -> Choice {
    let load = Load::new(place, index, squares, readers);
    let still = vec![0; place.channels];
    let plain = load.error(readers, &still).unwrap_or(u128::MAX);
    let mut best = Choice { quarters: 0, exponents: still, plain, error: plain };
    let loudness = loudness(place, &squares.inputs[index]);
    for quarters in 1..=MOST_QUARTERS {
        let exponents = fits.clamp(candidate(&loudness, quarters));
        match load.error(readers, &exponents) {
            Some(error) if error < best.error => best = Choice { quarters, exponents, plain, error },
            _ => {}
        }
    }
    best
}

/// The sum of squares of each channel over all columns that it feeds.
fn loudness(place: &Place, inputs: &[u128]) -> Vec<u128> {
    let mut sums = vec![0u128; place.channels];
    for (column, square) in inputs.iter().enumerate() {
        let sum = &mut sums[place.channel(column)];
        *sum = sum.saturating_add(*square);
    }
    sums
}

/// `round(alpha * log2(a / mean a))` with root mean squares `a`; a channel that is silent keeps its scale.
fn candidate(loudness: &[u128], quarters: u32) -> Vec<i32> {
    let total = loudness.iter().fold(0u128, |total, square| total.saturating_add(*square));
    let mean = log2(total / loudness.len().max(1) as u128);
    let exponent = |&square: &u128| match (log2(square), mean) {
        // Quarters of logarithms of squares: two bits and one.
        (Some(log), Some(mean)) => round_shift(i64::from(quarters) * (log - mean), 32 + 3) as i32,
        _ => 0,
    };
    loudness.iter().map(exponent).collect()
}

/// The logarithm in Q32 of the upper 64 bits; `None` of zero.
fn log2(x: u128) -> Option<i64> {
    let shift = 64u32.saturating_sub(x.leading_zeros());
    (x > 0).then(|| log2_q32((x >> shift) as u64) as i64 + (i64::from(shift) << 32))
}

/// The exponents that what writes a channel can take.
#[derive(Debug)]
pub(super) struct Fits {
    /// For each channel the smallest and the largest.
    ranges: Vec<(i32, i32)>,
}

impl Fits {
    /// Looks at the tensors of the plain bundle.
    pub(super) fn new(place: &Place, plain: &Bundle) -> Result<Self, BundleError> {
        let mut ranges = vec![(-LARGEST_EXPONENT, LARGEST_EXPONENT); place.channels];
        let is_norm = matches!(place.inputs, Inputs::Attention | Inputs::Mlp);
        for writer in &place.writers {
            let allowed: Vec<(i32, i32)> = match writer.rsplit_once('.') {
                Some((name, "gain")) => plain.gains(name)?.into_iter().map(gain_range).collect(),
                Some((name, "bias")) => {
                    let limit = if is_norm { MAX_GAIN << GAIN_BITS } else { i64::from(i32::MAX) };
                    plain.bias(name)?.into_iter().map(|bias| bounded(bias, limit)).collect()
                }
                Some((name, _)) => {
                    let small = |exponent: i32| exponent + 30 < LARGEST_WEIGHT;
                    plain.linear(name)?.scales.iter().map(|scale| open(small(scale.exponent()))).collect()
                }
                None => continue,
            };
            for (range, allowed) in ranges.iter_mut().zip(allowed) {
                *range = (range.0.max(allowed.0), range.1.min(allowed.1));
            }
        }
        Ok(Self { ranges })
    }

    fn clamp(&self, mut exponents: Vec<i32>) -> Vec<i32> {
        for (exponent, &(least, most)) in exponents.iter_mut().zip(&self.ranges) {
            *exponent = (*exponent).clamp(least, most);
        }
        exponents
    }
}

/// All exponents, or none but zero.
const fn open(all: bool) -> (i32, i32) {
    if all { (-LARGEST_EXPONENT, LARGEST_EXPONENT) } else { (0, 0) }
}

/// A gain grows to half of its limit at most, and shrinks as far as it keeps its bits.
fn gain_range(gain: i32) -> (i32, i32) {
    let (least, _) = bounded(gain, MAX_GAIN << (GAIN_BITS - 1));
    let bits = (u32::BITS - gain.unsigned_abs().leading_zeros()) as i32;
    let most = if gain == 0 { LARGEST_EXPONENT } else { bits - GAIN_LEAST_BITS as i32 };
    (least, most.clamp(0, LARGEST_EXPONENT))
}

/// The exponents for which `x / 2^exponent` stays below the limit.
fn bounded(x: i32, limit: i64) -> (i32, i32) {
    let fits = |least: &i32| shift_by(i64::from(x).abs(), *least) < limit;
    ((-LARGEST_EXPONENT..=0).find(fits).unwrap_or(0), LARGEST_EXPONENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn louder_channels_get_larger_exponents() {
        // Root mean squares 1, 1, 1, 1, 64 times a unit; their mean square is about 819, its root 28.6.
        let squares = [1u128, 1, 1, 1, 4_096].map(|square| square << 64);
        assert_eq!(candidate(&squares, 4), [-5, -5, -5, -5, 1]);
        assert_eq!(candidate(&squares, 2), [-2, -2, -2, -2, 1]);
        assert_eq!(candidate(&squares, 0), [0; 5]);
        assert_eq!(candidate(&[0, 1 << 70, 1 << 80], 4), [0, -4, 1]);
        assert_eq!(candidate(&[u128::MAX, u128::MAX, 0], 4), [1, 1, 0]);
        assert_eq!(candidate(&[0, 0], 4), [0, 0]);
    }

    #[test]
    fn gains_keep_their_bits_and_bounds() {
        assert_eq!(gain_range(1 << 20), (-4, 4));
        assert_eq!(gain_range(-(1 << 13)), (-4, 2));
        assert_eq!(gain_range(100), (-4, 0));
        assert_eq!(gain_range(0), (-4, 4));
        // 100 may become 400, not 800.
        assert_eq!(gain_range(100 << 20), (-2, 4));
        assert_eq!(gain_range((1 << 30) - 1), (0, 4));
        assert_eq!(bounded(i32::MAX, i64::from(i32::MAX)), (0, 4));
        assert_eq!(bounded(1 << 26, i64::from(i32::MAX)), (-4, 4));
        assert_eq!(bounded(1 << 28, i64::from(i32::MAX)), (-2, 4));
    }
}

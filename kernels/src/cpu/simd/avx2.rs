//! AVX2: bytes are widened, `vpmaddwd` multiplies sixteen int16 pairs and adds neighbours.
//!
//! `vpmaddubsw` would not need the widening but saturates.

use core::arch::x86_64::*;
use core::array;
use core::ops::Range;

use super::portable::rescale_totals;
use super::{GroupedPanel, Keys, Panel, QueryRow, Simd, Sixteen};
use crate::cpu::groups::{GROUP_STEPS, GroupedRow};
use crate::cpu::packed::{DEPTH, LANES, Multipliers, PanelScales};
use crate::cpu::planes::PlaneRow;
use crate::formats::RESIDUAL_BITS;
use crate::rounding::rescale;

/// A processor with AVX2.
#[derive(Clone, Copy, Debug)]
pub(in crate::cpu) struct Avx2(());

/// Blocks of which the sums of all four products fit an `i32`: `64 * 4 * 255 * 32,512 < 2^31`.
const BLOCKS: usize = 64;

impl Avx2 {
    pub(in crate::cpu) fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx2").then_some(Self(()))
    }
}

impl Simd for Avx2 {
    const STREAMS: usize = 1;
    const ROWS: usize = 4;

    fn linear<const P: usize, const T: usize>(
        self,
        panels: [Panel<'_>; P],
        rows: [PlaneRow<'_>; T],
        out: &mut [[Sixteen; T]; P],
    ) {
        for (panel, out) in panels.iter().zip(out) {
            // SAFETY: the token proves that the processor has the instructions.
            unsafe { linear(panel, rows, out) }
        }
    }

    fn grouped<const P: usize, const T: usize>(
        self,
        panels: [GroupedPanel<'_>; P],
        rows: [GroupedRow<'_>; T],
        out: &mut [[Sixteen; T]; P],
    ) {
        for (panel, out) in panels.iter().zip(out) {
            // SAFETY: as above.
            unsafe { grouped(panel, rows, out) }
        }
    }

    fn scores<const T: usize>(self, keys: Keys<'_>, queries: [QueryRow<'_>; T], out: [&mut [Sixteen]; T]) {
        // SAFETY: as above.
        unsafe { scores(keys, queries, out) }
    }

    fn run<R>(self, f: impl FnOnce() -> R) -> R {
        // SAFETY: as above.
        unsafe { run(f) }
    }
}

#[target_feature(enable = "avx2")]
fn run<R>(f: impl FnOnce() -> R) -> R {
    f()
}

/// Products of the blocks `steps` of a panel with `T` rows, for `Q` quarters of its outputs from `quarter` on: four outputs in each register, two
/// lanes an output. `T Q` sums, the rows' values, weights and a product are to fit sixteen registers.
#[allow(clippy::needless_range_loop, reason = "indices are registers")]
#[inline]
#[target_feature(enable = "avx2")]
fn products<const T: usize, const Q: usize>(
    panel: &Panel<'_>,
    rows: [&[i16]; T],
    steps: Range<usize>,
    quarter: usize,
) -> [[__m256i; Q]; T] {
    assert!(steps.end <= panel.blocks.len() && quarter + Q <= 4);
    assert!(rows.iter().all(|row| row.len() >= steps.end * DEPTH));
    let mut sums = [[_mm256_setzero_si256(); Q]; T];
    for step in steps {
        // SAFETY: each row has four values for each step.
        let values: [__m256i; T] = array::from_fn(|t| unsafe {
            _mm256_set1_epi64x(rows[t].as_ptr().cast::<i64>().add(step).read_unaligned())
        });
        for q in 0..Q {
            // SAFETY: `step` is below the number of blocks, of 64 aligned bytes, and there are four quarters.
            let weights =
                unsafe { _mm_load_si128(panel.blocks.as_ptr().add(step).cast::<__m128i>().add(quarter + q)) };
            let weights = _mm256_cvtepu8_epi16(weights);
            for t in 0..T {
                sums[t][q] = _mm256_add_epi32(sums[t][q], _mm256_madd_epi16(weights, values[t]));
            }
        }
    }
    sums
}

/// The two lanes of an output together, which fit 32 bits, in its lower one.
#[inline]
#[target_feature(enable = "avx2")]
fn outputs(sums: __m256i) -> __m256i {
    _mm256_add_epi32(sums, _mm256_srli_epi64::<32>(sums))
}

/// The lower halves of four lanes of 64 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn lower(lanes: __m256i) -> __m128i {
    _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(lanes, _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6)))
}

#[target_feature(enable = "avx2")]
fn linear<const T: usize>(panel: &Panel<'_>, rows: [PlaneRow<'_>; T], out: &mut [Sixteen; T]) {
    let steps = panel.blocks.len();
    // Loops: a closure would not be compiled into `map`, which lacks the instructions.
    let mut values: [&[i16]; T] = [&[]; T];
    for t in 0..T {
        values[t] = rows[t].values;
    }
    // Four outputs in each register.
    let mut totals = [[_mm256_setzero_si256(); 4]; T];
    let mut first = 0;
    while first < steps {
        let end = steps.min(first + BLOCKS);
        if T <= 2 {
            add::<T, 4>(&mut totals, products(panel, values, first..end, 0), 0);
        } else {
            add::<T, 2>(&mut totals, products(panel, values, first..end, 0), 0);
            add::<T, 2>(&mut totals, products(panel, values, first..end, 2), 2);
        }
        first = end;
    }
    for t in 0..T {
        out[t] = requantise(&totals[t], &rows[t], panel);
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn add<const T: usize, const Q: usize>(
    totals: &mut [[__m256i; 4]; T],
    sums: [[__m256i; Q]; T],
    quarter: usize,
) {
    for (totals, sums) in totals.iter_mut().zip(sums) {
        for (total, sums) in totals[quarter..].iter_mut().zip(sums) {
            *total = _mm256_add_epi64(*total, _mm256_cvtepi32_epi64(lower(outputs(sums))));
        }
    }
}

/// Sums of `(w + 128) a` to Q16.
#[inline]
#[target_feature(enable = "avx2")]
fn requantise(totals: &[__m256i; 4], row: &PlaneRow<'_>, panel: &Panel<'_>) -> Sixteen {
    let PanelScales { mantissas, exponents } = panel.scales;
    let excess = _mm256_set1_epi64x(128 * (256 * i64::from(row.high_sum) + i64::from(row.low_sum)));
    let mut sums = *totals;
    for sums in &mut sums {
        *sums = _mm256_sub_epi64(*sums, excess);
    }
    rescaled(&sums, mantissas, exponents, row.exponent + RESIDUAL_BITS as i32)
}

/// [`rescale`] of four sums at a time, each by its scale; `exponent` is added to those of all.
#[inline]
#[target_feature(enable = "avx2")]
fn rescaled(sums: &[__m256i; 4], mantissas: &Sixteen, exponents: &Sixteen, exponent: i32) -> Sixteen {
    let mut outside = _mm256_setzero_si256();
    for eight in exponents.chunks_exact(8) {
        // SAFETY: eight lanes.
        let eight = unsafe { _mm256_loadu_si256(eight.as_ptr().cast()) };
        let eight = _mm256_add_epi32(eight, _mm256_set1_epi32(exponent));
        outside = _mm256_or_si256(outside, _mm256_cmpgt_epi32(eight, _mm256_setzero_si256()));
        outside = _mm256_or_si256(outside, _mm256_cmpgt_epi32(_mm256_set1_epi32(-62), eight));
    }
    let mut out = [0; LANES];
    if _mm256_testz_si256(outside, outside) == 0 {
        // Larger than they can be, or far too small.
        let sums = stored(sums);
        for lane in 0..LANES {
            out[lane] = rescale(sums[lane], mantissas[lane] as u32, exponents[lane] + exponent);
        }
        return out;
    }
    for (q, (&sum, out)) in sums.iter().zip(out.chunks_exact_mut(4)).enumerate() {
        // SAFETY: four lanes of sixteen.
        let mantissa = unsafe { _mm_loadu_si128(mantissas.as_ptr().add(4 * q).cast()) };
        // SAFETY: the same.
        let exponents = unsafe { _mm_loadu_si128(exponents.as_ptr().add(4 * q).cast()) };
        let mantissa = _mm256_cvtepi32_epi64(mantissa);
        let exponents = _mm_add_epi32(exponents, _mm_set1_epi32(exponent));
        let shift = _mm256_cvtepi32_epi64(_mm_sub_epi32(_mm_setzero_si128(), exponents));

        // A number of 40 bits times one of 23, as `2^20 high + low`; a signed shift is an unsigned one of something larger.
        let high = _mm256_srli_epi64::<20>(_mm256_add_epi64(sum, _mm256_set1_epi64x(1 << 40)));
        let high = _mm256_sub_epi64(high, _mm256_set1_epi64x(1 << 20));
        let low = _mm256_and_si256(sum, _mm256_set1_epi64x((1 << 20) - 1));
        let high = _mm256_slli_epi64::<20>(_mm256_mul_epi32(high, mantissa));
        let product = _mm256_add_epi64(high, _mm256_mul_epi32(low, mantissa));

        let half = _mm256_srli_epi64::<1>(_mm256_sllv_epi64(_mm256_set1_epi64x(1), shift));
        let above = _mm256_set1_epi64x(1 << 62);
        let rounded = _mm256_add_epi64(_mm256_add_epi64(product, half), above);
        let shifted = _mm256_sub_epi64(_mm256_srlv_epi64(rounded, shift), _mm256_srlv_epi64(above, shift));

        let (most, least) =
            (_mm256_set1_epi64x(i64::from(i32::MAX)), _mm256_set1_epi64x(-i64::from(i32::MAX)));
        let shifted = _mm256_blendv_epi8(shifted, most, _mm256_cmpgt_epi64(shifted, most));
        let shifted = _mm256_blendv_epi8(shifted, least, _mm256_cmpgt_epi64(least, shifted));
        // SAFETY: four lanes.
        unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), lower(shifted)) };
    }
    out
}

#[allow(
    clippy::needless_range_loop,
    reason = "one index for blocks, exponents and results; indices are registers"
)]
#[target_feature(enable = "avx2")]
fn scores<const T: usize>(keys: Keys<'_>, queries: [QueryRow<'_>; T], out: [&mut [Sixteen]; T]) {
    let pairs = queries[0].high.len() / 2;
    let sixteens = keys.exponents.len();
    assert!(keys.blocks.len() == sixteens * pairs && out.iter().all(|out| out.len() == sixteens));
    assert!(queries.iter().all(|q| q.high.len() == 2 * pairs && q.low.len() == 2 * pairs));
    let mantissas = [keys.mantissa as i32; LANES];
    for sixteen in 0..sixteens {
        let mut sums = [[_mm256_setzero_si256(); 4]; T];
        // Eight positions at a time: both sums of four heads, a key, a query and a product fit sixteen registers.
        for eight in 0..2 {
            let mut halves = [[_mm256_setzero_si256(); 2]; T];
            for pair in 0..pairs {
                // SAFETY: below the number of blocks, of 64 aligned bytes.
                let keys = unsafe {
                    let block = keys.blocks.as_ptr().add(sixteen * pairs + pair);
                    _mm256_load_si256(block.cast::<__m256i>().add(eight))
                };
                for t in 0..T {
                    // SAFETY: each query has two values for each pair.
                    let (high, low) = unsafe {
                        (
                            queries[t].high.as_ptr().cast::<i32>().add(pair).read_unaligned(),
                            queries[t].low.as_ptr().cast::<i32>().add(pair).read_unaligned(),
                        )
                    };
                    let [high_sum, low_sum] = &mut halves[t];
                    *high_sum = _mm256_add_epi32(*high_sum, _mm256_madd_epi16(keys, _mm256_set1_epi32(high)));
                    *low_sum = _mm256_add_epi32(*low_sum, _mm256_madd_epi16(keys, _mm256_set1_epi32(low)));
                }
            }
            for t in 0..T {
                let [high, low] = halves[t];
                let sum = |high, low| {
                    let high = _mm256_slli_epi64::<8>(_mm256_cvtepi32_epi64(high));
                    _mm256_add_epi64(high, _mm256_cvtepi32_epi64(low))
                };
                sums[t][2 * eight] = sum(_mm256_castsi256_si128(high), _mm256_castsi256_si128(low));
                sums[t][2 * eight + 1] =
                    sum(_mm256_extracti128_si256::<1>(high), _mm256_extracti128_si256::<1>(low));
            }
        }
        for t in 0..T {
            out[t][sixteen] = rescaled(&sums[t], &mantissas, &keys.exponents[sixteen], queries[t].exponent);
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn stored(totals: &[__m256i; 4]) -> [i64; LANES] {
    let mut lanes = [0i64; LANES];
    for (&total, lanes) in totals.iter().zip(lanes.chunks_exact_mut(4)) {
        // SAFETY: four lanes.
        unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), total) };
    }
    lanes
}

#[target_feature(enable = "avx2")]
fn grouped<const T: usize>(panel: &GroupedPanel<'_>, rows: [GroupedRow<'_>; T], out: &mut [Sixteen; T]) {
    let GroupedPanel { panel, groups } = panel;
    let steps = panel.blocks.len();
    assert!(groups.len() == steps.div_ceil(GROUP_STEPS));
    let mut values: [&[i16]; T] = [&[]; T];
    for t in 0..T {
        values[t] = rows[t].row.values;
    }
    // Four outputs in each register.
    let mut totals = [[_mm256_setzero_si256(); 4]; T];
    for (group, multipliers) in groups.iter().enumerate() {
        let steps = group * GROUP_STEPS..steps.min((group + 1) * GROUP_STEPS);
        let mut excess = [0; T];
        for t in 0..T {
            excess[t] = 128 * rows[t].sums[group];
        }
        if T <= 2 {
            multiply::<T, 4>(&mut totals, products(panel, values, steps, 0), excess, multipliers, 0);
        } else {
            multiply::<T, 2>(&mut totals, products(panel, values, steps.clone(), 0), excess, multipliers, 0);
            multiply::<T, 2>(&mut totals, products(panel, values, steps, 2), excess, multipliers, 2);
        }
    }
    for t in 0..T {
        out[t] = rescale_totals(&stored(&totals[t]), &rows[t].row, panel);
    }
}

/// Adds a group's sums, less their excess, times its multipliers.
#[inline]
#[target_feature(enable = "avx2")]
fn multiply<const T: usize, const Q: usize>(
    totals: &mut [[__m256i; 4]; T],
    sums: [[__m256i; Q]; T],
    excess: [i32; T],
    multipliers: &Multipliers,
    quarter: usize,
) {
    for q in 0..Q {
        let four = array::from_fn(|lane| multipliers[4 * (quarter + q) + lane]);
        let multipliers = _mm256_cvtepu8_epi64(_mm_cvtsi32_si128(i32::from_le_bytes(four)));
        for t in 0..T {
            let sum = _mm256_sub_epi32(outputs(sums[t][q]), _mm256_set1_epi32(excess[t]));
            let total = &mut totals[t][quarter + q];
            *total = _mm256_add_epi64(*total, _mm256_mul_epi32(sum, multipliers));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[target_feature(enable = "avx2")]
    fn rescaled_array(
        sums: &[i64; LANES],
        mantissas: &Sixteen,
        exponents: &Sixteen,
        exponent: i32,
    ) -> Sixteen {
        let mut registers = [_mm256_setzero_si256(); 4];
        for (register, sums) in registers.iter_mut().zip(sums.chunks_exact(4)) {
            // SAFETY: four lanes.
            *register = unsafe { _mm256_loadu_si256(sums.as_ptr().cast()) };
        }
        rescaled(&registers, mantissas, exponents, exponent)
    }

    proptest! {
        #[test]
        fn four_at_a_time_are_rescaled_as_one(
            sums in proptest::array::uniform16(prop_oneof![
                -(1i64 << 39)..=1 << 39,
                -1_000_000i64..1_000_000,
                Just(1 << 39),
                Just(-(1 << 39)),
                Just(0),
            ]),
            mantissas in proptest::array::uniform16(1i32 << 22..1 << 23),
            exponents in prop_oneof![
                proptest::array::uniform16(-70i32..10),
                proptest::array::uniform16(-32i32..=0),
            ],
            exponent in -30i32..=0,
        ) {
            if Avx2::detect().is_none() {
                return Ok(());
            }
            // SAFETY: the processor has the instructions.
            let rescaled = unsafe { rescaled_array(&sums, &mantissas, &exponents, exponent) };
            for lane in 0..LANES {
                let expected = rescale(sums[lane], mantissas[lane] as u32, exponents[lane] + exponent);
                prop_assert_eq!(rescaled[lane], expected);
            }
        }
    }
}

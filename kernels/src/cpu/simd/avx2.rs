//! AVX2: bytes are widened, `vpmaddwd` multiplies sixteen int16 pairs and adds neighbours.
//!
//! `vpmaddubsw` would not need the widening but saturates.

use core::arch::x86_64::*;
use core::array;

use super::portable::{requantise, rescale_totals};
use super::{GroupedPanel, Panel, Simd, Sixteen};
use crate::cpu::groups::{GROUP_STEPS, GroupedRow};
use crate::cpu::packed::{DEPTH, LANES};
use crate::cpu::planes::PlaneRow;

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
    const ROWS: usize = 3;

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

    fn run<R>(self, f: impl FnOnce() -> R) -> R {
        // SAFETY: as above.
        unsafe { run(f) }
    }
}

#[target_feature(enable = "avx2")]
fn run<R>(f: impl FnOnce() -> R) -> R {
    f()
}

#[allow(clippy::needless_range_loop, reason = "indices are registers")]
#[target_feature(enable = "avx2")]
fn linear<const T: usize>(panel: &Panel<'_>, rows: [PlaneRow<'_>; T], out: &mut [Sixteen; T]) {
    let steps = panel.blocks.len();
    assert!(rows.iter().all(|r| r.values.len() == steps * DEPTH));
    let mut totals = [[0i64; LANES]; T];
    let mut first = 0;
    while first < steps {
        let end = steps.min(first + BLOCKS);
        // Four rows of the panel in each register, two lanes a row.
        let mut sums = [[_mm256_setzero_si256(); 4]; T];
        for step in first..end {
            // SAFETY: each row has four values for each step.
            let values: [__m256i; T] = array::from_fn(|t| unsafe {
                _mm256_set1_epi64x(rows[t].values.as_ptr().cast::<i64>().add(step).read_unaligned())
            });
            for quarter in 0..4 {
                // SAFETY: `step` is below the number of blocks, of 64 aligned bytes.
                let weights =
                    unsafe { _mm_load_si128(panel.blocks.as_ptr().add(step).cast::<__m128i>().add(quarter)) };
                let weights = _mm256_cvtepu8_epi16(weights);
                for t in 0..T {
                    let products = _mm256_madd_epi16(weights, values[t]);
                    sums[t][quarter] = _mm256_add_epi32(sums[t][quarter], products);
                }
            }
        }
        for t in 0..T {
            for quarter in 0..4 {
                let mut lanes = [0i32; 8];
                // SAFETY: eight lanes of 32 bits.
                unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), sums[t][quarter]) };
                for row in 0..4 {
                    totals[t][4 * quarter + row] += i64::from(lanes[2 * row]) + i64::from(lanes[2 * row + 1]);
                }
            }
        }
        first = end;
    }
    for t in 0..T {
        out[t] = requantise(totals[t], &rows[t], panel);
    }
}

#[allow(clippy::needless_range_loop, reason = "indices are registers")]
#[target_feature(enable = "avx2")]
fn grouped<const T: usize>(panel: &GroupedPanel<'_>, rows: [GroupedRow<'_>; T], out: &mut [Sixteen; T]) {
    let GroupedPanel { panel, groups } = panel;
    let steps = panel.blocks.len();
    assert!(groups.len() == steps.div_ceil(GROUP_STEPS));
    assert!(rows.iter().all(|r| r.row.values.len() == steps * DEPTH));
    // Four outputs in each register.
    let mut totals = [[_mm256_setzero_si256(); 4]; T];
    for (group, multipliers) in groups.iter().enumerate() {
        let mut sums = [[_mm256_setzero_si256(); 4]; T];
        for step in group * GROUP_STEPS..steps.min((group + 1) * GROUP_STEPS) {
            // SAFETY: each row has four values for each step.
            let values: [__m256i; T] = array::from_fn(|t| unsafe {
                _mm256_set1_epi64x(rows[t].row.values.as_ptr().cast::<i64>().add(step).read_unaligned())
            });
            for quarter in 0..4 {
                // SAFETY: `step` is below the number of blocks, of 64 aligned bytes.
                let weights =
                    unsafe { _mm_load_si128(panel.blocks.as_ptr().add(step).cast::<__m128i>().add(quarter)) };
                let weights = _mm256_cvtepu8_epi16(weights);
                for t in 0..T {
                    let products = _mm256_madd_epi16(weights, values[t]);
                    sums[t][quarter] = _mm256_add_epi32(sums[t][quarter], products);
                }
            }
        }
        for quarter in 0..4 {
            let four = array::from_fn(|lane| multipliers[4 * quarter + lane]);
            let multipliers = _mm256_cvtepu8_epi64(_mm_cvtsi32_si128(i32::from_le_bytes(four)));
            for t in 0..T {
                // The two lanes of a row meet in the lower one, which is all that is multiplied.
                let both = sums[t][quarter];
                let sum = _mm256_add_epi32(both, _mm256_srli_epi64::<32>(both));
                let sum = _mm256_sub_epi32(sum, _mm256_set1_epi32(128 * rows[t].sums[group]));
                totals[t][quarter] = _mm256_add_epi64(totals[t][quarter], _mm256_mul_epi32(sum, multipliers));
            }
        }
    }
    for t in 0..T {
        let mut lanes = [0i64; LANES];
        for quarter in 0..4 {
            // SAFETY: four lanes of sixteen.
            unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().add(4 * quarter).cast(), totals[t][quarter]) };
        }
        out[t] = rescale_totals(&lanes, &rows[t].row, panel);
    }
}

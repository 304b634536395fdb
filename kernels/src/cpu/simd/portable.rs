//! Plain loops, for processors without an implementation of their own.

use super::{GroupedPanel, Keys, Panel, QueryRow, Simd, Sixteen};
use crate::cpu::groups::{GROUP_STEPS, GroupedRow};
use crate::cpu::packed::{DEPTH, LANES};
use crate::cpu::planes::PlaneRow;
use crate::formats::{GROUP_INPUTS, RESIDUAL_BITS, WEIGHT_BITS};
use crate::rounding::{rescale, rescale_wide, round_shift};
use crate::softmax::weight;
use crate::tables::sigmoid;

/// No particular instructions.
#[derive(Clone, Copy, Debug)]
pub(in crate::cpu) struct Portable;

/// Blocks of which the sums of four products each fit an `i32`: `64 * 4 * 255 * 32,512 < 2^31`.
const BLOCKS: usize = 64;

impl Simd for Portable {
    const STREAMS: usize = 1;
    const ROWS: usize = 1;

    fn linear<const P: usize, const T: usize>(
        self,
        panels: [Panel<'_>; P],
        rows: [PlaneRow<'_>; T],
        out: &mut [[Sixteen; T]; P],
    ) {
        for (panel, out) in panels.iter().zip(out) {
            for (row, out) in rows.iter().zip(out) {
                let mut sums = [0i64; LANES];
                for (blocks, values) in panel.blocks.chunks(BLOCKS).zip(row.values.chunks(BLOCKS * DEPTH)) {
                    let mut some = [0i32; LANES];
                    for (block, values) in blocks.iter().zip(values.chunks_exact(DEPTH)) {
                        for (sum, weights) in some.iter_mut().zip(block.0.chunks_exact(DEPTH)) {
                            for (&weight, &value) in weights.iter().zip(values) {
                                *sum += i32::from(weight) * i32::from(value);
                            }
                        }
                    }
                    for (sum, some) in sums.iter_mut().zip(some) {
                        *sum += i64::from(some);
                    }
                }
                *out = requantise(sums, row, panel);
            }
        }
    }

    #[inline(always)]
    fn run<R>(self, f: impl FnOnce() -> R) -> R {
        f()
    }
}

/// The product of weights with groups by plain loops.
#[inline(always)]
pub(super) fn grouped<const P: usize, const T: usize>(
    panels: [GroupedPanel<'_>; P],
    rows: [GroupedRow<'_>; T],
    out: &mut [[Sixteen; T]; P],
) {
    for (GroupedPanel { panel, groups }, out) in panels.iter().zip(out) {
        for (GroupedRow { row, sums }, out) in rows.iter().zip(out) {
            let mut totals = [0i64; LANES];
            let parts = panel.blocks.chunks(GROUP_STEPS).zip(row.values.chunks(GROUP_INPUTS));
            for ((blocks, values), (multipliers, &sum)) in parts.zip(groups.iter().zip(*sums)) {
                // What reading w as w + 128 adds is subtracted at the start.
                let mut part = [-128 * sum; LANES];
                for (block, values) in blocks.iter().zip(values.chunks_exact(DEPTH)) {
                    for (part, weights) in part.iter_mut().zip(block.0.chunks_exact(DEPTH)) {
                        for (&weight, &value) in weights.iter().zip(values) {
                            *part += i32::from(weight) * i32::from(value);
                        }
                    }
                }
                for (total, (part, &multiplier)) in totals.iter_mut().zip(part.into_iter().zip(multipliers)) {
                    *total += i64::from(part) * i64::from(multiplier);
                }
            }
            *out = rescale_totals(&totals, row, panel);
        }
    }
}

/// Sums of weights times activations times multipliers to Q16.
#[inline(always)]
pub(super) fn rescale_totals(totals: &[i64; LANES], row: &PlaneRow<'_>, panel: &Panel<'_>) -> Sixteen {
    core::array::from_fn(|lane| {
        let exponent = row.exponent + panel.scales.exponents[lane] + RESIDUAL_BITS as i32;
        rescale_wide(totals[lane], panel.scales.mantissas[lane] as u32, exponent)
    })
}

/// Sums of `(w + 128) a` to Q16.
#[inline(always)]
pub(super) fn requantise(mut sums: [i64; LANES], row: &PlaneRow<'_>, panel: &Panel<'_>) -> Sixteen {
    let excess = 128 * (256 * i64::from(row.high_sum) + i64::from(row.low_sum));
    let mut out = [0; LANES];
    for lane in 0..LANES {
        sums[lane] -= excess;
        let exponent = row.exponent + panel.scales.exponents[lane] + RESIDUAL_BITS as i32;
        out[lane] = rescale(sums[lane], panel.scales.mantissas[lane] as u32, exponent);
    }
    out
}

/// `256 * high + low` by each lane's scale; `exponent` is added to all of theirs.
#[inline(always)]
pub(super) fn rescale_halves(
    [high, low]: [Sixteen; 2],
    mantissas: &Sixteen,
    exponents: &Sixteen,
    exponent: i32,
) -> Sixteen {
    core::array::from_fn(|lane| {
        let sum = 256 * i64::from(high[lane]) + i64::from(low[lane]);
        rescale(sum, mantissas[lane] as u32, exponents[lane] + exponent)
    })
}

/// Scores by plain loops.
#[inline(always)]
pub(super) fn scores<const T: usize>(keys: Keys<'_>, queries: [QueryRow<'_>; T], out: [&mut [Sixteen]; T]) {
    for (query, out) in queries.iter().zip(out) {
        let pairs = query.high.len() / 2;
        for ((blocks, exponents), out) in keys.blocks.chunks_exact(pairs).zip(keys.exponents).zip(out) {
            let (mut high, mut low) = ([0i32; LANES], [0i32; LANES]);
            for ((block, h), l) in
                blocks.iter().zip(query.high.chunks_exact(2)).zip(query.low.chunks_exact(2))
            {
                for (lane, key) in block.0.iter().enumerate() {
                    high[lane] += i32::from(key[0]) * i32::from(h[0]) + i32::from(key[1]) * i32::from(h[1]);
                    low[lane] += i32::from(key[0]) * i32::from(l[0]) + i32::from(key[1]) * i32::from(l[1]);
                }
            }
            *out = rescale_halves([high, low], &[keys.mantissa as i32; LANES], exponents, query.exponent);
        }
    }
}

/// `silu(x) = x sigmoid(x)`.
#[inline(always)]
pub(super) fn silu(gate: &[i32], out: &mut [i32]) {
    for (out, &gate) in out.iter_mut().zip(gate) {
        *out = round_shift(i64::from(gate) * i64::from(sigmoid(gate)), WEIGHT_BITS) as i32;
    }
}

/// `2^(score - max)`.
#[inline(always)]
pub(super) fn softmax_weights(scores: &[i32], max: i32, out: &mut [u32]) {
    for (out, &score) in out.iter_mut().zip(scores) {
        *out = weight(score, max);
    }
}

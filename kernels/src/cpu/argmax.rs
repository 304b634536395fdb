//! The largest output of a matrix product without the outputs: most need only half of the product.
//!
//! With activations `a = 256 high + low`, an output's sum is at most `256 sum(w high) + |w| |low|` (Cauchy and Schwarz). Where that is
//! below an output that is already known exactly, the low half is never multiplied. The answer does not depend on which those are.

use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use super::groups::GroupSums;
use super::packed::{LANES, PackedLinear};
use super::planes::{PlaneRow, Planes};
use super::simd::{Bound, GroupedPanel, Panel, Simd, Sixteen};
use crate::formats::{RESIDUAL_BITS, TokenId};
use crate::pool::Pool;
use crate::rounding::{isqrt, rescale, rescale_wide};

/// Rows whose bests are kept on the stack.
const ROWS: usize = 8;

/// The output with the largest value for each row, the lowest of equals.
pub(super) fn argmax<S: Simd>(
    simd: S,
    pool: &Pool,
    x: &Planes,
    weights: &PackedLinear,
    out: &mut Vec<TokenId>,
) {
    let sums = weights.has_groups().then(|| GroupSums::new(x));
    let norms = if sums.is_some() { &[] } else { weights.norms() };
    let job = Job { simd, weights, norms, sums, rows: rows(x) };
    let bests: Vec<AtomicU64> = job.rows.iter().map(|_| AtomicU64::new(0)).collect();
    let group = S::STREAMS;
    let groups = weights.panels().div_ceil(group);
    let one = |i: usize| {
        let first = i * group;
        simd.run(
            #[inline(always)]
            || match weights.panels() - first {
                4.. if group >= 4 => job.panels::<4>(first, &bests),
                left => (first..first + left.min(group)).for_each(|panel| job.panels::<1>(panel, &bests)),
            },
        );
    };
    if pool.threads() > 1 {
        pool.run(|| (0..groups).into_par_iter().for_each(one));
    } else {
        (0..groups).for_each(one);
    }
    out.clear();
    out.extend(bests.iter().map(|best| token(best.load(Ordering::Relaxed))));
}

/// Orders values, then the lowest index: the larger key is the better choice. Never zero.
const fn key(value: i32, index: usize) -> u64 {
    ((value as i64 - i32::MIN as i64) as u64) << 32 | (u32::MAX - index as u32) as u64
}

/// The value of a key; of none the lowest.
const fn value(key: u64) -> i32 {
    ((key >> 32) as i64 + i32::MIN as i64) as i32
}

const fn token(key: u64) -> TokenId {
    TokenId(u32::MAX - key as u32)
}

/// A row and the length of its low half, rounded up.
#[derive(Clone, Copy)]
struct BoundedRow<'a> {
    index: usize,
    row: PlaneRow<'a>,
    low_norm: i32,
}

fn rows(x: &Planes) -> Vec<BoundedRow<'_>> {
    let bounded = |i| {
        let row = x.plane(i);
        let squares: u64 = row.low.iter().map(|&v| u64::from(v.unsigned_abs()).pow(2)).sum();
        BoundedRow { index: i, row, low_norm: norm(squares) }
    };
    (0..x.rows()).map(bounded).collect()
}

/// A square root, rounded up: for sums of up to `131,071 * 128^2` below `2^16`.
pub(super) fn norm(squares: u64) -> i32 {
    isqrt(u128::from(squares)) as i32 + 1
}

struct Job<'a, S> {
    simd: S,
    weights: &'a PackedLinear,
    /// None of weights with groups: their bounds are the outputs.
    norms: &'a [Sixteen],
    sums: Option<GroupSums>,
    rows: Vec<BoundedRow<'a>>,
}

impl<S: Simd> Job<'_, S> {
    /// `P` panels for all rows.
    #[inline(always)]
    fn panels<const P: usize>(&self, panel: usize, bests: &[AtomicU64]) {
        for (rows, bests) in
            self.rows.chunks(S::BOUND_ROWS.min(ROWS)).zip(bests.chunks(S::BOUND_ROWS.min(ROWS)))
        {
            match rows.len() {
                6.. => {
                    self.tile::<P, 6>(panel, &rows[..6], &bests[..6]);
                    (6..rows.len()).for_each(|i| self.tile::<P, 1>(panel, &rows[i..=i], &bests[i..=i]));
                }
                4.. => {
                    self.tile::<P, 4>(panel, &rows[..4], &bests[..4]);
                    (4..rows.len()).for_each(|i| self.tile::<P, 1>(panel, &rows[i..=i], &bests[i..=i]));
                }
                3 => self.tile::<P, 3>(panel, rows, bests),
                2 => self.tile::<P, 2>(panel, rows, bests),
                _ => self.tile::<P, 1>(panel, rows, bests),
            }
        }
    }

    #[inline(always)]
    fn tile<const P: usize, const T: usize>(
        &self,
        panel: usize,
        rows: &[BoundedRow<'_>],
        bests: &[AtomicU64],
    ) {
        let mut bounds: [[Sixteen; T]; P] = [[[0; LANES]; T]; P];
        let panels: [Panel<'_>; P] = core::array::from_fn(|p| {
            let (blocks, scales) = self.weights.panel(panel + p);
            Panel { blocks, scales }
        });
        if let Some(sums) = &self.sums {
            let groups = |p| self.weights.groups(panel + p).unwrap_or_default();
            let panels = core::array::from_fn(|p| GroupedPanel { panel: panels[p], groups: groups(p) });
            let rows = core::array::from_fn(|t| sums.with(rows[t].index, rows[t].row));
            self.simd.grouped(panels, rows, &mut bounds);
        } else {
            let panels = core::array::from_fn(|p| Bound { panel: panels[p], norms: &self.norms[panel + p] });
            // Loops: `from_fn` is not compiled into what calls it here.
            let (mut planes, mut low_norms) = ([rows[0].row; T], [0; T]);
            for t in 0..T {
                (planes[t], low_norms[t]) = (rows[t].row, rows[t].low_norm);
            }
            self.simd.bounds(panels, planes, low_norms, &mut bounds);
        }
        for (p, bounds) in bounds.iter().enumerate() {
            for (t, bounds) in bounds.iter().enumerate() {
                self.improve(rows[t].row, (panel + p) * LANES, bounds, &bests[t]);
            }
        }
    }

    /// Computes the outputs that could be better than the best.
    #[inline(always)]
    fn improve(&self, row: PlaneRow<'_>, first: usize, bounds: &Sixteen, best: &AtomicU64) {
        let known = best.load(Ordering::Relaxed);
        // Zero is no key: then everything could be.
        if known != 0 && bounds.iter().copied().fold(i32::MIN, i32::max) < value(known) {
            return;
        }
        for (lane, &bound) in bounds.iter().enumerate().take(self.weights.outputs().saturating_sub(first)) {
            let known = best.load(Ordering::Relaxed);
            if known == 0 || bound >= value(known) {
                best.fetch_max(key(self.exact(row, first + lane), first + lane), Ordering::Relaxed);
            }
        }
    }

    fn exact(&self, row: PlaneRow<'_>, output: usize) -> i32 {
        let (weights, mantissa, exponent) = self.weights.row(output);
        if let Some(weights) = self.weights.grouped_row(output) {
            let sum = weights.zip(row.values).map(|(w, &a)| i64::from(w) * i64::from(a)).sum();
            return rescale_wide(sum, mantissa, exponent + row.exponent + RESIDUAL_BITS as i32);
        }
        let sum = weights.zip(row.values).map(|(w, &a)| i64::from(w) * i64::from(a)).sum();
        rescale(sum, mantissa, exponent + row.exponent + RESIDUAL_BITS as i32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_order_values_and_then_the_lowest_index() {
        assert!(key(1, 5) > key(0, 0) && key(-1, 3) > key(-1, 4) && key(-i32::MAX, 1 << 20) > 0);
        for (v, i) in [(0, 0), (i32::MAX, 7), (-i32::MAX, 1 << 20)] {
            assert_eq!((value(key(v, i)), token(key(v, i))), (v, TokenId(i as u32)));
        }
    }
}

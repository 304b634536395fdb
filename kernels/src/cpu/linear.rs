//! The matrix product: tiles of panels by rows, shared out by panels.

use core::ops::Range;

use super::groups::GroupSums;
use super::packed::{LANES, PackedLinear};
use super::planes::Planes;
use super::shared::{Columns, for_each_group};
use super::simd::{GroupedPanel, Panel, Simd, Sixteen};
use crate::buffers::Residual;
use crate::pool::Pool;

/// Products below which a second thread costs more than it brings.
const WORTH_SHARING: usize = 1 << 18;

/// Fills `out`, which has been shaped.
pub(super) fn linear<S: Simd>(simd: S, pool: &Pool, x: &Planes, weights: &PackedLinear, out: &mut Residual) {
    if weights.has_groups() {
        let job = GroupedJob { simd, x, weights, sums: GroupSums::new(x) };
        all(simd, pool, &job, x, weights, out);
    } else {
        all(simd, pool, &Job { simd, x, weights }, x, weights, out);
    }
}

/// Computes a tile of `P` panels by `T` rows.
trait Tile<S: Simd>: Sync {
    fn tile<const P: usize, const T: usize>(&self, panel: usize, row: usize, out: &mut [[Sixteen; T]; P]);
}

fn all<S: Simd>(
    simd: S,
    pool: &Pool,
    job: &impl Tile<S>,
    x: &Planes,
    weights: &PackedLinear,
    out: &mut Residual,
) {
    let share = x.rows() * weights.inputs() * weights.outputs() >= WORTH_SHARING;
    for_each_group(pool, share, out.rows_mut(), weights.outputs(), S::STREAMS * LANES, |column, columns| {
        let first = column / LANES;
        simd.run(
            #[inline(always)]
            || match weights.panels() - first {
                4.. if S::STREAMS >= 4 => panels::<S, 4>(job, x.rows(), first, columns),
                3 if S::STREAMS >= 4 => {
                    panels::<S, 2>(job, x.rows(), first, columns);
                    panels::<S, 1>(job, x.rows(), first + 2, columns);
                }
                2.. if S::STREAMS >= 2 => panels::<S, 2>(job, x.rows(), first, columns),
                _ => panels::<S, 1>(job, x.rows(), first, columns),
            },
        );
    });
}

/// `P` panels for all rows.
#[inline(always)]
fn panels<S: Simd, const P: usize>(job: &impl Tile<S>, rows: usize, panel: usize, out: &mut Columns<'_>) {
    let left = rows - rows % S::ROWS;
    tiles_of::<S, P>(job, S::ROWS, panel, 0..left, out);
    tiles_of::<S, P>(job, rows - left, panel, left..rows, out);
}

/// Tiles of `count` rows, at most 4.
#[inline(always)]
fn tiles_of<S: Simd, const P: usize>(
    job: &impl Tile<S>,
    count: usize,
    panel: usize,
    rows: Range<usize>,
    out: &mut Columns<'_>,
) {
    match count {
        4.. => tiles::<S, P, 4>(job, panel, rows, out),
        3 => tiles::<S, P, 3>(job, panel, rows, out),
        2 => tiles::<S, P, 2>(job, panel, rows, out),
        _ => tiles::<S, P, 1>(job, panel, rows, out),
    }
}

#[inline(always)]
fn tiles<S: Simd, const P: usize, const T: usize>(
    job: &impl Tile<S>,
    panel: usize,
    rows: Range<usize>,
    out: &mut Columns<'_>,
) {
    let mut results: [[Sixteen; T]; P] = [[[0; LANES]; T]; P];
    for row in rows.step_by(T) {
        job.tile(panel, row, &mut results);
        for (p, rows) in results.iter().enumerate() {
            for (t, values) in rows.iter().enumerate() {
                out.write(row + t, (panel + p) * LANES, values);
            }
        }
    }
}

/// Weights with a scale per output channel.
struct Job<'a, S> {
    simd: S,
    x: &'a Planes,
    weights: &'a PackedLinear,
}

impl<S: Simd> Tile<S> for Job<'_, S> {
    #[inline(always)]
    fn tile<const P: usize, const T: usize>(&self, panel: usize, row: usize, out: &mut [[Sixteen; T]; P]) {
        let panels = core::array::from_fn(|p| {
            let (blocks, scales) = self.weights.panel(panel + p);
            Panel { blocks, scales }
        });
        // A loop: `from_fn` is not compiled into what calls it here.
        let mut rows = [self.x.plane(row); T];
        for (t, plane) in rows.iter_mut().enumerate().skip(1) {
            *plane = self.x.plane(row + t);
        }
        self.simd.linear(panels, rows, out);
    }
}

/// Weights with groups.
struct GroupedJob<'a, S> {
    simd: S,
    x: &'a Planes,
    weights: &'a PackedLinear,
    sums: GroupSums,
}

impl<S: Simd> Tile<S> for GroupedJob<'_, S> {
    #[inline(always)]
    fn tile<const P: usize, const T: usize>(&self, panel: usize, row: usize, out: &mut [[Sixteen; T]; P]) {
        let panels = core::array::from_fn(|p| {
            let (blocks, scales) = self.weights.panel(panel + p);
            let groups = self.weights.groups(panel + p).unwrap_or_default();
            GroupedPanel { panel: Panel { blocks, scales }, groups }
        });
        let rows = core::array::from_fn(|t| self.sums.with(row + t, self.x.plane(row + t)));
        self.simd.grouped(panels, rows, out);
    }
}

//! The matrix product: tiles of panels by rows, shared out by panels.

use core::ops::Range;

use super::packed::{LANES, PackedLinear};
use super::planes::Planes;
use super::shared::{Columns, for_each_group};
use super::simd::{Panel, Simd, Sixteen};
use crate::buffers::Residual;
use crate::pool::Pool;

/// Products below which a second thread costs more than it brings.
const WORTH_SHARING: usize = 1 << 18;

/// Fills `out`, which has been shaped.
pub(super) fn linear<S: Simd>(simd: S, pool: &Pool, x: &Planes, weights: &PackedLinear, out: &mut Residual) {
    let share = x.rows() * weights.inputs() * weights.outputs() >= WORTH_SHARING;
    let job = Job { simd, x, weights };
    for_each_group(pool, share, out.rows_mut(), weights.outputs(), S::STREAMS * LANES, |column, columns| {
        let first = column / LANES;
        simd.run(
            #[inline(always)]
            || match weights.panels() - first {
                4.. if S::STREAMS >= 4 => job.panels::<4>(first, columns),
                3 if S::STREAMS >= 4 => {
                    job.panels::<2>(first, columns);
                    job.panels::<1>(first + 2, columns);
                }
                2.. if S::STREAMS >= 2 => job.panels::<2>(first, columns),
                _ => job.panels::<1>(first, columns),
            },
        );
    });
}

struct Job<'a, S> {
    simd: S,
    x: &'a Planes,
    weights: &'a PackedLinear,
}

impl<S: Simd> Job<'_, S> {
    /// `P` panels for all rows.
    #[inline(always)]
    fn panels<const P: usize>(&self, panel: usize, out: &mut Columns<'_>) {
        let rows = self.x.rows();
        let left = rows - rows % S::ROWS;
        self.tiles_of::<P>(S::ROWS, panel, 0..left, out);
        self.tiles_of::<P>(rows - left, panel, left..rows, out);
    }

    /// Tiles of `count` rows, at most 4.
    #[inline(always)]
    fn tiles_of<const P: usize>(
        &self,
        count: usize,
        panel: usize,
        rows: Range<usize>,
        out: &mut Columns<'_>,
    ) {
        match count {
            4.. => self.tiles::<P, 4>(panel, rows, out),
            3 => self.tiles::<P, 3>(panel, rows, out),
            2 => self.tiles::<P, 2>(panel, rows, out),
            _ => self.tiles::<P, 1>(panel, rows, out),
        }
    }

    #[inline(always)]
    fn tiles<const P: usize, const T: usize>(&self, panel: usize, rows: Range<usize>, out: &mut Columns<'_>) {
        let mut results: [[Sixteen; T]; P] = [[[0; LANES]; T]; P];
        let panels = core::array::from_fn(|p| {
            let (blocks, scales) = self.weights.panel(panel + p);
            Panel { blocks, scales }
        });
        for row in rows.step_by(T) {
            self.simd.linear(panels, core::array::from_fn(|t| self.x.plane(row + t)), &mut results);
            for (p, rows) in results.iter().enumerate() {
                for (t, values) in rows.iter().enumerate() {
                    out.write(row + t, (panel + p) * LANES, values);
                }
            }
        }
    }
}

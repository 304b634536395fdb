//! The matrix product: tiles of panels by rows, shared out by panels.

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
        match weights.panels() - first {
            4.. if S::STREAMS >= 4 => job.panels::<4>(first, columns),
            3 if S::STREAMS >= 4 => {
                job.panels::<2>(first, columns);
                job.panels::<1>(first + 2, columns);
            }
            2.. if S::STREAMS >= 2 => job.panels::<2>(first, columns),
            _ => job.panels::<1>(first, columns),
        }
    });
}

struct Job<'a, S> {
    simd: S,
    x: &'a Planes,
    weights: &'a PackedLinear,
}

impl<S: Simd> Job<'_, S> {
    /// `P` panels for all rows.
    fn panels<const P: usize>(&self, panel: usize, out: &mut Columns<'_>) {
        let rows = self.x.rows();
        let mut row = 0;
        while row < rows {
            let count = S::ROWS.min(rows - row);
            match count {
                4.. => self.tile::<P, 4>(panel, row, out),
                3 => self.tile::<P, 3>(panel, row, out),
                2 => self.tile::<P, 2>(panel, row, out),
                _ => self.tile::<P, 1>(panel, row, out),
            }
            row += count;
        }
    }

    fn tile<const P: usize, const T: usize>(&self, panel: usize, row: usize, out: &mut Columns<'_>) {
        let mut results: [[Sixteen; T]; P] = [[[0; LANES]; T]; P];
        let panels = core::array::from_fn(|p| {
            let (blocks, scales) = self.weights.panel(panel + p);
            Panel { blocks, scales }
        });
        self.simd.linear(panels, core::array::from_fn(|t| self.x.plane(row + t)), &mut results);
        for (p, rows) in results.iter().enumerate() {
            for (t, values) in rows.iter().enumerate() {
                out.write(row + t, (panel + p) * LANES, values);
            }
        }
    }
}

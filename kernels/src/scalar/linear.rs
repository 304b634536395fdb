//! int8 x int16 matrix product with exact sums, requantised per output channel.

use rayon::prelude::*;

use crate::backend::LinearWeights;
use crate::bounds::BoundsError;
use crate::buffers::{Activations, Residual};
use crate::formats::{GROUP_INPUTS, RESIDUAL_BITS, Scale};
use crate::pool::Pool;
use crate::rounding::{rescale, rescale_wide};

/// Products that fit an `i32` accumulator: `256 * 32,512 * 127 < 2^31`.
const BLOCK: usize = 256;
/// Output channels that one task computes when rows are too few to share out.
const OUTPUTS_PER_TASK: usize = 64;

/// An int8 matrix `[outputs, inputs]` with a scale per output channel, perhaps in groups.
#[derive(Clone, Debug)]
pub struct Linear {
    weights: Vec<i8>,
    scales: Vec<Scale>,
    inputs: usize,
    groups: Option<Vec<u8>>,
}

impl Linear {
    /// Checks the shape against the accumulator bounds and the weights against their range.
    pub fn new(weights: LinearWeights<'_>) -> Result<Self, BoundsError> {
        weights.check()?;
        let LinearWeights { inputs, bytes, scales, groups, .. } = weights;
        let weights = bytes.iter().map(|&b| (b ^ 0x80) as i8).collect();
        Ok(Self { weights, scales: scales.to_vec(), inputs, groups: groups.map(<[u8]>::to_vec) })
    }

    /// Columns.
    pub const fn inputs(&self) -> usize {
        self.inputs
    }

    /// Rows.
    pub const fn outputs(&self) -> usize {
        self.scales.len()
    }

    /// The weights and the scale of one output channel.
    pub fn row(&self, output: usize) -> (&[i8], Scale) {
        (&self.weights[output * self.inputs..][..self.inputs], self.scales[output])
    }

    /// The multipliers of one output channel's groups, if it has groups.
    pub fn groups(&self, output: usize) -> Option<&[u8]> {
        let count = self.inputs.div_ceil(GROUP_INPUTS);
        self.groups.as_ref().map(|groups| &groups[output * count..][..count])
    }

    pub(super) fn output(&self, output: usize, activations: &[i16], exponent: i32) -> i32 {
        let (weights, scale) = self.row(output);
        let exponent = exponent + scale.exponent() + RESIDUAL_BITS as i32;
        match self.groups(output) {
            None => rescale(dot(weights, activations), scale.mantissa(), exponent),
            Some(groups) => {
                rescale_wide(grouped_dot(weights, groups, activations), scale.mantissa(), exponent)
            }
        }
    }
}

/// The exact dot product of a weight row and an activation row of the same length, at most [`MAX_INPUTS`](crate::bounds::MAX_INPUTS).
pub fn dot(weights: &[i8], activations: &[i16]) -> i64 {
    let block = |(w, a): (&[i8], &[i16])| {
        let sum: i32 = w.iter().zip(a).map(|(&w, &a)| i32::from(w) * i32::from(a)).sum();
        i64::from(sum)
    };
    weights.chunks(BLOCK).zip(activations.chunks(BLOCK)).map(block).sum()
}

/// The same with each group's part multiplied: a part is below `2^27`, their sum below `2^47`.
pub fn grouped_dot(weights: &[i8], groups: &[u8], activations: &[i16]) -> i64 {
    let parts = weights.chunks(GROUP_INPUTS).zip(activations.chunks(GROUP_INPUTS));
    let part = |((w, a), &multiplier): ((&[i8], &[i16]), &u8)| {
        let sum: i32 = w.iter().zip(a).map(|(&w, &a)| i32::from(w) * i32::from(a)).sum();
        i64::from(sum) * i64::from(multiplier)
    };
    parts.zip(groups).map(part).sum()
}

/// Fills `out`, which has been shaped. Many rows are shared out by rows, few rows by output channels.
pub(super) fn linear(pool: &Pool, x: &Activations, weights: &Linear, out: &mut Residual) {
    let outputs = weights.outputs();
    let rows = x.rows();
    let some_rows = |first: usize, out: &mut [i32]| {
        // Output channels outside: each weight row is read once per block of rows.
        for output in 0..outputs {
            for (i, row) in out.chunks_exact_mut(outputs).enumerate() {
                row[output] = weights.output(output, x.row(first + i), x.exponent(first + i));
            }
        }
    };
    let threads = pool.threads();
    if threads == 1 {
        return some_rows(0, out.rows_mut());
    }
    pool.run(|| {
        if rows >= 2 * threads {
            let per_task = rows.div_ceil(threads);
            out.rows_mut()
                .par_chunks_mut(per_task * outputs)
                .enumerate()
                .for_each(|(task, out)| some_rows(task * per_task, out));
        } else {
            for i in 0..rows {
                let (row, exponent) = (x.row(i), x.exponent(i));
                out.row_mut(i).par_chunks_mut(OUTPUTS_PER_TASK).enumerate().for_each(|(task, out)| {
                    for (j, out) in out.iter_mut().enumerate() {
                        *out = weights.output(task * OUTPUTS_PER_TASK + j, row, exponent);
                    }
                });
            }
        }
    });
}

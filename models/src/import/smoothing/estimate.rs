//! How far rounding weights moves a place's outputs, estimated in integers: the estimate decides bytes of a bundle.

use metis_kernels::formats::BYTE_LIMIT;
use metis_kernels::rounding::{round_div, round_shift};
use metis_kernels::weights::dyadic;
use rayon::prelude::*;

use super::folds::scaled;
use super::places::Place;
use super::{LARGEST_EXPONENT, Squares};
use crate::bundle::{Manifest, TensorSpec};
use crate::import::names::{Part, source};
use crate::import::{Checkpoint, ImportError};

/// Fractional bits of a weight in steps of its row.
const STEP_BITS: u32 = 12;
/// Bits of the largest mean square of a place, before exponents.
const SQUARE_BITS: u32 = 32;
/// Bits of the largest row's maximum, after exponents.
const MAXIMUM_BITS: i32 = 20;
/// Bits that the sum of a row loses so that no sum of rows overflows.
const ROW_SHIFT: u32 = 24;
/// One over the variance of a rounded value, in squares of the largest root mean square of its head: a step is the head's maximum over
/// 127, its variance a twelfth of its square, and the maximum is taken to be twice that root.
const VALUE_VARIANCE: u64 = 3 * 127 * 127;

/// A matrix as the checkpoint stores it, with the bundle's rows.
#[derive(Debug)]
pub(super) struct Singles {
    bits: Vec<u32>,
    outputs: usize,
    inputs: usize,
    /// The first column and the number of columns of a matrix that is stored as `[inputs, columns]`.
    columns: Option<(usize, usize)>,
    /// Otherwise the first row.
    first: usize,
}

impl Singles {
    /// Reads a matrix. The order of its rows may be another than the bundle's.
    pub(super) fn read(
        checkpoint: &Checkpoint,
        m: &Manifest,
        spec: &TensorSpec,
    ) -> Result<Option<Self>, ImportError> {
        let Some(source) = source(&checkpoint.shape, m, spec) else { return Ok(None) };
        let (columns, first) = match source.part {
            Part::Columns(first) => (Some((first, source.shape[1])), 0),
            Part::From(first) => (None, first),
            _ => (None, 0),
        };
        let bits = checkpoint.bits(&source.name, &source.shape)?;
        Ok(Some(Self { bits, outputs: spec.shape[0], inputs: spec.shape[1], columns, first }))
    }

    /// The bits of a row, each multiplied by two to its exponent.
    fn row(&self, output: usize, exponents: &[i32]) -> Vec<u32> {
        let scale = |(&bits, &exponent): (&u32, &i32)| scaled(bits, exponent);
        match self.columns {
            Some((first, width)) => {
                self.bits[first + output..].iter().step_by(width).zip(exponents).map(scale).collect()
            }
            None => {
                self.bits[(self.first + output) * self.inputs..].iter().zip(exponents).map(scale).collect()
            }
        }
    }

    /// The exponent of the largest magnitude, such that all are below two to its power; `None` of a zero matrix.
    fn exponent(&self) -> Option<i32> {
        let largest = self.bits.iter().map(|bits| bits & 0x7fff_ffff).max()?;
        let (n, exponent) = dyadic(largest)?;
        (n != 0).then(|| exponent + 64 - n.leading_zeros() as i32)
    }
}

/// What a place's columns carry: all means in one unit.
#[derive(Debug)]
pub(super) struct Load<'a> {
    place: &'a Place,
    /// Of each column of the readers.
    inputs: Vec<u64>,
    /// Of each channel of the values, in the place where they write.
    values: Vec<u64>,
    /// Above all magnitudes of all readers.
    exponent: i32,
}

impl<'a> Load<'a> {
    /// The load of the place with this index, whose readers are these.
    pub(super) fn new(place: &'a Place, index: usize, squares: &Squares, readers: &[Singles]) -> Self {
        let inputs = &squares.inputs[index];
        let values = match place.value_head() {
            Some(_) => squares.values[place.layer].as_slice(),
            None => &[],
        };
        let largest = inputs.iter().chain(values).max().copied().unwrap_or(0);
        let shift = (u128::BITS - largest.leading_zeros()).saturating_sub(SQUARE_BITS);
        let reduced = |squares: &[u128]| squares.iter().map(|square| (square >> shift) as u64).collect();
        Self {
            place,
            inputs: reduced(inputs),
            values: reduced(values),
            exponent: readers.iter().filter_map(Singles::exponent).max().unwrap_or(0),
        }
    }

    /// The estimated squares of the errors of the readers' outputs, summed over all outputs, with the exponents of the channels; `None` if
    /// a number would overflow.
    ///
    /// The unit is the place's own: estimates of one place can be compared with each other.
    pub(super) fn error(&self, readers: &[Singles], exponents: &[i32]) -> Option<u128> {
        let columns: Vec<i32> =
            (0..self.inputs.len()).map(|column| exponents[self.place.channel(column)]).collect();
        // The writer divides: what a scaled column carries shrinks.
        let shrunk = |(square, exponent): (&u64, &i32)| square << (2 * (LARGEST_EXPONENT - exponent));
        let carried: Vec<u64> = self.inputs.iter().zip(&columns).map(shrunk).collect();
        let rounded = self.value_noise(exponents);
        let row_error = |reader: &Singles, output: usize| {
            let row = reader.row(output, &columns);
            self.row_error(&row, &carried, &rounded)
        };
        let errors = readers.iter().map(|reader| {
            (0..reader.outputs).into_par_iter().map(|output| row_error(reader, output)).sum::<Option<u128>>()
        });
        errors.sum()
    }

    /// The variance of each column that comes from rounding values to int8 by the maximum of their head; empty in other places.
    fn value_noise(&self, exponents: &[i32]) -> Vec<u64> {
        let Some(head_dim) = self.place.value_head() else { return Vec::new() };
        let shrunk = |(square, exponent): (&u64, &i32)| square << (2 * (LARGEST_EXPONENT - exponent));
        let heads: Vec<u64> = self
            .values
            .chunks(head_dim)
            .zip(exponents.chunks(head_dim))
            .map(|(values, exponents)| {
                values.iter().zip(exponents).map(shrunk).max().unwrap_or(0) / VALUE_VARIANCE
            })
            .collect();
        (0..self.inputs.len()).map(|column| heads[self.place.channel(column) / head_dim]).collect()
    }

    /// The error of one output.
    fn row_error(&self, row: &[u32], carried: &[u64], rounded: &[u64]) -> Option<u128> {
        // The order of magnitudes is the order of their bit patterns, and infinity is above all.
        let (max, max_exponent) = dyadic(row.iter().map(|bits| bits & 0x7fff_ffff).max()?)?;
        if max == 0 {
            return Some(0);
        }
        let mut sum = 0u128;
        for (j, (&bits, &carried)) in row.iter().zip(carried).enumerate() {
            let (n, exponent) = dyadic(bits)?;
            let drop = max_exponent - exponent;
            // |n| * 127 * 2^12 < 2^43, and max >= 2^23 once exponents differ: beyond 32 it is nothing.
            let steps = if drop > 32 { 0 } else { round_div(n * (BYTE_LIMIT << STEP_BITS), max << drop) };
            let error = steps - (round_shift(steps, STEP_BITS) << STEP_BITS);
            sum += u128::from((error * error) as u64) * u128::from(carried);
            if let Some(&noise) = rounded.get(j) {
                sum += u128::from((steps * steps) as u64) * u128::from(noise);
            }
        }
        // Below 2^20 for the exponents that there are: the place's exponent is above every magnitude before them.
        let drop = self.exponent + LARGEST_EXPONENT - MAXIMUM_BITS - max_exponent;
        let maximum = u128::from(max as u64).checked_shr(drop.max(0).unsigned_abs()).unwrap_or(0);
        Some((sum >> ROW_SHIFT) * maximum * maximum)
    }
}

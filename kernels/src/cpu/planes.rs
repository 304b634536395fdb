//! Activations as the SIMD kernels read them: int16 values and, for byte dot products, their two halves.

use rayon::prelude::*;

use super::isa::Isa;
use super::packed::DEPTH;
use crate::backend::BackendError;
use crate::extent::Extent;
use crate::pool::Pool;

/// `[rows, width]` of `i16` with an exponent of two per row, also as halves `a = 256 * high + low`.
///
/// Rows are padded with zeros to whole blocks.
#[derive(Clone, Debug)]
pub struct Planes {
    values: Vec<i16>,
    high: Vec<i8>,
    low: Vec<i8>,
    heads: Vec<Head>,
    extent: Extent,
    /// Attention's heads before they are quantised; empty until it is called.
    scratch: Vec<i32>,
}

/// What a kernel needs to know of a row besides its values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Head {
    exponent: i32,
    high_sum: i32,
    low_sum: i32,
}

/// One row, padded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlaneRow<'a> {
    pub(crate) values: &'a [i16],
    pub(crate) high: &'a [i8],
    pub(crate) low: &'a [i8],
    /// The sums of `high` and `low`: a kernel that reads weights as `w + 128` has counted them 128 times too often.
    pub(crate) high_sum: i32,
    pub(crate) low_sum: i32,
    pub(crate) exponent: i32,
}

/// Splits values into halves in the range of a signed byte; returns the sums of the halves.
#[inline(always)]
pub(crate) fn split(values: &[i16], high: &mut [i8], low: &mut [i8]) -> (i32, i32) {
    let (mut high_sum, mut low_sum) = (0, 0);
    for ((&value, high), low) in values.iter().zip(high).zip(low) {
        *low = value as i8;
        *high = ((value - i16::from(*low)) >> 8) as i8;
        high_sum += i32::from(*high);
        low_sum += i32::from(*low);
    }
    (high_sum, low_sum)
}

impl Planes {
    pub(super) fn new(rows: usize, width: usize) -> Self {
        let padded = width.next_multiple_of(DEPTH);
        Self {
            values: vec![0; rows * padded],
            high: vec![0; rows * padded],
            low: vec![0; rows * padded],
            heads: vec![Head::default(); rows],
            extent: Extent::new(rows, width),
            scratch: Vec::new(),
        }
    }

    const fn padded(&self) -> usize {
        self.extent.width().next_multiple_of(DEPTH)
    }

    pub(super) const fn extent(&self) -> &Extent {
        &self.extent
    }

    pub(super) const fn width(&self) -> usize {
        self.extent.width()
    }

    /// Rows in use.
    pub const fn rows(&self) -> usize {
        self.extent.rows()
    }

    /// One row.
    pub fn row(&self, row: usize) -> &[i16] {
        &self.values[row * self.padded()..][..self.width()]
    }

    /// The exponent of a row: its values are `row * 2^exponent`.
    pub fn exponent(&self, row: usize) -> i32 {
        self.heads[row].exponent
    }

    #[inline(always)]
    pub(super) fn plane(&self, row: usize) -> PlaneRow<'_> {
        let padded = self.padded();
        let Head { exponent, high_sum, low_sum } = self.heads[row];
        PlaneRow {
            values: &self.values[row * padded..][..padded],
            high: &self.high[row * padded..][..padded],
            low: &self.low[row * padded..][..padded],
            high_sum,
            low_sum,
            exponent,
        }
    }

    pub(super) fn start(
        &mut self,
        kernel: &'static str,
        rows: usize,
        width: usize,
    ) -> Result<(), BackendError> {
        self.extent.start(kernel, rows, width)
    }

    pub(super) fn checked_row(&self, kernel: &'static str, row: usize) -> Result<&[i16], BackendError> {
        self.extent.expect_row(kernel, row)?;
        Ok(self.row(row))
    }

    /// Replaces the contents by whole rows.
    pub(super) fn fill(&mut self, isa: Isa, values: &[i16], exponents: &[i32]) -> Result<(), BackendError> {
        self.extent.start_whole("write_activations", values.len())?;
        self.extent.expect_rows("write_activations", exponents.len())?;
        let width = self.width();
        self.for_each_row(&Pool::ALONE, isa, |i, row| {
            row.copy_from_slice(&values[i * width..][..width]);
            exponents[i]
        });
        Ok(())
    }

    /// Room for so many numbers that are not quantised yet.
    pub(super) fn scratch(&mut self, length: usize) -> &mut [i32] {
        if self.scratch.len() < length {
            self.scratch.resize(length, 0);
        }
        &mut self.scratch[..length]
    }

    /// Fills each row with `f(scratch row, values) -> exponent`.
    pub(super) fn for_each_scratch_row(
        &mut self,
        pool: &Pool,
        isa: Isa,
        f: impl Fn(&[i32], &mut [i16]) -> i32 + Sync,
    ) {
        let scratch = core::mem::take(&mut self.scratch);
        let width = self.width();
        self.for_each_row(pool, isa, |i, values| f(&scratch[i * width..][..width], values));
        self.scratch = scratch;
    }

    /// Fills each row with `f(row, values) -> exponent`.
    pub(super) fn for_each_row(
        &mut self,
        pool: &Pool,
        isa: Isa,
        f: impl Fn(usize, &mut [i16]) -> i32 + Sync,
    ) {
        let (padded, width, rows) = (self.padded(), self.width(), self.rows());
        let one = |i: usize, values: &mut [i16], high: &mut [i8], low: &mut [i8], head: &mut Head| {
            let exponent = f(i, &mut values[..width]);
            let (high_sum, low_sum) = isa.run(
                #[inline(always)]
                || split(values, high, low),
            );
            *head = Head { exponent, high_sum, low_sum };
        };
        let values = &mut self.values[..rows * padded];
        let (high, low) = (&mut self.high[..rows * padded], &mut self.low[..rows * padded]);
        let heads = &mut self.heads[..rows];
        if pool.threads() > 1 && rows > 1 {
            let rows = values
                .par_chunks_exact_mut(padded)
                .zip(high.par_chunks_exact_mut(padded))
                .zip(low.par_chunks_exact_mut(padded))
                .zip(heads)
                .enumerate();
            pool.run(|| rows.for_each(|(i, (((values, high), low), head))| one(i, values, high, low, head)));
        } else {
            for (i, head) in heads.iter_mut().enumerate() {
                let at = i * padded..(i + 1) * padded;
                one(i, &mut values[at.clone()], &mut high[at.clone()], &mut low[at], head);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::ACTIVATION_LIMIT;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn halves_are_the_value(value in -(ACTIVATION_LIMIT as i16)..=ACTIVATION_LIMIT as i16) {
            let (mut high, mut low) = ([0], [0]);
            prop_assert_eq!(split(&[value], &mut high, &mut low), (high[0].into(), low[0].into()));
            prop_assert_eq!(256 * i16::from(high[0]) + i16::from(low[0]), value);
            prop_assert!(high[0] >= -127);
        }
    }
}

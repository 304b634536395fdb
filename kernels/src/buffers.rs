//! Buffers of the CPU backends: row-major vectors that know how many rows are in use.

use rayon::prelude::*;

use crate::backend::{BackendError, SampleRequest};
use crate::bounds::{BoundsError, MAX_OUTPUTS, within};
use crate::extent::{Extent, mismatch};
use crate::formats::TokenId;
use crate::pool::Pool;
use crate::rounding::saturate32;

/// `x += y`, saturating.
#[inline(always)]
pub(crate) fn add_row(x: &mut [i32], y: &[i32]) {
    for (x, &y) in x.iter_mut().zip(y) {
        *x = saturate32(i64::from(*x) + i64::from(y));
    }
}

/// A number for each channel, Q16.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bias(Vec<i32>);

impl Bias {
    /// Checks the width and that no number is `-2^31`.
    pub fn new(values: &[i32]) -> Result<Self, BoundsError> {
        within("bias width", values.len(), MAX_OUTPUTS)?;
        if values.contains(&i32::MIN) {
            return Err(BoundsError::Value { what: "bias" });
        }
        Ok(Self(values.to_vec()))
    }

    pub(crate) fn values(&self) -> &[i32] {
        &self.0
    }
}

/// `[rows, width]` of `i32` in Q16.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Residual {
    values: Vec<i32>,
    extent: Extent,
}

impl Residual {
    pub(crate) fn new(rows: usize, width: usize) -> Self {
        Self { values: vec![0; rows * width], extent: Extent::new(rows, width) }
    }

    /// Rows and channels.
    pub const fn extent(&self) -> &Extent {
        &self.extent
    }

    /// Rows in use.
    pub const fn rows(&self) -> usize {
        self.extent.rows()
    }

    /// Channels of a row.
    pub const fn width(&self) -> usize {
        self.extent.width()
    }

    /// One row.
    pub fn row(&self, row: usize) -> &[i32] {
        &self.values[row * self.width()..][..self.width()]
    }

    pub(crate) fn row_mut(&mut self, row: usize) -> &mut [i32] {
        let width = self.width();
        &mut self.values[row * width..][..width]
    }

    pub(crate) fn rows_mut(&mut self) -> &mut [i32] {
        let used = self.rows() * self.width();
        &mut self.values[..used]
    }

    pub(crate) fn checked_row(&self, kernel: &'static str, row: usize) -> Result<&[i32], BackendError> {
        self.extent.expect_row(kernel, row)?;
        Ok(self.row(row))
    }

    /// Makes room for the result of `kernel`.
    pub(crate) fn start(
        &mut self,
        kernel: &'static str,
        rows: usize,
        width: usize,
    ) -> Result<(), BackendError> {
        self.extent.start(kernel, rows, width)
    }

    /// Replaces the contents by whole rows.
    pub(crate) fn fill(&mut self, values: &[i32]) -> Result<(), BackendError> {
        self.extent.start_whole("write_residual", values.len())?;
        self.rows_mut().copy_from_slice(values);
        Ok(())
    }

    /// Copies rows of `x`.
    pub(crate) fn select(
        &mut self,
        kernel: &'static str,
        x: &Self,
        rows: &[usize],
    ) -> Result<(), BackendError> {
        self.start(kernel, rows.len(), x.width())?;
        for (i, &row) in rows.iter().enumerate() {
            self.row_mut(i).copy_from_slice(x.checked_row(kernel, row)?);
        }
        Ok(())
    }

    /// Chooses a token per request from rows of logits.
    pub(crate) fn sample(
        &self,
        requests: &[SampleRequest],
        out: &mut Vec<TokenId>,
    ) -> Result<(), BackendError> {
        out.clear();
        for request in requests {
            let row = self.checked_row("sample", request.row)?;
            out.push(match &request.mask {
                None => request.sampling.choose(row, request.position),
                Some(mask) => request
                    .sampling
                    .choose_among(row, mask, request.position)
                    .ok_or_else(|| mismatch("sample", "an allowed token".into(), "none".into()))?,
            });
        }
        Ok(())
    }

    pub(crate) fn for_each_row(&mut self, pool: &Pool, f: impl Fn(usize, &mut [i32]) + Sync) {
        let width = self.width();
        if pool.threads() > 1 && self.rows() > 1 {
            let rows = self.rows_mut().par_chunks_exact_mut(width).enumerate();
            pool.run(|| rows.for_each(|(i, row)| f(i, row)));
        } else {
            self.rows_mut().chunks_exact_mut(width).enumerate().for_each(|(i, row)| f(i, row));
        }
    }
}

/// `[rows, width]` of `i16` with an exponent of two per row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activations {
    values: Vec<i16>,
    exponents: Vec<i32>,
    extent: Extent,
}

impl Activations {
    pub(crate) fn new(rows: usize, width: usize) -> Self {
        Self { values: vec![0; rows * width], exponents: vec![0; rows], extent: Extent::new(rows, width) }
    }

    /// Rows and channels.
    pub const fn extent(&self) -> &Extent {
        &self.extent
    }

    /// Rows in use.
    pub const fn rows(&self) -> usize {
        self.extent.rows()
    }

    /// One row.
    pub fn row(&self, row: usize) -> &[i16] {
        &self.values[row * self.extent.width()..][..self.extent.width()]
    }

    /// The exponent of a row: its values are `row * 2^exponent`.
    pub fn exponent(&self, row: usize) -> i32 {
        self.exponents[row]
    }

    pub(crate) fn start(
        &mut self,
        kernel: &'static str,
        rows: usize,
        width: usize,
    ) -> Result<(), BackendError> {
        self.extent.start(kernel, rows, width)
    }

    pub(crate) fn checked_row(&self, kernel: &'static str, row: usize) -> Result<&[i16], BackendError> {
        self.extent.expect_row(kernel, row)?;
        Ok(self.row(row))
    }

    /// Replaces the contents by whole rows.
    pub(crate) fn fill(&mut self, values: &[i16], exponents: &[i32]) -> Result<(), BackendError> {
        self.extent.start_whole("write_activations", values.len())?;
        self.extent.expect_rows("write_activations", exponents.len())?;
        self.values[..values.len()].copy_from_slice(values);
        self.exponents[..exponents.len()].copy_from_slice(exponents);
        Ok(())
    }

    /// Fills each row with `f(row, values) -> exponent`.
    pub(crate) fn for_each_row(&mut self, pool: &Pool, f: impl Fn(usize, &mut [i16]) -> i32 + Sync) {
        let (rows, width) = (self.rows(), self.extent.width());
        let values = &mut self.values[..rows * width];
        let exponents = &mut self.exponents[..rows];
        if pool.threads() > 1 && exponents.len() > 1 {
            let rows = values.par_chunks_exact_mut(width).zip(exponents).enumerate();
            pool.run(|| rows.for_each(|(i, (row, exponent))| *exponent = f(i, row)));
        } else {
            let rows = values.chunks_exact_mut(width).zip(exponents).enumerate();
            rows.for_each(|(i, (row, exponent))| *exponent = f(i, row));
        }
    }
}

//! Buffers of the CPU backends: row-major vectors that know how many rows are in use.

use rayon::prelude::*;

use crate::backend::{BackendError, SampleRequest};
use crate::bounds::{BoundsError, MAX_OUTPUTS, within};
use crate::formats::TokenId;
use crate::pool::Pool;
use crate::rounding::saturate32;

pub(crate) fn mismatch(kernel: &'static str, expected: String, actual: String) -> BackendError {
    BackendError::Shape { kernel, expected, actual }
}

pub(crate) fn same_width(kernel: &'static str, expected: usize, actual: usize) -> Result<(), BackendError> {
    if expected == actual {
        Ok(())
    } else {
        Err(mismatch(kernel, format!("{expected} channels"), actual.to_string()))
    }
}

pub(crate) fn in_use(kernel: &'static str, row: usize, rows: usize) -> Result<(), BackendError> {
    if row < rows { Ok(()) } else { Err(mismatch(kernel, format!("a row below {rows}"), row.to_string())) }
}

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
    pub(crate) fn new(values: &[i32]) -> Result<Self, BoundsError> {
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
    rows: usize,
    width: usize,
}

impl Residual {
    pub(crate) fn new(rows: usize, width: usize) -> Self {
        Self { values: vec![0; rows * width], rows: 0, width }
    }

    /// Rows in use.
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// Channels of a row.
    pub const fn width(&self) -> usize {
        self.width
    }

    /// One row.
    pub fn row(&self, row: usize) -> &[i32] {
        &self.values[row * self.width..][..self.width]
    }

    pub(crate) fn row_mut(&mut self, row: usize) -> &mut [i32] {
        &mut self.values[row * self.width..][..self.width]
    }

    pub(crate) fn rows_mut(&mut self) -> &mut [i32] {
        &mut self.values[..self.rows * self.width]
    }

    pub(crate) fn checked_row(&self, kernel: &'static str, row: usize) -> Result<&[i32], BackendError> {
        in_use(kernel, row, self.rows)?;
        Ok(self.row(row))
    }

    /// Makes room for the result of `kernel`.
    pub(crate) fn start(
        &mut self,
        kernel: &'static str,
        rows: usize,
        width: usize,
    ) -> Result<(), BackendError> {
        let capacity = self.values.len().checked_div(self.width).unwrap_or(0);
        if width != self.width || rows > capacity {
            let expected = format!("room for [{rows}, {width}]");
            return Err(mismatch(kernel, expected, format!("a buffer of [{capacity}, {}]", self.width)));
        }
        self.rows = rows;
        Ok(())
    }

    pub(crate) fn expect(&self, kernel: &'static str, width: usize) -> Result<(), BackendError> {
        same_width(kernel, width, self.width)
    }

    /// Whole runs of `run` channels.
    pub(crate) fn expect_runs(&self, kernel: &'static str, run: usize) -> Result<(), BackendError> {
        if self.width.is_multiple_of(run) {
            Ok(())
        } else {
            Err(mismatch(kernel, format!("runs of {run} channels"), self.width.to_string()))
        }
    }

    /// If there is another, that it has the same rows and width.
    pub(crate) fn expect_twin(&self, kernel: &'static str, other: Option<&Self>) -> Result<(), BackendError> {
        other.map_or(Ok(()), |other| {
            other.expect(kernel, self.width)?;
            other.expect_rows(kernel, self.rows)
        })
    }

    /// Replaces the contents by whole rows.
    pub(crate) fn fill(&mut self, values: &[i32]) -> Result<(), BackendError> {
        self.start("write_residual", values.len() / self.width.max(1), self.width)?;
        let rows = self.rows_mut();
        if rows.len() != values.len() {
            return Err(mismatch("write_residual", "whole rows".into(), format!("{} values", values.len())));
        }
        rows.copy_from_slice(values);
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

    pub(crate) fn expect_rows(&self, kernel: &'static str, rows: usize) -> Result<(), BackendError> {
        if self.rows == rows {
            Ok(())
        } else {
            Err(mismatch(kernel, format!("{rows} rows"), self.rows.to_string()))
        }
    }

    pub(crate) fn for_each_row(&mut self, pool: &Pool, f: impl Fn(usize, &mut [i32]) + Sync) {
        let width = self.width;
        if pool.threads() > 1 && self.rows > 1 {
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
    rows: usize,
    width: usize,
}

impl Activations {
    pub(crate) fn new(rows: usize, width: usize) -> Self {
        Self { values: vec![0; rows * width], exponents: vec![0; rows], rows: 0, width }
    }

    /// Rows in use.
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// One row.
    pub fn row(&self, row: usize) -> &[i16] {
        &self.values[row * self.width..][..self.width]
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
        if width != self.width || rows > self.exponents.len() {
            let expected = format!("room for [{rows}, {width}]");
            let actual = format!("a buffer of [{}, {}]", self.exponents.len(), self.width);
            return Err(mismatch(kernel, expected, actual));
        }
        self.rows = rows;
        Ok(())
    }

    pub(crate) fn expect(&self, kernel: &'static str, width: usize) -> Result<(), BackendError> {
        same_width(kernel, width, self.width)
    }

    pub(crate) fn checked_row(&self, kernel: &'static str, row: usize) -> Result<&[i16], BackendError> {
        in_use(kernel, row, self.rows)?;
        Ok(self.row(row))
    }

    /// Replaces the contents by whole rows.
    pub(crate) fn fill(&mut self, values: &[i16], exponents: &[i32]) -> Result<(), BackendError> {
        self.start("write_activations", exponents.len(), self.width)?;
        if values.len() != self.rows * self.width {
            let expected = format!("{} values", self.rows * self.width);
            return Err(mismatch("write_activations", expected, values.len().to_string()));
        }
        self.values[..values.len()].copy_from_slice(values);
        self.exponents[..exponents.len()].copy_from_slice(exponents);
        Ok(())
    }

    /// Fills each row with `f(row, values) -> exponent`.
    pub(crate) fn for_each_row(&mut self, pool: &Pool, f: impl Fn(usize, &mut [i16]) -> i32 + Sync) {
        let values = &mut self.values[..self.rows * self.width];
        let exponents = &mut self.exponents[..self.rows];
        let width = self.width;
        if pool.threads() > 1 && exponents.len() > 1 {
            let rows = values.par_chunks_exact_mut(width).zip(exponents).enumerate();
            pool.run(|| rows.for_each(|(i, (row, exponent))| *exponent = f(i, row)));
        } else {
            let rows = values.chunks_exact_mut(width).zip(exponents).enumerate();
            rows.for_each(|(i, (row, exponent))| *exponent = f(i, row));
        }
    }
}

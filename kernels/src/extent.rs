//! The shape of a buffer of rows, and what kernels ask of it: the same checks on every device.

use crate::backend::{BackendError, Row};

/// A buffer with room for so many rows of one width, of which some are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    rows: usize,
    width: usize,
    capacity: usize,
}

pub(crate) fn mismatch(kernel: &'static str, expected: String, actual: String) -> BackendError {
    BackendError::Shape { kernel, expected, actual }
}

impl Extent {
    /// Room for `capacity` rows, none of them in use.
    pub const fn new(capacity: usize, width: usize) -> Self {
        Self { rows: 0, width, capacity }
    }

    /// Rows in use.
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// Channels of a row.
    pub const fn width(&self) -> usize {
        self.width
    }

    /// Rows that there is room for.
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// Makes room for the result of `kernel`.
    pub fn start(&mut self, kernel: &'static str, rows: usize, width: usize) -> Result<(), BackendError> {
        if width != self.width || rows > self.capacity {
            let actual = format!("a buffer of [{}, {}]", self.capacity, self.width);
            return Err(mismatch(kernel, format!("room for [{rows}, {width}]"), actual));
        }
        self.rows = rows;
        Ok(())
    }

    /// Makes room for so many values in whole rows.
    pub fn start_whole(&mut self, kernel: &'static str, values: usize) -> Result<(), BackendError> {
        if self.width == 0 || !values.is_multiple_of(self.width) {
            return Err(mismatch(kernel, "whole rows".into(), format!("{values} values")));
        }
        self.start(kernel, values / self.width, self.width)
    }

    /// A width.
    pub fn expect(&self, kernel: &'static str, width: usize) -> Result<(), BackendError> {
        if width == self.width {
            Ok(())
        } else {
            Err(mismatch(kernel, format!("{width} channels"), self.width.to_string()))
        }
    }

    /// So many rows in use.
    pub fn expect_rows(&self, kernel: &'static str, rows: usize) -> Result<(), BackendError> {
        if self.rows == rows {
            Ok(())
        } else {
            Err(mismatch(kernel, format!("{rows} rows"), self.rows.to_string()))
        }
    }

    /// Whole runs of `run` channels.
    pub fn expect_runs(&self, kernel: &'static str, run: usize) -> Result<(), BackendError> {
        if self.width.is_multiple_of(run) {
            Ok(())
        } else {
            Err(mismatch(kernel, format!("runs of {run} channels"), self.width.to_string()))
        }
    }

    /// If there is another, that it has the same rows and width.
    pub fn expect_twin(&self, kernel: &'static str, other: Option<&Self>) -> Result<(), BackendError> {
        other.map_or(Ok(()), |other| {
            other.expect(kernel, self.width)?;
            other.expect_rows(kernel, self.rows)
        })
    }

    /// A row in use.
    pub fn expect_row(&self, kernel: &'static str, row: usize) -> Result<(), BackendError> {
        if row < self.rows {
            Ok(())
        } else {
            Err(mismatch(kernel, format!("a row below {}", self.rows), row.to_string()))
        }
    }
}

/// Checks that heads of `head_dim` channels in rows of `width` can be rotated with so many pairs at the rows' positions.
pub fn check_rope(
    pairs: usize,
    context: usize,
    rows: &[Row],
    head_dim: usize,
    width: usize,
) -> Result<(), BackendError> {
    if head_dim != 2 * pairs || !width.is_multiple_of(head_dim) {
        let actual = format!("{width} channels in heads of {head_dim}");
        return Err(mismatch("rope", format!("heads of {}", 2 * pairs), actual));
    }
    match rows.iter().find(|row| row.position >= context) {
        Some(row) => Err(BackendError::CacheFull { position: row.position, capacity: context }),
        None => Ok(()),
    }
}

//! What weights with groups need of a row of activations: its sums by groups.

use super::packed::DEPTH;
use super::planes::{PlaneRow, Planes};
use crate::formats::GROUP_INPUTS;

/// Blocks of a group.
pub(crate) const GROUP_STEPS: usize = GROUP_INPUTS / DEPTH;

/// The activations of each row added up by groups: what a kernel that reads weights as `w + 128` has counted 128 times too often.
#[derive(Debug)]
pub(super) struct GroupSums {
    sums: Vec<i32>,
    groups: usize,
}

/// A row with its sums, each of at most 32 numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupedRow<'a> {
    pub(crate) row: PlaneRow<'a>,
    pub(crate) sums: &'a [i32],
}

impl GroupSums {
    /// Of all rows in use.
    pub(super) fn new(x: &Planes) -> Self {
        let sum = |group: &[i16]| group.iter().map(|&a| i32::from(a)).sum::<i32>();
        let groups = x.width().div_ceil(GROUP_INPUTS);
        let sums = (0..x.rows()).flat_map(|i| x.row(i).chunks(GROUP_INPUTS).map(sum)).collect();
        Self { sums, groups }
    }

    /// A row of the same activations.
    pub(super) fn with<'a>(&'a self, row: usize, plane: PlaneRow<'a>) -> GroupedRow<'a> {
        GroupedRow { row: plane, sums: &self.sums[row * self.groups..][..self.groups] }
    }
}

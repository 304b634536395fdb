//! Rotary position embedding on Q30 cosines and sines (Su et al., arXiv:2104.09864), pairs `(i, i + head_dim / 2)`.

use std::sync::OnceLock;

use crate::backend::{BackendError, Row};
use crate::bounds::{BoundsError, MAX_CONTEXT, MAX_HEAD_DIM, within};
use crate::extent::check_rope;
use crate::formats::ROTATION_BITS;
use crate::rounding::{round_shift, saturate32};
use crate::tables::cos_sin;

/// Positions whose rotations are computed together.
const POSITIONS: usize = 64;

/// Cosines and sines for each position and pair. Computed when a position is first asked for: contexts are long, most sequences short.
#[derive(Clone, Debug)]
pub struct RopeTable {
    frequencies: Vec<u64>,
    /// `POSITIONS` positions each.
    rotations: Vec<OnceLock<Vec<(i32, i32)>>>,
    context: usize,
}

impl RopeTable {
    /// The table for positions `0 .. context`; `frequencies_q64` are turns per token, one for each pair.
    pub fn new(frequencies_q64: &[u64], context: usize) -> Result<Self, BoundsError> {
        within("rotary pairs", frequencies_q64.len(), MAX_HEAD_DIM / 2)?;
        within("context", context, MAX_CONTEXT)?;
        let rotations = vec![OnceLock::new(); context.div_ceil(POSITIONS)];
        Ok(Self { frequencies: frequencies_q64.to_vec(), rotations, context })
    }

    /// The rotations at a position below the context.
    pub fn at(&self, position: usize) -> &[(i32, i32)] {
        let pairs = self.frequencies.len();
        let first = position - position % POSITIONS;
        let rotations = self.rotations[position / POSITIONS].get_or_init(|| {
            let positions = first as u64..(first + POSITIONS) as u64;
            let turns = |position| self.frequencies.iter().map(move |f| f.wrapping_mul(position));
            positions.flat_map(turns).map(cos_sin).collect()
        });
        &rotations[(position - first) * pairs..][..pairs]
    }

    pub(crate) fn check(&self, rows: &[Row], head_dim: usize, width: usize) -> Result<(), BackendError> {
        check_rope(self.frequencies.len(), self.context, rows, head_dim, width)
    }
}

/// Rotates one head in place.
#[inline(always)]
pub fn rotate_head(rotations: &[(i32, i32)], head: &mut [i32]) {
    let (low, high) = head.split_at_mut(rotations.len());
    for ((low, high), &(cos, sin)) in low.iter_mut().zip(high).zip(rotations) {
        let (a, b) = (i64::from(*low), i64::from(*high));
        let (cos, sin) = (i64::from(cos), i64::from(sin));
        *low = saturate32(round_shift(a * cos - b * sin, ROTATION_BITS));
        *high = saturate32(round_shift(b * cos + a * sin, ROTATION_BITS));
    }
}

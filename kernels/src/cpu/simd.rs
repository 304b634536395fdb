//! The inner loops that the compiler does not find by itself, once for each instruction set.
//!
//! Each implementation is a token that only exists where its instructions do, so its methods are safe. All of them compute the same
//! integers; `tests/backends.rs` compares them on random shapes.

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
#[cfg(target_arch = "x86_64")]
pub(super) mod avxvnni;
#[cfg(target_arch = "aarch64")]
pub(super) mod neon;
pub(super) mod portable;

use super::cache::KeyBlock;
use super::groups::GroupedRow;
use super::packed::{Block, LANES, Multipliers, PanelScales};
use super::planes::PlaneRow;

/// What a panel of sixteen outputs is multiplied with, and how its sums become Q16.
#[derive(Clone, Copy, Debug)]
pub(super) struct Panel<'a> {
    pub(super) blocks: &'a [Block],
    pub(super) scales: &'a PanelScales,
}

/// A panel with a multiplier for each group of 32 inputs.
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupedPanel<'a> {
    pub(super) panel: Panel<'a>,
    /// One for each eight blocks; the last group may have fewer.
    pub(super) groups: &'a [Multipliers],
}

/// A panel with the lengths of its rows of weights, rounded up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound<'a> {
    pub(super) panel: Panel<'a>,
    pub(super) norms: &'a Sixteen,
}

/// The keys of one head, sixteen positions at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keys<'a> {
    /// `head_dim / 2` blocks for each sixteen positions.
    pub(super) blocks: &'a [KeyBlock],
    /// The keys' own exponents.
    pub(super) exponents: &'a [Sixteen],
    /// Of the attention scale.
    pub(super) mantissa: u32,
}

/// A query head as halves `a = 256 * high + low`, widened to meet int16 keys.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueryRow<'a> {
    pub(super) high: &'a [i16],
    pub(super) low: &'a [i16],
    /// The exponent of scores without the keys': of the query, the attention scale and the format.
    pub(super) exponent: i32,
}

/// A panel's outputs for one row, or sixteen positions' scores.
pub(super) type Sixteen = [i32; LANES];

/// One instruction set.
pub(super) trait Simd: Copy + Send + Sync {
    /// Panels that a tile reads at a time, 1, 2 or 4: several streams of weights keep more of the memory busy than one.
    const STREAMS: usize;
    /// Rows of a tile, at most 4: its sums fill the registers.
    const ROWS: usize;
    /// The same of a tile of [`bounds`](Self::bounds), at most 6.
    const BOUND_ROWS: usize = Self::ROWS;

    /// `P` panels by `T` rows, requantised to Q16.
    ///
    /// Every row has [`DEPTH`](super::packed::DEPTH) values for each block of a panel.
    fn linear<const P: usize, const T: usize>(
        self,
        panels: [Panel<'_>; P],
        rows: [PlaneRow<'_>; T],
        out: &mut [[Sixteen; T]; P],
    );

    /// [`linear`](Self::linear) of weights with groups.
    ///
    /// A group's sum is below `2^27`, also as `256 * high + low` with `w + 128` in place of `w` below `2^30`; times its multiplier it is added
    /// up in 64 bits.
    fn grouped<const P: usize, const T: usize>(
        self,
        panels: [GroupedPanel<'_>; P],
        rows: [GroupedRow<'_>; T],
        out: &mut [[Sixteen; T]; P],
    ) {
        self.run(
            #[inline(always)]
            || portable::grouped(panels, rows, out),
        );
    }

    /// Numbers that are at least the results of [`linear`](Self::linear), cheaper where there is a way; `low_norms` are the lengths of the
    /// rows' low halves, rounded up.
    fn bounds<const P: usize, const T: usize>(
        self,
        panels: [Bound<'_>; P],
        rows: [PlaneRow<'_>; T],
        _low_norms: [i32; T],
        out: &mut [[Sixteen; T]; P],
    ) {
        self.linear(panels.map(|bound| bound.panel), rows, out);
    }

    /// The scores of `T` query heads with all the keys, Q16.
    ///
    /// Sums of halves fit an `i32`: `256 * 32,512 * 128 < 2^31`.
    fn scores<const T: usize>(self, keys: Keys<'_>, queries: [QueryRow<'_>; T], out: [&mut [Sixteen]; T]) {
        self.run(
            #[inline(always)]
            || portable::scores(keys, queries, out),
        );
    }

    /// `out[i] = silu(gate[i])`, Q16; at most `|gate[i]|`.
    fn silu(self, gate: &[i32], out: &mut [i32]) {
        self.run(
            #[inline(always)]
            || portable::silu(gate, out),
        );
    }

    /// Softmax weights of scores with their maximum, Q30.
    fn softmax_weights(self, scores: &[i32], max: i32, out: &mut [u32]) {
        self.run(
            #[inline(always)]
            || portable::softmax_weights(scores, max, out),
        );
    }

    /// Calls `f` compiled with the instruction set.
    fn run<R>(self, f: impl FnOnce() -> R) -> R;
}

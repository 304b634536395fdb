//! Weights as the SIMD kernels read them: `[outputs / 16][inputs / 4][16][4]` bytes.
//!
//! One [`Block`] holds four neighbouring inputs of sixteen neighbouring outputs, so that a broadcast of four activations
//! meets sixteen rows in one instruction. Bytes stay as stored, `w ^ 0x80`: as unsigned numbers they are `w + 128`. A *panel* is the
//! blocks of sixteen outputs, which lie one after the other. Padding is the weight zero.
//!
//! The multipliers of groups lie as `[outputs / 16][inputs / 32][16]` bytes: those of a panel's next group are neighbours.

use std::sync::OnceLock;

use super::argmax::norm as root;
use super::groups::GROUP_STEPS;
use super::pages::{Pages, Region};
use crate::backend::{BackendError, LinearWeights};
use crate::formats::{GROUP_INPUTS, Scale};

/// Output channels of a panel.
pub(crate) const LANES: usize = 16;
/// Inputs of a block.
pub(crate) const DEPTH: usize = 4;

/// 64 bytes on a cache line of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub(crate) struct Block(pub(crate) [u8; LANES * DEPTH]);

impl Block {
    /// Weights of zero.
    pub(crate) const ZERO: Self = Self([0x80; LANES * DEPTH]);
}

/// The scales of a panel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub(crate) struct PanelScales {
    pub(crate) mantissas: [i32; LANES],
    pub(crate) exponents: [i32; LANES],
}

impl PanelScales {
    fn new(scales: &[Scale]) -> Self {
        let mut panel = Self {
            mantissas: [Scale::ONE.mantissa() as i32; LANES],
            exponents: [Scale::ONE.exponent(); LANES],
        };
        for (lane, scale) in scales.iter().enumerate() {
            panel.mantissas[lane] = scale.mantissa() as i32;
            panel.exponents[lane] = scale.exponent();
        }
        panel
    }
}

/// The multipliers of a group for each output of a panel.
pub(crate) type Multipliers = [u8; LANES];

/// An int8 matrix `[outputs, inputs]` in panels, with a scale for each output channel and perhaps groups.
#[derive(Debug)]
pub struct PackedLinear {
    blocks: Region,
    scales: Vec<PanelScales>,
    groups: Option<Vec<Multipliers>>,
    outputs: usize,
    inputs: usize,
    norms: OnceLock<Vec<[i32; LANES]>>,
}

impl PackedLinear {
    /// Checks the shape against the accumulator bounds and the weights against their range.
    pub(super) fn new(weights: LinearWeights<'_>, pages: &Pages) -> Result<Self, BackendError> {
        weights.check()?;
        let LinearWeights { outputs, inputs, bytes, scales, groups } = weights;
        let steps = inputs.div_ceil(DEPTH);
        let mut blocks = pages.region(outputs.div_ceil(LANES) * steps).map_err(|error| {
            BackendError::Device { device: "cpu".into(), reason: format!("memory for weights: {error}") }
        })?;
        for (panel, blocks) in bytes.chunks(LANES * inputs).zip(blocks.chunks_exact_mut(steps)) {
            for (step, block) in blocks.iter_mut().enumerate() {
                let first = step * DEPTH;
                let depth = DEPTH.min(inputs - first);
                *block = Block::ZERO;
                for (lane, row) in panel.chunks_exact(inputs).enumerate() {
                    block.0[lane * DEPTH..][..depth].copy_from_slice(&row[first..first + depth]);
                }
            }
        }
        let scales = scales.chunks(LANES).map(PanelScales::new).collect();
        let groups = groups.map(|groups| pack_groups(groups, inputs.div_ceil(GROUP_INPUTS)));
        Ok(Self { blocks, scales, groups, outputs, inputs, norms: OnceLock::new() })
    }

    /// The length of each row of weights, rounded up, by panels. Computed when first asked for: only heads are.
    pub(crate) fn norms(&self) -> &[[i32; LANES]] {
        self.norms.get_or_init(|| {
            let panel = |panel: usize| {
                let mut squares = [0u32; LANES];
                for block in self.panel(panel).0 {
                    for (square, bytes) in squares.iter_mut().zip(block.0.chunks_exact(DEPTH)) {
                        // At most 131,071 * 127^2, which fits.
                        *square +=
                            bytes.iter().map(|&b| i32::from((b ^ 0x80) as i8).pow(2) as u32).sum::<u32>();
                    }
                }
                let count = (self.outputs - panel * LANES).min(LANES);
                let mut norms = [0; LANES];
                for (norm, &square) in norms.iter_mut().zip(&squares[..count]) {
                    *norm = root(u64::from(square));
                }
                norms
            };
            (0..self.panels()).map(panel).collect()
        })
    }

    /// Columns.
    pub const fn inputs(&self) -> usize {
        self.inputs
    }

    /// Rows.
    pub const fn outputs(&self) -> usize {
        self.outputs
    }

    /// Blocks of a panel.
    pub(crate) const fn steps(&self) -> usize {
        self.inputs.div_ceil(DEPTH)
    }

    /// How many panels there are.
    pub(crate) const fn panels(&self) -> usize {
        self.scales.len()
    }

    /// The blocks and scales of a panel.
    pub(crate) fn panel(&self, panel: usize) -> (&[Block], &PanelScales) {
        let steps = self.steps();
        (&self.blocks[panel * steps..][..steps], &self.scales[panel])
    }

    /// Whether a weight stands for more than itself and its output channel's scale.
    pub(crate) const fn has_groups(&self) -> bool {
        self.groups.is_some()
    }

    /// The multipliers of a panel, if there are groups.
    pub(crate) fn groups(&self, panel: usize) -> Option<&[Multipliers]> {
        let count = self.steps().div_ceil(GROUP_STEPS);
        self.groups.as_ref().map(|groups| &groups[panel * count..][..count])
    }

    /// The weights of one output channel times their multipliers, if there are groups.
    pub(crate) fn grouped_row(&self, output: usize) -> Option<impl Iterator<Item = i32> + '_> {
        let groups = self.groups(output / LANES)?;
        let (weights, _, _) = self.row(output);
        let multiplier = move |k: usize| i32::from(groups[k / GROUP_INPUTS][output % LANES]);
        Some(weights.enumerate().map(move |(k, w)| i32::from(w) * multiplier(k)))
    }

    /// The weights of one output channel, and its scale.
    pub(crate) fn row(&self, output: usize) -> (impl Iterator<Item = i8> + '_, u32, i32) {
        let (panel, lane) = (output / LANES, output % LANES);
        let (blocks, scales) = self.panel(panel);
        let bytes = blocks.iter().flat_map(move |block| &block.0[lane * DEPTH..][..DEPTH]);
        let weights = bytes.take(self.inputs).map(|&byte| (byte ^ 0x80) as i8);
        (weights, scales.mantissas[lane] as u32, scales.exponents[lane])
    }
}

/// Rows of `count` multipliers in panels, padded with ones.
fn pack_groups(groups: &[u8], count: usize) -> Vec<Multipliers> {
    let panel = |rows: &[u8]| -> Vec<Multipliers> {
        let of_group = |group| {
            let mut lanes = [1; LANES];
            for (lane, row) in lanes.iter_mut().zip(rows.chunks_exact(count)) {
                *lane = row[group];
            }
            lanes
        };
        (0..count).map(of_group).collect()
    };
    groups.chunks(LANES * count).flat_map(panel).collect()
}

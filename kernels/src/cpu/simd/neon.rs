//! NEON with dot products (ARMv8.2): `sdot` multiplies sixteen signed bytes and adds groups of four.

use core::arch::aarch64::*;
use core::arch::asm;
use core::array;
use std::arch::is_aarch64_feature_detected;

use super::portable::{rescale_halves, rescale_totals};
use super::{GroupedPanel, Panel, Simd, Sixteen};
use crate::cpu::groups::{GROUP_STEPS, GroupedRow};
use crate::cpu::packed::{DEPTH, LANES};
use crate::cpu::planes::PlaneRow;
use crate::formats::RESIDUAL_BITS;

/// A processor with NEON and its dot products.
#[derive(Clone, Copy, Debug)]
pub(in crate::cpu) struct Neon(());

impl Neon {
    pub(in crate::cpu) fn detect() -> Option<Self> {
        (is_aarch64_feature_detected!("neon") && is_aarch64_feature_detected!("dotprod")).then_some(Self(()))
    }
}

impl Simd for Neon {
    const STREAMS: usize = 1;
    const ROWS: usize = 3;

    fn linear<const P: usize, const T: usize>(
        self,
        panels: [Panel<'_>; P],
        rows: [PlaneRow<'_>; T],
        out: &mut [[Sixteen; T]; P],
    ) {
        for (panel, out) in panels.iter().zip(out) {
            // SAFETY: the token proves that the processor has the instructions.
            unsafe { linear(panel, rows, out) }
        }
    }

    fn grouped<const P: usize, const T: usize>(
        self,
        panels: [GroupedPanel<'_>; P],
        rows: [GroupedRow<'_>; T],
        out: &mut [[Sixteen; T]; P],
    ) {
        for (panel, out) in panels.iter().zip(out) {
            // SAFETY: as above.
            unsafe { grouped(panel, rows, out) }
        }
    }

    fn run<R>(self, f: impl FnOnce() -> R) -> R {
        // NEON is part of the architecture: nothing to switch on.
        f()
    }
}

#[target_feature(enable = "neon,dotprod")]
fn linear<const T: usize>(panel: &Panel<'_>, rows: [PlaneRow<'_>; T], out: &mut [Sixteen; T]) {
    let steps = panel.blocks.len();
    assert!(rows.iter().all(|r| r.high.len() == steps * DEPTH && r.low.len() == steps * DEPTH));
    let sign = vdupq_n_u8(0x80);
    // Four outputs in each register. Products of signed bytes: nothing to correct, and the results fit.
    let mut sums = [[[vdupq_n_s32(0); 4]; 2]; T];
    for step in 0..steps {
        // SAFETY: each row has four bytes for each step.
        let halves: [[int8x16_t; 2]; T] = array::from_fn(|t| unsafe {
            [rows[t].high, rows[t].low].map(|half| {
                vreinterpretq_s8_s32(vdupq_n_s32(half.as_ptr().cast::<i32>().add(step).read_unaligned()))
            })
        });
        for quarter in 0..4 {
            // SAFETY: `step` is below the number of blocks, each of four times sixteen bytes.
            let weights = unsafe { vld1q_u8(panel.blocks.as_ptr().add(step).cast::<u8>().add(16 * quarter)) };
            let weights = vreinterpretq_s8_u8(veorq_u8(weights, sign));
            for t in 0..T {
                for half in 0..2 {
                    sums[t][half][quarter] = dot(sums[t][half][quarter], weights, halves[t][half]);
                }
            }
        }
    }
    for t in 0..T {
        let mut lanes = [[0i32; LANES]; 2];
        for half in 0..2 {
            for quarter in 0..4 {
                // SAFETY: four lanes of sixteen.
                unsafe { vst1q_s32(lanes[half].as_mut_ptr().add(4 * quarter), sums[t][half][quarter]) };
            }
        }
        let exponent = rows[t].exponent + RESIDUAL_BITS as i32;
        out[t] = rescale_halves(lanes, &panel.scales.mantissas, &panel.scales.exponents, exponent);
    }
}

#[allow(clippy::needless_range_loop, reason = "indices are registers")]
#[target_feature(enable = "neon,dotprod")]
fn grouped<const T: usize>(panel: &GroupedPanel<'_>, rows: [GroupedRow<'_>; T], out: &mut [Sixteen; T]) {
    let GroupedPanel { panel, groups } = panel;
    let steps = panel.blocks.len();
    assert!(groups.len() == steps.div_ceil(GROUP_STEPS));
    assert!(rows.iter().all(|r| r.row.high.len() == steps * DEPTH && r.row.low.len() == steps * DEPTH));
    let sign = vdupq_n_u8(0x80);
    // Two outputs in each register.
    let mut totals = [[[vdupq_n_s64(0); 2]; 4]; T];
    for (group, multipliers) in groups.iter().enumerate() {
        let mut sums = [[[vdupq_n_s32(0); 4]; 2]; T];
        for step in group * GROUP_STEPS..steps.min((group + 1) * GROUP_STEPS) {
            // SAFETY: each row has four bytes for each step.
            let halves: [[int8x16_t; 2]; T] = array::from_fn(|t| unsafe {
                [rows[t].row.high, rows[t].row.low].map(|half| {
                    vreinterpretq_s8_s32(vdupq_n_s32(half.as_ptr().cast::<i32>().add(step).read_unaligned()))
                })
            });
            for quarter in 0..4 {
                // SAFETY: `step` is below the number of blocks, each of four times sixteen bytes.
                let weights =
                    unsafe { vld1q_u8(panel.blocks.as_ptr().add(step).cast::<u8>().add(16 * quarter)) };
                let weights = vreinterpretq_s8_u8(veorq_u8(weights, sign));
                for t in 0..T {
                    for half in 0..2 {
                        sums[t][half][quarter] = dot(sums[t][half][quarter], weights, halves[t][half]);
                    }
                }
            }
        }
        for quarter in 0..4 {
            let four: [i32; 4] = array::from_fn(|lane| i32::from(multipliers[4 * quarter + lane]));
            // SAFETY: four lanes of 32 bits.
            let multipliers = unsafe { vld1q_s32(four.as_ptr()) };
            for t in 0..T {
                let [high, low] = [sums[t][0][quarter], sums[t][1][quarter]];
                let sum = vaddq_s32(vshlq_n_s32::<8>(high), low);
                let [first, last] = &mut totals[t][quarter];
                *first = vmlal_s32(*first, vget_low_s32(sum), vget_low_s32(multipliers));
                *last = vmlal_high_s32(*last, sum, multipliers);
            }
        }
    }
    for t in 0..T {
        let mut lanes = [0i64; LANES];
        for (i, two) in totals[t].as_flattened().iter().enumerate() {
            // SAFETY: two lanes of sixteen.
            unsafe { vst1q_s64(lanes.as_mut_ptr().add(2 * i), *two) };
        }
        out[t] = rescale_totals(&lanes, &rows[t].row, panel);
    }
}

/// `sdot`. Its intrinsic is not stable.
#[target_feature(enable = "neon,dotprod")]
#[inline]
fn dot(mut sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: one instruction on registers, which the target feature allows.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {a:v}.16b, {b:v}.16b",
            sums = inout(vreg) sums,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

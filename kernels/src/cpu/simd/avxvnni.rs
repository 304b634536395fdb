//! VNNI on 256-bit registers: AVX-VNNI, or AVX-512 VL with VNNI on processors that prefer narrow registers.

use core::arch::x86_64::*;
use core::array;

use super::portable::{rescale_halves, rescale_totals};
use super::{GroupedPanel, Panel, Simd, Sixteen};
use crate::cpu::groups::{GROUP_STEPS, GroupedRow};
use crate::cpu::packed::{DEPTH, LANES};
use crate::cpu::planes::PlaneRow;
use crate::formats::RESIDUAL_BITS;

/// Instantiates the kernels for one encoding of `vpdpbusd`.
macro_rules! encoding {
    ($(#[$doc:meta])* $token:ident, $module:ident, $features:literal, [$($feature:tt),*], $dot:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub(in crate::cpu) struct $token(());

        impl $token {
            pub(in crate::cpu) fn detect() -> Option<Self> {
                ($(is_x86_feature_detected!($feature))&&*).then_some(Self(()))
            }
        }

        impl Simd for $token {
            const STREAMS: usize = 1;
            const ROWS: usize = 3;

            fn linear<const P: usize, const T: usize>(
                self,
                panels: [Panel<'_>; P],
                rows: [PlaneRow<'_>; T],
                out: &mut [[Sixteen; T]; P],
            ) {
                // SAFETY: the token proves that the processor has the instructions.
                unsafe { $module::linear(panels, rows, out) }
            }

            fn grouped<const P: usize, const T: usize>(
                self,
                panels: [GroupedPanel<'_>; P],
                rows: [GroupedRow<'_>; T],
                out: &mut [[Sixteen; T]; P],
            ) {
                for (panel, out) in panels.iter().zip(out) {
                    // SAFETY: as above.
                    unsafe { $module::grouped(panel, rows, out) }
                }
            }

            fn run<R>(self, f: impl FnOnce() -> R) -> R {
                // SAFETY: as above.
                unsafe { $module::run(f) }
            }
        }

        mod $module {
            use super::*;

            #[target_feature(enable = $features)]
            pub(super) fn run<R>(f: impl FnOnce() -> R) -> R {
                f()
            }

            #[target_feature(enable = $features)]
            pub(super) fn linear<const P: usize, const T: usize>(
                panels: [Panel<'_>; P],
                rows: [PlaneRow<'_>; T],
                out: &mut [[Sixteen; T]; P],
            ) {
                let steps = panels[0].blocks.len();
                assert!(panels.iter().all(|p| p.blocks.len() == steps));
                assert!(rows.iter().all(|r| r.high.len() == steps * DEPTH && r.low.len() == steps * DEPTH));
                // What reading w as w + 128 adds is subtracted at the start. Sums wrap around on the way, the results fit.
                let start = |sum: i32| [_mm256_set1_epi32(sum.wrapping_mul(-128)); 2];
                let mut sums: [[[[__m256i; 2]; 2]; T]; P] =
                    array::from_fn(|_| array::from_fn(|t| [start(rows[t].high_sum), start(rows[t].low_sum)]));
                for step in 0..steps {
                    for p in 0..P {
                        for half in 0..2 {
                            // SAFETY: `step` is below the number of blocks of each panel, of 64 aligned bytes.
                            let weights = unsafe {
                                _mm256_load_si256(panels[p].blocks.as_ptr().add(step).cast::<__m256i>().add(half))
                            };
                            for t in 0..T {
                                // SAFETY: each row has four bytes for each step.
                                let (high, low) = unsafe {
                                    (
                                        rows[t].high.as_ptr().cast::<i32>().add(step).read_unaligned(),
                                        rows[t].low.as_ptr().cast::<i32>().add(step).read_unaligned(),
                                    )
                                };
                                let [sum_high, sum_low] = &mut sums[p][t];
                                sum_high[half] = $dot(sum_high[half], weights, _mm256_set1_epi32(high));
                                sum_low[half] = $dot(sum_low[half], weights, _mm256_set1_epi32(low));
                            }
                        }
                    }
                }
                for p in 0..P {
                    let scales = panels[p].scales;
                    for t in 0..T {
                        let halves = sums[p][t].map(|sums| lanes(sums));
                        let exponent = rows[t].exponent + RESIDUAL_BITS as i32;
                        out[p][t] = rescale_halves(halves, &scales.mantissas, &scales.exponents, exponent);
                    }
                }
            }

            #[allow(clippy::needless_range_loop, reason = "indices are registers")]
            #[target_feature(enable = $features)]
            pub(super) fn grouped<const T: usize>(
                panel: &GroupedPanel<'_>,
                rows: [GroupedRow<'_>; T],
                out: &mut [Sixteen; T],
            ) {
                let GroupedPanel { panel, groups } = panel;
                let steps = panel.blocks.len();
                assert!(groups.len() == steps.div_ceil(GROUP_STEPS));
                assert!(rows.iter().all(|r| r.row.high.len() == steps * DEPTH && r.row.low.len() == steps * DEPTH));
                // Of even lanes and of odd ones, eight outputs each.
                let mut totals = [[[_mm256_setzero_si256(); 2]; 2]; T];
                for (group, multipliers) in groups.iter().enumerate() {
                    // What reading w as w + 128 adds is subtracted at the start, all of it from the low half's sum.
                    let start = |sum: i32| [_mm256_setzero_si256(), _mm256_set1_epi32(-128 * sum)];
                    let mut sums: [[[__m256i; 2]; 2]; T] = array::from_fn(|t| [start(rows[t].sums[group]); 2]);
                    for step in group * GROUP_STEPS..steps.min((group + 1) * GROUP_STEPS) {
                        for half in 0..2 {
                            // SAFETY: `step` is below the number of blocks, of 64 aligned bytes.
                            let weights = unsafe {
                                _mm256_load_si256(panel.blocks.as_ptr().add(step).cast::<__m256i>().add(half))
                            };
                            for t in 0..T {
                                // SAFETY: each row has four bytes for each step.
                                let (high, low) = unsafe {
                                    (
                                        rows[t].row.high.as_ptr().cast::<i32>().add(step).read_unaligned(),
                                        rows[t].row.low.as_ptr().cast::<i32>().add(step).read_unaligned(),
                                    )
                                };
                                let [sum_high, sum_low] = &mut sums[t][half];
                                *sum_high = $dot(*sum_high, weights, _mm256_set1_epi32(high));
                                *sum_low = $dot(*sum_low, weights, _mm256_set1_epi32(low));
                            }
                        }
                    }
                    for half in 0..2 {
                        let eight: [u8; 8] = array::from_fn(|lane| multipliers[8 * half + lane]);
                        let even = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(i64::from_le_bytes(eight)));
                        let odd = _mm256_srli_epi64::<32>(even);
                        for t in 0..T {
                            let [high, low] = sums[t][half];
                            let sum = _mm256_add_epi32(_mm256_slli_epi32::<8>(high), low);
                            let odd_sum = _mm256_srli_epi64::<32>(sum);
                            let [totals_even, totals_odd] = &mut totals[t][half];
                            *totals_even = _mm256_add_epi64(*totals_even, _mm256_mul_epi32(sum, even));
                            *totals_odd = _mm256_add_epi64(*totals_odd, _mm256_mul_epi32(odd_sum, odd));
                        }
                    }
                }
                for t in 0..T {
                    let quads = totals[t].map(|halves| halves.map(|totals| quad(totals)));
                    let totals: [i64; LANES] =
                        array::from_fn(|lane| quads[lane / 8][lane % 2][lane % 8 / 2]);
                    out[t] = rescale_totals(&totals, &rows[t].row, panel);
                }
            }

            #[target_feature(enable = $features)]
            fn quad(v: __m256i) -> [i64; 4] {
                let mut out = [0; 4];
                // SAFETY: four lanes of 64 bits.
                unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), v) };
                out
            }

            #[target_feature(enable = $features)]
            fn lanes(sums: [__m256i; 2]) -> Sixteen {
                let mut out = [0; LANES];
                for half in 0..2 {
                    // SAFETY: eight lanes from lane 0 or 8 of sixteen.
                    unsafe { _mm256_storeu_si256(out.as_mut_ptr().add(8 * half).cast(), sums[half]) };
                }
                out
            }
        }
    };
}

encoding! {
    /// A processor with AVX2 and AVX-VNNI.
    AvxVnni, vex, "avx2,avxvnni", ["avx2", "avxvnni"], _mm256_dpbusd_avx_epi32
}
encoding! {
    /// A processor with AVX2, AVX-512 VL and VNNI: the same kernels in another encoding.
    Avx512Vl, evex, "avx2,avx512vl,avx512vnni", ["avx2", "avx512vl", "avx512vnni"], _mm256_dpbusd_epi32
}

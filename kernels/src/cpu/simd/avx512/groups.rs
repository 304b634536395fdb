//! The product of weights with groups.

use core::arch::x86_64::*;
use core::array;

use crate::cpu::groups::{GROUP_STEPS, GroupedRow};
use crate::cpu::packed::{DEPTH, LANES};
use crate::cpu::simd::portable::rescale_totals;
use crate::cpu::simd::{GroupedPanel, Sixteen};

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn grouped<const P: usize, const T: usize>(
    panels: [GroupedPanel<'_>; P],
    rows: [GroupedRow<'_>; T],
    out: &mut [[Sixteen; T]; P],
) {
    let steps = panels[0].panel.blocks.len();
    let groups = steps.div_ceil(GROUP_STEPS);
    assert!(panels.iter().all(|p| p.panel.blocks.len() == steps && p.groups.len() == groups));
    assert!(rows.iter().all(|r| r.row.high.len() == steps * DEPTH && r.row.low.len() == steps * DEPTH));
    // Of even lanes and of odd ones.
    let mut totals: [[[__m512i; 2]; T]; P] = [[[_mm512_setzero_si512(); 2]; T]; P];
    for group in 0..groups {
        // What reading w as w + 128 adds is subtracted at the start, all of it from the low half's sum.
        let mut sums: [[[__m512i; 2]; T]; P] = array::from_fn(|_| {
            array::from_fn(|t| [_mm512_setzero_si512(), _mm512_set1_epi32(-128 * rows[t].sums[group])])
        });
        for step in group * GROUP_STEPS..steps.min((group + 1) * GROUP_STEPS) {
            // SAFETY: `step` is below the number of blocks of each panel, which are aligned to 64 bytes.
            let weights: [__m512i; P] = array::from_fn(|p| unsafe {
                _mm512_load_si512(panels[p].panel.blocks.as_ptr().add(step).cast())
            });
            for t in 0..T {
                // SAFETY: each row has four bytes for each step.
                let (high, low) = unsafe {
                    (
                        rows[t].row.high.as_ptr().cast::<i32>().add(step).read_unaligned(),
                        rows[t].row.low.as_ptr().cast::<i32>().add(step).read_unaligned(),
                    )
                };
                let (high, low) = (_mm512_set1_epi32(high), _mm512_set1_epi32(low));
                for p in 0..P {
                    sums[p][t][0] = _mm512_dpbusd_epi32(sums[p][t][0], weights[p], high);
                    sums[p][t][1] = _mm512_dpbusd_epi32(sums[p][t][1], weights[p], low);
                }
            }
        }
        for p in 0..P {
            // SAFETY: an array of sixteen bytes.
            let multipliers = unsafe { _mm_loadu_si128(panels[p].groups[group].as_ptr().cast()) };
            let even = _mm512_cvtepu8_epi32(multipliers);
            let odd = _mm512_srli_epi64::<32>(even);
            for t in 0..T {
                let [high, low] = sums[p][t];
                let sum = _mm512_add_epi32(_mm512_slli_epi32::<8>(high), low);
                let odd_sum = _mm512_srli_epi64::<32>(sum);
                let [totals_even, totals_odd] = &mut totals[p][t];
                *totals_even = _mm512_add_epi64(*totals_even, _mm512_mul_epi32(sum, even));
                *totals_odd = _mm512_add_epi64(*totals_odd, _mm512_mul_epi32(odd_sum, odd));
            }
        }
    }
    for p in 0..P {
        for t in 0..T {
            let [even, odd] = totals[p][t].map(|totals| lanes(totals));
            let totals: [i64; LANES] =
                array::from_fn(|lane| if lane % 2 == 0 { even[lane / 2] } else { odd[lane / 2] });
            out[p][t] = rescale_totals(&totals, &rows[t].row, &panels[p].panel);
        }
    }
}

#[target_feature(enable = "avx512f")]
fn lanes(v: __m512i) -> [i64; LANES / 2] {
    let mut out = [0; LANES / 2];
    // SAFETY: eight lanes of 64 bits.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), v) };
    out
}

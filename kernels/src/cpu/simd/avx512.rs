//! AVX-512 with VNNI: `vpdpbusd` multiplies 64 unsigned bytes by 64 signed ones and adds groups of four.

mod groups;
mod tables;

use core::arch::x86_64::*;
use core::array;

use super::portable::rescale_halves;
use super::{Bound, GroupedPanel, Keys, Panel, QueryRow, Simd, Sixteen};
use crate::cpu::groups::GroupedRow;
use crate::cpu::packed::{DEPTH, LANES};
use crate::cpu::planes::PlaneRow;
use crate::formats::RESIDUAL_BITS;

/// A processor with AVX-512 F, BW, DQ, VL and VNNI.
#[derive(Clone, Copy, Debug)]
pub(in crate::cpu) struct Avx512(());

impl Avx512 {
    pub(in crate::cpu) fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni");
        found.then_some(Self(()))
    }
}

impl Simd for Avx512 {
    const STREAMS: usize = 4;
    const ROWS: usize = 3;
    const BOUND_ROWS: usize = 6;

    fn linear<const P: usize, const T: usize>(
        self,
        panels: [Panel<'_>; P],
        rows: [PlaneRow<'_>; T],
        out: &mut [[Sixteen; T]; P],
    ) {
        // SAFETY: the token proves that the processor has the instructions.
        unsafe { linear(panels, rows, out) }
    }

    fn grouped<const P: usize, const T: usize>(
        self,
        panels: [GroupedPanel<'_>; P],
        rows: [GroupedRow<'_>; T],
        out: &mut [[Sixteen; T]; P],
    ) {
        // SAFETY: as above.
        unsafe { groups::grouped(panels, rows, out) }
    }

    fn bounds<const P: usize, const T: usize>(
        self,
        panels: [Bound<'_>; P],
        rows: [PlaneRow<'_>; T],
        low_norms: [i32; T],
        out: &mut [[Sixteen; T]; P],
    ) {
        // SAFETY: as above.
        unsafe { bounds(panels, rows, low_norms, out) }
    }

    fn scores<const T: usize>(self, keys: Keys<'_>, queries: [QueryRow<'_>; T], out: [&mut [Sixteen]; T]) {
        // SAFETY: the token proves that the processor has the instructions.
        unsafe { scores(keys, queries, out) }
    }

    fn silu(self, gate: &[i32], out: &mut [i32]) {
        // SAFETY: the token proves that the processor has the instructions.
        unsafe { tables::silu(gate, out) }
    }

    fn softmax_weights(self, scores: &[i32], max: i32, out: &mut [u32]) {
        // SAFETY: as above.
        unsafe { tables::softmax_weights(scores, max, out) }
    }

    fn run<R>(self, f: impl FnOnce() -> R) -> R {
        // SAFETY: as above.
        unsafe { run(f) }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn run<R>(f: impl FnOnce() -> R) -> R {
    f()
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn linear<const P: usize, const T: usize>(
    panels: [Panel<'_>; P],
    rows: [PlaneRow<'_>; T],
    out: &mut [[Sixteen; T]; P],
) {
    let steps = panels[0].blocks.len();
    assert!(panels.iter().all(|p| p.blocks.len() == steps));
    assert!(rows.iter().all(|r| r.high.len() == steps * DEPTH && r.low.len() == steps * DEPTH));
    // What reading w as w + 128 adds is subtracted at the start. Sums wrap around on the way, the results fit.
    let mut sums: [[[__m512i; 2]; T]; P] = array::from_fn(|_| {
        array::from_fn(|t| {
            [rows[t].high_sum, rows[t].low_sum].map(|s| _mm512_set1_epi32(s.wrapping_mul(-128)))
        })
    });
    for step in 0..steps {
        // SAFETY: `step` is below the number of blocks of each panel, which are aligned to 64 bytes.
        let weights: [__m512i; P] =
            array::from_fn(|p| unsafe { _mm512_load_si512(panels[p].blocks.as_ptr().add(step).cast()) });
        for t in 0..T {
            // SAFETY: each row has four bytes for each step.
            let (high, low) = unsafe {
                (
                    rows[t].high.as_ptr().cast::<i32>().add(step).read_unaligned(),
                    rows[t].low.as_ptr().cast::<i32>().add(step).read_unaligned(),
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
        let scales = panels[p].scales;
        // SAFETY: both are arrays of sixteen, aligned to 64 bytes.
        let (mantissas, exponents) = unsafe {
            (
                _mm512_load_si512(scales.mantissas.as_ptr().cast()),
                _mm512_load_si512(scales.exponents.as_ptr().cast()),
            )
        };
        for t in 0..T {
            let base = _mm512_set1_epi32(rows[t].exponent + RESIDUAL_BITS as i32);
            let exponents = _mm512_add_epi32(exponents, base);
            out[p][t] = requantise_sums(sums[p][t], mantissas, exponents);
        }
    }
}

/// The product of the high halves, and the most that the low halves can add.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn bounds<const P: usize, const T: usize>(
    panels: [Bound<'_>; P],
    rows: [PlaneRow<'_>; T],
    low_norms: [i32; T],
    out: &mut [[Sixteen; T]; P],
) {
    let steps = panels[0].panel.blocks.len();
    assert!(panels.iter().all(|p| p.panel.blocks.len() == steps));
    assert!(rows.iter().all(|r| r.high.len() == steps * DEPTH));
    let mut sums: [[__m512i; T]; P] =
        array::from_fn(|_| array::from_fn(|t| _mm512_set1_epi32(rows[t].high_sum.wrapping_mul(-128))));
    for step in 0..steps {
        // SAFETY: `step` is below the number of blocks of each panel, which are aligned to 64 bytes.
        let weights: [__m512i; P] = array::from_fn(|p| unsafe {
            _mm512_load_si512(panels[p].panel.blocks.as_ptr().add(step).cast())
        });
        for t in 0..T {
            // SAFETY: each row has four bytes for each step.
            let high = unsafe { rows[t].high.as_ptr().cast::<i32>().add(step).read_unaligned() };
            let high = _mm512_set1_epi32(high);
            for p in 0..P {
                sums[p][t] = _mm512_dpbusd_epi32(sums[p][t], weights[p], high);
            }
        }
    }
    for p in 0..P {
        let scales = panels[p].panel.scales;
        // SAFETY: arrays of sixteen, the first two aligned to 64 bytes.
        let (mantissas, exponents, norms) = unsafe {
            (
                _mm512_load_si512(scales.mantissas.as_ptr().cast()),
                _mm512_load_si512(scales.exponents.as_ptr().cast()),
                _mm512_loadu_si512(panels[p].norms.as_ptr().cast()),
            )
        };
        for t in 0..T {
            // Below 131,071 * 127 * 128 and what rounding up adds, which is below 2^31.
            let low = _mm512_mullo_epi32(norms, _mm512_set1_epi32(low_norms[t]));
            let base = _mm512_set1_epi32(rows[t].exponent + RESIDUAL_BITS as i32);
            out[p][t] = requantise_sums([sums[p][t], low], mantissas, _mm512_add_epi32(exponents, base));
        }
    }
}

#[allow(clippy::needless_range_loop, reason = "one index for blocks, exponents and results")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn scores<const T: usize>(keys: Keys<'_>, queries: [QueryRow<'_>; T], out: [&mut [Sixteen]; T]) {
    let pairs = queries[0].high.len() / 2;
    let sixteens = keys.exponents.len();
    assert!(keys.blocks.len() == sixteens * pairs && out.iter().all(|out| out.len() == sixteens));
    assert!(queries.iter().all(|q| q.high.len() == 2 * pairs && q.low.len() == 2 * pairs));
    let mantissas = _mm512_set1_epi32(keys.mantissa as i32);
    for sixteen in 0..sixteens {
        let mut sums = [[_mm512_setzero_si512(); 2]; T];
        for pair in 0..pairs {
            // SAFETY: below the number of blocks, which are aligned to 64 bytes.
            let keys = unsafe { _mm512_load_si512(keys.blocks.as_ptr().add(sixteen * pairs + pair).cast()) };
            for t in 0..T {
                // SAFETY: each query has two values for each pair.
                let (high, low) = unsafe {
                    (
                        queries[t].high.as_ptr().cast::<i32>().add(pair).read_unaligned(),
                        queries[t].low.as_ptr().cast::<i32>().add(pair).read_unaligned(),
                    )
                };
                sums[t][0] = _mm512_dpwssd_epi32(sums[t][0], keys, _mm512_set1_epi32(high));
                sums[t][1] = _mm512_dpwssd_epi32(sums[t][1], keys, _mm512_set1_epi32(low));
            }
        }
        // SAFETY: an array of sixteen.
        let exponents = unsafe { _mm512_loadu_si512(keys.exponents[sixteen].as_ptr().cast()) };
        for t in 0..T {
            let exponents = _mm512_add_epi32(exponents, _mm512_set1_epi32(queries[t].exponent));
            out[t][sixteen] = requantise(sums[t], mantissas, exponents);
        }
    }
}

/// [`requantise`] for the sums of a matrix product, which rarely need more than 31 bits: then one product of 32 bits does for each lane.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn requantise_sums([high, low]: [__m512i; 2], mantissas: __m512i, exponents: __m512i) -> Sixteen {
    let shifts = _mm512_sub_epi32(_mm512_setzero_si512(), exponents);
    // |256 high| and |low| are at most 2^30, and a shift of 25 and more leaves 31 bits of the product with a mantissa.
    let wide =
        outside(high, -(1 << 22), 1 << 23) | outside(low, -(1 << 30), 1 << 31) | outside(shifts, 25, 38);
    if wide != 0 {
        return requantise([high, low], mantissas, exponents);
    }
    let sums = _mm512_add_epi32(_mm512_slli_epi32::<8>(high), low);
    let shifts = _mm512_sub_epi32(shifts, _mm512_set1_epi32(1));
    let even = _mm512_srav_epi64(_mm512_mul_epi32(sums, mantissas), evens(shifts));
    let odd = _mm512_srav_epi64(_mm512_mul_epi32(odds(sums), odds(mantissas)), odds(shifts));
    // One bit is left to round by.
    let halves = merge(even, odd);
    stored(_mm512_srai_epi32::<1>(_mm512_add_epi32(halves, _mm512_set1_epi32(1))))
}

/// `rescale(256 * high + low, mantissa, exponent)` for each lane.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn requantise([high, low]: [__m512i; 2], mantissas: __m512i, exponents: __m512i) -> Sixteen {
    let shifts = _mm512_sub_epi32(_mm512_setzero_si512(), exponents);
    if outside(shifts, 1, 62) != 0 {
        // Some lanes scale up, which only tiny models with huge scales do, or vanish.
        return rescale_halves([stored(high), stored(low)], &stored(mantissas), &stored(exponents), 0);
    }
    let shifts = _mm512_sub_epi32(shifts, _mm512_set1_epi32(1));
    let limit = _mm512_set1_epi64(i64::from(i32::MAX));
    let lowest = _mm512_sub_epi64(_mm512_setzero_si512(), limit);
    let rescaled = |high: __m512i, low: __m512i, mantissas: __m512i, shifts: __m512i| {
        let (high, low) = (_mm512_mul_epi32(high, mantissas), _mm512_mul_epi32(low, mantissas));
        let product = _mm512_add_epi64(_mm512_slli_epi64::<8>(high), low);
        // One bit is left to round by.
        let halves = _mm512_add_epi64(_mm512_srav_epi64(product, shifts), _mm512_set1_epi64(1));
        _mm512_max_epi64(_mm512_min_epi64(_mm512_srai_epi64::<1>(halves), limit), lowest)
    };
    let even = rescaled(high, low, mantissas, evens(shifts));
    let odd = rescaled(odds(high), odds(low), odds(mantissas), odds(shifts));
    stored(merge(even, odd))
}

/// The lanes outside `first .. first + count`.
#[target_feature(enable = "avx512f")]
#[inline]
fn outside(v: __m512i, first: i32, count: u32) -> __mmask16 {
    let from_first = _mm512_sub_epi32(v, _mm512_set1_epi32(first));
    _mm512_cmpge_epu32_mask(from_first, _mm512_set1_epi32(count as i32))
}

/// The even lanes, with zeros above.
#[target_feature(enable = "avx512f")]
#[inline]
fn evens(v: __m512i) -> __m512i {
    _mm512_maskz_mov_epi32(0x5555, v)
}

/// The odd lanes in place of the even ones, with zeros above.
#[target_feature(enable = "avx512f")]
#[inline]
fn odds(v: __m512i) -> __m512i {
    _mm512_srli_epi64::<32>(v)
}

/// The low halves of lanes of 64 bits: of `odd` in the odd lanes, of `even` in the even ones.
#[target_feature(enable = "avx512f")]
#[inline]
fn merge(even: __m512i, odd: __m512i) -> __m512i {
    _mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64::<32>(odd))
}

#[target_feature(enable = "avx512f")]
#[inline]
fn stored(v: __m512i) -> Sixteen {
    let mut out = [0; LANES];
    // SAFETY: sixteen lanes of 32 bits.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), v) };
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sums around the bounds between the two ways, and anywhere.
    fn sums(edge: i32) -> impl Strategy<Value = i32> {
        prop_oneof![edge - 2..edge + 2, -edge - 2..-edge + 2, -edge..edge, -1_000..1_000]
    }

    proptest! {
        #[test]
        fn requantised_sums_are_rescaled(
            high in prop::array::uniform16(sums(1 << 22)), low in prop::array::uniform16(sums(1 << 30)),
            mantissas in prop::array::uniform16(1i32 << 22..1 << 23),
            exponents in prop_oneof![
                prop::array::uniform16(-62i32..=-25), prop::array::uniform16(-70i32..8), prop::array::uniform16(-26i32..-22),
            ],
        ) {
            if Avx512::detect().is_none() {
                return Ok(());
            }
            let expected = rescale_halves([high, low], &mantissas, &exponents, 0);
            // SAFETY: the processor has the instructions; arrays of sixteen.
            let results = unsafe {
                let load = |v: &Sixteen| _mm512_loadu_si512(v.as_ptr().cast());
                let (sums, mantissas) = ([load(&high), load(&low)], load(&mantissas));
                let exponents = load(&exponents);
                [requantise_sums(sums, mantissas, exponents), requantise(sums, mantissas, exponents)]
            };
            prop_assert_eq!(results, [expected; 2]);
        }
    }
}

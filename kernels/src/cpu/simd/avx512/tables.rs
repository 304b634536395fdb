//! Table lookups: an entry and the next one are gathered as one 64-bit number.

use core::arch::x86_64::*;

use super::super::portable;
use crate::cpu::packed::LANES;
use crate::tables::{EXP2, SIGMOID, SIGMOID_RANGE};

/// See [`Simd::silu`](super::Simd::silu).
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn silu(gate: &[i32], out: &mut [i32]) {
    const HALF: i32 = (SIGMOID_RANGE as i32) << 16;
    let ((gates, gate_rest), (outs, out_rest)) = (gate.as_chunks::<LANES>(), out.as_chunks_mut::<LANES>());
    let (lowest, highest) = (_mm512_set1_epi32(-HALF), _mm512_set1_epi32(HALF - 1));
    let half_step = _mm512_set1_epi64(1 << 29);
    for (gate, out) in gates.iter().zip(outs) {
        // SAFETY: sixteen numbers.
        let x = unsafe { _mm512_loadu_si512(gate.as_ptr().cast()) };
        let inside = _mm512_min_epi32(_mm512_max_epi32(x, lowest), highest);
        let offset = _mm512_sub_epi32(inside, lowest);
        let rest = _mm512_and_si512(offset, _mm512_set1_epi32(0x3ff));
        // SAFETY: the offset is below `2 * HALF`, so the index is below the table's last entry.
        let (low, high) = unsafe { pairs(SIGMOID.as_ptr().cast(), _mm512_srli_epi32::<10>(offset)) };
        let rise = _mm512_mullo_epi32(_mm512_sub_epi32(high, low), rest);
        let rise = _mm512_srli_epi32::<10>(_mm512_add_epi32(rise, _mm512_set1_epi32(512)));
        let sigmoid = _mm512_add_epi32(low, rise);
        let sigmoid = _mm512_maskz_mov_epi32(_mm512_cmpge_epi32_mask(x, lowest), sigmoid);
        let above = _mm512_cmpgt_epi32_mask(x, highest);
        let sigmoid = _mm512_mask_mov_epi32(sigmoid, above, _mm512_set1_epi32(1 << 30));
        // Even and odd lanes; the product over 2^30 fits 32 bits.
        let even = _mm512_add_epi64(_mm512_mul_epi32(x, sigmoid), half_step);
        let odd = _mm512_mul_epi32(_mm512_srli_epi64::<32>(x), _mm512_srli_epi64::<32>(sigmoid));
        let odd = _mm512_add_epi64(odd, half_step);
        let (even, odd) = (_mm512_srli_epi64::<30>(even), _mm512_slli_epi64::<2>(odd));
        let silu = _mm512_mask_mov_epi32(even, 0xaaaa, odd);
        // SAFETY: sixteen numbers.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), silu) };
    }
    portable::silu(gate_rest, out_rest);
}

/// See [`Simd::softmax_weights`](super::Simd::softmax_weights).
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn softmax_weights(scores: &[i32], max: i32, out: &mut [u32]) {
    let ((scores, score_rest), (outs, out_rest)) =
        (scores.as_chunks::<LANES>(), out.as_chunks_mut::<LANES>());
    let octave = _mm512_set1_epi32(32 << 16);
    let byte = _mm512_set1_epi32(0xff);
    for (score, out) in scores.iter().zip(outs) {
        // SAFETY: sixteen numbers.
        let score = unsafe { _mm512_loadu_si512(score.as_ptr().cast()) };
        // Below 2^32, so that wrapping around does not matter.
        let delta = _mm512_min_epu32(_mm512_sub_epi32(_mm512_set1_epi32(max), score), octave);
        let octaves = _mm512_and_si512(_mm512_srli_epi32::<16>(delta), _mm512_set1_epi32(31));
        let index = _mm512_and_si512(_mm512_srli_epi32::<8>(delta), byte);
        // SAFETY: the index is below 256, the table has 257 entries.
        let (high, low) = unsafe { pairs(EXP2.as_ptr().cast(), index) };
        let fall = _mm512_mullo_epi32(_mm512_sub_epi32(high, low), _mm512_and_si512(delta, byte));
        let fall = _mm512_srli_epi32::<8>(_mm512_add_epi32(fall, _mm512_set1_epi32(128)));
        let value = _mm512_sub_epi32(high, fall);
        let half = _mm512_srli_epi32::<1>(_mm512_sllv_epi32(_mm512_set1_epi32(1), octaves));
        let weight = _mm512_srlv_epi32(_mm512_add_epi32(value, half), octaves);
        let weight = _mm512_maskz_mov_epi32(_mm512_cmplt_epu32_mask(delta, octave), weight);
        // SAFETY: sixteen numbers.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), weight) };
    }
    portable::softmax_weights(score_rest, max, out_rest);
}

/// `table[index]` and `table[index + 1]` for sixteen indices.
///
/// # Safety
/// `index + 1` is an entry of the table of 32-bit numbers, in every lane.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
unsafe fn pairs(table: *const i64, index: __m512i) -> (__m512i, __m512i) {
    // SAFETY: 64 bits from each entry on, by the contract.
    let (first, second) = unsafe {
        (
            _mm512_i32gather_epi64::<4>(_mm512_castsi512_si256(index), table),
            _mm512_i32gather_epi64::<4>(_mm512_extracti64x4_epi64::<1>(index), table),
        )
    };
    let join = |low: __m256i, high: __m256i| _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
    let low = join(_mm512_cvtepi64_epi32(first), _mm512_cvtepi64_epi32(second));
    let (first, second) = (_mm512_srli_epi64::<32>(first), _mm512_srli_epi64::<32>(second));
    (low, join(_mm512_cvtepi64_epi32(first), _mm512_cvtepi64_epi32(second)))
}

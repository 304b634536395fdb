//! Row kernels that gain from a buffer between their passes.

use std::cell::RefCell;

use crate::formats::RESIDUAL_BITS;
use crate::quantise::activation_shift;
use crate::rounding::shift_by;

thread_local! {
    /// Kept between calls, so that a token allocates nothing.
    static SILU: RefCell<Vec<i32>> = const { RefCell::new(Vec::new()) };
}

/// Gives `f` a buffer of `width` numbers.
pub(super) fn with_buffer<R>(width: usize, f: impl FnOnce(&mut [i32]) -> R) -> R {
    SILU.with_borrow_mut(|buffer| {
        if buffer.len() < width {
            buffer.resize(width, 0);
        }
        f(&mut buffer[..width])
    })
}

/// The second half of a gated SiLU, see [`gate_row`](crate::activation::gate_row): `silu * up`, quantised.
#[inline(always)]
pub(super) fn silu_gate_row(silu: &[i32], up: &[i32], out: &mut [i16]) -> i32 {
    let product = |(&silu, &up): (&i32, &i32)| i64::from(silu) * i64::from(up);
    let max = silu.iter().zip(up).map(product).fold(0, |max, v| max.max(v.unsigned_abs()));
    let shift = activation_shift(max);
    for (out, pair) in out.iter_mut().zip(silu.iter().zip(up)) {
        *out = shift_by(product(pair), shift) as i16;
    }
    shift - 2 * RESIDUAL_BITS as i32
}

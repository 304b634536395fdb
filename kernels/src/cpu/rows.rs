//! Row kernels that gain from a buffer between their passes.

use std::cell::RefCell;

use crate::formats::{RESIDUAL_BITS, WEIGHT_BITS};
use crate::quantise::activation_shift;
use crate::rounding::{round_shift, shift_by};
use crate::tables::sigmoid;

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

/// [`silu_gate_row`](crate::scalar::silu_gate_row) with each sigmoid looked up once. `silu` is as long as the row.
#[inline(always)]
pub(super) fn silu_gate_row(gate: &[i32], up: &[i32], silu: &mut [i32], out: &mut [i16]) -> i32 {
    for (silu, &gate) in silu.iter_mut().zip(gate) {
        // At most |gate|.
        *silu = round_shift(i64::from(gate) * i64::from(sigmoid(gate)), WEIGHT_BITS) as i32;
    }
    let product = |(&silu, &up): (&i32, &i32)| i64::from(silu) * i64::from(up);
    let max = silu.iter().zip(up).map(product).fold(0, |max, v| max.max(v.unsigned_abs()));
    let shift = activation_shift(max);
    for (out, pair) in out.iter_mut().zip(silu.iter().zip(up)) {
        *out = shift_by(product(pair), shift) as i16;
    }
    shift - 2 * RESIDUAL_BITS as i32
}

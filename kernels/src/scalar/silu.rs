//! The gated SiLU of Llama's MLP: `silu(gate) * up`, `silu(x) = x sigmoid(x)`.

use crate::formats::{RESIDUAL_BITS, WEIGHT_BITS};
use crate::quantise::activation_shift;
use crate::rounding::{round_shift, shift_by};
use crate::tables::sigmoid;

/// Computes and quantises one row; returns the exponent of the activations. All three have the same length.
pub fn silu_gate_row(gate: &[i32], up: &[i32], out: &mut [i16]) -> i32 {
    let product = |(&gate, &up): (&i32, &i32)| {
        let silu = round_shift(i64::from(gate) * i64::from(sigmoid(gate)), WEIGHT_BITS);
        silu * i64::from(up)
    };
    let max = gate.iter().zip(up).map(product).fold(0, |max, v| max.max(v.unsigned_abs()));
    let shift = activation_shift(max);
    for (out, pair) in out.iter_mut().zip(gate.iter().zip(up)) {
        *out = shift_by(product(pair), shift) as i16;
    }
    shift - 2 * RESIDUAL_BITS as i32
}

//! Calls that write what a call before them read: a device that does them together must not overwrite what it still reads.

use super::cases::Stream;
use crate::activation::Activation;
use crate::backend::{Backend, BackendError, LinearWeights, NormWeights};
use crate::formats::Scale;

/// More outputs than a block of a device does at a time.
const WIDTH: usize = 70;

/// A square matrix.
fn linear<B: Backend>(backend: &B, s: &mut Stream) -> Result<B::Linear, BackendError> {
    let (mantissas, exponents) = s.scales(WIDTH);
    let scales = mantissas.into_iter().zip(exponents);
    let scales: Vec<Scale> = scales.filter_map(|(m, e)| Scale::new(m as u32, e as i32 - 2)).collect();
    let bytes: Vec<u8> = (0..WIDTH * WIDTH).map(|_| s.symmetric(127) as i8 as u8 ^ 0x80).collect();
    let (outputs, inputs) = (WIDTH, WIDTH);
    backend.load_linear(LinearWeights { outputs, inputs, bytes: &bytes, scales: &scales, groups: None })
}

fn values(s: &mut Stream, count: usize, bits: u32) -> Vec<i32> {
    s.values(count, bits).into_iter().map(|value| value as i32).collect()
}

/// A row that is normalised and multiplied to itself.
pub(super) fn normed_to_itself<B: Backend>(backend: &B) -> Result<Vec<i64>, BackendError> {
    let mut s = Stream::new(11);
    let weights = linear(backend, &mut s)?;
    let gains_q20 = values(&mut s, WIDTH, 21);
    let norm = NormWeights { gains_q20: &gains_q20, biases_q20: None, epsilon_q32: 42_950 };
    let norm = backend.load_norm(norm)?;
    let (mut x, mut rows) = (backend.residual(1, WIDTH)?, backend.activations(1, WIDTH)?);
    backend.write_residual(&values(&mut s, WIDTH, 20), &mut x)?;
    for _ in 0..2 {
        backend.norm(&x, &norm, &mut rows)?;
        backend.linear(&rows, &weights, &mut x)?;
    }
    let mut row = Vec::new();
    backend.read_row(&x, 0, &mut row)?;
    Ok(row.into_iter().map(i64::from).collect())
}

/// A row that is multiplied and activated to itself.
pub(super) fn gated_to_itself<B: Backend>(backend: &B) -> Result<Vec<i64>, BackendError> {
    let mut s = Stream::new(12);
    let weights = linear(backend, &mut s)?;
    let (mut x, mut rows) = (backend.residual(1, WIDTH)?, backend.activations(1, WIDTH)?);
    backend.write_residual(&values(&mut s, WIDTH, 20), &mut x)?;
    backend.quantise(&x, &mut rows)?;
    for _ in 0..3 {
        backend.linear(&rows, &weights, &mut x)?;
        backend.gate(Activation::Silu, &x, None, &mut rows)?;
    }
    let mut row = Vec::new();
    let exponent = backend.read_activations(&rows, 0, &mut row)?;
    Ok(row.into_iter().map(i64::from).chain([exponent.into()]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scalar;

    #[test]
    fn numbers_are_not_lost() {
        for numbers in [normed_to_itself(&Scalar::new()), gated_to_itself(&Scalar::new())] {
            let numbers = numbers.unwrap();
            assert!(numbers.iter().filter(|&&number| number == 0).count() < WIDTH / 4, "{numbers:?}");
        }
    }
}

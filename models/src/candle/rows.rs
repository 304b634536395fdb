//! Floats to the formats of `docs/numerics.md` and back.

use candle_core::{CpuStorage, Layout, Tensor};
use metis_kernels::Backend;
use metis_kernels::quantise::quantise;

use super::FixedError;

/// The elements of a tensor that [`Tensor::contiguous`] laid out, row by row.
pub(super) fn elements<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32], FixedError> {
    let elements = storage.as_slice::<f32>()?;
    let contiguous = layout.contiguous_offsets().and_then(|(from, to)| elements.get(from..to));
    contiguous.ok_or_else(|| FixedError::Shape {
        what: "layout",
        expected: "contiguous rows".into(),
        actual: layout.stride().to_vec(),
    })
}

/// The elements of a weight as the bits of IEEE singles.
pub(super) fn bits(tensor: &Tensor) -> Result<Vec<u32>, FixedError> {
    let values = tensor.to_dtype(candle_core::DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    Ok(values.into_iter().map(f32::to_bits).collect())
}

/// A tensor's length, the length of its last dimension and the number of rows before it.
pub(super) fn rows(what: &'static str, layout: &Layout, width: usize) -> Result<usize, FixedError> {
    let dims = layout.dims();
    match dims.split_last() {
        Some((&last, rows)) if last == width => Ok(rows.iter().product()),
        _ => Err(FixedError::Shape { what, expected: format!("[.., {width}]"), actual: dims.to_vec() }),
    }
}

/// A float in Q16: to nearest, ties toward plus infinity, saturating.
pub(super) fn q16(x: f32) -> Result<i32, FixedError> {
    if !x.is_finite() {
        return Err(FixedError::NotFinite(x));
    }
    let limit = f64::from(i32::MAX);
    Ok((f64::from(x) * 65_536.0 + 0.5).floor().clamp(-limit, limit) as i32)
}

/// Q16 in natural units.
pub(super) fn real(q16: i32) -> f32 {
    q16 as f32 / 65_536.0
}

/// Writes rows of floats in Q16.
pub(super) fn write_q16<B: Backend>(
    backend: &B,
    values: &[f32],
    width: usize,
) -> Result<B::Residual, FixedError> {
    let mut out = backend.residual(values.len().checked_div(width).unwrap_or(0), width)?;
    let values = values.iter().map(|&x| q16(x)).collect::<Result<Vec<_>, _>>()?;
    backend.write_residual(&values, &mut out)?;
    Ok(out)
}

/// All rows of Q16 numbers in natural units.
pub(super) fn read_q16<B: Backend>(
    backend: &B,
    x: &B::Residual,
    rows: usize,
) -> Result<Vec<f32>, FixedError> {
    let (mut all, mut row) = (Vec::new(), Vec::new());
    for i in 0..rows {
        backend.read_row(x, i, &mut row)?;
        all.extend(row.iter().map(|&x| real(x)));
    }
    Ok(all)
}

/// Quantises rows of floats to int16 with a power of two each, as [`quantise`] does with the exact values.
pub(super) fn write_activations<B: Backend>(
    backend: &B,
    values: &[f32],
    width: usize,
) -> Result<B::Activations, FixedError> {
    let rows = values.len().checked_div(width).unwrap_or(0);
    let (mut integers, mut exponents) = (vec![0; values.len()], Vec::with_capacity(rows));
    for (row, out) in values.chunks_exact(width.max(1)).zip(integers.chunks_exact_mut(width.max(1))) {
        exponents.push(quantise_floats(row, out)?);
    }
    let mut out = backend.activations(rows, width)?;
    backend.write_activations(&integers, &exponents, &mut out)?;
    Ok(out)
}

/// All rows of activations in natural units: exact, for 16 bits and a power of two fit a single.
pub(super) fn read_activations<B: Backend>(
    backend: &B,
    x: &B::Activations,
    rows: usize,
) -> Result<Vec<f32>, FixedError> {
    let (mut all, mut row) = (Vec::new(), Vec::new());
    for i in 0..rows {
        let unit = 2f64.powi(backend.read_activations(x, i, &mut row)?);
        all.extend(row.iter().map(|&a| (f64::from(a) * unit) as f32));
    }
    Ok(all)
}

/// The integers of a row; the result is their exponent.
fn quantise_floats(row: &[f32], out: &mut [i16]) -> Result<i32, FixedError> {
    if let Some(&x) = row.iter().find(|x| !x.is_finite()) {
        return Err(FixedError::NotFinite(x));
    }
    let max = row.iter().fold(0f32, |max, x| max.max(x.abs()));
    if max == 0.0 {
        out.fill(0);
        return Ok(-16);
    }
    // 2^magnitude <= max < 2^(magnitude + 1); every single is a normal double.
    let magnitude = (f64::from(max).to_bits() >> 52) as i32 - 1_023;
    // Below 2^61 and exact, but for elements so small that they become zero.
    let fractional = 60 - magnitude;
    let unit = 2f64.powi(fractional);
    let values: Vec<i64> = row.iter().map(|&x| (f64::from(x) * unit) as i64).collect();
    Ok(quantise(&values, 0, out) - fractional)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rows_that_are_activations_stay_what_they_are(
            row in prop::collection::vec(-32_512i16..=32_512, 1..40), exponent in -120i32..90,
        ) {
            let floats: Vec<f32> = row.iter().map(|&a| (f64::from(a) * 2f64.powi(exponent)) as f32).collect();
            let mut out = vec![0; row.len()];
            let got = quantise_floats(&floats, &mut out).unwrap();
            let back: Vec<f32> = out.iter().map(|&a| (f64::from(a) * 2f64.powi(got)) as f32).collect();
            prop_assert_eq!(back, floats);
        }

        #[test]
        fn a_row_in_q16_is_quantised_as_by_the_kernel(row in prop::collection::vec(-(1i32 << 24)..1 << 24, 1..40)) {
            let floats: Vec<f32> = row.iter().map(|&x| real(x)).collect();
            let (mut out, mut expected) = (vec![0; row.len()], vec![0; row.len()]);
            let exponent = metis_kernels::quantise::quantise_q16(&row, &mut expected);
            prop_assert_eq!(quantise_floats(&floats, &mut out).unwrap(), exponent);
            prop_assert_eq!(out, expected);
        }
    }

    #[test]
    fn q16_rounds_ties_up_saturates_and_refuses_what_is_no_number() {
        let half = 0.5 / 65_536.0;
        assert_eq!([half, -half, 1.5, -40_000.0].map(|x| q16(x).unwrap()), [1, 0, 98_304, -i32::MAX]);
        assert!([f32::NAN, f32::INFINITY].iter().all(|&x| q16(x).is_err()));
        assert!(quantise_floats(&[1.0, f32::NAN], &mut [0; 2]).is_err());
    }
}

//! Calls of many rows, whole layers, long sequences and choices: what a device computes in another way than one row, compared with the reference.

use std::sync::Arc;

use super::attention::Many;
use super::cases::Stream;
use super::layer::{Kind, layers};
use super::reuse::{gated_to_itself, normed_to_itself};
use super::selftest::KernelMismatch;
use crate::backend::{Attention, Backend, BackendError, KvShape, LinearWeights, Row, SampleRequest};
use crate::bounds::AttentionShape;
use crate::formats::{ACTIVATION_LIMIT, GROUP_INPUTS, Scale, TokenId};
use crate::mask::TokenMask;
use crate::sampling::Sampling;
use crate::scalar::Scalar;

/// A result, in numbers.
type Numbers = Result<Vec<i64>, BackendError>;

/// Compares the kernels that depend on how many rows there are; returns how many cases that were.
pub(super) fn check<B: Backend>(backend: &B) -> Result<usize, KernelMismatch> {
    let reference = Scalar::new();
    let mut cases = 0;
    let mut same = |kernel: &'static str, case: String, expected: Numbers, actual: Numbers| {
        cases += 1;
        let fail = |line: String| KernelMismatch { kernel, case: case.clone(), line };
        let expected = expected.map_err(|e| fail(e.to_string()))?;
        let actual = actual.map_err(|e| fail(e.to_string()))?;
        match expected.iter().zip(&actual).position(|(a, b)| a != b) {
            None if expected.len() == actual.len() => Ok(()),
            at => Err(fail(format!("number {} differs from the reference", at.unwrap_or_default()))),
        }
    };
    // More rows, outputs and inputs than a tile has; then few rows, by the kernels for so many; then so many inputs that warps go on, and a
    // row that does not fit a block.
    let shapes = [
        (70, 150, 200),
        // So few tiles that blocks share their inputs.
        (130, 40, 1_100),
        (20, 40, 1_700),
        (9, 33, 65),
        (7, 33, 65),
        (4, 33, 65),
        (2, 33, 65),
        (3, 9, 2_200),
        (1, 9, 4_200),
        (1, 3, 16_500),
    ];
    for (rows, outputs, inputs) in shapes {
        for grouped in [false, true] {
            let product = Product::new(rows, outputs, inputs, grouped);
            let case = format!("rows_{rows}_outputs_{outputs}_inputs_{inputs}_groups_{grouped}");
            same("linear", case, product.on(&reference), product.on(backend))?;
        }
    }
    for kind in Kind::all() {
        same("layer", kind.name(), layers(&reference, kind), layers(backend, kind))?;
    }
    let (expected, actual) = (normed_to_itself(&reference), normed_to_itself(backend));
    same("layer", "normed_to_itself".into(), expected, actual)?;
    let (expected, actual) = (gated_to_itself(&reference), gated_to_itself(backend));
    same("layer", "gated_to_itself".into(), expected, actual)?;
    for (causal, window) in [(true, None), (true, Some(40)), (false, None)] {
        let case = format!("causal_{causal}_window_{window:?}");
        let expected = long_attention(&reference, causal, window);
        same("attention", case, expected, long_attention(backend, causal, window))?;
    }
    for case in Many::ALL {
        same("attention", case.name(), case.on(&reference), case.on(backend))?;
    }
    same("choose", "drawn".into(), choices(&reference), choices(backend))?;
    Ok(cases)
}

/// A matrix product of several rows.
struct Product {
    bytes: Vec<u8>,
    scales: Vec<Scale>,
    groups: Option<Vec<u8>>,
    values: Vec<i16>,
    exponents: Vec<i32>,
    inputs: usize,
}

impl Product {
    fn new(rows: usize, outputs: usize, inputs: usize, grouped: bool) -> Self {
        let mut s = Stream::new((rows * outputs * inputs) as u64);
        let (mantissas, exponents) = s.scales(outputs);
        let scales = mantissas.into_iter().zip(exponents);
        Self {
            bytes: (0..outputs * inputs).map(|_| s.symmetric(127) as i8 as u8 ^ 0x80).collect(),
            scales: scales.filter_map(|(m, e)| Scale::new(m as u32, e as i32)).collect(),
            groups: grouped.then(|| {
                (0..outputs * inputs.div_ceil(GROUP_INPUTS)).map(|_| 1 + s.below(255) as u8).collect()
            }),
            values: (0..rows * inputs).map(|_| s.symmetric(ACTIVATION_LIMIT) as i16).collect(),
            exponents: (0..rows).map(|_| -(s.below(20) as i32)).collect(),
            inputs,
        }
    }

    /// The rows of the product, then the largest output of each.
    fn on<B: Backend>(&self, backend: &B) -> Numbers {
        let weights = backend.load_linear(LinearWeights {
            outputs: self.scales.len(),
            inputs: self.inputs,
            bytes: &self.bytes,
            scales: &self.scales,
            groups: self.groups.as_deref(),
        })?;
        let rows = self.exponents.len();
        let mut x = backend.activations(rows, self.inputs)?;
        backend.write_activations(&self.values, &self.exponents, &mut x)?;
        let mut out = backend.residual(rows, self.scales.len())?;
        backend.linear(&x, &weights, &mut out)?;
        let (mut numbers, mut row, mut chosen) = (Vec::new(), Vec::new(), Vec::new());
        for i in 0..rows {
            backend.read_row(&out, i, &mut row)?;
            numbers.extend(row.iter().map(|&value| i64::from(value)));
        }
        backend.argmax(&x, &weights, &mut chosen)?;
        numbers.extend(chosen.iter().map(|token| i64::from(token.0)));
        Ok(numbers)
    }
}

/// Attention of a prompt that is longer than a device does at once, then of one token; then of some tokens after the same prompt many times
/// over.
fn long_attention<B: Backend>(backend: &B, causal: bool, window: Option<usize>) -> Numbers {
    const POSITIONS: usize = 140;
    let shape = AttentionShape { heads: 2, kv_heads: 1, head_dim: 10 };
    let mut s = Stream::new(7);
    const TIMES: usize = 8;
    let capacity = TIMES * POSITIONS + 3;
    let mut cache = backend.kv_cache(KvShape { layers: 1, attention: shape, capacity })?;
    let mut numbers = Vec::new();
    for fed in [0..POSITIONS, POSITIONS..POSITIONS + 1, TIMES * POSITIONS..capacity] {
        if fed.end == capacity {
            let once = std::mem::replace(
                &mut cache,
                backend.kv_cache(KvShape { layers: 1, attention: shape, capacity })?,
            );
            (0..TIMES)
                .try_for_each(|i| backend.copy_positions(&once, 0..POSITIONS, &mut cache, i * POSITIONS))?;
        }
        let rows: Vec<Row> = fed.map(|position| Row { sequence: 0, position }).collect();
        let mut fill = |width: usize, bits| {
            let mut x = backend.residual(rows.len(), width)?;
            let values: Vec<i32> = s.values(rows.len() * width, bits).into_iter().map(|v| v as i32).collect();
            backend.write_residual(&values, &mut x)?;
            Ok::<_, BackendError>(x)
        };
        let q = fill(shape.query_width(), 18)?;
        let (k, v) = (fill(shape.kv_width(), 17)?, fill(shape.kv_width(), 20)?);
        let mut out = backend.activations(rows.len(), shape.query_width())?;
        let attention = Attention { causal, window, ..Attention::causal(0, shape.head_dim) };
        backend.attention(attention, &rows, &q, &k, &v, &mut [&mut cache], &mut out)?;
        let mut row = Vec::new();
        for i in 0..rows.len() {
            numbers.push(backend.read_activations(&out, i, &mut row)?.into());
            numbers.extend(row.iter().map(|&value| i64::from(value)));
        }
    }
    Ok(numbers)
}

/// Choices of every kind from logits of which some are equal.
fn choices<B: Backend>(backend: &B) -> Numbers {
    const WIDTH: usize = 1_300;
    let mut s = Stream::new(9);
    let logits: Vec<i32> = s.values(2 * WIDTH, 19).into_iter().map(|v| v as i32 / 64 * 64).collect();
    let mut x = backend.residual(2, WIDTH)?;
    backend.write_residual(&logits, &mut x)?;
    let mut mask = TokenMask::none(WIDTH);
    (0..WIDTH as u32).step_by(7).for_each(|id| mask.allow(TokenId(id)));
    let mask = Arc::new(mask);
    let mut requests = Vec::new();
    for position in 0..24 {
        let draws = Sampling { temperature_q16: 1 << 16, top_p_q16: 1 << 16, top_k: 0, seed: 5 };
        let sampling = match position % 4 {
            0 => Sampling::GREEDY,
            1 => draws,
            2 => Sampling { top_p_q16: 50_000, temperature_q16: 3 << 16, ..draws },
            _ => Sampling { top_k: 40, top_p_q16: 60_000, ..draws },
        };
        let mask = (position % 3 == 0).then(|| Arc::clone(&mask));
        requests.push(SampleRequest { row: position as usize % 2, sampling, position, mask });
    }
    let mut chosen = Vec::new();
    backend.sample(&x, &requests, &mut chosen)?;
    Ok(chosen.iter().map(|token| token.0.into()).collect())
}

//! Every kernel gives the scalar backend's bits for random shapes, rows and schedules.
#![cfg(shim)]
#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

use std::sync::Arc;

use metis_gpu::Gpu;
use metis_gpu_shim::Shim;
use metis_kernels::bounds::AttentionShape;
use metis_kernels::softmax::attention_scale;
use metis_kernels::{
    Attention, Backend, BackendError, KvShape, LinearWeights, Row, SampleRequest, Sampling, Scalar, Scale,
    SoftCap, TokenId, TokenMask,
};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

/// Numbers of a seed.
struct Stream(u64);

impl Stream {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 16
    }

    fn symmetric(&mut self, limit: i64) -> i64 {
        (self.next() % (2 * limit as u64 + 1)) as i64 - limit
    }

    fn values(&mut self, count: usize, bits: u32) -> Vec<i32> {
        (0..count).map(|_| self.symmetric((1 << bits) - 1) as i32).collect()
    }
}

struct Matrix {
    bytes: Vec<u8>,
    scales: Vec<Scale>,
    groups: Option<Vec<u8>>,
    inputs: usize,
}

impl Matrix {
    fn new(s: &mut Stream, outputs: usize, inputs: usize, grouped: bool) -> Self {
        // Now and then the largest sums there can be.
        let extreme = s.next().is_multiple_of(4);
        let weight = |s: &mut Stream| if extreme { 127 } else { s.symmetric(127) };
        let bytes = (0..outputs * inputs).map(|_| weight(s) as i8 as u8 ^ 0x80).collect();
        let scale = |s: &mut Stream| {
            Scale::new((1 << 22) + s.next() as u32 % (1 << 22), s.symmetric(20) as i32 - 30).unwrap()
        };
        let scales = (0..outputs).map(|_| scale(s)).collect();
        let groups =
            grouped.then(|| (0..outputs * inputs.div_ceil(32)).map(|_| 1 + (s.next() % 255) as u8).collect());
        Self { bytes, scales, groups, inputs }
    }

    fn weights(&self) -> LinearWeights<'_> {
        let Self { bytes, scales, groups, inputs } = self;
        LinearWeights { outputs: scales.len(), inputs: *inputs, bytes, scales, groups: groups.as_deref() }
    }
}

fn gpu(s: &mut Stream) -> Gpu<Shim> {
    Gpu::new(Shim::new(s.next()), usize::MAX).unwrap()
}

fn rows_of<B: Backend>(backend: &B, x: &B::Residual, rows: usize) -> Vec<Vec<i32>> {
    let read = |row| {
        let mut values = Vec::new();
        backend.read_row(x, row, &mut values).unwrap();
        values
    };
    (0..rows).map(read).collect()
}

fn product<B: Backend>(
    backend: &B,
    matrix: &Matrix,
    values: &[i16],
    exponents: &[i32],
) -> (Vec<Vec<i32>>, Vec<TokenId>) {
    let weights = backend.load_linear(matrix.weights()).unwrap();
    let mut x = backend.activations(exponents.len(), matrix.inputs).unwrap();
    backend.write_activations(values, exponents, &mut x).unwrap();
    let mut out = backend.residual(exponents.len(), matrix.scales.len()).unwrap();
    backend.linear(&x, &weights, &mut out).unwrap();
    let mut chosen = Vec::new();
    backend.argmax(&x, &weights, &mut chosen).unwrap();
    (rows_of(backend, &out, exponents.len()), chosen)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn matrix_products(
        rows in 1usize..150, outputs in 1usize..150, inputs in prop_oneof![1usize..300, 1_000usize..1_400],
        grouped: bool, few: bool, seed: u64,
    ) {
        let mut s = Stream(seed);
        let rows = if few { 1 + rows % 8 } else { rows };
        let matrix = Matrix::new(&mut s, outputs, inputs, grouped);
        let limit = if s.next().is_multiple_of(4) { 0 } else { 32_512 };
        let values: Vec<i16> = (0..rows * inputs)
            .map(|_| if limit == 0 { 32_512 } else { s.symmetric(limit) as i16 })
            .collect();
        let exponents: Vec<i32> = (0..rows).map(|_| -(s.next() as i32 % 24).abs()).collect();
        let expected = product(&Scalar::new(), &matrix, &values, &exponents);
        prop_assert_eq!(product(&gpu(&mut s), &matrix, &values, &exponents), expected);
    }
}

/// A step of several sequences on a backend: rows of attention after rows of attention.
#[derive(Clone, Debug)]
struct Steps {
    shape: AttentionShape,
    attention: Attention,
    /// For each step, how many rows each sequence is fed, and whether it goes back to its start first.
    steps: Vec<Vec<(usize, bool)>>,
    seed: u64,
}

fn attended<B: Backend>(backend: &B, case: &Steps) -> Result<Vec<(Vec<i16>, i32)>, BackendError> {
    let mut s = Stream(case.seed);
    let shape = KvShape { layers: 2, attention: case.shape, capacity: 300 };
    let sequences = case.steps[0].len();
    let mut caches: Vec<B::KvCache> =
        (0..sequences).map(|_| backend.kv_cache(shape)).collect::<Result<_, _>>()?;
    let mut at = vec![0; sequences];
    let mut answers = Vec::new();
    for (i, step) in case.steps.iter().enumerate() {
        let mut rows = Vec::new();
        for (sequence, &(count, back)) in step.iter().enumerate() {
            if back {
                at[sequence] = 0;
            }
            rows.extend((at[sequence]..at[sequence] + count).map(|position| Row { sequence, position }));
            at[sequence] += count;
        }
        if rows.is_empty() {
            continue;
        }
        let fill = |s: &mut Stream, width: usize, bits| {
            let mut x = backend.residual(rows.len(), width)?;
            backend.write_residual(&s.values(rows.len() * width, bits), &mut x)?;
            Ok::<_, BackendError>(x)
        };
        let q = fill(&mut s, case.shape.query_width(), 18)?;
        let k = fill(&mut s, case.shape.kv_width(), 17)?;
        let v = fill(&mut s, case.shape.kv_width(), 20)?;
        let mut out = backend.activations(rows.len(), case.shape.query_width())?;
        for layer in 0..2 {
            let attention = Attention { layer, ..case.attention };
            let mut borrowed: Vec<&mut B::KvCache> = caches.iter_mut().collect();
            backend.attention(attention, &rows, &q, &k, &v, &mut borrowed, &mut out)?;
        }
        let mut values = Vec::new();
        for row in 0..rows.len() {
            let exponent = backend.read_activations(&out, row, &mut values)?;
            answers.push((values.clone(), exponent));
        }
        // Now and then what one sequence has is copied to another one.
        if i == 0 && at[0] >= 3 {
            let mut copy = backend.kv_cache(shape)?;
            backend.copy_positions(&caches[0], 1..at[0], &mut copy, 0)?;
            caches[0] = copy;
            at[0] -= 1;
        }
    }
    Ok(answers)
}

fn steps() -> impl Strategy<Value = Steps> {
    let shape = (1usize..4, 1usize..4, 1usize..24);
    let view = (any::<bool>(), prop::option::of(1usize..40), any::<bool>());
    let step = prop::collection::vec((0usize..9, prop::bool::weighted(0.1)), 3);
    (shape, view, prop::collection::vec(step, 1..5), 0usize..180, any::<u64>()).prop_map(
        |((kv_heads, group, half), (causal, window, capped), mut steps, long, seed)| {
            // Longer than one block of threads.
            steps[0][0] = (long, false);
            let shape = AttentionShape { heads: kv_heads * group, kv_heads, head_dim: 2 * half };
            let attention = Attention {
                layer: 0,
                scale: attention_scale(shape.head_dim),
                causal: causal || window.is_some(),
                window,
                soft_cap: capped.then(|| SoftCap::new(50 << 16).unwrap().in_log2_units()),
            };
            Steps { shape, attention, steps, seed }
        },
    )
}

/// Attention of some rows after so many copies of one beginning that passes over all blocks do it.
fn attended_far<B: Backend>(
    backend: &B,
    shape: AttentionShape,
    [start, times, rows]: [usize; 3],
    attention: Attention,
    seed: u64,
) -> Result<Vec<(Vec<i16>, i32)>, BackendError> {
    let mut s = Stream(seed);
    let shape = KvShape { layers: 1, attention: shape, capacity: start * times + rows };
    let (mut first, mut cache) = (backend.kv_cache(shape)?, backend.kv_cache(shape)?);
    let mut answers = Vec::new();
    for (at, count) in [(0, start), (start * times, rows)] {
        let places: Vec<Row> = (at..at + count).map(|position| Row { sequence: 0, position }).collect();
        let mut fill = |width: usize, bits| {
            let mut x = backend.residual(count, width)?;
            backend.write_residual(&s.values(count * width, bits), &mut x)?;
            Ok::<_, BackendError>(x)
        };
        let q = fill(shape.attention.query_width(), 18)?;
        let (k, v) = (fill(shape.attention.kv_width(), 17)?, fill(shape.attention.kv_width(), 20)?);
        let mut out = backend.activations(count, shape.attention.query_width())?;
        let sequence = if at == 0 { &mut first } else { &mut cache };
        backend.attention(attention, &places, &q, &k, &v, &mut [sequence], &mut out)?;
        if at == 0 {
            (0..times).try_for_each(|i| backend.copy_positions(&first, 0..start, &mut cache, i * start))?;
        }
        let mut values = Vec::new();
        for row in 0..count {
            let exponent = backend.read_activations(&out, row, &mut values)?;
            answers.push((values.clone(), exponent));
        }
    }
    Ok(answers)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn attention_over_many_pages(
        kv_heads in 1usize..3, group in 1usize..4, half in 1usize..40, start in 40usize..70, rows in 1usize..12,
        causal: bool, window in prop::option::of(1_000usize..1_100), capped: bool, seed: u64,
    ) {
        let shape = AttentionShape { heads: kv_heads * group, kv_heads, head_dim: 2 * half };
        let attention = Attention {
            layer: 0,
            scale: attention_scale(shape.head_dim),
            causal: causal || window.is_some(),
            window,
            soft_cap: capped.then(|| SoftCap::new(50 << 16).unwrap().in_log2_units()),
        };
        let sizes = [start, 1_100usize.div_ceil(start), rows];
        let expected = attended_far(&Scalar::new(), shape, sizes, attention, seed).unwrap();
        prop_assert_eq!(attended_far(&gpu(&mut Stream(seed)), shape, sizes, attention, seed).unwrap(), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn attention_over_pages(case in steps()) {
        let expected = attended(&Scalar::new(), &case);
        let actual = attended(&gpu(&mut Stream(case.seed)), &case);
        match (expected, actual) {
            (Ok(expected), Ok(actual)) => prop_assert_eq!(actual, expected),
            (Err(expected), Err(actual)) => prop_assert_eq!(actual.to_string(), expected.to_string()),
            (expected, actual) => return Err(TestCaseError::fail(format!("{expected:?} {actual:?}"))),
        }
    }

    #[test]
    fn choices(
        width in prop_oneof![4 => 1usize..1_500, 1 => 8_000usize..20_000], spread in 10u32..22, temperature in 1u32 << 10..1 << 18, greedy: bool,
        top_p in prop_oneof![Just(1u32 << 16), 1u32..1 << 16], top_k in prop_oneof![Just(0u16), 1u16..60, 500u16..2_000],
        masked in prop::option::of(1u64..40), seed: u64,
    ) {
        let mut s = Stream(seed);
        let mut logits = s.values(3 * width, spread);
        // Equal logits, whose order is that of their tokens.
        for i in 0..logits.len() {
            if s.next().is_multiple_of(3) {
                logits[i] = logits[0];
            }
        }
        let mask = masked.map(|one_in| {
            let mut mask = TokenMask::none(width);
            mask.allow(TokenId((s.next() % width as u64) as u32));
            (0..width as u32).filter(|_| s.next().is_multiple_of(one_in)).for_each(|id| mask.allow(TokenId(id)));
            Arc::new(mask)
        });
        let sampling =
            Sampling { temperature_q16: if greedy { 0 } else { temperature }, top_p_q16: top_p, top_k, seed };
        let requests: Vec<SampleRequest> = (0..9)
            .map(|i| SampleRequest { row: i % 3, sampling, position: i as u64, mask: mask.clone().filter(|_| i != 4) })
            .collect();
        let backend = gpu(&mut s);
        let mut x = backend.residual(3, width).unwrap();
        backend.write_residual(&logits, &mut x).unwrap();
        let mut chosen = Vec::new();
        backend.sample(&x, &requests, &mut chosen).unwrap();
        for (request, &chosen) in requests.iter().zip(&chosen) {
            let row = &logits[request.row * width..][..width];
            let expected = match &request.mask {
                None => sampling.choose(row, request.position),
                Some(mask) => sampling.choose_among(row, mask, request.position).unwrap(),
            };
            prop_assert_eq!(chosen, expected);
        }
    }
}

#[test]
fn nothing_allowed_is_an_error() {
    let backend = gpu(&mut Stream(1));
    let mut x = backend.residual(1, 5).unwrap();
    backend.write_residual(&[1, 2, 3, 4, 5], &mut x).unwrap();
    let mask = Some(Arc::new(TokenMask::none(5)));
    let request = SampleRequest { row: 0, sampling: Sampling::GREEDY, position: 0, mask };
    assert!(backend.sample(&x, &[request], &mut Vec::new()).is_err());
}

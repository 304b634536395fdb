//! Claims that every backend must satisfy, instantiated per backend.
//!
//! A new backend adds one line to `suite!` at the end; its kernels are compared with arbitrary-precision formulas and with the
//! one-row, one-thread reference.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

mod support {
    pub(crate) mod grouped;
}

use std::sync::Arc;

use metis_kernels::rounding::{rescale, round_div, round_shift, saturate32, shift_by};
use metis_kernels::softmax::{attention_scale, normaliser, score, weight};
use metis_kernels::tables::sigmoid;
use metis_kernels::{
    ACTIVATION_LIMIT, Activation, Attention, AttentionShape, Backend, Cpu, CpuKind, KvShape, LinearWeights,
    NormWeights, Row, SampleRequest, Sampling, Scalar, Scale, SoftCap, TokenId, TokenMask,
};
use num_bigint::BigInt;
use proptest::prelude::*;
use support::grouped;

/// `i32` values of mixed magnitude.
fn q16() -> impl Strategy<Value = i32> {
    (0u32..31, any::<i32>()).prop_map(|(shift, v)| (v >> shift).max(-i32::MAX))
}

fn scale() -> impl Strategy<Value = Scale> {
    (1u32 << 22..1 << 23, -40i32..-10).prop_map(|(m, e)| Scale::new(m, e).unwrap())
}

fn byte() -> impl Strategy<Value = u8> {
    1u8..=255
}

#[derive(Clone, Debug)]
struct LinearCase {
    inputs: usize,
    bytes: Vec<u8>,
    scales: Vec<Scale>,
    rows: Vec<(Vec<i16>, i32)>,
}

fn linear_case() -> impl Strategy<Value = LinearCase> {
    (1usize..700, 1usize..20, 1usize..8).prop_flat_map(|(inputs, outputs, rows)| {
        let limit = ACTIVATION_LIMIT as i16;
        (
            prop::collection::vec(byte(), inputs * outputs),
            prop::collection::vec(scale(), outputs),
            prop::collection::vec((prop::collection::vec(-limit..=limit, inputs), -30i32..10), rows),
        )
            .prop_map(move |(bytes, scales, rows)| LinearCase { inputs, bytes, scales, rows })
    })
}

fn run_linear<B: Backend>(backend: &B, case: &LinearCase, rows: &[(Vec<i16>, i32)]) -> Vec<Vec<i32>> {
    let outputs = case.scales.len();
    let weights = LinearWeights {
        outputs,
        inputs: case.inputs,
        bytes: &case.bytes,
        scales: &case.scales,
        groups: None,
    };
    let weights = backend.load_linear(weights).unwrap();
    let mut x = backend.activations(rows.len(), case.inputs).unwrap();
    let values: Vec<i16> = rows.iter().flat_map(|r| r.0.clone()).collect();
    let exponents: Vec<i32> = rows.iter().map(|r| r.1).collect();
    backend.write_activations(&values, &exponents, &mut x).unwrap();
    let mut out = backend.residual(rows.len(), outputs).unwrap();
    backend.linear(&x, &weights, &mut out).unwrap();
    read_rows(backend, &out, rows.len())
}

fn read_rows<B: Backend>(backend: &B, x: &B::Residual, rows: usize) -> Vec<Vec<i32>> {
    (0..rows)
        .map(|i| {
            let mut row = Vec::new();
            backend.read_row(x, i, &mut row).unwrap();
            row
        })
        .collect()
}

fn read_activations<B: Backend>(backend: &B, x: &B::Activations, rows: usize) -> Vec<(Vec<i16>, i32)> {
    (0..rows)
        .map(|i| {
            let mut row = Vec::new();
            let exponent = backend.read_activations(x, i, &mut row).unwrap();
            (row, exponent)
        })
        .collect()
}

fn residual<B: Backend>(backend: &B, rows: &[Vec<i32>]) -> B::Residual {
    let mut x = backend.residual(rows.len(), rows[0].len()).unwrap();
    backend.write_residual(&rows.concat(), &mut x).unwrap();
    x
}

fn exact_rescale(acc: &BigInt, scale: Scale, exponent: i32) -> BigInt {
    let product = acc * scale.mantissa();
    let shifted = if exponent >= 0 {
        product << exponent as usize
    } else {
        let half: BigInt = BigInt::from(1) << (-exponent - 1) as usize;
        // `>>` of num-bigint rounds toward minus infinity.
        (product + half) >> (-exponent) as usize
    };
    shifted.clamp(BigInt::from(-i32::MAX), BigInt::from(i32::MAX))
}

fn linear_is_the_exact_formula<B: Backend>(backend: &B) {
    proptest!(ProptestConfig::with_cases(64), |(case in linear_case())| {
        let got = run_linear(backend, &case, &case.rows);
        for ((activations, exponent), row) in case.rows.iter().zip(&got) {
            for (output, value) in row.iter().enumerate() {
                let weights = &case.bytes[output * case.inputs..][..case.inputs];
                let acc: BigInt = weights.iter().zip(activations)
                    .map(|(&w, &a)| BigInt::from(i32::from((w ^ 0x80) as i8) * i32::from(a)))
                    .sum();
                let scale = case.scales[output];
                prop_assert_eq!(BigInt::from(*value), exact_rescale(&acc, scale, exponent + scale.exponent() + 16));
            }
        }
    });
}

/// Shapes of several panels, tiles and blocks with remainders, and results from all over the range: some saturate, some scale up.
fn linear_is_the_scalar_one<B: Backend>(backend: &B) {
    let scale = || (1u32 << 22..1 << 23, prop_oneof![-70i32..-10, -10i32..40]);
    let shape = (1usize..1_500, 1usize..100, 1usize..9);
    let case = (shape, scale(), -30i32..10, any::<u64>());
    proptest!(ProptestConfig::with_cases(48), |(((inputs, outputs, rows), (mantissa, exponent), e, seed) in case)| {
        let mut random = Random(seed);
        let mut small = |limit: i64| (random.next() % (2 * limit as u64 + 1)) as i64 - limit;
        let case = LinearCase {
            inputs,
            bytes: (0..inputs * outputs).map(|_| (small(127) as i8 as u8) ^ 0x80).collect(),
            scales: (0..outputs).map(|_| Scale::new(mantissa, exponent + small(3) as i32).unwrap()).collect(),
            rows: (0..rows)
                .map(|_| ((0..inputs).map(|_| small(ACTIVATION_LIMIT) as i16).collect(), e + small(2) as i32))
                .collect(),
        };
        prop_assert_eq!(run_linear(backend, &case, &case.rows), run_linear(&Scalar::new(), &case, &case.rows));
    });
}

/// Few scales and few weights, so that many outputs are equal; sometimes all of them saturate.
fn argmax_is_the_first_of_the_largest_outputs<B: Backend>(backend: &B) {
    let case = ((1usize..600, 1usize..300, 1usize..15), 1i64..=127, -60i32..20, 0i64..4, any::<u64>());
    proptest!(ProptestConfig::with_cases(64), |(((inputs, outputs, rows), limit, exponent, spread, seed) in case)| {
        let mut random = Random(seed);
        let mut small = |limit: i64| (random.next() % (2 * limit as u64 + 1)) as i64 - limit;
        let mut scale = || Scale::new((1 << 22) + 1_000 * small(1).unsigned_abs() as u32, exponent + small(spread) as i32).unwrap();
        let scales: Vec<Scale> = (0..outputs).map(|_| scale()).collect();
        let bytes: Vec<u8> = (0..inputs * outputs).map(|_| (small(limit) as i8 as u8) ^ 0x80).collect();
        let rows: Vec<(Vec<i16>, i32)> = (0..rows)
            .map(|_| ((0..inputs).map(|_| small(ACTIVATION_LIMIT) as i16).collect(), small(2) as i32))
            .collect();
        let case = LinearCase { inputs, bytes, scales, rows };
        let expected: Vec<TokenId> = run_linear(&Scalar::new(), &case, &case.rows).iter().map(|row| {
            let largest = row.iter().max().unwrap();
            TokenId(row.iter().position(|value| value == largest).unwrap() as u32)
        }).collect();
        let weights = LinearWeights { outputs, inputs, bytes: &case.bytes, scales: &case.scales, groups: None };
        let weights = backend.load_linear(weights).unwrap();
        let mut x = backend.activations(case.rows.len(), inputs).unwrap();
        let values: Vec<i16> = case.rows.iter().flat_map(|r| r.0.clone()).collect();
        let exponents: Vec<i32> = case.rows.iter().map(|r| r.1).collect();
        backend.write_activations(&values, &exponents, &mut x).unwrap();
        let mut out = vec![TokenId(7)];
        backend.argmax(&x, &weights, &mut out).unwrap();
        prop_assert_eq!(out, expected);
    });
}

/// The widest layer that the bounds allow, with every product as large as it can be.
fn the_longest_sums_do_not_overflow<B: Backend>(backend: &B) {
    let inputs = metis_kernels::bounds::MAX_INPUTS;
    for (byte, value) in [(0xff, 1), (0xff, -1), (0x01, 1), (0x01, -1)] {
        let row = vec![value * ACTIVATION_LIMIT as i16; inputs];
        let scales = vec![Scale::new(1 << 22, -40).unwrap(); 17];
        let case = LinearCase { inputs, bytes: vec![byte; 17 * inputs], scales, rows: vec![(row, 0); 2] };
        let weights =
            LinearWeights { outputs: 17, inputs, bytes: &case.bytes, scales: &case.scales, groups: None };
        let weights = backend.load_linear(weights).unwrap();
        let mut x = backend.activations(1, inputs).unwrap();
        backend.write_activations(&case.rows[0].0, &[0], &mut x).unwrap();
        let mut out = vec![];
        backend.argmax(&x, &weights, &mut out).unwrap();
        assert_eq!(out, [TokenId(0)]);
        assert_eq!(run_linear(backend, &case, &case.rows), run_linear(&Scalar::new(), &case, &case.rows));
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014): proptest's own vectors are slow at these sizes.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn q16(&mut self) -> i32 {
        let shift = self.next() % 31;
        ((self.next() as i32) >> shift).max(-i32::MAX)
    }
}

/// Heads as real models have them, several sequences in one call, fed in chunks.
fn attention_is_the_scalar_one<B: Backend>(backend: &B) {
    let shape =
        (1usize..4, 1usize..8, prop_oneof![Just(64usize), Just(128), Just(80), Just(256), 1usize..40]);
    let window = prop_oneof![Just(None), (1usize..80).prop_map(Some)];
    let view = (any::<bool>(), window, prop_oneof![Just(None), (1i32..60).prop_map(Some)]);
    let case = (shape, 1usize..90, 1usize..40, any::<u64>(), view);
    proptest!(ProptestConfig::with_cases(32), |(((kv_heads, group, dim), positions, chunk, seed, view) in case)| {
        let shape = AttentionShape { heads: kv_heads * group, kv_heads, head_dim: dim.next_multiple_of(2) };
        let (causal, window, cap) = view;
        let view = Attention {
            causal,
            window: window.filter(|_| causal),
            soft_cap: cap.and_then(|cap| SoftCap::new(cap << 16)),
            ..Attention::causal(0, shape.head_dim)
        };
        // Of a sequence that is not causal, every row sees what has been fed: the chunks must be the same.
        let reference_chunk = if causal { 1 } else { chunk };
        let mut random = Random(seed);
        let mut row = |width: usize| (0..width).map(|_| random.q16()).collect::<Vec<i32>>();
        let rows: Vec<[Vec<i32>; 3]> = (0..2 * positions)
            .map(|_| [row(shape.query_width()), row(shape.kv_width()), row(shape.kv_width())])
            .collect();
        prop_assert_eq!(
            two_sequences(backend, shape, view, &rows, chunk),
            two_sequences(&Scalar::new(), shape, view, &rows, reference_chunk)
        );
    });
}

/// Rows alternate between two sequences.
fn two_sequences<B: Backend>(
    backend: &B,
    attention: AttentionShape,
    view: Attention,
    rows: &[[Vec<i32>; 3]],
    chunk: usize,
) -> Vec<(Vec<i16>, i32)> {
    let cache = || backend.kv_cache(KvShape { layers: 1, attention, capacity: rows.len() }).unwrap();
    let (mut first, mut second) = (cache(), cache());
    let mut answers = Vec::new();
    for (i, rows) in rows.chunks(chunk).enumerate() {
        let part = |j: usize| residual(backend, &rows.iter().map(|r| r[j].clone()).collect::<Vec<_>>());
        let places: Vec<Row> = (i * chunk..i * chunk + rows.len())
            .map(|at| Row { sequence: at % 2, position: at / 2 })
            .collect();
        let mut out = backend.activations(rows.len(), attention.query_width()).unwrap();
        let (q, k, v) = (part(0), part(1), part(2));
        backend.attention(view, &places, &q, &k, &v, &mut [&mut first, &mut second], &mut out).unwrap();
        answers.extend(read_activations(backend, &out, rows.len()));
    }
    answers
}

/// Row kernels over the whole range of their inputs.
fn rows_are_the_scalar_ones<B: Backend>(backend: &B) {
    let scalar = Scalar::new();
    proptest!(ProptestConfig::with_cases(64), |(width in 1usize..700, rows in 1usize..4, runs in 1usize..4, seed: u64)| {
        let mut random = Random(seed);
        let mut some = |n: usize| (0..n).map(|_| random.q16()).collect::<Vec<i32>>();
        let (x, y): (Vec<_>, Vec<_>) = (0..rows).map(|_| (some(width * runs), some(width * runs))).unzip();
        let (gains, biases): (Vec<i32>, Vec<i32>) = some(width).iter().zip(&some(width)).map(|(g, b)| (g >> 2, b >> 2)).unzip();
        prop_assert_eq!(
            row_kernels(backend, &x, &y, &gains, &biases),
            row_kernels(&scalar, &x, &y, &gains, &biases)
        );
    });
}

/// Rows of activations with their exponents.
type QuantisedRows = Vec<(Vec<i16>, i32)>;

/// What every row kernel makes of the rows.
fn row_kernels<B: Backend>(
    backend: &B,
    x: &[Vec<i32>],
    y: &[Vec<i32>],
    gains: &[i32],
    biases: &[i32],
) -> (Vec<QuantisedRows>, Vec<Vec<Vec<i32>>>) {
    let (rows, width) = (x.len(), x[0].len());
    let mut out = backend.activations(rows, width).unwrap();
    let (x_rows, y_rows) = (residual(backend, x), residual(backend, y));
    let (mut quantised, mut q16) = (vec![], vec![]);
    for biases_q20 in [None, Some(biases)] {
        let norm = NormWeights { gains_q20: gains, biases_q20, epsilon_q32: 42_950 };
        let norm = backend.load_norm(norm).unwrap();
        let mut runs = residual(backend, x);
        backend.normalise(&mut runs, &norm).unwrap();
        q16.push(read_rows(backend, &runs, rows));
        if width == gains.len() {
            backend.norm(&x_rows, &norm, &mut out).unwrap();
            quantised.push(read_activations(backend, &out, rows));
        }
    }
    for activation in [Activation::Silu, Activation::GeluTanh, Activation::GeluErf] {
        for up in [None, Some(&y_rows)] {
            backend.gate(activation, &x_rows, up, &mut out).unwrap();
            quantised.push(read_activations(backend, &out, rows));
        }
    }
    backend.quantise(&x_rows, &mut out).unwrap();
    quantised.push(read_activations(backend, &out, rows));
    let mut sum = residual(backend, x);
    backend.add_bias(&mut sum, &backend.load_bias(&y[0]).unwrap()).unwrap();
    q16.push(read_rows(backend, &sum, rows));
    backend.soft_cap(&mut sum, SoftCap::new(30 << 16).unwrap()).unwrap();
    q16.push(read_rows(backend, &sum, rows));
    (quantised, q16)
}

fn rows_of_linear_do_not_see_each_other<B: Backend>(backend: &B) {
    proptest!(ProptestConfig::with_cases(64), |(case in linear_case())| {
        let together = run_linear(backend, &case, &case.rows);
        for (row, expected) in case.rows.iter().zip(&together) {
            prop_assert_eq!(&run_linear(backend, &case, std::slice::from_ref(row))[0], expected);
        }
    });
}

fn norms_are_close_to_the_real_ones<B: Backend>(backend: &B) {
    let width = 1usize..400;
    let case = width.prop_flat_map(|n| {
        let gains = prop::collection::vec(-(8i32 << 20)..8 << 20, n);
        // Half the range: what is further from the mean than the format is wide saturates.
        let row = prop::collection::vec(q16().prop_map(|x| x / 2), n);
        (prop::collection::vec(row, 1..5), gains.clone(), prop::option::of(gains))
    });
    proptest!(ProptestConfig::with_cases(64), |((rows, gains, biases) in case)| {
        let epsilon_q32 = 42_950i64;
        let norm = NormWeights { gains_q20: &gains, biases_q20: biases.as_deref(), epsilon_q32 };
        let norm = backend.load_norm(norm).unwrap();
        let mut out = backend.activations(rows.len(), gains.len()).unwrap();
        let mut x = residual(backend, &rows);
        backend.norm(&x, &norm, &mut out).unwrap();
        backend.normalise(&mut x, &norm).unwrap();
        let normalised = read_rows(backend, &x, rows.len());
        for ((x, (values, exponent)), q16) in rows.iter().zip(read_activations(backend, &out, rows.len())).zip(normalised) {
            let real: Vec<f64> = x.iter().map(|&v| f64::from(v) / 65536.0).collect();
            let mean = if biases.is_some() { real.iter().sum::<f64>() / real.len() as f64 } else { 0.0 };
            let square = real.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / real.len() as f64;
            let factor = 1.0 / (square + epsilon_q32 as f64 / 2f64.powi(32)).sqrt();
            let step = 2f64.powi(exponent);
            for (i, (x, value)) in real.iter().zip(values).enumerate() {
                let gain = f64::from(gains[i]) / 2f64.powi(20);
                let bias = biases.as_ref().map_or(0.0, |b| f64::from(b[i]) / 2f64.powi(20));
                let normalised = (x - mean) * factor;
                let expected = normalised * gain + bias;
                // Half a step of the result, Q20 of the normalised value, the 2^-29 of the root, and the mean's half step of Q16.
                let rounded = gain.abs() / 2f64.powi(21) + (expected - bias).abs() * 1e-6
                    + if biases.is_some() { gain.abs() * factor / 2f64.powi(17) * (1.0 + normalised.powi(2)) * 1.1 } else { 0.0 };
                prop_assert!((f64::from(value) * step - expected).abs() <= step * 0.51 + rounded + 1e-9);
                prop_assert!((f64::from(q16[i]) / 65536.0 - expected).abs() <= 0.51 / 65536.0 + rounded + 1e-9);
            }
        }
    });
}

fn rope_keeps_lengths_and_row_order<B: Backend>(backend: &B) {
    let frequencies = metis_kernels::tables::rope_frequencies(10_000, 16);
    let case = prop::collection::vec((prop::collection::vec(-(1i32 << 28)..1 << 28, 48), 0usize..512), 1..6);
    proptest!(ProptestConfig::with_cases(64), |(case in case)| {
        let rope = backend.load_rope(&frequencies, 512).unwrap();
        let rows: Vec<Row> = case.iter().map(|c| Row { sequence: 0, position: c.1 }).collect();
        let input: Vec<Vec<i32>> = case.iter().map(|c| c.0.clone()).collect();
        let mut x = residual(backend, &input);
        backend.rope(&rope, &rows, 16, &mut x).unwrap();
        let out = read_rows(backend, &x, rows.len());
        for ((before, after), row) in input.iter().zip(&out).zip(&rows) {
            for (a, b) in before.chunks(16).zip(after.chunks(16)) {
                let norm = |h: &[i32]| h.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
                prop_assert!((norm(a) - norm(b)).abs() < 4.0);
            }
            let mut alone = residual(backend, std::slice::from_ref(before));
            backend.rope(&rope, &[*row], 16, &mut alone).unwrap();
            prop_assert_eq!(&read_rows(backend, &alone, 1)[0], after);
        }
    });
}

#[derive(Clone, Debug)]
struct AttentionCase {
    shape: AttentionShape,
    /// Queries, keys and values of each position.
    rows: Vec<[Vec<i32>; 3]>,
}

fn attention_case() -> impl Strategy<Value = AttentionCase> {
    (1usize..3, 1usize..4, 1usize..9, 1usize..24).prop_flat_map(|(kv_heads, group, half, positions)| {
        let shape = AttentionShape { heads: kv_heads * group, kv_heads, head_dim: 2 * half };
        let row = |width: usize| prop::collection::vec(-(1i32 << 20)..1 << 20, width);
        let rows = prop::collection::vec(
            [row(shape.query_width()).boxed(), row(shape.kv_width()).boxed(), row(shape.kv_width()).boxed()],
            positions,
        );
        rows.prop_map(move |rows| AttentionCase { shape, rows })
    })
}

fn run_attention<B: Backend>(backend: &B, case: &AttentionCase, chunk: usize) -> Vec<(Vec<i16>, i32)> {
    let capacity = case.rows.len();
    let mut cache = backend.kv_cache(KvShape { layers: 1, attention: case.shape, capacity }).unwrap();
    let mut answers = Vec::new();
    for (i, rows) in case.rows.chunks(chunk).enumerate() {
        let part = |j: usize| residual(backend, &rows.iter().map(|r| r[j].clone()).collect::<Vec<_>>());
        let positions: Vec<Row> =
            (0..rows.len()).map(|j| Row { sequence: 0, position: i * chunk + j }).collect();
        let mut out = backend.activations(rows.len(), case.shape.query_width()).unwrap();
        let (q, k, v) = (part(0), part(1), part(2));
        let view = Attention::causal(0, case.shape.head_dim);
        backend.attention(view, &positions, &q, &k, &v, &mut [&mut cache], &mut out).unwrap();
        answers.extend(read_activations(backend, &out, rows.len()));
    }
    answers
}

fn attention_does_not_depend_on_chunks<B: Backend>(backend: &B) {
    proptest!(ProptestConfig::with_cases(64), |(case in attention_case(), chunk in 1usize..30)| {
        prop_assert_eq!(run_attention(backend, &case, 1), run_attention(backend, &case, chunk));
    });
}

/// Positions of three sequences, copied from one to another as a cache of prefixes would, and over older ones.
fn copied_positions_are_the_written_ones<B: Backend>(backend: &B) {
    let cuts = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1usize..30);
    proptest!(ProptestConfig::with_cases(64), |(case in attention_case(), (cut, end, stale) in cuts)| {
        let shape = |capacity| KvShape { layers: 1, attention: case.shape, capacity };
        let positions = case.rows.len();
        let (expected, full) = feed(backend, case.shape.head_dim, &case.rows, backend.kv_cache(shape(positions)).unwrap(), 0);
        let end = end.index(positions + 1);
        let cut = cut.index(end + 1);

        let mut middle = backend.kv_cache(shape(positions)).unwrap();
        backend.copy_positions(&full, cut..end, &mut middle, 0).unwrap();
        // What the target has after the copy is forgotten, whatever it was.
        let old: Vec<_> = case.rows.iter().cycle().skip(1).take(stale).cloned().collect();
        let (_, mut copy) = feed(backend, case.shape.head_dim, &old, backend.kv_cache(shape(positions + stale)).unwrap(), 0);
        backend.copy_positions(&full, 0..cut, &mut copy, 0).unwrap();
        backend.copy_positions(&middle, 0..end - cut, &mut copy, cut).unwrap();
        let (got, _) = feed(backend, case.shape.head_dim, &case.rows[end..], copy, end);
        prop_assert_eq!(&got[..], &expected[end..]);
    });
}

/// Feeds rows to one sequence from `start` on, one call for all of them.
fn feed<B: Backend>(
    backend: &B,
    head_dim: usize,
    rows: &[[Vec<i32>; 3]],
    mut cache: B::KvCache,
    start: usize,
) -> (Vec<(Vec<i16>, i32)>, B::KvCache) {
    let Some([query, ..]) = rows.first() else { return (Vec::new(), cache) };
    let part = |j: usize| residual(backend, &rows.iter().map(|r| r[j].clone()).collect::<Vec<_>>());
    let places: Vec<Row> = (0..rows.len()).map(|i| Row { sequence: 0, position: start + i }).collect();
    let mut out = backend.activations(rows.len(), query.len()).unwrap();
    let (q, k, v) = (part(0), part(1), part(2));
    let view = Attention::causal(0, head_dim);
    backend.attention(view, &places, &q, &k, &v, &mut [&mut cache], &mut out).unwrap();
    (read_activations(backend, &out, rows.len()), cache)
}

fn copies_that_do_not_fit_are_errors<B: Backend>(backend: &B) {
    let attention = AttentionShape { heads: 1, kv_heads: 1, head_dim: 2 };
    let cache =
        |layers, attention, capacity| backend.kv_cache(KvShape { layers, attention, capacity }).unwrap();
    let rows = vec![[vec![1, 2], vec![3, 4], vec![5, 6]]; 3];
    let (_, full) = feed(backend, attention.head_dim, &rows, cache(1, attention, 3), 0);
    let copy = |range, mut to, at| backend.copy_positions(&full, range, &mut to, at);
    assert!(copy(0..3, cache(1, attention, 3), 0).is_ok());
    assert!(copy(1..2, cache(1, attention, 1), 0).is_ok());
    assert!(copy(0..0, cache(1, attention, 1), 0).is_ok());
    assert!(copy(0..4, cache(1, attention, 9), 0).is_err(), "never written");
    assert!(copy(0..3, cache(1, attention, 2), 0).is_err(), "no room");
    assert!(copy(0..1, cache(1, attention, 9), 1).is_err(), "a gap");
    assert!(copy(0..1, cache(2, attention, 9), 0).is_err(), "layers");
    assert!(copy(0..1, cache(1, AttentionShape { head_dim: 4, ..attention }, 9), 0).is_err(), "heads");
}

fn a_caches_bytes_are_counted<B: Backend>(backend: &B) {
    let attention = AttentionShape { heads: 4, kv_heads: 2, head_dim: 64 };
    let bytes = |layers, capacity| backend.kv_bytes(KvShape { layers, attention, capacity });
    // An int16 and an int8 per channel, at least.
    assert!(bytes(3, 160) >= 3 * 160 * 2 * 64 * 3 && bytes(3, 160) <= 3 * 160 * 2 * 64 * 4);
    assert_eq!(bytes(6, 160), 2 * bytes(3, 160));
    // What does not grow with the positions is little.
    assert!(bytes(3, 320) <= 2 * bytes(3, 160) && bytes(3, 320) > 19 * bytes(3, 160) / 10);
    assert_eq!((bytes(usize::MAX, 160), bytes(3, usize::MAX)), (usize::MAX, usize::MAX));
}

/// The softmax and value sum of section 5 of docs/numerics.md, written out once more with plain loops.
fn attention_is_the_written_formula<B: Backend>(backend: &B) {
    proptest!(ProptestConfig::with_cases(32), |(case in attention_case())| {
        let AttentionShape { heads, kv_heads, head_dim } = case.shape;
        let quantised = |x: &[i32]| {
            let max = x.iter().map(|v| i64::from(*v).abs()).max().unwrap() as u64;
            let shift = metis_kernels::quantise::activation_shift(max);
            (x.iter().map(|&v| shift_by(i64::from(v), shift)).collect::<Vec<i64>>(), shift - 16)
        };
        for (position, got) in run_attention(backend, &case, case.rows.len()).into_iter().enumerate() {
            let mut expected = Vec::new();
            for head in 0..heads {
                let kv = (head / (heads / kv_heads)) * head_dim;
                let (q, eq) = quantised(&case.rows[position][0][head * head_dim..][..head_dim]);
                let (mut scores, mut values, mut maxima) = (Vec::new(), Vec::new(), Vec::new());
                for [_, k, v] in &case.rows[..=position] {
                    let (k, ek) = quantised(&k[kv..][..head_dim]);
                    let dot: i64 = q.iter().zip(&k).map(|(a, b)| a * b).sum();
                    scores.push(score(dot, eq + ek, attention_scale(head_dim)));
                    let max = v[kv..][..head_dim].iter().map(|v| i64::from(*v).abs()).max().unwrap();
                    maxima.push(max);
                    values.push(v[kv..][..head_dim].iter()
                        .map(|&v| if max == 0 { 0 } else { round_div(127 * i64::from(v), max) })
                        .collect::<Vec<i64>>());
                }
                let top = *scores.iter().max().unwrap();
                let weights: Vec<u64> = scores.iter().map(|&s| u64::from(weight(s, top))).collect();
                let products: Vec<i64> = weights.iter().zip(&maxima).map(|(&w, &m)| w as i64 * m).collect();
                let shift = metis_kernels::quantise::activation_shift(*products.iter().max().unwrap() as u64);
                let scale = normaliser(weights.iter().sum());
                for i in 0..head_dim {
                    let sum: i64 = products.iter().zip(&values).map(|(&p, v)| shift_by(p, shift) * v[i]).sum();
                    expected.push(rescale(sum, scale.mantissa(), shift + scale.exponent()));
                }
            }
            let (values, exponent) = quantised(&expected);
            let values: Vec<i16> = values.into_iter().map(|v| v as i16).collect();
            prop_assert_eq!(got, (values, exponent));
        }
    });
}

fn silu_gate_is_the_written_formula<B: Backend>(backend: &B) {
    let pair =
        (1usize..300).prop_flat_map(|n| (prop::collection::vec(q16(), n), prop::collection::vec(q16(), n)));
    proptest!(ProptestConfig::with_cases(64), |((gate, up) in pair)| {
        let products: Vec<i64> = gate.iter().zip(&up)
            .map(|(&g, &u)| round_shift(i64::from(g) * i64::from(sigmoid(g)), 30) * i64::from(u))
            .collect();
        let shift = metis_kernels::quantise::activation_shift(products.iter().map(|p| p.unsigned_abs()).max().unwrap());
        let expected: Vec<i16> = products.iter().map(|&p| shift_by(p, shift) as i16).collect();
        let mut out = backend.activations(1, gate.len()).unwrap();
        let (gate, up) = (residual(backend, &[gate]), residual(backend, &[up]));
        backend.gate(Activation::Silu, &gate, Some(&up), &mut out).unwrap();
        prop_assert_eq!(&read_activations(backend, &out, 1)[0], &(expected, shift - 32));
    });
}

fn embedding_rows_are_the_written_formula<B: Backend>(backend: &B) {
    let case = (prop::collection::vec(byte(), 1..60), scale(), scale());
    proptest!(ProptestConfig::with_cases(64), |((bytes, row, factor) in case)| {
        let weights = LinearWeights { outputs: 1, inputs: bytes.len(), bytes: &bytes, scales: &[row], groups: None };
        let table = backend.load_linear(weights).unwrap();
        let mut x = backend.residual(1, bytes.len()).unwrap();
        backend.embed(&table, &[TokenId(0)], factor, &mut x).unwrap();
        let (mantissa, exponent) = metis_kernels::rounding::product(row.mantissa(), row.exponent(), factor);
        let expected: Vec<i32> =
            bytes.iter().map(|&b| rescale(i64::from((b ^ 0x80) as i8), mantissa, exponent + 16)).collect();
        prop_assert_eq!(&read_rows(backend, &x, 1)[0], &expected);
    });
}

fn add_saturates<B: Backend>(backend: &B) {
    proptest!(|(x in prop::collection::vec((q16(), q16()), 1..100))| {
        let (a, b): (Vec<i32>, Vec<i32>) = x.iter().copied().unzip();
        let mut sum = residual(backend, &[a]);
        backend.add(&mut sum, &residual(backend, &[b])).unwrap();
        let expected: Vec<i32> = x.iter().map(|&(a, b)| saturate32(i64::from(a) + i64::from(b))).collect();
        prop_assert_eq!(&read_rows(backend, &sum, 1)[0], &expected);
    });
}

fn sampling_is_the_host_function<B: Backend>(backend: &B) {
    let rows = (2usize..60).prop_flat_map(|n| prop::collection::vec(prop::collection::vec(q16(), n), 1..5));
    proptest!(ProptestConfig::with_cases(64), |(rows in rows, seed: u64, temperature_q16 in 1u32 << 10..=1 << 22)| {
        let sampling = Sampling { temperature_q16, top_p_q16: 60_000, top_k: 9, seed };
        let requests: Vec<SampleRequest> = (0..rows.len())
            .flat_map(|row| [(row, sampling), (row, Sampling::GREEDY)])
            .flat_map(|(row, sampling)| {
                let mut mask = TokenMask::none(rows[row].len());
                (0..rows[row].len()).filter(|id| id == &1 || seed >> id & 1 == 1).for_each(|id| mask.allow(TokenId(id as u32)));
                [None, Some(Arc::new(mask))].map(|mask| SampleRequest { row, sampling, position: 7, mask })
            })
            .collect();
        let mut out = Vec::new();
        let logits = residual(backend, &rows);
        backend.sample(&logits, &requests, &mut out).unwrap();
        let choose = |r: &SampleRequest| match &r.mask {
            None => r.sampling.choose(&rows[r.row], r.position),
            Some(mask) => r.sampling.choose_among(&rows[r.row], mask, r.position).unwrap(),
        };
        prop_assert_eq!(&out, &requests.iter().map(choose).collect::<Vec<TokenId>>());
        let nothing = SampleRequest { mask: Some(Arc::new(TokenMask::none(rows[0].len()))), ..requests[0].clone() };
        prop_assert!(backend.sample(&logits, &[nothing], &mut out).is_err());
    });
}

fn misuse_is_an_error_and_not_a_panic<B: Backend>(backend: &B) {
    let scales = [Scale::ONE];
    assert!(
        backend
            .load_linear(LinearWeights { outputs: 1, inputs: 2, bytes: &[1], scales: &scales, groups: None })
            .is_err()
    );
    assert!(
        backend
            .load_linear(LinearWeights { outputs: 1, inputs: 1, bytes: &[0], scales: &scales, groups: None })
            .is_err()
    );
    assert!(
        backend
            .load_linear(LinearWeights { outputs: 0, inputs: 1, bytes: &[], scales: &[], groups: None })
            .is_err()
    );
    let table = backend
        .load_linear(LinearWeights { outputs: 1, inputs: 1, bytes: &[1], scales: &scales, groups: None })
        .unwrap();
    let mut x = backend.residual(1, 1).unwrap();
    assert!(backend.embed(&table, &[TokenId(1)], Scale::ONE, &mut x).is_err());
    assert!(backend.embed(&table, &[TokenId(0); 2], Scale::ONE, &mut x).is_err());
    assert!(backend.read_row(&x, 3, &mut Vec::new()).is_err());
    assert!(
        backend.load_norm(NormWeights { gains_q20: &[i32::MAX], biases_q20: None, epsilon_q32: 0 }).is_err()
    );
    assert!(backend.load_norm(NormWeights { gains_q20: &[1], biases_q20: None, epsilon_q32: -1 }).is_err());
    assert!(backend.load_rope(&[], 4).is_err());
    let shape = AttentionShape { heads: 3, kv_heads: 2, head_dim: 2 };
    assert!(backend.kv_cache(KvShape { layers: 1, attention: shape, capacity: 1 }).is_err());
    let shape = AttentionShape { heads: 1, kv_heads: 1, head_dim: 2 };
    let mut cache = backend.kv_cache(KvShape { layers: 1, attention: shape, capacity: 4 }).unwrap();
    let row = residual(backend, &[vec![1, 2]]);
    let mut out = backend.activations(1, 2).unwrap();
    for position in [1, 4] {
        let rows = [Row { sequence: 0, position }];
        let view = Attention::causal(0, 2);
        assert!(backend.attention(view, &rows, &row, &row, &row, &mut [&mut cache], &mut out).is_err());
    }
    let rows = [Row { sequence: 0, position: 0 }];
    for view in
        [Attention { causal: false, window: Some(2), ..Attention::causal(0, 2) }, Attention::causal(1, 2)]
    {
        assert!(backend.attention(view, &rows, &row, &row, &row, &mut [&mut cache], &mut out).is_err());
    }
    assert!(backend.load_bias(&[i32::MIN]).is_err());
    let bias = backend.load_bias(&[1; 3]).unwrap();
    let mut row = residual(backend, &[vec![1, 2]]);
    assert!(backend.add_bias(&mut row, &bias).is_err());
    let three = NormWeights { gains_q20: &[1; 3], biases_q20: None, epsilon_q32: 1 };
    assert!(backend.normalise(&mut row, &backend.load_norm(three).unwrap()).is_err());
    assert!(backend.load_norm(NormWeights { biases_q20: Some(&[1]), ..three }).is_err());
    assert!(backend.load_norm(NormWeights { biases_q20: Some(&[i32::MAX; 3]), ..three }).is_err());
    assert!(backend.gate(Activation::Silu, &row, Some(&residual(backend, &[vec![1]])), &mut out).is_err());
}

macro_rules! suite {
    ($($name:ident: $backend:expr;)*) => {$(
        mod $name {
            use super::*;

            #[test]
            fn linear_is_the_exact_formula() { super::linear_is_the_exact_formula(&$backend); }
            #[test]
            fn linear_is_the_scalar_one() { super::linear_is_the_scalar_one(&$backend); }
            #[test]
            fn linear_of_groups_is_the_exact_formula() { grouped::linear_is_the_exact_formula(&$backend); }
            #[test]
            fn linear_of_groups_is_the_scalar_one() { grouped::linear_is_the_scalar_one(&$backend); }
            #[test]
            fn argmax_of_groups_is_the_first_of_the_largest_outputs() {
                grouped::argmax_is_the_first_of_the_largest_outputs(&$backend);
            }
            #[test]
            fn the_longest_sums_of_groups_do_not_overflow() { grouped::the_longest_sums_do_not_overflow(&$backend); }
            #[test]
            fn embedding_rows_of_groups_are_the_written_formula() {
                grouped::embedding_rows_are_the_written_formula(&$backend);
            }
            #[test]
            fn groups_of_ones_change_nothing() { grouped::ones_change_nothing(&$backend); }
            #[test]
            fn what_is_no_group_is_refused() { grouped::what_is_no_group_is_refused(&$backend); }
            #[test]
            fn argmax_is_the_first_of_the_largest_outputs() { super::argmax_is_the_first_of_the_largest_outputs(&$backend); }
            #[test]
            fn the_longest_sums_do_not_overflow() { super::the_longest_sums_do_not_overflow(&$backend); }
            #[test]
            fn attention_is_the_scalar_one() { super::attention_is_the_scalar_one(&$backend); }
            #[test]
            fn rows_are_the_scalar_ones() { super::rows_are_the_scalar_ones(&$backend); }
            #[test]
            fn rows_of_linear_do_not_see_each_other() { super::rows_of_linear_do_not_see_each_other(&$backend); }
            #[test]
            fn norms_are_close_to_the_real_ones() { super::norms_are_close_to_the_real_ones(&$backend); }
            #[test]
            fn rope_keeps_lengths_and_row_order() { super::rope_keeps_lengths_and_row_order(&$backend); }
            #[test]
            fn attention_does_not_depend_on_chunks() { super::attention_does_not_depend_on_chunks(&$backend); }
            #[test]
            fn a_caches_bytes_are_counted() { super::a_caches_bytes_are_counted(&$backend); }
            #[test]
            fn copies_that_do_not_fit_are_errors() { super::copies_that_do_not_fit_are_errors(&$backend); }
            #[test]
            fn copied_positions_are_the_written_ones() { super::copied_positions_are_the_written_ones(&$backend); }
            #[test]
            fn attention_is_the_written_formula() { super::attention_is_the_written_formula(&$backend); }
            #[test]
            fn silu_gate_is_the_written_formula() { super::silu_gate_is_the_written_formula(&$backend); }
            #[test]
            fn embedding_rows_are_the_written_formula() { super::embedding_rows_are_the_written_formula(&$backend); }
            #[test]
            fn add_saturates() { super::add_saturates(&$backend); }
            #[test]
            fn sampling_is_the_host_function() { super::sampling_is_the_host_function(&$backend); }
            #[test]
            fn misuse_is_an_error_and_not_a_panic() { super::misuse_is_an_error_and_not_a_panic(&$backend); }
        }
    )*};
}

/// The instruction set, or the reason why its tests do nothing here.
macro_rules! instructions {
    ($kind:ident) => {
        match Cpu::with_kind(CpuKind::$kind, 1) {
            Ok(backend) => backend,
            Err(reason) => {
                println!("skipped: {reason}");
                return;
            }
        }
    };
}

suite! {
    scalar: Scalar::new();
    scalar_three_threads: Scalar::with_threads(3).unwrap();
    portable: instructions!(Portable);
    avx2: instructions!(Avx2);
    avxvnni: instructions!(AvxVnni);
    avx512vl: instructions!(Avx512Vl);
    avx512: instructions!(Avx512);
    neon: instructions!(Neon);
    cpu_three_threads: Cpu::new(3).unwrap();
}

//! Attention of many rows, by tiles of tensor cores, gives the scalar backend's bits for every shape.
#![cfg(shim)]
#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

use metis_gpu::Gpu;
use metis_gpu_shim::{Record, Shim};
use metis_kernels::bounds::AttentionShape;
use metis_kernels::softmax::attention_scale;
use metis_kernels::{Attention, Backend, KvShape, Row, Scalar, SoftCap};
use proptest::prelude::*;

/// Two steps of some sequences: rows that are there first, and rows after them.
#[derive(Clone, Debug)]
struct Case {
    shape: AttentionShape,
    attention: Attention,
    sequences: Vec<[usize; 2]>,
    /// Bits of queries, keys and values.
    bits: [u32; 3],
    /// Whether the last row of each sequence is there twice.
    twice: bool,
    seed: u64,
}

/// Every row's answer and exponent.
type Answers = Vec<(Vec<i16>, i32)>;

fn attended<B: Backend>(backend: &B, case: &Case) -> Answers {
    let mut state = case.seed;
    let mut fill = |width: usize, bits: u32| -> Vec<i32> {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 20
        };
        // Now and then all numbers are the largest ones.
        let extreme = next().is_multiple_of(6);
        let limit = (1u64 << bits) - 1;
        let number =
            |x: u64| if extreme { limit as i32 } else { (x % (2 * limit + 1)) as i64 as i32 - limit as i32 };
        (0..width).map(|_| number(next())).collect()
    };
    let capacity = case.sequences.iter().flatten().sum::<usize>();
    let shape = KvShape { layers: 1, attention: case.shape, capacity };
    let mut caches: Vec<B::KvCache> =
        case.sequences.iter().map(|_| backend.kv_cache(shape).unwrap()).collect();
    let mut answers = Vec::new();
    for step in 0..2 {
        let mut rows: Vec<Row> = Vec::new();
        for (sequence, counts) in case.sequences.iter().enumerate() {
            let first = if step == 0 { 0 } else { counts[0] };
            rows.extend((first..first + counts[step]).map(|position| Row { sequence, position }));
            if case.twice && counts[step] > 0 {
                rows.extend(rows.last().copied());
            }
        }
        if rows.is_empty() {
            continue;
        }
        let mut residual = |width: usize, bits| {
            let mut x = backend.residual(rows.len(), width).unwrap();
            backend.write_residual(&fill(rows.len() * width, bits), &mut x).unwrap();
            x
        };
        let q = residual(case.shape.query_width(), case.bits[0]);
        let k = residual(case.shape.kv_width(), case.bits[1]);
        let v = residual(case.shape.kv_width(), case.bits[2]);
        let mut out = backend.activations(rows.len(), case.shape.query_width()).unwrap();
        let mut borrowed: Vec<&mut B::KvCache> = caches.iter_mut().collect();
        backend.attention(case.attention, &rows, &q, &k, &v, &mut borrowed, &mut out).unwrap();
        for row in 0..rows.len() {
            let mut values = Vec::new();
            let exponent = backend.read_activations(&out, row, &mut values).unwrap();
            answers.push((values, exponent));
        }
    }
    answers
}

/// The answers of the kernels, and whether tiles gave them.
fn on_shim(case: &Case) -> (Answers, bool) {
    let record = Record::default();
    let gpu = Gpu::new(Shim::new(case.seed).recorded(&record), usize::MAX).unwrap();
    let answers = attended(&gpu, case);
    let tiled = record.lock().unwrap().contains(&"attention_tiles");
    (answers, tiled)
}

fn attention(head_dim: usize, causal: bool, window: Option<usize>, cap: Option<i32>) -> Attention {
    Attention {
        layer: 0,
        scale: attention_scale(head_dim),
        causal: causal || window.is_some(),
        window,
        soft_cap: cap.map(|cap| SoftCap::new(cap << 16).unwrap().in_log2_units()),
    }
}

fn cases() -> impl Strategy<Value = Case> {
    let half = prop_oneof![4usize..33, 33usize..129, Just(32), Just(64), Just(128)];
    let shape = (1usize..3, 1usize..6, half);
    let window = prop_oneof![Just(None), (1usize..90).prop_map(Some)];
    let view = (any::<bool>(), window, prop::option::of(1i32..60));
    let sequences = prop::collection::vec((0usize..50, 9usize..40), 1..4);
    let bits = [1u32..31, 1u32..31, 1u32..31];
    (shape, view, sequences, bits, any::<bool>(), any::<u64>()).prop_map(
        |((kv_heads, group, half), (causal, window, cap), sequences, bits, twice, seed)| {
            let shape = AttentionShape { heads: kv_heads * group, kv_heads, head_dim: 2 * half };
            let mut sequences: Vec<[usize; 2]> = sequences.into_iter().map(|(a, b)| [a, b]).collect();
            // Rows enough for tiles.
            sequences[0][1] += 32;
            Case { shape, attention: attention(2 * half, causal, window, cap), sequences, bits, twice, seed }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn many_rows_of_every_shape(case in cases()) {
        let (answers, tiled) = on_shim(&case);
        prop_assert!(tiled);
        prop_assert_eq!(answers, attended(&Scalar::new(), &case));
    }
}

#[test]
fn scores_of_many_positions_are_in_the_devices_memory() {
    for (causal, window, group) in [(true, None, 1), (false, None, 3), (true, Some(570), 2)] {
        let shape = AttentionShape { heads: group, kv_heads: 1, head_dim: 8 };
        let case = Case {
            shape,
            attention: attention(8, causal, window, None),
            sequences: vec![[590, 33], [3, 9]],
            bits: [20, 19, 20],
            twice: false,
            seed: 3,
        };
        let (answers, tiled) = on_shim(&case);
        assert!(tiled);
        assert_eq!(answers, attended(&Scalar::new(), &case));
    }
}

#[test]
fn few_rows_of_many_sequences_are_not_tiled() {
    let shape = AttentionShape { heads: 2, kv_heads: 1, head_dim: 8 };
    let case = Case {
        shape,
        attention: attention(8, true, None, None),
        sequences: vec![[2, 1]; 40],
        bits: [20, 19, 20],
        twice: false,
        seed: 4,
    };
    let (answers, tiled) = on_shim(&case);
    assert!(!tiled);
    assert_eq!(answers, attended(&Scalar::new(), &case));
}

//! Claims about weights with groups.

use metis_kernels::formats::GROUP_INPUTS;
use metis_kernels::rounding::product;
use metis_kernels::{ACTIVATION_LIMIT, Backend, LinearWeights, Scalar, Scale, TokenId};
use num_bigint::BigInt;
use proptest::prelude::*;

use crate::{Random, exact_rescale, read_rows};

#[derive(Debug)]
struct Case {
    inputs: usize,
    bytes: Vec<u8>,
    scales: Vec<Scale>,
    groups: Vec<u8>,
    rows: Vec<(Vec<i16>, i32)>,
}

/// What weights, multipliers and activations are drawn from.
#[derive(Clone, Copy, Debug)]
enum Draw {
    Any,
    /// The largest magnitudes, with any signs.
    Largest,
    /// The largest magnitudes, all positive or all of one sign for each row.
    OneSign,
}

fn draw() -> impl Strategy<Value = Draw> {
    prop_oneof![3 => Just(Draw::Any), 1 => Just(Draw::Largest), 1 => Just(Draw::OneSign)]
}

/// `shape` is inputs, outputs and rows.
fn case(shape: (usize, usize, usize), mantissa: u32, exponent: i32, e: i32, draw: Draw, seed: u64) -> Case {
    let ((inputs, outputs, rows), mut random) = (shape, Random(seed));
    let mut signed = |limit: i64, sign: i64| match draw {
        Draw::Any => (random.next() % (2 * limit as u64 + 1)) as i64 - limit,
        Draw::Largest => limit * (2 * (random.next() & 1) as i64 - 1),
        Draw::OneSign => limit * sign,
    };
    let one_sign = |row: usize| if row.is_multiple_of(2) { 1 } else { -1 };
    let byte = |w: i64| (w as i8 as u8) ^ 0x80;
    Case {
        inputs,
        bytes: (0..inputs * outputs).map(|i| byte(signed(127, one_sign(i / inputs)))).collect(),
        rows: (0..rows)
            .map(|row| {
                let values = (0..inputs).map(|_| signed(ACTIVATION_LIMIT, one_sign(row)) as i16);
                (values.collect(), e + row as i32)
            })
            .collect(),
        groups: (0..outputs * inputs.div_ceil(GROUP_INPUTS))
            .map(|_| if matches!(draw, Draw::Any) { 1 + (random.next() % 255) as u8 } else { 255 })
            .collect(),
        scales: (0..outputs)
            .map(|_| Scale::new(mantissa, exponent + (random.next() % 7) as i32).unwrap())
            .collect(),
    }
}

impl Case {
    fn weights(&self) -> LinearWeights<'_> {
        LinearWeights {
            outputs: self.scales.len(),
            inputs: self.inputs,
            bytes: &self.bytes,
            scales: &self.scales,
            groups: Some(&self.groups),
        }
    }

    /// A weight times its multiplier.
    fn weight(&self, output: usize, input: usize) -> i32 {
        let multiplier = self.groups[output * self.inputs.div_ceil(GROUP_INPUTS) + input / GROUP_INPUTS];
        i32::from((self.bytes[output * self.inputs + input] ^ 0x80) as i8) * i32::from(multiplier)
    }

    fn activations<B: Backend>(&self, backend: &B) -> B::Activations {
        let mut x = backend.activations(self.rows.len(), self.inputs).unwrap();
        let values: Vec<i16> = self.rows.iter().flat_map(|row| row.0.clone()).collect();
        let exponents: Vec<i32> = self.rows.iter().map(|row| row.1).collect();
        backend.write_activations(&values, &exponents, &mut x).unwrap();
        x
    }

    fn linear<B: Backend>(&self, backend: &B) -> Vec<Vec<i32>> {
        let weights = backend.load_linear(self.weights()).unwrap();
        let mut out = backend.residual(self.rows.len(), self.scales.len()).unwrap();
        backend.linear(&self.activations(backend), &weights, &mut out).unwrap();
        read_rows(backend, &out, self.rows.len())
    }

    fn argmax<B: Backend>(&self, backend: &B) -> Vec<TokenId> {
        let weights = backend.load_linear(self.weights()).unwrap();
        let mut out = vec![TokenId(7)];
        backend.argmax(&self.activations(backend), &weights, &mut out).unwrap();
        out
    }
}

/// The formula of section 5 of docs/numerics.md in arbitrary precision.
pub(crate) fn linear_is_the_exact_formula<B: Backend>(backend: &B) {
    let scale = (1u32 << 22..1 << 23, prop_oneof![-60i32..-10, -1_024i32..1_018]);
    let case = ((1usize..300, 1usize..20, 1usize..8), scale, -30i32..10, draw(), any::<u64>());
    proptest!(ProptestConfig::with_cases(64), |((shape, (mantissa, exponent), e, draw, seed) in case)| {
        let case = self::case(shape, mantissa, exponent, e, draw, seed);
        for ((activations, exponent), row) in case.rows.iter().zip(case.linear(backend)) {
            for (output, value) in row.into_iter().enumerate() {
                let products = activations.iter().enumerate()
                    .map(|(k, &a)| BigInt::from(i64::from(case.weight(output, k)) * i64::from(a)));
                let acc: BigInt = products.sum();
                let scale = case.scales[output];
                prop_assert_eq!(BigInt::from(value), exact_rescale(&acc, scale, exponent + scale.exponent() + 16));
            }
        }
    });
}

/// Shapes of several panels, tiles and groups with remainders.
pub(crate) fn linear_is_the_scalar_one<B: Backend>(backend: &B) {
    let scale = (1u32 << 22..1 << 23, -80i32..30);
    let case = ((1usize..1_500, 1usize..100, 1usize..9), scale, -30i32..10, draw(), any::<u64>());
    proptest!(ProptestConfig::with_cases(48), |((shape, (mantissa, exponent), e, draw, seed) in case)| {
        let case = self::case(shape, mantissa, exponent, e, draw, seed);
        prop_assert_eq!(case.linear(backend), case.linear(&Scalar::new()));
    });
}

/// Few activations of few values, so that many outputs are equal; sometimes all of them saturate.
pub(crate) fn argmax_is_the_first_of_the_largest_outputs<B: Backend>(backend: &B) {
    let case = ((1usize..200, 1usize..300, 1usize..15), -80i32..20, draw(), any::<u64>());
    proptest!(ProptestConfig::with_cases(48), |((shape, exponent, draw, seed) in case)| {
        let case = self::case(shape, 1 << 22, exponent, 0, draw, seed);
        let largest = |row: &Vec<i32>| {
            let largest = row.iter().max().unwrap();
            TokenId(row.iter().position(|value| value == largest).unwrap() as u32)
        };
        let expected: Vec<TokenId> = case.linear(&Scalar::new()).iter().map(largest).collect();
        prop_assert_eq!(case.argmax(backend), expected);
    });
}

/// The widest layer that the bounds allow, with every product and every multiplier as large as it can be.
pub(crate) fn the_longest_sums_do_not_overflow<B: Backend>(backend: &B) {
    let inputs = metis_kernels::bounds::MAX_INPUTS;
    let case = case((inputs, 17, 2), (1 << 23) - 1, -56, 0, Draw::OneSign, 1);
    let sum = BigInt::from(inputs as i64 * 127 * 255 * ACTIVATION_LIMIT);
    let rows = case.linear(backend);
    for (i, row) in rows.iter().enumerate() {
        for (output, &value) in row.iter().enumerate() {
            let acc = if (i + output).is_multiple_of(2) { sum.clone() } else { -&sum };
            let scale = case.scales[output];
            assert_eq!(
                BigInt::from(value),
                exact_rescale(&acc, scale, case.rows[i].1 + scale.exponent() + 16)
            );
        }
    }
    assert_eq!(case.argmax(backend), case.argmax(&Scalar::new()));
}

pub(crate) fn embedding_rows_are_the_written_formula<B: Backend>(backend: &B) {
    let scale = || (1u32 << 22..1 << 23, -40i32..-10).prop_map(|(m, e)| Scale::new(m, e).unwrap());
    let case = ((1usize..100, 1usize..40), scale(), scale(), draw(), any::<u64>());
    proptest!(ProptestConfig::with_cases(48), |(((inputs, outputs), scale, factor, draw, seed) in case)| {
        let case = self::case((inputs, outputs, 1), scale.mantissa(), scale.exponent(), 0, draw, seed);
        let table = backend.load_linear(case.weights()).unwrap();
        let tokens: Vec<TokenId> = (0..outputs as u32).rev().map(TokenId).collect();
        let mut x = backend.residual(outputs, inputs).unwrap();
        backend.embed(&table, &tokens, factor, &mut x).unwrap();
        for (token, row) in tokens.iter().zip(read_rows(backend, &x, outputs)) {
            let scale = case.scales[token.index()];
            let (mantissa, exponent) = product(scale.mantissa(), scale.exponent(), factor);
            for (k, value) in row.into_iter().enumerate() {
                let scale = Scale::new(mantissa, exponent).unwrap();
                let expected = exact_rescale(&case.weight(token.index(), k).into(), scale, exponent + 16);
                prop_assert_eq!(BigInt::from(value), expected);
            }
        }
    });
}

/// A multiplier of 1 for all is no multiplier.
pub(crate) fn ones_change_nothing<B: Backend>(backend: &B) {
    let case = ((1usize..200, 1usize..40, 1usize..5), -60i32..0, any::<u64>());
    proptest!(ProptestConfig::with_cases(32), |((shape, exponent, seed) in case)| {
        let mut case = self::case(shape, 1 << 22, exponent, 0, Draw::Any, seed);
        case.groups.fill(1);
        let plain = backend.load_linear(LinearWeights { groups: None, ..case.weights() }).unwrap();
        let mut out = backend.residual(case.rows.len(), case.scales.len()).unwrap();
        backend.linear(&case.activations(backend), &plain, &mut out).unwrap();
        prop_assert_eq!(case.linear(backend), read_rows(backend, &out, case.rows.len()));
    });
}

pub(crate) fn what_is_no_group_is_refused<B: Backend>(backend: &B) {
    let case = case((33, 3, 1), 1 << 22, -30, 0, Draw::Any, 5);
    let load = |groups: &[u8]| {
        backend.load_linear(LinearWeights { groups: Some(groups), ..case.weights() }).map(drop)
    };
    assert!(load(&case.groups).is_ok());
    for length in [0, 3, 5, 7] {
        let error = load(&vec![1; length]).unwrap_err().to_string();
        assert!(error.contains(&format!("multipliers has {length} elements; its shape needs 6")), "{error}");
    }
    let mut groups = case.groups.clone();
    groups[4] = 0;
    assert!(load(&groups).unwrap_err().to_string().contains("multiplier 4 is 0"));
}

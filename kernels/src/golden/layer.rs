//! Layers of a transformer as a graph asks for them, kernel after kernel: a device may do neighbours together.

use super::cases::Stream;
use crate::activation::Activation;
use crate::backend::{Attention, Backend, BackendError, KvShape, LinearWeights, NormWeights, Row};
use crate::bounds::AttentionShape;
use crate::formats::{GROUP_INPUTS, Scale};
use crate::tables::rope_frequencies;

const SHAPE: AttentionShape = AttentionShape { heads: 4, kv_heads: 2, head_dim: 18 };
const HIDDEN: usize = 70;
const EPSILON_Q32: i64 = 42_950;

/// What of a layer differs from family to family.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub rows: usize,
    pub grouped: bool,
    /// Biases of queries, keys and values, and norms with biases.
    pub biased: bool,
    /// Norms of heads, and after attention and MLP.
    pub normed: bool,
    /// Whether the MLP has a gate.
    pub gated: bool,
    pub activation: Activation,
}

impl Kind {
    /// Channels of the MLP: for one row enough for every block of a device, and for some of them twice.
    const fn inner(self) -> usize {
        if self.rows == 1 { 5_000 } else { 230 }
    }

    pub(super) fn name(self) -> String {
        let Self { rows, grouped, biased, normed, gated, activation } = self;
        format!(
            "layer_rows_{rows}_groups_{grouped}_biases_{biased}_norms_{normed}_gate_{gated}_{activation:?}"
        )
    }

    /// Every kind with so many rows that devices differ.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let rows = [1, 2, 3, 6, 12];
        rows.into_iter().zip(0usize..).flat_map(|(rows, i)| {
            [false, true].map(|grouped| {
                let choice = i + usize::from(grouped);
                let activation = [Activation::Silu, Activation::GeluTanh, Activation::GeluErf][choice % 3];
                let gated = choice % 4 != 3;
                Self { rows, grouped, biased: choice % 2 == 1, normed: choice % 3 == 1, gated, activation }
            })
        })
    }
}

struct Source<'a, B: Backend> {
    backend: &'a B,
    stream: Stream,
    kind: Kind,
}

impl<B: Backend> Source<'_, B> {
    fn linear(&mut self, outputs: usize, inputs: usize) -> Result<B::Linear, BackendError> {
        let s = &mut self.stream;
        let (mantissas, exponents) = s.scales(outputs);
        let scales = mantissas.into_iter().zip(exponents);
        // Of a size that keeps numbers apart.
        let scales: Vec<Scale> = scales.filter_map(|(m, e)| Scale::new(m as u32, e as i32 - 2)).collect();
        let bytes: Vec<u8> = (0..outputs * inputs).map(|_| s.symmetric(127) as i8 as u8 ^ 0x80).collect();
        let groups: Option<Vec<u8>> = self
            .kind
            .grouped
            .then(|| (0..outputs * inputs.div_ceil(GROUP_INPUTS)).map(|_| 1 + s.below(4) as u8).collect());
        let groups = groups.as_deref();
        self.backend.load_linear(LinearWeights { outputs, inputs, bytes: &bytes, scales: &scales, groups })
    }

    fn numbers(&mut self, count: usize, bits: u32) -> Vec<i32> {
        self.stream.values(count, bits).into_iter().map(|value| value as i32).collect()
    }

    fn norm(&mut self, width: usize) -> Result<B::Norm, BackendError> {
        let gains_q20 = self.numbers(width, 21);
        let biases = self.kind.biased.then(|| self.numbers(width, 20));
        let weights =
            NormWeights { gains_q20: &gains_q20, biases_q20: biases.as_deref(), epsilon_q32: EPSILON_Q32 };
        self.backend.load_norm(weights)
    }
}

/// The numbers of two layers, one after the other, in the residual stream.
pub(super) fn layers<B: Backend>(backend: &B, kind: Kind) -> Result<Vec<i64>, BackendError> {
    let Kind { rows, biased, normed, gated, activation, .. } = kind;
    let mut source = Source { backend, stream: Stream::new(rows as u64), kind };
    let inner_width = kind.inner();
    let (query, key) = (SHAPE.query_width(), SHAPE.kv_width());
    let widths = [query, key, key];
    let qkv = widths.map(|width| source.linear(width, HIDDEN));
    let biases = widths.map(|width| backend.load_bias(&source.numbers(width, 18)));
    let output = source.linear(HIDDEN, query)?;
    let (gate, up) = (source.linear(inner_width, HIDDEN)?, source.linear(inner_width, HIDDEN)?);
    let down = source.linear(HIDDEN, inner_width)?;
    let norms = [source.norm(HIDDEN)?, source.norm(HIDDEN)?, source.norm(HIDDEN)?];
    let head_norms = [source.norm(SHAPE.head_dim)?, source.norm(SHAPE.head_dim)?];
    let rope = backend.load_rope(&rope_frequencies(10_000, SHAPE.head_dim), 64)?;

    let residual = |width| backend.residual(rows, width);
    let (mut x, mut delta) = (residual(HIDDEN)?, residual(HIDDEN)?);
    let (mut q, mut k, mut v) = (residual(query)?, residual(key)?, residual(key)?);
    let (mut inner, mut twin) = (residual(inner_width)?, residual(inner_width)?);
    let activations = |width| backend.activations(rows, width);
    let (mut rows_in, mut attended, mut hidden) =
        (activations(HIDDEN)?, activations(query)?, activations(inner_width)?);
    let shape = KvShape { layers: 2, attention: SHAPE, capacity: 64 };
    let mut cache = backend.kv_cache(shape)?;
    let places: Vec<Row> = (0..rows).map(|position| Row { sequence: 0, position }).collect();
    backend.write_residual(&source.numbers(rows * HIDDEN, 20), &mut x)?;
    let (qkv, biases) = (together(qkv)?, together(biases)?);
    for layer in 0..2 {
        backend.norm(&x, &norms[0], &mut rows_in)?;
        for ((out, weights), bias) in [&mut q, &mut k, &mut v].into_iter().zip(&qkv).zip(&biases) {
            backend.linear(&rows_in, weights, out)?;
            if biased {
                backend.add_bias(out, bias)?;
            }
        }
        if normed {
            backend.normalise(&mut q, &head_norms[0])?;
            backend.normalise(&mut k, &head_norms[1])?;
        }
        backend.rope(&rope, &places, SHAPE.head_dim, &mut q)?;
        backend.rope(&rope, &places, SHAPE.head_dim, &mut k)?;
        let attention = Attention::causal(layer, SHAPE.head_dim);
        backend.attention(attention, &places, &q, &k, &v, &mut [&mut cache], &mut attended)?;
        backend.linear(&attended, &output, &mut delta)?;
        if normed {
            backend.normalise(&mut delta, &norms[2])?;
        }
        backend.add(&mut x, &delta)?;
        backend.norm(&x, &norms[1], &mut rows_in)?;
        backend.linear(&rows_in, &gate, &mut inner)?;
        if gated {
            backend.linear(&rows_in, &up, &mut twin)?;
        }
        backend.gate(activation, &inner, gated.then_some(&twin), &mut hidden)?;
        backend.linear(&hidden, &down, &mut delta)?;
        backend.add(&mut x, &delta)?;
    }
    let (mut numbers, mut row) = (Vec::new(), Vec::new());
    for i in 0..rows {
        // The stream, and what was on the way: it is there whoever did it.
        for buffer in [&x, &delta, &q, &k, &v, &inner] {
            backend.read_row(buffer, i, &mut row)?;
            numbers.extend(row.iter().map(|&value| i64::from(value)));
        }
        let mut row = Vec::new();
        for buffer in [&rows_in, &attended, &hidden] {
            numbers.push(backend.read_activations(buffer, i, &mut row)?.into());
            numbers.extend(row.iter().map(|&value| i64::from(value)));
        }
    }
    Ok(numbers)
}

fn together<T>(results: [Result<T, BackendError>; 3]) -> Result<[T; 3], BackendError> {
    let [a, b, c] = results;
    Ok([a?, b?, c?])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scalar;

    #[test]
    fn numbers_are_neither_lost_nor_at_their_limits() {
        for kind in Kind::all() {
            let numbers = layers(&Scalar::new(), kind).unwrap();
            let count = |which: fn(&i64) -> bool| numbers.iter().copied().filter(which).count();
            assert!(count(|n| *n == 0) < numbers.len() / 4, "{}", kind.name());
            assert!(count(|n| n.abs() >= i32::MAX.into()) < numbers.len() / 50, "{}", kind.name());
        }
    }
}

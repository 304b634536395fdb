//! A backend that also adds up the squares of what some of its matrices read.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metis_kernels::formats::RESIDUAL_BITS;
use metis_kernels::{
    Activation, Attention, Backend, BackendError, KvShape, LinearWeights, NormWeights, Row, SampleRequest,
    Scale, SoftCap, TokenId,
};

/// Sums are in units of `2^-64`.
const UNIT_BITS: i32 = 64;

/// Sums of squares over all rows so far, in units of `2^-64`, rounded down element by element and saturating: no order of rows can
/// change them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Squares {
    /// What each watched matrix reads, by input channel.
    pub(super) inputs: Vec<Vec<u128>>,
    /// The values of each layer, by channel.
    pub(super) values: Vec<Vec<u128>>,
}

/// Delegates everything. A step has as many rows as it embeds tokens.
#[derive(Debug)]
pub(super) struct Recorder<B: Backend> {
    backend: Arc<B>,
    /// The matrices to watch, by the address of their bytes: a graph gives its matrices no names.
    watched: HashMap<usize, usize>,
    rows: AtomicUsize,
    squares: Mutex<Squares>,
}

/// A matrix, and which of the watched ones it is.
#[derive(Debug)]
pub(super) struct Watched<L> {
    matrix: L,
    index: Option<usize>,
}

impl<B: Backend> Recorder<B> {
    /// Watches the matrices at the addresses and the values of so many layers.
    pub(super) fn new(backend: Arc<B>, addresses: &[usize], layers: usize) -> Self {
        let squares = Squares { inputs: vec![Vec::new(); addresses.len()], values: vec![Vec::new(); layers] };
        Self {
            backend,
            watched: addresses.iter().enumerate().map(|(index, &address)| (address, index)).collect(),
            rows: AtomicUsize::new(0),
            squares: Mutex::new(squares),
        }
    }

    /// What was recorded.
    pub(super) fn into_squares(self) -> Squares {
        self.squares.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn squares(&self) -> MutexGuard<'_, Squares> {
        self.squares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record_inputs(&self, x: &B::Activations, index: usize) -> Result<(), BackendError> {
        let mut row = Vec::new();
        for i in 0..self.rows.load(Ordering::Relaxed) {
            let exponent = self.backend.read_activations(x, i, &mut row)?;
            add(&mut self.squares().inputs[index], row.iter().map(|&a| i32::from(a)), exponent);
        }
        Ok(())
    }

    fn record_values(&self, v: &B::Residual, layer: usize) -> Result<(), BackendError> {
        let mut row = Vec::new();
        for i in 0..self.rows.load(Ordering::Relaxed) {
            self.backend.read_row(v, i, &mut row)?;
            if let Some(sums) = self.squares().values.get_mut(layer) {
                add(sums, row.iter().copied(), -(RESIDUAL_BITS as i32));
            }
        }
        Ok(())
    }
}

/// Adds the squares of a row of `x * 2^exponent`.
fn add(sums: &mut Vec<u128>, row: impl ExactSizeIterator<Item = i32>, exponent: i32) {
    sums.resize(row.len(), 0);
    let shift = 2 * exponent + UNIT_BITS;
    for (sum, x) in sums.iter_mut().zip(row) {
        let square = u128::from(x.unsigned_abs()).pow(2);
        let units = match shift {
            _ if square == 0 => 0,
            0.. if square.leading_zeros() >= shift.unsigned_abs() => square << shift,
            0.. => u128::MAX,
            _ => square.checked_shr(shift.unsigned_abs()).unwrap_or(0),
        };
        *sum = sum.saturating_add(units);
    }
}

type Done = Result<(), BackendError>;

impl<B: Backend> Backend for Recorder<B> {
    type Linear = Watched<B::Linear>;
    type Norm = B::Norm;
    type Bias = B::Bias;
    type Rope = B::Rope;
    type Residual = B::Residual;
    type Activations = B::Activations;
    type KvCache = B::KvCache;

    fn name(&self) -> String {
        self.backend.name()
    }

    fn enter<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        self.backend.enter(f)
    }

    fn load_linear(&self, weights: LinearWeights<'_>) -> Result<Self::Linear, BackendError> {
        let index = self.watched.get(&weights.bytes.as_ptr().addr()).copied();
        Ok(Watched { matrix: self.backend.load_linear(weights)?, index })
    }

    fn load_bias(&self, values_q16: &[i32]) -> Result<B::Bias, BackendError> {
        self.backend.load_bias(values_q16)
    }

    fn load_norm(&self, weights: NormWeights<'_>) -> Result<B::Norm, BackendError> {
        self.backend.load_norm(weights)
    }

    fn load_rope(&self, frequencies_q64: &[u64], context: usize) -> Result<B::Rope, BackendError> {
        self.backend.load_rope(frequencies_q64, context)
    }

    fn residual(&self, rows: usize, width: usize) -> Result<B::Residual, BackendError> {
        self.backend.residual(rows, width)
    }

    fn activations(&self, rows: usize, width: usize) -> Result<B::Activations, BackendError> {
        self.backend.activations(rows, width)
    }

    fn kv_cache(&self, shape: KvShape) -> Result<B::KvCache, BackendError> {
        self.backend.kv_cache(shape)
    }

    fn kv_bytes(&self, shape: KvShape) -> usize {
        self.backend.kv_bytes(shape)
    }

    fn copy_positions(
        &self,
        from: &B::KvCache,
        positions: Range<usize>,
        to: &mut B::KvCache,
        at: usize,
    ) -> Done {
        self.backend.copy_positions(from, positions, to, at)
    }

    fn embed(&self, table: &Self::Linear, tokens: &[TokenId], factor: Scale, out: &mut B::Residual) -> Done {
        self.rows.store(tokens.len(), Ordering::Relaxed);
        self.backend.embed(&table.matrix, tokens, factor, out)
    }

    fn norm(&self, x: &B::Residual, norm: &B::Norm, out: &mut B::Activations) -> Done {
        self.backend.norm(x, norm, out)
    }

    fn normalise(&self, x: &mut B::Residual, norm: &B::Norm) -> Done {
        self.backend.normalise(x, norm)
    }

    fn quantise(&self, x: &B::Residual, out: &mut B::Activations) -> Done {
        self.backend.quantise(x, out)
    }

    fn linear(&self, x: &B::Activations, weights: &Self::Linear, out: &mut B::Residual) -> Done {
        if let Some(index) = weights.index {
            self.record_inputs(x, index)?;
        }
        self.backend.linear(x, &weights.matrix, out)
    }

    fn argmax(&self, x: &B::Activations, weights: &Self::Linear, out: &mut Vec<TokenId>) -> Done {
        self.backend.argmax(x, &weights.matrix, out)
    }

    fn rope(&self, rope: &B::Rope, rows: &[Row], head_dim: usize, x: &mut B::Residual) -> Done {
        self.backend.rope(rope, rows, head_dim, x)
    }

    fn attention(
        &self,
        attention: Attention,
        rows: &[Row],
        q: &B::Residual,
        k: &B::Residual,
        v: &B::Residual,
        caches: &mut [&mut B::KvCache],
        out: &mut B::Activations,
    ) -> Done {
        self.record_values(v, attention.layer)?;
        self.backend.attention(attention, rows, q, k, v, caches, out)
    }

    fn gate(
        &self,
        activation: Activation,
        gate: &B::Residual,
        up: Option<&B::Residual>,
        out: &mut B::Activations,
    ) -> Done {
        self.backend.gate(activation, gate, up, out)
    }

    fn add(&self, x: &mut B::Residual, y: &B::Residual) -> Done {
        self.backend.add(x, y)
    }

    fn add_bias(&self, x: &mut B::Residual, bias: &B::Bias) -> Done {
        self.backend.add_bias(x, bias)
    }

    fn soft_cap(&self, x: &mut B::Residual, cap: SoftCap) -> Done {
        self.backend.soft_cap(x, cap)
    }

    fn select_rows(&self, x: &B::Residual, rows: &[usize], out: &mut B::Residual) -> Done {
        self.backend.select_rows(x, rows, out)
    }

    fn sample(&self, logits: &B::Residual, requests: &[SampleRequest], out: &mut Vec<TokenId>) -> Done {
        self.backend.sample(logits, requests, out)
    }

    fn read_row(&self, x: &B::Residual, row: usize, out: &mut Vec<i32>) -> Done {
        self.backend.read_row(x, row, out)
    }

    fn write_residual(&self, values: &[i32], out: &mut B::Residual) -> Done {
        self.backend.write_residual(values, out)
    }

    fn write_activations(&self, values: &[i16], exponents: &[i32], out: &mut B::Activations) -> Done {
        self.backend.write_activations(values, exponents, out)
    }

    fn read_activations(
        &self,
        x: &B::Activations,
        row: usize,
        out: &mut Vec<i16>,
    ) -> Result<i32, BackendError> {
        self.backend.read_activations(x, row, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn squares_are_in_units_of_their_own_and_saturate() {
        let mut sums = Vec::new();
        add(&mut sums, [3, -4, 0].into_iter(), -32);
        assert_eq!(sums, [9, 16, 0]);
        add(&mut sums, [1, i32::MIN, 1].into_iter(), -33);
        assert_eq!(sums, [9, 16 + (1 << 60), 0]);
        add(&mut sums, [1, 1, 1].into_iter(), 0);
        assert_eq!(sums, [9 + (1 << 64), 16 + (1 << 60) + (1 << 64), 1 << 64]);
        add(&mut sums, [i32::MAX, 0, 1].into_iter(), 40);
        add(&mut sums, [0, 0, 1].into_iter(), -100);
        assert_eq!(sums, [u128::MAX, 16 + (1 << 60) + (1 << 64), u128::MAX]);
    }
}

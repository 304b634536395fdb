//! Two backends in step: the first kernel whose answers differ is named.
//!
//! What `selftest --locate` runs a model on. Every buffer is there twice, every kernel runs on both, and each result is read back and
//! compared, bit by bit.

use core::fmt;
use core::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::activation::{Activation, SoftCap};
use crate::backend::{
    Attention, Backend, BackendError, KvShape, LinearWeights, NormWeights, Row, SampleRequest,
};
use crate::formats::{Scale, TokenId};

/// Where two backends' answers differ first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The layer; none before the first layer and after the last one.
    pub layer: Option<usize>,
    /// The kernel.
    pub kernel: &'static str,
    /// Which of all calls of kernels it was, from one.
    pub call: u64,
    /// The row of its result.
    pub row: usize,
    /// The channel, or the row's exponent where it is past the last one.
    pub channel: usize,
    /// What the first backend computed.
    pub first: i64,
    /// What the second one did.
    pub second: i64,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, call, row, channel, first, second, .. } = self;
        match self.layer {
            Some(layer) => write!(f, "layer {layer}")?,
            None => f.write_str("outside the layers")?,
        }
        write!(
            f,
            ", kernel {kernel} (call {call}): row {row}, channel {channel} is {second} instead of {first}"
        )
    }
}

/// Two backends.
#[derive(Debug)]
pub struct Paired<A, B> {
    first: Arc<A>,
    second: Arc<B>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    calls: u64,
    layer: Option<usize>,
    difference: Option<Difference>,
}

impl<A: Backend, B: Backend> Paired<A, B> {
    /// Both, to run in step.
    pub fn new(first: Arc<A>, second: Arc<B>) -> Self {
        Self { first, second, state: Mutex::default() }
    }

    /// The first difference so far.
    pub fn difference(&self) -> Option<Difference> {
        self.state().difference.clone()
    }

    /// Kernels that have been called so far.
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call and compares its results, row by row.
    fn compare(
        &self,
        kernel: &'static str,
        rows: usize,
        read: impl Fn(usize) -> Result<(Vec<i64>, Vec<i64>), BackendError>,
    ) -> Result<(), BackendError> {
        let mut state = self.state();
        state.calls += 1;
        for row in 0..rows {
            let (first, second) = read(row)?;
            let differing = first.iter().zip(&second).position(|(a, b)| a != b);
            let Some(channel) = differing.or((first.len() != second.len()).then_some(0)) else { continue };
            let of = |values: &[i64]| values.get(channel).copied().unwrap_or_default();
            let (first, second) = (of(&first), of(&second));
            let (layer, call) = (state.layer, state.calls);
            let difference = Difference { layer, kernel, call, row, channel, first, second };
            let reason = difference.to_string();
            state.difference.get_or_insert(difference);
            return Err(BackendError::Device { device: self.second.name(), reason });
        }
        Ok(())
    }

    fn compare_tokens(
        &self,
        kernel: &'static str,
        first: &[TokenId],
        second: &[TokenId],
    ) -> Result<(), BackendError> {
        let of = |tokens: &[TokenId], row: usize| {
            tokens.get(row).map(|token| i64::from(token.0)).into_iter().collect()
        };
        self.compare(kernel, first.len(), |row| Ok((of(first, row), of(second, row))))
    }

    fn compare_residual(
        &self,
        kernel: &'static str,
        x: &Both<A::Residual, B::Residual>,
    ) -> Result<(), BackendError> {
        self.compare(kernel, x.rows, |row| {
            let (mut first, mut second) = (Vec::new(), Vec::new());
            self.first.read_row(&x.first, row, &mut first)?;
            self.second.read_row(&x.second, row, &mut second)?;
            let wide = |values: Vec<i32>| values.into_iter().map(i64::from).collect();
            Ok((wide(first), wide(second)))
        })
    }

    fn compare_activations(
        &self,
        kernel: &'static str,
        x: &Both<A::Activations, B::Activations>,
    ) -> Result<(), BackendError> {
        self.compare(kernel, x.rows, |row| {
            let (mut first, mut second) = (Vec::new(), Vec::new());
            let exponents = (
                self.first.read_activations(&x.first, row, &mut first)?,
                self.second.read_activations(&x.second, row, &mut second)?,
            );
            let wide = |values: Vec<i16>, exponent: i32| {
                values.into_iter().map(i64::from).chain([exponent.into()]).collect()
            };
            Ok((wide(first, exponents.0), wide(second, exponents.1)))
        })
    }
}

/// What both backends hold, and how many rows of it are in use.
#[derive(Debug)]
pub struct Both<A, B> {
    first: A,
    second: B,
    rows: usize,
}

/// Does the same on both.
macro_rules! both {
    ($self:ident . $f:ident ( $($argument:expr),* )) => {
        Ok(Both { first: $self.first.$f($($argument),*)?, second: $self.second.$f($($argument),*)?, rows: 0 })
    };
}

impl<A: Backend, B: Backend> Backend for Paired<A, B> {
    type Linear = Both<A::Linear, B::Linear>;
    type Norm = Both<A::Norm, B::Norm>;
    type Bias = Both<A::Bias, B::Bias>;
    type Rope = Both<A::Rope, B::Rope>;
    type Residual = Both<A::Residual, B::Residual>;
    type Activations = Both<A::Activations, B::Activations>;
    type KvCache = Both<A::KvCache, B::KvCache>;

    fn name(&self) -> String {
        format!("{} and {}", self.first.name(), self.second.name())
    }

    fn begin_layer(&self, layer: Option<usize>) {
        self.state().layer = layer;
        self.first.begin_layer(layer);
        self.second.begin_layer(layer);
    }

    fn load_linear(&self, weights: LinearWeights<'_>) -> Result<Self::Linear, BackendError> {
        both!(self.load_linear(weights))
    }

    fn load_bias(&self, values_q16: &[i32]) -> Result<Self::Bias, BackendError> {
        both!(self.load_bias(values_q16))
    }

    fn load_norm(&self, weights: NormWeights<'_>) -> Result<Self::Norm, BackendError> {
        both!(self.load_norm(weights))
    }

    fn load_rope(&self, frequencies_q64: &[u64], context: usize) -> Result<Self::Rope, BackendError> {
        both!(self.load_rope(frequencies_q64, context))
    }

    fn residual(&self, rows: usize, width: usize) -> Result<Self::Residual, BackendError> {
        both!(self.residual(rows, width))
    }

    fn activations(&self, rows: usize, width: usize) -> Result<Self::Activations, BackendError> {
        both!(self.activations(rows, width))
    }

    fn kv_cache(&self, shape: KvShape) -> Result<Self::KvCache, BackendError> {
        both!(self.kv_cache(shape))
    }

    fn kv_bytes(&self, shape: KvShape) -> usize {
        self.first.kv_bytes(shape).saturating_add(self.second.kv_bytes(shape))
    }

    fn copy_positions(
        &self,
        from: &Self::KvCache,
        positions: Range<usize>,
        to: &mut Self::KvCache,
        at: usize,
    ) -> Result<(), BackendError> {
        self.first.copy_positions(&from.first, positions.clone(), &mut to.first, at)?;
        self.second.copy_positions(&from.second, positions, &mut to.second, at)
    }

    fn embed(
        &self,
        table: &Self::Linear,
        tokens: &[TokenId],
        factor: Scale,
        out: &mut Self::Residual,
    ) -> Result<(), BackendError> {
        out.rows = tokens.len();
        self.first.embed(&table.first, tokens, factor, &mut out.first)?;
        self.second.embed(&table.second, tokens, factor, &mut out.second)?;
        self.compare_residual("embed", out)
    }

    fn norm(
        &self,
        x: &Self::Residual,
        norm: &Self::Norm,
        out: &mut Self::Activations,
    ) -> Result<(), BackendError> {
        out.rows = x.rows;
        self.first.norm(&x.first, &norm.first, &mut out.first)?;
        self.second.norm(&x.second, &norm.second, &mut out.second)?;
        self.compare_activations("norm", out)
    }

    fn normalise(&self, x: &mut Self::Residual, norm: &Self::Norm) -> Result<(), BackendError> {
        self.first.normalise(&mut x.first, &norm.first)?;
        self.second.normalise(&mut x.second, &norm.second)?;
        self.compare_residual("normalise", x)
    }

    fn quantise(&self, x: &Self::Residual, out: &mut Self::Activations) -> Result<(), BackendError> {
        out.rows = x.rows;
        self.first.quantise(&x.first, &mut out.first)?;
        self.second.quantise(&x.second, &mut out.second)?;
        self.compare_activations("quantise", out)
    }

    fn linear(
        &self,
        x: &Self::Activations,
        weights: &Self::Linear,
        out: &mut Self::Residual,
    ) -> Result<(), BackendError> {
        out.rows = x.rows;
        self.first.linear(&x.first, &weights.first, &mut out.first)?;
        self.second.linear(&x.second, &weights.second, &mut out.second)?;
        self.compare_residual("linear", out)
    }

    fn argmax(
        &self,
        x: &Self::Activations,
        weights: &Self::Linear,
        out: &mut Vec<TokenId>,
    ) -> Result<(), BackendError> {
        let mut second = Vec::new();
        self.first.argmax(&x.first, &weights.first, out)?;
        self.second.argmax(&x.second, &weights.second, &mut second)?;
        self.compare_tokens("argmax", out, &second)
    }

    fn rope(
        &self,
        rope: &Self::Rope,
        rows: &[Row],
        head_dim: usize,
        x: &mut Self::Residual,
    ) -> Result<(), BackendError> {
        self.first.rope(&rope.first, rows, head_dim, &mut x.first)?;
        self.second.rope(&rope.second, rows, head_dim, &mut x.second)?;
        self.compare_residual("rope", x)
    }

    fn attention(
        &self,
        attention: Attention,
        rows: &[Row],
        q: &Self::Residual,
        k: &Self::Residual,
        v: &Self::Residual,
        caches: &mut [&mut Self::KvCache],
        out: &mut Self::Activations,
    ) -> Result<(), BackendError> {
        out.rows = rows.len();
        let (mut first, mut second): (Vec<_>, Vec<_>) =
            caches.iter_mut().map(|cache| (&mut cache.first, &mut cache.second)).unzip();
        self.first.attention(attention, rows, &q.first, &k.first, &v.first, &mut first, &mut out.first)?;
        self.second.attention(
            attention,
            rows,
            &q.second,
            &k.second,
            &v.second,
            &mut second,
            &mut out.second,
        )?;
        self.compare_activations("attention", out)
    }

    fn gate(
        &self,
        activation: Activation,
        gate: &Self::Residual,
        up: Option<&Self::Residual>,
        out: &mut Self::Activations,
    ) -> Result<(), BackendError> {
        out.rows = gate.rows;
        self.first.gate(activation, &gate.first, up.map(|up| &up.first), &mut out.first)?;
        self.second.gate(activation, &gate.second, up.map(|up| &up.second), &mut out.second)?;
        self.compare_activations("gate", out)
    }

    fn add(&self, x: &mut Self::Residual, y: &Self::Residual) -> Result<(), BackendError> {
        self.first.add(&mut x.first, &y.first)?;
        self.second.add(&mut x.second, &y.second)?;
        self.compare_residual("add", x)
    }

    fn add_bias(&self, x: &mut Self::Residual, bias: &Self::Bias) -> Result<(), BackendError> {
        self.first.add_bias(&mut x.first, &bias.first)?;
        self.second.add_bias(&mut x.second, &bias.second)?;
        self.compare_residual("add_bias", x)
    }

    fn soft_cap(&self, x: &mut Self::Residual, cap: SoftCap) -> Result<(), BackendError> {
        self.first.soft_cap(&mut x.first, cap)?;
        self.second.soft_cap(&mut x.second, cap)?;
        self.compare_residual("soft_cap", x)
    }

    fn select_rows(
        &self,
        x: &Self::Residual,
        rows: &[usize],
        out: &mut Self::Residual,
    ) -> Result<(), BackendError> {
        out.rows = rows.len();
        self.first.select_rows(&x.first, rows, &mut out.first)?;
        self.second.select_rows(&x.second, rows, &mut out.second)?;
        self.compare_residual("select_rows", out)
    }

    fn sample(
        &self,
        logits: &Self::Residual,
        requests: &[SampleRequest],
        out: &mut Vec<TokenId>,
    ) -> Result<(), BackendError> {
        let mut second = Vec::new();
        self.first.sample(&logits.first, requests, out)?;
        self.second.sample(&logits.second, requests, &mut second)?;
        self.compare_tokens("sample", out, &second)
    }

    fn read_row(&self, x: &Self::Residual, row: usize, out: &mut Vec<i32>) -> Result<(), BackendError> {
        self.first.read_row(&x.first, row, out)
    }

    fn write_residual(&self, values: &[i32], out: &mut Self::Residual) -> Result<(), BackendError> {
        self.first.write_residual(values, &mut out.first)?;
        self.second.write_residual(values, &mut out.second)?;
        let mut row = Vec::new();
        self.first.read_row(&out.first, 0, &mut row)?;
        out.rows = values.len() / row.len().max(1);
        Ok(())
    }

    fn write_activations(
        &self,
        values: &[i16],
        exponents: &[i32],
        out: &mut Self::Activations,
    ) -> Result<(), BackendError> {
        out.rows = exponents.len();
        self.first.write_activations(values, exponents, &mut out.first)?;
        self.second.write_activations(values, exponents, &mut out.second)
    }

    fn read_activations(
        &self,
        x: &Self::Activations,
        row: usize,
        out: &mut Vec<i16>,
    ) -> Result<i32, BackendError> {
        self.first.read_activations(&x.first, row, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scalar;
    use crate::golden::selftest;

    #[test]
    fn equal_backends_pass_the_selftest_in_step() {
        let paired = Paired::new(Arc::new(Scalar::new()), Arc::new(crate::Cpu::new(2).unwrap()));
        selftest(&paired).unwrap();
        assert_eq!(paired.difference(), None);
    }
}

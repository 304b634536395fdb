//! The reference backend with something that happens in the middle of every step.

#![allow(clippy::unwrap_used, reason = "test code outside test functions")]

use std::ops::Range;
use std::sync::Mutex;

use metis_kernels::{
    Activation, Attention, Backend, BackendError, KvShape, LinearWeights, NormWeights, Row, SampleRequest,
    Scalar, Scale, SoftCap, TokenId,
};

/// What happens; the number counts from one.
type Event = Box<dyn FnMut(u64) -> Result<(), BackendError> + Send>;

/// The backend.
#[derive(Default)]
pub(crate) struct Interrupted {
    scalar: Scalar,
    event: Mutex<Option<(u64, Event)>>,
}

impl Interrupted {
    /// Lets `event` happen from now on, on the thread that executes the step.
    pub(crate) fn interrupt(&self, event: impl FnMut(u64) -> Result<(), BackendError> + Send + 'static) {
        *self.event.lock().unwrap() = Some((0, Box::new(event)));
    }

    /// Lets the event happen. It is not there meanwhile: what it does may execute steps of its own.
    fn happen(&self) -> Result<(), BackendError> {
        let Some((count, mut event)) = self.event.lock().unwrap().take() else { return Ok(()) };
        event(count + 1)?;
        *self.event.lock().unwrap() = Some((count + 1, event));
        Ok(())
    }
}

impl std::fmt::Debug for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Interrupted")
    }
}

type Done = Result<(), BackendError>;
type Residual = <Scalar as Backend>::Residual;
type Activations = <Scalar as Backend>::Activations;
type KvCache = <Scalar as Backend>::KvCache;
type Linear = <Scalar as Backend>::Linear;
type Norm = <Scalar as Backend>::Norm;
type Bias = <Scalar as Backend>::Bias;
type Rope = <Scalar as Backend>::Rope;

impl Backend for Interrupted {
    type Linear = Linear;
    type Norm = Norm;
    type Bias = Bias;
    type Rope = Rope;
    type Residual = Residual;
    type Activations = Activations;
    type KvCache = KvCache;

    fn name(&self) -> String {
        "interrupted".into()
    }

    fn sample(&self, logits: &Residual, requests: &[SampleRequest], out: &mut Vec<TokenId>) -> Done {
        self.happen()?;
        self.scalar.sample(logits, requests, out)
    }

    fn load_linear(&self, weights: LinearWeights<'_>) -> Result<Linear, BackendError> {
        self.scalar.load_linear(weights)
    }

    fn load_norm(&self, weights: NormWeights<'_>) -> Result<Norm, BackendError> {
        self.scalar.load_norm(weights)
    }

    fn load_bias(&self, values_q16: &[i32]) -> Result<Bias, BackendError> {
        self.scalar.load_bias(values_q16)
    }

    fn load_rope(&self, frequencies_q64: &[u64], context: usize) -> Result<Rope, BackendError> {
        self.scalar.load_rope(frequencies_q64, context)
    }

    fn residual(&self, rows: usize, width: usize) -> Result<Residual, BackendError> {
        self.scalar.residual(rows, width)
    }

    fn activations(&self, rows: usize, width: usize) -> Result<Activations, BackendError> {
        self.scalar.activations(rows, width)
    }

    fn kv_cache(&self, shape: KvShape) -> Result<KvCache, BackendError> {
        self.scalar.kv_cache(shape)
    }

    fn kv_bytes(&self, shape: KvShape) -> usize {
        self.scalar.kv_bytes(shape)
    }

    fn copy_positions(&self, from: &KvCache, positions: Range<usize>, to: &mut KvCache, at: usize) -> Done {
        self.scalar.copy_positions(from, positions, to, at)
    }

    fn embed(&self, table: &Linear, tokens: &[TokenId], factor: Scale, out: &mut Residual) -> Done {
        self.scalar.embed(table, tokens, factor, out)
    }

    fn norm(&self, x: &Residual, norm: &Norm, out: &mut Activations) -> Done {
        self.scalar.norm(x, norm, out)
    }

    fn normalise(&self, x: &mut Residual, norm: &Norm) -> Done {
        self.scalar.normalise(x, norm)
    }

    fn quantise(&self, x: &Residual, out: &mut Activations) -> Done {
        self.scalar.quantise(x, out)
    }

    fn argmax(&self, x: &Activations, weights: &Linear, out: &mut Vec<TokenId>) -> Done {
        self.scalar.argmax(x, weights, out)
    }

    fn linear(&self, x: &Activations, weights: &Linear, out: &mut Residual) -> Done {
        self.scalar.linear(x, weights, out)
    }

    fn rope(&self, rope: &Rope, rows: &[Row], head_dim: usize, x: &mut Residual) -> Done {
        self.scalar.rope(rope, rows, head_dim, x)
    }

    fn attention(
        &self,
        attention: Attention,
        rows: &[Row],
        q: &Residual,
        k: &Residual,
        v: &Residual,
        caches: &mut [&mut KvCache],
        out: &mut Activations,
    ) -> Done {
        self.scalar.attention(attention, rows, q, k, v, caches, out)
    }

    fn gate(
        &self,
        activation: Activation,
        gate: &Residual,
        up: Option<&Residual>,
        out: &mut Activations,
    ) -> Done {
        self.scalar.gate(activation, gate, up, out)
    }

    fn add_bias(&self, x: &mut Residual, bias: &Bias) -> Done {
        self.scalar.add_bias(x, bias)
    }

    fn soft_cap(&self, x: &mut Residual, cap: SoftCap) -> Done {
        self.scalar.soft_cap(x, cap)
    }

    fn add(&self, x: &mut Residual, y: &Residual) -> Done {
        self.scalar.add(x, y)
    }

    fn select_rows(&self, x: &Residual, rows: &[usize], out: &mut Residual) -> Done {
        self.scalar.select_rows(x, rows, out)
    }

    fn read_row(&self, x: &Residual, row: usize, out: &mut Vec<i32>) -> Done {
        self.scalar.read_row(x, row, out)
    }

    fn write_residual(&self, values: &[i32], out: &mut Residual) -> Done {
        self.scalar.write_residual(values, out)
    }

    fn write_activations(&self, values: &[i16], exponents: &[i32], out: &mut Activations) -> Done {
        self.scalar.write_activations(values, exponents, out)
    }

    fn read_activations(&self, x: &Activations, row: usize, out: &mut Vec<i16>) -> Result<i32, BackendError> {
        self.scalar.read_activations(x, row, out)
    }
}

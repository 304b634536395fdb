//! The reference backend: one plain loop per formula of `docs/numerics.md`.
//!
//! It is what every other backend is compared with. Rows and output channels are shared out over a parked thread pool; as each
//! result is a function of its own inputs, the number of threads cannot change a bit.

mod attention;
mod linear;
mod norm;
mod rope;

pub use attention::{KvCache, attention_row};
pub use linear::{Linear, dot, grouped_dot};
pub use norm::{Norm, norm_row, normalise_row};
pub use rope::{RopeTable, rotate_head};

use core::ops::Range;

use crate::activation::{Activation, SoftCap, cap_row, gate_row};
use crate::backend::{
    Attention, Backend, BackendError, KvShape, LinearWeights, NormWeights, Row, SampleRequest,
};
use crate::buffers::{Activations, Bias, Residual, add_row};
use crate::cache::copy_positions;
use crate::formats::{GROUP_INPUTS, RESIDUAL_BITS, Scale, TokenId};
use crate::pool::Pool;
use crate::quantise::quantise_q16;
use crate::rounding::{product, rescale};

/// The scalar reference backend.
#[derive(Clone, Debug)]
pub struct Scalar {
    pool: Pool,
}

impl Scalar {
    /// A backend that works on the calling thread.
    pub const fn new() -> Self {
        Self { pool: Pool::ALONE }
    }

    /// A backend that shares its work out over `threads` threads; one is the calling thread alone.
    pub fn with_threads(threads: usize) -> Result<Self, BackendError> {
        Ok(Self { pool: Pool::new(threads)? })
    }

    /// How many threads work.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }
}

impl Default for Scalar {
    fn default() -> Self {
        Self::new()
    }
}

impl Backend for Scalar {
    type Linear = Linear;
    type Norm = Norm;
    type Bias = Bias;
    type Rope = RopeTable;
    type Residual = Residual;
    type Activations = Activations;
    type KvCache = KvCache;

    fn name(&self) -> String {
        "scalar".into()
    }

    fn enter<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        self.pool.run(f)
    }

    fn load_linear(&self, weights: LinearWeights<'_>) -> Result<Linear, BackendError> {
        Ok(Linear::new(weights)?)
    }

    fn load_norm(&self, weights: NormWeights<'_>) -> Result<Norm, BackendError> {
        Ok(Norm::new(weights)?)
    }

    fn load_bias(&self, values_q16: &[i32]) -> Result<Bias, BackendError> {
        Ok(Bias::new(values_q16)?)
    }

    fn load_rope(&self, frequencies_q64: &[u64], context: usize) -> Result<RopeTable, BackendError> {
        Ok(RopeTable::new(frequencies_q64, context)?)
    }

    fn residual(&self, rows: usize, width: usize) -> Result<Residual, BackendError> {
        Ok(Residual::new(rows, width))
    }

    fn activations(&self, rows: usize, width: usize) -> Result<Activations, BackendError> {
        Ok(Activations::new(rows, width))
    }

    fn kv_cache(&self, shape: KvShape) -> Result<KvCache, BackendError> {
        Ok(KvCache::new(shape)?)
    }

    fn kv_bytes(&self, shape: KvShape) -> usize {
        KvCache::bytes(shape)
    }

    fn copy_positions(
        &self,
        from: &KvCache,
        positions: Range<usize>,
        to: &mut KvCache,
        at: usize,
    ) -> Result<(), BackendError> {
        copy_positions(from, positions, to, at)
    }

    fn embed(
        &self,
        table: &Linear,
        tokens: &[TokenId],
        factor: Scale,
        out: &mut Residual,
    ) -> Result<(), BackendError> {
        out.start("embed", tokens.len(), table.inputs())?;
        for (i, &token) in tokens.iter().enumerate() {
            if token.index() >= table.outputs() {
                return Err(BackendError::TokenOutOfRange { token, vocabulary: table.outputs() });
            }
            let (weights, scale) = table.row(token.index());
            let (mantissa, exponent) = product(scale.mantissa(), scale.exponent(), factor);
            let groups = table.groups(token.index());
            for (k, (x, &w)) in out.row_mut(i).iter_mut().zip(weights).enumerate() {
                let multiplier = groups.map_or(1, |groups| i64::from(groups[k / GROUP_INPUTS]));
                *x = rescale(i64::from(w) * multiplier, mantissa, exponent + RESIDUAL_BITS as i32);
            }
        }
        Ok(())
    }

    fn norm(&self, x: &Residual, norm: &Norm, out: &mut Activations) -> Result<(), BackendError> {
        x.extent().expect("norm", norm.width())?;
        out.start("norm", x.rows(), x.width())?;
        out.for_each_row(&self.pool, |i, activations| norm_row(x.row(i), norm, activations));
        Ok(())
    }

    fn normalise(&self, x: &mut Residual, norm: &Norm) -> Result<(), BackendError> {
        x.extent().expect_runs("normalise", norm.width())?;
        x.for_each_row(&self.pool, |_, row| {
            row.chunks_exact_mut(norm.width()).for_each(|run| normalise_row(run, norm));
        });
        Ok(())
    }

    fn quantise(&self, x: &Residual, out: &mut Activations) -> Result<(), BackendError> {
        out.start("quantise", x.rows(), x.width())?;
        out.for_each_row(&self.pool, |i, activations| quantise_q16(x.row(i), activations));
        Ok(())
    }

    fn linear(&self, x: &Activations, weights: &Linear, out: &mut Residual) -> Result<(), BackendError> {
        x.extent().expect("linear", weights.inputs())?;
        out.start("linear", x.rows(), weights.outputs())?;
        linear::linear(&self.pool, x, weights, out);
        Ok(())
    }

    fn argmax(&self, x: &Activations, weights: &Linear, out: &mut Vec<TokenId>) -> Result<(), BackendError> {
        x.extent().expect("argmax", weights.inputs())?;
        out.clear();
        for i in 0..x.rows() {
            let value = |output: usize| weights.output(output, x.row(i), x.exponent(i));
            // The first of equals: a later one must be larger.
            let best = (1..weights.outputs()).fold((0, value(0)), |best, output| {
                let value = value(output);
                if value > best.1 { (output, value) } else { best }
            });
            out.push(TokenId(best.0 as u32));
        }
        Ok(())
    }

    fn rope(
        &self,
        rope: &RopeTable,
        rows: &[Row],
        head_dim: usize,
        x: &mut Residual,
    ) -> Result<(), BackendError> {
        x.extent().expect_rows("rope", rows.len())?;
        rope.check(rows, head_dim, x.width())?;
        x.for_each_row(&self.pool, |i, heads| {
            for head in heads.chunks_exact_mut(head_dim) {
                rotate_head(rope.at(rows[i].position), head);
            }
        });
        Ok(())
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
    ) -> Result<(), BackendError> {
        attention::attention(&self.pool, attention, rows, [q, k, v], caches, out)
    }

    fn gate(
        &self,
        activation: Activation,
        gate: &Residual,
        up: Option<&Residual>,
        out: &mut Activations,
    ) -> Result<(), BackendError> {
        gate.extent().expect_twin("gate", up.map(Residual::extent))?;
        out.start("gate", gate.rows(), gate.width())?;
        out.for_each_row(&self.pool, |i, activations| {
            gate_row(activation, gate.row(i), up.map(|up| up.row(i)), activations)
        });
        Ok(())
    }

    fn add(&self, x: &mut Residual, y: &Residual) -> Result<(), BackendError> {
        y.extent().expect("add", x.width())?;
        y.extent().expect_rows("add", x.rows())?;
        (0..x.rows()).for_each(|i| add_row(x.row_mut(i), y.row(i)));
        Ok(())
    }

    fn add_bias(&self, x: &mut Residual, bias: &Bias) -> Result<(), BackendError> {
        x.extent().expect("add_bias", bias.values().len())?;
        (0..x.rows()).for_each(|i| add_row(x.row_mut(i), bias.values()));
        Ok(())
    }

    fn soft_cap(&self, x: &mut Residual, cap: SoftCap) -> Result<(), BackendError> {
        x.for_each_row(&self.pool, |_, row| cap_row(row, cap));
        Ok(())
    }

    fn select_rows(&self, x: &Residual, rows: &[usize], out: &mut Residual) -> Result<(), BackendError> {
        out.select("select_rows", x, rows)
    }

    fn sample(
        &self,
        logits: &Residual,
        requests: &[SampleRequest],
        out: &mut Vec<TokenId>,
    ) -> Result<(), BackendError> {
        logits.sample(requests, out)
    }

    fn read_row(&self, x: &Residual, row: usize, out: &mut Vec<i32>) -> Result<(), BackendError> {
        out.clear();
        out.extend_from_slice(x.checked_row("read_row", row)?);
        Ok(())
    }

    fn write_residual(&self, values: &[i32], out: &mut Residual) -> Result<(), BackendError> {
        out.fill(values)
    }

    fn write_activations(
        &self,
        values: &[i16],
        exponents: &[i32],
        out: &mut Activations,
    ) -> Result<(), BackendError> {
        out.fill(values, exponents)
    }

    fn read_activations(&self, x: &Activations, row: usize, out: &mut Vec<i16>) -> Result<i32, BackendError> {
        out.clear();
        out.extend_from_slice(x.checked_row("read_activations", row)?);
        Ok(x.exponent(row))
    }
}

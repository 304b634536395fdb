//! The reference backend: one plain loop per formula of `docs/numerics.md`.
//!
//! It is what every other backend is compared with. Rows and output channels are shared out over a parked thread pool; as each
//! result is a function of its own inputs, the number of threads cannot change a bit.

mod attention;
mod linear;
mod rmsnorm;
mod rope;
mod silu;

pub use attention::{KvCache, attention_row};
pub use linear::{Linear, dot};
pub use rmsnorm::{Norm, rmsnorm_row};
pub use rope::{RopeTable, rotate_head};
pub use silu::silu_gate_row;

use core::ops::Range;

use crate::backend::{Backend, BackendError, KvShape, LinearWeights, NormWeights, Row, SampleRequest};
use crate::buffers::{Activations, Residual};
use crate::cache::copy_positions;
use crate::formats::{RESIDUAL_BITS, TokenId};
use crate::pool::Pool;
use crate::rounding::{rescale, saturate32};

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

    fn embed(&self, table: &Linear, tokens: &[TokenId], out: &mut Residual) -> Result<(), BackendError> {
        out.start("embed", tokens.len(), table.inputs())?;
        for (i, &token) in tokens.iter().enumerate() {
            if token.index() >= table.outputs() {
                return Err(BackendError::TokenOutOfRange { token, vocabulary: table.outputs() });
            }
            let (weights, scale) = table.row(token.index());
            for (x, &w) in out.row_mut(i).iter_mut().zip(weights) {
                *x = rescale(i64::from(w), scale.mantissa(), scale.exponent() + RESIDUAL_BITS as i32);
            }
        }
        Ok(())
    }

    fn rmsnorm(&self, x: &Residual, norm: &Norm, out: &mut Activations) -> Result<(), BackendError> {
        x.expect("rmsnorm", norm.width())?;
        out.start("rmsnorm", x.rows(), x.width())?;
        out.for_each_row(&self.pool, |i, activations| rmsnorm_row(x.row(i), norm, activations));
        Ok(())
    }

    fn linear(&self, x: &Activations, weights: &Linear, out: &mut Residual) -> Result<(), BackendError> {
        x.expect("linear", weights.inputs())?;
        out.start("linear", x.rows(), weights.outputs())?;
        linear::linear(&self.pool, x, weights, out);
        Ok(())
    }

    fn rope(
        &self,
        rope: &RopeTable,
        rows: &[Row],
        head_dim: usize,
        x: &mut Residual,
    ) -> Result<(), BackendError> {
        x.expect_rows("rope", rows.len())?;
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
        layer: usize,
        rows: &[Row],
        q: &Residual,
        k: &Residual,
        v: &Residual,
        caches: &mut [&mut KvCache],
        out: &mut Activations,
    ) -> Result<(), BackendError> {
        attention::attention(&self.pool, layer, rows, [q, k, v], caches, out)
    }

    fn silu_gate(&self, gate: &Residual, up: &Residual, out: &mut Activations) -> Result<(), BackendError> {
        up.expect("silu_gate", gate.width())?;
        up.expect_rows("silu_gate", gate.rows())?;
        out.start("silu_gate", gate.rows(), gate.width())?;
        out.for_each_row(&self.pool, |i, activations| silu_gate_row(gate.row(i), up.row(i), activations));
        Ok(())
    }

    fn add(&self, x: &mut Residual, y: &Residual) -> Result<(), BackendError> {
        y.expect("add", x.width())?;
        y.expect_rows("add", x.rows())?;
        for i in 0..x.rows() {
            for (x, &y) in x.row_mut(i).iter_mut().zip(y.row(i)) {
                *x = saturate32(i64::from(*x) + i64::from(y));
            }
        }
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

//! The processor's backend: the same integers as [`Scalar`](crate::Scalar), by whatever instructions there are.
//!
//! Matrix products and attention have loops written for each instruction set; the rest are the reference's own row functions, compiled
//! once more for each.

mod argmax;
mod attention;
mod cache;
mod groups;
mod isa;
mod linear;
mod packed;
mod pages;
mod planes;
mod rows;
mod shared;
mod simd;

use core::ops::Range;

use isa::{Isa, with_simd};
use pages::Pages;
use simd::Simd as _;

pub use cache::PackedCache;
pub use isa::CpuKind;
pub use packed::PackedLinear;
pub use planes::Planes;

use crate::activation::{Activation, SoftCap, cap_row, gate_row};
use crate::backend::{
    Attention, Backend, BackendError, KvShape, LinearWeights, NormWeights, Row, SampleRequest,
};
use crate::buffers::{Bias, Residual, add_row};
use crate::cache::copy_positions;
use crate::formats::{RESIDUAL_BITS, Scale, TokenId};
use crate::pool::Pool;
use crate::quantise::quantise_q16;
use crate::rounding::{product, rescale};
use crate::scalar::{Norm, RopeTable, norm_row, normalise_row, rotate_head};

/// The CPU backend.
#[derive(Clone, Debug)]
pub struct Cpu {
    kind: CpuKind,
    isa: Isa,
    pool: Pool,
    pages: Pages,
}

impl Cpu {
    /// The fastest instructions that this processor has, on `threads` threads; one is the calling thread alone.
    pub fn new(threads: usize) -> Result<Self, BackendError> {
        let kind = CpuKind::ALL.into_iter().find(|kind| kind.is_available()).unwrap_or(CpuKind::Portable);
        Self::with_kind(kind, threads)
    }

    /// Particular instructions. An error if this processor does not have them.
    pub fn with_kind(kind: CpuKind, threads: usize) -> Result<Self, BackendError> {
        let isa = kind.detect().ok_or_else(|| BackendError::Device {
            device: kind.name().into(),
            reason: "this processor does not have the instructions".into(),
        })?;
        Ok(Self { kind, isa, pool: Pool::new(threads)?, pages: Pages::default() })
    }

    /// How many threads work.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// The instructions in use.
    pub const fn kind(&self) -> CpuKind {
        self.kind
    }
}

impl Backend for Cpu {
    type Linear = PackedLinear;
    type Norm = Norm;
    type Bias = Bias;
    type Rope = RopeTable;
    type Residual = Residual;
    type Activations = Planes;
    type KvCache = PackedCache;

    fn name(&self) -> String {
        self.kind.name().into()
    }

    fn enter<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        self.pool.run(f)
    }

    fn load_linear(&self, weights: LinearWeights<'_>) -> Result<PackedLinear, BackendError> {
        PackedLinear::new(weights, &self.pages)
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

    fn activations(&self, rows: usize, width: usize) -> Result<Planes, BackendError> {
        Ok(Planes::new(rows, width))
    }

    fn kv_cache(&self, shape: KvShape) -> Result<PackedCache, BackendError> {
        Ok(PackedCache::new(shape)?)
    }

    fn kv_bytes(&self, shape: KvShape) -> usize {
        PackedCache::bytes(shape)
    }

    fn copy_positions(
        &self,
        from: &PackedCache,
        positions: Range<usize>,
        to: &mut PackedCache,
        at: usize,
    ) -> Result<(), BackendError> {
        copy_positions(from, positions, to, at)
    }

    fn embed(
        &self,
        table: &PackedLinear,
        tokens: &[TokenId],
        factor: Scale,
        out: &mut Residual,
    ) -> Result<(), BackendError> {
        out.start("embed", tokens.len(), table.inputs())?;
        for (i, &token) in tokens.iter().enumerate() {
            if token.index() >= table.outputs() {
                return Err(BackendError::TokenOutOfRange { token, vocabulary: table.outputs() });
            }
            let (weights, mantissa, exponent) = table.row(token.index());
            let (mantissa, exponent) = product(mantissa, exponent, factor);
            let exponent = exponent + RESIDUAL_BITS as i32;
            if let Some(weights) = table.grouped_row(token.index()) {
                for (x, w) in out.row_mut(i).iter_mut().zip(weights) {
                    *x = rescale(i64::from(w), mantissa, exponent);
                }
                continue;
            }
            for (x, w) in out.row_mut(i).iter_mut().zip(weights) {
                *x = rescale(i64::from(w), mantissa, exponent);
            }
        }
        Ok(())
    }

    fn norm(&self, x: &Residual, norm: &Norm, out: &mut Planes) -> Result<(), BackendError> {
        x.extent().expect("norm", norm.width())?;
        out.start("norm", x.rows(), x.width())?;
        out.for_each_row(&self.pool, self.isa, |i, activations| {
            self.isa.run(
                #[inline(always)]
                || norm_row(x.row(i), norm, activations),
            )
        });
        Ok(())
    }

    fn normalise(&self, x: &mut Residual, norm: &Norm) -> Result<(), BackendError> {
        x.extent().expect_runs("normalise", norm.width())?;
        x.for_each_row(&self.pool, |_, row| {
            self.isa.run(
                #[inline(always)]
                || row.chunks_exact_mut(norm.width()).for_each(|run| normalise_row(run, norm)),
            );
        });
        Ok(())
    }

    fn quantise(&self, x: &Residual, out: &mut Planes) -> Result<(), BackendError> {
        out.start("quantise", x.rows(), x.width())?;
        out.for_each_row(&self.pool, self.isa, |i, activations| {
            self.isa.run(
                #[inline(always)]
                || quantise_q16(x.row(i), activations),
            )
        });
        Ok(())
    }

    fn linear(&self, x: &Planes, weights: &PackedLinear, out: &mut Residual) -> Result<(), BackendError> {
        x.extent().expect("linear", weights.inputs())?;
        out.start("linear", x.rows(), weights.outputs())?;
        with_simd!(self.isa, simd => linear::linear(simd, &self.pool, x, weights, out));
        Ok(())
    }

    fn argmax(&self, x: &Planes, weights: &PackedLinear, out: &mut Vec<TokenId>) -> Result<(), BackendError> {
        x.extent().expect("argmax", weights.inputs())?;
        with_simd!(self.isa, simd => argmax::argmax(simd, &self.pool, x, weights, out));
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
            self.isa.run(
                #[inline(always)]
                || {
                    for head in heads.chunks_exact_mut(head_dim) {
                        rotate_head(rope.at(rows[i].position), head);
                    }
                },
            );
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
        caches: &mut [&mut PackedCache],
        out: &mut Planes,
    ) -> Result<(), BackendError> {
        attention::attention(self.isa, &self.pool, attention, rows, [q, k, v], caches, out)
    }

    fn gate(
        &self,
        activation: Activation,
        gate: &Residual,
        up: Option<&Residual>,
        out: &mut Planes,
    ) -> Result<(), BackendError> {
        gate.extent().expect_twin("gate", up.map(Residual::extent))?;
        out.start("gate", gate.rows(), gate.width())?;
        out.for_each_row(&self.pool, self.isa, |i, activations| match (activation, up) {
            (Activation::Silu, Some(up)) => rows::with_buffer(gate.width(), |silu| {
                with_simd!(self.isa, simd => simd.silu(gate.row(i), silu));
                self.isa.run(
                    #[inline(always)]
                    || rows::silu_gate_row(silu, up.row(i), activations),
                )
            }),
            _ => self.isa.run(
                #[inline(always)]
                || gate_row(activation, gate.row(i), up.map(|up| up.row(i)), activations),
            ),
        });
        Ok(())
    }

    fn add(&self, x: &mut Residual, y: &Residual) -> Result<(), BackendError> {
        y.extent().expect("add", x.width())?;
        y.extent().expect_rows("add", x.rows())?;
        self.isa.run(
            #[inline(always)]
            || (0..x.rows()).for_each(|i| add_row(x.row_mut(i), y.row(i))),
        );
        Ok(())
    }

    fn add_bias(&self, x: &mut Residual, bias: &Bias) -> Result<(), BackendError> {
        x.extent().expect("add_bias", bias.values().len())?;
        self.isa.run(
            #[inline(always)]
            || (0..x.rows()).for_each(|i| add_row(x.row_mut(i), bias.values())),
        );
        Ok(())
    }

    fn soft_cap(&self, x: &mut Residual, cap: SoftCap) -> Result<(), BackendError> {
        x.for_each_row(&self.pool, |_, row| {
            self.isa.run(
                #[inline(always)]
                || cap_row(row, cap),
            );
        });
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
        out: &mut Planes,
    ) -> Result<(), BackendError> {
        out.fill(self.isa, values, exponents)
    }

    fn read_activations(&self, x: &Planes, row: usize, out: &mut Vec<i16>) -> Result<i32, BackendError> {
        out.clear();
        out.extend_from_slice(x.checked_row("read_activations", row)?);
        Ok(x.exponent(row))
    }
}

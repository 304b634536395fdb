//! Attention on the packed cache: scores sixteen positions at a time, the order-free softmax, and values as a matrix product.

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::cache::{Head, PackedCache};
use super::isa::{Isa, with_simd};
use super::packed::{DEPTH, LANES, PanelScales};
use super::planes::{PlaneRow, Planes, split};
use super::simd::{Keys, Panel, QueryRow, Simd, Sixteen};
use crate::activation::cap_row;
use crate::backend::{Attention, BackendError, Row};
use crate::bounds::MAX_HEAD_DIM;
use crate::buffers::Residual;
use crate::cache::{Sequence, write_rows};
use crate::extent::mismatch;
use crate::formats::RESIDUAL_BITS;
use crate::pool::Pool;
use crate::quantise::{activation_shift, quantise_q16};
use crate::rounding::shift_by;
use crate::softmax::normaliser;

/// Query heads whose scores are computed together.
const TILE: usize = 4;
/// Products of queries and keys below which a second thread costs more than it brings.
const WORTH_SHARING: usize = 1 << 17;

/// See [`Backend::attention`](crate::Backend::attention).
pub(super) fn attention(
    isa: Isa,
    pool: &Pool,
    attention: Attention,
    rows: &[Row],
    qkv: [&Residual; 3],
    caches: &mut [&mut PackedCache],
    out: &mut Planes,
) -> Result<(), BackendError> {
    write_rows(attention, rows, qkv, caches)?;
    let [q, ..] = qkv;
    out.start("attention", rows.len(), q.width())?;
    let caches: &[&mut PackedCache] = caches;
    let Some(shape) = rows.first().map(|row| caches[row.sequence].shape.attention) else { return Ok(()) };
    // Caches of one call have one width, but heads could still be divided differently.
    if rows.iter().any(|row| caches[row.sequence].shape.attention != shape) {
        return Err(mismatch("attention", "caches of one shape".into(), "several".into()));
    }

    let head_dim = shape.head_dim;
    let group = shape.heads / shape.kv_heads * head_dim;
    let one = |(i, heads): (usize, &mut [i32])| {
        let (row, kv_head) = (i / shape.kv_heads, i % shape.kv_heads);
        let Row { sequence, position } = rows[row];
        let cache = &*caches[sequence];
        let query = &q.row(row)[kv_head * group..][..group];
        SCRATCH.with_borrow_mut(|scratch| {
            let seen = attention.sees(position, cache.length(attention.layer));
            let job = Job { head: cache.head(attention.layer, kv_head), head_dim, attention, seen };
            with_simd!(isa, simd => simd.run(
                #[inline(always)]
                || job.group(simd, scratch, query, heads),
            ));
        });
    };
    let seen = |row: &Row| attention.sees(row.position, caches[row.sequence].length(attention.layer)).len();
    let work: usize = rows.iter().map(|row| seen(row) * shape.query_width()).sum();
    let heads = out.scratch(rows.len() * q.width());
    if pool.threads() > 1 && work >= WORTH_SHARING {
        pool.run(|| heads.par_chunks_exact_mut(group).enumerate().for_each(one));
    } else {
        heads.chunks_exact_mut(group).enumerate().for_each(one);
    }
    out.for_each_scratch_row(pool, isa, |heads, activations| {
        isa.run(
            #[inline(always)]
            || quantise_q16(heads, activations),
        )
    });
    Ok(())
}

thread_local! {
    /// Kept between calls, so that a token allocates nothing.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// What one group of query heads needs.
#[derive(Default)]
struct Scratch {
    scores: [Vec<Sixteen>; TILE],
    weights: Vec<u32>,
    factors: Vec<i16>,
    high: Vec<i8>,
    low: Vec<i8>,
}

/// The query heads of one row that share a key-value head.
struct Job<'a> {
    head: Head<'a>,
    head_dim: usize,
    attention: Attention,
    /// Positions.
    seen: Range<usize>,
}

impl Job<'_> {
    #[inline(always)]
    fn group<S: Simd>(&self, simd: S, scratch: &mut Scratch, query: &[i32], out: &mut [i32]) {
        let tile = TILE * self.head_dim;
        for (query, out) in query.chunks(tile).zip(out.chunks_mut(tile)) {
            match query.len() / self.head_dim {
                4 => self.tile::<S, 4>(simd, scratch, query, out),
                3 => self.tile::<S, 3>(simd, scratch, query, out),
                2 => self.tile::<S, 2>(simd, scratch, query, out),
                _ => self.tile::<S, 1>(simd, scratch, query, out),
            }
        }
    }

    /// The blocks of sixteen positions in which there are some that are seen.
    fn blocks(&self) -> Range<usize> {
        self.seen.start / LANES..self.seen.end.div_ceil(LANES)
    }

    /// `T` query heads.
    #[inline(always)]
    fn tile<S: Simd, const T: usize>(&self, simd: S, scratch: &mut Scratch, query: &[i32], out: &mut [i32]) {
        let (head_dim, blocks, scale) = (self.head_dim, self.blocks(), self.attention.scale);
        let mut queries = [Query::EMPTY; T];
        for (query, values) in queries.iter_mut().zip(query.chunks_exact(head_dim)) {
            query.set(values);
        }
        for scores in &mut scratch.scores[..T] {
            scores.resize(blocks.len(), [0; LANES]);
        }
        let keys = Keys {
            blocks: &self.head.keys[blocks.start * head_dim / 2..blocks.end * head_dim / 2],
            exponents: &self.head.key_exponents[blocks],
            mantissa: scale.mantissa(),
        };
        let rows = core::array::from_fn::<_, T, _>(|t| QueryRow {
            high: &queries[t].high[..head_dim],
            low: &queries[t].low[..head_dim],
            exponent: queries[t].exponent + scale.exponent() + RESIDUAL_BITS as i32,
        });
        let mut scores = scratch.scores.iter_mut();
        let scores = core::array::from_fn::<_, T, _>(|_| scores.next().map_or(&mut [][..], |s| &mut s[..]));
        simd.scores(keys, rows, scores);
        for (t, out) in out.chunks_exact_mut(head_dim).enumerate() {
            self.values(simd, t, scratch, out);
        }
    }

    /// Softmax over the scores of query `t`, and the sum of the values.
    #[inline(always)]
    fn values<S: Simd>(&self, simd: S, t: usize, scratch: &mut Scratch, out: &mut [i32]) {
        // From the first position of the first block on; those of it that are before the window count nothing.
        let first = self.blocks().start * LANES;
        let (length, unseen) = (self.seen.end - first, self.seen.start - first);
        let Scratch { scores, weights, factors, high, low } = scratch;
        let scores = &mut scores[t].as_flattened_mut()[unseen..length];
        let maxima = &self.head.value_maxima[first..][..length];
        let steps = length.div_ceil(DEPTH);
        weights.resize(length, 0);
        factors.resize(steps * DEPTH, 0);
        high.resize(steps * DEPTH, 0);
        low.resize(steps * DEPTH, 0);

        if let Some(cap) = self.attention.soft_cap {
            cap_row(scores, cap);
        }
        let max = scores.iter().copied().fold(i32::MIN, i32::max);
        let (mut sum, mut largest) = (0u64, 0u64);
        weights[..unseen].fill(0);
        simd.softmax_weights(scores, max, &mut weights[unseen..]);
        for (&weight, &maximum) in weights.iter().zip(maxima) {
            sum += u64::from(weight);
            largest = largest.max(u64::from(weight) * u64::from(maximum));
        }
        let shift = activation_shift(largest);
        for ((factor, &weight), &maximum) in factors.iter_mut().zip(&*weights).zip(maxima) {
            *factor = shift_by(i64::from(weight) * i64::from(maximum), shift) as i16;
        }
        // Positions of the last block that are not attended to count nothing.
        factors[length..].fill(0);
        let (high_sum, low_sum) = split(factors, high, low);

        let scale = normaliser(sum);
        let scales =
            PanelScales { mantissas: [scale.mantissa() as i32; LANES], exponents: [scale.exponent(); LANES] };
        let row = PlaneRow {
            values: factors,
            high,
            low,
            high_sum,
            low_sum,
            // The matrix product adds the format's bits; these results have them already.
            exponent: shift - RESIDUAL_BITS as i32,
        };
        let panel =
            |i: usize| Panel { blocks: &self.head.values(i)[first / DEPTH..][..steps], scales: &scales };
        let panels = self.head_dim.div_ceil(LANES);
        let mut first = 0;
        while first < panels {
            let out = &mut out[first * LANES..];
            first += match panels - first {
                4.. if S::STREAMS >= 4 => some_channels::<S, 4>(simd, |i| panel(first + i), row, out),
                2.. if S::STREAMS >= 2 => some_channels::<S, 2>(simd, |i| panel(first + i), row, out),
                _ => some_channels::<S, 1>(simd, |i| panel(first + i), row, out),
            };
        }
    }
}

/// Sums for the channels of `P` panels; returns `P`.
#[inline(always)]
fn some_channels<'a, S: Simd, const P: usize>(
    simd: S,
    panel: impl Fn(usize) -> Panel<'a>,
    row: PlaneRow<'_>,
    out: &mut [i32],
) -> usize {
    let mut sums = [[[0; LANES]; 1]; P];
    simd.linear(core::array::from_fn(panel), [row], &mut sums);
    for (out, sums) in out.chunks_mut(LANES).zip(&sums) {
        out.copy_from_slice(&sums[0][..out.len()]);
    }
    P
}

/// A quantised query head, in widened halves.
#[derive(Clone, Copy)]
struct Query {
    high: [i16; MAX_HEAD_DIM],
    low: [i16; MAX_HEAD_DIM],
    exponent: i32,
}

impl Query {
    const EMPTY: Self = Self { high: [0; MAX_HEAD_DIM], low: [0; MAX_HEAD_DIM], exponent: 0 };

    #[inline(always)]
    fn set(&mut self, values: &[i32]) {
        let mut query = [0i16; MAX_HEAD_DIM];
        let query = &mut query[..values.len()];
        self.exponent = quantise_q16(values, query);
        for ((&value, high), low) in query.iter().zip(&mut self.high).zip(&mut self.low) {
            *low = i16::from(value as i8);
            *high = (value - *low) >> 8;
        }
    }
}

//! Attention over a quantised key-value cache, with the order-free softmax.
//!
//! Keys are int16 with an exponent per (token, head), values int8 with their largest magnitude per (token, head). No scale ever
//! spans two tokens of the cache, so filling it in one call or one token at a time gives the same bytes.

use crate::backend::{Attention, BackendError, KvShape, Row};
use crate::bounds::{AttentionShape, BoundsError};
use crate::buffers::{Activations, Residual};
use crate::cache::{Cache, Sequence, write_rows};
use crate::pool::Pool;
use crate::quantise::{quantise, quantise_q16, quantise_value_head};
use crate::rounding::rescale;
use crate::softmax::{normaliser, score, weight};

/// Keys and values of one sequence, all layers.
#[derive(Clone, Debug)]
pub struct KvCache {
    shape: KvShape,
    layers: Vec<Layer>,
}

/// Grows as it is written: a call that may feed many tokens and stops early pays for those that it fed.
#[derive(Clone, Debug, Default)]
struct Layer {
    /// Positions that have been written.
    length: usize,
    keys: Vec<i16>,
    key_exponents: Vec<i32>,
    values: Vec<i8>,
    value_maxima: Vec<u32>,
}

impl KvCache {
    /// An empty cache.
    pub fn new(shape: KvShape) -> Result<Self, BoundsError> {
        shape.check()?;
        let layers = (0..shape.layers).map(|_| Layer::default()).collect();
        Ok(Self { shape, layers })
    }

    /// Bytes of a full cache.
    pub(super) fn bytes(shape: KvShape) -> usize {
        let AttentionShape { kv_heads, .. } = shape.attention;
        let position = shape.attention.kv_width() * (size_of::<i16>() + size_of::<i8>())
            + kv_heads * (size_of::<i32>() + size_of::<u32>());
        let layer = shape.capacity.saturating_mul(position).saturating_add(size_of::<Layer>());
        shape.layers.saturating_mul(layer)
    }
}

impl Sequence for KvCache {
    fn shape(&self) -> KvShape {
        self.shape
    }

    fn length(&self, layer: usize) -> usize {
        self.layers[layer].length
    }
}

impl Cache for KvCache {
    fn write(&mut self, layer: usize, position: usize, k: &[i32], v: &[i32]) {
        let AttentionShape { kv_heads, head_dim, .. } = self.shape.attention;
        let layer = &mut self.layers[layer];
        layer.reach(position + 1, self.shape.attention);
        for head in 0..kv_heads {
            let slot = position * kv_heads + head;
            let (from, to) = (head * head_dim, slot * head_dim);
            layer.key_exponents[slot] =
                quantise_q16(&k[from..from + head_dim], &mut layer.keys[to..to + head_dim]);
            layer.value_maxima[slot] =
                quantise_value_head(&v[from..from + head_dim], &mut layer.values[to..to + head_dim]);
        }
        layer.length = position + 1;
    }

    fn copy(&mut self, layer: usize, position: usize, from: &Self, at: usize) {
        let attention = self.shape.attention;
        let (layer, from) = (&mut self.layers[layer], &from.layers[layer]);
        layer.reach(position + 1, attention);
        let (width, heads) = (attention.kv_width(), attention.kv_heads);
        layer.keys[position * width..][..width].copy_from_slice(&from.keys[at * width..][..width]);
        layer.values[position * width..][..width].copy_from_slice(&from.values[at * width..][..width]);
        layer.key_exponents[position * heads..][..heads]
            .copy_from_slice(&from.key_exponents[at * heads..][..heads]);
        layer.value_maxima[position * heads..][..heads]
            .copy_from_slice(&from.value_maxima[at * heads..][..heads]);
        layer.length = position + 1;
    }
}

impl Layer {
    /// Makes room for so many positions.
    fn reach(&mut self, positions: usize, shape: AttentionShape) {
        if positions * shape.kv_heads > self.key_exponents.len() {
            self.keys.resize(positions * shape.kv_width(), 0);
            self.values.resize(positions * shape.kv_width(), 0);
            self.key_exponents.resize(positions * shape.kv_heads, 0);
            self.value_maxima.resize(positions * shape.kv_heads, 0);
        }
    }
}

pub(super) fn attention(
    pool: &Pool,
    attention: Attention,
    rows: &[Row],
    qkv: [&Residual; 3],
    caches: &mut [&mut KvCache],
    out: &mut Activations,
) -> Result<(), BackendError> {
    write_rows(attention, rows, qkv, caches)?;
    let [q, ..] = qkv;
    out.start("attention", rows.len(), q.width())?;
    let caches: &[&mut KvCache] = caches;
    out.for_each_row(pool, |i, activations| {
        let heads = attention_row(caches[rows[i].sequence], &attention, rows[i].position, q.row(i));
        quantise_q16(&heads, activations)
    });
    Ok(())
}

/// Attends one query row (Q16, all heads) to the positions that it sees: the concatenated heads in Q16.
pub fn attention_row(cache: &KvCache, attention: &Attention, position: usize, q: &[i32]) -> Vec<i32> {
    let AttentionShape { heads, kv_heads, head_dim } = cache.shape.attention;
    let layer = &cache.layers[attention.layer];
    let seen = attention.sees(position, layer.length);
    let mut out = vec![0i32; heads * head_dim];
    let mut query = vec![0i16; head_dim];
    for (head, out) in out.chunks_exact_mut(head_dim).enumerate() {
        let kv_head = head / (heads / kv_heads);
        let exponent = quantise_q16(&q[head * head_dim..][..head_dim], &mut query);
        let slots = seen.clone().map(|t| t * kv_heads + kv_head);

        let scores: Vec<i32> = slots
            .clone()
            .map(|slot| {
                let dot = dot16(&query, &layer.keys[slot * head_dim..][..head_dim]);
                let score = score(dot, exponent + layer.key_exponents[slot], attention.scale);
                attention.soft_cap.map_or(score, |cap| cap.apply(score))
            })
            .collect();
        let max = scores.iter().copied().fold(i32::MIN, i32::max);

        let mut sum = 0u64;
        let products: Vec<i64> = slots
            .clone()
            .zip(&scores)
            .map(|(slot, &score)| {
                let weight = weight(score, max);
                sum += u64::from(weight);
                i64::from(weight) * i64::from(layer.value_maxima[slot])
            })
            .collect();
        let mut factors = vec![0i16; products.len()];
        let factor_exponent = quantise(&products, 0, &mut factors);

        let mut sums = vec![0i64; head_dim];
        for (slot, &factor) in slots.zip(&factors) {
            for (sum, &value) in sums.iter_mut().zip(&layer.values[slot * head_dim..][..head_dim]) {
                *sum += i64::from(i32::from(factor) * i32::from(value));
            }
        }
        let scale = normaliser(sum);
        for (out, &sum) in out.iter_mut().zip(&sums) {
            *out = rescale(sum, scale.mantissa(), factor_exponent + scale.exponent());
        }
    }
    out
}

/// The exact dot product of two int16 head vectors: below `2^38` for heads of up to 256 channels.
fn dot16(a: &[i16], b: &[i16]) -> i64 {
    a.iter().zip(b).map(|(&a, &b)| i64::from(i32::from(a) * i32::from(b))).sum()
}

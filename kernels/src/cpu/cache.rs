//! The key-value cache as the SIMD kernels read it.
//!
//! For each key-value head: keys as `[positions / 16][head_dim / 2][16][2]` int16, so that a broadcast pair of query channels meets
//! sixteen positions; values as panels of a matrix whose outputs are channels and whose inputs are positions,
//! `[head_dim / 16][positions / 4][16][4]` bytes, so that the sum over positions is a row of the matrix product. Both only grow at
//! their ends.

use super::packed::{Block, DEPTH, LANES};
use crate::backend::KvShape;
use crate::bounds::{AttentionShape, BoundsError, MAX_HEAD_DIM};
use crate::cache::{Cache, Sequence};
use crate::quantise::{quantise_q16, quantise_value_head};

/// Two channels of sixteen positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub(super) struct KeyBlock(pub(super) [[i16; 2]; LANES]);

/// Keys and values of one sequence, all layers.
#[derive(Clone, Debug)]
pub struct PackedCache {
    pub(super) shape: KvShape,
    layers: Vec<Layer>,
}

/// The key-value heads of one layer, each with room for as many positions. One allocation of each kind for all heads, as a model may have
/// many small ones. Grows as it is written: a call that may feed many tokens and stops early pays for those that it fed.
#[derive(Clone, Debug, Default)]
struct Layer {
    /// Positions that have been written.
    length: usize,
    /// Positions that each head has room for: whole blocks of sixteen.
    room: usize,
    keys: Vec<KeyBlock>,
    key_exponents: Vec<[i32; LANES]>,
    /// For each head and sixteen channels, the blocks of all positions.
    values: Vec<Block>,
    value_maxima: Vec<u32>,
}

/// One key-value head of one layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head<'a> {
    pub(super) keys: &'a [KeyBlock],
    pub(super) key_exponents: &'a [[i32; LANES]],
    values: &'a [Block],
    pub(super) value_maxima: &'a [u32],
}

impl PackedCache {
    /// An empty cache.
    pub(super) fn new(shape: KvShape) -> Result<Self, BoundsError> {
        shape.check()?;
        Ok(Self { shape, layers: vec![Layer::default(); shape.layers] })
    }

    /// Bytes of a full cache.
    pub(super) fn bytes(shape: KvShape) -> usize {
        let KvShape { attention: AttentionShape { kv_heads, head_dim, .. }, capacity, .. } = shape;
        let keys = head_dim / 2 * size_of::<KeyBlock>() + size_of::<[i32; LANES]>();
        let values = head_dim.div_ceil(LANES) * LANES / DEPTH * size_of::<Block>() + LANES * size_of::<u32>();
        let heads = kv_heads.saturating_mul(capacity.div_ceil(LANES)).saturating_mul(keys + values);
        shape.layers.saturating_mul(heads.saturating_add(size_of::<Layer>()))
    }

    pub(super) fn head(&self, layer: usize, head: usize) -> Head<'_> {
        self.layers[layer].head(head, self.shape.attention)
    }
}

impl Sequence for PackedCache {
    fn shape(&self) -> KvShape {
        self.shape
    }

    fn length(&self, layer: usize) -> usize {
        self.layers[layer].length
    }
}

impl Cache for PackedCache {
    fn write(&mut self, layer: usize, position: usize, k: &[i32], v: &[i32]) {
        let AttentionShape { head_dim, .. } = self.shape.attention;
        let (mut key, mut value) = ([0i16; MAX_HEAD_DIM], [0i8; MAX_HEAD_DIM]);
        let (key, value) = (&mut key[..head_dim], &mut value[..head_dim]);
        let layer = self.layers[layer].reach(position, self.shape);
        for (head, (k, v)) in k.chunks_exact(head_dim).zip(v.chunks_exact(head_dim)).enumerate() {
            let exponent = quantise_q16(k, key);
            let max = quantise_value_head(v, value);
            layer.put(head, position, key, exponent, value, max);
        }
    }

    fn copy(&mut self, layer: usize, position: usize, from: &Self, at: usize) {
        let AttentionShape { kv_heads, head_dim, .. } = self.shape.attention;
        let (mut key, mut value) = ([0i16; MAX_HEAD_DIM], [0i8; MAX_HEAD_DIM]);
        let (key, value) = (&mut key[..head_dim], &mut value[..head_dim]);
        let into = self.layers[layer].reach(position, self.shape);
        for head in 0..kv_heads {
            let from = from.head(layer, head);
            let exponent = from.key(at, key);
            let max = from.value(at, value);
            into.put(head, position, key, exponent, value, max);
        }
    }
}

impl Layer {
    fn head(&self, head: usize, shape: AttentionShape) -> Head<'_> {
        let (sixteens, panels) = (self.room / LANES, shape.head_dim.div_ceil(LANES));
        let (keys, values) = (sixteens * shape.head_dim / 2, panels * self.room / DEPTH);
        Head {
            keys: &self.keys[head * keys..][..keys],
            key_exponents: &self.key_exponents[head * sixteens..][..sixteens],
            values: &self.values[head * values..][..values],
            value_maxima: &self.value_maxima[head * self.room..][..self.room],
        }
    }

    /// Makes `position` the last, with room for it.
    fn reach(&mut self, position: usize, shape: KvShape) -> &mut Self {
        if position >= self.room {
            let most = shape.capacity.next_multiple_of(LANES);
            self.widen(
                (self.room * 2).min(most).max((position + 1).next_multiple_of(LANES)),
                shape.attention,
            );
        }
        self.length = position + 1;
        self
    }

    /// Gives each head `room` positions, at least as many as it has.
    fn widen(&mut self, room: usize, shape: AttentionShape) {
        let AttentionShape { kv_heads, head_dim, .. } = shape;
        let panels = head_dim.div_ceil(LANES);
        widen(&mut self.keys, kv_heads, room / LANES * head_dim / 2, KeyBlock([[0; 2]; LANES]));
        widen(&mut self.key_exponents, kv_heads, room / LANES, [0; LANES]);
        widen(&mut self.values, kv_heads * panels, room / DEPTH, Block::ZERO);
        widen(&mut self.value_maxima, kv_heads, room, 0);
        self.room = room;
    }

    fn put(&mut self, head: usize, position: usize, key: &[i16], exponent: i32, value: &[i8], max: u32) {
        let pairs = key.len() / 2;
        let (sixteen, lane) = (head * self.room / LANES + position / LANES, position % LANES);
        self.key_exponents[sixteen][lane] = exponent;
        for (block, pair) in self.keys[sixteen * pairs..].iter_mut().zip(key.chunks_exact(2)) {
            block.0[lane] = [pair[0], pair[1]];
        }

        self.value_maxima[head * self.room + position] = max;
        let (four, slot) = (position / DEPTH, position % DEPTH);
        let first = head * value.len().div_ceil(LANES);
        for (panel, channels) in (first..).zip(value.chunks(LANES)) {
            let block = &mut self.values[panel * self.room / DEPTH + four];
            for (lane, &channel) in channels.iter().enumerate() {
                block.0[lane * DEPTH + slot] = channel as u8 ^ 0x80;
            }
        }
    }
}

/// Lengthens each of `parts` equal parts to `length` by putting `empty` at their ends.
fn widen<T: Copy>(all: &mut Vec<T>, parts: usize, length: usize, empty: T) {
    let old = all.len() / parts;
    let mut wide = Vec::with_capacity(parts * length);
    for part in 0..parts {
        wide.extend_from_slice(&all[part * old..][..old]);
        wide.resize((part + 1) * length, empty);
    }
    *all = wide;
}

impl<'a> Head<'a> {
    /// The blocks of sixteen channels, one for each four positions.
    pub(super) fn values(&self, panel: usize) -> &'a [Block] {
        let length = self.value_maxima.len() / DEPTH;
        &self.values[panel * length..][..length]
    }

    /// Reads the key of a position and returns its exponent.
    fn key(&self, position: usize, key: &mut [i16]) -> i32 {
        let (sixteen, lane) = (position / LANES, position % LANES);
        let blocks = &self.keys[sixteen * key.len() / 2..];
        for (pair, block) in key.chunks_exact_mut(2).zip(blocks) {
            pair.copy_from_slice(&block.0[lane]);
        }
        self.key_exponents[sixteen][lane]
    }

    /// Reads the value of a position and returns its largest magnitude.
    fn value(&self, position: usize, value: &mut [i8]) -> u32 {
        let (four, slot) = (position / DEPTH, position % DEPTH);
        for (panel, channels) in value.chunks_mut(LANES).enumerate() {
            let block = &self.values(panel)[four];
            for (lane, channel) in channels.iter_mut().enumerate() {
                *channel = (block.0[lane * DEPTH + slot] ^ 0x80) as i8;
            }
        }
        self.value_maxima[position]
    }
}

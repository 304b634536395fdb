//! The key-value cache as the SIMD kernels read it.
//!
//! For each key-value head: keys as `[positions / 16][head_dim / 2][16][2]` int16, so that a broadcast pair of query channels meets
//! sixteen positions; values as panels of a matrix whose outputs are channels and whose inputs are positions,
//! `[head_dim / 16][positions / 4][16][4]` bytes, so that the sum over positions is a row of the matrix product. Both only grow at
//! their ends.

use super::packed::{Block, DEPTH, LANES};
use crate::backend::KvShape;
use crate::bounds::{AttentionShape, BoundsError, MAX_HEAD_DIM};
use crate::cache::Cache;
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

#[derive(Clone, Debug)]
struct Layer {
    /// Positions that have been written.
    length: usize,
    heads: Vec<Head>,
}

/// One key-value head of one layer. Grows as it is written: a call that may feed many tokens and stops early pays for those that it fed.
#[derive(Clone, Debug, Default)]
pub(super) struct Head {
    pub(super) keys: Vec<KeyBlock>,
    pub(super) key_exponents: Vec<[i32; LANES]>,
    /// One vector of blocks for each sixteen channels.
    pub(super) values: Vec<Vec<Block>>,
    pub(super) value_maxima: Vec<u32>,
}

impl PackedCache {
    /// An empty cache.
    pub(super) fn new(shape: KvShape) -> Result<Self, BoundsError> {
        shape.check()?;
        let AttentionShape { kv_heads, head_dim, .. } = shape.attention;
        let head = || Head { values: vec![Vec::new(); head_dim.div_ceil(LANES)], ..Head::default() };
        let layer = || Layer { length: 0, heads: (0..kv_heads).map(|_| head()).collect() };
        let layers = (0..shape.layers).map(|_| layer()).collect();
        Ok(Self { shape, layers })
    }

    /// Bytes of a full cache.
    pub(super) fn bytes(shape: KvShape) -> usize {
        let KvShape { attention: AttentionShape { kv_heads, head_dim, .. }, capacity, .. } = shape;
        let panels = head_dim.div_ceil(LANES);
        let keys = head_dim / 2 * size_of::<KeyBlock>() + size_of::<[i32; LANES]>();
        let head = [
            (1, size_of::<Head>() + panels * size_of::<Vec<Block>>()),
            (capacity.div_ceil(LANES), keys),
            (capacity.div_ceil(DEPTH), panels * size_of::<Block>()),
            (capacity, size_of::<u32>()),
        ];
        let head = head.iter().fold(0usize, |sum, &(n, bytes)| sum.saturating_add(n.saturating_mul(bytes)));
        shape.layers.saturating_mul(kv_heads).saturating_mul(head)
    }

    pub(super) fn head(&self, layer: usize, head: usize) -> &Head {
        &self.layers[layer].heads[head]
    }
}

impl Cache for PackedCache {
    fn shape(&self) -> KvShape {
        self.shape
    }

    fn length(&self, layer: usize) -> usize {
        self.layers[layer].length
    }

    fn write(&mut self, layer: usize, position: usize, k: &[i32], v: &[i32]) {
        let head_dim = self.shape.attention.head_dim;
        let layer = &mut self.layers[layer];
        let heads = k.chunks_exact(head_dim).zip(v.chunks_exact(head_dim));
        for (head, (k, v)) in layer.heads.iter_mut().zip(heads) {
            head.write(position, k, v);
        }
        layer.length = position + 1;
    }

    fn copy(&mut self, layer: usize, position: usize, from: &Self, at: usize) {
        let head_dim = self.shape.attention.head_dim;
        let (layer, from) = (&mut self.layers[layer], &from.layers[layer]);
        for (head, from) in layer.heads.iter_mut().zip(&from.heads) {
            head.copy(position, from, at, head_dim);
        }
        layer.length = position + 1;
    }
}

impl Head {
    fn write(&mut self, position: usize, k: &[i32], v: &[i32]) {
        let (mut key, mut value) = ([0i16; MAX_HEAD_DIM], [0i8; MAX_HEAD_DIM]);
        let (key, value) = (&mut key[..k.len()], &mut value[..v.len()]);
        let exponent = quantise_q16(k, key);
        let max = quantise_value_head(v, value);
        self.put(position, key, exponent, value, max);
    }

    fn copy(&mut self, position: usize, from: &Self, at: usize, head_dim: usize) {
        let (mut key, mut value) = ([0i16; MAX_HEAD_DIM], [0i8; MAX_HEAD_DIM]);
        let (key, value) = (&mut key[..head_dim], &mut value[..head_dim]);
        let exponent = from.key(at, key);
        let max = from.value(at, value);
        self.put(position, key, exponent, value, max);
    }

    fn put(&mut self, position: usize, key: &[i16], exponent: i32, value: &[i8], max: u32) {
        let pairs = key.len() / 2;
        let (sixteen, lane) = (position / LANES, position % LANES);
        if sixteen == self.key_exponents.len() {
            self.key_exponents.push([0; LANES]);
            self.keys.resize((sixteen + 1) * pairs, KeyBlock([[0; 2]; LANES]));
        }
        self.key_exponents[sixteen][lane] = exponent;
        for (block, pair) in self.keys[sixteen * pairs..].iter_mut().zip(key.chunks_exact(2)) {
            block.0[lane] = [pair[0], pair[1]];
        }

        let (four, slot) = (position / DEPTH, position % DEPTH);
        match self.value_maxima.get_mut(position) {
            Some(old) => *old = max,
            None => self.value_maxima.push(max),
        }
        for (panel, channels) in self.values.iter_mut().zip(value.chunks(LANES)) {
            if four == panel.len() {
                panel.push(Block::ZERO);
            }
            for (lane, &channel) in channels.iter().enumerate() {
                panel[four].0[lane * DEPTH + slot] = channel as u8 ^ 0x80;
            }
        }
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
        for (channels, panel) in value.chunks_mut(LANES).zip(&self.values) {
            for (lane, channel) in channels.iter_mut().enumerate() {
                *channel = (panel[four].0[lane * DEPTH + slot] ^ 0x80) as i8;
            }
        }
        self.value_maxima[position]
    }
}

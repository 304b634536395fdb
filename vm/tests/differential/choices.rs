//! Decisions from bytes: random ones, a fuzzer's, or proptest's, which shrinks them.

use super::words;
use alloy_primitives::U256;

/// A source of decisions. When the bytes are used up, every decision is the first one.
#[derive(Clone, Debug)]
pub(crate) struct Choices<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Choices<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let byte = self.bytes.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        byte
    }

    pub(crate) fn number(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// One of `0..count`.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        let wide = if count <= 256 { usize::from(self.byte()) } else { self.number() as usize };
        wide % count.max(1)
    }

    /// One of `low..=high`.
    pub(crate) fn within(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    /// Whether, so many times of 256.
    pub(crate) fn chance(&mut self, of_256: u8) -> bool {
        // Used up means no.
        self.byte() > 255 - of_256
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.byte()).collect()
    }

    /// A stack word: small, at an edge, or anything.
    pub(crate) fn word(&mut self) -> U256 {
        match self.below(8) {
            0 | 1 => U256::from(self.below(33)),
            2 | 3 => U256::from(self.byte()),
            4 | 5 => self.pick(&words::INTERESTING),
            6 => U256::from(1) << self.below(256),
            _ => U256::from_limbs(std::array::from_fn(|_| self.number())),
        }
    }
}

/// An endless source of bytes: SplitMix64.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count.div_ceil(8)).flat_map(|_| self.number().to_le_bytes()).take(count).collect()
    }
}

//! Operands at the edges of what handlers treat differently.

use alloy_primitives::U256;

const fn bit(bit: usize) -> U256 {
    let mut limbs = [0; 4];
    limbs[bit / 64] = 1 << (bit % 64);
    U256::from_limbs(limbs)
}

/// Edges of bytes, limbs, offsets and signs.
pub(crate) const INTERESTING: [U256; 36] = [
    U256::ZERO,
    bit(0),
    bit(1),
    U256::from_limbs([3, 0, 0, 0]),
    U256::from_limbs([7, 0, 0, 0]),
    U256::from_limbs([31, 0, 0, 0]),
    bit(5),
    U256::from_limbs([33, 0, 0, 0]),
    U256::from_limbs([63, 0, 0, 0]),
    bit(6),
    U256::from_limbs([127, 0, 0, 0]),
    U256::from_limbs([255, 0, 0, 0]),
    bit(8),
    U256::from_limbs([257, 0, 0, 0]),
    U256::from_limbs([0xffff, 0, 0, 0]),
    U256::from_limbs([0xffff_ffff, 0, 0, 0]),
    bit(32),
    U256::from_limbs([u64::MAX - 31, 0, 0, 0]),
    U256::from_limbs([u64::MAX - 1, 0, 0, 0]),
    U256::from_limbs([u64::MAX, 0, 0, 0]),
    bit(64),
    U256::from_limbs([1, 1, 0, 0]),
    bit(127),
    U256::from_limbs([u64::MAX, u64::MAX, 0, 0]),
    bit(128),
    U256::from_limbs([5, 0, 1, 0]),
    bit(191),
    bit(192),
    bit(254),
    U256::from_limbs([u64::MAX, u64::MAX, u64::MAX, u64::MAX >> 1]),
    bit(255),
    U256::from_limbs([1, 0, 0, 1 << 63]),
    U256::from_limbs([0xdead_beef, 0, 0xfeed, 0x8000_0000_0000_1234]),
    U256::from_limbs([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210, 0xaaaa, 0x7b]),
    U256::from_limbs([u64::MAX - 1, u64::MAX, u64::MAX, u64::MAX]),
    U256::MAX,
];

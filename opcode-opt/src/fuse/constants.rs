//! Arithmetic on constants, where a run of PUSHes ends in an instruction that computes.

use crate::isa::Op;
use alloy_primitives::U256;

/// `op` on two constants, `a` on top. Only what compilers write: masks and sizes.
pub(super) fn fold(op: Op, a: U256, b: U256) -> Option<U256> {
    let shift = || u64::try_from(a).ok().filter(|&shift| shift < 256).map(|shift| shift as usize);
    Some(match op {
        Op::ADD => a.wrapping_add(b),
        Op::SUB => a.wrapping_sub(b),
        Op::MUL => a.wrapping_mul(b),
        Op::AND => a & b,
        Op::OR => a | b,
        Op::XOR => a ^ b,
        Op::SHL => shift().map_or(U256::ZERO, |shift| b << shift),
        Op::SHR => shift().map_or(U256::ZERO, |shift| b >> shift),
        _ => return None,
    })
}

//! What the machine has instructions for and the compiler does not use them.
#![allow(unsafe_code, reason = "inline assembly and intrinsics")]

use super::machine::Limbs;

/// `a < b`: the borrow of a subtraction whose result nobody needs, as one chain.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
pub(super) fn less(a: Limbs, b: Limbs) -> bool {
    let mut ignored = 0;
    let mut borrow = 0;
    for (a, b) in a.into_iter().zip(b) {
        // SAFETY: every x86-64 has the instruction.
        #[allow(unused_unsafe, reason = "safe from a later Rust on")]
        unsafe {
            borrow = std::arch::x86_64::_subborrow_u64(borrow, a, b, &mut ignored);
        }
    }
    borrow != 0
}

/// `a < b`.
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
#[inline(always)]
pub(super) fn less(a: Limbs, b: Limbs) -> bool {
    a.into_iter().zip(b).fold(false, |borrow, (a, b)| a.borrowing_sub(b, borrow).1)
}

/// Quotient and remainder of `high * 2^64 + low` by `divisor`. Needs `high < divisor`, so that the quotient has 64 bits.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
pub(super) fn divide(high: u64, low: u64, divisor: u64) -> (u64, u64) {
    debug_assert!(high < divisor);
    let (quotient, remainder);
    // SAFETY: `div` traps where the quotient has more than 64 bits, which `high < divisor` excludes; all callers
    // pass a remainder of the same divisor as `high`.
    unsafe {
        std::arch::asm!(
            "div {divisor}",
            divisor = in(reg) divisor,
            inlateout("rax") low => quotient,
            inlateout("rdx") high => remainder,
            options(pure, nomem, nostack),
        );
    }
    (quotient, remainder)
}

/// Quotient and remainder of `high * 2^64 + low` by `divisor`. Needs `high < divisor`.
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
#[inline(always)]
pub(super) fn divide(high: u64, low: u64, divisor: u64) -> (u64, u64) {
    debug_assert!(high < divisor);
    let wide = u128::from(high) << 64 | u128::from(low);
    ((wide / u128::from(divisor)) as u64, (wide % u128::from(divisor)) as u64)
}

/// The machine's stack pointer; 0 where nobody asks.
#[inline(always)]
pub(super) fn stack_pointer() -> usize {
    #[allow(unused_mut, reason = "only assigned where the target is known")]
    let mut pointer = 0;
    // SAFETY: copies a register.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    unsafe {
        std::arch::asm!("mov {}, rsp", out(reg) pointer, options(nomem, nostack, preserves_flags));
    }
    // SAFETY: copies a register.
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    unsafe {
        std::arch::asm!("mov {}, sp", out(reg) pointer, options(nomem, nostack, preserves_flags));
    }
    pointer
}

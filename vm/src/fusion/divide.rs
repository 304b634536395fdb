//! 128 bits by 64 bits.
#![allow(unsafe_code, reason = "x86-64 has an instruction for it that the compiler does not use")]

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

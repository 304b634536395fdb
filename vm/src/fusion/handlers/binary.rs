//! Two words to one.
#![allow(unsafe_code, reason = "writes stack words through raw pointers")]

use super::{Body, operands::Operands};
use crate::fusion::{
    machine::{Cell, Cx, Flow, Limbs, Regs, store},
    words,
};
use alloy_primitives::U256;
use revm::context::Host;
use std::marker::PhantomData;

/// What an instruction computes, with the names of the instruction set.
pub(in crate::fusion) trait Binary {
    /// The result, or `None` if it takes the long way.
    fn quick(a: Limbs, b: Limbs) -> Option<Limbs>;

    /// The long way.
    fn long(a: Limbs, b: Limbs) -> Limbs {
        Self::quick(a, b).unwrap_or_default()
    }
}

/// A binary instruction `O` on operands from `M`.
pub(in crate::fusion) struct BinaryOp<O, M>(PhantomData<(O, M)>);

// SAFETY: the operands are within the stack, and the next op follows this one's cells.
unsafe impl<H: Host, O: Binary, M: Operands> Body<H> for BinaryOp<O, M> {
    #[inline(always)]
    unsafe fn run(r: Regs, cx: *mut Cx<H>) -> Flow {
        // SAFETY: by the contract of `Body::run`.
        unsafe {
            let Some(gas) = r.pay() else { return Flow::Deopt };
            let Some(two) = M::get(&r, cx, || r.header().immediate()) else { return Flow::Deopt };
            let Some(result) = O::quick(two.a, two.b) else { return Flow::Slow };
            store(two.out, result);
            Flow::Next(Regs { ip: r.cell(M::CELLS), sp: two.sp, gas })
        }
    }

    unsafe fn slow(r: Regs, cx: *mut Cx<H>) -> Flow {
        // SAFETY: by the contract of `Body::slow`.
        unsafe {
            let Some(gas) = r.pay() else { return Flow::Deopt };
            let sp = long_way::<H, O, M>(r.ip, r.sp, cx);
            if sp.is_null() {
                return Flow::Deopt;
            }
            Flow::Next(Regs { ip: r.cell(M::CELLS), sp, gas })
        }
    }
}

/// The whole op by `O::long`; returns the stack pointer behind it, or null. A function of its own, because a handler
/// whose locals have an address cannot end in a jump.
///
/// # Safety
/// As for [`Body::slow`].
#[inline(never)]
unsafe fn long_way<H, O: Binary, M: Operands>(ip: *const Cell, sp: *mut U256, cx: *mut Cx<H>) -> *mut U256 {
    let r = Regs { ip, sp, gas: 0 };
    // SAFETY: by the contract of this function.
    unsafe {
        let Some(two) = M::get(&r, cx, || r.header().immediate()) else { return std::ptr::null_mut() };
        store(two.out, O::long(two.a, two.b));
        two.sp
    }
}

macro_rules! binary {
    ($($name:ident = |$a:ident, $b:ident| $quick:expr;)*) => {
        $(
            #[allow(clippy::upper_case_acronyms, reason = "mnemonics are written in capitals everywhere")]
            pub(in crate::fusion) struct $name;

            impl Binary for $name {
                #[inline(always)]
                fn quick($a: Limbs, $b: Limbs) -> Option<Limbs> {
                    Some($quick)
                }
            }
        )*
    };
}

binary! {
    ADD = |a, b| words::add(a, b);
    SUB = |a, b| words::sub(a, b);
    MUL = |a, b| words::multiply(a, b);
    LT = |a, b| words::boolean(words::less(a, b));
    GT = |a, b| words::boolean(words::less(b, a));
    SLT = |a, b| words::boolean(words::signed_less(a, b));
    SGT = |a, b| words::boolean(words::signed_less(b, a));
    EQ = |a, b| words::boolean(words::equal(a, b));
    AND = |a, b| words::bitwise(a, b, |a, b| a & b);
    OR = |a, b| words::bitwise(a, b, |a, b| a | b);
    XOR = |a, b| words::bitwise(a, b, |a, b| a ^ b);
    BYTE = |a, b| words::byte(a, b);
    SHL = |a, b| words::shift_left(a, b);
    SHR = |a, b| words::shift_right(a, b);
    SAR = |a, b| words::shift_right_signed(a, b);
    SIGNEXTEND = |a, b| words::sign_extend(a, b);
}

macro_rules! division {
    ($($name:ident = $quick:path, $long:path;)*) => {
        $(
            #[allow(clippy::upper_case_acronyms, reason = "mnemonics are written in capitals everywhere")]
            pub(in crate::fusion) struct $name;

            impl Binary for $name {
                #[inline(always)]
                fn quick(a: Limbs, b: Limbs) -> Option<Limbs> {
                    $quick(a, b)
                }

                fn long(a: Limbs, b: Limbs) -> Limbs {
                    $long(a, b)
                }
            }
        )*
    };
}

division! {
    DIV = words::divide, words::divide_slow;
    MOD = words::remainder, words::remainder_slow;
    SDIV = words::signed_divide, words::signed_divide_slow;
    SMOD = words::signed_remainder, words::signed_remainder_slow;
}

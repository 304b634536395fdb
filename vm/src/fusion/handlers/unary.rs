//! One word to one, and three words to one.
#![allow(unsafe_code, reason = "reads and writes stack words through raw pointers")]

use super::Body;
use crate::fusion::{
    machine::{Cx, Flow, Limbs, Regs, load, saturated, store},
    words,
};
use alloy_primitives::U256;
use revm::context::Host;
use std::marker::PhantomData;

/// What an instruction computes from one word.
pub(in crate::fusion) trait Unary {
    /// # Safety
    /// `cx` is the frame's.
    unsafe fn apply<H>(a: Limbs, cx: *const Cx<H>) -> Limbs;
}

#[allow(clippy::upper_case_acronyms, reason = "mnemonics are written in capitals everywhere")]
pub(in crate::fusion) struct ISZERO;

impl Unary for ISZERO {
    #[inline(always)]
    unsafe fn apply<H>(a: Limbs, _cx: *const Cx<H>) -> Limbs {
        words::boolean(words::is_zero(a))
    }
}

#[allow(clippy::upper_case_acronyms, reason = "mnemonics are written in capitals everywhere")]
pub(in crate::fusion) struct NOT;

impl Unary for NOT {
    #[inline(always)]
    unsafe fn apply<H>(a: Limbs, _cx: *const Cx<H>) -> Limbs {
        words::not(a)
    }
}

#[allow(clippy::upper_case_acronyms, reason = "mnemonics are written in capitals everywhere")]
pub(in crate::fusion) struct CALLDATALOAD;

impl Unary for CALLDATALOAD {
    #[inline(always)]
    unsafe fn apply<H>(a: Limbs, cx: *const Cx<H>) -> Limbs {
        // SAFETY: `cx` is the frame's, and its input is valid.
        unsafe {
            let (input, len) = ((*cx).input, (*cx).input_len as u64);
            let offset = saturated(a);
            if offset < len && len - offset >= 32 {
                return super::memory::read_word(input.add(offset as usize));
            }
            read_end(input, len, offset)
        }
    }
}

/// A word that reaches beyond the end of the input, where there are zeros.
///
/// # Safety
/// `input` has `len` bytes.
#[cold]
#[inline(never)]
unsafe fn read_end(input: *const u8, len: u64, offset: u64) -> Limbs {
    let mut word = [0u8; 32];
    if offset < len {
        let count = (len - offset).min(32) as usize;
        // SAFETY: these bytes are within the input.
        unsafe { std::ptr::copy_nonoverlapping(input.add(offset as usize), word.as_mut_ptr(), count) };
    }
    *U256::from_be_bytes(word).as_limbs()
}

/// The operand from the stack.
pub(in crate::fusion) struct S;
/// `DUPn op`.
pub(in crate::fusion) struct D;
/// `PUSHn op`.
pub(in crate::fusion) struct I;

/// A mode of one operand.
///
/// # Safety
/// `get` returns pointers within the stack, or `None`.
pub(in crate::fusion) unsafe trait Operand {
    /// The operand, where the result goes, and the stack pointer behind it.
    ///
    /// # Safety
    /// `registers` are at an op of this mode, in the frame of `cx`.
    unsafe fn get<H>(registers: &Regs, cx: *const Cx<H>) -> Option<(Limbs, *mut U256, *mut U256)>;
}

// SAFETY: the depth is checked.
unsafe impl Operand for S {
    #[inline(always)]
    unsafe fn get<H>(r: &Regs, cx: *const Cx<H>) -> Option<(Limbs, *mut U256, *mut U256)> {
        // SAFETY: the depth is checked first.
        unsafe { Cx::fits(cx, r.sp, 1, 0).then(|| (load(r.word(1)), r.word(1), r.sp)) }
    }
}

// SAFETY: the depth is checked.
unsafe impl Operand for D {
    #[inline(always)]
    unsafe fn get<H>(r: &Regs, cx: *const Cx<H>) -> Option<(Limbs, *mut U256, *mut U256)> {
        // SAFETY: the depth is checked first.
        unsafe {
            let n = r.depth();
            Cx::fits_depth(cx, r.sp, n, 1).then(|| (load(r.word(n)), r.sp, r.sp.add(1)))
        }
    }
}

// SAFETY: the room is checked.
unsafe impl Operand for I {
    #[inline(always)]
    unsafe fn get<H>(r: &Regs, cx: *const Cx<H>) -> Option<(Limbs, *mut U256, *mut U256)> {
        // SAFETY: the room is checked first.
        unsafe {
            Cx::fits(cx, r.sp, 0, 1).then(|| ([r.header().immediate().into(), 0, 0, 0], r.sp, r.sp.add(1)))
        }
    }
}

/// A unary instruction `O` on an operand from `M`.
pub(in crate::fusion) struct UnaryOp<O, M>(PhantomData<(O, M)>);

// SAFETY: the operand is within the stack, and the next op follows.
unsafe impl<H: Host, O: Unary, M: Operand> Body<H> for UnaryOp<O, M> {
    #[inline(always)]
    unsafe fn run(r: Regs, cx: *mut Cx<H>) -> Flow {
        // SAFETY: by the contract of `Body::run`.
        unsafe {
            let Some(gas) = r.pay() else { return Flow::Deopt };
            let Some((a, out, sp)) = M::get(&r, cx) else { return Flow::Deopt };
            store(out, O::apply(a, cx));
            Flow::Next(Regs { ip: r.cell(1), sp, gas })
        }
    }
}

/// What an instruction computes from three words.
pub(in crate::fusion) trait Ternary {
    fn apply(a: U256, b: U256, n: U256) -> U256;
}

#[allow(clippy::upper_case_acronyms, reason = "mnemonics are written in capitals everywhere")]
pub(in crate::fusion) struct ADDMOD;

impl Ternary for ADDMOD {
    fn apply(a: U256, b: U256, n: U256) -> U256 {
        a.add_mod(b, n)
    }
}

#[allow(clippy::upper_case_acronyms, reason = "mnemonics are written in capitals everywhere")]
pub(in crate::fusion) struct MULMOD;

impl Ternary for MULMOD {
    fn apply(a: U256, b: U256, n: U256) -> U256 {
        a.mul_mod(b, n)
    }
}

/// A ternary instruction. Measured: asking for small operands first costs more here than it saves.
pub(in crate::fusion) struct TernaryOp<O>(PhantomData<O>);

// SAFETY: three words become one.
unsafe impl<H: Host, O: Ternary> Body<H> for TernaryOp<O> {
    #[inline(always)]
    unsafe fn run(r: Regs, cx: *mut Cx<H>) -> Flow {
        // SAFETY: by the contract of `Body::run`.
        unsafe {
            let Some(gas) = r.enter(cx, 3, 0) else { return Flow::Deopt };
            ternary::<O>(r.sp);
            Flow::Next(Regs { ip: r.cell(1), sp: r.word(2), gas })
        }
    }
}

/// Three words to one, apart: see `binary::long_way`.
///
/// # Safety
/// Three words are below the stack pointer.
#[inline(never)]
unsafe fn ternary<O: Ternary>(sp: *mut U256) {
    // SAFETY: by the contract of this function.
    unsafe {
        let word = |depth| U256::from_limbs(load(sp.sub(depth)));
        store(sp.sub(3), *O::apply(word(1), word(2), word(3)).as_limbs());
    }
}

/// EXP: its gas depends on the size of the exponent.
pub(in crate::fusion) struct Exp;

// SAFETY: two words become one.
unsafe impl<H: Host> Body<H> for Exp {
    #[inline(always)]
    unsafe fn run(r: Regs, cx: *mut Cx<H>) -> Flow {
        // SAFETY: by the contract of `Body::run`; the host outlives the frame.
        unsafe {
            let Some(gas) = r.enter(cx, 2, 0) else { return Flow::Deopt };
            let Some(gas) = gas.checked_sub(exp_cost(r.sp, cx)) else { return Flow::Deopt };
            power(r.sp);
            Flow::Next(Regs { ip: r.cell(1), sp: r.word(1), gas })
        }
    }
}

/// The cost of the exponent.
///
/// # Safety
/// Two words are below the stack pointer, and `cx` is the frame's.
#[inline(never)]
unsafe fn exp_cost<H: Host>(sp: *mut U256, cx: *const Cx<H>) -> u64 {
    // SAFETY: by the contract of this function.
    unsafe { (*(*cx).host).gas_params().exp_cost(U256::from_limbs(load(sp.sub(2)))) }
}

/// # Safety
/// Two words are below the stack pointer.
#[inline(never)]
unsafe fn power(sp: *mut U256) {
    // SAFETY: by the contract of this function.
    unsafe { store(sp.sub(2), words::power(load(sp.sub(1)), load(sp.sub(2)))) }
}

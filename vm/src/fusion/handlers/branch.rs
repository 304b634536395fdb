//! Conditional jumps to known destinations.
#![allow(unsafe_code, reason = "reads stack words and program cells through raw pointers")]

use super::{Body, operands::Operands};
use crate::fusion::{
    machine::{Cx, Flow, Limbs, Regs, load},
    words,
};
use metis_opcode_opt::fuse::TAKEN_IF_FALSE;
use revm::context::Host;
use std::marker::PhantomData;

/// What a branch compares.
pub(in crate::fusion) trait Comparison {
    fn holds(a: Limbs, b: Limbs) -> bool;
}

macro_rules! comparison {
    ($($name:ident = |$a:ident, $b:ident| $holds:expr;)*) => {
        $(
            #[allow(clippy::upper_case_acronyms, reason = "mnemonics are written in capitals everywhere")]
            pub(in crate::fusion) struct $name;

            impl Comparison for $name {
                #[inline(always)]
                fn holds($a: Limbs, $b: Limbs) -> bool {
                    $holds
                }
            }
        )*
    };
}

comparison! {
    LT = |a, b| words::less(a, b);
    GT = |a, b| words::less(b, a);
    SLT = |a, b| words::signed_less(a, b);
    SGT = |a, b| words::signed_less(b, a);
    EQ = |a, b| words::equal(a, b);
}

/// Goes to the destination in the header if `holds`, else behind the op.
///
/// # Safety
/// `r` is at a branch of so many cells.
#[inline(always)]
unsafe fn branch(r: Regs, holds: bool, cells: usize, sp: *mut alloy_primitives::U256, gas: u64) -> Flow {
    // SAFETY: layout gave the op its destination and its cells.
    unsafe {
        let header = r.header();
        let if_false = header.b() & TAKEN_IF_FALSE != 0;
        let ip = if holds != if_false { r.target(header.immediate()) } else { r.cell(cells) };
        Flow::Next(Regs { ip, sp, gas })
    }
}

/// Two operands, a comparison, `[ISZERO] PUSHn JUMPI`.
pub(in crate::fusion) struct CompareBranch<C, M, const CELLS: usize>(PhantomData<(C, M)>);

// SAFETY: the operands are consumed or copies; the next op is the branch's destination or follows it.
unsafe impl<H: Host, C: Comparison, M: Operands, const CELLS: usize> Body<H> for CompareBranch<C, M, CELLS> {
    #[inline(always)]
    unsafe fn run(r: Regs, cx: *mut Cx<H>) -> Flow {
        // SAFETY: by the contract of `Body::run`; branches with a constant have it in their second cell.
        unsafe {
            let Some(gas) = r.pay() else { return Flow::Deopt };
            let Some(two) = M::get(&r, cx, || (*r.cell(1))[0] as u32) else { return Flow::Deopt };
            // The result would be the top word, and JUMPI consumes it.
            branch(r, C::holds(two.a, two.b), CELLS, two.sp.sub(1), gas)
        }
    }
}

/// `[ISZERO] PUSHn JUMPI`.
pub(in crate::fusion) struct BranchS;

// SAFETY: one word is consumed.
unsafe impl<H: Host> Body<H> for BranchS {
    #[inline(always)]
    unsafe fn run(r: Regs, cx: *mut Cx<H>) -> Flow {
        // SAFETY: by the contract of `Body::run`.
        unsafe {
            let Some(gas) = r.enter(cx, 1, 1) else { return Flow::Deopt };
            branch(r, !words::is_zero(load(r.word(1))), 1, r.word(1), gas)
        }
    }
}

/// `DUPn [ISZERO] PUSHn JUMPI`.
pub(in crate::fusion) struct BranchD;

// SAFETY: nothing is consumed.
unsafe impl<H: Host> Body<H> for BranchD {
    #[inline(always)]
    unsafe fn run(r: Regs, cx: *mut Cx<H>) -> Flow {
        // SAFETY: by the contract of `Body::run`.
        unsafe {
            let n = r.depth();
            let Some(gas) = r.enter_depth(cx, n, 2) else { return Flow::Deopt };
            branch(r, !words::is_zero(load(r.word(n))), 1, r.sp, gas)
        }
    }
}

/// A chain of `DUP1 PUSH4 EQ PUSHn JUMPI`.
pub(in crate::fusion) struct Select;

// SAFETY: nothing is consumed; the entries are as many as the header says.
unsafe impl<H: Host> Body<H> for Select {
    #[inline(always)]
    unsafe fn run(r: Regs, cx: *mut Cx<H>) -> Flow {
        // SAFETY: by the contract of `Body::run`.
        unsafe {
            if !Cx::fits(cx, r.sp, 1, 2) {
                return Flow::Deopt;
            }
            let header = r.header();
            let count = r.depth();
            let entries = r.cell(1).cast::<u64>();
            let selector = words_of(load(r.word(1)));
            let mut taken = count;
            for i in 0..count {
                if selector == Some(*entries.add(i) as u32) {
                    taken = i;
                    break;
                }
            }
            // Each comparison up to the one that holds has been executed.
            let compared = (taken + 1).min(count) as u64;
            let Some(gas) = r.gas.checked_sub(compared * u64::from(header.gas())) else { return Flow::Deopt };
            let ip = if taken < count {
                r.target((*entries.add(taken) >> 32) as u32)
            } else {
                r.cell(1 + count.div_ceil(2))
            };
            Flow::Next(Regs { ip, sp: r.sp, gas })
        }
    }
}

/// The word as 32 bits, if it has no more.
#[inline(always)]
fn words_of(value: Limbs) -> Option<u32> {
    crate::fusion::machine::small(value).and_then(|value| u32::try_from(value).ok())
}

//! Constants, copies, exchanges.
#![allow(unsafe_code, reason = "reads and writes stack words through raw pointers")]

use super::{
    Body,
    operands::{wide, wide_fits},
};
use crate::fusion::machine::{Cx, Flow, Regs, load, store};
use revm::context::Host;

/// A constant of 32 bits.
pub(in crate::fusion) struct PushI;

// SAFETY: one word more.
unsafe impl<H: Host> Body<H> for PushI {
    #[inline(always)]
    unsafe fn run(r: Regs, cx: *mut Cx<H>) -> Flow {
        // SAFETY: by the contract of `Body::run`.
        unsafe {
            let Some(gas) = r.enter(cx, 0, 1) else { return Flow::Deopt };
            store(r.sp, [r.header().immediate().into(), 0, 0, 0]);
            Flow::Next(Regs { ip: r.cell(1), sp: r.sp.add(1), gas })
        }
    }
}

/// A constant of 256 bits, or one that several instructions made.
pub(in crate::fusion) struct PushW;

// SAFETY: one word more.
unsafe impl<H: Host> Body<H> for PushW {
    #[inline(always)]
    unsafe fn run(r: Regs, cx: *mut Cx<H>) -> Flow {
        // SAFETY: by the contract of `Body::run`.
        unsafe {
            let Some(gas) = r.pay() else { return Flow::Deopt };
            if !wide_fits(&r, cx) {
                return Flow::Deopt;
            }
            store(r.sp, wide(r.ip));
            Flow::Next(Regs { ip: r.cell(3), sp: r.sp.add(1), gas })
        }
    }
}

/// DUP1 to DUP16.
pub(in crate::fusion) struct Dup<const N: usize>;

// SAFETY: one word more.
unsafe impl<H: Host, const N: usize> Body<H> for Dup<N> {
    #[inline(always)]
    unsafe fn run(r: Regs, cx: *mut Cx<H>) -> Flow {
        // SAFETY: by the contract of `Body::run`.
        unsafe {
            let Some(gas) = r.enter(cx, N, 1) else { return Flow::Deopt };
            store(r.sp, load(r.word(N)));
            Flow::Next(Regs { ip: r.cell(1), sp: r.sp.add(1), gas })
        }
    }
}

/// SWAP1 to SWAP16.
pub(in crate::fusion) struct Swap<const N: usize>;

// SAFETY: as many words as before.
unsafe impl<H: Host, const N: usize> Body<H> for Swap<N> {
    #[inline(always)]
    unsafe fn run(r: Regs, cx: *mut Cx<H>) -> Flow {
        // SAFETY: by the contract of `Body::run`.
        unsafe {
            let Some(gas) = r.enter(cx, N + 1, 0) else { return Flow::Deopt };
            let (top, other) = (load(r.word(1)), load(r.word(N + 1)));
            store(r.word(1), other);
            store(r.word(N + 1), top);
            Flow::Next(Regs { ip: r.cell(1), sp: r.sp, gas })
        }
    }
}

/// One or several POPs.
pub(in crate::fusion) struct PopN;

// SAFETY: fewer words.
unsafe impl<H: Host> Body<H> for PopN {
    #[inline(always)]
    unsafe fn run(r: Regs, cx: *mut Cx<H>) -> Flow {
        // SAFETY: by the contract of `Body::run`.
        unsafe {
            let count = r.depth();
            let Some(gas) = r.enter_depth(cx, count, 0) else { return Flow::Deopt };
            Flow::Next(Regs { ip: r.cell(1), sp: r.sp.sub(count), gas })
        }
    }
}

/// `SWAPn POP`.
pub(in crate::fusion) struct SwapPop;

// SAFETY: one word fewer.
unsafe impl<H: Host> Body<H> for SwapPop {
    #[inline(always)]
    unsafe fn run(r: Regs, cx: *mut Cx<H>) -> Flow {
        // SAFETY: by the contract of `Body::run`.
        unsafe {
            let n = r.depth();
            let Some(gas) = r.enter_depth(cx, n + 1, 0) else { return Flow::Deopt };
            store(r.word(n + 1), load(r.word(1)));
            Flow::Next(Regs { ip: r.cell(1), sp: r.word(1), gas })
        }
    }
}

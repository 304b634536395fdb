//! Jumps.
#![allow(unsafe_code, reason = "reads stack words and jump tables through raw pointers")]

use super::Body;
use crate::fusion::{
    machine::{Cell, Cx, Flow, Limbs, Regs, load, small, store},
    words,
};
use revm::context::Host;

/// The op at a code offset, if it is a jump destination.
///
/// # Safety
/// `cx` is the frame's.
#[inline(always)]
unsafe fn destination<H>(cx: *const Cx<H>, offset: Limbs) -> Option<*const Cell> {
    // SAFETY: the offset is within the table, whose cells are the program's.
    unsafe {
        let offset = small(offset)?;
        if offset >= (*cx).jumps_len as u64 {
            return None;
        }
        let cell = *(*cx).jumps.add(offset as usize);
        (cell != 0).then(|| (*cx).cells.add(usize::from(cell) - 1))
    }
}

/// JUMP.
pub(in crate::fusion) struct Jump;

// SAFETY: one word fewer; the next op is a destination.
unsafe impl<H: Host> Body<H> for Jump {
    #[inline(always)]
    unsafe fn run(r: Regs, cx: *mut Cx<H>) -> Flow {
        // SAFETY: by the contract of `Body::run`.
        unsafe {
            let Some(gas) = r.enter(cx, 1, 0) else { return Flow::Deopt };
            let Some(ip) = destination(cx, load(r.word(1))) else { return Flow::Deopt };
            Flow::Next(Regs { ip, sp: r.word(1), gas })
        }
    }
}

/// POPs and JUMP.
pub(in crate::fusion) struct PopJump;

// SAFETY: fewer words; the next op is a destination.
unsafe impl<H: Host> Body<H> for PopJump {
    #[inline(always)]
    unsafe fn run(r: Regs, cx: *mut Cx<H>) -> Flow {
        // SAFETY: by the contract of `Body::run`.
        unsafe {
            let count = r.depth();
            let Some(gas) = r.enter_depth(cx, count + 1, 0) else { return Flow::Deopt };
            let target = r.word(count + 1);
            let Some(ip) = destination(cx, load(target)) else { return Flow::Deopt };
            Flow::Next(Regs { ip, sp: target, gas })
        }
    }
}

/// `SWAP1 JUMP`.
pub(in crate::fusion) struct SwapJump;

// SAFETY: one word fewer; the next op is a destination.
unsafe impl<H: Host> Body<H> for SwapJump {
    #[inline(always)]
    unsafe fn run(r: Regs, cx: *mut Cx<H>) -> Flow {
        // SAFETY: by the contract of `Body::run`.
        unsafe {
            let Some(gas) = r.enter(cx, 2, 0) else { return Flow::Deopt };
            let Some(ip) = destination(cx, load(r.word(2))) else { return Flow::Deopt };
            store(r.word(2), load(r.word(1)));
            Flow::Next(Regs { ip, sp: r.word(1), gas })
        }
    }
}

/// `PUSHn JUMP`.
pub(in crate::fusion) struct JumpTo;

// SAFETY: as many words as before; the next op is a destination.
unsafe impl<H: Host> Body<H> for JumpTo {
    #[inline(always)]
    unsafe fn run(r: Regs, cx: *mut Cx<H>) -> Flow {
        // SAFETY: by the contract of `Body::run`.
        unsafe {
            let Some(gas) = r.enter(cx, 0, 1) else { return Flow::Deopt };
            Flow::Next(Regs { ip: r.target(r.header().immediate()), sp: r.sp, gas })
        }
    }
}

/// JUMPDESTs up to the next op.
pub(in crate::fusion) struct Fall;

// SAFETY: the next op follows the JUMPDESTs.
unsafe impl<H: Host> Body<H> for Fall {
    #[inline(always)]
    unsafe fn run(r: Regs, _cx: *mut Cx<H>) -> Flow {
        // SAFETY: by the contract of `Body::run`.
        unsafe {
            let Some(gas) = r.pay() else { return Flow::Deopt };
            Flow::Next(Regs { ip: r.target(r.header().immediate()), sp: r.sp, gas })
        }
    }
}

/// JUMPI with a destination from the stack.
pub(in crate::fusion) struct JumpI;

// SAFETY: two words fewer; the next op is a destination or follows.
unsafe impl<H: Host> Body<H> for JumpI {
    #[inline(always)]
    unsafe fn run(r: Regs, cx: *mut Cx<H>) -> Flow {
        // SAFETY: by the contract of `Body::run`.
        unsafe {
            let Some(gas) = r.enter(cx, 2, 0) else { return Flow::Deopt };
            let ip = if words::is_zero(load(r.word(2))) {
                r.cell(1)
            } else {
                let Some(ip) = destination(cx, load(r.word(1))) else { return Flow::Deopt };
                ip
            };
            Flow::Next(Regs { ip, sp: r.word(2), gas })
        }
    }
}

//! Where operands come from: the modes of `metis_opcode_opt::Mode` for two operands.
#![allow(unsafe_code, reason = "reads stack words and program cells through raw pointers")]

use crate::fusion::machine::{Cell, Cx, Limbs, Regs, load};
use alloy_primitives::U256;
use metis_opcode_opt::fuse::TAKEN_IF_FALSE;

/// Two operands, and where a result goes.
pub(in crate::fusion) struct Two {
    /// The first operand, which is on top in the EVM.
    pub(in crate::fusion) a: Limbs,
    /// The second.
    pub(in crate::fusion) b: Limbs,
    /// Where the result belongs.
    pub(in crate::fusion) out: *mut U256,
    /// The stack pointer behind the result.
    pub(in crate::fusion) sp: *mut U256,
}

/// A mode of two operands.
///
/// # Safety
/// `get` returns pointers within the stack, or `None`.
pub(in crate::fusion) unsafe trait Operands {
    /// Cells of an op in this mode.
    const CELLS: usize = 1;

    /// The operands if the stack has them and room for every step on the way. `constant` reads the immediate, which a branch has
    /// behind its header.
    ///
    /// # Safety
    /// `registers` are at an op of this mode, in the frame of `cx`.
    unsafe fn get<H>(registers: &Regs, cx: *const Cx<H>, constant: impl Fn() -> u32) -> Option<Two>;
}

/// The wide constant behind a header.
///
/// # Safety
/// The op has one.
#[inline(always)]
pub(in crate::fusion) unsafe fn wide(ip: *const Cell) -> Limbs {
    // SAFETY: two cells follow the header.
    unsafe {
        let [low, high] = [*ip.add(1), *ip.add(2)];
        [low[0], low[1], high[0], high[1]]
    }
}

#[inline(always)]
fn narrow(constant: u32) -> Limbs {
    [constant.into(), 0, 0, 0]
}

/// The most bytes that may be on the stack before an op with a wide constant.
///
/// # Safety
/// The op has a wide constant.
#[inline(always)]
pub(in crate::fusion) unsafe fn wide_fits<H>(registers: &Regs, cx: *const Cx<H>) -> bool {
    // SAFETY: by the contract of this function.
    unsafe { Cx::height(cx, registers.sp) <= registers.header().immediate() as usize }
}

macro_rules! mode {
    ($(#[$doc:meta])* $name:ident, $cells:literal, |$r:ident, $cx:ident, $constant:ident| $get:block) => {
        $(#[$doc])*
        pub(in crate::fusion) struct $name;

        // SAFETY: each checks the depth of every word that it names, and that the result has room.
        unsafe impl Operands for $name {
            const CELLS: usize = $cells;

            #[inline(always)]
            unsafe fn get<H>($r: &Regs, $cx: *const Cx<H>, $constant: impl Fn() -> u32) -> Option<Two> {
                // SAFETY: the depths are checked first.
                unsafe { $get }
            }
        }
    };
}

mode! {
    /// Both from the stack.
    Ss, 1, |r, cx, _constant| {
        if !Cx::fits(cx, r.sp, 2, 0) {
            return None;
        }
        Some(Two { a: load(r.word(1)), b: load(r.word(2)), out: r.word(2), sp: r.word(1) })
    }
}

mode! {
    /// `SWAP1 op`.
    Rs, 1, |r, cx, _constant| {
        if !Cx::fits(cx, r.sp, 2, 0) {
            return None;
        }
        Some(Two { a: load(r.word(2)), b: load(r.word(1)), out: r.word(2), sp: r.word(1) })
    }
}

mode! {
    /// `PUSHn op`.
    Is, 1, |r, cx, constant| {
        if !Cx::fits(cx, r.sp, 1, 1) {
            return None;
        }
        Some(Two { a: narrow(constant()), b: load(r.word(1)), out: r.word(1), sp: r.sp })
    }
}

mode! {
    /// `PUSHn op`, wide.
    Ws, 3, |r, cx, _constant| {
        if !Cx::fits(cx, r.sp, 1, 0) || !wide_fits(r, cx) {
            return None;
        }
        Some(Two { a: wide(r.ip), b: load(r.word(1)), out: r.word(1), sp: r.sp })
    }
}

mode! {
    /// `DUPn op`.
    Ds, 1, |r, cx, _constant| {
        let n = r.depth();
        if !Cx::fits_depth(cx, r.sp, n, 1) {
            return None;
        }
        Some(Two { a: load(r.word(n)), b: load(r.word(1)), out: r.word(1), sp: r.sp })
    }
}

mode! {
    /// `DUPn PUSHm op`.
    Id, 1, |r, cx, constant| {
        let n = r.depth();
        if !Cx::fits_depth(cx, r.sp, n, 2) {
            return None;
        }
        Some(Two { a: narrow(constant()), b: load(r.word(n)), out: r.sp, sp: r.sp.add(1) })
    }
}

mode! {
    /// `DUPn PUSHm op`, wide.
    Wd, 3, |r, cx, _constant| {
        let n = r.depth();
        if !Cx::fits_depth(cx, r.sp, n, 0) || !wide_fits(r, cx) {
            return None;
        }
        Some(Two { a: wide(r.ip), b: load(r.word(n)), out: r.sp, sp: r.sp.add(1) })
    }
}

mode! {
    /// `PUSHm DUPn op`.
    Di, 1, |r, cx, constant| {
        let n = r.depth();
        if !Cx::fits_depth(cx, r.sp, n, 2) {
            return None;
        }
        Some(Two { a: load(r.word(n)), b: narrow(constant()), out: r.sp, sp: r.sp.add(1) })
    }
}

mode! {
    /// `PUSHm DUPn op`, wide.
    Dw, 3, |r, cx, _constant| {
        let n = r.depth();
        if !Cx::fits_depth(cx, r.sp, n, 0) || !wide_fits(r, cx) {
            return None;
        }
        Some(Two { a: load(r.word(n)), b: wide(r.ip), out: r.sp, sp: r.sp.add(1) })
    }
}

mode! {
    /// `DUPn DUPm op`.
    Dd, 1, |r, cx, _constant| {
        let (m, n) = (r.depth(), usize::from(r.header().b() & !TAKEN_IF_FALSE));
        if !Cx::fits_depth(cx, r.sp, m.max(n), 2) {
            return None;
        }
        Some(Two { a: load(r.word(m)), b: load(r.word(n)), out: r.sp, sp: r.sp.add(1) })
    }
}

//! Memory, and what hashes it.
#![allow(unsafe_code, reason = "reads and writes memory and stack words through raw pointers")]

use super::{Body, operands::Operands, unary::Operand};
use crate::fusion::{
    machine::{Cx, Flow, Limbs, Regs, load, small, store},
    memo::Memo,
};
use revm::context::Host;
use std::marker::PhantomData;

/// A big-endian word.
///
/// # Safety
/// `bytes` points to 32 readable bytes.
#[inline(always)]
pub(in crate::fusion) unsafe fn read_word(bytes: *const u8) -> Limbs {
    // SAFETY: by the contract of this function; the reads are unaligned.
    unsafe {
        let limb = |i: usize| u64::from_be(bytes.add(8 * i).cast::<u64>().read_unaligned());
        [limb(3), limb(2), limb(1), limb(0)]
    }
}

/// Writes a big-endian word.
///
/// # Safety
/// `bytes` points to 32 writable bytes.
#[inline(always)]
unsafe fn write_word(bytes: *mut u8, word: Limbs) {
    // SAFETY: by the contract of this function; the writes are unaligned.
    unsafe {
        for (i, limb) in [word[3], word[2], word[1], word[0]].into_iter().enumerate() {
            bytes.add(8 * i).cast::<u64>().write_unaligned(limb.to_be());
        }
    }
}

/// The memory at an offset, if the frame has so many bytes there.
///
/// # Safety
/// `cx` is the frame's.
#[inline(always)]
unsafe fn at<H>(cx: *const Cx<H>, offset: Limbs, len: u64) -> Option<*mut u8> {
    // SAFETY: the end is within the frame's memory.
    unsafe {
        let offset = small(offset)?;
        let end = offset.checked_add(len)?;
        (end <= (*cx).memory_len as u64).then(|| (*cx).memory.add(offset as usize))
    }
}

/// Grows memory for an op whose access ends so far from an offset.
///
/// # Safety
/// As for `Body::slow`.
unsafe fn grow_for<H: Host>(r: Regs, cx: *mut Cx<H>, offset: Limbs, len: u64) -> Flow {
    match small(offset).and_then(|offset| offset.checked_add(len)) {
        // SAFETY: by the contract of this function.
        Some(end) => unsafe { Cx::grow(cx, r, end) },
        None => Flow::Deopt,
    }
}

/// MLOAD of an offset from `M`.
pub(in crate::fusion) struct Mload<M>(PhantomData<M>);

// SAFETY: one word is read from within memory.
unsafe impl<H: Host, M: Operand> Body<H> for Mload<M> {
    #[inline(always)]
    unsafe fn run(r: Regs, cx: *mut Cx<H>) -> Flow {
        // SAFETY: by the contract of `Body::run`.
        unsafe {
            let Some(gas) = r.pay() else { return Flow::Deopt };
            let Some((offset, out, sp)) = M::get(&r, cx) else { return Flow::Deopt };
            let Some(bytes) = at(cx, offset, 32) else { return Flow::Slow };
            store(out, read_word(bytes));
            Flow::Next(Regs { ip: r.cell(1), sp, gas })
        }
    }

    unsafe fn slow(r: Regs, cx: *mut Cx<H>) -> Flow {
        // SAFETY: by the contract of `Body::slow`.
        unsafe {
            let Some((offset, _, _)) = M::get(&r, cx) else { return Flow::Deopt };
            grow_for(r, cx, offset, 32)
        }
    }
}

/// MSTORE of operands from `M`.
pub(in crate::fusion) struct Mstore<M>(PhantomData<M>);

// SAFETY: one word is written within memory; the stack pointer is where the result of a binary op would have been.
unsafe impl<H: Host, M: Operands> Body<H> for Mstore<M> {
    #[inline(always)]
    unsafe fn run(r: Regs, cx: *mut Cx<H>) -> Flow {
        // SAFETY: by the contract of `Body::run`.
        unsafe {
            let Some(gas) = r.pay() else { return Flow::Deopt };
            let Some(two) = M::get(&r, cx, || r.header().immediate()) else { return Flow::Deopt };
            let Some(bytes) = at(cx, two.a, 32) else { return Flow::Slow };
            write_word(bytes, two.b);
            Flow::Next(Regs { ip: r.cell(M::CELLS), sp: two.sp.sub(1), gas })
        }
    }

    unsafe fn slow(r: Regs, cx: *mut Cx<H>) -> Flow {
        // SAFETY: by the contract of `Body::slow`.
        unsafe {
            let Some(two) = M::get(&r, cx, || r.header().immediate()) else { return Flow::Deopt };
            grow_for(r, cx, two.a, 32)
        }
    }
}

/// MSTORE8.
pub(in crate::fusion) struct Mstore8;

// SAFETY: one byte is written within memory, two words are consumed.
unsafe impl<H: Host> Body<H> for Mstore8 {
    #[inline(always)]
    unsafe fn run(r: Regs, cx: *mut Cx<H>) -> Flow {
        // SAFETY: by the contract of `Body::run`.
        unsafe {
            let Some(gas) = r.enter(cx, 2, 0) else { return Flow::Deopt };
            let Some(byte) = at(cx, load(r.word(1)), 1) else { return Flow::Slow };
            byte.write(load(r.word(2))[0] as u8);
            Flow::Next(Regs { ip: r.cell(1), sp: r.word(2), gas })
        }
    }

    unsafe fn slow(r: Regs, cx: *mut Cx<H>) -> Flow {
        // SAFETY: by the contract of `Body::slow`.
        unsafe {
            if !Cx::fits(cx, r.sp, 2, 0) {
                return Flow::Deopt;
            }
            grow_for(r, cx, load(r.word(1)), 1)
        }
    }
}

/// KECCAK256.
pub(in crate::fusion) struct Keccak;

// SAFETY: two words become one; the input is within memory.
unsafe impl<H: Host> Body<H> for Keccak {
    #[inline(always)]
    unsafe fn run(r: Regs, cx: *mut Cx<H>) -> Flow {
        // SAFETY: by the contract of `Body::run`; host and memo outlive the frame.
        unsafe {
            let Some(gas) = r.enter(cx, 2, 0) else { return Flow::Deopt };
            let (offset, len) = (load(r.word(1)), load(r.word(2)));
            let Some(len) = small(len) else { return Flow::Deopt };
            let cost = (*(*cx).host).gas_params().keccak256_cost(len as usize);
            let Some(gas) = gas.checked_sub(cost) else { return Flow::Deopt };
            let input = if len == 0 {
                std::ptr::NonNull::dangling().as_ptr()
            } else {
                let Some(bytes) = at(cx, offset, len) else { return Flow::Slow };
                bytes
            };
            hash(input, len as usize, r.word(2), (*cx).memo);
            Flow::Next(Regs { ip: r.cell(1), sp: r.word(1), gas })
        }
    }

    unsafe fn slow(r: Regs, cx: *mut Cx<H>) -> Flow {
        // SAFETY: by the contract of `Body::slow`; the depth was checked before.
        unsafe {
            let Some(len) = small(load(r.word(2))) else { return Flow::Deopt };
            let cost = (*(*cx).host).gas_params().keccak256_cost(len as usize);
            // The hash is charged before the memory.
            let Some(left) = r.gas.checked_sub(cost) else { return Flow::Deopt };
            match grow_for(Regs { gas: left, ..r }, cx, load(r.word(1)), len) {
                // And again when the op is executed again.
                Flow::Next(grown) => Flow::Next(Regs { gas: grown.gas + cost, ..grown }),
                other => other,
            }
        }
    }
}

/// Hashes memory into a stack word, apart: see `binary::long_way`.
///
/// # Safety
/// `input` has `len` bytes, `out` is a stack word, and nobody else uses the memo.
#[inline(never)]
unsafe fn hash(input: *const u8, len: usize, out: *mut alloy_primitives::U256, memo: *mut Memo) {
    // SAFETY: by the contract of this function.
    unsafe { store(out, (*memo).keccak256(std::slice::from_raw_parts(input, len))) }
}

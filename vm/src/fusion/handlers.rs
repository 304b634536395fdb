//! What each kind of op does. One file per family; every handler is a type that implements [`Body`].
#![allow(unsafe_code, reason = "handlers work on raw stack, memory and program pointers")]

pub(super) mod binary;
pub(super) mod branch;
pub(super) mod control;
pub(super) mod environment;
pub(super) mod memory;
pub(super) mod operands;
pub(super) mod plain;
pub(super) mod stack;
pub(super) mod unary;

use super::machine::{Cx, Flow, Regs};
use revm::context::Host;

/// The body of a handler.
///
/// # Safety
/// An implementation may only go on ([`Flow::Next`]) at an op of the program, with a stack pointer within the stack, all
/// words below it written. Where it says [`Flow::Deopt`] or [`Flow::Slow`] it has changed nothing.
pub(super) unsafe trait Body<H: Host> {
    /// The hot path.
    ///
    /// # Safety
    /// `registers.ip` points to an op of this kind in the program of the frame that `cx` belongs to, and the stack pointer is
    /// within its stack.
    unsafe fn run(registers: Regs, cx: *mut Cx<H>) -> Flow;

    /// The whole op, if the hot path could not.
    ///
    /// # Safety
    /// As for `run`.
    unsafe fn slow(_registers: Regs, _cx: *mut Cx<H>) -> Flow {
        Flow::Deopt
    }
}

//! From op to op: two ways, from the same handlers.
//!
//! In release builds on targets where it was audited, every handler ends in a call of the next one, which the compiler
//! turns into a jump (a sibling call), so that the registers stay in registers and each op has its own indirect jump.
//! Rust does not promise that, so CI looks at the disassembly and runs a long loop on a small stack. Everywhere else there
//! is one loop with a match.
#![allow(unsafe_code, reason = "calls handlers that programs name by address")]

use super::{
    handlers::{
        Body, binary, branch, control, environment,
        memory::{Keccak, Mload, Mstore, Mstore8},
        operands, plain,
        stack::{Dup, PopN, PushI, PushW, Swap, SwapPop},
        unary,
    },
    intrinsics::stack_pointer,
    machine::{Cell, Cx, Exit, Flow, Regs},
};
use alloy_primitives::U256;
use metis_opcode_opt::{Op, StreamOp, Target, for_each_stream_op, fuse};
use revm::context::Host;
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// Whether handlers call one another.
const THREADED: bool = cfg!(all(
    not(debug_assertions),
    not(feature = "loop-dispatch"),
    not(miri),
    any(target_arch = "x86_64", target_arch = "aarch64")
));

/// The handler for a row of the table.
macro_rules! body {
    ($name:ident binary $op:ident $mode:ident) => { binary::BinaryOp<binary::$op, operands::$mode> };
    ($name:ident compare_branch $op:ident $mode:ident) => {
        branch::CompareBranch<branch::$op, operands::$mode, { StreamOp::$name.cells() }>
    };
    ($name:ident branch JUMPI S) => { branch::BranchS };
    ($name:ident branch JUMPI D) => { branch::BranchD };
    ($name:ident unary $op:ident $mode:ident) => { unary::UnaryOp<unary::$op, unary::$mode> };
    ($name:ident mload MLOAD $mode:ident) => { Mload<unary::$mode> };
    ($name:ident mstore MSTORE $mode:ident) => { Mstore<operands::$mode> };
    ($name:ident mstore8 MSTORE8 Ss) => { Mstore8 };
    ($name:ident ternary $op:ident S) => { unary::TernaryOp<unary::$op> };
    ($name:ident exp EXP S) => { unary::Exp };
    ($name:ident keccak KECCAK256 S) => { Keccak };
    ($name:ident sload SLOAD S) => { environment::Sload };
    ($name:ident push PUSH0 I) => { PushI };
    ($name:ident push PUSH0 W) => { PushW };
    ($name:ident dup $op:ident S) => { Dup<{ Op::$op as usize - Op::DUP1 as usize + 1 }> };
    ($name:ident swap $op:ident S) => { Swap<{ Op::$op as usize - Op::SWAP1 as usize + 1 }> };
    ($name:ident pop POP S) => { PopN };
    ($name:ident swap_pop POP D) => { SwapPop };
    ($name:ident jump JUMP S) => { control::Jump };
    ($name:ident pop_jump JUMP D) => { control::PopJump };
    ($name:ident swap_jump JUMP D) => { control::SwapJump };
    ($name:ident jump_to JUMP I) => { control::JumpTo };
    ($name:ident jumpi JUMPI S) => { control::JumpI };
    ($name:ident fall JUMPDEST I) => { control::Fall };
    ($name:ident environment $op:ident S) => { environment::Environment<environment::$op> };
    ($name:ident select EQ I) => { branch::Select };
    ($name:ident plain STOP S) => { plain::Plain };
}

/// A handler. All of its arguments are in registers.
type Handler<H> = unsafe fn(*const Cell, *mut U256, u64, *mut Cx<H>);

/// What stands in a program for an op.
pub(super) fn handler<H: Host>(op: StreamOp) -> u64 {
    if !THREADED {
        return op as u64;
    }
    macro_rules! address {
        ($($name:ident $kind:ident $op:ident $mode:ident,)*) => {
            match op {
                $(StreamOp::$name => (thread::<H, body!($name $kind $op $mode)> as Handler<H>) as usize as u64,)*
            }
        };
    }
    for_each_stream_op!(address)
}

/// Whether programs for `H` can be executed in this build.
///
/// Handlers are generic, so they are compiled in the crate that builds the machine, with that crate's optimisation level.
/// Without optimisation a call stays a call, and a long program would overflow the stack. So it is tried, once for each `H`.
pub(super) fn is_sound<H: Host>() -> bool {
    static TRIED: Mutex<BTreeMap<usize, bool>> = Mutex::new(BTreeMap::new());
    if !THREADED {
        return true;
    }
    let mut tried = TRIED.lock().unwrap_or_else(PoisonError::into_inner);
    *tried.entry(probe::<H> as *const () as usize).or_insert_with(|| {
        let jumps = stack_after::<H>(1) == stack_after::<H>(8);
        if !jumps {
            tracing::warn!(
                "fused programs are not executed: this build does not turn calls of handlers into jumps; raise the \
                 `opt-level` of the crate that builds the machine, or enable the feature `loop-dispatch` of metis-vm"
            );
        }
        jumps
    })
}

/// The machine's stack pointer behind so many rounds of ops.
#[inline(never)]
fn stack_after<H: Host>(rounds: usize) -> usize {
    // PUSH0 DUP1 PUSH1 7 MUL NOT SWAP1 LT DUP1 ISZERO EQ PUSH1 1 ADD POP.
    const ROUND: [u8; 15] =
        [0x5f, 0x80, 0x60, 7, 0x02, 0x19, 0x90, 0x10, 0x80, 0x15, 0x14, 0x60, 1, 0x01, 0x50];
    let target = Target { gas: [0; 256], native: [true; 256] };
    let link = |op| match op {
        // The STOP behind the code.
        StreamOp::Plain => probe::<H> as Handler<H> as usize as u64,
        op => handler::<H>(op),
    };
    let Some(mut program) = fuse::translate(&ROUND.repeat(rounds), &target) else { return rounds };
    program.link(link);
    let mut stack = [U256::ZERO; 8];
    let mut cx = Cx::<H> { base: stack.as_mut_ptr(), ..Cx::new() };
    let registers = Regs { ip: program.cells().as_ptr(), sp: stack.as_mut_ptr(), gas: 0 };
    // SAFETY: the program is for this `H`, needs three words of stack at most, and no op of it asks for more than the stack.
    unsafe { go(registers, &raw mut cx) };
    cx.memory_len
}

/// Ends a program, and notes where the machine's stack is.
///
/// # Safety
/// `cx` points to a context.
unsafe fn probe<H>(_: *const Cell, _: *mut U256, _: u64, cx: *mut Cx<H>) {
    // SAFETY: by the contract of this function.
    unsafe { (*cx).memory_len = stack_pointer() };
}

/// Executes from an op on, until the frame is left.
///
/// # Safety
/// `registers` are at an op of a program that was linked with [`handler`] for the same `H`, in the frame of `cx`.
pub(super) unsafe fn run<H: Host>(registers: Regs, cx: *mut Cx<H>) {
    // SAFETY: by the contract of this function.
    unsafe {
        if THREADED {
            go(registers, cx);
        } else {
            in_a_loop(registers, cx);
        }
    }
}

/// Jumps to the handler of the op at `ip`.
///
/// # Safety
/// As for [`run`], in a threaded build.
#[inline(always)]
unsafe fn go<H: Host>(registers: Regs, cx: *mut Cx<H>) {
    let Regs { ip, sp, gas } = registers;
    // SAFETY: linking put a handler for this `H` there.
    unsafe {
        let handler = std::ptr::with_exposed_provenance::<()>((*ip)[0] as usize);
        std::mem::transmute::<*const (), Handler<H>>(handler)(ip, sp, gas, cx);
    }
}

/// A handler that ends in the next one.
///
/// # Safety
/// As for [`Body::run`].
unsafe fn thread<H: Host, B: Body<H>>(ip: *const Cell, sp: *mut U256, gas: u64, cx: *mut Cx<H>) {
    // SAFETY: by the contract of this function, and of `Body`.
    unsafe {
        match B::run(Regs { ip, sp, gas }, cx) {
            Flow::Next(next) => go(next, cx),
            Flow::Slow => slow::<H, B>(ip, sp, gas, cx),
            Flow::Deopt => leave(ip, sp, gas, cx),
            Flow::Exit => {}
        }
    }
}

/// The long way of an op, apart, so that the hot path needs no stack frame.
///
/// # Safety
/// As for [`Body::slow`].
#[cold]
#[inline(never)]
unsafe fn slow<H: Host, B: Body<H>>(ip: *const Cell, sp: *mut U256, gas: u64, cx: *mut Cx<H>) {
    // SAFETY: by the contract of this function, and of `Body`.
    unsafe {
        match B::slow(Regs { ip, sp, gas }, cx) {
            Flow::Next(next) => go(next, cx),
            Flow::Slow | Flow::Deopt => leave(ip, sp, gas, cx),
            Flow::Exit => {}
        }
    }
}

/// Leaves the program before the op at `ip`.
///
/// # Safety
/// `cx` is the frame's.
#[cold]
#[inline(never)]
unsafe fn leave<H>(ip: *const Cell, sp: *mut U256, gas: u64, cx: *mut Cx<H>) {
    // SAFETY: by the contract of this function.
    unsafe {
        (*cx).left = Regs { ip, sp, gas };
        (*cx).exit = Exit::Deopt;
    }
}

/// Each op's number, as a pattern.
#[allow(non_upper_case_globals, reason = "named as the ops are")]
mod number {
    use metis_opcode_opt::{StreamOp, for_each_stream_op};

    macro_rules! numbers {
        ($($name:ident $kind:ident $op:ident $mode:ident,)*) => {
            $(pub(super) const $name: u64 = StreamOp::$name as u64;)*
        };
    }
    for_each_stream_op!(numbers);
}

/// # Safety
/// As for [`run`], in a build that is not threaded.
unsafe fn in_a_loop<H: Host>(mut registers: Regs, cx: *mut Cx<H>) {
    macro_rules! arms {
        ($($name:ident $kind:ident $op:ident $mode:ident,)*) => {
            match (*registers.ip)[0] {
                $(number::$name => step::<H, body!($name $kind $op $mode)>(registers, cx),)*
                // Layout writes nothing else.
                _ => Flow::Deopt,
            }
        };
    }
    // SAFETY: by the contract of this function, and of `Body`.
    unsafe {
        loop {
            match for_each_stream_op!(arms) {
                Flow::Next(next) => registers = next,
                Flow::Slow | Flow::Deopt => {
                    return leave(registers.ip, registers.sp, registers.gas, cx);
                }
                Flow::Exit => return,
            }
        }
    }
}

/// # Safety
/// As for [`Body::run`].
#[inline(always)]
unsafe fn step<H: Host, B: Body<H>>(registers: Regs, cx: *mut Cx<H>) -> Flow {
    // SAFETY: by the contract of this function.
    unsafe {
        match B::run(registers, cx) {
            Flow::Slow => B::slow(registers, cx),
            flow => flow,
        }
    }
}

//! The registers of the interpreter, and what a handler may do with them.
//!
//! A program is cells (see `metis_opcode_opt::program`). A handler gets the cell, the stack pointer, the gas left and the
//! context of the frame; it checks gas and stack bounds once, does its work and says how to go on. What it cannot do, it does
//! not begin: [`Flow::Deopt`] means that nothing has happened yet, and revm's loop takes over at the op's first instruction.
#![allow(unsafe_code, reason = "raw stack, memory and program pointers are what an interpreter is made of")]

use alloy_primitives::U256;
use metis_opcode_opt::Header;
use revm::{
    context::Host,
    interpreter::{
        CallInput, InstructionResult, InstructionTable, Interpreter, STACK_LIMIT,
        interpreter::EthInterpreter,
        interpreter_types::{Jumps, MemoryTr},
    },
};

use super::memo::Memo;
use std::ptr::{null, null_mut};

/// 256 bits, least limb first.
pub(super) type Limbs = [u64; 4];

/// One cell of a program.
pub(super) type Cell = [u64; 2];

/// Bytes of a stack word.
pub(super) const WORD: usize = 32;

/// Bytes of a full stack.
pub(super) const STACK_BYTES: usize = STACK_LIMIT * WORD;

/// What is in machine registers between two ops.
#[derive(Clone, Copy)]
pub(super) struct Regs {
    /// The op's first cell.
    pub(super) ip: *const Cell,
    /// The first free stack word.
    pub(super) sp: *mut U256,
    /// Gas left.
    pub(super) gas: u64,
}

/// How to go on.
pub(super) enum Flow {
    /// With the op at `ip`.
    Next(Regs),
    /// With the rest of this op, which is too long for the hot path.
    Slow,
    /// With revm's loop, at the first instruction of this op. The op has had no effect.
    Deopt,
    /// Not at all: [`Cx::exit`] says why.
    Exit,
}

/// Why the program was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// At the op in `Cx::left`, before it began.
    Deopt,
    /// By the instruction's result; revm's interpreter is up to date.
    Halt(InstructionResult),
    /// By an instruction that went elsewhere than it should; revm's interpreter is up to date.
    Elsewhere,
}

/// A frame while it is executed.
pub(super) struct Cx<H> {
    /// The stack's first word.
    pub(super) base: *mut U256,
    /// This frame's memory. Valid until something else grows or borrows it.
    pub(super) memory: *mut u8,
    /// Bytes of this frame's memory that handlers may touch.
    pub(super) memory_len: usize,
    /// The program's cells.
    pub(super) cells: *const Cell,
    /// By code offset: cell plus one, or 0.
    pub(super) jumps: *const u16,
    /// Bytes of code.
    pub(super) jumps_len: usize,
    /// Call data.
    pub(super) input: *const u8,
    /// Bytes of call data.
    pub(super) input_len: usize,
    /// revm's interpreter, which holds the frame when no handler runs.
    pub(super) interpreter: *mut Interpreter<EthInterpreter>,
    /// revm's host.
    pub(super) host: *mut H,
    /// revm's instructions.
    pub(super) table: *const InstructionTable<EthInterpreter, H>,
    /// Hashes of short inputs.
    pub(super) memo: *mut Memo,
    /// Registers when the program was left.
    pub(super) left: Regs,
    /// Why it was left.
    pub(super) exit: Exit,
}

impl Regs {
    /// The header behind the handler.
    ///
    /// # Safety
    /// `ip` points to an op.
    #[inline(always)]
    pub(super) unsafe fn header(&self) -> Header {
        // SAFETY: by the contract of this function.
        Header(unsafe { (*self.ip)[1] })
    }

    /// Takes the op's static gas.
    ///
    /// # Safety
    /// `ip` points to an op.
    #[inline(always)]
    pub(super) unsafe fn pay(&self) -> Option<u64> {
        // SAFETY: by the contract of this function.
        self.gas.checked_sub(unsafe { self.header() }.gas().into())
    }

    /// Takes the op's static gas if `needs` words are on the stack and `grows` more fit. What every handler begins with.
    ///
    /// # Safety
    /// `ip` points to an op, and `cx` is the frame's.
    #[inline(always)]
    pub(super) unsafe fn enter<H>(&self, cx: *const Cx<H>, needs: usize, grows: usize) -> Option<u64> {
        // SAFETY: by the contract of this function.
        unsafe { self.pay().filter(|_| Cx::fits(cx, self.sp, needs, grows)) }
    }

    /// The same where `needs` is only known now.
    ///
    /// # Safety
    /// As for [`Regs::enter`].
    #[inline(always)]
    pub(super) unsafe fn enter_depth<H>(&self, cx: *const Cx<H>, needs: usize, grows: usize) -> Option<u64> {
        // SAFETY: by the contract of this function.
        unsafe { self.pay().filter(|_| Cx::fits_depth(cx, self.sp, needs, grows)) }
    }

    /// The op's first depth or count.
    ///
    /// # Safety
    /// `ip` points to an op.
    #[inline(always)]
    pub(super) unsafe fn depth(&self) -> usize {
        // SAFETY: by the contract of this function.
        unsafe { self.header() }.a().into()
    }

    /// The cell so many cells behind the op's first.
    ///
    /// # Safety
    /// The program has that cell.
    #[inline(always)]
    pub(super) unsafe fn cell(&self, cells: usize) -> *const Cell {
        // SAFETY: by the contract of this function.
        unsafe { self.ip.add(cells) }
    }

    /// The op that is `distance` bytes from this one.
    ///
    /// # Safety
    /// The distance comes from the program, whose layout made it.
    #[inline(always)]
    pub(super) unsafe fn target(&self, distance: u32) -> *const Cell {
        // SAFETY: by the contract of this function.
        unsafe { self.ip.byte_offset(distance as i32 as isize) }
    }

    /// The word `depth` words below the stack pointer; 1 is the top.
    ///
    /// # Safety
    /// The stack has so many words.
    #[inline(always)]
    pub(super) unsafe fn word(&self, depth: usize) -> *mut U256 {
        // SAFETY: by the contract of this function.
        unsafe { self.sp.sub(depth) }
    }
}

/// Reads a stack word limb by limb: a wider load of a word that was just stored by limbs would wait for the stores to
/// leave the store buffer. Volatile, because the compiler would join the loads.
///
/// # Safety
/// `word` is a word of the stack below the stack pointer.
#[inline(always)]
pub(super) unsafe fn load(word: *const U256) -> Limbs {
    let limbs = word.cast::<u64>();
    // SAFETY: a word is four limbs, initialised by the contract of this function.
    unsafe {
        [
            limbs.read_volatile(),
            limbs.add(1).read_volatile(),
            limbs.add(2).read_volatile(),
            limbs.add(3).read_volatile(),
        ]
    }
}

/// Writes a stack word.
///
/// # Safety
/// `word` is one of the 1024 words of the stack.
#[inline(always)]
pub(super) unsafe fn store(word: *mut U256, value: Limbs) {
    // SAFETY: a word is four limbs.
    unsafe { word.cast::<Limbs>().write(value) }
}

impl<H> Cx<H> {
    /// No frame yet.
    pub(super) const fn new() -> Self {
        Self {
            base: null_mut(),
            memory: null_mut(),
            memory_len: 0,
            cells: null(),
            jumps: null(),
            jumps_len: 0,
            input: null(),
            input_len: 0,
            interpreter: null_mut(),
            host: null_mut(),
            table: null(),
            memo: null_mut(),
            left: Regs { ip: null(), sp: null_mut(), gas: 0 },
            exit: Exit::Deopt,
        }
    }

    /// Bytes on the stack.
    ///
    /// # Safety
    /// `cx` is the frame's.
    #[inline(always)]
    pub(super) unsafe fn height(cx: *const Self, sp: *mut U256) -> usize {
        // SAFETY: by the contract of this function.
        sp as usize - unsafe { (*cx).base } as usize
    }

    /// Whether at least `needs` words are on the stack and `grows` more fit.
    ///
    /// # Safety
    /// `cx` is the frame's.
    #[inline(always)]
    pub(super) unsafe fn fits(cx: *const Self, sp: *mut U256, needs: usize, grows: usize) -> bool {
        // SAFETY: by the contract of this function.
        let height = unsafe { Self::height(cx, sp) };
        // One comparison for both: too few words wrap around to very many.
        match (needs, grows) {
            (0, _) => height <= STACK_BYTES - grows * WORD,
            (_, 0) => height >= needs * WORD,
            _ => height.wrapping_sub(needs * WORD) <= STACK_BYTES - (needs + grows) * WORD,
        }
    }

    /// The same where `needs` is only known now.
    ///
    /// # Safety
    /// `cx` is the frame's.
    #[inline(always)]
    pub(super) unsafe fn fits_depth(cx: *const Self, sp: *mut U256, needs: usize, grows: usize) -> bool {
        // SAFETY: by the contract of this function.
        let height = unsafe { Self::height(cx, sp) };
        (height >= needs * WORD) & (height <= STACK_BYTES - grows * WORD)
    }

    /// Brings revm's interpreter up to date: stack, gas, and the offset of the next instruction.
    ///
    /// # Safety
    /// `cx` is the frame's, and `sp` is within its stack.
    pub(super) unsafe fn save(cx: *mut Self, sp: *mut U256, gas: u64, pc: usize) {
        // SAFETY: all words below `sp` have been written, and it is at most 1024 words above `base`.
        unsafe {
            let interpreter = &mut *(*cx).interpreter;
            interpreter.stack.data_mut().set_len(Self::height(cx, sp) / WORD);
            interpreter.gas.set_remaining(gas);
            interpreter.bytecode.absolute_jump(pc);
        }
    }

    /// Takes over what revm's interpreter says about stack and memory. Returns the stack pointer and gas.
    ///
    /// # Safety
    /// `cx` is the frame's.
    pub(super) unsafe fn reload(cx: *mut Self) -> (*mut U256, u64) {
        // SAFETY: the interpreter outlives the frame's execution, and nothing else borrows it now.
        unsafe {
            let interpreter = &mut *(*cx).interpreter;
            let words = interpreter.stack.len();
            (*cx).base = interpreter.stack.data_mut().as_mut_ptr();
            Self::remap(cx);
            ((*cx).base.add(words), interpreter.gas.remaining())
        }
    }

    /// Finds memory and call data again.
    ///
    /// # Safety
    /// `cx` is the frame's.
    pub(super) unsafe fn remap(cx: *mut Self) {
        // SAFETY: the interpreter outlives the frame's execution, and nothing else borrows it now.
        unsafe {
            let interpreter = &mut *(*cx).interpreter;
            {
                let mut memory = interpreter.memory.context_memory_mut();
                (*cx).memory_len = memory.len();
                (*cx).memory = memory.as_mut_ptr();
            }
            // revm goes by what has been paid for. A user's instruction may have made that something else than what is there:
            // then every access is for revm to decide.
            if interpreter.gas.memory().words_num * WORD != (*cx).memory_len {
                (*cx).memory_len = 0;
            }
            match &interpreter.input.input {
                CallInput::Bytes(bytes) => {
                    (*cx).input = bytes.as_ptr();
                    (*cx).input_len = bytes.len();
                }
                // An empty range may lie anywhere.
                CallInput::SharedBuffer(range) if range.is_empty() => {
                    (*cx).input = std::ptr::null();
                    (*cx).input_len = 0;
                }
                CallInput::SharedBuffer(range) => {
                    let input = interpreter.memory.global_slice(range.clone());
                    (*cx).input = input.as_ptr();
                    (*cx).input_len = input.len();
                }
            }
        }
    }
}

impl<H: Host> Cx<H> {
    /// Grows memory to `end` bytes for the op at `ip`, which is executed again afterwards. `Deopt` if the gas is not enough.
    ///
    /// # Safety
    /// `cx` is the frame's, and `registers` are those from before the op.
    pub(super) unsafe fn grow(cx: *mut Self, registers: Regs, end: u64) -> Flow {
        // SAFETY: interpreter and host outlive the frame's execution, and nothing else borrows them now.
        unsafe {
            let Some(left) = registers.pay() else { return Flow::Deopt };
            let Ok(end) = usize::try_from(end) else { return Flow::Deopt };
            let interpreter = &mut *(*cx).interpreter;
            let before = interpreter.gas;
            // The op's static gas comes first, so that memory is paid from what it leaves.
            interpreter.gas.set_remaining(left);
            let grown = revm::interpreter::interpreter::resize_memory(
                &mut interpreter.gas,
                &mut interpreter.memory,
                (*(*cx).host).gas_params(),
                0,
                end,
            );
            if grown.is_err() {
                interpreter.gas = before;
                return Flow::Deopt;
            }
            let gas = interpreter.gas.remaining() + (registers.gas - left);
            Self::remap(cx);
            if (*cx).memory_len < end {
                return Flow::Deopt;
            }
            Flow::Next(Regs { gas, ..registers })
        }
    }
}

/// A word that is known to be small, or `u64::MAX`.
#[inline(always)]
pub(super) fn saturated(value: Limbs) -> u64 {
    if value[1] | value[2] | value[3] == 0 { value[0] } else { u64::MAX }
}

/// A word as 64 bits, if it has no more.
#[inline(always)]
pub(super) fn small(value: Limbs) -> Option<u64> {
    (value[1] | value[2] | value[3] == 0).then_some(value[0])
}

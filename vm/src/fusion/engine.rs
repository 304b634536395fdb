//! One frame, by its program.
#![allow(unsafe_code, reason = "sets up and tears down the raw context of the handlers")]

use super::{
    dispatch,
    machine::{Cx, Exit, Regs},
    memo::Memo,
};
use metis_opcode_opt::Program;
use revm::{
    context::Host,
    interpreter::{
        InstructionTable, Interpreter, InterpreterAction,
        instructions::GasTable,
        interpreter::EthInterpreter,
        interpreter_types::{Jumps, LoopControl},
    },
};

/// revm's tables, and what is kept between frames.
pub(super) struct Tools<'a, H> {
    pub(super) instructions: &'a InstructionTable<EthInterpreter, H>,
    pub(super) gas: &'a GasTable,
    pub(super) memo: &'a mut Memo,
}

/// Executes a frame until it returns or calls, exactly as `Interpreter::run_plain` would. The program must be linked for
/// `H`, and made from the frame's code: it is found under a key that says so.
pub(super) fn execute<H: Host>(
    program: &Program,
    interpreter: &mut Interpreter<EthInterpreter>,
    host: &mut H,
    mut tools: Tools<'_, H>,
) -> InterpreterAction {
    let pc = interpreter.bytecode.pc();
    let entry = if pc == 0 { Some(0) } else { program.resume(pc) };
    // Memory below the stack pointer is written by handlers without asking for its capacity.
    let entry = entry.filter(|_| interpreter.stack.data().capacity() >= 1024);
    if let Some(entry) = entry
        && run(program, entry, interpreter, host, &mut tools)
    {
        return interpreter.take_next_action();
    }
    super::local::run_plain(interpreter, tools.instructions, tools.gas, host)
}

/// Whether the frame has its action. If not, revm's loop goes on.
fn run<H: Host>(
    program: &Program,
    entry: usize,
    interpreter: &mut Interpreter<EthInterpreter>,
    host: &mut H,
    tools: &mut Tools<'_, H>,
) -> bool {
    // Fused code is never empty: it ends in an op.
    let cells = program.cells().as_ptr();
    let start = Regs { ip: cells, sp: std::ptr::null_mut(), gas: 0 };
    let mut cx = Cx {
        base: std::ptr::null_mut(),
        memory: std::ptr::null_mut(),
        memory_len: 0,
        cells,
        jumps: program.jumps().as_ptr(),
        jumps_len: program.jumps().len(),
        input: std::ptr::null(),
        input_len: 0,
        interpreter,
        host,
        table: tools.instructions,
        memo: &raw mut *tools.memo,
        left: start,
        exit: Exit::Deopt,
    };
    // SAFETY: all that `cx` points to lives until the end of this function and is not touched otherwise while handlers
    // run; `entry` is the first op or one behind a call; the program was linked for this `H`.
    unsafe {
        let cx = &raw mut cx;
        let (sp, gas) = Cx::reload(cx);
        dispatch::run(Regs { ip: cells.add(entry), sp, gas }, cx);
        let interpreter = &mut *(*cx).interpreter;
        match (*cx).exit {
            Exit::Halt(result) => {
                if interpreter.bytecode.action().is_none() {
                    interpreter.halt(result);
                }
                true
            }
            Exit::Elsewhere => false,
            Exit::Deopt => {
                let Regs { ip, sp, gas } = (*cx).left;
                let pc = program.pc(ip.offset_from_unsigned(cells));
                Cx::save(cx, sp, gas, pc);
                false
            }
        }
    }
}

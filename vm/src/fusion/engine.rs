//! One frame, by its program.
#![allow(unsafe_code, reason = "sets up and tears down the raw context of the handlers")]

use super::{
    dispatch,
    machine::{Cx, Exit, Regs},
    memo::Memo,
    near::Near,
};
use metis_opcode_opt::{Op, Profile, Program};
use revm::{
    context::Host,
    interpreter::{
        InstructionTable, Interpreter, InterpreterAction, STACK_LIMIT,
        instructions::GasTable,
        interpreter::EthInterpreter,
        interpreter_types::{Jumps, LoopControl},
    },
};

/// Steps for which a contract is watched before it is fused.
const PROFILED_STEPS: usize = 20_000;

/// revm's tables, and what is kept between frames.
pub(super) struct Tools<'a, H> {
    pub(super) instructions: &'a InstructionTable<EthInterpreter, H>,
    pub(super) gas: &'a GasTable,
    pub(super) memo: &'a mut Memo,
}

/// Executes a frame until it returns or calls, exactly as `Interpreter::run_plain` would.
pub(super) fn execute<H: Host>(
    near: &Near,
    interpreter: &mut Interpreter<EthInterpreter>,
    host: &mut H,
    mut tools: Tools<'_, H>,
) -> InterpreterAction {
    // Handlers write to the stack without asking for its capacity.
    let has_room = interpreter.stack.data().capacity() >= STACK_LIMIT;
    if let Some(program) = near.program::<H>(interpreter).filter(|_| has_room)
        && let Some(entry) = program.entry(interpreter.bytecode.pc())
    {
        // SAFETY: the program is of the frame's code and linked for `H`, and an op begins at `entry`.
        let acted = unsafe { run(program, entry, interpreter, host, &mut tools) };
        if acted {
            return interpreter.take_next_action();
        }
    }
    run_plain(interpreter, tools.instructions, tools.gas, host)
}

/// Whether the frame has its action. If not, revm's loop goes on.
///
/// # Safety
/// The program is linked for `H` and made from the frame's code, the frame's stack has room for all its words, and an op
/// begins at `entry`.
unsafe fn run<H: Host>(
    program: &Program,
    entry: usize,
    interpreter: &mut Interpreter<EthInterpreter>,
    host: &mut H,
    tools: &mut Tools<'_, H>,
) -> bool {
    // Fused code is never empty: it ends in an op.
    let cells = program.cells().as_ptr();
    let mut cx = Cx {
        cells,
        jumps: program.jumps().as_ptr(),
        jumps_len: program.jumps().len(),
        interpreter,
        host,
        table: tools.instructions,
        memo: &raw mut *tools.memo,
        ..Cx::new()
    };
    // SAFETY: all that `cx` points to lives until the end of this function and is not touched otherwise while handlers
    // run; the rest by the contract of this function.
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

/// revm's loop, not inlined: among other code it takes nearly twice the time.
#[inline(never)]
pub(super) fn run_plain<H: Host>(
    frame: &mut Interpreter<EthInterpreter>,
    instructions: &InstructionTable<EthInterpreter, H>,
    gas: &GasTable,
    host: &mut H,
) -> InterpreterAction {
    frame.run_plain(instructions, gas, host)
}

/// revm's loop, counting where control goes for a bounded number of steps.
pub(super) fn watch<H: Host>(
    frame: &mut Interpreter<EthInterpreter>,
    instructions: &InstructionTable<EthInterpreter, H>,
    gas: &GasTable,
    host: &mut H,
    profile: &mut Profile,
) -> InterpreterAction {
    let mut expected = usize::MAX;
    for _ in 0..PROFILED_STEPS {
        let pc = frame.bytecode.pc();
        if pc != expected {
            profile.enter(u32::try_from(pc).unwrap_or(u32::MAX));
        }
        let byte = frame.bytecode.opcode();
        let immediate = Op::from_byte(byte).map_or(0, |op| usize::from(op.immediate_size()));
        expected = pc + 1 + immediate;
        if let Err(result) = frame.step(instructions, gas, host) {
            if frame.bytecode.action().is_none() {
                frame.halt(result);
            }
            return frame.take_next_action();
        }
    }
    run_plain(frame, instructions, gas, host)
}

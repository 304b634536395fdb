//! Any instruction, by revm's own implementation.
#![allow(unsafe_code, reason = "hands the frame to revm's instruction and takes it back")]

use super::Body;
use crate::fusion::machine::{Cx, Exit, Flow, Regs};
use metis_opcode_opt::fuse::ENDS;
use revm::{
    context::Host,
    interpreter::{InstructionContext, interpreter_types::Jumps},
};

/// An instruction from revm's table, which a user may have changed.
pub(in crate::fusion) struct Plain;

// SAFETY: the registers are those of revm's interpreter behind the instruction; the next op is the one behind it.
unsafe impl<H: Host> Body<H> for Plain {
    #[inline(always)]
    unsafe fn run(r: Regs, cx: *mut Cx<H>) -> Flow {
        // SAFETY: by the contract of `Body::run`; interpreter, host and table outlive the frame's execution, and nothing
        // else borrows them now.
        unsafe {
            let Some(gas) = r.pay() else { return Flow::Deopt };
            let header = r.header();
            let behind = header.immediate() as usize;
            // Where revm's loop stands when an instruction begins: behind its byte.
            let ends = header.b() & ENDS != 0;
            Cx::save(cx, r.sp, gas, behind - usize::from(header.b() & !ENDS));
            let instruction = (*(*cx).table)[usize::from(header.a())];
            let context = InstructionContext { interpreter: &mut *(*cx).interpreter, host: &mut *(*cx).host };
            match instruction.execute(context) {
                Err(result) => {
                    (*cx).exit = Exit::Halt(result);
                    Flow::Exit
                }
                Ok(()) if ends || (*(*cx).interpreter).bytecode.pc() != behind => {
                    (*cx).exit = Exit::Elsewhere;
                    Flow::Exit
                }
                Ok(()) => {
                    let (sp, gas) = Cx::reload(cx);
                    Flow::Next(Regs { ip: r.cell(1), sp, gas })
                }
            }
        }
    }
}

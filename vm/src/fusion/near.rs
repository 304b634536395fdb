//! A program at hand, with the code that it may execute.

use super::dispatch;
use alloy_primitives::{B256, Bytes};
use metis_opcode_opt::{Cached, Linker, Program};
use revm::{
    context::Host,
    interpreter::{Interpreter, interpreter::EthInterpreter},
};
use std::sync::Arc;

/// A program, and where its code lies. Whoever has one has compared the code: a code hash is only what a database says.
pub(super) struct Near {
    hash: B256,
    /// Equal to the program's own, but perhaps elsewhere in memory.
    code: Bytes,
    program: Arc<Cached>,
}

impl Near {
    /// The program for this frame, if it is for its code.
    pub(super) fn new(hash: B256, program: Arc<Cached>, frame: &Interpreter<EthInterpreter>) -> Option<Self> {
        let code = frame.bytecode.original_bytes();
        program.is_of(&code).then_some(Self { hash, code, program })
    }

    /// Whether it was made for this hash.
    pub(super) fn is_named(&self, hash: B256) -> bool {
        self.hash == hash
    }

    /// The program, if it is for the frame's very code, and linked for `H`.
    pub(super) fn program<H: Host>(&self, frame: &Interpreter<EthInterpreter>) -> Option<&Program> {
        let linker: Linker = dispatch::handler::<H>;
        let is_right = std::ptr::eq::<[u8]>(self.code.as_ref(), frame.bytecode.original_byte_slice())
            && self.program.linker() as usize == linker as usize;
        is_right.then(|| self.program.program())
    }

    /// Keeps the program in the shared cache.
    pub(super) fn touch(&self) {
        self.program.touch();
    }
}

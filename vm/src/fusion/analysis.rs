//! A program without executing it: for people and for benchmarks.

use super::{Interpreter, tables};
use metis_opcode_opt::{Program, Target, fuse};
use revm::primitives::hardfork::SpecId;

/// Mainnet's costs and instructions on a fork.
pub fn target(spec: SpecId) -> Target {
    tables::mainnet(spec)
}

/// The program for code on mainnet's tables. `None` for revm's own loop, and for code that is too long.
pub fn program(code: &[u8], spec: SpecId, interpreter: Interpreter) -> Option<Program> {
    match interpreter {
        Interpreter::Revm => None,
        Interpreter::Plain => fuse::translate(code, &target(spec)),
        Interpreter::Fused | Interpreter::FusedAlways => fuse::fuse(code, &target(spec)),
    }
}

/// Counts what a program dispatches, from the offsets of the instructions that revm executes.
#[derive(Clone, Debug)]
pub struct DispatchCounter {
    /// By offset in the code: whether an op begins there, and whether it takes all JUMPDESTs of a run.
    starts: Vec<Start>,
    dispatches: u64,
    /// The offset before, if its op runs on over JUMPDESTs.
    falling: Option<usize>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Start {
    #[default]
    None,
    Op,
    Fall,
}

impl DispatchCounter {
    /// For one program.
    pub fn new(program: &Program) -> Self {
        let mut starts = Vec::new();
        for (op, pc) in program.ops_at() {
            if starts.len() <= pc {
                starts.resize(pc + 1, Start::None);
            }
            starts[pc] = if op == metis_opcode_opt::StreamOp::Fall { Start::Fall } else { Start::Op };
        }
        Self { starts, dispatches: 0, falling: None }
    }

    /// Counts in that revm executes the instruction at this offset.
    pub fn step(&mut self, pc: usize) {
        let start = self.starts.get(pc).copied().unwrap_or_default();
        let in_run = start == Start::Fall && self.falling.is_some_and(|before| before + 1 == pc);
        if start != Start::None && !in_run {
            self.dispatches += 1;
        }
        self.falling = (start == Start::Fall).then_some(pc);
    }

    /// Dispatches so far.
    pub fn dispatches(&self) -> u64 {
        self.dispatches
    }
}

//! How many opcodes revm executes, and how many operations fused programs dispatch for them.

use super::{
    case::Case,
    machine::{ExecutionError, Machine},
};
use alloy_primitives::B256;
use metis_vm::{
    EvmContext, Interpreter as Kind, SpecId,
    fusion::analysis::{self, DispatchCounter},
};
use revm::{
    Inspector, MainBuilder,
    handler::{EthFrame, MainnetEvm, MainnetHandler},
    inspector::InspectorHandler,
    interpreter::{Interpreter, interpreter::EthInterpreter, interpreter_types::Jumps},
};
use std::collections::HashMap;

/// What one execution takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Opcodes that revm executes.
    pub opcodes: u64,
    /// Operations that fused programs dispatch. Code that has no program counts opcode by opcode.
    pub dispatches: u64,
}

impl Counts {
    /// Dispatches per opcode.
    pub fn fraction(&self) -> f64 {
        self.dispatches as f64 / self.opcodes.max(1) as f64
    }
}

/// Counts both, in revm's own loop: the machines that are timed count nothing.
///
/// # Errors
/// [`ExecutionError`].
pub fn count(case: &Case) -> Result<Counts, ExecutionError> {
    type Counted = MainnetEvm<EvmContext, Counter>;
    type Handler = MainnetHandler<Counted, ExecutionError, EthFrame<EthInterpreter>>;

    let counter = Counter { spec: case.spec, opcodes: 0, programs: HashMap::new() };
    let mut machine = Machine::new(super::machine::context(case).build_mainnet_with_inspector(counter), case);
    machine.execute_with(|evm, frame| Handler::default().inspect_run_exec_loop(evm, frame))?;
    Ok(machine.evm().inspector.counts())
}

#[derive(Debug)]
struct Counter {
    spec: SpecId,
    opcodes: u64,
    programs: HashMap<B256, Program>,
}

/// Code that was executed.
#[derive(Debug)]
enum Program {
    Fused(DispatchCounter),
    None { opcodes: u64 },
}

impl Counter {
    fn counts(&self) -> Counts {
        let dispatches = |program: &Program| match program {
            Program::Fused(counter) => counter.dispatches(),
            Program::None { opcodes } => *opcodes,
        };
        Counts { opcodes: self.opcodes, dispatches: self.programs.values().map(dispatches).sum() }
    }
}

impl<CTX> Inspector<CTX, EthInterpreter> for Counter {
    fn step(&mut self, interpreter: &mut Interpreter<EthInterpreter>, _: &mut CTX) {
        self.opcodes += 1;
        let hash = interpreter.bytecode.get_or_calculate_hash();
        let code = &interpreter.bytecode;
        let program = self.programs.entry(hash).or_insert_with(|| {
            analysis::program(code.original_byte_slice(), self.spec, Kind::FusedAlways)
                .map_or(Program::None { opcodes: 0 }, |program| {
                    Program::Fused(DispatchCounter::new(&program))
                })
        });
        match program {
            Program::Fused(counter) => counter.step(code.pc()),
            Program::None { opcodes } => *opcodes += 1,
        }
    }
}

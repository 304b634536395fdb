//! Everything that an inspector is told.

use alloy_primitives::{Address, Log, U256};
use revm::{
    Inspector,
    context::ContextTr,
    interpreter::{
        CallInputs, CallOutcome, CreateInputs, CreateOutcome, Interpreter, interpreter::EthInterpreter,
        interpreter_types::Jumps,
    },
};

/// One thing that an inspector was told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    Step { pc: usize, byte: u8, gas: u64, stack: Vec<U256>, memory: usize },
    StepEnd { gas: u64, refund: i64, stack: usize },
    Log(Log),
    Call(Box<CallInputs>),
    CallEnd(Box<CallOutcome>),
    Create { gas: u64 },
    CreateEnd(Box<CreateOutcome>),
    SelfDestruct(Address, Address, U256),
}

/// Writes it all down.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorder {
    pub(crate) events: Vec<Event>,
}

impl<C: ContextTr> Inspector<C, EthInterpreter> for Recorder {
    fn step(&mut self, interpreter: &mut Interpreter<EthInterpreter>, _: &mut C) {
        self.events.push(Event::Step {
            pc: interpreter.bytecode.pc(),
            byte: interpreter.bytecode.opcode(),
            gas: interpreter.gas.remaining(),
            stack: interpreter.stack.data().clone(),
            memory: interpreter.memory.len(),
        });
    }

    fn step_end(&mut self, interpreter: &mut Interpreter<EthInterpreter>, _: &mut C) {
        self.events.push(Event::StepEnd {
            gas: interpreter.gas.remaining(),
            refund: interpreter.gas.refunded(),
            stack: interpreter.stack.len(),
        });
    }

    fn log(&mut self, _: &mut C, log: Log) {
        self.events.push(Event::Log(log));
    }

    fn call(&mut self, _: &mut C, inputs: &mut CallInputs) -> Option<CallOutcome> {
        self.events.push(Event::Call(Box::new(inputs.clone())));
        None
    }

    fn call_end(&mut self, _: &mut C, _: &CallInputs, outcome: &mut CallOutcome) {
        self.events.push(Event::CallEnd(Box::new(outcome.clone())));
    }

    fn create(&mut self, _: &mut C, inputs: &mut CreateInputs) -> Option<CreateOutcome> {
        self.events.push(Event::Create { gas: inputs.gas_limit() });
        None
    }

    fn create_end(&mut self, _: &mut C, _: &CreateInputs, outcome: &mut CreateOutcome) {
        self.events.push(Event::CreateEnd(Box::new(outcome.clone())));
    }

    fn selfdestruct(&mut self, contract: Address, target: Address, value: U256) {
        self.events.push(Event::SelfDestruct(contract, target, value));
    }
}

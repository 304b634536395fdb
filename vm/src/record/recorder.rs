//! Writing a record.

use super::Record;
use crate::{
    error::VmError,
    evm::{Precompiles, Vm},
    outcome::Outcome,
    transaction::Transaction,
};

/// A [`Vm`] whose committed transactions are written down. It owns the machine, so that nothing can change the state
/// behind the record's back.
#[derive(Debug)]
pub struct Recorder<P> {
    vm: Vm<P>,
    record: Record,
}

impl<P: Precompiles> Recorder<P> {
    /// Begins a record on the present state and block of `vm`. `chain` is what the caller needs to build the precompiles
    /// again.
    pub fn new(vm: Vm<P>, chain: serde_json::Value) -> Self {
        let record = Record::begin(&vm, chain);
        Self { vm, record }
    }

    /// Executes and commits a transaction, and writes it down. A transaction with an error is no part of the run.
    ///
    /// # Errors
    /// As [`Vm::transact`].
    pub fn transact(&mut self, tx: &Transaction) -> Result<Outcome, VmError> {
        let complete = self.vm.complete(tx);
        let outcome = self.vm.transact(tx)?;
        self.record.push(complete, outcome.clone());
        Ok(outcome)
    }

    /// As [`Vm::simulate`]: leaves no mark, neither in the state nor in the record.
    ///
    /// # Errors
    /// As [`Vm::simulate`].
    pub fn simulate(&mut self, tx: &Transaction) -> Result<Outcome, VmError> {
        self.vm.simulate(tx)
    }

    /// The machine, to look at.
    pub fn vm(&self) -> &Vm<P> {
        &self.vm
    }

    /// Ends the record and gives the machine back.
    pub fn finish(mut self) -> (Record, Vm<P>) {
        self.record.end(&self.vm);
        (self.record, self.vm)
    }
}

//! `metisvm bench`: measurements.

mod evm;
mod gas;
mod model;

use std::process::ExitCode;

use clap::Subcommand;

use crate::cli::Global;
use crate::report::Report;

/// Measure.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Nanoseconds per gas of every precompile function over its worst inputs, next to Ethereum's own operations.
    Gas(gas::Gas),
    /// How fast contracts execute, fused and not, next to revm.
    Evm(evm::Evm),
    /// Tokens per second.
    Model(model::Model),
}

impl Bench {
    /// Runs the command.
    pub fn run(self, global: &Global, report: Report) -> anyhow::Result<ExitCode> {
        match self {
            Self::Gas(command) => command.run(global, report),
            Self::Model(command) => command.run(global, report),
            Self::Evm(command) => {
                global.without_chain("bench evm")?;
                command.run(report)
            }
        }
    }
}

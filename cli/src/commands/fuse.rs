//! `metisvm fuse`: the program that a contract becomes.

use std::process::ExitCode;

use anyhow::anyhow;
use clap::Args;
use metis_opcode_opt::Listing;
use metis_vm::{Interpreter, fork, fusion::analysis};
use serde_json::json;

use crate::code::read_code;
use crate::report::Report;

/// Prints the fused program of contract code beside the bytecode. Each line: offset, static gas, the op, its instructions.
#[derive(Debug, Args)]
pub struct Fuse {
    /// Runtime code: hex, a file with hex, or a compiler artefact (`deployedBytecode`).
    #[arg(long, value_name = "FILE|HEX")]
    code: String,
    /// The hard fork whose instructions and costs hold.
    #[arg(long, value_name = "FORK", default_value_t = fork::name(fork::DEFAULT).to_owned())]
    fork: String,
    /// Which program: fused, or plain for one op per instruction.
    #[arg(long, value_name = "NAME", default_value = "fused")]
    interpreter: Interpreter,
}

impl Fuse {
    /// Runs the command.
    pub fn run(self, report: Report) -> anyhow::Result<ExitCode> {
        let code = read_code(&self.code)?;
        let fork = fork::parse(&self.fork)?;
        let program =
            analysis::program(&code, fork, self.interpreter).ok_or_else(|| match self.interpreter {
                Interpreter::Revm => {
                    anyhow!("revm's own loop has no program: use --interpreter fused or plain")
                }
                _ => anyhow!(
                    "{} bytes of code are too long for a program: revm's loop executes them",
                    code.len()
                ),
            })?;
        let listing = Listing { program: &program, code: &code };
        let text = listing.to_string();
        let value = json!({
            "fork": fork::name(fork), "interpreter": self.interpreter.name(), "code_bytes": code.len(),
            "program_bytes": program.bytes(), "dispatches_before": program.instructions(),
            "dispatches_after": program.ops(), "listing": text.lines().skip(1).collect::<Vec<_>>(),
        });
        report.finish(&value, || text)?;
        Ok(ExitCode::SUCCESS)
    }
}

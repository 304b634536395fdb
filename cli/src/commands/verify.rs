//! `metisvm verify`: re-execute a record.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, ensure};
use clap::Args;
use metis_models::engine::{Answers, Claims};
use metis_vm::{Record, VerifyError, fork};
use serde_json::json;

use crate::cli::Global;
use crate::node::Node;
use crate::report::Report;

/// Re-executes a record and compares status, gas, output, logs and state; exit code 1 and the first difference otherwise.
#[derive(Debug, Args)]
pub struct Verify {
    /// A record that `run --record` wrote.
    record: PathBuf,
}

impl Verify {
    /// Runs the command.
    pub fn run(self, global: &Global, report: Report) -> anyhow::Result<ExitCode> {
        let place = || format!("record {}", self.record.display());
        let text = std::fs::read_to_string(&self.record).with_context(place)?;
        let record = Record::from_json(&text).with_context(place)?;
        let answers: Option<Answers> = serde_json::from_value(record.answers.clone())
            .with_context(|| format!("{}: `answers`", place()))?;
        let claims = Arc::new(Claims::new(answers.unwrap_or_default()));
        let node = Node::from_record(&record.chain, Arc::clone(&claims), global)?;
        let rules = node.rules();
        ensure!(
            rules.fork == record.fork
                && rules.chain_id == record.chain_id
                && rules.tx_gas_limit_cap == record.tx_gas_limit_cap
                && record.block.gas_limit <= rules.block.gas_limit,
            "record {}: its rules (fork {}, chain id {}, gas cap, block gas limit) are not those of its chain (fork {}, chain id {}); one of them was changed",
            self.record.display(),
            fork::name(record.fork),
            record.chain_id,
            fork::name(rules.fork),
            rules.chain_id
        );
        ensure!(
            global.chain.is_some() || node.chain()? == record.chain,
            "record {}: its chain configuration is incomplete; a record names every constant",
            self.record.display()
        );
        let transactions = record.transactions.len();
        match record.verify(node.precompiles()) {
            Ok(()) => {
                let value = json!({
                    "identical": true, "transactions": transactions, "state_digest": record.post_state_digest,
                });
                report.finish(&value, || {
                    format!("identical: {transactions} transactions, state {}\n", record.post_state_digest)
                })?;
                Ok(ExitCode::SUCCESS)
            }
            Err(VerifyError::Differs(difference)) => {
                let value = json!({ "identical": false, "difference": difference.to_string() });
                report.finish(&value, || format!("NOT identical: {difference}\n"))?;
                Ok(ExitCode::FAILURE)
            }
            Err(error) => match claims.forged() {
                Some(forged) => {
                    let difference = format!("a recorded answer is not the model's: {forged}");
                    let value = json!({ "identical": false, "difference": difference });
                    report.finish(&value, || format!("NOT identical: {difference}\n"))?;
                    Ok(ExitCode::FAILURE)
                }
                None => Err(error).with_context(place),
            },
        }
    }
}

//! `metisvm replay`: execute recorded mainnet blocks again.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use alloy_primitives::B256;
use anyhow::ensure;
use clap::Args;
use metis_conformance::blocks::{BlockReport, Recording, digest};
use metis_vm::{FusionCache, FusionConfig, Interpreter, fork};
use serde_json::{Value, json};

use crate::report::Report;

/// Executes recorded mainnet blocks again and compares each with its header; exit code 1 on any difference.
#[derive(Debug, Args)]
pub struct Replay {
    /// Folder with `blocks/N/{block,pre_state}.json`, `bytecodes.json` and `block_hashes.json`.
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// Which interpreter executes: fused, fused-always, plain or revm. Their digests must be equal.
    #[arg(long, value_name = "NAME", default_value_t = Interpreter::Fused)]
    interpreter: Interpreter,
    /// Only this block; may be given several times.
    #[arg(long, value_name = "NUMBER")]
    block: Vec<u64>,
}

impl Replay {
    /// Runs the command.
    pub fn run(self, report: Report) -> anyhow::Result<ExitCode> {
        let recording = Recording::open(&self.folder)?;
        let numbers = if self.block.is_empty() { recording.numbers()? } else { self.block };
        ensure!(!numbers.is_empty(), "{} has no blocks", self.folder.display());

        let config = FusionConfig { interpreter: self.interpreter, ..FusionConfig::default() };
        let cache = FusionCache::new(config);
        let mut replayed = Vec::with_capacity(numbers.len());
        let mut time = Duration::ZERO;
        for (index, number) in numbers.into_iter().enumerate() {
            let block = recording.block(number)?;
            if index == 0 {
                report.line(&format!(
                    "{:>9}  {:<16} {:>5} {:>11}  {:<18}  header",
                    "block", "fork", "txs", "gas", "digest"
                ))?;
            }
            let start = Instant::now();
            let done = block.replay(&cache)?;
            time += start.elapsed();
            report.line(&line(&done))?;
            replayed.push(done);
        }

        let matches = replayed.iter().all(BlockReport::matches);
        let digests: Vec<B256> = replayed.iter().map(|block| block.digest).collect();
        let digest = digest::sequence(&digests);
        let answer = json!({
            "interpreter": self.interpreter.name(), "matches": matches, "digest": digest,
            "milliseconds": u64::try_from(time.as_millis())?,
            "blocks": replayed.iter().map(value).collect::<Vec<_>>(),
        });
        report.finish(&answer, || total(&replayed, self.interpreter, digest, time, matches))?;
        Ok(if matches { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn value(block: &BlockReport) -> Value {
    json!({
        "number": block.number, "fork": fork::name(block.fork), "transactions": block.transactions.len(),
        "gasUsed": block.gas_used, "digest": block.digest,
        "matches": {
            "gasUsed": block.gas_matches(), "logsBloom": block.logs_bloom_matches,
            // null before Byzantium: not computable.
            "receiptsRoot": block.receipts_match(),
        },
    })
}

fn line(block: &BlockReport) -> String {
    let mut differs = Vec::new();
    if !block.gas_matches() {
        differs.push(format!("gas used (header: {})", block.header_gas_used));
    }
    if !block.logs_bloom_matches {
        differs.push("logs bloom".to_owned());
    }
    if block.receipts_match() == Some(false) {
        differs.push(format!("receipts root (header: {})", block.header_receipts_root));
    }
    let header = match (differs.is_empty(), block.receipts_match()) {
        (false, _) => format!("DIFFERS: {}", differs.join(", ")),
        (true, Some(_)) => "same gas, logs bloom, receipts root".to_owned(),
        (true, None) => "same gas, logs bloom; receipts hold state roots, not computable".to_owned(),
    };
    let digest = block.digest.to_string();
    format!(
        "{:>9}  {:<16} {:>5} {:>11}  {:<18}  {header}",
        block.number,
        fork::name(block.fork),
        block.transactions.len(),
        block.gas_used,
        // Enough to see a difference; --json has it whole.
        digest.get(..18).unwrap_or(&digest),
    )
}

fn total(blocks: &[BlockReport], by: Interpreter, digest: B256, time: Duration, matches: bool) -> String {
    let gas: u64 = blocks.iter().fold(0, |sum, block| sum.saturating_add(block.gas_used));
    let transactions: usize = blocks.iter().map(|block| block.transactions.len()).sum();
    let speed = gas as f64 / 1e6 / time.as_secs_f64().max(1e-9);
    let mut text = String::new();
    let _ = writeln!(
        text,
        "\n{} blocks, {transactions} transactions, {gas} gas in {:.2} s by {by} ({speed:.0} Mgas/s)",
        blocks.len(),
        time.as_secs_f64(),
    );
    let _ = writeln!(text, "digest {digest}");
    let _ = writeln!(text, "{}", if matches { "every block is what its header says" } else { "FAILED" });
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use metis_vm::SpecId;

    #[test]
    fn a_line_says_what_differs_and_what_cannot_be_compared() {
        let same = BlockReport {
            number: 46_147,
            fork: SpecId::FRONTIER,
            gas_used: 21_000,
            header_gas_used: 21_000,
            logs_bloom_matches: true,
            receipts_root: None,
            header_receipts_root: B256::ZERO,
            transactions: Vec::new(),
            digest: B256::ZERO,
        };
        assert!(line(&same).contains("same gas, logs bloom; receipts hold state roots, not computable"));
        assert_eq!(value(&same)["matches"]["receiptsRoot"], Value::Null);

        let other = BlockReport { header_gas_used: 1, receipts_root: Some(B256::repeat_byte(1)), ..same };
        assert!(line(&other).contains("DIFFERS: gas used (header: 1), receipts root (header: 0x0"));
        assert_eq!(value(&other)["matches"]["receiptsRoot"], json!(false));
        assert!(total(&[other], Interpreter::Plain, B256::ZERO, Duration::ZERO, false).contains("FAILED"));
    }
}

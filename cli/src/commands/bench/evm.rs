//! `metisvm bench evm`.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use metis_conformance::bench::{self, Case, Options, Row, Summary};

use crate::report::Report;

/// Times each contract on three engines in this process: fused programs, MetisVM's interpreter without fusion, and
/// unmodified revm. Exit code 1 where gas or output differ.
#[derive(Debug, Args)]
pub struct Evm {
    /// JSON array of {name, group, code_hex, calldata_hex, storage, expected_status, expected_return_hex, gas_used, spec}.
    #[arg(value_name = "CONTRACTS")]
    contracts: PathBuf,
    /// Rounds; each takes one sample of every engine.
    #[arg(long, default_value_t = Options::default().rounds, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Measure only contracts with this in their name or group.
    #[arg(long, value_name = "SUBSTRING")]
    filter: Option<String>,
}

impl Evm {
    pub(super) fn run(self, report: Report) -> anyhow::Result<ExitCode> {
        let cases = self.cases()?;
        let options = Options { rounds: self.rounds, ..Options::default() };
        let progress = report.progress("contracts");
        progress.set_length(cases.len() as u64);
        let mut rows = Vec::new();
        for case in &cases {
            rows.push(bench::measure(case, &options).with_context(|| format!("contract `{}`", case.name))?);
            progress.inc(1);
        }
        progress.finish_and_clear();

        let summary = Summary::new(rows);
        report.finish(&summary, || table(&summary))?;
        Ok(if summary.is_correct() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn cases(&self) -> anyhow::Result<Vec<Case>> {
        let path = self.contracts.display();
        let text = fs::read_to_string(&self.contracts).with_context(|| path.to_string())?;
        let mut cases = bench::parse(&text).with_context(|| path.to_string())?;
        if cases.is_empty() {
            bail!("{path}: no contracts");
        }
        if let Some(filter) = &self.filter {
            cases.retain(|case| case.name.contains(filter) || case.group.contains(filter));
            if cases.is_empty() {
                bail!("{path}: no contract has `{filter}` in its name or group");
            }
        }
        Ok(cases)
    }
}

fn table(summary: &Summary) -> String {
    let width = |cell: fn(&Row) -> &str| summary.rows.iter().map(|row| cell(row).len()).max().unwrap_or(0);
    let (name, group) = (width(|row| &row.name).max(8), width(|row| &row.group).max(5));
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{:name$}  {:group$}  {:>7}  {:>7}  {:>7}  {:>7}  {:>10}  {:>11}  {:>11}  same",
        "contract", "group", "fused", "(min)", "plain", "cold", "dispatches", "revm us", "analysis us",
    );
    for row in &summary.rows {
        let _ = writeln!(
            text,
            "{:name$}  {:group$}  {:>7.3}  {:>7.3}  {:>7.3}  {:>7.3}  {:>10.3}  {:>11.1}  {:>11.1}  {}",
            row.name,
            row.group,
            row.fused_vs_revm,
            row.min_fused_vs_revm,
            row.plain_vs_revm,
            row.cold_vs_revm,
            row.dispatch_fraction,
            row.revm_us,
            row.analysis_us,
            if row.is_correct() { "yes" } else { "NO" },
        );
    }
    let mean = |mean: Option<f64>| mean.map_or_else(|| "-".to_owned(), |mean| format!("{mean:.3}"));
    let _ = writeln!(
        text,
        "\ngeometric means without micro-benchmarks: fused {}, plain {}; fused over all contracts: {}",
        mean(summary.geomean_fused_vs_revm),
        mean(summary.geomean_plain_vs_revm),
        mean(summary.geomean_all_fused_vs_revm),
    );
    text.push_str(
        "fused, plain and cold are times over revm's: below 1 is faster. Microseconds are of this machine as it was; \
         where other work runs beside, only ratios say something.\n",
    );
    for row in summary.rows.iter().filter(|row| !row.is_correct()) {
        for difference in &row.differences {
            let _ = writeln!(text, "{}: {difference}", row.name);
        }
    }
    text
}

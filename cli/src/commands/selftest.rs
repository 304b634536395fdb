//! `metisvm selftest`: every backend against the golden vectors.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use metis_kernels::CpuKind;
use metis_kernels::golden::{SelfTestReport, check_functions};
use metis_models::engine::{BackendChoice, Processor};
use serde::Serialize;

use crate::cli::Global;
use crate::report::Report;

/// Compares each backend with the golden vectors; exit code 1 on any difference.
#[derive(Debug, Args)]
pub struct Selftest {}

#[derive(Serialize)]
struct Answer {
    passed: bool,
    functions: Option<String>,
    backends: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cases: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unavailable: Option<String>,
}

impl Selftest {
    /// Runs the command.
    pub fn run(self, global: &Global, report: Report) -> anyhow::Result<ExitCode> {
        let functions = check_functions().err().map(|e| e.to_string());
        let mut thread_counts = vec![1, usize::from(global.threads).max(2)];
        thread_counts.dedup();
        let mut backends = Vec::new();
        let choices = CpuKind::ALL.into_iter().map(BackendChoice::Kind);
        for choice in std::iter::once(BackendChoice::Scalar).chain(choices) {
            for &threads in &thread_counts {
                let name = format!("{choice}, {threads} thread{}", if threads == 1 { "" } else { "s" });
                let line = Line { name, digest: None, cases: None, error: None, unavailable: None };
                backends.push(match Processor::new(choice, threads).map(|processor| processor.selftest()) {
                    Ok(Ok(SelfTestReport { cases, digest })) => {
                        Line { digest: Some(digest.to_string()), cases: Some(cases), ..line }
                    }
                    Ok(Err(error)) => Line { error: Some(error.to_string()), ..line },
                    Err(error) => Line { unavailable: Some(error.to_string()), ..line },
                });
            }
        }
        let unavailable = Some("this build has no CUDA backend".to_owned());
        backends.push(Line { name: "cuda".into(), digest: None, cases: None, error: None, unavailable });

        let passed = functions.is_none() && backends.iter().all(|line| line.error.is_none());
        let answer = Answer { passed, functions, backends };
        report.finish(&answer, || text(&answer))?;
        Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn text(answer: &Answer) -> String {
    let mut text = String::new();
    let functions = answer.functions.as_deref().unwrap_or("equal to the golden vectors");
    let _ = writeln!(text, "{:<20} {functions}", "functions");
    for line in &answer.backends {
        let state = match line {
            Line { error: Some(error), .. } => format!("FAILED: {error}"),
            Line { unavailable: Some(why), .. } => format!("not available: {why}"),
            Line { digest, cases, .. } => {
                format!("{} ({} cases)", digest.as_deref().unwrap_or_default(), cases.unwrap_or_default())
            }
        };
        let _ = writeln!(text, "{:<20} {state}", line.name);
    }
    let verdict = if answer.passed { "passed" } else { "FAILED: do not use this machine for consensus" };
    let _ = writeln!(text, "{verdict}");
    text
}

//! `metisvm statetest`: Ethereum's state tests.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

use clap::Args;
use metis_conformance::statetest::{Failure, Options, Skip, Summary, files, run};
use metis_vm::{FusionCache, FusionConfig, Interpreter};
use serde::Serialize;

use crate::report::Report;

/// Executes Ethereum's state tests and compares state roots, logs and rejections; exit code 1 on any difference, on a
/// test or file that cannot be read, or when nothing was executed or no program was made (fused-always, plain).
///
/// What is not executed is listed with its reason: files of another kind, and forks that revm does not have.
#[derive(Debug, Args)]
pub struct StateTest {
    /// Files, or folders to search for .json files.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Interpreter that executes: fused, fused-always, plain or revm.
    #[arg(long, default_value_t)]
    interpreter: Interpreter,
    /// Tests to execute at the same time; without it, as many as there are processors.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Execute only tests with this in their file's path or in their name.
    #[arg(long, value_name = "SUBSTRING")]
    filter: Option<String>,
}

#[derive(Serialize)]
struct Answer {
    interpreter: &'static str,
    /// Why the run tells nothing, even if nothing failed.
    problem: Option<&'static str>,
    #[serde(flatten)]
    summary: Summary,
}

impl StateTest {
    /// Runs the command.
    pub fn run(self, report: Report) -> anyhow::Result<ExitCode> {
        let found = files::find(&self.paths);
        let progress = report.progress("files");
        progress.set_length(found.files.len() as u64);
        let config = FusionConfig { interpreter: self.interpreter, ..FusionConfig::default() };
        let options = Options { cache: FusionCache::new(config), jobs: self.jobs(), filter: self.filter };
        let summary = run(found, &options, &|| progress.inc(1));
        progress.finish_and_clear();

        let problem = summary.problem(self.interpreter);
        let answer = Answer { interpreter: self.interpreter.name(), problem, summary };
        report.finish(&answer, || text(&answer))?;
        Ok(if answer.summary.is_success(self.interpreter) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn jobs(&self) -> NonZero<usize> {
        let asked = self.jobs.and_then(|jobs| NonZero::new(usize::from(jobs)));
        asked.or_else(|| thread::available_parallelism().ok()).unwrap_or(NonZero::<usize>::MIN)
    }
}

fn text(answer: &Answer) -> String {
    let summary = &answer.summary;
    let mut text = String::new();
    let mut by_reason: BTreeMap<&str, Vec<&Skip>> = BTreeMap::new();
    for skip in &summary.skips {
        by_reason.entry(&skip.reason).or_default().push(skip);
    }
    for (reason, skips) in by_reason {
        let tests: u64 = skips.iter().map(|skip| skip.tests).sum();
        let _ = writeln!(text, "skipped {tests}: {reason}");
        for skip in skips {
            let _ = writeln!(text, "    {} ({})", skip.file.display(), skip.tests);
        }
    }
    for Failure { file, test, fork, index, reason } in &summary.failures {
        let _ = writeln!(text, "FAILED {}", file.display());
        if let Some(test) = test {
            let _ = writeln!(text, "    test {test}");
        }
        match (fork, index) {
            (Some(fork), Some(index)) => {
                let _ = writeln!(text, "    fork {fork}, subtest {index}");
            }
            (Some(fork), None) => {
                let _ = writeln!(text, "    fork {fork}");
            }
            _ => {}
        }
        let _ = writeln!(text, "    {reason}");
    }
    let _ = writeln!(
        text,
        "{} passed, {} failed, {} skipped (interpreter {})",
        summary.passed, summary.failed, summary.skipped, answer.interpreter
    );
    let _ = writeln!(text, "{} programs made", summary.programs_made);
    if let Some(problem) = answer.problem {
        let _ = writeln!(text, "FAILED: {problem}");
    }
    text
}

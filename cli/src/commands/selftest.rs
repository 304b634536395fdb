//! `metisvm selftest`: every backend against the golden vectors.

use std::fmt::{Display, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use metis_gpu::Cuda;
use metis_kernels::CpuKind;
use metis_kernels::TokenId;
use metis_kernels::golden::{SelfTestReport, check_functions};
use metis_models::Bundle;
use metis_models::engine::{BackendChoice, LocateError, Located, Processor};
use serde::Serialize;

use crate::cli::Global;
use crate::machine;
use crate::report::Report;

/// Compares each backend with the golden vectors; exit code 1 on any difference.
#[derive(Debug, Args)]
pub struct Selftest {
    /// Also run the embedded model on each backend and on the scalar reference in step, and name the first layer and kernel that differ.
    #[arg(long)]
    locate: bool,
}

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
    /// With `--locate`: where the backend differs from the reference first, or that it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    located: Option<String>,
}

impl Line {
    fn new(name: String) -> Self {
        Self { name, digest: None, cases: None, error: None, unavailable: None, located: None }
    }

    /// What the self-test found.
    fn checked<E: Display>(self, report: Result<SelfTestReport, E>) -> Self {
        match report {
            Ok(SelfTestReport { cases, digest }) => {
                Self { digest: Some(digest.to_string()), cases: Some(cases), ..self }
            }
            Err(error) => Self { error: Some(format!("{error:#}")), ..self },
        }
    }

    /// What running a model in step found.
    fn with_located(self, located: Option<Result<Located, LocateError>>) -> Self {
        match located {
            None => self,
            Some(Ok(Located { calls, difference: None })) => {
                Self { located: Some(format!("the same in all of {calls} kernels")), ..self }
            }
            Some(Ok(Located { difference: Some(difference), .. })) => {
                let located = Some(difference.to_string());
                let error = self.error.or_else(|| Some("a model's kernels differ".into()));
                Self { located, error, ..self }
            }
            Some(Err(error)) => {
                let (located, error) = (Some(error.to_string()), Some(error.to_string()));
                Self { located, error: self.error.or(error), ..self }
            }
        }
    }
}

/// The model and the prompt that `--locate` runs.
struct Tried {
    bundle: Bundle,
    prompt: Vec<TokenId>,
}

impl Selftest {
    /// Runs the command.
    pub fn run(self, global: &Global, report: Report) -> anyhow::Result<ExitCode> {
        let functions = check_functions().err().map(|e| e.to_string());
        let mut thread_counts = vec![1, usize::from(global.threads).max(2)];
        thread_counts.dedup();
        let tried = self.locate.then(tried).transpose()?;
        let mut backends = Vec::new();
        let choices = CpuKind::ALL.into_iter().map(BackendChoice::Kind);
        for choice in std::iter::once(BackendChoice::Scalar).chain(choices) {
            for &threads in &thread_counts {
                let plural = if threads == 1 { "" } else { "s" };
                let line = Line::new(format!("{choice}, {threads} thread{plural}"));
                backends.push(match Processor::new(choice, threads) {
                    Ok(processor) => {
                        let located =
                            tried.as_ref().map(|tried| processor.locate(&tried.bundle, tried.prompt.clone()));
                        line.checked(processor.selftest()).with_located(located)
                    }
                    Err(error) => Line { unavailable: Some(error.to_string()), ..line },
                });
            }
        }
        backends.extend(devices(global, tried.as_ref()));

        let passed = functions.is_none() && backends.iter().all(|line| line.error.is_none());
        let answer = Answer { passed, functions, backends };
        report.finish(&answer, || text(&answer))?;
        Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn tried() -> anyhow::Result<Tried> {
    let bundle = metis_default_model::bundle().context("the embedded model")?;
    let prompt = bundle.tokenizer()?.encode_prompt(b"Please send 3 ETH to bob")?;
    Ok(Tried { bundle, prompt })
}

/// Every CUDA device; one line that says why there is none.
fn devices(global: &Global, tried: Option<&Tried>) -> Vec<Line> {
    let count = match Cuda::count() {
        Ok(count) => count,
        Err(error) => {
            return vec![Line { unavailable: Some(error.to_string()), ..Line::new("cuda".into()) }];
        }
    };
    let check = |ordinal| match machine::gpu(ordinal, global.device_memory()) {
        Err(error) => {
            Line { unavailable: Some(format!("{error:#}")), ..Line::new(format!("cuda:{ordinal}")) }
        }
        Ok(gpu) => {
            let located = tried.map(|tried| gpu.locate(&tried.bundle, tried.prompt.clone()));
            Line::new(gpu.name()).checked(gpu.check()).with_located(located)
        }
    };
    (0..count).map(check).collect()
}

fn text(answer: &Answer) -> String {
    let mut text = String::new();
    let functions = answer.functions.as_deref().unwrap_or("equal to the golden vectors");
    let _ = writeln!(text, "{:<20} {functions}", "functions");
    for line in &answer.backends {
        if let Some(why) = &line.unavailable {
            let _ = writeln!(text, "{}: {why}", line.name);
            continue;
        }
        let state = match line {
            Line { error: Some(error), .. } => format!("FAILED: {error}"),
            Line { digest, cases, .. } => {
                format!("{} ({} cases)", digest.as_deref().unwrap_or_default(), cases.unwrap_or_default())
            }
        };
        let _ = writeln!(text, "{:<20} {state}", line.name);
        if let Some(located) = &line.located {
            let _ = writeln!(text, "{:<20} {located}", "");
        }
    }
    let verdict = if answer.passed { "passed" } else { "FAILED: do not use this machine for consensus" };
    let _ = writeln!(text, "{verdict}");
    text
}

//! `metisvm model`: make, check, try and pass on bundles.

mod calibrate;
mod eval;
mod fetch;
mod generate;
mod import;
mod inspect;
mod publish;
mod verify;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Subcommand;
use metis_models::Bundle;
use metis_models::engine::InferenceModel;

use crate::cli::Global;
use crate::report::Report;

/// Make, check, try and pass on model bundles.
#[derive(Debug, Subcommand)]
pub enum Model {
    /// Quantise a checkpoint (llama2.c file or Hugging Face folder) into a bundle.
    Import(import::Import),
    /// Show what a bundle says about itself.
    Inspect(inspect::Inspect),
    /// Hash every byte of a bundle again and name what is damaged.
    Verify(verify::Verify),
    /// Continue a prompt.
    Generate(generate::Generate),
    /// Compare a bundle with the float checkpoint that it was made from.
    Eval(eval::Eval),
    /// Put a bundle into a store, from which others fetch it.
    Publish(publish::Publish),
    /// Fetch a bundle by its id from stores that need no trust.
    Fetch(fetch::Fetch),
}

impl Model {
    /// Runs the command.
    pub fn run(self, global: &Global, report: Report) -> anyhow::Result<ExitCode> {
        match self {
            Self::Import(command) => command.run(global, report),
            Self::Inspect(command) => command.run(report),
            Self::Verify(command) => command.run(report),
            Self::Generate(command) => command.run(global, report),
            Self::Eval(command) => command.run(global, report),
            Self::Publish(command) => command.run(report),
            Self::Fetch(command) => command.run(report),
        }
    }
}

/// The bundle at a path; `default` is the embedded model.
pub(crate) fn open(path: &Path) -> anyhow::Result<Bundle> {
    if path.as_os_str() == "default" && !path.exists() {
        return metis_default_model::bundle().context("the embedded model");
    }
    Bundle::open(path).with_context(|| format!("bundle {}", path.display()))
}

fn load(path: &Path, global: &Global) -> anyhow::Result<Arc<dyn InferenceModel>> {
    let bundle = open(path)?;
    global
        .machine()?
        .load(bundle, global.engine_options())
        .with_context(|| format!("bundle {}", path.display()))
}

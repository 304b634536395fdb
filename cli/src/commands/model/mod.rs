//! `metisvm model`: make, check, try and pass on bundles; register them and earn from them.

mod activate;
mod ask;
mod calibrate;
mod deprecate;
mod earnings;
mod eval;
mod fetch;
mod generate;
mod import;
mod inspect;
mod price;
mod publish;
mod register;
mod status;
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
    /// Register a bundle on a chain.
    Register(register::Register),
    /// Show what a chain knows of a model.
    Status(status::Status),
    /// Pay a model's rent, so that it can be called.
    Activate(activate::Activate),
    /// Ask a model on a chain, and pay for it.
    Ask(ask::Ask),
    /// Set what calls of a model cost.
    Price(price::Price),
    /// Show what a model has earned.
    Earnings(earnings::Earnings),
    /// Pay out what a model has earned.
    Claim(earnings::Claim),
    /// Give a model up.
    Deprecate(deprecate::Deprecate),
    /// Take the bond of a deprecated model back.
    Withdraw(deprecate::Withdraw),
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
            Self::Register(command) => command.run(report),
            Self::Status(command) => command.run(report),
            Self::Activate(command) => command.run(report),
            Self::Ask(command) => command.run(report),
            Self::Price(command) => command.run(report),
            Self::Earnings(command) => command.run(report),
            Self::Claim(command) => command.run(report),
            Self::Deprecate(command) => command.run(report),
            Self::Withdraw(command) => command.run(report),
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

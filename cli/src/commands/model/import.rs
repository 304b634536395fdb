//! `metisvm model import`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use metis_models::import::{ChatTemplate, Imported, Options, Source, import};
use serde_json::{Value, json};

use super::calibrate;
use crate::cli::Global;
use crate::report::Report;

/// Quantises a checkpoint into a bundle. The same checkpoint gives the same bytes and id on every machine.
#[derive(Debug, Args)]
pub struct Import {
    /// A GGUF file, a llama2.c `.bin` file or a Hugging Face folder.
    checkpoint: PathBuf,
    /// The llama2.c tokenizer; by default `tokenizer.bin` beside the checkpoint.
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// The directory to write; it must not exist.
    #[arg(short, long, alias = "out", value_name = "BUNDLE")]
    output: PathBuf,
    /// The model's name; by default that of the file or folder.
    #[arg(long)]
    name: Option<String>,
    /// A shorter context than the checkpoint's.
    #[arg(long, value_name = "TOKENS")]
    context: Option<usize>,
    /// Give each group of 32 weights of a row a scale of its own, for checkpoints of which a few weights are large: closer to the
    /// checkpoint, 3 % larger, and up to 1.5 times the gas.
    #[arg(long)]
    group_scales: bool,
    /// A text such as the model will read: channels are scaled by powers of two so that rounding weights costs less on it, and the
    /// report compares with a plain import. The same checkpoint and text give the same bytes (docs/bundle.md, section 11).
    #[arg(long, value_name = "TEXT", conflicts_with = "group_scales")]
    calibrate: Option<PathBuf>,
}

impl Import {
    pub(super) fn run(self, global: &Global, report: Report) -> anyhow::Result<ExitCode> {
        let source = Source::detect(&self.checkpoint, self.tokenizer.as_deref())?;
        let options = Options { name: self.name, context: self.context, group_scales: self.group_scales };
        if let Some(text) = &self.calibrate {
            return calibrate::run(&source, &self.output, &options, text, global, report);
        }
        let progress = report.progress("weights");
        let imported = import(&source, &self.output, &options, &progress)?;
        progress.finish_and_clear();
        report.finish(&summary(&imported), || text_of(&imported))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// An import for programs.
pub(super) fn summary(imported: &Imported) -> Value {
    let Imported { id, manifest, directory, chat_template } = imported;
    json!({
        "id": id, "directory": directory, "manifest": manifest, "chat_template_left_out": left_out(chat_template),
    })
}

/// An import for people.
pub(super) fn text_of(imported: &Imported) -> String {
    let Imported { id, manifest, directory, chat_template } = imported;
    let warning = left_out(chat_template)
        .map(|reason| format!("warning: its chat template is left out: {reason}\n"))
        .unwrap_or_default();
    format!("{} written to {}\nid {id}\n{warning}", manifest.name, directory.display())
}

/// Why the chat template is left out, if it is.
fn left_out(chat_template: &ChatTemplate) -> Option<&str> {
    match chat_template {
        ChatTemplate::Missing | ChatTemplate::Kept(_) => None,
        ChatTemplate::LeftOut(reason) => Some(reason),
    }
}

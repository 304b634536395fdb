//! `metisvm model import`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use metis_models::import::{ChatTemplate, Imported, Options, Source, import};
use serde_json::json;

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
}

impl Import {
    pub(super) fn run(self, report: Report) -> anyhow::Result<ExitCode> {
        let source = Source::detect(&self.checkpoint, self.tokenizer.as_deref())?;
        let options = Options { name: self.name, context: self.context, group_scales: self.group_scales };
        let progress = report.progress("weights");
        let imported = import(&source, &self.output, &options, &progress)?;
        progress.finish_and_clear();
        let Imported { id, manifest, directory, chat_template } = imported;
        let left_out = match chat_template {
            ChatTemplate::Missing | ChatTemplate::Kept(_) => None,
            ChatTemplate::LeftOut(reason) => Some(reason),
        };
        let value = json!({
            "id": id, "directory": directory, "manifest": manifest, "chat_template_left_out": left_out,
        });
        report.finish(&value, || {
            let warning =
                left_out.iter().map(|reason| format!("warning: its chat template is left out: {reason}\n"));
            format!(
                "{} written to {}\nid {id}\n{}",
                manifest.name,
                directory.display(),
                warning.collect::<String>()
            )
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

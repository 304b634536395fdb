//! `metisvm model inspect`.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use metis_models::{Bundle, Manifest};
use serde_json::{Value, json};

use crate::report::Report;

/// Shows what a bundle says about itself.
#[derive(Debug, Args)]
pub struct Inspect {
    /// A bundle's directory, or `default` for the embedded model.
    bundle: PathBuf,
}

impl Inspect {
    pub(super) fn run(self, report: Report) -> anyhow::Result<ExitCode> {
        let bundle = super::open(&self.bundle)?;
        let value = json!({ "id": bundle.id(), "manifest": bundle.manifest() });
        report.finish(&value, || text(&bundle))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn text(bundle: &Bundle) -> String {
    let m: &Manifest = bundle.manifest();
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<16} {value}");
    };
    line("id", bundle.id().to_string());
    line("name", m.name.clone());
    line("architecture", m.architecture.name().to_owned());
    line("vocabulary", m.vocabulary.to_string());
    line("context", m.context.to_string());
    line("hidden", format!("{} ({} in the MLP)", m.hidden, m.intermediate));
    line("layers", m.layers.to_string());
    line("heads", format!("{} of {} channels, {} for keys and values", m.heads, m.head_dim, m.kv_heads));
    line("embeddings", if m.tied_embeddings { "tied" } else { "untied" }.into());
    // What a model has besides its shapes; the manifest leaves out what it does not have.
    if let Ok(Value::Object(fields)) = serde_json::to_value(&m.variant) {
        for (field, value) in fields {
            line("variant", format!("{field}: {value}"));
        }
    }
    line("weights", m.formats.weights.clone());
    line("activations", m.formats.activations.clone());
    line(
        "work per token",
        format!("{} multiply-accumulates in layers, {} in the head", m.work.linear_macs, m.work.head_macs),
    );
    line("work per pair", format!("{} multiply-accumulates in attention", m.work.attention_macs));
    for file in &m.files {
        line("file", format!("{} {} bytes, root {}", file.name, file.length, file.root));
    }
    text
}

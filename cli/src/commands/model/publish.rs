//! `metisvm model publish`.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use metis_models::store::{Published, publish};
use serde_json::json;

use crate::report::Report;

/// Puts a bundle into a store: a folder of files that are named by the hashes of their contents, for any web server, disk or stick. Several
/// models can share it.
#[derive(Debug, Args)]
pub struct Publish {
    /// A bundle's directory, or `default` for the embedded model.
    bundle: PathBuf,
    /// The store's folder; it is made if it is not there.
    #[arg(short, long, alias = "out", value_name = "STORE")]
    output: PathBuf,
}

impl Publish {
    pub(super) fn run(self, report: Report) -> anyhow::Result<ExitCode> {
        // Opening a bundle is verifying it. One whose tokenizer is refused would be of no use to anybody.
        let bundle = super::open(&self.bundle)?;
        bundle.tokenizer().with_context(|| format!("bundle {}", self.bundle.display()))?;
        let progress = report.progress("bytes");
        let published = publish(&bundle, &self.output, &progress)
            .with_context(|| format!("publishing to {}", self.output.display()))?;
        progress.finish_and_clear();
        let files: Vec<_> = published
            .files
            .iter()
            .map(|file| {
                json!({ "name": file.name, "stored": file.stored, "length": file.length, "written": file.written })
            })
            .collect();
        let value = json!({
            "id": published.id, "store": self.output, "manifest": published.manifest,
            "written": published.written, "files": files,
        });
        let name = &bundle.manifest().name;
        report.finish(&value, || text(&published, name, &self.output.display().to_string()))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn text(published: &Published, name: &str, store: &str) -> String {
    let mut text = format!("{name} published to {store}\nid {}\n", published.id);
    for file in &published.files {
        let state = if file.written { "written" } else { "was there" };
        let _ = writeln!(text, "  {:<20} {} bytes, {state}", file.name, file.length);
    }
    text
}

//! `metisvm model verify`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::report::Report;

/// Hashes every byte of a bundle again and names what is damaged.
#[derive(Debug, Args)]
pub struct Verify {
    /// A bundle's directory, or `default` for the embedded model.
    bundle: PathBuf,
    /// The id that it must have.
    #[arg(long, value_name = "ID")]
    id: Option<alloy_primitives::B256>,
}

impl Verify {
    pub(super) fn run(self, report: Report) -> anyhow::Result<ExitCode> {
        // Opening a bundle is verifying it: files, shapes, weights' range; the tokenizer is read as well.
        let bundle = super::open(&self.bundle)?;
        bundle.tokenizer()?;
        if let Some(expected) = self.id.filter(|&id| id != bundle.id()) {
            anyhow::bail!(
                "bundle {} is intact but is model {}, not {expected}",
                self.bundle.display(),
                bundle.id()
            );
        }
        let files: Vec<_> = bundle.manifest().files.iter().map(|f| &f.name).collect();
        let value = json!({ "id": bundle.id(), "verified": true, "files": files });
        report.finish(&value, || format!("intact: {}\nid {}\n", self.bundle.display(), bundle.id()))?;
        Ok(ExitCode::SUCCESS)
    }
}

//! `metisvm model fetch`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use alloy_primitives::B256;
use anyhow::{Context, bail};
use clap::Args;
use metis_models::store::{Fetched, Folder, Origin, fetch};
use serde_json::json;

use crate::http::{Http, shown_text};
use crate::report::Report;

/// Fetches a model by its id from stores, none of which has to be trusted: every kilobyte is checked as it arrives, and a fetch that was interrupted
/// goes on where it stopped.
#[derive(Debug, Args)]
pub struct Fetch {
    /// The model's id.
    id: B256,
    /// A store: an http or https address, or a folder. Given several times, the next one is asked for what the one before does not give.
    #[arg(long, value_name = "URL|FOLDER", required = true)]
    from: Vec<String>,
    /// The folder in which the bundle appears, by the name of its id.
    #[arg(long, value_name = "FOLDER")]
    into: PathBuf,
    /// How long to wait for a connection or for bytes.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=3_600))]
    timeout: u16,
}

impl Fetch {
    pub(super) fn run(self, report: Report) -> anyhow::Result<ExitCode> {
        let timeout = Duration::from_secs(self.timeout.into());
        let origins: Vec<Box<dyn Origin>> = self
            .from
            .iter()
            .map(|from| origin(from, timeout).with_context(|| format!("--from {}", shown_text(from))))
            .collect::<anyhow::Result<_>>()?;
        let progress = report.progress("bytes");
        let fetched = fetch(self.id, &origins, &self.into, &progress);
        progress.finish_and_clear();
        let fetched = fetched?;
        let Fetched { id, directory, was_there, kept, received, failures } = &fetched;
        let failures: Vec<_> = failures.iter().map(ToString::to_string).collect();
        let value = json!({
            "id": id, "directory": directory, "was_there": was_there, "kept": kept, "received": received,
            "failures": failures,
        });
        report.finish(&value, || text(&fetched))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The store that `--from` names.
fn origin(from: &str, timeout: Duration) -> anyhow::Result<Box<dyn Origin>> {
    match from.split_once("://") {
        None => Ok(Box::new(Folder::new(from))),
        Some(("http" | "https", _)) => Ok(Box::new(Http::new(from, timeout)?)),
        Some((scheme, _)) => {
            bail!("{scheme}:// is not supported; a store is an http:// or https:// address, or a folder")
        }
    }
}

fn text(fetched: &Fetched) -> String {
    let Fetched { id, directory, was_there, kept, received, .. } = fetched;
    let how = match (was_there, kept) {
        (true, _) => "is there and intact".into(),
        (false, 0) => format!("fetched, {received} bytes"),
        (false, kept) => format!("fetched, {received} bytes; {kept} were there"),
    };
    format!("{how}: {}\nid {id}\n", directory.display())
}

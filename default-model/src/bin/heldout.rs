//! Writes the held-out set, or checks that the file is what the generator makes.

use anyhow::{Context, Result, ensure};
use clap::Parser;
use metis_default_model::heldout;
use std::path::PathBuf;

/// Writes or checks the held-out set of the default model.
#[derive(Debug, Parser)]
struct Arguments {
    /// The file.
    #[arg(long, default_value = "default-model/heldout.tsv")]
    file: PathBuf,
    /// Compare instead of writing.
    #[arg(long)]
    check: bool,
}

fn main() -> Result<()> {
    let Arguments { file, check } = Arguments::parse();
    let text = heldout::to_text(&heldout::generate());
    let shown = file.display();
    if check {
        let found = std::fs::read_to_string(&file).with_context(|| format!("reading {shown}"))?;
        ensure!(found == text, "{shown} is not what the generator makes");
        println!("{shown}: {} items, as generated", heldout::ITEMS);
    } else {
        std::fs::write(&file, text).with_context(|| format!("writing {shown}"))?;
        println!("{shown}: {} items", heldout::ITEMS);
    }
    Ok(())
}

//! Writes the embedded bundle from the committed checkpoint.

use anyhow::{Context, Result};
use clap::Parser;
use metis_default_model::import;
use std::path::PathBuf;

/// Writes the bundle that the binary embeds from a checkpoint of the default model.
#[derive(Debug, Parser)]
struct Arguments {
    /// The checkpoint's folder.
    #[arg(long, default_value = "default-model/checkpoint")]
    checkpoint: PathBuf,
    /// The bundle's folder; its files are replaced.
    #[arg(long, default_value = "default-model/bundle")]
    out: PathBuf,
}

fn main() -> Result<()> {
    let Arguments { checkpoint, out } = Arguments::parse();
    let parts = import(&checkpoint)?;
    std::fs::create_dir_all(&out).with_context(|| format!("creating {}", out.display()))?;
    for (name, bytes) in [
        ("manifest.json", &parts.manifest),
        ("weights.safetensors", &parts.weights),
        ("tokenizer.json", &parts.tokenizer),
    ] {
        let path = out.join(name);
        std::fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))?;
        println!("{} {} bytes", path.display(), bytes.len());
    }
    println!("id {}", parts.id());
    Ok(())
}

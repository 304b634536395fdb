//! Prints the exact match of a checkpoint on the held-out set, in floating point, and what it got wrong.

use anyhow::{Context, Result};
use clap::Parser;
use metis_default_model::evaluate::Checkpoint;
use metis_default_model::grammar::Command;
use metis_default_model::heldout;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Scores a checkpoint of the default model on the held-out set, in floating point.
#[derive(Debug, Parser)]
struct Arguments {
    /// The checkpoint's folder.
    #[arg(long, default_value = "default-model/checkpoint")]
    checkpoint: PathBuf,
    /// The held-out set.
    #[arg(long, default_value = "default-model/heldout.tsv")]
    file: PathBuf,
    /// Answer only these instructions.
    instructions: Vec<String>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let checkpoint = Checkpoint::load(&arguments.checkpoint)?;
    if !arguments.instructions.is_empty() {
        for instruction in &arguments.instructions {
            println!("{instruction}\n  {}", checkpoint.answer(instruction)?);
        }
        return Ok(());
    }
    let shown = arguments.file.display();
    let text = std::fs::read_to_string(&arguments.file).with_context(|| format!("reading {shown}"))?;
    let items = heldout::from_text(&text)?;
    // Per kind of command: how many were right, of how many.
    let mut scores: BTreeMap<&'static str, (usize, usize)> = BTreeMap::new();
    for item in &items {
        let expected = item.expected.to_string();
        let answer = checkpoint.answer(&item.instruction)?;
        let right = answer == expected;
        if !right {
            println!("{}\n  expected {expected}\n  answered {answer}", item.instruction);
        }
        for kind in [kind(&item.expected), "all"] {
            let score = scores.entry(kind).or_default();
            score.0 += usize::from(right);
            score.1 += 1;
        }
    }
    for (kind, (right, of)) in scores {
        println!("{kind:<10} {right:>4} of {of:>4}  {:.1} %", 100.0 * right as f64 / of as f64);
    }
    Ok(())
}

fn kind(command: &Command) -> &'static str {
    match command {
        Command::Transfer { .. } => "transfer",
        Command::Swap { .. } => "swap",
        Command::Stake { .. } => "stake",
        Command::Unstake { .. } => "unstake",
        Command::Vote { .. } => "vote",
        Command::Nothing => "none",
    }
}

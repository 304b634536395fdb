//! Prints the exact match of the embedded model on the held-out set, through the fixed-point engine.

use anyhow::{Context, Result};
use clap::Parser;
use indicatif::ProgressBar;
use metis_default_model::{bundle, heldout, score};
use std::path::PathBuf;

/// Scores the embedded model on the held-out set, through the fixed-point engine.
#[derive(Debug, Parser)]
struct Arguments {
    /// The held-out set.
    #[arg(long, default_value = "default-model/heldout.tsv")]
    file: PathBuf,
    /// Write the score to this file as JSON.
    #[arg(long)]
    write: Option<PathBuf>,
    /// Print the wrong answers.
    #[arg(long)]
    misses: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let shown = arguments.file.display();
    let text = std::fs::read_to_string(&arguments.file).with_context(|| format!("reading {shown}"))?;
    let items = heldout::from_text(&text)?;
    let bar = ProgressBar::new(items.len() as u64);
    let (score, misses) = score::score(&bundle()?, &items, |items| bar.inc(items as u64))?;
    bar.finish_and_clear();
    if arguments.misses {
        for miss in misses {
            println!("{}\n  expected {}\n  answered {}", miss.instruction, miss.expected, miss.answer);
        }
    }
    for (kind, [right, of]) in &score.kinds {
        println!("{kind:<10} {right:>4} of {of:>4}");
    }
    let percent = 100.0 * score.right as f64 / score.items as f64;
    println!(
        "{:<10} {:>4} of {:>4}  {percent:.1} % exact match\nmodel {}",
        "all", score.right, score.items, score.model
    );
    if let Some(path) = arguments.write {
        let json = serde_json::to_string_pretty(&score)? + "\n";
        std::fs::write(&path, json).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

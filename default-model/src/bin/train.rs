//! Trains the default model, from scratch or from a checkpoint. How the committed checkpoint was made is in
//! `docs/default-model.md`.

use anyhow::Result;
use clap::Parser;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use metis_default_model::training::{Options, Progress, model::Config, optimizer::Settings, train};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// Trains the default model of MetisVM, from scratch by default.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where tokenizer.json, config.json and model.safetensors go.
    #[arg(long, default_value = "default-model/checkpoint")]
    out: PathBuf,
    /// The seed of the data, the tokenizer and the weights.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Optimiser steps.
    #[arg(long, default_value_t = 9_000)]
    steps: usize,
    /// Examples per step.
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// The highest learning rate.
    #[arg(long, default_value_t = 2e-3)]
    rate: f32,
    /// Steps on plain sentences before the full ones.
    #[arg(long, default_value_t = 0)]
    plain_steps: usize,
    /// Steps of warm-up.
    #[arg(long, default_value_t = 400)]
    warmup: usize,
    /// Start from this checkpoint instead of from nothing.
    #[arg(long)]
    from: Option<PathBuf>,
    /// Stop after this many minutes with what there is. The result then depends on the machine's speed.
    #[arg(long)]
    minutes: Option<f64>,
    /// Steps between two validations.
    #[arg(long, default_value_t = 500)]
    validate_every: usize,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(code) = restarted_with_one_thread_per_worker()? {
        return Ok(code);
    }
    let options = Options {
        seed: arguments.seed,
        batch: arguments.batch,
        optimizer: Settings {
            rate: arguments.rate,
            warmup: arguments.warmup,
            steps: arguments.steps,
            weight_decay: 0.05,
            clip: 1.0,
        },
        config: Config::default(),
        plain_steps: arguments.plain_steps,
        validate_every: arguments.validate_every,
        validation: 400,
        from: arguments.from,
        time_limit: arguments.minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0)),
    };
    let mut log = Log::new(arguments.steps);
    train(&options, &arguments.out, |progress| log.step(progress))?;
    log.bar.finish();
    Ok(ExitCode::SUCCESS)
}

/// Candle reads its number of threads from the environment, once, and its pool spins while it waits: inside
/// the workers of the training loop that halves the speed. A process must not change its own environment
/// while it has threads, so this one starts itself again with the right one, and passes on how that ended.
fn restarted_with_one_thread_per_worker() -> Result<Option<ExitCode>> {
    const THREADS: &str = "RAYON_NUM_THREADS";
    if std::env::var_os(THREADS).is_some() {
        return Ok(None);
    }
    let program = std::env::current_exe()?;
    let status = Command::new(program).args(std::env::args_os().skip(1)).env(THREADS, "1").status()?;
    Ok(Some(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)))
}

/// A bar on a terminal, lines elsewhere.
struct Log {
    bar: ProgressBar,
    started: Instant,
    tokens: usize,
    loss: f32,
}

impl Log {
    fn new(steps: usize) -> Self {
        let bar = ProgressBar::with_draw_target(Some(steps as u64), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {elapsed}<{eta} {msg}") {
            bar.set_style(style);
        }
        Self { bar, started: Instant::now(), tokens: 0, loss: f32::NAN }
    }

    fn step(&mut self, progress: Progress) {
        self.tokens += progress.tokens;
        self.loss = if self.loss.is_nan() { progress.loss } else { 0.98 * self.loss + 0.02 * progress.loss };
        let seconds = self.started.elapsed().as_secs_f64();
        let score =
            progress.validation.map(|v| format!(" validation {:.1} %", v * 100.0)).unwrap_or_default();
        let line = format!(
            "step {} loss {:.4} norm {:.2} {:.0} tokens/s {:.2} steps/s {seconds:.0} s{score}",
            progress.step,
            self.loss,
            progress.norm,
            self.tokens as f64 / seconds,
            progress.step as f64 / seconds,
        );
        if self.bar.is_hidden() {
            if progress.step.is_multiple_of(50) || !score.is_empty() {
                eprintln!("{line}");
            }
        } else if score.is_empty() {
            self.bar.set_position(progress.step as u64);
            self.bar.set_message(format!("loss {:.4}", self.loss));
        } else {
            self.bar.println(line);
        }
    }
}

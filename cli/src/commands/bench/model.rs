//! `metisvm bench model`.

use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use metis_kernels::{Sampling, TokenId};
use metis_models::engine::Request;
use metis_models::synthetic::Shape;
use serde::Serialize;

use crate::cli::Global;
use crate::report::Report;

/// Times a model.
#[derive(Debug, Args)]
pub struct Model {
    #[arg(long, default_value = "smollm2-135m")]
    shape: String,
}

#[derive(Serialize)]
struct Answer {
    prefill: f64,
    decode: f64,
    batch8: f64,
}

impl Model {
    pub(super) fn run(self, global: &Global, report: Report) -> anyhow::Result<ExitCode> {
        let shape = Shape::ALL.into_iter().find(|s| s.name() == self.shape).unwrap();
        let start = Instant::now();
        let bundle = shape.bundle(1024)?.into_bundle()?;
        eprintln!("made in {:?}", start.elapsed());
        let start = Instant::now();
        let engine = global.processor()?.load(&bundle)?;
        eprintln!("loaded in {:?}", start.elapsed());
        drop(bundle);
        let tokens: Vec<TokenId> = (0..512).map(|i| TokenId(i * 17 % 40_000)).collect();
        for n in [128, 512] {
            for _ in 0..2 {
                let start = Instant::now();
                engine.last_logits(&tokens[..n])?;
                eprintln!("prefill {n}: {:.1} tok/s", n as f64 / start.elapsed().as_secs_f64());
            }
        }
        for batch in [1, 8] {
            let request = |i: usize, max_new| Request { prompt: tokens[i..i + 1].to_vec(), max_new, sampling: Sampling::GREEDY, stop: Vec::new() };
            for _ in 0..2 {
                let start = Instant::now();
                let requests: Vec<_> = (0..batch).map(|i| request(i, 64)).collect();
                let answers = engine.generate_batch(&requests)?;
                let n: usize = answers.iter().map(|a| a.sampled()).sum();
                eprintln!("decode, batch {batch}: {:.1} tok/s", n as f64 / start.elapsed().as_secs_f64());
            }
        }
        report.finish(&Answer { prefill: 0.0, decode: 0.0, batch8: 0.0 }, || String::new())?;
        Ok(ExitCode::SUCCESS)
    }
}

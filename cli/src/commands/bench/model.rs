//! `metisvm bench model`.

mod bandwidth;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use metis_conformance::bench::statistics::median;
use metis_kernels::{Sampling, TokenId};
use metis_models::Bundle;
use metis_models::engine::{EngineOptions, Generation, InferenceError, InferenceModel, Request, Verdict};
use metis_models::reference::QuantisedPeer;
use metis_models::synthetic::Shape;
use serde::Serialize;

use crate::cli::Global;
use crate::report::Report;

/// Tokens of the short and the long prompt.
const PREFILL: [usize; 2] = [128, 512];
/// Tokens of a generation.
const DECODE: usize = 64;
/// Sequences of a batch.
const BATCH: usize = 8;
/// Tokens of an answer that is verified.
const VERIFY: usize = 128;
/// Each figure of a round is the mean of runs that take at least so long together: short ones meet a processor that was just idle.
const LEAST_TIME: Duration = Duration::from_millis(800);

/// Times a model, next to candle's quantised model of the same shape and to the memory's bandwidth.
///
/// Without a bundle, a model of a well-known shape with random weights. The peer is what `cargo add candle-transformers` gives: Q8_0
/// weights, on as many threads. All are timed in turn, round by round; the figures are medians, the ratios medians of each round's.
#[derive(Debug, Args)]
pub struct Model {
    /// A bundle's directory, or `default` for the embedded model.
    #[arg(conflicts_with = "shape")]
    bundle: Option<PathBuf>,
    /// smollm2-135m, qwen2.5-0.5b or llama3.2-1b.
    #[arg(long, default_value = "smollm2-135m")]
    shape: Shape,
    /// Rounds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Leave candle's model out.
    #[arg(long)]
    no_peer: bool,
}

#[derive(Serialize)]
struct Answer {
    shape: String,
    /// Instructions, or the device.
    backend: String,
    threads: u16,
    /// Bytes of weights that a token reads.
    weight_bytes: u64,
    load_seconds: f64,
    prefill_tok_s: f64,
    prefill_long_tok_s: Option<f64>,
    decode_tok_s: f64,
    batch8_tok_s: f64,
    verify_speedup: f64,
    stream_gb_s: f64,
    decode_gb_s: f64,
    bandwidth_fraction: f64,
    prefill_vs_candle: Option<f64>,
    decode_vs_candle: Option<f64>,
    /// Of a device: products and sums of bytes of the long prefill in 10^12 a second, two byte products for each weight.
    #[serde(skip_serializing_if = "Option::is_none")]
    integer_top_s: Option<f64>,
    /// Of a device: over the CPU's backend with `--threads` threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    prefill_vs_cpu: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decode_vs_cpu: Option<f64>,
}

/// What one round measured, in tokens per second.
#[derive(Default)]
struct Round {
    stream: f64,
    prefill: f64,
    prefill_long: Option<f64>,
    decode: f64,
    batch: f64,
    verify: f64,
    peer_prefill: Option<f64>,
    peer_decode: Option<f64>,
    /// Prefill and decoding on the CPU, where the model runs on a device.
    cpu: Option<(f64, f64)>,
}

impl Model {
    pub(super) fn run(self, global: &Global, report: Report) -> anyhow::Result<ExitCode> {
        let machine = global.machine()?;
        let (bundle, shape) = self.bundle()?;
        let manifest = bundle.manifest().clone();
        let start = Instant::now();
        // Every round is to compute its prompts.
        let cpu =
            machine.gpu().map(|_| machine.processor().load(&bundle, EngineOptions::UNCACHED)).transpose()?;
        let start_of_load = start.elapsed();
        let model = machine.load_here(bundle, EngineOptions::UNCACHED)?;
        let load_seconds = (start.elapsed() - start_of_load).as_secs_f64();
        let needed = PREFILL[0].max(DECODE).max(VERIFY) + 1;
        if manifest.context < needed {
            bail!(
                "the model's context of {} tokens is too short to measure: {needed} are needed",
                manifest.context
            );
        }
        let peer = !self.no_peer && manifest.heads * manifest.head_dim == manifest.hidden;
        let mut peer = peer.then(|| QuantisedPeer::new(&manifest, global.threads.into())).transpose()?;

        let progress = report.progress("rounds");
        progress.set_length(self.rounds.into());
        let mut rounds = Vec::new();
        for _ in 0..self.rounds {
            let stream = match machine.gpu() {
                Some(gpu) => bandwidth::copy(gpu)?,
                None => bandwidth::stream(global.threads.into()),
            };
            let mut own = round(&*model, peer.as_mut(), stream)?;
            if let Some(cpu) = &cpu {
                let cpu = round(&**cpu, None, stream)?;
                own.cpu = Some((cpu.prefill, cpu.decode));
            }
            rounds.push(own);
            progress.inc(1);
        }
        progress.finish_and_clear();

        let of = |f: &dyn Fn(&Round) -> f64| median(rounds.iter().map(f)).unwrap_or(f64::NAN);
        let some = |f: &dyn Fn(&Round) -> Option<f64>| median(rounds.iter().filter_map(f));
        let work = manifest.work;
        let weight_bytes = work.linear_macs + work.head_macs;
        let bytes = weight_bytes as f64 / 1e9;
        let answer = Answer {
            shape,
            backend: machine.name(),
            threads: global.threads,
            weight_bytes,
            load_seconds,
            prefill_tok_s: of(&|r| r.prefill),
            prefill_long_tok_s: some(&|r| r.prefill_long),
            decode_tok_s: of(&|r| r.decode),
            batch8_tok_s: of(&|r| r.batch),
            verify_speedup: of(&|r| r.verify),
            stream_gb_s: of(&|r| r.stream),
            decode_gb_s: of(&|r| r.decode * bytes),
            bandwidth_fraction: of(&|r| r.decode * bytes / r.stream),
            prefill_vs_candle: some(&|r| r.peer_prefill.map(|peer| r.prefill / peer)),
            decode_vs_candle: some(&|r| r.peer_decode.map(|peer| r.decode / peer)),
            integer_top_s: some(&|r| {
                // The head is computed for the last row alone.
                let operations = 4.0 * work.linear_macs as f64 / 1e12;
                r.prefill_long.filter(|_| r.cpu.is_some()).map(|rate| rate * operations)
            }),
            prefill_vs_cpu: some(&|r| r.cpu.map(|cpu| r.prefill / cpu.0)),
            decode_vs_cpu: some(&|r| r.cpu.map(|cpu| r.decode / cpu.1)),
        };
        report.finish(&answer, || text(&answer))?;
        Ok(ExitCode::SUCCESS)
    }

    fn bundle(&self) -> anyhow::Result<(Bundle, String)> {
        match &self.bundle {
            Some(path) => {
                let bundle = crate::commands::model::open(path)?;
                let name = bundle.manifest().name.clone();
                Ok((bundle, name))
            }
            None => {
                let parts = self.shape.bundle(PREFILL[1] + 64).context("synthetic weights")?;
                Ok((parts.into_bundle()?, self.shape.name().to_owned()))
            }
        }
    }
}

fn round(
    model: &dyn InferenceModel,
    mut peer: Option<&mut QuantisedPeer>,
    stream: f64,
) -> anyhow::Result<Round> {
    let vocabulary = model.manifest().vocabulary;
    let tokens: Vec<TokenId> = (0..PREFILL[1]).map(|i| TokenId((i * 17 % vocabulary) as u32)).collect();
    let mut round = Round { stream, ..Round::default() };
    round.prefill = rate(PREFILL[0], || Ok(model.last_logits(&tokens[..PREFILL[0]])?))?.0;
    if let Some(peer) = peer.as_mut() {
        round.peer_prefill = Some(rate(PREFILL[0], || Ok(peer.feed(&tokens[..PREFILL[0]], 0)?))?.0);
    }
    if model.manifest().context >= PREFILL[1] {
        round.prefill_long = Some(rate(PREFILL[1], || Ok(model.last_logits(&tokens)?))?.0);
    }

    let request = |i: usize, max_new| Request {
        prompt: vec![tokens[i]],
        max_new,
        sampling: Sampling::GREEDY,
        stop: Vec::new(),
        constraint: None,
    };
    // An answer may end early; what counts is how many tokens were chosen.
    let sampled = |answers: &[Generation]| answers.iter().map(Generation::sampled).sum::<usize>() as f64;
    let generate = |requests: &[Request]| -> Result<Vec<Generation>, InferenceError> {
        model.generate_batch(requests).into_iter().collect()
    };
    let (_, seconds, answers) = rate(1, || Ok(generate(&[request(0, DECODE)])?))?;
    round.decode = sampled(&answers) / seconds;
    if let Some(peer) = peer.as_mut() {
        let decode = || {
            let mut next = peer.feed(&tokens[..1], 0)?;
            for position in 1..=DECODE {
                next = peer.feed(&[next], position)?;
            }
            Ok(())
        };
        round.peer_decode = Some(rate(DECODE + 1, decode)?.0);
    }
    let requests: Vec<Request> = (0..BATCH).map(|i| request(i, DECODE)).collect();
    let (_, seconds, answers) = rate(1, || Ok(generate(&requests)?))?;
    round.batch = sampled(&answers) / seconds;

    let request = request(0, VERIFY);
    let (_, generating, answer) = rate(1, || Ok(model.generate(&request)?))?;
    let (_, verifying, verdict) = rate(1, || Ok(model.verify(&request, &answer)?))?;
    if verdict != Verdict::Same {
        bail!("the model's own answer was not verified: {verdict:?}");
    }
    round.verify = generating / verifying;
    Ok(round)
}

/// Runs `f` again and again for [`LEAST_TIME`]: tokens per second, seconds of a run, and the result.
fn rate<R>(tokens: usize, mut f: impl FnMut() -> anyhow::Result<R>) -> anyhow::Result<(f64, f64, R)> {
    let start = Instant::now();
    for runs in 1u32.. {
        let result = f()?;
        let time = start.elapsed();
        if time >= LEAST_TIME {
            let seconds = time.as_secs_f64() / f64::from(runs);
            return Ok((tokens as f64 / seconds, seconds, result));
        }
    }
    bail!("a run takes no time");
}

fn text(answer: &Answer) -> String {
    let mut text = String::new();
    let ratio = |ratio: Option<f64>| ratio.map_or_else(String::new, |r| format!("  {r:.2} of candle's Q8_0"));
    let _ = writeln!(
        text,
        "{}, backend {}, {} thread{}, {:.0} MB of weights, loaded in {:.2} s",
        answer.shape,
        answer.backend,
        answer.threads,
        if answer.threads == 1 { "" } else { "s" },
        answer.weight_bytes as f64 / 1e6,
        answer.load_seconds
    );
    let prefill = ratio(answer.prefill_vs_candle);
    let _ = writeln!(text, "prefill {:>5}  {:>9.1} tokens/s{prefill}", PREFILL[0], answer.prefill_tok_s);
    if let Some(long) = answer.prefill_long_tok_s {
        let _ = writeln!(text, "prefill {:>5}  {long:>9.1} tokens/s", PREFILL[1]);
    }
    let decode = ratio(answer.decode_vs_candle);
    let _ = writeln!(text, "decode  {DECODE:>5}  {:>9.1} tokens/s{decode}", answer.decode_tok_s);
    let _ = writeln!(
        text,
        "               {:>9.1} GB/s, {:.0} % of the {:.1} GB/s that the memory gives",
        answer.decode_gb_s,
        100.0 * answer.bandwidth_fraction,
        answer.stream_gb_s
    );
    let _ = writeln!(text, "batch   {BATCH:>5}  {:>9.1} tokens/s", answer.batch8_tok_s);
    let _ = writeln!(text, "verify  {VERIFY:>5}  {:>9.2} times as fast as generating", answer.verify_speedup);
    if let (Some(operations), Some(prefill), Some(decode)) =
        (answer.integer_top_s, answer.prefill_vs_cpu, answer.decode_vs_cpu)
    {
        let _ = writeln!(text, "               {operations:>9.2} TOP/s in the long prefill");
        let _ = writeln!(
            text,
            "               {prefill:.1} and {decode:.1} times the CPU's prefill and decoding"
        );
    }
    text
}

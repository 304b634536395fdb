//! `metisvm model import --calibrate`: what smoothing did, estimated and measured.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use metis_kernels::TokenId;
use metis_models::engine::{InferenceModel, Processor};
use metis_models::eval::{EvalReport, evaluate};
use metis_models::import::smoothing::{
    CALIBRATION_TOKENS, Calibrated, Inputs, Smoothed, Stage, WINDOW, import_calibrated,
};
use metis_models::import::{Options, Source};
use metis_models::reference::Reference;
use metis_models::{Bundle, Manifest};
use serde_json::{Value, json};

use super::import::{summary, text_of};
use crate::cli::Global;
use crate::report::Report;

/// Float models are slow: so many tokens are measured.
const MEASURED_TOKENS: usize = 1_024;
const _: () = assert!(MEASURED_TOKENS <= CALIBRATION_TOKENS);

/// Imports with the scales that suit the text, compares with a plain import, and prints both.
pub(super) fn run(
    source: &Source,
    target: &Path,
    options: &Options,
    text: &Path,
    global: &Global,
    report: Report,
) -> anyhow::Result<ExitCode> {
    let bytes = std::fs::read(text).with_context(|| format!("calibration text {}", text.display()))?;
    let processor = global.processor()?;
    let progress = |stage| {
        report.progress(match stage {
            Stage::Weights => "weights",
            Stage::Tokens => "tokens",
            Stage::Places => "places",
        })
    };
    let calibrated = import_calibrated(source, target, options, &bytes, &processor, &progress)
        .with_context(|| format!("calibrating with {}", text.display()))?;
    // The bundle is written: what cannot be measured is said, not fatal.
    let figures = measure(source, &calibrated, &processor, global);
    let left_out: Vec<Value> = calibrated
        .left_out()
        .into_iter()
        .map(|(inputs, reason)| json!({ "inputs": inputs, "reason": reason }))
        .collect();
    let mut value = summary(&calibrated.imported);
    value["calibration"] = json!({
        "tokens": calibrated.tokens.len(),
        "plain_id": calibrated.plain.id(),
        "places": calibrated.places,
        "not_smoothed": left_out,
        "measured": figures.as_ref().map_or_else(|error| json!({ "error": format!("{error:#}") }), Figures::json),
    });
    report.finish(&value, || {
        let measured = match &figures {
            Ok(figures) => figures.text(),
            Err(error) => format!("not measured: {error:#}\n"),
        };
        text_of(&calibrated.imported) + &estimates(&calibrated) + &measured
    })?;
    Ok(ExitCode::SUCCESS)
}

/// A line for each kind of place: how many moved, how far, and what is left of the estimated error.
fn estimates(calibrated: &Calibrated) -> String {
    let mut text = format!("calibrated on {} tokens\n", calibrated.tokens.len());
    let mut line = |inputs: Inputs, words: String| {
        let _ = writeln!(text, "  inputs of {:<10} {words}", inputs.name());
    };
    for inputs in Inputs::ALL {
        let places: Vec<&Smoothed> =
            calibrated.places.iter().filter(|place| place.inputs == inputs).collect();
        let alphas: Vec<String> = places.iter().map(|place| format!("{}/4", place.alpha_quarters)).collect();
        let left = places.iter().map(|place| place.error_ppm).sum::<u64>() / places.len().max(1) as u64;
        if !places.is_empty() {
            let percent = left as f64 / 10_000.0;
            line(
                inputs,
                format!(
                    "estimated error {percent:.1} % of the plain import's; alpha by layer {}",
                    alphas.join(" ")
                ),
            );
        }
    }
    for (inputs, reason) in calibrated.left_out() {
        line(inputs, format!("not smoothed: {reason}"));
    }
    text
}

/// How far both imports are from the float model.
enum Figures {
    /// A decoder's logits.
    Logits { plain: EvalReport, smoothed: EvalReport },
    /// The mean cosine of an encoder's vectors.
    Vectors { texts: usize, plain: f64, smoothed: f64 },
}

impl Figures {
    fn json(&self) -> Value {
        match self {
            Self::Logits { plain, smoothed } => {
                let figures = |report: &EvalReport| {
                    json!({
                        "kl": report.kl, "perplexity": report.perplexity, "top1_agreement": report.top1_agreement,
                    })
                };
                json!({
                    "tokens": plain.tokens, "reference_perplexity": plain.reference_perplexity,
                    "plain": figures(plain), "smoothed": figures(smoothed), "worse": self.is_worse(),
                })
            }
            Self::Vectors { texts, plain, smoothed } => json!({
                "texts": texts, "plain": { "cosine": plain }, "smoothed": { "cosine": smoothed },
                "worse": self.is_worse(),
            }),
        }
    }

    fn text(&self) -> String {
        let mut text = match self {
            Self::Logits { plain, smoothed } => {
                let line = |name: &str, report: &EvalReport| {
                    format!(
                        "  {name:<9} KL {:.3e} nats, perplexity {:.4}, top-1 agreement {:.2} %\n",
                        report.kl,
                        report.perplexity,
                        100.0 * report.top1_agreement
                    )
                };
                format!(
                    "measured against the float model (perplexity {:.4}) on {} tokens\n{}{}",
                    plain.reference_perplexity,
                    plain.tokens,
                    line("plain", plain),
                    line("smoothed", smoothed)
                )
            }
            Self::Vectors { texts, plain, smoothed } => format!(
                "measured against the float model on {texts} texts\n  plain     mean cosine {plain:.6}\n  smoothed  mean cosine {smoothed:.6}\n"
            ),
        };
        if self.is_worse() {
            text += "warning: on this text the smoothed bundle is farther from the float model than the plain one; import without --calibrate for that one\n";
        }
        text
    }

    fn is_worse(&self) -> bool {
        match self {
            Self::Logits { plain, smoothed } => smoothed.kl > plain.kl,
            Self::Vectors { plain, smoothed, .. } => smoothed < plain,
        }
    }
}

fn measure(
    source: &Source,
    calibrated: &Calibrated,
    processor: &Processor,
    global: &Global,
) -> anyhow::Result<Figures> {
    let mut reference = Reference::load(source)?;
    let smoothed = Bundle::open(&calibrated.imported.directory)?;
    let manifest = smoothed.manifest();
    let bos = manifest.bos.first().copied().map(TokenId);
    let window = WINDOW.min(manifest.context);
    let tokens = &calibrated.tokens[..calibrated.tokens.len().min(MEASURED_TOKENS)];
    let [plain, smoothed] =
        [&calibrated.plain, &smoothed].map(|bundle| processor.load(bundle, global.engine_options()));
    let (plain, smoothed) = (plain?, smoothed?);
    if manifest.architecture.is_decoder() {
        let mut of = |model: &dyn InferenceModel| -> anyhow::Result<EvalReport> {
            Ok(evaluate(&mut |window| model.all_logits(window), &mut reference, tokens, bos, window)?)
        };
        return Ok(Figures::Logits { plain: of(&*plain)?, smoothed: of(&*smoothed)? });
    }
    let texts = texts(tokens, manifest, window);
    let (mut sums, count) = ([0.0; 2], texts.len());
    for text in texts {
        let float = reference.embed(&text)?;
        for (sum, model) in sums.iter_mut().zip([&plain, &smoothed]) {
            *sum += cosine(&model.embed(&text)?, &float);
        }
    }
    let [plain, smoothed] = sums.map(|sum| sum / count as f64);
    Ok(Figures::Vectors { texts: count, plain, smoothed })
}

/// The tokens as texts for an encoder: short ones, as there are many of them.
fn texts(tokens: &[TokenId], manifest: &Manifest, window: usize) -> Vec<Vec<TokenId>> {
    let body = (window / 8).saturating_sub(manifest.bos.len()).max(1);
    let prompt =
        |chunk: &[TokenId]| manifest.bos.iter().map(|&id| TokenId(id)).chain(chunk.iter().copied()).collect();
    tokens.chunks(body).map(prompt).collect()
}

/// The cosine of a Q16 vector and a float one.
fn cosine(fixed: &[i32], float: &[f32]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let fixed: Vec<f64> = fixed.iter().map(|&x| f64::from(x)).collect();
    let float: Vec<f64> = float.iter().map(|&x| f64::from(x)).collect();
    dot(&fixed, &float) / (dot(&fixed, &fixed) * dot(&float, &float)).sqrt()
}

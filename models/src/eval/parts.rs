//! Which part of a model costs how much: each part in turn runs in fixed point, all others in floats.

use core::fmt;

use candle_core::Tensor;
use indicatif::ProgressBar;
use metis_kernels::{Backend, TokenId};

use super::{EvalError, EvalReport, FixedLogits, Sums, q16, same, single, windows};
use crate::candle::{FixedError, MixedLlama, Part};

/// What one part costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PartReport {
    /// The part that ran in fixed point.
    pub part: Part,
    /// The float model with this part in fixed point against the float model.
    pub report: EvalReport,
}

/// What each part and all of them together cost.
#[derive(Clone, Debug, PartialEq)]
pub struct PartsReport {
    /// Every part, in the order of the forward pass.
    pub parts: Vec<PartReport>,
    /// The fixed-point model itself.
    pub whole: EvalReport,
}

impl PartsReport {
    /// The sum of the parts' divergences in nats: about that of the whole if their errors have nothing to do with each other.
    pub fn sum_of_kl(&self) -> f64 {
        self.parts.iter().map(|part| part.report.kl).sum()
    }
}

impl fmt::Display for PartsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>5}  {:<11}{:>16}{:>17}", "layer", "part", "KL(float, fixed)", "top-1 agreement")?;
        let mut line = |layer: &str, part: &str, kl: f64, agreement: Option<f64>| {
            let agreement = agreement.map_or(String::new(), |share| format!("{:>15.2} %", 100.0 * share));
            writeln!(f, "{layer:>5}  {part:<11}{kl:>16.3e}{agreement}")
        };
        for PartReport { part, report } in &self.parts {
            let layer = part.layer().map_or(String::new(), |layer| layer.to_string());
            line(&layer, part.name(), report.kl, Some(report.top1_agreement))?;
        }
        line("", "sum", self.sum_of_kl(), None)?;
        line("", "whole model", self.whole.kl, Some(self.whole.top1_agreement))
    }
}

/// Compares the float model with itself with one part in fixed point, for every part, and with the fixed-point model.
///
/// `text` is cut as by [`evaluate`](super::evaluate). A part in fixed point runs on what the float model gave so far, so that the cost is its own, and
/// floats go on from what it gives: a window costs about as much as half a forward pass for every part. `progress` counts the passes.
///
/// An error if nothing is predicted, if a window does not fit the model, if either model fails or if their logits have different shapes.
pub fn evaluate_parts<B: Backend, E: fmt::Display>(
    fixed: &mut FixedLogits<'_, E>,
    model: &MixedLlama<B>,
    text: &[TokenId],
    bos: Option<TokenId>,
    window: usize,
    progress: &ProgressBar,
) -> Result<PartsReport, EvalError> {
    let parts = model.parts();
    let mut sums: Vec<Sums> = parts.iter().map(|_| Sums::default()).collect();
    let mut whole = Sums::default();
    let windows = windows(text, bos, window);
    progress.set_length((windows.len() * (parts.len() + 1)) as u64);
    for tokens in windows {
        let streams = streams(model, &parts, &tokens)?;
        // After the last part.
        let reference = rows(streams.last())?;
        for (i, (part, sums)) in parts.iter().zip(&mut sums).enumerate() {
            let replaced = match part {
                Part::Embedding => model.embed(&tokens, true)?,
                part => model.step(*part, &streams[i - 1], true)?,
            };
            let logits = parts[i + 1..].iter().try_fold(replaced, |x, part| model.step(*part, &x, false))?;
            for ((fixed, reference), next) in rows(Some(&logits))?.iter().zip(&reference).zip(&tokens[1..]) {
                sums.add(single(fixed), single(reference), *next);
            }
            progress.inc(1);
        }
        let fixed = fixed(&tokens).map_err(|error| EvalError::Fixed(error.to_string()))?;
        same("positions", fixed.len(), reference.len())?;
        for ((fixed, reference), next) in fixed.iter().zip(&reference).zip(&tokens[1..]) {
            same("vocabulary", fixed.len(), reference.len())?;
            whole.add(q16(fixed), single(reference), *next);
        }
        progress.inc(1);
    }
    let too_short = || EvalError::TooShort(text.len());
    let reports = parts.into_iter().zip(&sums).map(|(part, sums)| {
        Ok::<_, EvalError>(PartReport { part, report: sums.report().ok_or_else(too_short)? })
    });
    Ok(PartsReport {
        parts: reports.collect::<Result<_, _>>()?,
        whole: whole.report().ok_or_else(too_short)?,
    })
}

/// What the float model gives after each part.
fn streams<B: Backend>(
    model: &MixedLlama<B>,
    parts: &[Part],
    tokens: &[TokenId],
) -> Result<Vec<Tensor>, FixedError> {
    let mut x = model.embed(tokens, false)?;
    let mut streams = vec![x.clone()];
    for part in &parts[1..] {
        x = model.step(*part, &x, false)?;
        streams.push(x.clone());
    }
    Ok(streams)
}

fn rows(logits: Option<&Tensor>) -> Result<Vec<Vec<f32>>, FixedError> {
    Ok(logits.map_or(Ok(Vec::new()), Tensor::to_vec2)?)
}

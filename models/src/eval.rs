//! How much the fixed-point model differs from the float checkpoint that it was made from: [`evaluate`] compares a decoder's predictions,
//! [`evaluate_parts`] finds the parts of it that cost them, [`evaluate_encoder`] compares an encoder's vectors.
#![allow(clippy::float_arithmetic, reason = "figures for people; nothing here reaches a block")]

mod encoder;
mod parts;

use core::fmt;

use metis_kernels::TokenId;
use thiserror::Error;

pub use encoder::{EncoderReport, FixedVector, evaluate_encoder};
pub use parts::{PartReport, PartsReport, evaluate_parts};

use crate::candle::FixedError;
use crate::reference::{Reference, ReferenceError};

/// One over a Q16 unit.
const Q16: f64 = 65_536.0;

/// Why an evaluation stopped.
#[derive(Debug, Error)]
pub enum EvalError {
    /// The float reference failed.
    #[error("float reference: {0}")]
    Reference(#[from] ReferenceError),
    /// The fixed-point model failed.
    #[error("fixed point: {0}")]
    Fixed(String),
    /// The float model with parts in fixed point failed.
    #[error(transparent)]
    Mixed(#[from] FixedError),
    /// An encoder has nothing to read.
    #[error("there is no text to compare")]
    NoTexts,
    /// There is nothing to predict.
    #[error("the text has {0} tokens; an evaluation needs a window of 2 or more and 2 tokens or more")]
    TooShort(usize),
    /// The two models do not have logits of the same shape.
    #[error("{what}: the fixed-point model has {fixed}, the reference has {reference}")]
    Mismatch {
        /// What differs.
        what: &'static str,
        /// In the fixed-point model.
        fixed: usize,
        /// In the reference.
        reference: usize,
    },
}

/// The figures of an evaluation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EvalReport {
    /// Positions that predicted a token.
    pub tokens: usize,
    /// `exp` of the mean negative log-likelihood of the fixed-point model.
    pub perplexity: f64,
    /// The same of the float reference.
    pub reference_perplexity: f64,
    /// Mean divergence KL(reference || fixed) per position, in nats.
    pub kl: f64,
    /// Part of the positions at which both prefer the same token, `0 ..= 1`.
    pub top1_agreement: f64,
}

impl fmt::Display for EvalReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} tokens: perplexity {:.4} (float {:.4}), KL {:.2e} nats, top-1 agreement {:.2} %",
            self.tokens,
            self.perplexity,
            self.reference_perplexity,
            self.kl,
            100.0 * self.top1_agreement
        )
    }
}

/// The fixed-point model: the Q16 logits after each token of a window.
pub type FixedLogits<'a, E> = dyn FnMut(&[TokenId]) -> Result<Vec<Vec<i32>>, E> + 'a;

/// Compares Q16 logits with the reference's on `text`, which has no special tokens of its own.
///
/// The text is cut into windows of at most `window` tokens; each starts with `bos`, if any, whose logits count as
/// well. `fixed` gives the logits of all positions of a window.
pub fn evaluate<E: fmt::Display>(
    fixed: &mut FixedLogits<'_, E>,
    reference: &mut Reference,
    text: &[TokenId],
    bos: Option<TokenId>,
    window: usize,
) -> Result<EvalReport, EvalError> {
    let mut sums = Sums::default();
    for tokens in windows(text, bos, window) {
        let fixed = fixed(&tokens).map_err(|error| EvalError::Fixed(error.to_string()))?;
        let reference = reference.logits(&tokens)?;
        same("positions", fixed.len(), tokens.len())?;
        same("positions", fixed.len(), reference.len())?;
        for ((fixed, reference), next) in fixed.iter().zip(&reference).zip(&tokens[1..]) {
            same("vocabulary", fixed.len(), reference.len())?;
            sums.add(q16(fixed), single(reference), *next);
        }
    }
    sums.report().ok_or(EvalError::TooShort(text.len()))
}

/// The windows of a text that predict something.
fn windows(
    text: &[TokenId],
    bos: Option<TokenId>,
    window: usize,
) -> impl ExactSizeIterator<Item = Vec<TokenId>> {
    let body = window.saturating_sub(bos.iter().len());
    let chunks = text.chunks(body.max(1)).map(|chunk| bos.iter().chain(chunk).copied().collect());
    let windows: Vec<Vec<TokenId>> =
        chunks.filter(|tokens: &Vec<_>| (2..=window).contains(&tokens.len())).collect();
    windows.into_iter()
}

/// Q16 logits in natural units.
fn q16(logits: &[i32]) -> impl Iterator<Item = f64> {
    logits.iter().map(|&logit| f64::from(logit) / Q16)
}

fn single(logits: &[f32]) -> impl Iterator<Item = f64> {
    logits.iter().map(|&logit| f64::from(logit))
}

const fn same(what: &'static str, fixed: usize, reference: usize) -> Result<(), EvalError> {
    if fixed == reference { Ok(()) } else { Err(EvalError::Mismatch { what, fixed, reference }) }
}

#[derive(Debug, Default)]
struct Sums {
    tokens: usize,
    agreements: usize,
    nll: f64,
    reference_nll: f64,
    kl: f64,
}

impl Sums {
    /// Logits in natural units after one position, and the token that follows it.
    fn add(&mut self, fixed: impl Iterator<Item = f64>, reference: impl Iterator<Item = f64>, next: TokenId) {
        let log_p = log_softmax(reference);
        let log_q = log_softmax(fixed);
        self.tokens += 1;
        self.agreements += usize::from(top(&log_p) == top(&log_q));
        self.nll -= log_q.get(next.index()).copied().unwrap_or(f64::NAN);
        self.reference_nll -= log_p.get(next.index()).copied().unwrap_or(f64::NAN);
        self.kl += log_p.iter().zip(&log_q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
    }

    fn report(&self) -> Option<EvalReport> {
        let count = self.tokens as f64;
        (self.tokens > 0).then(|| EvalReport {
            tokens: self.tokens,
            perplexity: (self.nll / count).exp(),
            reference_perplexity: (self.reference_nll / count).exp(),
            kl: self.kl / count,
            top1_agreement: self.agreements as f64 / count,
        })
    }
}

fn log_softmax(logits: impl Iterator<Item = f64>) -> Vec<f64> {
    let logits: Vec<f64> = logits.collect();
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_sum = logits.iter().map(|logit| (logit - max).exp()).sum::<f64>().ln() + max;
    logits.into_iter().map(|logit| logit - log_sum).collect()
}

/// The index of the largest value; the lowest among equals.
fn top(values: &[f64]) -> usize {
    values.iter().enumerate().fold(0, |best, (i, value)| if *value > values[best] { i } else { best })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use metis_kernels::Scalar;

    use super::*;
    use crate::engine::{Engine, InferenceModel};
    use crate::fixture::Fixture;
    use crate::import::{Options, ProgressBar, Source, convert, tests::stories260k};

    const STORY: &str = "Once upon a time, there was a little girl named Lily. She loved to play outside in the sun. \
        One day, she saw a big red ball in the park. She ran to the ball and kicked it very high. The ball went over the \
        fence and Lily was sad. Her friend Tom came to help. \"Do not be sad,\" said Tom. \"We can get the ball together.\" \
        They walked around the fence and found the ball under a tree. Lily was happy and gave Tom a big hug. They played \
        with the ball all day. When the sun went down, they went home to their moms. Lily told her mom about the ball and \
        her mom smiled. The end.";

    fn report(source: &Source, window: usize) -> EvalReport {
        let options = Options { name: Some("eval".into()), ..Options::default() };
        let bundle = convert(source, &options, &ProgressBar::hidden()).unwrap().into_bundle().unwrap();
        let engine = Engine::load(&bundle, Arc::new(Scalar::default())).unwrap();
        let mut reference = Reference::load(source).unwrap();
        let text = engine.tokenizer().encode_prompt(STORY.as_bytes()).unwrap();
        evaluate(&mut |tokens| engine.all_logits(tokens), &mut reference, &text[1..], Some(text[0]), window)
            .unwrap()
    }

    #[test]
    fn stories260k_in_fixed_point_is_the_float_model() {
        let Some(source) = stories260k() else { return };
        let report = report(&source, 512);
        println!("{report}");
        assert!(report.tokens > 200 && report.reference_perplexity < 6.0, "{report}");
        assert!((report.perplexity / report.reference_perplexity - 1.0).abs() < 0.01, "{report}");
        assert!(report.kl < 2e-3 && report.kl > 0.0 && report.top1_agreement > 0.96, "{report}");
    }

    #[test]
    fn a_hugging_face_checkpoint_in_fixed_point_is_the_float_model() {
        for tied in [true, false] {
            let place = tempfile::tempdir().unwrap();
            Fixture { tied, ..Fixture::default() }.write(place.path()).unwrap();
            let report = report(&Source::HuggingFace(place.path().to_owned()), 100);
            println!("{report}");
            assert!((report.perplexity / report.reference_perplexity - 1.0).abs() < 0.05, "{report}");
            assert!(report.kl < 2e-2 && report.top1_agreement > 0.9, "{report}");
        }
    }

    #[test]
    fn figures_are_what_their_names_say() {
        let mut sums = Sums::default();
        // Reference: probabilities 1/4 and 3/4; fixed point: 1/2 each.
        sums.add([0.0, 0.0].into_iter(), [0.0, 3f64.ln()].into_iter(), TokenId(1));
        let report = sums.report().unwrap();
        let close = |a: f64, b: f64| (a - b).abs() < 1e-6;
        assert!(close(report.perplexity, 2.0) && close(report.reference_perplexity, 4.0 / 3.0), "{report:?}");
        assert!(close(report.kl, 0.25 * 0.5f64.ln() + 0.75 * 1.5f64.ln()), "{report:?}");
        assert_eq!((report.tokens, report.top1_agreement), (1, 0.0));
        assert!(Sums::default().report().is_none());
    }
}

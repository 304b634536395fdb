//! Smoothing: scale moves between what writes a channel and the weight columns that read it, so that rounding weights to int8 costs less.
//!
//! The scales are powers of two, so the float model stays the same function; only its rounding changes. Which scales, a text decides: the
//! plain import runs over it in fixed point, and integers estimate the error of each candidate. So the same checkpoint and the same text
//! give the same bytes on every machine. Sources: SmoothQuant (Xiao et al., arXiv:2211.10438) and AWQ (Lin et al., arXiv:2306.00978);
//! `docs/bundle.md`, section 11, has the formulas.

mod choice;
mod estimate;
mod folds;
mod observe;
mod places;
mod recorder;

use std::path::Path;

use indicatif::ProgressBar;
use metis_kernels::TokenId;
use serde::Serialize;
use thiserror::Error;

use super::{Hyperparameters, ImportError, Imported, Options, Source, convert_with_template, write};
use crate::bundle::{Bundle, BundleError, Manifest, TensorSpec, layout, refuse_existing};
use crate::engine::{LoadError, Processor};
use crate::tokenizer::{Tokenizer, TokenizerError};
use choice::{Choice, Fits, choose};
use estimate::Singles;
use places::Place;
use recorder::Squares;

pub(crate) use folds::Folds;
pub use places::Inputs;

/// Scales are from `2^-4` to `2^4`: what writes a channel must keep its precision.
const LARGEST_EXPONENT: i32 = 4;
/// So many bytes of the text are looked at: more than enough for so many tokens.
const TEXT_BYTES: usize = 1 << 20;
/// So many tokens of the text are run, in windows of [`WINDOW`].
pub const CALIBRATION_TOKENS: usize = 4_096;
/// Tokens that see each other.
pub const WINDOW: usize = 512;
/// Fewer tokens than this say nothing about a channel.
pub const LEAST_TOKENS: usize = 32;

/// Why a calibrated import stopped. Nothing is written then.
#[derive(Debug, Error)]
pub enum CalibrationError {
    /// The checkpoint cannot be imported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The text has no tokens, or some that only a template may add.
    #[error("calibration text: {0}")]
    Text(#[from] TokenizerError),
    /// The text says too little.
    #[error("the calibration text has {tokens} tokens; at least {LEAST_TOKENS} are needed")]
    TooShort {
        /// What it has.
        tokens: usize,
    },
    /// The plain import does not run.
    #[error(transparent)]
    Load(#[from] LoadError),
}

impl From<BundleError> for CalibrationError {
    fn from(error: BundleError) -> Self {
        Self::Import(error.into())
    }
}

/// What a calibrated import did.
#[derive(Debug)]
pub struct Calibrated {
    /// The bundle that was written.
    pub imported: Imported,
    /// The bundle that a plain import makes, to compare with.
    pub plain: Bundle,
    /// The tokens that decided, without special ones.
    pub tokens: Vec<TokenId>,
    /// Each place that can be smoothed, in the order of the layers.
    pub places: Vec<Smoothed>,
}

impl Calibrated {
    /// The places of this architecture that stay as they are, and why.
    pub fn left_out(&self) -> Vec<(Inputs, &'static str)> {
        let architecture = self.imported.manifest.architecture;
        let obstacle = |inputs: Inputs| Some((inputs, inputs.obstacle(architecture)?));
        Inputs::ALL.into_iter().filter_map(obstacle).collect()
    }
}

/// What happened at one place of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Smoothed {
    /// The layer, from 0.
    pub layer: usize,
    /// The inputs of which linear layers.
    pub inputs: Inputs,
    /// Four times the power of the activations' sizes that moved into the weights; 0 is none.
    pub alpha_quarters: u32,
    /// Channels whose scale moved.
    pub channels: usize,
    /// The estimated error as millionths of the plain import's.
    pub error_ppm: u64,
}

/// The long parts of a calibrated import, which each have a progress bar of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Quantising, counted in weights; twice.
    Weights,
    /// Running the text, counted in tokens.
    Tokens,
    /// Comparing candidates, counted in places.
    Places,
}

/// Imports a checkpoint with the scales that suit a text best, into the new directory `target`, which appears complete or not at all.
///
/// The bundle is an ordinary one. Its bytes depend on the checkpoint, the options and the first [`CALIBRATION_TOKENS`] tokens of the text,
/// not on the processor. `progress` makes the bar of a stage.
pub fn import_calibrated(
    source: &Source,
    target: &Path,
    options: &Options,
    text: &[u8],
    processor: &Processor,
    progress: &dyn Fn(Stage) -> ProgressBar,
) -> Result<Calibrated, CalibrationError> {
    // Before the work rather than after it.
    refuse_existing(target)?;
    let tokens = tokens(source, text)?;
    let convert = |folds: Folds| {
        let bar = progress(Stage::Weights);
        let converted = convert_with_template(source, options, folds, &bar);
        bar.finish_and_clear();
        converted
    };
    let (parts, _) = convert(Folds::default())?;
    let plain = parts.into_bundle()?;
    let (folds, places) = smooth(source, &plain, &tokens, processor, progress)?;
    let (parts, chat_template) = convert(folds)?;
    let imported = write(&parts, target, chat_template)?;
    Ok(Calibrated { imported, plain, tokens, places })
}

/// The first tokens of the text.
fn tokens(source: &Source, text: &[u8]) -> Result<Vec<TokenId>, CalibrationError> {
    let vocabulary = source.open()?.shape.vocabulary;
    let tokenizer =
        Tokenizer::from_json(&source.tokenizer(vocabulary)?, vocabulary).map_err(ImportError::from)?;
    let mut tokens = tokenizer.encode_continuation(&text[..text.len().min(TEXT_BYTES)])?;
    tokens.truncate(CALIBRATION_TOKENS);
    if tokens.len() < LEAST_TOKENS {
        return Err(CalibrationError::TooShort { tokens: tokens.len() });
    }
    Ok(tokens)
}

/// Chooses the scales of every place.
fn smooth(
    source: &Source,
    plain: &Bundle,
    tokens: &[TokenId],
    processor: &Processor,
    progress: &dyn Fn(Stage) -> ProgressBar,
) -> Result<(Folds, Vec<Smoothed>), CalibrationError> {
    let (m, checkpoint) = (plain.manifest(), source.open()?);
    let places = Place::all(m);
    let squares = observe::observe(plain, processor, &places, tokens, &progress(Stage::Tokens))?;
    let (bar, mut folds, mut smoothed) = (progress(Stage::Places), Folds::default(), Vec::new());
    bar.set_length(places.len() as u64);
    for (index, place) in places.iter().enumerate() {
        let readers: Vec<Singles> = specs(m, &place.readers)
            .filter_map(|spec| Singles::read(&checkpoint, m, &spec).transpose())
            .collect::<Result<_, _>>()?;
        let choice = choose(place, index, &squares, &Fits::new(place, plain)?, &readers);
        if choice.quarters > 0 {
            fold(&mut folds, &checkpoint.shape, m, place, &choice.exponents);
        }
        smoothed.push(Smoothed::new(place, &choice));
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok((folds, smoothed))
}

/// Multiplies what reads channel `c` of a place by `2^exponents[c]`, and divides what writes it.
fn fold(folds: &mut Folds, shape: &Hyperparameters, m: &Manifest, place: &Place, exponents: &[i32]) {
    for spec in specs(m, &place.readers) {
        let columns: Vec<i32> = (0..spec.shape[1]).map(|column| exponents[place.channel(column)]).collect();
        folds.scale_inputs(shape, m, &spec, &columns);
    }
    let inverse: Vec<i32> = exponents.iter().map(|exponent| -exponent).collect();
    for spec in specs(m, &place.writers) {
        folds.scale_outputs(shape, m, &spec, &inverse);
    }
}

/// The tensors of these names.
fn specs(m: &Manifest, names: &[String]) -> impl Iterator<Item = TensorSpec> {
    layout(m).into_iter().filter(|spec| names.contains(&spec.name))
}

impl Smoothed {
    fn new(place: &Place, choice: &Choice) -> Self {
        // Estimates are far above a million or zero; the quotient is for people.
        let unit = (choice.plain / 1_000_000).max(1);
        Self {
            layer: place.layer,
            inputs: place.inputs,
            alpha_quarters: choice.quarters,
            channels: choice.exponents.iter().filter(|exponent| **exponent != 0).count(),
            error_ppm: if choice.quarters == 0 { 1_000_000 } else { (choice.error / unit) as u64 },
        }
    }
}

#[cfg(test)]
#[allow(clippy::float_arithmetic, reason = "tests compare float models")]
mod tests;

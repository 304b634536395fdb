//! Training from scratch: seeded data, seeded weights, one loop.
//!
//! The batch of a step is cut into [`WORKERS`] parts whose gradients are computed side by side, each on one
//! thread, and summed in a fixed order: the result does not depend on the number of cores.

pub mod batch;
pub mod model;
pub mod optimizer;

mod ops;

use crate::instructions::{Instructions, Split};
use crate::tokenizer::{self, TokenizerError};
use batch::{Batch, Encoded};
use candle_core::Tensor;
use model::{Config, Model};
use optimizer::{AdamW, Settings};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Into how many parts a batch is cut.
pub const WORKERS: usize = 2;

/// Everything that decides the checkpoint.
#[derive(Debug, Clone)]
pub struct Options {
    /// The seed of the data, the tokenizer and the weights.
    pub seed: u64,
    /// Examples per step.
    pub batch: usize,
    /// The optimiser's settings.
    pub optimizer: Settings,
    /// The shape of the model.
    pub config: Config,
    /// The first steps are on plain sentences, without openings and closings: copying is learnt sooner there.
    pub plain_steps: usize,
    /// Validation and a checkpoint every so many steps.
    pub validate_every: usize,
    /// How many examples validation has.
    pub validation: usize,
    /// Start from this checkpoint, with its tokenizer and shape, instead of from nothing.
    pub from: Option<PathBuf>,
    /// Stop early, with what there is, after this long.
    pub time_limit: Option<Duration>,
}

/// What training tells its caller after a step.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Steps done.
    pub step: usize,
    /// The mean loss per answer token of this step.
    pub loss: f32,
    /// The norm of the gradient before clipping.
    pub norm: f32,
    /// Tokens that this step went through.
    pub tokens: usize,
    /// Exact match on the validation set, where this step measured it.
    pub validation: Option<f32>,
}

/// Trains a model and leaves `tokenizer.json`, `config.json` and `model.safetensors` in `folder`.
///
/// # Errors
/// A tokenizer, candle or file error.
pub fn train(
    options: &Options,
    folder: &Path,
    mut report: impl FnMut(Progress),
) -> Result<(), TrainingError> {
    std::fs::create_dir_all(folder).map_err(|source| TrainingError::File(folder.to_owned(), source))?;
    let started = Instant::now();
    let tokenizer = match &options.from {
        Some(from) => {
            let path = from.join("tokenizer.json");
            tokenizers::Tokenizer::from_file(&path)
                .map_err(|problem| TrainingError::Load(path, problem.to_string()))?
        }
        None => tokenizer::train(options.seed)?,
    };
    let path = folder.join("tokenizer.json");
    tokenizer.save(&path, true).map_err(|problem| TrainingError::Save(path, problem.to_string()))?;

    let model = match &options.from {
        Some(from) => Model::load(from)?,
        None => Model::random(options.config.clone(), &mut ChaCha8Rng::seed_from_u64(options.seed))?,
    };
    let mut optimizer = AdamW::new(options.optimizer, &model.parameters());
    let mut validation_stream = Instructions::new(Split::Validation, options.seed);
    let validation = batch::encode(&tokenizer, &mut validation_stream, options.validation)?;
    // The tokenizer counted its merges on the stream of `seed` itself.
    let mut plain = Instructions::plain(Split::Train, options.seed.wrapping_add(1));
    let mut full = Instructions::new(Split::Train, options.seed.wrapping_add(2));
    let pools = (0..WORKERS)
        .map(|_| rayon::ThreadPoolBuilder::new().num_threads(1).build())
        .collect::<Result<Vec<_>, _>>()?;

    let steps = options.optimizer.steps;
    for step in 1..=steps {
        let stream = if step <= options.plain_steps { &mut plain } else { &mut full };
        let examples = batch::encode(&tokenizer, stream, options.batch)?;
        let part = options.batch.div_ceil(WORKERS);
        let answer_tokens: usize = examples.iter().map(|example| example.answer.len()).sum();
        let results: Vec<Result<Gradient, TrainingError>> = std::thread::scope(|scope| {
            let handles: Vec<_> = examples
                .chunks(part)
                .zip(&pools)
                .map(|(examples, pool)| {
                    let model = &model;
                    scope.spawn(move || pool.install(|| gradient(model, examples, answer_tokens)))
                })
                .collect();
            handles.into_iter().map(|h| h.join().unwrap_or(Err(TrainingError::Worker))).collect()
        });
        let mut total: Option<Gradient> = None;
        for result in results {
            let next = result?;
            total = Some(match total {
                Some(sum) => sum.plus(&next),
                None => next,
            });
        }
        let Gradient { loss, values } = total.ok_or(TrainingError::Worker)?;
        let norm = optimizer.step(&model.parameters(), &values)?;

        let late = options.time_limit.is_some_and(|limit| started.elapsed() >= limit);
        let measure = late || step == steps || step.is_multiple_of(options.validate_every);
        let score = if measure {
            model.save(folder)?;
            Some(exact_match(&model, &validation)?)
        } else {
            None
        };
        let tokens = examples.iter().map(|e| e.prompt.len() + e.answer.len()).sum();
        report(Progress { step, loss, norm, tokens, validation: score });
        if late {
            break;
        }
    }
    Ok(())
}

/// The share of `examples` that greedy decoding answers exactly.
///
/// Greedy decoding gives the expected answer just when, after every prefix of it, the likeliest token is
/// the expected one: one forward pass over the expected answers tells.
///
/// # Errors
/// What candle reports.
pub fn exact_match(model: &Model, examples: &[Encoded]) -> Result<f32, TrainingError> {
    let mut right = 0;
    for chunk in examples.chunks(64) {
        let batch = Batch::new(chunk);
        let best = model.logits(&batch)?.detach().argmax(1)?.to_vec1::<u32>()?;
        let mut at = 0;
        for answer in &batch.answers {
            right += usize::from(best[at..at + answer] == batch.targets[at..at + answer]);
            at += answer;
        }
    }
    Ok(right as f32 / examples.len() as f32)
}

/// Training could not go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainingError {
    /// The tokenizer failed.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A tensor operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// The threads could not be started.
    #[error(transparent)]
    Threads(#[from] rayon::ThreadPoolBuildError),
    /// The output folder could not be made.
    #[error("{0}: {1}")]
    File(PathBuf, std::io::Error),
    /// The tokenizer could not be read.
    #[error("{0}: {1}")]
    Load(PathBuf, String),
    /// The tokenizer could not be written.
    #[error("{0}: {1}")]
    Save(PathBuf, String),
    /// A worker gave no gradient.
    #[error("a worker of the training loop ended without a gradient")]
    Worker,
}

/// The mean loss and its gradient for every parameter, in the model's order.
struct Gradient {
    loss: f32,
    values: Vec<Vec<f32>>,
}

impl Gradient {
    fn plus(mut self, other: &Self) -> Self {
        self.loss += other.loss;
        for (sum, values) in self.values.iter_mut().zip(&other.values) {
            for (sum, value) in sum.iter_mut().zip(values) {
                *sum += value;
            }
        }
        self
    }
}

fn gradient(model: &Model, examples: &[Encoded], answer_tokens: usize) -> Result<Gradient, TrainingError> {
    let loss = (model.loss(&Batch::new(examples))? / answer_tokens as f64)?;
    let grads = loss.backward()?;
    let values = model
        .parameters()
        .into_iter()
        .map(|var| match grads.get(var) {
            Some(grad) => grad.flatten_all()?.to_vec1::<f32>(),
            None => Tensor::zeros_like(var)?.flatten_all()?.to_vec1::<f32>(),
        })
        .collect::<Result<_, _>>()?;
    Ok(Gradient { loss: loss.to_scalar()?, values })
}

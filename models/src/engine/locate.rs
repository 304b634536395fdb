//! Finding the first kernel of a model that a backend computes wrongly.

use std::sync::Arc;

use metis_kernels::paired::Difference;
use metis_kernels::{Backend, Paired, Sampling, Scalar, TokenId};

use super::{Engine, EngineOptions, InferenceError, InferenceModel, LoadError, Request};
use crate::bundle::Bundle;

/// New tokens after the prompt: steps of one row, after one of many.
const NEW_TOKENS: usize = 8;

/// A model that ran on two backends in step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Kernels that were called.
    pub calls: u64,
    /// The first whose answer was not the reference's.
    pub difference: Option<Difference>,
}

/// Runs a model on the reference and on `backend` in step, kernel by kernel: a prompt, then some tokens.
pub fn locate<B: Backend>(
    bundle: &Bundle,
    backend: Arc<B>,
    prompt: Vec<TokenId>,
) -> Result<Located, LocateError> {
    let paired = Arc::new(Paired::new(Arc::new(Scalar::new()), backend));
    let engine = Engine::load_with(bundle, Arc::clone(&paired), EngineOptions::UNCACHED)?;
    let sampling = Sampling { temperature_q16: 1 << 16, top_p_q16: 60_000, top_k: 40, seed: 7 };
    let request = Request { prompt, max_new: NEW_TOKENS, sampling, stop: Vec::new(), constraint: None };
    let answer = engine.generate(&request);
    match (paired.difference(), answer) {
        (None, Err(error)) => Err(error.into()),
        (difference, _) => Ok(Located { calls: paired.calls(), difference }),
    }
}

/// A model that could not be run on both.
#[derive(Debug, thiserror::Error)]
pub enum LocateError {
    /// It could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A backend failed, rather than computing something else.
    #[error(transparent)]
    Inference(#[from] InferenceError),
}

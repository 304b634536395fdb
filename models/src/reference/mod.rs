//! The original checkpoint in floats, through candle's own models: what the fixed-point model is compared with.
#![allow(clippy::float_arithmetic, reason = "the float side of evaluation; nothing here reaches a block")]

mod gpt2;
mod models;
mod neighbours;
mod quantised;

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use metis_kernels::TokenId;
use thiserror::Error;

pub use quantised::QuantisedPeer;

use crate::bundle::Pooling;
use crate::import::{Checkpoint, ImportError, RotaryPairs, Source, used};
use models::Float;

/// Why the reference could not be loaded or run.
#[derive(Debug, Error)]
pub enum ReferenceError {
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] ImportError),
    /// candle's model does not have this shape.
    #[error("candle's model has no {0}; this checkpoint can be imported but not evaluated")]
    Unsupported(&'static str),
    /// `config.json` is not what candle's model reads.
    #[error("config.json: {0}")]
    Config(#[from] serde_json::Error),
    /// candle failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// A checkpoint in `f32` on the CPU.
#[derive(Debug)]
pub struct Reference {
    model: Float,
    pooling: Pooling,
}

impl Reference {
    /// Loads a checkpoint.
    pub fn load(source: &Source) -> Result<Self, ReferenceError> {
        let checkpoint = source.open()?;
        let mut tensors = tensors(&checkpoint)?;
        if checkpoint.shape.pairs == RotaryPairs::Neighbours {
            // This model takes tables; without them it would rotate as for a base of 10,000.
            tensors.extend(rotations(&checkpoint)?);
        }
        let variables = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
        let model = match source {
            Source::HuggingFace(folder) => Float::hugging_face(folder, &checkpoint.shape, variables)?,
            Source::Gguf(_) if checkpoint.shape.pairs == RotaryPairs::Halves => {
                return Err(ReferenceError::Unsupported(
                    "reader for GGUF files of this family (compare with the Hugging Face folder)",
                ));
            }
            Source::Llama2c { .. } | Source::Gguf(_) => neighbours::load(&checkpoint.shape, variables)?,
        };
        Ok(Self { model, pooling: checkpoint.shape.variant.pooling })
    }

    /// The logits after each token of a sequence.
    pub fn logits(&mut self, tokens: &[TokenId]) -> Result<Vec<Vec<f32>>, ReferenceError> {
        self.model.logits(&input(tokens)?)
    }

    /// An encoder's vector of a text, of length one.
    pub fn embed(&mut self, tokens: &[TokenId]) -> Result<Vec<f32>, ReferenceError> {
        let hidden = self.model.hidden(&input(tokens)?)?.squeeze(0)?;
        let vector = match self.pooling {
            Pooling::Mean => hidden.mean(0)?,
            Pooling::Cls => hidden.get(0)?,
        };
        let length = vector.sqr()?.sum_all()?.sqrt()?;
        Ok(vector.broadcast_div(&length)?.to_vec1()?)
    }

    /// A classifier's logits of a text.
    pub fn classify(&mut self, tokens: &[TokenId]) -> Result<Vec<f32>, ReferenceError> {
        self.model.classify(&input(tokens)?)
    }
}

/// `[1, tokens]`.
fn input(tokens: &[TokenId]) -> Result<Tensor, ReferenceError> {
    let ids: Vec<u32> = tokens.iter().map(|token| token.0).collect();
    Ok(Tensor::new(ids, &Device::Cpu)?.unsqueeze(0)?)
}

/// All tensors in `f32`. Reading them checks names and shapes: candle's models unwrap what they do not find.
fn tensors(checkpoint: &Checkpoint) -> Result<HashMap<String, Tensor>, ReferenceError> {
    let mut tensors = HashMap::new();
    for (name, shape) in used(&checkpoint.shape) {
        let tensor = checkpoint.tensor(&name, &shape)?;
        tensors.insert(name, tensor);
    }
    if let Some(embedding) = tensors.get("model.embed_tokens.weight").filter(|_| checkpoint.shape.tied) {
        tensors.insert("lm_head.weight".into(), embedding.clone());
    }
    Ok(tensors)
}

/// Cosines and sines of every position and pair, under llama2.c's names.
fn rotations(checkpoint: &Checkpoint) -> Result<[(String, Tensor); 2], ReferenceError> {
    let shape = &checkpoint.shape;
    let (context, half) = (shape.context, shape.head_dim / 2);
    let factors = checkpoint.rope_factors()?.unwrap_or_else(|| vec![1f32.to_bits(); half]);
    let frequency = |(pair, factor): (usize, u32)| {
        (shape.rope.theta as f64).powf(-(pair as f64) / half as f64) / f64::from(f32::from_bits(factor))
    };
    let frequencies: Vec<f64> = factors.into_iter().enumerate().map(frequency).collect();
    let table = |name: &str, function: fn(f64) -> f64| {
        let angle = |i: usize| (i / half) as f64 * frequencies[i % half];
        let values = (0..context * half).map(|i| function(angle(i)) as f32).collect();
        Ok::<_, ReferenceError>((name.to_owned(), Tensor::from_vec(values, (context, half), &Device::Cpu)?))
    };
    Ok([table("freq_cis_real", f64::cos)?, table("freq_cis_imag", f64::sin)?])
}

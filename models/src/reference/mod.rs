//! The original checkpoint in floats, through candle's own models: what the fixed-point model is compared with.
#![allow(clippy::float_arithmetic, reason = "the float side of evaluation; nothing here reaches a block")]

mod quantised;

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{llama, llama2_c};
use metis_kernels::TokenId;
use thiserror::Error;

pub use quantised::QuantisedPeer;

use crate::import::{Checkpoint, Hyperparameters, ImportError, RotaryPairs, Source};

/// Why the reference could not be loaded or run.
#[derive(Debug, Error)]
pub enum ReferenceError {
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] ImportError),
    /// candle's model does not have this shape.
    #[error("candle's Llama has no {0}; this checkpoint can be imported but not evaluated")]
    Unsupported(&'static str),
    /// candle failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// A checkpoint in `f32` on the CPU.
#[derive(Debug)]
pub struct Reference {
    model: Model,
}

#[derive(Debug)]
enum Model {
    Llama2c { model: Box<llama2_c::Llama>, cache: llama2_c::Cache },
    Llama { model: Box<llama::Llama>, config: llama::Config },
}

impl Reference {
    /// Loads a checkpoint.
    pub fn load(source: &Source) -> Result<Self, ReferenceError> {
        let checkpoint = source.open()?;
        let shape = &checkpoint.shape;
        let mut tensors = tensors(&checkpoint)?;
        if shape.pairs == RotaryPairs::Neighbours {
            // This model takes tables; without them it would rotate as for a base of 10,000.
            tensors.extend(rotations(&checkpoint)?);
        }
        let variables = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
        if shape.head_dim * shape.heads != shape.hidden {
            return Err(ReferenceError::Unsupported("head dimension of its own"));
        }
        let model = match shape.pairs {
            RotaryPairs::Neighbours => {
                let config = llama2c_config(shape);
                let cache = llama2_c::Cache::new(false, &config, variables.clone())?;
                Model::Llama2c { model: Box::new(llama2_c::Llama::load(variables, config)?), cache }
            }
            RotaryPairs::Halves => {
                let config = llama_config(shape);
                Model::Llama { model: Box::new(llama::Llama::load(variables, &config)?), config }
            }
        };
        Ok(Self { model })
    }

    /// The logits after each token of a sequence.
    pub fn logits(&mut self, tokens: &[TokenId]) -> Result<Vec<Vec<f32>>, ReferenceError> {
        let ids: Vec<u32> = tokens.iter().map(|token| token.0).collect();
        let input = Tensor::new(ids, &Device::Cpu)?.unsqueeze(0)?;
        match &mut self.model {
            Model::Llama2c { model, cache } => {
                let logits = model.forward(&input, 0, cache)?;
                Ok(logits.squeeze(0)?.to_vec2()?)
            }
            // This model gives the logits of the last position only: one token at a time.
            Model::Llama { model, config } => {
                let mut cache = llama::Cache::new(true, DType::F32, config, &Device::Cpu)?;
                let step = |position| {
                    let logits = model.forward(&input.narrow(1, position, 1)?, position, &mut cache)?;
                    Ok(logits.squeeze(0)?.to_vec1()?)
                };
                (0..tokens.len()).map(step).collect()
            }
        }
    }
}

/// All tensors in `f32`. Reading them checks names and shapes: candle's models unwrap what they do not find.
fn tensors(checkpoint: &Checkpoint) -> Result<HashMap<String, Tensor>, ReferenceError> {
    let mut tensors = HashMap::new();
    for (name, shape) in checkpoint.shape.tensors() {
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
        (shape.rope_theta as f64).powf(-(pair as f64) / half as f64) / f64::from(f32::from_bits(factor))
    };
    let frequencies: Vec<f64> = factors.into_iter().enumerate().map(frequency).collect();
    let table = |name: &str, function: fn(f64) -> f64| {
        let angle = |i: usize| (i / half) as f64 * frequencies[i % half];
        let values = (0..context * half).map(|i| function(angle(i)) as f32).collect();
        Ok::<_, ReferenceError>((name.to_owned(), Tensor::from_vec(values, (context, half), &Device::Cpu)?))
    };
    Ok([table("freq_cis_real", f64::cos)?, table("freq_cis_imag", f64::sin)?])
}

/// The epsilon as candle takes it; Q32 is exact in a double, and off the configured value by at most `2^-33`.
fn epsilon(shape: &Hyperparameters) -> f64 {
    shape.norm_epsilon_q32 as f64 / (1u64 << 32) as f64
}

fn llama2c_config(shape: &Hyperparameters) -> llama2_c::Config {
    llama2_c::Config {
        dim: shape.hidden,
        hidden_dim: shape.intermediate,
        n_layers: shape.layers,
        n_heads: shape.heads,
        n_kv_heads: shape.kv_heads,
        vocab_size: shape.vocabulary,
        seq_len: shape.context,
        norm_eps: epsilon(shape),
    }
}

fn llama_config(shape: &Hyperparameters) -> llama::Config {
    llama::Config {
        hidden_size: shape.hidden,
        intermediate_size: shape.intermediate,
        vocab_size: shape.vocabulary,
        num_hidden_layers: shape.layers,
        num_attention_heads: shape.heads,
        num_key_value_heads: shape.kv_heads,
        use_flash_attn: false,
        rms_norm_eps: epsilon(shape),
        rope_theta: shape.rope_theta as f32,
        bos_token_id: None,
        eos_token_id: None,
        rope_scaling: None,
        max_position_embeddings: shape.context,
        tie_word_embeddings: shape.tied,
    }
}

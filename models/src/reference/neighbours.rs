//! candle's llama2.c model: the one that rotates neighbouring channels.

use candle_nn::VarBuilder;
use candle_transformers::models::llama2_c;

use super::ReferenceError;
use super::models::Float;
use crate::import::Hyperparameters;

pub(super) fn load(shape: &Hyperparameters, variables: VarBuilder<'static>) -> Result<Float, ReferenceError> {
    let config = llama2_c::Config {
        dim: shape.hidden,
        hidden_dim: shape.intermediate,
        n_layers: shape.layers,
        n_heads: shape.heads,
        n_kv_heads: shape.kv_heads,
        vocab_size: shape.vocabulary,
        seq_len: shape.context,
        // Q32 is exact in a double, and off the configured value by at most `2^-33`.
        norm_eps: shape.norm_epsilon_q32 as f64 / (1u64 << 32) as f64,
    };
    let cache = llama2_c::Cache::new(false, &config, variables.clone())?;
    Ok(Float::Llama2c { model: Box::new(llama2_c::Llama::load(variables, config)?), cache })
}

//! candle's model of each family.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::{Linear, Module, VarBuilder};
use candle_transformers::models::{bert, gemma, gemma2, gemma3, llama, llama2_c, mistral, qwen2, qwen3};
use serde_json::Value;

use super::ReferenceError;
use super::gpt2::Gpt2;
use crate::import::{Hyperparameters, ImportError};

/// A float model.
#[derive(Debug)]
pub(super) enum Float {
    Llama2c { model: Box<llama2_c::Llama>, cache: llama2_c::Cache },
    Llama { model: Box<llama::Llama>, config: llama::Config },
    Mistral(Box<mistral::Model>),
    Qwen2(Box<qwen2::ModelForCausalLM>),
    Qwen3(Box<qwen3::ModelForCausalLM>),
    Gemma(Box<gemma::Model>),
    Gemma2(Box<gemma2::Model>),
    Gemma3(Box<gemma3::Model>),
    Gpt2(Box<Gpt2>),
    Bert { model: Box<Opaque<bert::BertModel>>, head: Option<[Linear; 2]> },
}

/// A type without `Debug`.
pub(super) struct Opaque<T>(T);

impl<T> std::fmt::Debug for Opaque<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(std::any::type_name::<T>())
    }
}

impl Float {
    /// The model of a Hugging Face folder, whose `config.json` candle reads itself.
    pub(super) fn hugging_face(
        folder: &Path,
        shape: &Hyperparameters,
        variables: VarBuilder<'static>,
    ) -> Result<Self, ReferenceError> {
        let path = folder.join("config.json");
        let config = std::fs::read(&path).map_err(ImportError::io(&path))?;
        let mut config: Value = serde_json::from_slice(&config)?;
        let has_own_head_dim = shape.head_dim * shape.heads != shape.hidden;
        let own_head_dim = ReferenceError::Unsupported("head dimension of its own");
        if shape.variant.score_divisor.is_some() {
            return Err(ReferenceError::Unsupported("query_pre_attn_scalar other than the head dimension"));
        }
        // candle insists on fields that have defaults elsewhere.
        let defaults = [
            ("attention_bias", Value::from(false)),
            ("num_key_value_heads", Value::from(shape.kv_heads)),
            ("head_dim", Value::from(shape.head_dim)),
            ("tie_word_embeddings", Value::from(shape.tied)),
            ("max_window_layers", Value::from(shape.layers)),
            ("use_sliding_window", Value::from(false)),
        ];
        if let Some(fields) = config.as_object_mut() {
            for (field, value) in defaults {
                fields.entry(field).or_insert(value);
            }
        }
        Ok(match config["model_type"].as_str().unwrap_or_default() {
            "llama" if has_own_head_dim => return Err(own_head_dim),
            "llama" => {
                let config: llama::LlamaConfig = serde_json::from_value(config)?;
                let config = config.into_config(false);
                Self::Llama { model: Box::new(llama::Llama::load(variables, &config)?), config }
            }
            "mistral" => {
                Self::Mistral(Box::new(mistral::Model::new(&serde_json::from_value(config)?, variables)?))
            }
            "qwen2" if has_own_head_dim => return Err(own_head_dim),
            "qwen2" => {
                // Both windows are unused, and the first must be a number.
                config["sliding_window"] = shape.context.into();
                Self::Qwen2(Box::new(qwen2::ModelForCausalLM::new(
                    &serde_json::from_value(config)?,
                    variables,
                )?))
            }
            "qwen3" => Self::Qwen3(Box::new(qwen3::ModelForCausalLM::new(
                &serde_json::from_value(config)?,
                variables,
            )?)),
            "gemma" => {
                // candle wants one of the two names of the activation.
                if let Some(fields) = config.as_object_mut() {
                    fields.remove("hidden_act");
                }
                config["hidden_activation"] = "gelu_pytorch_tanh".into();
                Self::Gemma(Box::new(gemma::Model::new(false, &serde_json::from_value(config)?, variables)?))
            }
            "gemma2" => Self::Gemma2(Box::new(gemma2::Model::new(
                false,
                &serde_json::from_value(config)?,
                variables,
            )?)),
            "gemma3_text" => Self::Gemma3(Box::new(gemma3::Model::new(
                false,
                &serde_json::from_value(config)?,
                variables,
            )?)),
            "gpt2" => Self::Gpt2(Box::new(Gpt2::new(shape, variables))),
            "bert" => Self::bert(shape, config, variables)?,
            _ => return Err(ReferenceError::Unsupported("such family")),
        })
    }

    fn bert(shape: &Hyperparameters, config: Value, vb: VarBuilder<'static>) -> Result<Self, ReferenceError> {
        let config: bert::Config = serde_json::from_value(config)?;
        let classes = shape.variant.classes.len();
        let prefix = if vb.contains_tensor("bert.embeddings.word_embeddings.weight") { "bert." } else { "" };
        let linear = |name: &str, outputs: usize| {
            let weight = vb.get((outputs, shape.hidden), &format!("{name}.weight"))?;
            Ok::<_, ReferenceError>(Linear::new(weight, Some(vb.get(outputs, &format!("{name}.bias"))?)))
        };
        let head = (classes > 0).then(|| {
            Ok::<_, ReferenceError>([
                linear(&format!("{prefix}pooler.dense"), shape.hidden)?,
                linear("classifier", classes)?,
            ])
        });
        let head = head.transpose()?;
        let vb = if prefix.is_empty() { vb } else { vb.pp("bert") };
        Ok(Self::Bert { model: Box::new(Opaque(bert::BertModel::load(vb, &config)?)), head })
    }

    /// The logits after each token of `[1, tokens]`.
    pub(super) fn logits(&mut self, input: &Tensor) -> Result<Vec<Vec<f32>>, ReferenceError> {
        match self {
            Self::Llama2c { model, cache } => Ok(model.forward(input, 0, cache)?.squeeze(0)?.to_vec2()?),
            Self::Gpt2(model) => Ok(model.forward(input)?.to_vec2()?),
            Self::Bert { .. } => Err(ReferenceError::Unsupported("logits of the next token")),
            _ => self.steps(input),
        }
    }

    /// These models give the logits of the last position only: one token at a time.
    fn steps(&mut self, input: &Tensor) -> Result<Vec<Vec<f32>>, ReferenceError> {
        let mut cache = match self {
            Self::Llama { config, .. } => Some(llama::Cache::new(true, DType::F32, config, &Device::Cpu)?),
            _ => None,
        };
        self.forget();
        let mut logits = Vec::new();
        for position in 0..input.dim(1)? {
            let token = input.narrow(1, position, 1)?;
            let step = match (&mut *self, &mut cache) {
                (Self::Llama { model, .. }, Some(cache)) => model.forward(&token, position, cache)?,
                (Self::Mistral(model), _) => model.forward(&token, position)?,
                (Self::Qwen2(model), _) => model.forward(&token, position)?,
                (Self::Qwen3(model), _) => model.forward(&token, position)?,
                (Self::Gemma(model), _) => model.forward(&token, position)?,
                (Self::Gemma2(model), _) => model.forward(&token, position)?,
                (Self::Gemma3(model), _) => model.forward(&token, position)?,
                _ => return Err(ReferenceError::Unsupported("steps")),
            };
            logits.push(step.flatten_all()?.to_vec1()?);
        }
        Ok(logits)
    }

    fn forget(&mut self) {
        match self {
            Self::Mistral(model) => model.clear_kv_cache(),
            Self::Qwen2(model) => model.clear_kv_cache(),
            Self::Qwen3(model) => model.clear_kv_cache(),
            Self::Gemma(model) => model.clear_kv_cache(),
            Self::Gemma2(model) => model.clear_kv_cache(),
            Self::Gemma3(model) => model.clear_kv_cache(),
            _ => {}
        }
    }

    /// An encoder's hidden states `[1, tokens, hidden]`.
    pub(super) fn hidden(&mut self, input: &Tensor) -> Result<Tensor, ReferenceError> {
        match self {
            Self::Bert { model, .. } => Ok(model.0.forward(input, &input.zeros_like()?, None)?),
            _ => Err(ReferenceError::Unsupported("encoder")),
        }
    }

    /// A classifier's logits.
    pub(super) fn classify(&mut self, input: &Tensor) -> Result<Vec<f32>, ReferenceError> {
        let hidden = self.hidden(input)?;
        match self {
            Self::Bert { head: Some([pooler, classifier]), .. } => {
                let first = pooler.forward(&hidden.narrow(1, 0, 1)?)?.tanh()?;
                Ok(classifier.forward(&first)?.flatten_all()?.to_vec1()?)
            }
            _ => Err(ReferenceError::Unsupported("classifier")),
        }
    }
}

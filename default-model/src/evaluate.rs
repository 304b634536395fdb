//! Scores a checkpoint in floating point with candle's own Llama, which shares no code with the training
//! graph: it is the reference that the stored weights are read by.

use crate::tokenizer::{self, EOS_ID, TokenizerError};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::llama::{Cache, Llama, LlamaConfig};
use std::path::{Path, PathBuf};
use tokenizers::Tokenizer;

/// No canonical command needs more tokens than this.
pub const LONGEST_ANSWER: usize = 48;

/// A checkpoint, ready to answer.
#[derive(Debug)]
pub struct Checkpoint {
    tokenizer: Tokenizer,
    model: Llama,
    cache: Cache,
}

impl Checkpoint {
    /// Reads `tokenizer.json`, `config.json` and `model.safetensors` of `folder`.
    ///
    /// # Errors
    /// A missing or broken file.
    pub fn load(folder: &Path) -> Result<Self, EvaluationError> {
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path).map_err(|source| EvaluationError::File(path, source))
        };
        let tokenizer = Tokenizer::from_bytes(read("tokenizer.json")?)
            .map_err(|problem| EvaluationError::BadTokenizer(problem.to_string()))?;
        let config: LlamaConfig = serde_json::from_slice(&read("config.json")?)?;
        let config = config.into_config(false);
        let weights =
            VarBuilder::from_buffered_safetensors(read("model.safetensors")?, DType::F32, &Device::Cpu)?;
        let model = Llama::load(weights, &config)?;
        let cache = Cache::new(true, DType::F32, &config, &Device::Cpu)?;
        Ok(Self { tokenizer, model, cache })
    }

    /// The greedy answer to `instruction`.
    ///
    /// # Errors
    /// What the tokenizer and candle report.
    pub fn answer(&self, instruction: &str) -> Result<String, EvaluationError> {
        let mut cache = self.cache.clone();
        let mut input = tokenizer::prompt(&self.tokenizer, instruction)?;
        let (mut position, mut answer) = (0, Vec::new());
        while answer.len() < LONGEST_ANSWER {
            let tokens = Tensor::from_slice(&input, (1, input.len()), &Device::Cpu)?;
            let logits = self.model.forward(&tokens, position, &mut cache)?;
            let next = logits.squeeze(0)?.argmax(0)?.to_scalar::<u32>()?;
            if next == EOS_ID {
                break;
            }
            answer.push(next);
            position += input.len();
            input = vec![next];
        }
        Ok(tokenizer::decode(&self.tokenizer, &answer)?)
    }
}

/// The checkpoint could not be read or run.
#[derive(Debug, thiserror::Error)]
pub enum EvaluationError {
    /// A file could not be read.
    #[error("{0}: {1}")]
    File(PathBuf, std::io::Error),
    /// `tokenizer.json` is none.
    #[error("tokenizer.json: {0}")]
    BadTokenizer(String),
    /// `config.json` is none.
    #[error("config.json: {0}")]
    BadConfig(#[from] serde_json::Error),
    /// A tensor operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// The tokenizer failed.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

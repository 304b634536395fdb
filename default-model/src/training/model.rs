//! The model while it is trained: a Llama whose projections are fused, on ragged batches.

use super::batch::Batch;
use super::ops::{Attention, CrossEntropy, RmsNorm, SwiGlu};
use candle_core::{DType, Device, Result, Tensor, Var};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// The shape of the model, as `config.json` has it (the keys of Hugging Face's `LlamaConfig`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// `["LlamaForCausalLM"]`
    pub architectures: Vec<String>,
    /// `"llama"`
    pub model_type: String,
    /// `"silu"`
    pub hidden_act: String,
    /// Tokens of the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads.
    pub num_key_value_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Longest sequence.
    pub max_position_embeddings: usize,
    /// Added to the mean square.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f32,
    /// The output layer is the embedding.
    pub tie_word_embeddings: bool,
    /// No projection has a bias.
    pub attention_bias: bool,
    /// The prompt's first token.
    pub bos_token_id: u32,
    /// The answer's last token.
    pub eos_token_id: u32,
    /// The type of the stored weights.
    pub torch_dtype: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            architectures: vec!["LlamaForCausalLM".to_owned()],
            model_type: "llama".to_owned(),
            hidden_act: "silu".to_owned(),
            vocab_size: crate::tokenizer::VOCABULARY,
            hidden_size: 128,
            intermediate_size: 352,
            num_hidden_layers: 4,
            num_attention_heads: 4,
            num_key_value_heads: 4,
            head_dim: 32,
            max_position_embeddings: 192,
            rms_norm_eps: 1e-5,
            rope_theta: 10_000.0,
            tie_word_embeddings: true,
            attention_bias: false,
            bos_token_id: crate::tokenizer::BOS_ID,
            eos_token_id: crate::tokenizer::EOS_ID,
            torch_dtype: "bfloat16".to_owned(),
        }
    }
}

/// The weights in training, and the forward pass over them.
#[derive(Debug, Clone)]
pub struct Model {
    /// The shape.
    pub config: Config,
    embedding: Var,
    layers: Vec<Layer>,
    norm: Var,
    angles: Arc<[f32]>,
}

#[derive(Debug, Clone)]
struct Layer {
    input_norm: Var,
    /// Queries, keys and values, one above the other.
    qkv: Var,
    output: Var,
    post_norm: Var,
    /// The gate above the up projection.
    gate_up: Var,
    down: Var,
}

impl Model {
    /// A model with random weights from `rng`.
    ///
    /// # Errors
    /// What candle reports.
    pub fn random(config: Config, rng: &mut ChaCha8Rng) -> Result<Self> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let queries = config.num_attention_heads * config.head_dim;
        let qkv = queries + 2 * config.num_key_value_heads * config.head_dim;
        let std = 0.08;
        // Projections into the residual stream start smaller, so that depth does not make it grow.
        let residual = std / (2.0 * config.num_hidden_layers as f32).sqrt();
        let embedding = normal(rng, (config.vocab_size, hidden), 0.05)?;
        let layers = (0..config.num_hidden_layers)
            .map(|_| {
                Ok(Layer {
                    input_norm: Var::ones(hidden, DType::F32, &Device::Cpu)?,
                    qkv: normal(rng, (qkv, hidden), std)?,
                    output: normal(rng, (hidden, queries), residual)?,
                    post_norm: Var::ones(hidden, DType::F32, &Device::Cpu)?,
                    gate_up: normal(rng, (2 * inner, hidden), std)?,
                    down: normal(rng, (hidden, inner), residual)?,
                })
            })
            .collect::<Result<_>>()?;
        let norm = Var::ones(hidden, DType::F32, &Device::Cpu)?;
        let angles = angles(&config);
        Ok(Self { config, embedding, layers, norm, angles })
    }

    /// The model that [`save`](Self::save) wrote into `folder`, ready to be trained further.
    ///
    /// # Errors
    /// A missing or broken file, or one whose shapes are not those of its configuration.
    pub fn load(folder: &Path) -> Result<Self> {
        let config = std::fs::read(folder.join("config.json"))?;
        let config: Config = serde_json::from_slice(&config).map_err(candle_core::Error::wrap)?;
        let model = Self::random(config, &mut ChaCha8Rng::seed_from_u64(0))?;
        let tensors = candle_core::safetensors::load(folder.join("model.safetensors"), &Device::Cpu)?;
        let set = |var: &Var, names: &[String]| -> Result<()> {
            let parts = names.iter().map(|name| match tensors.get(name) {
                Some(tensor) => tensor.to_dtype(DType::F32),
                None => candle_core::bail!("no tensor {name} in {}", folder.display()),
            });
            var.set(&Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 0)?)
        };
        set(&model.embedding, &["model.embed_tokens.weight".to_owned()])?;
        set(&model.norm, &["model.norm.weight".to_owned()])?;
        for (at, layer) in model.layers.iter().enumerate() {
            let name = |part: &str| format!("model.layers.{at}.{part}.weight");
            set(&layer.input_norm, &[name("input_layernorm")])?;
            set(&layer.qkv, &["q", "k", "v"].map(|part| name(&format!("self_attn.{part}_proj"))))?;
            set(&layer.output, &[name("self_attn.o_proj")])?;
            set(&layer.post_norm, &[name("post_attention_layernorm")])?;
            set(&layer.gate_up, &["gate", "up"].map(|part| name(&format!("mlp.{part}_proj"))))?;
            set(&layer.down, &[name("mlp.down_proj")])?;
        }
        Ok(model)
    }

    /// All trained weights, in a fixed order.
    #[must_use]
    pub fn parameters(&self) -> Vec<&Var> {
        let layers = self.layers.iter().flat_map(|layer| {
            [&layer.input_norm, &layer.qkv, &layer.output, &layer.post_norm, &layer.gate_up, &layer.down]
        });
        [&self.embedding, &self.norm].into_iter().chain(layers).collect()
    }

    /// The logits at every position of `batch` that predicts a token of an answer:
    /// `[answer tokens, vocabulary]`.
    ///
    /// # Errors
    /// What candle reports.
    pub fn logits(&self, batch: &Batch) -> Result<Tensor> {
        let eps = self.config.rms_norm_eps as f32;
        let predicting = Tensor::from_slice(&batch.predicting, batch.predicting.len(), &Device::Cpu)?;
        let mut x = self
            .embedding
            .index_select(&Tensor::from_slice(&batch.tokens, batch.tokens.len(), &Device::Cpu)?, 0)?;
        for (at, layer) in self.layers.iter().enumerate() {
            let attention = Attention {
                lengths: batch.lengths.clone(),
                heads: self.config.num_attention_heads,
                kv_heads: self.config.num_key_value_heads,
                head_dim: self.config.head_dim,
                angles: self.angles.clone(),
            };
            let normed = x.apply_op2(&layer.input_norm, RmsNorm { eps })?;
            let mut mixed = normed.matmul(&layer.qkv.t()?)?.apply_op1(attention)?;
            if at + 1 == self.layers.len() {
                // Beyond the last attention only the predicting rows matter.
                mixed = mixed.index_select(&predicting, 0)?;
                x = x.index_select(&predicting, 0)?;
            }
            x = (x + mixed.matmul(&layer.output.t()?)?)?;
            let normed = x.apply_op2(&layer.post_norm, RmsNorm { eps })?;
            let inner = normed.matmul(&layer.gate_up.t()?)?.apply_op1(SwiGlu)?;
            x = (x + inner.matmul(&layer.down.t()?)?)?;
        }
        x.apply_op2(&self.norm, RmsNorm { eps })?.matmul(&self.embedding.t()?)
    }

    /// The sum of the losses over the answers of `batch`.
    ///
    /// # Errors
    /// What candle reports.
    pub fn loss(&self, batch: &Batch) -> Result<Tensor> {
        self.logits(batch)?.apply_op1(CrossEntropy { targets: batch.targets.clone() })
    }

    /// Writes `model.safetensors` in bfloat16 and `config.json` into `folder`.
    ///
    /// # Errors
    /// What candle and the file system report.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let mut tensors: HashMap<String, Tensor> = HashMap::new();
        let mut put = |name: String, tensor: Tensor| -> Result<()> {
            tensors.insert(name, tensor.to_dtype(DType::BF16)?.contiguous()?);
            Ok(())
        };
        put("model.embed_tokens.weight".to_owned(), self.embedding.as_tensor().clone())?;
        put("model.norm.weight".to_owned(), self.norm.as_tensor().clone())?;
        let queries = self.config.num_attention_heads * self.config.head_dim;
        let keys = self.config.num_key_value_heads * self.config.head_dim;
        let inner = self.config.intermediate_size;
        for (at, layer) in self.layers.iter().enumerate() {
            let name = |part: &str| format!("model.layers.{at}.{part}.weight");
            put(name("input_layernorm"), layer.input_norm.as_tensor().clone())?;
            put(name("post_attention_layernorm"), layer.post_norm.as_tensor().clone())?;
            put(name("self_attn.q_proj"), layer.qkv.narrow(0, 0, queries)?)?;
            put(name("self_attn.k_proj"), layer.qkv.narrow(0, queries, keys)?)?;
            put(name("self_attn.v_proj"), layer.qkv.narrow(0, queries + keys, keys)?)?;
            put(name("self_attn.o_proj"), layer.output.as_tensor().clone())?;
            put(name("mlp.gate_proj"), layer.gate_up.narrow(0, 0, inner)?)?;
            put(name("mlp.up_proj"), layer.gate_up.narrow(0, inner, inner)?)?;
            put(name("mlp.down_proj"), layer.down.as_tensor().clone())?;
        }
        // A half-written checkpoint must not replace a good one.
        let partial = folder.join("model.safetensors.partial");
        candle_core::safetensors::save(&tensors, &partial)?;
        std::fs::rename(&partial, folder.join("model.safetensors"))?;
        let config = serde_json::to_string_pretty(&self.config).map_err(candle_core::Error::wrap)?;
        std::fs::write(folder.join("config.json"), config + "\n")?;
        Ok(())
    }
}

/// Normal values by Box and Muller: candle's own generator on the CPU takes no seed.
fn normal(rng: &mut ChaCha8Rng, shape: (usize, usize), std: f32) -> Result<Var> {
    let data = (0..shape.0 * shape.1)
        .map(|_| {
            let (u, v): (f32, f32) = (1.0 - rng.random::<f32>(), rng.random());
            (-2.0 * u.ln()).sqrt() * (std::f32::consts::TAU * v).cos() * std
        })
        .collect();
    Var::from_vec(data, shape, &Device::Cpu)
}

/// The cosines, then the sines, of every position: `head_dim` values per position.
fn angles(config: &Config) -> Arc<[f32]> {
    let half = config.head_dim / 2;
    let mut out = Vec::with_capacity(config.max_position_embeddings * config.head_dim);
    for position in 0..config.max_position_embeddings {
        let angle =
            |i: usize| position as f32 / config.rope_theta.powf((2 * i) as f32 / config.head_dim as f32);
        out.extend((0..half).map(|i| angle(i).cos()));
        out.extend((0..half).map(|i| angle(i).sin()));
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::batch::Encoded;
    use candle_nn::VarBuilder;
    use candle_transformers::models::llama::{Cache, Llama, LlamaConfig};

    /// The training graph and candle's own Llama agree on the stored weights, up to their rounding.
    #[test]
    fn the_saved_model_is_a_hugging_face_llama() {
        let config = Config { num_key_value_heads: 2, ..Config::default() };
        let model = Model::random(config, &mut ChaCha8Rng::seed_from_u64(1)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        model.save(folder.path()).unwrap();

        let again = Model::load(folder.path()).unwrap();
        for (saved, loaded) in model.parameters().into_iter().zip(again.parameters()) {
            let difference =
                (saved.as_tensor() - loaded.as_tensor()).unwrap().abs().unwrap().max_all().unwrap();
            assert!(difference.to_scalar::<f32>().unwrap() < 0.01);
        }

        let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
        let config: LlamaConfig = serde_json::from_slice(&read("config.json")).unwrap();
        let config = config.into_config(false);
        let weights = read("model.safetensors");
        let weights = VarBuilder::from_buffered_safetensors(weights, DType::F32, &Device::Cpu).unwrap();
        let llama = Llama::load(weights, &config).unwrap();

        let prompts = [vec![0, 300, 7, 301, 2], vec![0, 9, 400, 2], vec![0, 77, 500, 600, 30, 44, 2]];
        let examples = prompts.clone().map(|prompt| Encoded { prompt, answer: vec![1] });
        let logits = model.logits(&Batch::new(&examples)).unwrap().to_vec2::<f32>().unwrap();
        for (prompt, ours) in prompts.iter().zip(logits) {
            let mut cache = Cache::new(false, DType::F32, &config, &Device::Cpu).unwrap();
            let tokens = Tensor::new(prompt.as_slice(), &Device::Cpu).unwrap().unsqueeze(0).unwrap();
            let theirs = llama.forward(&tokens, 0, &mut cache).unwrap();
            let theirs = theirs.squeeze(0).unwrap().to_vec1::<f32>().unwrap();
            for (ours, theirs) in ours.iter().zip(&theirs) {
                assert!((ours - theirs).abs() < 0.05, "{ours} {theirs}");
            }
            assert!(theirs.iter().any(|logit| logit.abs() > 0.2), "the comparison says something");
        }
    }
}

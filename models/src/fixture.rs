//! A tiny random checkpoint for tests: nothing to download, the same on every machine.

mod families;
mod gguf;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

use crate::bundle::BundleParts;
use crate::import::{ImportError, Options, ProgressBar, Source, convert};
use crate::synthetic::{splitmix64, tokenizer_json};

pub use candle_core::quantized::GgmlDType;
pub use families::{FamilyFixture, families, word_piece};
pub use gguf::gguf_file;
#[cfg(test)]
pub(crate) use gguf::gguf_name;

/// The shape of a fixture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fixture {
    /// Where the weights come from.
    pub seed: u64,
    /// Whether the embedding is the head.
    pub tied: bool,
    /// Number of tokens: at least [`TOKENS`](crate::synthetic::TOKENS).
    pub vocabulary: usize,
    /// Width.
    pub hidden: usize,
    /// Width of the gated layer.
    pub intermediate: usize,
    /// Layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key-value heads.
    pub kv_heads: usize,
    /// Context.
    pub context: usize,
}

impl Default for Fixture {
    fn default() -> Self {
        Self {
            seed: 1,
            tied: true,
            vocabulary: 300,
            hidden: 64,
            intermediate: 96,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            context: 128,
        }
    }
}

impl Fixture {
    /// Writes `config.json`, `tokenizer.json` and `model.safetensors` into `folder`.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("config.json"), self.config().to_string())?;
        fs::write(folder.join("tokenizer.json"), tokenizer_json().to_string())?;
        fs::write(folder.join("model.safetensors"), self.weights())
    }

    /// The bundle of this checkpoint, imported through `folder`.
    pub fn bundle(&self, folder: &Path) -> Result<BundleParts, ImportError> {
        self.write(folder).map_err(ImportError::io(folder))?;
        let options = Options { name: Some("fixture".into()), ..Options::default() };
        convert(&Source::HuggingFace(folder.to_owned()), &options, &ProgressBar::hidden())
    }

    /// `config.json`.
    pub fn config(&self) -> Value {
        json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "max_position_embeddings": self.context,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "rope_scaling": null,
            "hidden_act": "silu",
            "attention_bias": false,
            "mlp_bias": false,
            "tie_word_embeddings": self.tied,
            "bos_token_id": 1,
            "eos_token_id": 2,
        })
    }

    /// `model.safetensors`, in `f32`.
    pub fn weights(&self) -> Vec<u8> {
        let mut random = self.seed;
        let tensors: BTreeMap<String, (Vec<usize>, Vec<u8>)> = self
            .shapes()
            .into_iter()
            .map(|(name, shape)| {
                let gain = name.contains("norm");
                let bytes = (0..shape.iter().product::<usize>())
                    .flat_map(|_| weight(splitmix64(&mut random), gain).to_le_bytes())
                    .collect();
                (name, (shape, bytes))
            })
            .collect();
        let views = tensors.iter().map(|(name, (shape, bytes))| {
            (name, TensorView::new(Dtype::F32, shape.clone(), bytes).expect("a tensor has its shape"))
        });
        safetensors::serialize(views, None).expect("distinct tensors serialise")
    }

    fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        let head_dim = self.hidden / self.heads;
        let (kv, hidden, intermediate) = (self.kv_heads * head_dim, self.hidden, self.intermediate);
        let mut shapes = vec![
            ("model.embed_tokens.weight".to_owned(), vec![self.vocabulary, hidden]),
            ("model.norm.weight".to_owned(), vec![hidden]),
        ];
        if !self.tied {
            shapes.push(("lm_head.weight".to_owned(), vec![self.vocabulary, hidden]));
        }
        for layer in 0..self.layers {
            let layer_shapes = [
                ("input_layernorm", vec![hidden]),
                ("self_attn.q_proj", vec![hidden, hidden]),
                ("self_attn.k_proj", vec![kv, hidden]),
                ("self_attn.v_proj", vec![kv, hidden]),
                ("self_attn.o_proj", vec![hidden, hidden]),
                ("post_attention_layernorm", vec![hidden]),
                ("mlp.gate_proj", vec![intermediate, hidden]),
                ("mlp.up_proj", vec![intermediate, hidden]),
                ("mlp.down_proj", vec![hidden, intermediate]),
            ];
            shapes.extend(
                layer_shapes.map(|(name, shape)| (format!("model.layers.{layer}.{name}.weight"), shape)),
            );
        }
        shapes
    }
}

/// The bits of a single in `+-[1/8, 1/4)`, or of a gain in `[1, 2)`: random fraction, fixed exponent, no arithmetic.
const fn weight(random: u64, gain: bool) -> u32 {
    let (fraction, sign) = ((random >> 41) as u32, (random & 1) as u32);
    if gain { 127 << 23 | fraction } else { sign << 31 | 124 << 23 | fraction }
}

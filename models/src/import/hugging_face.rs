//! Hugging Face folders of the Llama family: `config.json` and safetensors in `f32`, `f16` or `bf16`, whole or sharded.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use candle_core::DType;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::checkpoint::StoredTensor;
use super::{Checkpoint, Hyperparameters, ImportError, RotaryPairs, numbers};
use crate::bundle::{FileBytes, MAX_LAYERS};

/// The whole checkpoint in one file.
const SINGLE_FILE: &str = "model.safetensors";
/// Which shard holds which tensor.
const INDEX_FILE: &str = "model.safetensors.index.json";
/// Most shards of a checkpoint.
const MAX_SHARDS: usize = 1_024;
/// Tables that old exports carry along; they follow from `rope_theta`.
const DERIVED_SUFFIX: &str = ".rotary_emb.inv_freq";

/// Opens a folder.
pub(super) fn open(folder: &Path) -> Result<Checkpoint, ImportError> {
    let config_path = folder.join("config.json");
    let config: Config = read_json(&config_path)?;
    let shape = config.hyperparameters(&config_path)?;
    let mut checkpoint = Checkpoint { shape, files: Vec::new(), tensors: HashMap::new() };
    for path in weight_files(folder)? {
        add_file(&mut checkpoint, &path)?;
    }
    refuse_unknown(&checkpoint)?;
    Ok(checkpoint)
}

/// The fields of `config.json` that decide what is computed; the defaults are those of `transformers`' `LlamaConfig`.
#[derive(Debug, Deserialize)]
struct Config {
    model_type: Option<String>,
    #[serde(default)]
    architectures: Vec<String>,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: usize,
    rms_norm_eps: Option<f64>,
    hidden_act: Option<String>,
    #[serde(default)]
    tie_word_embeddings: bool,
    rope_theta: Option<f64>,
    rope_scaling: Option<serde_json::Value>,
    rope_parameters: Option<RopeParameters>,
    #[serde(default)]
    rope_interleaved: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    sliding_window: Option<usize>,
    eos_token_id: Option<EosTokens>,
}

/// Where newer versions of `transformers` keep the base of RoPE.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RopeParameters {
    rope_theta: Option<f64>,
    #[serde(alias = "type")]
    rope_type: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum EosTokens {
    One(u32),
    Many(Vec<u32>),
}

impl Config {
    fn hyperparameters(self, path: &Path) -> Result<Hyperparameters, ImportError> {
        self.refuse_variants()?;
        let wrong = |reason: String| ImportError::format(path, reason);
        let (hidden, heads) = (self.hidden_size, self.num_attention_heads);
        let head_dim = match self.head_dim {
            Some(head_dim) => head_dim,
            None if heads > 0 && hidden.is_multiple_of(heads) => hidden / heads,
            None => return Err(wrong(format!("{heads} heads do not divide a width of {hidden}"))),
        };
        let epsilon = self.rms_norm_eps.unwrap_or(1e-6);
        let parameters = self.rope_parameters.and_then(|parameters| parameters.rope_theta);
        let theta = self.rope_theta.or(parameters).unwrap_or(10_000.0);
        // The bound keeps logarithms and exponents well inside their formats.
        let rope_theta = numbers::whole(theta).filter(|theta| (2..1 << 40).contains(theta));
        let mut eos = match self.eos_token_id {
            None => Vec::new(),
            Some(EosTokens::One(token)) => vec![token],
            Some(EosTokens::Many(tokens)) => tokens,
        };
        eos.sort_unstable();
        eos.dedup();
        if self.num_hidden_layers > MAX_LAYERS {
            return Err(wrong(format!("{} layers are more than {MAX_LAYERS}", self.num_hidden_layers)));
        }
        let shape = Hyperparameters {
            vocabulary: self.vocab_size,
            context: self.max_position_embeddings,
            hidden,
            intermediate: self.intermediate_size,
            layers: self.num_hidden_layers,
            heads,
            kv_heads: self.num_key_value_heads.unwrap_or(heads),
            head_dim,
            norm_epsilon_q32: numbers::epsilon_q32(epsilon)
                .ok_or_else(|| wrong(format!("an rms_norm_eps of {epsilon} is not between 0 and 1")))?,
            rope_theta: rope_theta.ok_or_else(|| {
                wrong(format!("a rope_theta of {theta} is not a whole number of 2 to 2^40"))
            })?,
            tied: self.tie_word_embeddings,
            eos,
            pairs: RotaryPairs::Halves,
        };
        shape.check().map_err(|error| wrong(error.to_string()))?;
        Ok(shape)
    }

    fn refuse_variants(&self) -> Result<(), ImportError> {
        let refuse = |what: String| Err(ImportError::unsupported(what));
        let architectures = self.architectures.join(", ");
        let model_type = self.model_type.as_deref().unwrap_or("(none)");
        let named =
            self.architectures.is_empty() || self.architectures.iter().any(|a| a == "LlamaForCausalLM");
        if model_type != "llama" || !named {
            return refuse(format!("architecture {architectures} (model_type {model_type})"));
        }
        let activation = self.hidden_act.as_deref().unwrap_or("silu");
        if activation != "silu" {
            return refuse(format!("hidden_act {activation}"));
        }
        if let Some(scaling) = self.rope_scaling.as_ref().filter(|scaling| !scaling.is_null()) {
            return refuse(format!("rope_scaling {scaling}"));
        }
        let rope_type =
            self.rope_parameters.as_ref().and_then(|p| p.rope_type.as_deref()).unwrap_or("default");
        if rope_type != "default" {
            return refuse(format!("rope_type {rope_type}"));
        }
        let flags = [
            ("rope_interleaved", self.rope_interleaved),
            ("attention_bias", self.attention_bias),
            ("mlp_bias", self.mlp_bias),
            ("sliding_window", self.sliding_window.is_some()),
        ];
        match flags.into_iter().find(|(_, set)| *set) {
            Some((flag, _)) => refuse(flag.to_owned()),
            None => Ok(()),
        }
    }
}

#[derive(Debug, Deserialize)]
struct ShardIndex {
    weight_map: HashMap<String, String>,
}

/// The files that hold the tensors, each once, in the order of their names.
fn weight_files(folder: &Path) -> Result<Vec<PathBuf>, ImportError> {
    let index = folder.join(INDEX_FILE);
    if folder.join(SINGLE_FILE).exists() || !index.exists() {
        return Ok(vec![folder.join(SINGLE_FILE)]);
    }
    let shards: ShardIndex = read_json(&index)?;
    let names: BTreeSet<String> = shards.weight_map.into_values().collect();
    if let Some(name) = names.iter().find(|name| Path::new(name).file_name() != Some(name.as_ref())) {
        return Err(ImportError::format(&index, format!("the shard {name:?} is not a plain file name")));
    }
    if names.is_empty() || names.len() > MAX_SHARDS {
        return Err(ImportError::format(&index, format!("{} shards", names.len())));
    }
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

fn add_file(checkpoint: &mut Checkpoint, path: &Path) -> Result<(), ImportError> {
    let file = FileBytes::map(path).map_err(ImportError::io(path))?;
    let (header, metadata) =
        SafeTensors::read_metadata(file.as_ref()).map_err(|error| ImportError::format(path, error))?;
    let data = 8 + header;
    for (name, info) in metadata.tensors() {
        let (start, end) = info.data_offsets;
        let tensor = StoredTensor {
            file: checkpoint.files.len(),
            bytes: data + start..data + end,
            storage: stored_type(info.dtype).into(),
            shape: info.shape.clone(),
        };
        if checkpoint.tensors.contains_key(&name) {
            return Err(ImportError::format(path, format!("tensor `{name}` is in another shard as well")));
        }
        checkpoint.tensors.insert(name, tensor);
    }
    checkpoint.files.push(file);
    Ok(())
}

/// candle's name for a type. Anything but the three floats is refused when the tensor is read.
const fn stored_type(dtype: Dtype) -> DType {
    match dtype {
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::F64 => DType::F64,
        Dtype::I64 | Dtype::U64 => DType::I64,
        Dtype::I32 | Dtype::U32 => DType::U32,
        _ => DType::U8,
    }
}

fn refuse_unknown(checkpoint: &Checkpoint) -> Result<(), ImportError> {
    let known: BTreeSet<String> = checkpoint.shape.tensors().into_iter().map(|(name, _)| name).collect();
    let ignored =
        |name: &str| name.ends_with(DERIVED_SUFFIX) || (checkpoint.shape.tied && name == "lm_head.weight");
    let unknown = checkpoint.tensors.keys().filter(|name| !known.contains(*name) && !ignored(name)).min();
    unknown.map_or(Ok(()), |name| Err(ImportError::UnknownTensor(name.clone())))
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, ImportError> {
    let bytes = std::fs::read(path).map_err(ImportError::io(path))?;
    serde_json::from_slice(&bytes).map_err(|error| ImportError::format(path, error))
}

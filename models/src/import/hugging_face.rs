//! Hugging Face folders: `config.json` and safetensors in `f32`, `f16` or `bf16`, whole or sharded.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use candle_core::DType;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::checkpoint::StoredTensor;
use super::names::{Names, used};
use super::smoothing::Folds;
use super::{Checkpoint, ImportError, config};
use crate::bundle::{Architecture, FileBytes, Pooling};

/// The whole checkpoint in one file.
const SINGLE_FILE: &str = "model.safetensors";
/// Which shard holds which tensor.
const INDEX_FILE: &str = "model.safetensors.index.json";
/// Most shards of a checkpoint.
const MAX_SHARDS: usize = 1_024;
/// How sentence-transformers pools.
const POOLING_FILE: &str = "1_Pooling/config.json";
/// Tables that old exports carry along: they follow from the configuration.
const DERIVED_SUFFIXES: [&str; 4] =
    [".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias", "embeddings.position_ids"];

/// Opens a folder.
pub(super) fn open(folder: &Path) -> Result<Checkpoint, ImportError> {
    let config_path = folder.join("config.json");
    let mut shape = config::read(&config_path, &read_json(&config_path)?)?;
    if shape.architecture == Architecture::Bert {
        shape.variant.pooling = pooling(folder)?;
    }
    let mut checkpoint =
        Checkpoint { shape, files: Vec::new(), tensors: HashMap::new(), folds: Folds::default() };
    for path in weight_files(folder)? {
        add_file(&mut checkpoint, &path)?;
    }
    find_prefix(&mut checkpoint);
    refuse_unknown(&checkpoint)?;
    Ok(checkpoint)
}

/// How sentence-transformers makes one vector of an encoder's tokens; the mean if the folder does not say.
fn pooling(folder: &Path) -> Result<Pooling, ImportError> {
    let path = folder.join(POOLING_FILE);
    if !path.exists() {
        return Ok(Pooling::Mean);
    }
    let modes: BTreeMap<String, Value> = read_json(&path)?;
    let chosen: Vec<&str> = modes
        .iter()
        .filter(|(mode, value)| mode.starts_with("pooling_mode_") && **value == Value::Bool(true))
        .map(|(mode, _)| mode.as_str())
        .collect();
    match chosen[..] {
        ["pooling_mode_mean_tokens"] => Ok(Pooling::Mean),
        ["pooling_mode_cls_token"] => Ok(Pooling::Cls),
        _ => Err(ImportError::unsupported(format!("pooling by {}", chosen.join(", ")))),
    }
}

/// Heads put a prefix before the names of the model below them.
fn find_prefix(checkpoint: &mut Checkpoint) {
    let has = |name: &str| checkpoint.tensors.contains_key(name);
    match &mut checkpoint.shape.names {
        Names::Gpt2 { prefix } if has("transformer.wte.weight") => *prefix = "transformer.",
        Names::Bert { prefix, .. } if has("bert.embeddings.word_embeddings.weight") => *prefix = "bert.",
        _ => {}
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
    let shape = &checkpoint.shape;
    let known: BTreeSet<String> = used(shape).into_iter().map(|(name, _)| name).collect();
    let ignored = |name: &str| {
        DERIVED_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
            || (shape.tied && name == "lm_head.weight")
            // Without a classifier, the first token's summary is not used.
            || (shape.architecture == Architecture::Bert && name.contains("pooler.dense."))
    };
    let unknown = checkpoint.tensors.keys().filter(|name| !known.contains(*name) && !ignored(name)).min();
    unknown.map_or(Ok(()), |name| Err(ImportError::UnknownTensor(name.clone())))
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, ImportError> {
    let bytes = std::fs::read(path).map_err(ImportError::io(path))?;
    serde_json::from_slice(&bytes).map_err(|error| ImportError::format(path, error))
}

//! The shape and the tensors of a GGUF file; what its architectures differ in is in [`families`](super::families).

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::families::{ARCHITECTURES, Architecture, EMBEDDING, HEAD, SEGMENTS};
use super::header::{Header, TensorInfo, Value};
use crate::bundle::{Architecture as Graph, MAX_LAYERS};
use crate::import::checkpoint::{ROPE_FACTORS, StoredTensor};
use crate::import::names::{Names, used};
use crate::import::{Hyperparameters, ImportError};

/// The keys of an architecture, after its name, that make its shape.
const SHAPE_KEYS: [&str; 7] = [
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "block_count",
    "vocab_size",
    "attention.head_count",
    "attention.head_count_kv",
];
/// Those that Llama and its relatives have besides.
const LLAMA_KEYS: [&str; 5] = [
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "rope.dimension_count",
    "rope.freq_base",
];
/// Keys whose value must be this one, with which they say nothing.
const NEUTRAL_KEYS: [(&str, Value<'_>); 6] = [
    ("attention.causal", Value::Bool(true)),
    ("expert_count", Value::Unsigned(0)),
    ("expert_used_count", Value::Unsigned(0)),
    ("rope.scaling.type", Value::String("none")),
    ("rope.scaling.finetuned", Value::Bool(false)),
    ("tensor_data_layout", Value::String("Meta AI original pth")),
];
/// Keys that a whole model has with one of these values, or not at all.
const WHOLE_MODEL: [(&str, &[Value<'_>]); 2] =
    [("general.type", &[Value::String("model")]), ("split.count", &[Value::Unsigned(0), Value::Unsigned(1)])];
/// Tokens that end a generation.
const EOS_KEYS: [&str; 3] =
    ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];

/// The shape and the tensors of a file, under Hugging Face's names.
pub(super) fn read(
    header: &Header<'_>,
    path: &Path,
) -> Result<(Hyperparameters, HashMap<String, StoredTensor>), ImportError> {
    refuse_other_files(header)?;
    let architecture = Architecture::of(header, path)?;
    architecture.refuse_variants(header)?;
    let shape = architecture.shape(header).map_err(|reason| ImportError::format(path, reason))?;
    let tensors = architecture.tensors(header, &shape)?;
    Ok((shape, tensors))
}

/// Adapters, projectors and parts of a model are GGUF files as well.
fn refuse_other_files(header: &Header<'_>) -> Result<(), ImportError> {
    for (key, whole) in WHOLE_MODEL {
        if let Some(value) = header.metadata.get(key).filter(|value| !whole.contains(value)) {
            return Err(ImportError::unsupported(format!("{key} {value}")));
        }
    }
    Ok(())
}

impl Architecture {
    fn of(header: &Header<'_>, path: &Path) -> Result<&'static Self, ImportError> {
        let Some(Value::String(name)) = header.metadata.get("general.architecture") else {
            return Err(ImportError::format(path, "there is no `general.architecture`"));
        };
        let known = ARCHITECTURES.iter().find(|architecture| architecture.name == *name);
        known.ok_or_else(|| {
            let names: Vec<&str> = ARCHITECTURES.iter().map(|architecture| architecture.name).collect();
            ImportError::unsupported(format!("GGUF architecture {name} (read are {})", names.join(", ")))
        })
    }

    /// A key that is not understood could mean another computation.
    fn refuse_variants(&self, header: &Header<'_>) -> Result<(), ImportError> {
        for (key, value) in &header.metadata {
            let Some(own) = key.strip_prefix(self.name).and_then(|key| key.strip_prefix('.')) else {
                continue;
            };
            let is_known = SHAPE_KEYS.contains(&own)
                || self.graph() == Graph::Llama && LLAMA_KEYS.contains(&own)
                || self.keys.contains(&own);
            if !is_known && !NEUTRAL_KEYS.contains(&(own, *value)) {
                return Err(ImportError::unsupported(format!("{key} {value}")));
            }
        }
        Ok(())
    }

    fn shape(&self, header: &Header<'_>) -> Result<Hyperparameters, String> {
        let keys = Keys { metadata: &header.metadata, prefix: self.name };
        let layers = keys.needed("block_count")?;
        if layers > MAX_LAYERS {
            return Err(format!("{layers} layers are more than {MAX_LAYERS}"));
        }
        let (hidden, heads) = (keys.needed("embedding_length")?, keys.needed("attention.head_count")?);
        let head_dim = match keys.size("attention.key_length")? {
            Some(head_dim) => head_dim,
            None if heads > 0 && hidden.is_multiple_of(heads) => hidden / heads,
            None => return Err(format!("{heads} heads do not divide a width of {hidden}")),
        };
        keys.agree("attention.value_length", head_dim)?;
        keys.agree("rope.dimension_count", head_dim)?;
        let embedding = header.tensors.get(EMBEDDING).and_then(|info| info.shape.first());
        let vocabulary = *embedding.ok_or_else(|| format!("there is no tensor `{EMBEDDING}`"))?;
        keys.agree("vocab_size", vocabulary)?;
        let variant = self.variant(&keys, hidden, heads, head_dim, layers)?;
        let graph = self.graph();
        let kv_heads = keys.size("attention.head_count_kv")?.unwrap_or(heads);
        if graph != Graph::Llama {
            keys.agree("attention.head_count_kv", heads)?;
        }
        let segments = || header.tensors.get(SEGMENTS).and_then(|info| info.shape.first().copied());
        let shape = Hyperparameters {
            vocabulary,
            context: keys.needed("context_length")?,
            hidden,
            intermediate: keys.needed("feed_forward_length")?,
            layers,
            heads,
            kv_heads,
            head_dim,
            norm_epsilon_q32: self.epsilon_q32(&keys)?,
            rope: self.rope(&keys)?,
            architecture: graph,
            variant,
            names: match self.names {
                Names::Bert { prefix, .. } => Names::Bert { prefix, segments: segments().unwrap_or(1) },
                names => names,
            },
            tied: !header.tensors.contains_key(HEAD),
            eos: if graph == Graph::Bert { Vec::new() } else { eos(&header.metadata)? },
            pairs: self.pairs,
        };
        shape.check().map_err(|error| error.to_string())?;
        Ok(shape)
    }

    /// Every tensor that the shape needs and no other; errors use the file's names.
    fn tensors(
        &self,
        header: &Header<'_>,
        shape: &Hyperparameters,
    ) -> Result<HashMap<String, StoredTensor>, ImportError> {
        let mut left: BTreeMap<&str, &TensorInfo> = header.tensors.iter().map(|(n, i)| (*n, i)).collect();
        let mut tensors = HashMap::new();
        let mut needed = used(shape);
        if self.graph() == Graph::Llama && left.contains_key(ROPE_FACTORS) {
            // How files carry the scaling of Llama 3.1 and its successors.
            needed.push((ROPE_FACTORS.to_owned(), vec![shape.head_dim / 2]));
        }
        for (name, expected) in needed {
            let file_name = self.file_name(&name);
            let missing =
                || ImportError::MissingTensor { name: file_name.clone(), expected: expected.clone() };
            let info = left.remove(file_name.as_str()).ok_or_else(missing)?;
            if info.shape != expected {
                return Err(ImportError::TensorShape {
                    name: file_name,
                    expected: format!("{expected:?}"),
                    actual: format!("{:?}", info.shape),
                });
            }
            let stored =
                StoredTensor { file: 0, bytes: info.bytes.clone(), storage: info.storage, shape: expected };
            tensors.insert(name, stored);
        }
        left.into_keys().next().map_or(Ok(tensors), |name| Err(ImportError::UnknownTensor(name.to_owned())))
    }

    /// The file's name of a tensor; for one that the table lacks, Hugging Face's.
    fn file_name(&self, name: &str) -> String {
        let rename = |table: &[(&str, &str)], name: &str| {
            let (stem, suffix) = name.rsplit_once('.').unwrap_or((name, ""));
            let ours = table.iter().find(|(_, theirs)| *theirs == stem).map_or(stem, |(ours, _)| ours);
            format!("{ours}.{suffix}")
        };
        match name.strip_prefix(self.tensors.layers).and_then(|rest| rest.split_once('.')) {
            Some((layer, part)) => format!("blk.{layer}.{}", rename(self.tensors.layer, part)),
            None => rename(self.tensors.model, name),
        }
    }
}

/// The keys of one architecture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keys<'a> {
    metadata: &'a BTreeMap<&'a str, Value<'a>>,
    prefix: &'static str,
}

impl Keys<'_> {
    pub(super) fn get(&self, key: &str) -> Option<&Value<'_>> {
        self.metadata.get(format!("{}.{key}", self.prefix).as_str())
    }

    pub(super) fn missing(&self, key: &str) -> String {
        format!("there is no `{}.{key}`", self.prefix)
    }

    pub(super) fn size(&self, key: &str) -> Result<Option<usize>, String> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let size = value.unsigned().and_then(|size| usize::try_from(size).ok());
        size.map(Some).ok_or_else(|| format!("`{}.{key}` is {value}, not one size", self.prefix))
    }

    pub(super) fn needed(&self, key: &str) -> Result<usize, String> {
        self.size(key)?.ok_or_else(|| self.missing(key))
    }

    /// A size that follows from others, if it is there at all.
    fn agree(&self, key: &str, expected: usize) -> Result<(), String> {
        match self.size(key)? {
            Some(size) if size != expected => {
                Err(format!("`{}.{key}` is {size}; only {expected} fits the other sizes here", self.prefix))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn single(&self, key: &str) -> Result<Option<f64>, String> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Single(value)) => Ok(Some(f64::from(*value))),
            Some(value) => Err(format!("`{}.{key}` is {value}, not a single", self.prefix)),
        }
    }
}

/// The tokens that end a generation, ascending.
fn eos(metadata: &BTreeMap<&str, Value<'_>>) -> Result<Vec<u32>, String> {
    let mut tokens = Vec::new();
    for key in EOS_KEYS {
        let Some(value) = metadata.get(key) else { continue };
        let token = value.unsigned().and_then(|token| u32::try_from(token).ok());
        tokens.push(token.ok_or_else(|| format!("`{key}` is {value}, not a token"))?);
    }
    tokens.sort_unstable();
    tokens.dedup();
    Ok(tokens)
}

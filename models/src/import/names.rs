//! Where the tensors of a bundle come from: the names that Hugging Face's families give them.

use super::Hyperparameters;
use crate::bundle::{Content, LAYER_MATRICES, LAYER_NORMS, Manifest, TensorSpec, layout};

/// A family's way of naming and storing tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    /// Llama, Mistral, Qwen.
    Llama,
    /// Gemma: gains are stored less one.
    Gemma,
    /// Gemma 2 and 3: also other names for norms.
    GemmaPostNorms,
    /// Gemma 2 and 3 as GGUF files store them: gains as they are.
    PostNorms,
    /// GPT-2: matrices are transposed, and queries, keys and values are one.
    Gpt2 {
        /// What stands before every name.
        prefix: &'static str,
    },
    /// GPT-2 as GGUF files store it: matrices as they are, queries, keys and values one.
    FusedGpt2,
    /// BERT.
    Bert {
        /// What stands before every name but the classifier's.
        prefix: &'static str,
        /// Rows of the segments' embedding.
        segments: usize,
    },
}

/// Where a tensor of a bundle is in the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SourceTensor {
    pub(crate) name: String,
    /// In the checkpoint.
    pub(crate) shape: Vec<usize>,
    pub(crate) part: Part,
}

/// What of a tensor becomes the bundle's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of it as it is; of positions the first.
    Whole,
    /// All of it, its rows in the kernels' order of rotary pairs.
    Rotary,
    /// All of it, and one more.
    PlusOne,
    /// The columns from the first on, as rows.
    Columns(usize),
    /// The elements of a vector, or the rows of a matrix, from the first on.
    From(usize),
    /// The first rows, each with the first row of another tensor added.
    PlusRow {
        /// The other tensor.
        name: String,
        /// Its rows.
        rows: usize,
    },
}

/// Every tensor of the checkpoint that is used, with its shape, once.
pub(crate) fn used(shape: &Hyperparameters) -> Vec<(String, Vec<usize>)> {
    let manifest = shape.manifest(String::new(), shape.context, Vec::new());
    let mut tensors: Vec<(String, Vec<usize>)> = Vec::new();
    for source in layout(&manifest).iter().filter_map(|spec| source(shape, &manifest, spec)) {
        if let Part::PlusRow { name, rows } = &source.part {
            tensors.push((name.clone(), vec![*rows, shape.hidden]));
        }
        tensors.push((source.name, source.shape));
    }
    tensors.sort_unstable();
    tensors.dedup();
    tensors
}

/// Where a tensor comes from; `None` for what is computed: scales, multipliers and frequencies.
pub(crate) fn source(
    shape: &Hyperparameters,
    manifest: &Manifest,
    spec: &TensorSpec,
) -> Option<SourceTensor> {
    if matches!(spec.content, Content::Scales | Content::Multipliers | Content::Frequencies) {
        return None;
    }
    // `layers.N.part.kind` or `part.kind`.
    let (part, kind) = spec.name.rsplit_once('.')?;
    let (layer, part) = match part.strip_prefix("layers.").and_then(|rest| rest.split_once('.')) {
        Some((layer, part)) => (layer, part),
        None => ("", part),
    };
    let suffix = if kind == "bias" { "bias" } else { "weight" };
    let whole = |name: String| SourceTensor { name, shape: spec.shape.clone(), part: Part::Whole };
    let mut source = match shape.names {
        Names::Llama | Names::Gemma | Names::GemmaPostNorms | Names::PostNorms => {
            let mut source = whole(format!("{}.{suffix}", llama(shape.names, layer, part)?));
            let is_rotary = matches!(part, "query" | "key");
            source.part = match spec.content {
                Content::Gains if matches!(shape.names, Names::Gemma | Names::GemmaPostNorms) => {
                    Part::PlusOne
                }
                Content::Weights | Content::Biases if is_rotary => Part::Rotary,
                _ => Part::Whole,
            };
            source
        }
        Names::Gpt2 { prefix } => gpt2(whole(String::new()), Some(prefix), layer, part, suffix, manifest)?,
        Names::FusedGpt2 => gpt2(whole(String::new()), None, layer, part, suffix, manifest)?,
        Names::Bert { prefix, segments } => {
            let mut source = whole(bert(prefix, layer, part, suffix)?);
            if part == "positions" {
                let name = format!("{prefix}embeddings.token_type_embeddings.weight");
                source.part = Part::PlusRow { name, rows: segments };
            }
            source
        }
    };
    if part == "positions" {
        // A shorter context takes the first of them.
        source.shape[0] = shape.context;
    }
    Some(source)
}

fn llama(names: Names, layer: &str, part: &str) -> Option<String> {
    const MATRICES: [&str; 7] = [
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
    ];
    let position = LAYER_MATRICES.iter().position(|name| *name == part);
    let name = match (part, names) {
        ("embedding", _) => return Some("model.embed_tokens".into()),
        ("head", _) => return Some("lm_head".into()),
        ("final_norm", _) => return Some("model.norm".into()),
        ("attention_norm", _) => "input_layernorm",
        ("mlp_norm", Names::GemmaPostNorms | Names::PostNorms) => "pre_feedforward_layernorm",
        ("mlp_norm" | "attention_post_norm", _) => "post_attention_layernorm",
        ("mlp_post_norm", _) => "post_feedforward_layernorm",
        ("query_norm", _) => "self_attn.q_norm",
        ("key_norm", _) => "self_attn.k_norm",
        _ => MATRICES[position?],
    };
    Some(format!("model.layers.{layer}.{name}"))
}

/// With a prefix as Hugging Face stores GPT-2, `[inputs, outputs]`.
fn gpt2(
    mut source: SourceTensor,
    transposed: Option<&str>,
    layer: &str,
    part: &str,
    suffix: &str,
    manifest: &Manifest,
) -> Option<SourceTensor> {
    let prefix = transposed.unwrap_or_default();
    let name = match part {
        "embedding" => "wte",
        "positions" => "wpe",
        "head" => {
            source.name = "lm_head.weight".into();
            return Some(source);
        }
        "final_norm" => "ln_f",
        _ => "",
    };
    if !name.is_empty() {
        source.name = format!("{prefix}{name}.{suffix}");
        return Some(source);
    }
    let fused = ["query", "key", "value"].iter().position(|name| *name == part);
    let name = match part {
        "query" | "key" | "value" => "attn.c_attn",
        "output" => "attn.c_proj",
        "up" => "mlp.c_fc",
        "down" => "mlp.c_proj",
        "attention_norm" => "ln_1",
        "mlp_norm" => "ln_2",
        _ => return None,
    };
    source.name = format!("{prefix}h.{layer}.{name}.{suffix}");
    if LAYER_NORMS.contains(&part) {
        return Some(source);
    }
    let first = fused.unwrap_or(0) * manifest.hidden;
    let outputs = if fused.is_some() { 3 * manifest.hidden } else { source.shape[0] };
    (source.shape, source.part) = match source.shape[..] {
        [_, inputs] if transposed.is_some() => (vec![inputs, outputs], Part::Columns(first)),
        [_, inputs] => (vec![outputs, inputs], Part::From(first)),
        _ => (vec![outputs], Part::From(first)),
    };
    Some(source)
}

fn bert(prefix: &str, layer: &str, part: &str, suffix: &str) -> Option<String> {
    let name = match part {
        "embedding" => "embeddings.word_embeddings",
        "positions" => "embeddings.position_embeddings",
        "embedding_norm" => "embeddings.LayerNorm",
        "pooler" => "pooler.dense",
        "classifier" => return Some(format!("classifier.{suffix}")),
        _ => "",
    };
    if !name.is_empty() {
        return Some(format!("{prefix}{name}.{suffix}"));
    }
    let name = match part {
        "query" => "attention.self.query",
        "key" => "attention.self.key",
        "value" => "attention.self.value",
        "output" => "attention.output.dense",
        "attention_norm" => "attention.output.LayerNorm",
        "up" => "intermediate.dense",
        "down" => "output.dense",
        "mlp_norm" => "output.LayerNorm",
        _ => return None,
    };
    Some(format!("{prefix}encoder.layer.{layer}.{name}.{suffix}"))
}

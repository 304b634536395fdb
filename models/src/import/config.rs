//! `config.json` of a Hugging Face folder: which fields decide what is computed, and which values are refused.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::checkpoint::{Hyperparameters, Names, RotaryPairs};
use super::rope::{Rope, RopeScaling};
use super::{ImportError, numbers};
use crate::bundle::{ActivationName, Architecture, MAX_LAYERS, Variant};

/// The model types that are read.
pub(super) const MODEL_TYPES: [&str; 9] =
    ["llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "gpt2", "bert"];

/// Reads the configuration of any family.
pub(super) fn read(path: &Path, config: &Value) -> Result<Hyperparameters, ImportError> {
    let model_type = config["model_type"].as_str().unwrap_or("(none)").to_owned();
    let architectures: Vec<&str> =
        config["architectures"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let unsupported = || {
        let named = architectures.join(", ");
        Err(ImportError::unsupported(format!("architecture {named} (model_type {model_type})")))
    };
    let (allowed, shape): (&[&str], _) = match model_type.as_str() {
        "llama" => (&["LlamaForCausalLM"], decoder(path, config, Family::Llama)),
        "mistral" => (&["MistralForCausalLM"], decoder(path, config, Family::Mistral)),
        "qwen2" => (&["Qwen2ForCausalLM"], decoder(path, config, Family::Qwen2)),
        "qwen3" => (&["Qwen3ForCausalLM"], decoder(path, config, Family::Qwen3)),
        "gemma" => (&["GemmaForCausalLM"], decoder(path, config, Family::Gemma)),
        "gemma2" => (&["Gemma2ForCausalLM"], decoder(path, config, Family::Gemma2)),
        "gemma3_text" => (&["Gemma3ForCausalLM"], decoder(path, config, Family::Gemma3)),
        "gpt2" => (&["GPT2LMHeadModel"], gpt2(path, config)),
        "bert" => (&["BertModel", "BertForSequenceClassification"], bert(path, config, &architectures)),
        _ => return unsupported(),
    };
    if !architectures.is_empty() && !architectures.iter().any(|name| allowed.contains(name)) {
        return unsupported();
    }
    let shape = shape?;
    shape.check().map_err(|error| ImportError::format(path, error))?;
    Ok(shape)
}

/// The relatives of Llama.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
    Gemma,
    Gemma2,
    Gemma3,
}

impl Family {
    const fn is_gemma(self) -> bool {
        matches!(self, Self::Gemma | Self::Gemma2 | Self::Gemma3)
    }
}

/// The fields of Llama's relatives; the defaults are those of `transformers`.
#[derive(Debug, Deserialize)]
struct Decoder {
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
    hidden_activation: Option<String>,
    tie_word_embeddings: Option<bool>,
    rope_theta: Option<f64>,
    rope_local_base_freq: Option<f64>,
    rope_scaling: Option<Value>,
    rope_parameters: Option<Value>,
    #[serde(default)]
    rope_interleaved: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    sliding_window: Option<usize>,
    #[serde(default)]
    use_sliding_window: bool,
    sliding_window_pattern: Option<usize>,
    layer_types: Option<Vec<String>>,
    query_pre_attn_scalar: Option<usize>,
    attn_logit_softcapping: Option<f64>,
    final_logit_softcapping: Option<f64>,
    eos_token_id: Option<EosTokens>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum EosTokens {
    One(u32),
    Many(Vec<u32>),
}

impl EosTokens {
    fn sorted(tokens: Option<Self>) -> Vec<u32> {
        let mut eos = match tokens {
            None => Vec::new(),
            Some(Self::One(token)) => vec![token],
            Some(Self::Many(tokens)) => tokens,
        };
        eos.sort_unstable();
        eos.dedup();
        eos
    }
}

fn fields<T: serde::de::DeserializeOwned>(path: &Path, config: &Value) -> Result<T, ImportError> {
    serde_json::from_value(config.clone()).map_err(|error| ImportError::format(path, error))
}

fn decoder(path: &Path, config: &Value, family: Family) -> Result<Hyperparameters, ImportError> {
    let config: Decoder = fields(path, config)?;
    config.refuse_flags(family)?;
    let wrong = |reason: String| ImportError::format(path, reason);
    let (hidden, heads) = (config.hidden_size, config.num_attention_heads);
    let head_dim = match config.head_dim {
        Some(head_dim) => head_dim,
        None if heads > 0 && hidden.is_multiple_of(heads) => hidden / heads,
        None => return Err(wrong(format!("{heads} heads do not divide a width of {hidden}"))),
    };
    let epsilon = config.rms_norm_eps.unwrap_or(1e-6);
    let mut variant = Variant {
        activation: config.activation(family)?,
        qkv_bias: family == Family::Qwen2,
        qk_norm: matches!(family, Family::Qwen3 | Family::Gemma3),
        post_norms: matches!(family, Family::Gemma2 | Family::Gemma3),
        ..Variant::default()
    };
    let rope = config.rope(path, family)?;
    if family.is_gemma() {
        variant.embedding_factor = Some(numbers::square_root(hidden as u64));
        variant.score_divisor = config.query_pre_attn_scalar.filter(|&divisor| divisor != head_dim);
        variant.attention_cap_q16 =
            config.attn_logit_softcapping.map(|cap| soft_cap(path, cap)).transpose()?;
        variant.final_cap_q16 = config.final_logit_softcapping.map(|cap| soft_cap(path, cap)).transpose()?;
        variant.local_frequencies = rope.local_theta.is_some();
    }
    config.windows(path, family, &mut variant)?;
    Ok(Hyperparameters {
        architecture: Architecture::Llama,
        variant,
        vocabulary: config.vocab_size,
        context: config.max_position_embeddings,
        hidden,
        intermediate: config.intermediate_size,
        layers: layers(path, config.num_hidden_layers)?,
        heads,
        kv_heads: config.num_key_value_heads.unwrap_or(heads),
        head_dim,
        norm_epsilon_q32: epsilon_q32(path, "rms_norm_eps", epsilon)?,
        rope,
        tied: config.tie_word_embeddings.unwrap_or(family.is_gemma()),
        eos: EosTokens::sorted(config.eos_token_id),
        pairs: RotaryPairs::Halves,
        names: match family {
            Family::Gemma => Names::Gemma,
            Family::Gemma2 | Family::Gemma3 => Names::GemmaPostNorms,
            _ => Names::Llama,
        },
    })
}

impl Decoder {
    fn refuse_flags(&self, family: Family) -> Result<(), ImportError> {
        let flags = [
            ("rope_interleaved", self.rope_interleaved),
            ("attention_bias", self.attention_bias),
            ("mlp_bias", self.mlp_bias),
            ("use_sliding_window", self.use_sliding_window),
            ("sliding_window", self.sliding_window.is_some() && family == Family::Llama),
        ];
        match flags.into_iter().find(|(_, set)| *set) {
            Some((flag, _)) => Err(ImportError::unsupported(flag)),
            None => Ok(()),
        }
    }

    fn activation(&self, family: Family) -> Result<ActivationName, ImportError> {
        let name = self.hidden_activation.as_deref().or(self.hidden_act.as_deref());
        match (name, family.is_gemma()) {
            (None | Some("silu"), false) => Ok(ActivationName::Silu),
            // `transformers` reads Gemma's `gelu` as its tanh form, too.
            (None | Some("gelu_pytorch_tanh" | "gelu"), true) => Ok(ActivationName::GeluTanh),
            (Some(name), _) => Err(ImportError::unsupported(format!("hidden_act {name}"))),
        }
    }

    fn windows(&self, path: &Path, family: Family, variant: &mut Variant) -> Result<(), ImportError> {
        let every = match family {
            Family::Mistral => None,
            Family::Gemma2 => Some(2),
            Family::Gemma3 => Some(self.sliding_window_pattern.or_else(|| self.pattern()).unwrap_or(6)),
            _ => return Ok(()),
        };
        variant.window = self.sliding_window;
        variant.global_every = every.filter(|_| self.sliding_window.is_some());
        // A pattern longer than the model has no layer without the window.
        let Some(types) = self.layer_types.as_ref().filter(|_| variant.window.is_some()) else {
            return Ok(());
        };
        let is_local = |layer: usize| variant.is_local(layer);
        let differing =
            types.iter().enumerate().find(|(i, kind)| (*kind == "sliding_attention") != is_local(*i));
        match differing {
            Some((layer, kind)) => Err(ImportError::format(
                path,
                format!("layer_types: layer {layer} is {kind}, out of pattern"),
            )),
            None => Ok(()),
        }
    }

    /// The distance of layers with full attention.
    fn pattern(&self) -> Option<usize> {
        self.layer_types.as_ref()?.iter().position(|kind| kind == "full_attention").map(|first| first + 1)
    }

    fn rope(&self, path: &Path, family: Family) -> Result<Rope, ImportError> {
        let theta = |value: f64| {
            // The bound keeps logarithms and exponents well inside their formats.
            numbers::whole(value).filter(|theta| (2..1 << 40).contains(theta)).ok_or_else(|| {
                ImportError::format(
                    path,
                    format!("a rope_theta of {value} is not a whole number of 2 to 2^40"),
                )
            })
        };
        let default = if family == Family::Gemma3 { 1_000_000.0 } else { 10_000.0 };
        let parameters = self.rope_parameters.as_ref().filter(|parameters| !parameters.is_null());
        // Newer files keep base and scaling together, for Gemma 3 once per kind of layer.
        let nested = |kind: &str| parameters.and_then(|p| p.get(kind)).filter(|value| value.is_object());
        let full = nested("full_attention").or(parameters);
        let base = |value: Option<&Value>| value.and_then(|value| value["rope_theta"].as_f64());
        let scaling = match self.rope_scaling.as_ref().filter(|scaling| !scaling.is_null()).or(full) {
            Some(scaling) => RopeScaling::read(path, scaling)?,
            None => None,
        };
        let local = (family == Family::Gemma3)
            .then(|| self.rope_local_base_freq.or(base(nested("sliding_attention"))).unwrap_or(10_000.0));
        Ok(Rope {
            theta: theta(self.rope_theta.or(base(full)).unwrap_or(default))?,
            local_theta: local.map(theta).transpose()?,
            scaling,
        })
    }
}

/// The fields of GPT-2.
#[derive(Debug, Deserialize)]
struct Gpt2 {
    vocab_size: usize,
    n_embd: usize,
    n_inner: Option<usize>,
    n_layer: usize,
    n_head: usize,
    n_positions: Option<usize>,
    n_ctx: Option<usize>,
    activation_function: Option<String>,
    layer_norm_epsilon: Option<f64>,
    scale_attn_weights: Option<bool>,
    #[serde(default)]
    scale_attn_by_inverse_layer_idx: bool,
    tie_word_embeddings: Option<bool>,
    eos_token_id: Option<EosTokens>,
}

fn gpt2(path: &Path, config: &Value) -> Result<Hyperparameters, ImportError> {
    let config: Gpt2 = fields(path, config)?;
    if config.scale_attn_weights == Some(false) || config.scale_attn_by_inverse_layer_idx {
        return Err(ImportError::unsupported("another scale of attention than the head dimension's"));
    }
    let (hidden, heads) = (config.n_embd, config.n_head);
    Ok(Hyperparameters {
        architecture: Architecture::Gpt2,
        variant: Variant {
            activation: gelu(config.activation_function.as_deref().unwrap_or("gelu_new"))?,
            ..Variant::default()
        },
        vocabulary: config.vocab_size,
        context: config.n_positions.or(config.n_ctx).unwrap_or(1_024),
        hidden,
        intermediate: config.n_inner.unwrap_or(hidden.saturating_mul(4)),
        layers: layers(path, config.n_layer)?,
        heads,
        kv_heads: heads,
        head_dim: head_dim(path, hidden, heads)?,
        norm_epsilon_q32: epsilon_q32(path, "layer_norm_epsilon", config.layer_norm_epsilon.unwrap_or(1e-5))?,
        rope: Rope::default(),
        tied: config.tie_word_embeddings.unwrap_or(true),
        eos: EosTokens::sorted(config.eos_token_id),
        pairs: RotaryPairs::Halves,
        names: Names::Gpt2 { prefix: "" },
    })
}

/// The fields of BERT.
#[derive(Debug, Deserialize)]
struct Bert {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    max_position_embeddings: usize,
    type_vocab_size: Option<usize>,
    hidden_act: Option<String>,
    layer_norm_eps: Option<f64>,
    position_embedding_type: Option<String>,
    #[serde(default)]
    is_decoder: bool,
    id2label: Option<std::collections::BTreeMap<String, String>>,
}

fn bert(path: &Path, config: &Value, architectures: &[&str]) -> Result<Hyperparameters, ImportError> {
    let config: Bert = fields(path, config)?;
    let position_type = config.position_embedding_type.as_deref().unwrap_or("absolute");
    if position_type != "absolute" {
        return Err(ImportError::unsupported(format!("position_embedding_type {position_type}")));
    }
    if config.is_decoder {
        return Err(ImportError::unsupported("is_decoder"));
    }
    let classes = match architectures.contains(&"BertForSequenceClassification") {
        true => class_names(path, config.id2label.unwrap_or_default())?,
        false => Vec::new(),
    };
    let (hidden, heads) = (config.hidden_size, config.num_attention_heads);
    Ok(Hyperparameters {
        architecture: Architecture::Bert,
        variant: Variant {
            activation: gelu(config.hidden_act.as_deref().unwrap_or("gelu"))?,
            classes,
            ..Variant::default()
        },
        vocabulary: config.vocab_size,
        context: config.max_position_embeddings,
        hidden,
        intermediate: config.intermediate_size,
        layers: layers(path, config.num_hidden_layers)?,
        heads,
        kv_heads: heads,
        head_dim: head_dim(path, hidden, heads)?,
        norm_epsilon_q32: epsilon_q32(path, "layer_norm_eps", config.layer_norm_eps.unwrap_or(1e-12))?,
        rope: Rope::default(),
        tied: true,
        eos: Vec::new(),
        pairs: RotaryPairs::Halves,
        names: Names::Bert { prefix: "", segments: config.type_vocab_size.unwrap_or(2) },
    })
}

/// The classes in the order of their numbers.
fn class_names(
    path: &Path,
    labels: std::collections::BTreeMap<String, String>,
) -> Result<Vec<String>, ImportError> {
    let names: Option<Vec<String>> = (0..labels.len()).map(|i| labels.get(&i.to_string()).cloned()).collect();
    names.filter(|names| !names.is_empty()).ok_or_else(|| {
        ImportError::format(path, "a classifier needs `id2label` with the classes 0, 1, 2 and so on")
    })
}

fn gelu(name: &str) -> Result<ActivationName, ImportError> {
    match name {
        "gelu_new" | "gelu_pytorch_tanh" => Ok(ActivationName::GeluTanh),
        "gelu" => Ok(ActivationName::GeluErf),
        name => Err(ImportError::unsupported(format!("activation {name}"))),
    }
}

fn head_dim(path: &Path, hidden: usize, heads: usize) -> Result<usize, ImportError> {
    if heads > 0 && hidden.is_multiple_of(heads) {
        return Ok(hidden / heads);
    }
    Err(ImportError::format(path, format!("{heads} heads do not divide a width of {hidden}")))
}

fn layers(path: &Path, layers: usize) -> Result<usize, ImportError> {
    if layers > MAX_LAYERS {
        return Err(ImportError::format(path, format!("{layers} layers are more than {MAX_LAYERS}")));
    }
    Ok(layers)
}

/// An epsilon of at least `2^-32`: what is smaller rounds to the smallest, not to nothing.
fn epsilon_q32(path: &Path, field: &str, epsilon: f64) -> Result<i64, ImportError> {
    numbers::epsilon_q32(epsilon)
        .map(|epsilon| epsilon.max(1))
        .ok_or_else(|| ImportError::format(path, format!("a {field} of {epsilon} is not between 0 and 1")))
}

fn soft_cap(path: &Path, cap: f64) -> Result<i32, ImportError> {
    soft_cap_q16(cap)
        .ok_or_else(|| ImportError::format(path, format!("a soft cap of {cap} is not between 1 and 16384")))
}

/// A soft cap in Q16; `None` unless it is in `1 ..= 16384`.
pub(super) fn soft_cap_q16(cap: f64) -> Option<i32> {
    let cap_q16 = numbers::fixed(cap, 16).filter(|cap| (1 << 16..=1 << 30).contains(cap));
    cap_q16.and_then(|cap| i32::try_from(cap).ok())
}

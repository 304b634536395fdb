//! What the architectures of GGUF files differ in: names of tensors, and what follows from a name alone.
//!
//! Names and defaults are those of llama.cpp, whose converter writes these files.

use super::architecture::Keys;
use super::header::Value;
use crate::bundle::{ActivationName, Architecture as Graph, Pooling, Variant};
use crate::import::names::Names;
use crate::import::rope::{Rope, RopeScaling};
use crate::import::{RotaryPairs, config, numbers};

pub(super) const EMBEDDING: &str = "token_embd.weight";
const EMBEDDING_STEM: &str = "token_embd";
/// Without it, the embedding is the head.
pub(super) const HEAD: &str = "output.weight";
const HEAD_STEM: &str = "output";
/// The embedding of segments, of which the first is used.
pub(super) const SEGMENTS: &str = "token_types.weight";

/// The file's names of an architecture's tensors and Hugging Face's, both without `.weight` and `.bias`.
#[derive(Debug)]
pub(super) struct TensorNames {
    pub(super) model: &'static [(&'static str, &'static str)],
    /// What stands before the number of a layer.
    pub(super) layers: &'static str,
    /// After `blk.N.` and after the number.
    pub(super) layer: &'static [(&'static str, &'static str)],
}

/// One architecture's conventions.
#[derive(Debug)]
pub(super) struct Architecture {
    /// `general.architecture`, and what its keys start with.
    pub(super) name: &'static str,
    /// Converters reorder the rows of queries and keys for some architectures and not for others.
    pub(super) pairs: RotaryPairs,
    /// Gains are stored as they are, those of Gemma as well.
    pub(super) names: Names,
    pub(super) tensors: TensorNames,
    /// Keys of its own.
    pub(super) keys: &'static [&'static str],
    family: Family,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Llama,
    Qwen2,
    Qwen3,
    Gemma,
    Gemma2,
    Gemma3,
    Gpt2,
    Bert,
}

const SCALING: [&str; 2] = ["rope.scaling.type", "rope.scaling.factor"];
const EPSILON: &str = "attention.layer_norm_epsilon";
const CAUSAL: &str = "attention.causal";
const POOLING: &str = "pooling_type";

/// The architectures that are read.
pub(super) const ARCHITECTURES: [Architecture; 8] = [
    Architecture::like_llama("llama", RotaryPairs::Neighbours, Family::Llama),
    Architecture::like_llama("qwen2", RotaryPairs::Halves, Family::Qwen2),
    Architecture::like_llama("qwen3", RotaryPairs::Halves, Family::Qwen3),
    Architecture::like_llama("gemma", RotaryPairs::Halves, Family::Gemma),
    Architecture {
        names: Names::PostNorms,
        tensors: TensorNames { layer: &POST_NORMS, ..LLAMA },
        keys: &["attention.sliding_window", "attn_logit_softcapping", "final_logit_softcapping"],
        ..Architecture::like_llama("gemma2", RotaryPairs::Halves, Family::Gemma2)
    },
    Architecture {
        names: Names::PostNorms,
        tensors: TensorNames { layer: &POST_NORMS, ..LLAMA },
        keys: &[
            "attention.sliding_window",
            "attention.sliding_window_pattern",
            "final_logit_softcapping",
            "rope.freq_base_swa",
            SCALING[0],
            SCALING[1],
        ],
        ..Architecture::like_llama("gemma3", RotaryPairs::Halves, Family::Gemma3)
    },
    Architecture {
        name: "gpt2",
        pairs: RotaryPairs::Halves,
        names: Names::FusedGpt2,
        tensors: GPT2,
        keys: &[EPSILON],
        family: Family::Gpt2,
    },
    Architecture {
        name: "bert",
        pairs: RotaryPairs::Halves,
        names: Names::Bert { prefix: "", segments: 0 },
        tensors: BERT,
        keys: &[EPSILON, CAUSAL, POOLING],
        family: Family::Bert,
    },
];

const LLAMA: TensorNames = TensorNames {
    model: &[(EMBEDDING_STEM, "model.embed_tokens"), ("output_norm", "model.norm"), (HEAD_STEM, "lm_head")],
    layers: "model.layers.",
    layer: &[
        ("attn_norm", "input_layernorm"),
        ("attn_q", "self_attn.q_proj"),
        ("attn_k", "self_attn.k_proj"),
        ("attn_v", "self_attn.v_proj"),
        ("attn_q_norm", "self_attn.q_norm"),
        ("attn_k_norm", "self_attn.k_norm"),
        ("attn_output", "self_attn.o_proj"),
        ("ffn_norm", "post_attention_layernorm"),
        ("ffn_gate", "mlp.gate_proj"),
        ("ffn_up", "mlp.up_proj"),
        ("ffn_down", "mlp.down_proj"),
    ],
};

/// With norms after attention and after the MLP, the one before the MLP has another name.
const POST_NORMS: [(&str, &str); 13] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("attn_output", "self_attn.o_proj"),
    ("post_attention_norm", "post_attention_layernorm"),
    ("ffn_norm", "pre_feedforward_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
];

const GPT2: TensorNames = TensorNames {
    model: &[
        (EMBEDDING_STEM, "wte"),
        ("position_embd", "wpe"),
        ("output_norm", "ln_f"),
        (HEAD_STEM, "lm_head"),
    ],
    layers: "h.",
    layer: &[
        ("attn_norm", "ln_1"),
        ("attn_qkv", "attn.c_attn"),
        ("attn_output", "attn.c_proj"),
        ("ffn_norm", "ln_2"),
        ("ffn_up", "mlp.c_fc"),
        ("ffn_down", "mlp.c_proj"),
    ],
};

const BERT: TensorNames = TensorNames {
    model: &[
        (EMBEDDING_STEM, "embeddings.word_embeddings"),
        ("position_embd", "embeddings.position_embeddings"),
        ("token_types", "embeddings.token_type_embeddings"),
        ("token_embd_norm", "embeddings.LayerNorm"),
    ],
    layers: "encoder.layer.",
    layer: &[
        ("attn_q", "attention.self.query"),
        ("attn_k", "attention.self.key"),
        ("attn_v", "attention.self.value"),
        ("attn_output", "attention.output.dense"),
        ("attn_output_norm", "attention.output.LayerNorm"),
        ("ffn_up", "intermediate.dense"),
        ("ffn_down", "output.dense"),
        ("layer_output_norm", "output.LayerNorm"),
    ],
};

impl Architecture {
    const fn like_llama(name: &'static str, pairs: RotaryPairs, family: Family) -> Self {
        Self { name, pairs, names: Names::Llama, tensors: LLAMA, keys: &[], family }
    }

    /// What its computation is.
    pub(super) const fn graph(&self) -> Graph {
        match self.family {
            Family::Gpt2 => Graph::Gpt2,
            Family::Bert => Graph::Bert,
            _ => Graph::Llama,
        }
    }

    /// The constant of its norms.
    pub(super) fn epsilon_q32(&self, keys: &Keys<'_>) -> Result<i64, String> {
        let key = match self.graph() {
            Graph::Llama => "attention.layer_norm_rms_epsilon",
            _ => EPSILON,
        };
        let epsilon = keys.single(key)?.ok_or_else(|| keys.missing(key))?;
        let epsilon_q32 = numbers::epsilon_q32(epsilon).map(|epsilon| epsilon.max(1));
        epsilon_q32.ok_or_else(|| format!("an epsilon of {epsilon} is not between 0 and 1"))
    }

    /// What the model has besides its shapes.
    pub(super) fn variant(
        &self,
        keys: &Keys<'_>,
        hidden: usize,
        heads: usize,
        head_dim: usize,
        layers: usize,
    ) -> Result<Variant, String> {
        let mut variant = Variant {
            qkv_bias: self.family == Family::Qwen2,
            qk_norm: matches!(self.family, Family::Qwen3 | Family::Gemma3),
            post_norms: matches!(self.family, Family::Gemma2 | Family::Gemma3),
            ..Variant::default()
        };
        if matches!(self.family, Family::Gemma | Family::Gemma2 | Family::Gemma3) {
            variant.activation = ActivationName::GeluTanh;
            variant.embedding_factor = Some(numbers::square_root(hidden as u64));
        }
        let cap = |key: &str, default: Option<f64>| {
            let cap = keys.single(key)?.or(default);
            cap.map(|cap| {
                config::soft_cap_q16(cap)
                    .ok_or_else(|| format!("a soft cap of {cap} is not between 1 and 16384"))
            })
            .transpose()
        };
        // No key says by what scores are divided: the models of these depths are the 27B ones, which divide by another number.
        let by_heads = || Some(hidden / heads.max(1)).filter(|&divisor| divisor != head_dim);
        match self.family {
            Family::Gemma2 => {
                variant.attention_cap_q16 = cap("attn_logit_softcapping", Some(50.0))?;
                variant.final_cap_q16 = cap("final_logit_softcapping", Some(30.0))?;
                variant.window = Some(keys.size("attention.sliding_window")?.unwrap_or(4_096));
                variant.global_every = Some(2);
                variant.score_divisor = if layers == 46 { by_heads() } else { None };
            }
            Family::Gemma3 => {
                variant.final_cap_q16 = cap("final_logit_softcapping", None)?;
                variant.window = Some(keys.needed("attention.sliding_window")?);
                variant.global_every = Some(keys.size("attention.sliding_window_pattern")?.unwrap_or(6));
                variant.local_frequencies = true;
                variant.score_divisor = if layers == 62 { by_heads() } else { None };
            }
            Family::Gpt2 => variant.activation = ActivationName::GeluTanh,
            Family::Bert => {
                variant.activation = ActivationName::GeluErf;
                variant.pooling = pooling(keys)?;
            }
            _ => {}
        }
        Ok(variant)
    }

    /// What rotary frequencies follow from.
    pub(super) fn rope(&self, keys: &Keys<'_>) -> Result<Rope, String> {
        if self.graph() != Graph::Llama {
            return Ok(Rope::default());
        }
        let base = |key: &str, default: f64| {
            let theta = keys.single(key)?.unwrap_or(default);
            // The bound keeps logarithms and exponents well inside their formats.
            let whole = numbers::whole(theta).filter(|theta| (2..1 << 40).contains(theta));
            whole.ok_or_else(|| format!("a {key} of {theta} is not a whole number of 2 to 2^40"))
        };
        let is_gemma3 = self.family == Family::Gemma3;
        let scaling = match (is_gemma3, keys.get(SCALING[0])) {
            (true, Some(Value::String("linear"))) => {
                let factor = keys.single(SCALING[1])?.ok_or_else(|| keys.missing(SCALING[1]))?;
                let factor_q32 = numbers::fixed(factor, 32).filter(|factor| (1..1 << 56).contains(factor));
                let factor_q32 = factor_q32
                    .ok_or_else(|| format!("a {} of {factor} is not between 2^-32 and 2^24", SCALING[1]))?;
                Some(RopeScaling::Linear { factor: factor_q32.unsigned_abs() })
            }
            (_, None | Some(Value::String("none"))) => None,
            (_, Some(kind)) => return Err(format!("a {} of {kind} is not supported", SCALING[0])),
        };
        let default = if is_gemma3 { 1_000_000.0 } else { 10_000.0 };
        Ok(Rope {
            theta: base("rope.freq_base", default)?,
            local_theta: is_gemma3.then(|| base("rope.freq_base_swa", 10_000.0)).transpose()?,
            scaling,
        })
    }
}

/// How an encoder's vectors become one: the mean if the file does not say, as for a folder.
fn pooling(keys: &Keys<'_>) -> Result<Pooling, String> {
    if keys.get(CAUSAL).is_some_and(|causal| *causal != Value::Bool(false)) {
        return Err("a `bert` whose attention is causal is no encoder".into());
    }
    match keys.size(POOLING)? {
        None | Some(1) => Ok(Pooling::Mean),
        Some(2) => Ok(Pooling::Cls),
        Some(other) => {
            Err(format!("a `bert.pooling_type` of {other} is not supported: 1 (mean) and 2 (CLS) are"))
        }
    }
}

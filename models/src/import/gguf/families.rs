//! What the architectures of GGUF files differ in: names of tensors, and what follows from a name alone.
//!
//! Names and defaults are those of llama.cpp, whose converter writes these files.

use super::architecture::Keys;
use crate::bundle::{ActivationName, Variant};
use crate::import::names::Names;
use crate::import::rope::{Rope, RopeScaling};
use crate::import::{RotaryPairs, config, numbers};

pub(super) const EMBEDDING: &str = "token_embd.weight";
/// Without it, the embedding is the head.
pub(super) const HEAD: &str = "output.weight";

/// The file's names of a model's tensors and Hugging Face's.
pub(super) const TENSORS: [(&str, &str); 3] = [
    (EMBEDDING, "model.embed_tokens.weight"),
    ("output_norm.weight", "model.norm.weight"),
    (HEAD, "lm_head.weight"),
];

/// One architecture's conventions.
#[derive(Debug)]
pub(super) struct Architecture {
    /// `general.architecture`, and what its keys start with.
    pub(super) name: &'static str,
    /// Converters reorder the rows of queries and keys for some architectures and not for others.
    pub(super) pairs: RotaryPairs,
    /// Gains are stored as they are, those of Gemma as well.
    pub(super) names: Names,
    /// Like [`TENSORS`], of a layer: after `blk.N.` and `model.layers.N.`.
    pub(super) layer_tensors: &'static [(&'static str, &'static str)],
    /// Keys of its own that make its variant.
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
}

const SCALING: [&str; 2] = ["rope.scaling.type", "rope.scaling.factor"];

/// The architectures that are read.
pub(super) const ARCHITECTURES: [Architecture; 6] = [
    Architecture {
        name: "llama",
        pairs: RotaryPairs::Neighbours,
        names: Names::Llama,
        layer_tensors: &LLAMA,
        keys: &[],
        family: Family::Llama,
    },
    Architecture {
        name: "qwen2",
        pairs: RotaryPairs::Halves,
        names: Names::Llama,
        layer_tensors: &LLAMA,
        keys: &[],
        family: Family::Qwen2,
    },
    Architecture {
        name: "qwen3",
        pairs: RotaryPairs::Halves,
        names: Names::Llama,
        layer_tensors: &LLAMA,
        keys: &[],
        family: Family::Qwen3,
    },
    Architecture {
        name: "gemma",
        pairs: RotaryPairs::Halves,
        names: Names::Llama,
        layer_tensors: &LLAMA,
        keys: &[],
        family: Family::Gemma,
    },
    Architecture {
        name: "gemma2",
        pairs: RotaryPairs::Halves,
        names: Names::PostNorms,
        layer_tensors: &POST_NORMS,
        keys: &["attention.sliding_window", "attn_logit_softcapping", "final_logit_softcapping"],
        family: Family::Gemma2,
    },
    Architecture {
        name: "gemma3",
        pairs: RotaryPairs::Halves,
        names: Names::PostNorms,
        layer_tensors: &POST_NORMS,
        keys: &[
            "attention.sliding_window",
            "attention.sliding_window_pattern",
            "final_logit_softcapping",
            "rope.freq_base_swa",
            SCALING[0],
            SCALING[1],
        ],
        family: Family::Gemma3,
    },
];

const LLAMA: [(&str, &str); 14] = [
    ("attn_norm.weight", "input_layernorm.weight"),
    ("attn_q.weight", "self_attn.q_proj.weight"),
    ("attn_k.weight", "self_attn.k_proj.weight"),
    ("attn_v.weight", "self_attn.v_proj.weight"),
    ("attn_q.bias", "self_attn.q_proj.bias"),
    ("attn_k.bias", "self_attn.k_proj.bias"),
    ("attn_v.bias", "self_attn.v_proj.bias"),
    ("attn_q_norm.weight", "self_attn.q_norm.weight"),
    ("attn_k_norm.weight", "self_attn.k_norm.weight"),
    ("attn_output.weight", "self_attn.o_proj.weight"),
    ("ffn_norm.weight", "post_attention_layernorm.weight"),
    ("ffn_gate.weight", "mlp.gate_proj.weight"),
    ("ffn_up.weight", "mlp.up_proj.weight"),
    ("ffn_down.weight", "mlp.down_proj.weight"),
];

/// With norms after attention and after the MLP, the one before the MLP has another name.
const POST_NORMS: [(&str, &str); 13] = [
    ("attn_norm.weight", "input_layernorm.weight"),
    ("attn_q.weight", "self_attn.q_proj.weight"),
    ("attn_k.weight", "self_attn.k_proj.weight"),
    ("attn_v.weight", "self_attn.v_proj.weight"),
    ("attn_q_norm.weight", "self_attn.q_norm.weight"),
    ("attn_k_norm.weight", "self_attn.k_norm.weight"),
    ("attn_output.weight", "self_attn.o_proj.weight"),
    ("post_attention_norm.weight", "post_attention_layernorm.weight"),
    ("ffn_norm.weight", "pre_feedforward_layernorm.weight"),
    ("ffn_gate.weight", "mlp.gate_proj.weight"),
    ("ffn_up.weight", "mlp.up_proj.weight"),
    ("ffn_down.weight", "mlp.down_proj.weight"),
    ("post_ffw_norm.weight", "post_feedforward_layernorm.weight"),
];

impl Architecture {
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
            _ => {}
        }
        Ok(variant)
    }

    /// What rotary frequencies follow from.
    pub(super) fn rope(&self, keys: &Keys<'_>) -> Result<Rope, String> {
        let base = |key: &str, default: f64| {
            let theta = keys.single(key)?.unwrap_or(default);
            // The bound keeps logarithms and exponents well inside their formats.
            let whole = numbers::whole(theta).filter(|theta| (2..1 << 40).contains(theta));
            whole.ok_or_else(|| format!("a {key} of {theta} is not a whole number of 2 to 2^40"))
        };
        let is_gemma3 = self.family == Family::Gemma3;
        let scaling = match (is_gemma3, keys.get(SCALING[0])) {
            (true, Some(super::header::Value::String("linear"))) => {
                let factor = keys.single(SCALING[1])?.ok_or_else(|| keys.missing(SCALING[1]))?;
                let factor_q32 = numbers::fixed(factor, 32).filter(|factor| (1..1 << 56).contains(factor));
                let factor_q32 = factor_q32
                    .ok_or_else(|| format!("a {} of {factor} is not between 2^-32 and 2^24", SCALING[1]))?;
                Some(RopeScaling::Linear { factor: factor_q32.unsigned_abs() })
            }
            (_, None | Some(super::header::Value::String("none"))) => None,
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

//! What the models of one architecture differ in.

use metis_kernels::{Activation, Attention, Scale, SoftCap, softmax::attention_scale};
use serde::{Deserialize, Serialize};

use super::BundleError;
use super::manifest::Manifest;

/// Most classes of a classifier.
const MAX_CLASSES: usize = 256;
/// Longest name of a class in bytes.
const MAX_CLASS_BYTES: usize = 64;

/// Which graph a model has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// Decoders with RMSNorm before each part, rotary attention and a gated MLP: Llama, Mistral, Qwen, Gemma.
    Llama,
    /// Decoders with LayerNorm before each part, learned positions and a plain MLP: GPT-2.
    Gpt2,
    /// Encoders with LayerNorm after each part, learned positions and a plain MLP: BERT.
    Bert,
}

impl Architecture {
    /// Its name in manifests.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Gpt2 => "gpt2",
            Self::Bert => "bert",
        }
    }

    /// Whether it continues a text; if not, it only reads.
    pub const fn is_decoder(self) -> bool {
        !matches!(self, Self::Bert)
    }
}

/// The function of an MLP, by its name in manifests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActivationName {
    /// [`Activation::Silu`].
    #[default]
    Silu,
    /// [`Activation::GeluTanh`].
    GeluTanh,
    /// [`Activation::GeluErf`].
    GeluErf,
}

impl From<ActivationName> for Activation {
    fn from(name: ActivationName) -> Self {
        match name {
            ActivationName::Silu => Self::Silu,
            ActivationName::GeluTanh => Self::GeluTanh,
            ActivationName::GeluErf => Self::GeluErf,
        }
    }
}

/// How an encoder's text becomes one vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// The mean of all tokens.
    #[default]
    Mean,
    /// The first token.
    Cls,
}

/// What a model has besides its shapes. A field that has its default is left out of the manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Variant {
    /// The function of the MLP.
    #[serde(skip_serializing_if = "is_default")]
    pub activation: ActivationName,
    /// The bound on attention's scores, Q16.
    #[serde(skip_serializing_if = "is_default")]
    pub attention_cap_q16: Option<i32>,
    /// The names of a classifier's classes; an encoder with classes has a classifier.
    #[serde(skip_serializing_if = "is_default")]
    pub classes: Vec<String>,
    /// What embeddings are multiplied with: mantissa and exponent.
    #[serde(skip_serializing_if = "is_default")]
    pub embedding_factor: Option<(u32, i32)>,
    /// The bound on logits, Q16.
    #[serde(skip_serializing_if = "is_default")]
    pub final_cap_q16: Option<i32>,
    /// With a window: every so-manieth layer sees all positions.
    #[serde(skip_serializing_if = "is_default")]
    pub global_every: Option<usize>,
    /// Whether layers with a window have rotary frequencies of their own.
    #[serde(skip_serializing_if = "is_default")]
    pub local_frequencies: bool,
    /// How an encoder's tokens become a vector.
    #[serde(skip_serializing_if = "is_default")]
    pub pooling: Pooling,
    /// Norms after attention and after the MLP, before they are added.
    #[serde(skip_serializing_if = "is_default")]
    pub post_norms: bool,
    /// Biases of queries, keys and values.
    #[serde(skip_serializing_if = "is_default")]
    pub qkv_bias: bool,
    /// A norm of each query and key head.
    #[serde(skip_serializing_if = "is_default")]
    pub qk_norm: bool,
    /// The number whose square root divides scores, if it is not the head dimension.
    #[serde(skip_serializing_if = "is_default")]
    pub score_divisor: Option<usize>,
    /// Positions that a query sees, its own included, in layers with a window.
    #[serde(skip_serializing_if = "is_default")]
    pub window: Option<usize>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Variant {
    /// Whether a layer has the window.
    pub const fn is_local(&self, layer: usize) -> bool {
        match (self.window, self.global_every) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(_), Some(every)) => !(layer + 1).is_multiple_of(every),
        }
    }

    /// What embeddings are multiplied with.
    pub fn embedding_factor(&self) -> Scale {
        self.embedding_factor
            .and_then(|(mantissa, exponent)| Scale::new(mantissa, exponent))
            .unwrap_or(Scale::ONE)
    }

    /// The bound on logits.
    pub fn final_cap(&self) -> Option<SoftCap> {
        self.final_cap_q16.and_then(SoftCap::new)
    }

    /// What the queries of a layer see.
    pub fn attention(&self, layer: usize, manifest: &Manifest) -> Attention {
        Attention {
            layer,
            scale: attention_scale(self.score_divisor.unwrap_or(manifest.head_dim)),
            causal: manifest.architecture.is_decoder(),
            window: self.window.filter(|_| self.is_local(layer)),
            soft_cap: self.attention_cap_q16.and_then(SoftCap::new).map(SoftCap::in_log2_units),
        }
    }

    /// Checks every field against the architecture and its own range.
    pub(crate) fn check(&self, architecture: Architecture) -> Result<(), BundleError> {
        let wrong = |rule: &str| {
            let actual = serde_json::to_string(self).unwrap_or_default();
            Err(BundleError::Manifest { field: "variant", actual, rule: rule.to_owned() })
        };
        // What the other architectures leave at its default.
        let allowed = match architecture {
            Architecture::Llama => Self { classes: Vec::new(), pooling: Pooling::default(), ..self.clone() },
            Architecture::Gpt2 => Self { activation: self.activation, ..Self::default() },
            Architecture::Bert => Self {
                activation: self.activation,
                classes: self.classes.clone(),
                pooling: self.pooling,
                ..Self::default()
            },
        };
        if allowed != *self {
            return wrong(&format!("a field is none of `{}`", architecture.name()));
        }
        let caps = [self.attention_cap_q16, self.final_cap_q16];
        if caps.into_iter().flatten().any(|cap| SoftCap::new(cap).is_none()) {
            return wrong("a cap must be between 2^16 and 2^30");
        }
        if self.embedding_factor.is_some_and(|(m, e)| Scale::new(m, e).is_none_or(|_| e.abs() > 64)) {
            return wrong(
                "an embedding factor needs a mantissa in 2^22 .. 2^23 and an exponent in -64 ..= 64",
            );
        }
        if [self.window, self.global_every, self.score_divisor]
            .into_iter()
            .flatten()
            .any(|n| n == 0 || n >> 20 > 0)
        {
            return wrong("window, global_every and score_divisor must be between 1 and 2^20");
        }
        if self.window.is_none() && (self.global_every.is_some() || self.local_frequencies) {
            return wrong("global_every and local_frequencies need a window");
        }
        let names = |(i, class): (usize, &String)| {
            (1..=MAX_CLASS_BYTES).contains(&class.len()) && !self.classes[..i].contains(class)
        };
        if self.classes.len() > MAX_CLASSES || !self.classes.iter().enumerate().all(names) {
            return wrong("at most 256 classes with distinct names of 1 to 64 bytes");
        }
        Ok(())
    }
}

//! The Llama family in floats, part by part, each of which can run in fixed point instead.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use candle_nn::ops::{rms_norm, softmax_last_dim};
use candle_nn::{Module, rotary_emb::rope};
use candle_transformers::utils::repeat_kv;
use metis_kernels::{Attention, Backend, Cpu, NormWeights, Scale, TokenId};

use super::{FixedAttention, FixedError, FixedLinear, FixedNorm};
use crate::bundle::{ActivationName, Architecture, Bundle, Manifest};
use crate::import::{Source, floats};

/// A part of a transformer, in the order of the forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Tokens to the residual stream.
    Embedding,
    /// The norm, projections and attention of a layer.
    Attention(usize),
    /// The norm and projections of a layer's MLP.
    Mlp(usize),
    /// The last norm and the residual stream to logits.
    Head,
}

impl Part {
    /// Its layer, if it is part of one.
    pub const fn layer(self) -> Option<usize> {
        match self {
            Self::Attention(layer) | Self::Mlp(layer) => Some(layer),
            Self::Embedding | Self::Head => None,
        }
    }

    /// What it is called in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Embedding => "embedding",
            Self::Attention(_) => "attention",
            Self::Mlp(_) => "mlp",
            Self::Head => "head",
        }
    }
}

/// A float checkpoint of the Llama family (Llama, Mistral, Qwen, Gemma) that can run any of its parts as the bundle that was made from it does.
///
/// Of a part in fixed point, norms, linear layers and attention are the kernels on the bundle's tensors; RoPE, the MLP's activation and sums
/// stay floats.
#[derive(Debug)]
pub struct MixedLlama<B: Backend = Cpu> {
    manifest: Manifest,
    embedding: Linear<B>,
    layers: Vec<Layer<B>>,
    final_norm: Norm<B>,
    /// `None`: the embedding is the head.
    head: Option<Linear<B>>,
    rope: Rotations,
    /// Of the layers with a window, if it is another.
    local_rope: Option<Rotations>,
}

#[derive(Debug)]
struct Layer<B: Backend> {
    attention_norm: Norm<B>,
    query: Linear<B>,
    key: Linear<B>,
    value: Linear<B>,
    /// Of each query and of each key head.
    head_norms: Option<[Norm<B>; 2]>,
    attention: Attention,
    fixed_attention: FixedAttention<B>,
    output: Linear<B>,
    mlp_norm: Norm<B>,
    gate: Linear<B>,
    up: Linear<B>,
    down: Linear<B>,
    /// After attention and after the MLP.
    post_norms: Option<[Norm<B>; 2]>,
}

impl<B: Backend> MixedLlama<B> {
    /// Loads a checkpoint and its bundle: 5 bytes per weight.
    ///
    /// An error if the architecture is another, if the bundle was not made from this checkpoint, or if either cannot be read.
    pub fn load(source: &Source, bundle: &Bundle, backend: &Arc<B>) -> Result<Self, FixedError> {
        let m = bundle.manifest();
        if m.architecture != Architecture::Llama {
            return Err(FixedError::Architecture(m.architecture.name()));
        }
        let checkpoint = source.open()?;
        same_model(m, &checkpoint.shape.manifest(m.name.clone(), m.context, m.bos.clone()))?;
        let load = Loader { floats: &floats(&checkpoint, m)?, bundle, backend };
        let variant = &m.variant;
        let layers = (0..m.layers)
            .map(|i| {
                let linear = |part: &str| load.linear(&format!("layers.{i}.{part}"));
                let norm = |part: &str| load.norm(&format!("layers.{i}.{part}"));
                let stays = |part: &str| load.norm_in_q16(&format!("layers.{i}.{part}"));
                let pair = |wanted: bool, [first, second]: [&str; 2]| {
                    wanted.then(|| Ok::<_, FixedError>([stays(first)?, stays(second)?])).transpose()
                };
                let attention = variant.attention(i, m);
                Ok(Layer {
                    attention_norm: norm("attention_norm")?,
                    query: linear("query")?,
                    key: linear("key")?,
                    value: linear("value")?,
                    head_norms: pair(variant.qk_norm, ["query_norm", "key_norm"])?,
                    attention,
                    fixed_attention: FixedAttention::new(attention, Arc::clone(backend)),
                    output: linear("output")?,
                    mlp_norm: norm("mlp_norm")?,
                    gate: linear("gate")?,
                    up: linear("up")?,
                    down: linear("down")?,
                    post_norms: pair(variant.post_norms, ["attention_post_norm", "mlp_post_norm"])?,
                })
            })
            .collect::<Result<_, FixedError>>()?;
        let rope = |name: &str| Rotations::new(&bundle.frequencies(name)?, m.context);
        Ok(Self {
            embedding: load.linear("embedding")?,
            layers,
            final_norm: load.norm("final_norm")?,
            head: (!m.tied_embeddings).then(|| load.linear("head")).transpose()?,
            rope: rope("rope.frequencies")?,
            local_rope: variant.local_frequencies.then(|| rope("rope.local_frequencies")).transpose()?,
            manifest: m.clone(),
        })
    }

    /// What the bundle is.
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// All parts in the order of the forward pass.
    pub fn parts(&self) -> Vec<Part> {
        let layers = (0..self.layers.len()).flat_map(|layer| [Part::Attention(layer), Part::Mlp(layer)]);
        [Part::Embedding].into_iter().chain(layers).chain([Part::Head]).collect()
    }

    /// The logits `[tokens, vocabulary]`, with the parts `fixed` in fixed point.
    ///
    /// An error if there is no token, more of them than the context, or one outside the vocabulary.
    pub fn logits(&self, tokens: &[TokenId], fixed: &[Part]) -> Result<Tensor, FixedError> {
        let embedded = self.embed(tokens, fixed.contains(&Part::Embedding))?;
        let rest = self.parts().into_iter().skip(1);
        rest.into_iter().try_fold(embedded, |x, part| self.step(part, &x, fixed.contains(&part)))
    }

    /// The residual stream `[tokens, hidden]` of tokens.
    pub(crate) fn embed(&self, tokens: &[TokenId], fixed: bool) -> Result<Tensor, FixedError> {
        let context = self.manifest.context;
        if tokens.is_empty() || tokens.len() > context {
            let expected = format!("1 to {context}");
            return Err(FixedError::Shape { what: "tokens", expected, actual: vec![tokens.len()] });
        }
        let factor = self.manifest.variant.embedding_factor();
        if fixed {
            return self.embedding.fixed.embed(tokens, factor);
        }
        let ids: Vec<u32> = tokens.iter().map(|token| token.0).collect();
        let rows = self.embedding.float.weight().index_select(&Tensor::new(ids, &Device::Cpu)?, 0)?;
        Ok(if factor == Scale::ONE { rows } else { (rows * real(factor))? })
    }

    /// What a part but the embedding makes of the residual stream `[tokens, hidden]`: the next one, or the logits `[tokens, vocabulary]`.
    pub(crate) fn step(&self, part: Part, x: &Tensor, fixed: bool) -> Result<Tensor, FixedError> {
        match part {
            Part::Embedding => Ok(x.clone()),
            Part::Attention(i) => Ok((x + self.attend(&self.layers[i], x, fixed)?)?),
            Part::Mlp(i) => Ok((x + self.mlp(&self.layers[i], x, fixed)?)?),
            Part::Head => {
                let normed = self.final_norm.forward(x, fixed)?;
                let logits = self.head.as_ref().unwrap_or(&self.embedding).forward(&normed, fixed)?;
                capped(logits, self.manifest.variant.final_cap_q16)
            }
        }
    }

    fn attend(&self, layer: &Layer<B>, x: &Tensor, fixed: bool) -> Result<Tensor, FixedError> {
        let (m, tokens) = (&self.manifest, x.dim(0)?);
        let normed = layer.attention_norm.forward(x, fixed)?;
        let heads = |linear: &Linear<B>, count: usize, norm: Option<&Norm<B>>| {
            let heads = linear.forward(&normed, fixed)?.reshape((tokens, count, m.head_dim))?;
            let heads = norm.map_or(Ok(heads.clone()), |norm| norm.forward(&heads, fixed))?;
            Ok::<_, FixedError>(heads.transpose(0, 1)?.contiguous()?.unsqueeze(0)?)
        };
        let [query_norm, key_norm] = match &layer.head_norms {
            Some([query, key]) => [Some(query), Some(key)],
            None => [None, None],
        };
        let rotations = self.local_rope.as_ref().filter(|_| layer.attention.window.is_some());
        let rotations = rotations.unwrap_or(&self.rope);
        let q = rotations.apply(&heads(&layer.query, m.heads, query_norm)?)?;
        let k = rotations.apply(&heads(&layer.key, m.kv_heads, key_norm)?)?;
        let v = heads(&layer.value, m.kv_heads, None)?;
        let mixed = match fixed {
            true => layer.fixed_attention.forward(&q, &k, &v)?,
            false => self.float_attention(&layer.attention, &q, k, v)?,
        };
        let mixed =
            mixed.squeeze(0)?.transpose(0, 1)?.contiguous()?.reshape((tokens, m.heads * m.head_dim))?;
        let out = layer.output.forward(&mixed, fixed)?;
        layer.post_norms.as_ref().map_or(Ok(out.clone()), |[norm, _]| norm.forward(&out, fixed))
    }

    /// Softmax of scores, times values: `[1, heads, tokens, head_dim]`.
    fn float_attention(
        &self,
        attention: &Attention,
        q: &Tensor,
        k: Tensor,
        v: Tensor,
    ) -> Result<Tensor, FixedError> {
        let (m, tokens) = (&self.manifest, q.dim(2)?);
        let group = m.heads / m.kv_heads;
        let (k, v) = (repeat_kv(k, group)?, repeat_kv(v, group)?);
        let divisor = m.variant.score_divisor.unwrap_or(m.head_dim) as f64;
        let scores = capped((q.matmul(&k.t()?)? / divisor.sqrt())?, m.variant.attention_cap_q16)?;
        let row = |i: usize| {
            let seen = attention.sees(i, tokens);
            (0..tokens).map(move |j| if seen.contains(&j) { 0.0 } else { f32::NEG_INFINITY })
        };
        let mask: Vec<f32> = (0..tokens).flat_map(row).collect();
        let scores = scores.broadcast_add(&Tensor::from_vec(mask, (tokens, tokens), &Device::Cpu)?)?;
        Ok(softmax_last_dim(&scores)?.matmul(&v)?)
    }

    fn mlp(&self, layer: &Layer<B>, x: &Tensor, fixed: bool) -> Result<Tensor, FixedError> {
        let normed = layer.mlp_norm.forward(x, fixed)?;
        let gate = layer.gate.forward(&normed, fixed)?;
        let gate = match self.manifest.variant.activation {
            ActivationName::Silu => gate.silu()?,
            ActivationName::GeluTanh => gate.gelu()?,
            ActivationName::GeluErf => gate.gelu_erf()?,
        };
        let out = layer.down.forward(&(gate * layer.up.forward(&normed, fixed)?)?, fixed)?;
        layer.post_norms.as_ref().map_or(Ok(out.clone()), |[_, norm]| norm.forward(&out, fixed))
    }
}

/// `cap * tanh(x / cap)`.
fn capped(x: Tensor, cap_q16: Option<i32>) -> Result<Tensor, FixedError> {
    let Some(cap) = cap_q16.map(|cap| f64::from(cap) / 65_536.0) else { return Ok(x) };
    Ok(((x / cap)?.tanh()? * cap)?)
}

fn real(scale: Scale) -> f64 {
    f64::from(scale.mantissa()) * 2f64.powi(scale.exponent())
}

/// A linear layer in both arithmetics.
#[derive(Debug)]
struct Linear<B: Backend> {
    float: candle_nn::Linear,
    fixed: FixedLinear<B>,
}

impl<B: Backend> Linear<B> {
    fn forward(&self, x: &Tensor, fixed: bool) -> Result<Tensor, FixedError> {
        Ok(if fixed { self.fixed.forward(x) } else { self.float.forward(x) }?)
    }
}

/// An RMSNorm in both arithmetics.
#[derive(Debug)]
struct Norm<B: Backend> {
    gains: Tensor,
    epsilon: f64,
    fixed: FixedNorm<B>,
}

impl<B: Backend> Norm<B> {
    fn forward(&self, x: &Tensor, fixed: bool) -> Result<Tensor, FixedError> {
        let float = || rms_norm(&x.contiguous()?, &self.gains, self.epsilon as f32);
        Ok(if fixed { self.fixed.forward(x) } else { float() }?)
    }
}

/// Cosines and sines `[context, head_dim / 2]`.
#[derive(Debug)]
struct Rotations([Tensor; 2]);

impl Rotations {
    fn new(frequencies_q64: &[u64], context: usize) -> Result<Self, FixedError> {
        let turn = std::f64::consts::TAU / 2f64.powi(64);
        let table = |function: fn(f64) -> f64| {
            let row = |position: u64| {
                let angle = move |&f: &u64| function(f.wrapping_mul(position) as f64 * turn) as f32;
                frequencies_q64.iter().map(angle)
            };
            let values: Vec<f32> = (0..context as u64).flat_map(row).collect();
            Tensor::from_vec(values, (context, frequencies_q64.len()), &Device::Cpu)
        };
        Ok(Self([table(f64::cos)?, table(f64::sin)?]))
    }

    /// Rotates `[1, heads, tokens, head_dim]` by positions from zero on.
    fn apply(&self, x: &Tensor) -> Result<Tensor, FixedError> {
        let Self([cos, sin]) = self;
        let tokens = x.dim(2)?;
        Ok(rope(x, &cos.narrow(0, 0, tokens)?, &sin.narrow(0, 0, tokens)?)?)
    }
}

/// Refuses a bundle whose shapes are not the checkpoint's.
fn same_model(bundle: &Manifest, checkpoint: &Manifest) -> Result<(), FixedError> {
    type Field = (&'static str, fn(&Manifest) -> String);
    const FIELDS: [Field; 11] = [
        ("architecture", |m| m.architecture.name().into()),
        ("vocabulary", |m| m.vocabulary.to_string()),
        ("hidden", |m| m.hidden.to_string()),
        ("intermediate", |m| m.intermediate.to_string()),
        ("layers", |m| m.layers.to_string()),
        ("heads", |m| m.heads.to_string()),
        ("kv_heads", |m| m.kv_heads.to_string()),
        ("head_dim", |m| m.head_dim.to_string()),
        ("norm_epsilon_q32", |m| m.norm_epsilon_q32.to_string()),
        ("tied_embeddings", |m| m.tied_embeddings.to_string()),
        ("variant", |m| format!("{:?}", m.variant)),
    ];
    for (field, value) in FIELDS {
        let (bundle, checkpoint) = (value(bundle), value(checkpoint));
        if bundle != checkpoint {
            return Err(FixedError::OtherCheckpoint { field, bundle, checkpoint });
        }
    }
    Ok(())
}

/// The tensors of a checkpoint, and of its bundle for fixed point.
struct Loader<'a, B: Backend> {
    floats: &'a HashMap<String, Tensor>,
    bundle: &'a Bundle,
    backend: &'a Arc<B>,
}

impl<B: Backend> Loader<'_, B> {
    fn tensor(&self, name: String) -> Result<Tensor, FixedError> {
        let tensor = self.floats.get(&name).cloned();
        tensor.ok_or_else(|| candle_core::Error::CannotFindTensor { path: name }.into())
    }

    fn linear(&self, name: &str) -> Result<Linear<B>, FixedError> {
        let bias = self.floats.get(&format!("{name}.bias")).cloned();
        let bias_q16 = bias.as_ref().map(|_| self.bundle.bias(name)).transpose()?;
        let (weights, backend) = (self.bundle.linear(name)?, Arc::clone(self.backend));
        Ok(Linear {
            float: candle_nn::Linear::new(self.tensor(format!("{name}.weight"))?, bias),
            fixed: FixedLinear::from_weights(weights.weights(), bias_q16.as_deref(), backend)?,
        })
    }

    fn norm(&self, name: &str) -> Result<Norm<B>, FixedError> {
        let epsilon_q32 = self.bundle.manifest().norm_epsilon_q32;
        let weights = NormWeights { gains_q20: &self.bundle.gains(name)?, biases_q20: None, epsilon_q32 };
        Ok(Norm {
            gains: self.tensor(format!("{name}.gain"))?,
            // Q32 is exact in a double.
            epsilon: epsilon_q32 as f64 / (1u64 << 32) as f64,
            fixed: FixedNorm::from_weights(weights, Arc::clone(self.backend))?,
        })
    }

    fn norm_in_q16(&self, name: &str) -> Result<Norm<B>, FixedError> {
        let norm = self.norm(name)?;
        Ok(Norm { fixed: norm.fixed.in_q16(), ..norm })
    }
}

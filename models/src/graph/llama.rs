//! The Llama family (Touvron et al., arXiv:2302.13971) and its relatives: pre-norm, rotary attention with grouped key-value heads, a
//! gated MLP. Mistral adds a sliding window, Qwen biases or norms of heads, Gemma more norms, soft caps and two kinds of layers.

use metis_kernels::{Activation, Attention, Backend, BackendError, Row, Scale, SoftCap, TokenId};

use super::Workspace;
use super::parts::{Linear, Loader};
use crate::bundle::Bundle;
use crate::engine::LoadError;

/// A decoder of the Llama family on a backend.
#[derive(Debug)]
pub struct Llama<B: Backend> {
    embedding: B::Linear,
    embedding_factor: Scale,
    layers: Vec<Layer<B>>,
    final_norm: B::Norm,
    /// `None`: the embedding is the head.
    head: Option<B::Linear>,
    final_cap: Option<SoftCap>,
    rope: B::Rope,
    /// Of the layers with a window, if it is another.
    local_rope: Option<B::Rope>,
    head_dim: usize,
    activation: Activation,
}

#[derive(Debug)]
struct Layer<B: Backend> {
    attention_norm: B::Norm,
    query: Linear<B>,
    key: Linear<B>,
    value: Linear<B>,
    /// Of each query and of each key head.
    head_norms: Option<[B::Norm; 2]>,
    attention: Attention,
    output: Linear<B>,
    mlp_norm: B::Norm,
    gate: Linear<B>,
    up: Linear<B>,
    down: Linear<B>,
    /// After attention and after the MLP.
    post_norms: Option<[B::Norm; 2]>,
}

impl<B: Backend> Llama<B> {
    pub(super) fn load(bundle: &Bundle, backend: &B) -> Result<Self, LoadError> {
        let (m, load) = (bundle.manifest(), Loader { bundle, backend });
        let variant = &m.variant;
        let layers = (0..m.layers)
            .map(|i| {
                let name = |part: &str| format!("layers.{i}.{part}");
                let projection =
                    |part: &str| if variant.qkv_bias { load.biased(part) } else { load.linear(part) };
                let pair = |wanted: bool, names: [&str; 2]| {
                    let [first, second] = names.map(name);
                    wanted
                        .then(|| Ok::<_, LoadError>([load.rms_norm(&first)?, load.rms_norm(&second)?]))
                        .transpose()
                };
                Ok(Layer {
                    attention_norm: load.rms_norm(&name("attention_norm"))?,
                    query: projection(&name("query"))?,
                    key: projection(&name("key"))?,
                    value: projection(&name("value"))?,
                    head_norms: pair(variant.qk_norm, ["query_norm", "key_norm"])?,
                    attention: variant.attention(i, m),
                    output: load.linear(&name("output"))?,
                    mlp_norm: load.rms_norm(&name("mlp_norm"))?,
                    gate: load.linear(&name("gate"))?,
                    up: load.linear(&name("up"))?,
                    down: load.linear(&name("down"))?,
                    post_norms: pair(variant.post_norms, ["attention_post_norm", "mlp_post_norm"])?,
                })
            })
            .collect::<Result<_, LoadError>>()?;
        Ok(Self {
            embedding: load.matrix("embedding")?,
            embedding_factor: variant.embedding_factor(),
            layers,
            final_norm: load.rms_norm("final_norm")?,
            head: if m.tied_embeddings { None } else { Some(load.matrix("head")?) },
            final_cap: variant.final_cap(),
            rope: load.rope("rope.frequencies")?,
            local_rope: variant.local_frequencies.then(|| load.rope("rope.local_frequencies")).transpose()?,
            head_dim: m.head_dim,
            activation: variant.activation.into(),
        })
    }

    /// Up to the head of the rows that are wanted.
    pub(super) fn advance(
        &self,
        backend: &B,
        ws: &mut Workspace<B>,
        tokens: &[TokenId],
        rows: &[Row],
        caches: &mut [&mut B::KvCache],
        wanted: &[usize],
    ) -> Result<(), BackendError> {
        backend.embed(&self.embedding, tokens, self.embedding_factor, &mut ws.x)?;
        for (i, layer) in self.layers.iter().enumerate() {
            backend.begin_layer(Some(i));
            backend.norm(&ws.x, &layer.attention_norm, &mut ws.normed)?;
            layer.query.forward(backend, &ws.normed, &mut ws.q)?;
            layer.key.forward(backend, &ws.normed, &mut ws.k)?;
            layer.value.forward(backend, &ws.normed, &mut ws.v)?;
            if let Some([query_norm, key_norm]) = &layer.head_norms {
                backend.normalise(&mut ws.q, query_norm)?;
                backend.normalise(&mut ws.k, key_norm)?;
            }
            let rope = self.local_rope.as_ref().filter(|_| layer.attention.window.is_some());
            let rope = rope.unwrap_or(&self.rope);
            backend.rope(rope, rows, self.head_dim, &mut ws.q)?;
            backend.rope(rope, rows, self.head_dim, &mut ws.k)?;
            backend.attention(layer.attention, rows, &ws.q, &ws.k, &ws.v, caches, &mut ws.attended)?;
            layer.output.forward(backend, &ws.attended, &mut ws.delta)?;
            if let Some([attention_norm, _]) = &layer.post_norms {
                backend.normalise(&mut ws.delta, attention_norm)?;
            }
            backend.add(&mut ws.x, &ws.delta)?;

            backend.norm(&ws.x, &layer.mlp_norm, &mut ws.normed)?;
            layer.gate.forward(backend, &ws.normed, &mut ws.gate)?;
            layer.up.forward(backend, &ws.normed, &mut ws.up)?;
            backend.gate(self.activation, &ws.gate, Some(&ws.up), &mut ws.gated)?;
            layer.down.forward(backend, &ws.gated, &mut ws.delta)?;
            if let Some([_, mlp_norm]) = &layer.post_norms {
                backend.normalise(&mut ws.delta, mlp_norm)?;
            }
            backend.add(&mut ws.x, &ws.delta)?;
        }
        backend.begin_layer(None);
        if wanted.is_empty() {
            return Ok(());
        }
        backend.select_rows(&ws.x, wanted, &mut ws.last)?;
        backend.norm(&ws.last, &self.final_norm, &mut ws.last_normed)
    }

    /// The logits of the rows that were wanted.
    pub(super) fn logits(&self, backend: &B, ws: &mut Workspace<B>) -> Result<(), BackendError> {
        backend.linear(&ws.last_normed, self.head(), &mut ws.logits)?;
        self.final_cap.map_or(Ok(()), |cap| backend.soft_cap(&mut ws.logits, cap))
    }

    pub(super) fn head(&self) -> &B::Linear {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// Whether logits are bounded.
    pub(super) const fn is_capped(&self) -> bool {
        self.final_cap.is_some()
    }
}

//! The Llama family (Touvron et al., arXiv:2302.13971): pre-norm, rotary attention with grouped key-value heads, SwiGLU.

use metis_kernels::{Backend, BackendError, KvShape, LinearWeights, NormWeights, Row, TokenId};

use crate::bundle::Manifest;
use crate::bundle::{Bundle, BundleError};
use crate::engine::LoadError;

/// A Llama model on a backend.
#[derive(Debug)]
pub struct Llama<B: Backend> {
    embedding: B::Linear,
    layers: Vec<Layer<B>>,
    final_norm: B::Norm,
    /// `None`: the embedding is the head.
    head: Option<B::Linear>,
    rope: B::Rope,
    head_dim: usize,
}

#[derive(Debug)]
struct Layer<B: Backend> {
    attention_norm: B::Norm,
    query: B::Linear,
    key: B::Linear,
    value: B::Linear,
    output: B::Linear,
    mlp_norm: B::Norm,
    gate: B::Linear,
    up: B::Linear,
    down: B::Linear,
}

/// The buffers of one step of up to `rows` tokens, of which up to `logit_rows` want logits.
#[derive(Debug)]
pub struct Workspace<B: Backend> {
    x: B::Residual,
    delta: B::Residual,
    normed: B::Activations,
    q: B::Residual,
    k: B::Residual,
    v: B::Residual,
    attended: B::Activations,
    gate: B::Residual,
    up: B::Residual,
    gated: B::Activations,
    last: B::Residual,
    last_normed: B::Activations,
    logits: B::Residual,
}

impl<B: Backend> Workspace<B> {
    /// Allocates on the backend.
    pub fn new(backend: &B, m: &Manifest, rows: usize, logit_rows: usize) -> Result<Self, BackendError> {
        let shape = m.attention();
        Ok(Self {
            x: backend.residual(rows, m.hidden)?,
            delta: backend.residual(rows, m.hidden)?,
            normed: backend.activations(rows, m.hidden)?,
            q: backend.residual(rows, shape.query_width())?,
            k: backend.residual(rows, shape.kv_width())?,
            v: backend.residual(rows, shape.kv_width())?,
            attended: backend.activations(rows, shape.query_width())?,
            gate: backend.residual(rows, m.intermediate)?,
            up: backend.residual(rows, m.intermediate)?,
            gated: backend.activations(rows, m.intermediate)?,
            last: backend.residual(logit_rows, m.hidden)?,
            last_normed: backend.activations(logit_rows, m.hidden)?,
            logits: backend.residual(logit_rows, m.vocabulary)?,
        })
    }

    /// The logits of the last step, one row for each row that asked.
    pub const fn logits(&self) -> &B::Residual {
        &self.logits
    }
}

impl<B: Backend> Llama<B> {
    /// Loads the weights of a verified bundle.
    pub fn load(bundle: &Bundle, backend: &B) -> Result<Self, LoadError> {
        let m = bundle.manifest();
        let linear = |name: &str| -> Result<B::Linear, LoadError> {
            let matrix = bundle.linear(name)?;
            Ok(backend.load_linear(LinearWeights {
                outputs: matrix.outputs,
                inputs: matrix.inputs,
                bytes: matrix.bytes,
                scales: &matrix.scales,
            })?)
        };
        let norm = |name: &str| -> Result<B::Norm, LoadError> {
            let gains_q20 = &bundle.gains(name)?;
            Ok(backend.load_norm(NormWeights { gains_q20, epsilon_q32: m.norm_epsilon_q32 })?)
        };
        let layers = (0..m.layers)
            .map(|i| {
                let linear = |name: &str| linear(&format!("layers.{i}.{name}"));
                let norm = |name: &str| norm(&format!("layers.{i}.{name}"));
                Ok(Layer {
                    attention_norm: norm("attention_norm")?,
                    query: linear("query")?,
                    key: linear("key")?,
                    value: linear("value")?,
                    output: linear("output")?,
                    mlp_norm: norm("mlp_norm")?,
                    gate: linear("gate")?,
                    up: linear("up")?,
                    down: linear("down")?,
                })
            })
            .collect::<Result<_, LoadError>>()?;
        let frequencies: Result<Vec<u64>, BundleError> = bundle.rope_frequencies();
        Ok(Self {
            embedding: linear("embedding")?,
            layers,
            final_norm: norm("final_norm")?,
            head: if m.tied_embeddings { None } else { Some(linear("head")?) },
            rope: backend.load_rope(&frequencies?, m.context)?,
            head_dim: m.attention().head_dim,
        })
    }

    /// The cache of a sequence of up to `capacity` tokens.
    pub fn kv_cache(&self, backend: &B, m: &Manifest, capacity: usize) -> Result<B::KvCache, BackendError> {
        backend.kv_cache(KvShape { layers: self.layers.len(), attention: m.attention(), capacity })
    }

    /// Feeds `tokens[i]` at `rows[i]` and leaves the logits of the rows named by `logit_rows` in the workspace.
    pub fn forward(
        &self,
        backend: &B,
        ws: &mut Workspace<B>,
        tokens: &[TokenId],
        rows: &[Row],
        caches: &mut [&mut B::KvCache],
        logit_rows: &[usize],
    ) -> Result<(), BackendError> {
        backend.embed(&self.embedding, tokens, &mut ws.x)?;
        for (i, layer) in self.layers.iter().enumerate() {
            backend.rmsnorm(&ws.x, &layer.attention_norm, &mut ws.normed)?;
            backend.linear(&ws.normed, &layer.query, &mut ws.q)?;
            backend.linear(&ws.normed, &layer.key, &mut ws.k)?;
            backend.linear(&ws.normed, &layer.value, &mut ws.v)?;
            backend.rope(&self.rope, rows, self.head_dim, &mut ws.q)?;
            backend.rope(&self.rope, rows, self.head_dim, &mut ws.k)?;
            backend.attention(i, rows, &ws.q, &ws.k, &ws.v, caches, &mut ws.attended)?;
            backend.linear(&ws.attended, &layer.output, &mut ws.delta)?;
            backend.add(&mut ws.x, &ws.delta)?;

            backend.rmsnorm(&ws.x, &layer.mlp_norm, &mut ws.normed)?;
            backend.linear(&ws.normed, &layer.gate, &mut ws.gate)?;
            backend.linear(&ws.normed, &layer.up, &mut ws.up)?;
            backend.silu_gate(&ws.gate, &ws.up, &mut ws.gated)?;
            backend.linear(&ws.gated, &layer.down, &mut ws.delta)?;
            backend.add(&mut ws.x, &ws.delta)?;
        }
        if logit_rows.is_empty() {
            return Ok(());
        }
        backend.select_rows(&ws.x, logit_rows, &mut ws.last)?;
        backend.rmsnorm(&ws.last, &self.final_norm, &mut ws.last_normed)?;
        backend.linear(&ws.last_normed, self.head.as_ref().unwrap_or(&self.embedding), &mut ws.logits)
    }
}

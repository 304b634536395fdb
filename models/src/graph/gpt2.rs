//! GPT-2 (Radford et al., 2019): learned positions, LayerNorm before each part, a plain MLP, biases everywhere.

use metis_kernels::{Activation, Attention, Backend, BackendError, Row, Scale, TokenId};

use super::Workspace;
use super::parts::{Linear, Loader, positions};
use crate::bundle::Bundle;
use crate::engine::LoadError;

/// GPT-2 on a backend.
#[derive(Debug)]
pub struct Gpt2<B: Backend> {
    embedding: B::Linear,
    positions: B::Linear,
    layers: Vec<Layer<B>>,
    final_norm: B::Norm,
    /// `None`: the embedding is the head.
    head: Option<B::Linear>,
    activation: Activation,
}

#[derive(Debug)]
struct Layer<B: Backend> {
    attention_norm: B::Norm,
    query: Linear<B>,
    key: Linear<B>,
    value: Linear<B>,
    attention: Attention,
    output: Linear<B>,
    mlp_norm: B::Norm,
    up: Linear<B>,
    down: Linear<B>,
}

impl<B: Backend> Gpt2<B> {
    pub(super) fn load(bundle: &Bundle, backend: &B) -> Result<Self, LoadError> {
        let (m, load) = (bundle.manifest(), Loader { bundle, backend });
        let layers = (0..m.layers)
            .map(|i| {
                let name = |part: &str| format!("layers.{i}.{part}");
                Ok(Layer {
                    attention_norm: load.layer_norm(&name("attention_norm"))?,
                    query: load.biased(&name("query"))?,
                    key: load.biased(&name("key"))?,
                    value: load.biased(&name("value"))?,
                    attention: m.variant.attention(i, m),
                    output: load.biased(&name("output"))?,
                    mlp_norm: load.layer_norm(&name("mlp_norm"))?,
                    up: load.biased(&name("up"))?,
                    down: load.biased(&name("down"))?,
                })
            })
            .collect::<Result<_, LoadError>>()?;
        Ok(Self {
            embedding: load.matrix("embedding")?,
            positions: load.matrix("positions")?,
            layers,
            final_norm: load.layer_norm("final_norm")?,
            head: if m.tied_embeddings { None } else { Some(load.matrix("head")?) },
            activation: m.variant.activation.into(),
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
        backend.embed(&self.embedding, tokens, Scale::ONE, &mut ws.x)?;
        positions(rows, &mut ws.positions);
        backend.embed(&self.positions, &ws.positions, Scale::ONE, &mut ws.delta)?;
        backend.add(&mut ws.x, &ws.delta)?;
        for (i, layer) in self.layers.iter().enumerate() {
            backend.begin_layer(Some(i));
            backend.norm(&ws.x, &layer.attention_norm, &mut ws.normed)?;
            layer.query.forward(backend, &ws.normed, &mut ws.q)?;
            layer.key.forward(backend, &ws.normed, &mut ws.k)?;
            layer.value.forward(backend, &ws.normed, &mut ws.v)?;
            backend.attention(layer.attention, rows, &ws.q, &ws.k, &ws.v, caches, &mut ws.attended)?;
            layer.output.forward(backend, &ws.attended, &mut ws.delta)?;
            backend.add(&mut ws.x, &ws.delta)?;

            backend.norm(&ws.x, &layer.mlp_norm, &mut ws.normed)?;
            layer.up.forward(backend, &ws.normed, &mut ws.up)?;
            backend.gate(self.activation, &ws.up, None, &mut ws.gated)?;
            layer.down.forward(backend, &ws.gated, &mut ws.delta)?;
            backend.add(&mut ws.x, &ws.delta)?;
        }
        backend.begin_layer(None);
        if wanted.is_empty() {
            return Ok(());
        }
        backend.select_rows(&ws.x, wanted, &mut ws.last)?;
        backend.norm(&ws.last, &self.final_norm, &mut ws.last_normed)
    }

    pub(super) fn head(&self) -> &B::Linear {
        self.head.as_ref().unwrap_or(&self.embedding)
    }
}

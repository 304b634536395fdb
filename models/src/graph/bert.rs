//! BERT (Devlin et al., arXiv:1810.04805): an encoder with learned positions, LayerNorm after each part, a plain MLP, biases everywhere.

use metis_kernels::{Activation, Attention, Backend, BackendError, Row, Scale, SoftCap, TokenId};

use super::Workspace;
use super::parts::{Linear, Loader, positions};
use crate::bundle::Bundle;
use crate::engine::LoadError;

/// A BERT encoder on a backend.
#[derive(Debug)]
pub struct Bert<B: Backend> {
    embedding: B::Linear,
    /// With the embedding of the first segment added: every text is one segment.
    positions: B::Linear,
    embedding_norm: B::Norm,
    layers: Vec<Layer<B>>,
    activation: Activation,
    classifier: Option<Classifier<B>>,
}

#[derive(Debug)]
struct Layer<B: Backend> {
    query: Linear<B>,
    key: Linear<B>,
    value: Linear<B>,
    attention: Attention,
    output: Linear<B>,
    attention_norm: B::Norm,
    up: Linear<B>,
    down: Linear<B>,
    mlp_norm: B::Norm,
}

/// The head of a classifier on the first token.
#[derive(Debug)]
struct Classifier<B: Backend> {
    pooler: Linear<B>,
    classifier: Linear<B>,
    classes: usize,
}

impl<B: Backend> Bert<B> {
    pub(super) fn load(bundle: &Bundle, backend: &B) -> Result<Self, LoadError> {
        let (m, load) = (bundle.manifest(), Loader { bundle, backend });
        let layers = (0..m.layers)
            .map(|i| {
                let name = |part: &str| format!("layers.{i}.{part}");
                Ok(Layer {
                    query: load.biased(&name("query"))?,
                    key: load.biased(&name("key"))?,
                    value: load.biased(&name("value"))?,
                    attention: m.variant.attention(i, m),
                    output: load.biased(&name("output"))?,
                    attention_norm: load.layer_norm(&name("attention_norm"))?,
                    up: load.biased(&name("up"))?,
                    down: load.biased(&name("down"))?,
                    mlp_norm: load.layer_norm(&name("mlp_norm"))?,
                })
            })
            .collect::<Result<_, LoadError>>()?;
        let classes = m.variant.classes.len();
        let classifier = (classes > 0).then(|| {
            Ok::<_, LoadError>(Classifier {
                pooler: load.biased("pooler")?,
                classifier: load.biased("classifier")?,
                classes,
            })
        });
        Ok(Self {
            embedding: load.matrix("embedding")?,
            positions: load.matrix("positions")?,
            embedding_norm: load.layer_norm("embedding_norm")?,
            layers,
            activation: m.variant.activation.into(),
            classifier: classifier.transpose()?,
        })
    }

    /// Every row sees all rows of its sequence: a sequence is fed in one call.
    pub(super) fn forward(
        &self,
        backend: &B,
        ws: &mut Workspace<B>,
        tokens: &[TokenId],
        rows: &[Row],
        caches: &mut [&mut B::KvCache],
    ) -> Result<(), BackendError> {
        backend.embed(&self.embedding, tokens, Scale::ONE, &mut ws.x)?;
        positions(rows, &mut ws.positions);
        backend.embed(&self.positions, &ws.positions, Scale::ONE, &mut ws.delta)?;
        backend.add(&mut ws.x, &ws.delta)?;
        backend.normalise(&mut ws.x, &self.embedding_norm)?;
        for (i, layer) in self.layers.iter().enumerate() {
            backend.begin_layer(Some(i));
            backend.quantise(&ws.x, &mut ws.normed)?;
            layer.query.forward(backend, &ws.normed, &mut ws.q)?;
            layer.key.forward(backend, &ws.normed, &mut ws.k)?;
            layer.value.forward(backend, &ws.normed, &mut ws.v)?;
            backend.attention(layer.attention, rows, &ws.q, &ws.k, &ws.v, caches, &mut ws.attended)?;
            layer.output.forward(backend, &ws.attended, &mut ws.delta)?;
            backend.add(&mut ws.x, &ws.delta)?;
            backend.normalise(&mut ws.x, &layer.attention_norm)?;

            backend.quantise(&ws.x, &mut ws.normed)?;
            layer.up.forward(backend, &ws.normed, &mut ws.up)?;
            backend.gate(self.activation, &ws.up, None, &mut ws.gated)?;
            layer.down.forward(backend, &ws.gated, &mut ws.delta)?;
            backend.add(&mut ws.x, &ws.delta)?;
            backend.normalise(&mut ws.x, &layer.mlp_norm)?;
        }
        backend.begin_layer(None);
        Ok(())
    }

    /// The Q16 logits of the classes after [`forward`](Self::forward) of one sequence; `None` without a classifier.
    pub(crate) fn classify(
        &self,
        backend: &B,
        ws: &mut Workspace<B>,
    ) -> Result<Option<Vec<i32>>, BackendError> {
        let Some(head) = &self.classifier else { return Ok(None) };
        backend.select_rows(&ws.x, &[0], &mut ws.delta)?;
        backend.quantise(&ws.delta, &mut ws.normed)?;
        head.pooler.forward(backend, &ws.normed, &mut ws.x)?;
        // A cap of one is the hyperbolic tangent.
        if let Some(tanh) = SoftCap::new(1 << 16) {
            backend.soft_cap(&mut ws.x, tanh)?;
        }
        backend.quantise(&ws.x, &mut ws.normed)?;
        let mut logits = backend.residual(1, head.classes)?;
        head.classifier.forward(backend, &ws.normed, &mut logits)?;
        let mut row = Vec::new();
        backend.read_row(&logits, 0, &mut row)?;
        Ok(Some(row))
    }
}

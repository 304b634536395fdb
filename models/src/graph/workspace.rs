//! The buffers of a step.

use metis_kernels::{Backend, BackendError, TokenId};

use crate::bundle::{Architecture, Manifest};

/// The buffers of one step of up to `rows` tokens, of which up to `logit_rows` want logits.
#[derive(Debug)]
pub struct Workspace<B: Backend> {
    pub(super) x: B::Residual,
    pub(super) delta: B::Residual,
    pub(super) normed: B::Activations,
    pub(super) q: B::Residual,
    pub(super) k: B::Residual,
    pub(super) v: B::Residual,
    pub(super) attended: B::Activations,
    /// Of a gated MLP.
    pub(super) gate: B::Residual,
    pub(super) up: B::Residual,
    pub(super) gated: B::Activations,
    pub(super) last: B::Residual,
    pub(super) last_normed: B::Activations,
    pub(super) logits: B::Residual,
    /// Of learned positions.
    pub(super) positions: Vec<TokenId>,
}

impl<B: Backend> Workspace<B> {
    /// Allocates on the backend.
    pub fn new(backend: &B, m: &Manifest, rows: usize, logit_rows: usize) -> Result<Self, BackendError> {
        let shape = m.attention();
        let gate_rows = if m.architecture == Architecture::Llama { rows } else { 0 };
        Ok(Self {
            x: backend.residual(rows, m.hidden)?,
            delta: backend.residual(rows, m.hidden)?,
            normed: backend.activations(rows, m.hidden)?,
            q: backend.residual(rows, shape.query_width())?,
            k: backend.residual(rows, shape.kv_width())?,
            v: backend.residual(rows, shape.kv_width())?,
            attended: backend.activations(rows, shape.query_width())?,
            gate: backend.residual(gate_rows, m.intermediate)?,
            up: backend.residual(rows, m.intermediate)?,
            gated: backend.activations(rows, m.intermediate)?,
            last: backend.residual(logit_rows, m.hidden)?,
            last_normed: backend.activations(logit_rows, m.hidden)?,
            logits: backend.residual(logit_rows, m.vocabulary)?,
            positions: Vec::with_capacity(rows),
        })
    }

    /// The logits of the last step, one row for each row that asked.
    pub const fn logits(&self) -> &B::Residual {
        &self.logits
    }

    /// The hidden states of the last step, one row for each token.
    pub const fn hidden(&self) -> &B::Residual {
        &self.x
    }
}

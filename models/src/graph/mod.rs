//! Transformer families on the kernels, each one file that reads like its forward pass.

mod bert;
mod gpt2;
mod llama;
mod parts;
mod workspace;

use metis_kernels::{Backend, BackendError, KvShape, Row, TokenId};

use crate::bundle::{Architecture, Bundle, Manifest};
use crate::engine::LoadError;

pub use bert::Bert;
pub use gpt2::Gpt2;
pub use llama::Llama;
pub use workspace::Workspace;

/// A model on a backend.
#[derive(Debug)]
pub enum Graph<B: Backend> {
    /// [`Architecture::Llama`].
    Llama(Llama<B>),
    /// [`Architecture::Gpt2`].
    Gpt2(Gpt2<B>),
    /// [`Architecture::Bert`].
    Bert(Bert<B>),
}

impl<B: Backend> Graph<B> {
    /// Loads the weights of a verified bundle.
    pub fn load(bundle: &Bundle, backend: &B) -> Result<Self, LoadError> {
        Ok(match bundle.manifest().architecture {
            Architecture::Llama => Self::Llama(Llama::load(bundle, backend)?),
            Architecture::Gpt2 => Self::Gpt2(Gpt2::load(bundle, backend)?),
            Architecture::Bert => Self::Bert(Bert::load(bundle, backend)?),
        })
    }

    /// The cache of a sequence of up to `capacity` tokens.
    pub fn kv_cache(&self, backend: &B, m: &Manifest, capacity: usize) -> Result<B::KvCache, BackendError> {
        backend.kv_cache(KvShape { layers: m.layers, attention: m.attention(), capacity })
    }

    /// Feeds `tokens[i]` at `rows[i]` and leaves the logits of the rows named by `logit_rows` in the workspace.
    ///
    /// An encoder has no logits: its hidden states are the workspace's [`hidden`](Workspace::hidden).
    pub fn forward(
        &self,
        backend: &B,
        ws: &mut Workspace<B>,
        tokens: &[TokenId],
        rows: &[Row],
        caches: &mut [&mut B::KvCache],
        logit_rows: &[usize],
    ) -> Result<(), BackendError> {
        match self {
            Self::Llama(model) => model.forward(backend, ws, tokens, rows, caches, logit_rows),
            Self::Gpt2(model) => model.forward(backend, ws, tokens, rows, caches, logit_rows),
            Self::Bert(model) => model.forward(backend, ws, tokens, rows, caches),
        }
    }
}

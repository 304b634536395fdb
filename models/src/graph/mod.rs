//! Transformer families on the kernels, each one file that reads like its forward pass.

mod bert;
mod gpt2;
mod llama;
mod parts;
mod workspace;

use metis_kernels::{Backend, BackendError, KvShape, Row, SampleRequest, Sampling, TokenId};

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
        self.advance(backend, ws, tokens, rows, caches, logit_rows)?;
        match self {
            _ if logit_rows.is_empty() => Ok(()),
            Self::Llama(model) => model.logits(backend, ws),
            Self::Gpt2(model) => backend.linear(&ws.last_normed, model.head(), &mut ws.logits),
            Self::Bert(_) => Ok(()),
        }
    }

    /// [`forward`](Self::forward) that leaves greedy choices instead of logits, one for each row that asked.
    pub fn choose(
        &self,
        backend: &B,
        ws: &mut Workspace<B>,
        tokens: &[TokenId],
        rows: &[Row],
        caches: &mut [&mut B::KvCache],
        chosen: (&[usize], &mut Vec<TokenId>),
    ) -> Result<(), BackendError> {
        let (wanted, chosen) = chosen;
        let head = match self {
            // A cap may make two logits equal of which one was larger.
            Self::Llama(model) => (!model.is_capped()).then(|| model.head()),
            Self::Gpt2(model) => Some(model.head()),
            Self::Bert(_) => None,
        };
        if let Some(head) = head {
            self.advance(backend, ws, tokens, rows, caches, wanted)?;
            chosen.clear();
            return if wanted.is_empty() { Ok(()) } else { backend.argmax(&ws.last_normed, head, chosen) };
        }
        self.forward(backend, ws, tokens, rows, caches, wanted)?;
        let greedy = |row| SampleRequest { row, sampling: Sampling::GREEDY, position: 0, mask: None };
        let requests: Vec<SampleRequest> = (0..wanted.len()).map(greedy).collect();
        backend.sample(&ws.logits, &requests, chosen)
    }

    /// Feeds tokens, up to the head of the rows that are wanted.
    fn advance(
        &self,
        backend: &B,
        ws: &mut Workspace<B>,
        tokens: &[TokenId],
        rows: &[Row],
        caches: &mut [&mut B::KvCache],
        wanted: &[usize],
    ) -> Result<(), BackendError> {
        match self {
            Self::Llama(model) => model.advance(backend, ws, tokens, rows, caches, wanted),
            Self::Gpt2(model) => model.advance(backend, ws, tokens, rows, caches, wanted),
            Self::Bert(model) => model.forward(backend, ws, tokens, rows, caches),
        }
    }
}

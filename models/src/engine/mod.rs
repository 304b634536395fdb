//! Running a model: prompts in, tokens, logits and scores out.
//!
//! [`Engine`] puts a bundle's graph on a [`Backend`]; [`InferenceModel`] is the same without the type parameter, for those who only ask
//! questions. Every answer is a function of (bundle, request): neither batch nor chunk nor cache nor thread count can change it;
//! `docs/serving.md` says why.

mod answers;
mod encode;
mod failover;
mod locate;
mod options;
mod prefix;
mod processor;
mod scheduler;
mod session;
mod verify;

use std::fmt::{self, Debug};
use std::sync::Arc;

use alloy_primitives::B256;
use metis_kernels::softmax::log_probability_q16;
use metis_kernels::{Backend, BackendError, Sampling, SamplingError, TokenId, TokenMask};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::bundle::Manifest;
use crate::bundle::{Bundle, BundleError};
use crate::constraint::{Constraint, Guide, Next};
use crate::graph::Graph;
use crate::tokenizer::{Tokenizer, TokenizerError};
use prefix::PrefixCache;
use scheduler::Scheduler;

pub use answers::{Answers, Claims, Witness, Witnessed};
pub use failover::Failover;
pub use locate::{LocateError, Located, locate};
pub use options::EngineOptions;
pub use processor::{BackendChoice, Processor};
pub use scheduler::{Served, Statistics};
pub use session::Session;
pub use verify::{Difference, Verdict};

/// A model that could not be put on a backend.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The bundle is damaged or inconsistent.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The tokenizer cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The backend refused the weights.
    #[error("loading weights: {0}")]
    Backend(#[from] BackendError),
}

impl LoadError {
    /// Whether the model itself is at fault, so that no machine can load it.
    pub const fn is_inherent(&self) -> bool {
        match self {
            Self::Bundle(error) => error.is_inherent(),
            Self::Tokenizer(_) | Self::Backend(BackendError::Bounds(_)) => true,
            Self::Backend(_) => false,
        }
    }
}

/// A request that has no answer, or a device that failed.
#[derive(Debug, Error)]
pub enum InferenceError {
    /// Nothing to continue.
    #[error("the prompt has no tokens")]
    EmptyPrompt,
    /// More positions than the model has.
    #[error("{tokens} tokens do not fit the context of {context}")]
    ContextExceeded {
        /// Positions that the request feeds.
        tokens: usize,
        /// What the model can take.
        context: usize,
    },
    /// A token that is not in the vocabulary.
    #[error("token {token} is outside the vocabulary of {vocabulary}")]
    TokenOutOfRange {
        /// The offending token.
        token: TokenId,
        /// The vocabulary's size.
        vocabulary: usize,
    },
    /// A label without tokens has no score.
    #[error("label {0} has no tokens")]
    EmptyLabel(usize),
    /// Sampling parameters out of range.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// An encoder does not continue texts, and a decoder does not embed them.
    #[error("a model of the architecture `{architecture}` cannot {what}")]
    Unsupported {
        /// What was asked.
        what: &'static str,
        /// The model's architecture.
        architecture: &'static str,
    },
    /// An answer that was written down is not the model's.
    #[error("a recorded answer is not the model's: {0}")]
    Forged(Difference),
    /// The device failed: fatal for a validator, never another answer.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// One prompt to continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Token ids, special tokens included.
    pub prompt: Vec<TokenId>,
    /// At most this many new tokens.
    pub max_new: usize,
    /// How to choose them.
    pub sampling: Sampling,
    /// Tokens that end the answer, besides the model's end-of-sequence tokens.
    pub stop: Vec<TokenId>,
    /// The form of the answer, if it must have one.
    pub constraint: Option<Arc<Constraint>>,
}

impl Request {
    /// Positions that are fed at most: the last new token is chosen, not fed.
    fn positions(&self) -> usize {
        self.prompt.len().saturating_add(self.max_new).saturating_sub(1).max(1)
    }
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Finish {
    /// The model ended the sequence.
    Eos,
    /// `max_new` tokens were chosen.
    Length,
    /// A stop token of the request was chosen.
    Stop,
    /// The answer has the form that was asked for, and nothing can follow.
    Complete,
    /// The answer does not have the form yet, and no token of the model leads there.
    Stuck,
}

/// What happens at a position of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A token is added to the answer.
    Token(TokenId),
    /// The answer ends.
    End(Finish),
}

impl Step {
    /// What choosing `token` means for `request`.
    fn of(token: TokenId, request: &Request, manifest: &Manifest) -> Self {
        if manifest.eos.contains(&token.0) {
            Self::End(Finish::Eos)
        } else if request.stop.contains(&token) {
            Self::End(Finish::Stop)
        } else {
            Self::Token(token)
        }
    }
}

/// What a guide lets come next: a mask, anything if there is no guide, or the end of the answer.
fn allowed(guide: &mut Option<Guide>) -> Result<Option<Arc<TokenMask>>, Finish> {
    match guide.as_mut().map(Guide::look) {
        None => Ok(None),
        Some(Next::Choose(mask)) => Ok(Some(mask)),
        Some(Next::Complete) => Err(Finish::Complete),
        Some(Next::Stuck) => Err(Finish::Stuck),
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(token) => write!(f, "token {token}"),
            Self::End(finish) => write!(f, "the end ({finish:?})"),
        }
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// The new tokens, without the one that ended the answer.
    pub tokens: Vec<TokenId>,
    /// Why it ended.
    pub finish: Finish,
}

impl Generation {
    /// How many tokens were chosen: one that ended the answer counts.
    pub fn sampled(&self) -> usize {
        self.tokens.len() + usize::from(matches!(self.finish, Finish::Eos | Finish::Stop))
    }
}

/// A loaded model, whatever device it is on.
pub trait InferenceModel: Send + Sync + Debug {
    /// `keccak256` of the canonical manifest.
    fn id(&self) -> B256;
    /// Shapes, formats and work counts.
    fn manifest(&self) -> &Manifest;
    /// The bundle's tokenizer.
    fn tokenizer(&self) -> &Tokenizer;
    /// Continues each prompt: one answer or error for each request, in their order. Neither depends on which requests share the call; only
    /// [`InferenceError::Backend`], a failure of the device, is everybody's.
    fn generate_batch(&self, requests: &[Request]) -> Vec<Result<Generation, InferenceError>>;
    /// Whether `claimed` is the answer to `request`. Engines check it in passes of many positions, much faster than generating it again,
    /// which is what a model without a way of its own does.
    ///
    /// An answer that the model does not give is a [`Verdict`], whatever it holds; an error means that nothing was checked.
    fn verify(&self, request: &Request, claimed: &Generation) -> Result<Verdict, InferenceError> {
        Ok(Verdict::of(&self.generate(request)?, claimed))
    }
    /// Q16 logits after each of `tokens` (`[tokens, vocabulary]`).
    fn all_logits(&self, tokens: &[TokenId]) -> Result<Vec<Vec<i32>>, InferenceError>;
    /// Q16 logits after the last of `tokens`.
    fn last_logits(&self, tokens: &[TokenId]) -> Result<Vec<i32>, InferenceError>;
    /// For each label, the sum over its tokens of the natural-logarithm probability given the prompt and the label so far, Q16.
    fn score(&self, prompt: &[TokenId], labels: &[Vec<TokenId>]) -> Result<Vec<i64>, InferenceError>;

    /// An encoder's vector of length one that stands for the text, Q16.
    fn embed(&self, tokens: &[TokenId]) -> Result<Vec<i32>, InferenceError>;
    /// A classifier's logits of the manifest's classes, Q16.
    fn classify(&self, tokens: &[TokenId]) -> Result<Vec<i32>, InferenceError>;

    /// Continues one prompt.
    fn generate(&self, request: &Request) -> Result<Generation, InferenceError> {
        self.generate_batch(std::slice::from_ref(request)).pop().unwrap_or(Err(InferenceError::EmptyPrompt))
    }

    /// Drops what is kept of earlier calls to save work. Changes no answer.
    fn forget_prefixes(&self) {}
}

/// A bundle's graph on a backend.
#[derive(Debug)]
pub struct Engine<B: Backend> {
    backend: Arc<B>,
    id: B256,
    manifest: Manifest,
    tokenizer: Tokenizer,
    graph: Graph<B>,
    scheduler: Scheduler<B>,
    prefixes: PrefixCache<B::KvCache>,
    /// Rows of one step of a sequence by itself: bounds the workspace, cannot change a result.
    chunk: usize,
}

impl<B: Backend> Engine<B> {
    /// Loads a verified bundle.
    pub fn load(bundle: &Bundle, backend: Arc<B>) -> Result<Self, LoadError> {
        Self::load_with(bundle, backend, EngineOptions::default())
    }

    /// Loads a verified bundle, to use so much of the machine.
    pub fn load_with(bundle: &Bundle, backend: Arc<B>, options: EngineOptions) -> Result<Self, LoadError> {
        let manifest = bundle.manifest().clone();
        Ok(Self {
            id: bundle.id(),
            tokenizer: bundle.tokenizer()?,
            graph: Graph::load(bundle, &*backend)?,
            scheduler: Scheduler::new(options),
            prefixes: PrefixCache::new(&*backend, &manifest, options.prefix_cache_bytes),
            chunk: options.limits().1,
            manifest,
            backend,
        })
    }

    /// The backend that it runs on.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// [`generate_batch`](InferenceModel::generate_batch), with the steps at which each request began and was answered.
    pub fn serve(&self, requests: &[Request]) -> Vec<Served> {
        self.scheduler.serve(self, requests)
    }

    /// What it has done and has to do.
    pub fn statistics(&self) -> Statistics {
        self.scheduler.statistics(self.prefixes.restored())
    }

    /// Everything that a request can be refused for.
    fn check(&self, request: &Request) -> Result<(), InferenceError> {
        self.check_decoder()?;
        request.sampling.check()?;
        if request.prompt.is_empty() {
            return Err(InferenceError::EmptyPrompt);
        }
        self.check_tokens(&request.prompt)?;
        self.check_length(request.positions())
    }

    fn check_tokens(&self, tokens: &[TokenId]) -> Result<(), InferenceError> {
        let vocabulary = self.manifest.vocabulary;
        match tokens.iter().find(|token| token.index() >= vocabulary) {
            Some(&token) => Err(InferenceError::TokenOutOfRange { token, vocabulary }),
            None => Ok(()),
        }
    }

    fn check_length(&self, tokens: usize) -> Result<(), InferenceError> {
        let context = self.manifest.context;
        if tokens > context { Err(InferenceError::ContextExceeded { tokens, context }) } else { Ok(()) }
    }

    fn unsupported(&self, what: &'static str) -> InferenceError {
        InferenceError::Unsupported { what, architecture: self.manifest.architecture.name() }
    }

    /// Refuses to continue texts with an encoder.
    fn check_decoder(&self) -> Result<(), InferenceError> {
        if self.manifest.architecture.is_decoder() {
            Ok(())
        } else {
            Err(self.unsupported("continue a text"))
        }
    }

    /// The guide of a request that asks for a form.
    fn guide(&self, request: &Request) -> Option<Guide> {
        let constraint = request.constraint.as_ref()?;
        Some(Guide::new(Arc::clone(constraint), Arc::clone(self.tokenizer.spelling()), &self.manifest.eos))
    }

    /// A sequence that has `capacity` positions.
    pub fn session(&self, capacity: usize) -> Result<Session<'_, B>, InferenceError> {
        self.check_decoder()?;
        self.check_length(capacity)?;
        Session::new(self, capacity)
    }
}

impl<B: Backend> InferenceModel for Engine<B> {
    fn id(&self) -> B256 {
        self.id
    }

    fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    fn generate_batch(&self, requests: &[Request]) -> Vec<Result<Generation, InferenceError>> {
        self.serve(requests).into_iter().map(|served| served.answer).collect()
    }

    fn verify(&self, request: &Request, claimed: &Generation) -> Result<Verdict, InferenceError> {
        verify::verify(self, request, claimed)
    }

    fn all_logits(&self, tokens: &[TokenId]) -> Result<Vec<Vec<i32>>, InferenceError> {
        self.session(tokens.len())?.feed_all(tokens)
    }

    fn last_logits(&self, tokens: &[TokenId]) -> Result<Vec<i32>, InferenceError> {
        self.session(tokens.len())?.feed(tokens)
    }

    fn embed(&self, tokens: &[TokenId]) -> Result<Vec<i32>, InferenceError> {
        encode::embed(self, tokens)
    }

    fn classify(&self, tokens: &[TokenId]) -> Result<Vec<i32>, InferenceError> {
        encode::classify(self, tokens)
    }

    fn score(&self, prompt: &[TokenId], labels: &[Vec<TokenId>]) -> Result<Vec<i64>, InferenceError> {
        if let Some(label) = labels.iter().position(Vec::is_empty) {
            return Err(InferenceError::EmptyLabel(label));
        }
        let longest = labels.iter().map(Vec::len).max().unwrap_or(0);
        // The last token of a label is scored, not fed.
        let mut session = self.session(prompt.len() + longest.saturating_sub(1))?;
        let after_prompt = session.feed(prompt)?;
        labels
            .iter()
            .map(|label| {
                self.check_tokens(label)?;
                let (last, fed) = label.split_last().ok_or(InferenceError::EmptyPrompt)?;
                session.rewind(prompt.len());
                let own = |logits: &[i32], target: TokenId| {
                    log_probability_q16(logits, target.index()).unwrap_or(i64::MIN)
                };
                let mut sum = own(&after_prompt, label[0]);
                if !fed.is_empty() {
                    let mut targets = fed[1..].iter().chain(std::iter::once(last));
                    session.feed_each(fed, |logits| {
                        sum += targets.next().map_or(0, |&target| own(&logits, target));
                    })?;
                }
                Ok(sum)
            })
            .collect()
    }

    fn forget_prefixes(&self) {
        self.prefixes.clear();
    }
}

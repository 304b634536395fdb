//! A request on its way.

use std::sync::Arc;

use metis_kernels::{Backend, BackendError, Row, SampleRequest, TokenId, TokenMask};

use crate::constraint::Guide;
use crate::engine::prefix::BLOCK;
use crate::engine::{Engine, Finish, Generation, Request, Step, allowed};

/// Blocks that are copied for a lane in one step: copying delays the others a little, too.
const RESTORED_AT_ONCE: usize = 64;

/// A request, and where its answer goes.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) call: u64,
    pub(super) index: usize,
    pub(super) request: Request,
}

/// A job with its key-value cache.
#[derive(Debug)]
pub(super) struct Lane<C> {
    pub(super) job: Job,
    pub(super) cache: C,
    /// Steps that had been executed when it began.
    pub(super) admitted: u64,
    /// Rows that the present step gives it.
    pub(super) rows: usize,
    /// Whether more of its prompt can be copied before anything is computed.
    pub(super) restoring: bool,
    /// The prompt and the tokens that were chosen.
    tokens: Vec<TokenId>,
    /// How many of them have been fed.
    fed: usize,
    finish: Option<Finish>,
    guide: Option<Guide>,
    /// What the guide allows next.
    mask: Option<Arc<TokenMask>>,
}

impl<C> Lane<C> {
    pub(super) fn new(job: Job, cache: C, guide: Option<Guide>, admitted: u64) -> Self {
        let Request { prompt, max_new, .. } = &job.request;
        let mut tokens = Vec::with_capacity(prompt.len() + max_new);
        tokens.extend_from_slice(prompt);
        let (rows, fed, finish, mask) = (0, 0, None, None);
        let mut lane =
            Self { job, cache, admitted, rows, restoring: false, tokens, fed, finish, guide, mask };
        lane.look_ahead();
        lane
    }

    /// The tokens to feed: what is left of the prompt, or the one that was chosen last; of a finished lane none.
    pub(super) fn pending(&self) -> &[TokenId] {
        if self.is_finished() { &[] } else { &self.tokens[self.fed..] }
    }

    /// Asks the guide what may come next. It may end the answer, before the next token is computed.
    fn look_ahead(&mut self) {
        match allowed(&mut self.guide) {
            Ok(mask) => self.mask = mask,
            Err(finish) => self.finish = Some(finish),
        }
    }

    /// Whether `ahead` is about to compute the block that this lane needs next, and will keep it.
    pub(super) fn follows(&self, ahead: &Self) -> bool {
        let (own, other) = (&self.job.request.prompt, &ahead.job.request.prompt);
        let end = self.fed + BLOCK;
        self.fed.is_multiple_of(BLOCK)
            && ahead.fed / BLOCK == self.fed / BLOCK
            && end < own.len()
            && end <= other.len()
            && own[..end] == other[..end]
    }

    /// Adds the step's rows of this lane, and its question if they end the sequence.
    pub(super) fn feed(
        &self,
        sequence: usize,
        tokens: &mut Vec<TokenId>,
        rows: &mut Vec<Row>,
    ) -> Option<SampleRequest> {
        let end = self.fed + self.rows;
        tokens.extend_from_slice(&self.tokens[self.fed..end]);
        rows.extend((self.fed..end).map(|position| Row { sequence, position }));
        (self.rows > 0 && end == self.tokens.len()).then(|| SampleRequest {
            row: rows.len() - 1,
            sampling: self.job.request.sampling,
            position: end as u64,
            mask: self.mask.clone(),
        })
    }

    /// Takes what was chosen after the last token.
    pub(super) fn take(&mut self, step: Step) {
        match step {
            Step::End(finish) => self.finish = Some(finish),
            Step::Token(token) => {
                self.tokens.push(token);
                if let Some(guide) = &mut self.guide {
                    guide.advance(token);
                }
                self.look_ahead();
                let Request { prompt, max_new, .. } = &self.job.request;
                if self.tokens.len() - prompt.len() >= *max_new {
                    self.finish.get_or_insert(Finish::Length);
                }
            }
        }
    }

    pub(super) const fn is_finished(&self) -> bool {
        self.finish.is_some()
    }

    /// The answer of a finished lane.
    pub(super) fn answer(mut self) -> (Job, Generation) {
        let tokens = self.tokens.split_off(self.job.request.prompt.len());
        (self.job, Generation { tokens, finish: self.finish.unwrap_or(Finish::Length) })
    }
}

impl<C: Send + Sync> Lane<C> {
    /// Copies what is known of its prompt.
    pub(super) fn restore<B: Backend<KvCache = C>>(
        &mut self,
        engine: &Engine<B>,
    ) -> Result<(), BackendError> {
        let before = self.fed;
        self.fed = engine.restore(&self.job.request.prompt, self.fed, RESTORED_AT_ONCE, &mut self.cache)?;
        self.restoring = self.fed - before == RESTORED_AT_ONCE * BLOCK;
        Ok(())
    }

    /// Counts the step's rows as fed and keeps what they complete of the prompt.
    pub(super) fn advance<B: Backend<KvCache = C>>(
        &mut self,
        engine: &Engine<B>,
    ) -> Result<(), BackendError> {
        let fed = self.fed..self.fed + self.rows;
        self.fed = fed.end;
        engine.remember(&self.job.request.prompt, fed, &self.cache)
    }
}

//! One sequence and its key-value cache.

use metis_kernels::{Backend, Row, TokenId};

use super::{Engine, InferenceError};
use crate::graph::Workspace;

/// A sequence that is fed token by token or many at a time, with the same result.
#[derive(Debug)]
pub struct Session<'a, B: Backend> {
    engine: &'a Engine<B>,
    cache: B::KvCache,
    workspace: Workspace<B>,
    capacity: usize,
    position: usize,
}

impl<'a, B: Backend> Session<'a, B> {
    pub(super) fn new(engine: &'a Engine<B>, capacity: usize) -> Result<Self, InferenceError> {
        if capacity == 0 {
            return Err(InferenceError::EmptyPrompt);
        }
        let (backend, m) = (&*engine.backend, &engine.manifest);
        let rows = capacity.min(engine.chunk);
        Ok(Self {
            cache: engine.graph.kv_cache(backend, m, capacity)?,
            workspace: Workspace::new(backend, m, rows, rows)?,
            engine,
            capacity,
            position: 0,
        })
    }

    /// Tokens fed so far.
    pub const fn position(&self) -> usize {
        self.position
    }

    /// Forgets everything from `position` on.
    pub fn rewind(&mut self, position: usize) {
        self.position = self.position.min(position);
    }

    /// Feeds tokens and returns the Q16 logits after the last one.
    pub fn feed(&mut self, tokens: &[TokenId]) -> Result<Vec<i32>, InferenceError> {
        let mut logits = Vec::new();
        self.run(tokens, false, |row| logits = row)?;
        Ok(logits)
    }

    /// Feeds tokens and shows `visit` the Q16 logits after each, in order; none are kept.
    pub(super) fn feed_each(
        &mut self,
        tokens: &[TokenId],
        visit: impl FnMut(Vec<i32>),
    ) -> Result<(), InferenceError> {
        self.run(tokens, true, visit)
    }

    /// Feeds tokens and returns the Q16 logits after each.
    pub fn feed_all(&mut self, tokens: &[TokenId]) -> Result<Vec<Vec<i32>>, InferenceError> {
        let mut logits = Vec::with_capacity(tokens.len());
        self.run(tokens, true, |row| logits.push(row))?;
        Ok(logits)
    }

    fn run(
        &mut self,
        tokens: &[TokenId],
        all: bool,
        mut take: impl FnMut(Vec<i32>),
    ) -> Result<(), InferenceError> {
        if tokens.is_empty() {
            return Err(InferenceError::EmptyPrompt);
        }
        self.engine.check_tokens(tokens)?;
        let start = self.position;
        let end = start + tokens.len();
        if end > self.capacity {
            return Err(InferenceError::ContextExceeded { tokens: end, context: self.capacity });
        }
        let backend = &*self.engine.backend;
        // A prompt is fed at the start, and only what follows its last token is asked for.
        let prompt = if self.position == 0 && !all { tokens } else { &[] };
        self.position = self.engine.restore(prompt, self.position, usize::MAX, &mut self.cache)?;
        for chunk in tokens[self.position - start..].chunks(self.engine.chunk) {
            let fed = self.position..self.position + chunk.len();
            let rows: Vec<Row> = fed.clone().map(|position| Row { sequence: 0, position }).collect();
            self.position = fed.end;
            let wanted: Vec<usize> = match (all, self.position == end) {
                (true, _) => (0..chunk.len()).collect(),
                (false, true) => vec![chunk.len() - 1],
                (false, false) => Vec::new(),
            };
            let (graph, workspace, cache) = (&self.engine.graph, &mut self.workspace, &mut self.cache);
            backend.enter(|| graph.forward(backend, workspace, chunk, &rows, &mut [cache], &wanted))?;
            self.engine.remember(prompt, fed, &self.cache)?;
            for i in 0..wanted.len() {
                let mut row = Vec::new();
                backend.read_row(self.workspace.logits(), i, &mut row)?;
                take(row);
            }
        }
        Ok(())
    }
}

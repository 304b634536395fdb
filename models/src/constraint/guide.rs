//! One answer on its way through an automaton.

use std::collections::BTreeMap;
use std::sync::Arc;

use metis_kernels::{TokenId, TokenMask};

use super::Constraint;
use super::automaton::State;
use crate::tokenizer::Spelling;

/// Masks that a guide remembers: bounds its memory, cannot change an answer.
const REMEMBERED: usize = 64;

/// Follows one answer: which tokens may come next, and whether any may.
#[derive(Debug)]
pub struct Guide {
    constraint: Arc<Constraint>,
    spelling: Arc<Spelling>,
    eos: Vec<TokenId>,
    state: State,
    masks: BTreeMap<State, Arc<TokenMask>>,
}

/// What comes next in an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// One of these tokens.
    Choose(Arc<TokenMask>),
    /// Nothing: the answer has the form, and no token can follow.
    Complete,
    /// Nothing: the answer does not have the form yet, and no token leads there.
    Stuck,
}

impl Guide {
    /// At the beginning of an answer of a model that ends its texts with one of `eos`.
    pub fn new(constraint: Arc<Constraint>, spelling: Arc<Spelling>, eos: &[u32]) -> Self {
        let eos = eos.iter().copied().map(TokenId).collect();
        Self { constraint, spelling, eos, state: State::START, masks: BTreeMap::new() }
    }

    /// What may come next. The work is linear in the vocabulary's bytes, and less where the form allows little.
    pub fn look(&mut self) -> Next {
        let mask = match self.masks.get(&self.state) {
            Some(mask) => Arc::clone(mask),
            None => self.remember(),
        };
        match (mask.is_empty(), self.constraint.automaton.accepts(self.state)) {
            (true, true) => Next::Complete,
            (true, false) => Next::Stuck,
            (false, _) => Next::Choose(mask),
        }
    }

    /// Takes the next token of the answer. `false`, and nothing changes, if it could not come.
    pub fn advance(&mut self, token: TokenId) -> bool {
        let bytes = self.spelling.bytes(token);
        if bytes.is_empty() || self.eos.contains(&token) {
            return false;
        }
        let automaton = &self.constraint.automaton;
        match bytes.iter().try_fold(self.state, |state, &byte| automaton.step(state, byte)) {
            Some(state) => {
                self.state = state;
                true
            }
            None => false,
        }
    }

    /// Tokens of text that the automaton can read; where it accepts and something can follow, also those that end a text.
    fn mask(&self) -> TokenMask {
        let automaton = &self.constraint.automaton;
        let mut mask = TokenMask::none(self.spelling.vocabulary());
        let step = |state, byte| automaton.step(state, byte);
        self.spelling.each_token(self.state, step, |token| mask.allow(token));
        self.eos.iter().for_each(|&token| mask.forbid(token));
        if automaton.accepts(self.state) && !mask.is_empty() {
            self.eos.iter().for_each(|&token| mask.allow(token));
        }
        mask
    }

    fn remember(&mut self) -> Arc<TokenMask> {
        let mask = Arc::new(self.mask());
        if self.masks.len() == REMEMBERED {
            self.masks.clear();
        }
        self.masks.insert(self.state, Arc::clone(&mask));
        mask
    }
}

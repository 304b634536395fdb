//! Answers of a form that the caller gives: one of some options, or what a pattern matches.
//!
//! How data flows through it: options or a pattern are read into a [`Draft`], which says how large its automaton can get, so that somebody
//! can pay for it; [`Draft::build`] makes the [`Constraint`]. A [`Guide`] follows one answer: before each token it says which tokens may
//! come ([`TokenMask`](metis_kernels::TokenMask)), by walking the automaton over the vocabulary's
//! [`Spelling`](crate::tokenizer::Spelling), and when the answer is over. `docs/constraints.md` is normative.
//!
//! The grammar is consensus, so its reader and its automaton are here and not a library's: what a library accepts, how it counts states
//! and when it refuses may change from version to version.

mod automaton;
mod bytes;
mod guide;
mod pattern;
mod positions;
#[cfg(test)]
mod tests;

use alloy_primitives::Keccak256;
use thiserror::Error;

use automaton::{Automaton, State};
use bytes::ByteClasses;
use pattern::Expression;
use positions::Positions;

pub use guide::{Guide, Next};

/// Options or a pattern that no answer can follow.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ConstraintError {
    /// Not a pattern.
    #[error("the pattern is wrong at byte {position}")]
    Syntax {
        /// Offset of the byte at which reading stopped; the length of the pattern if it ends too early.
        position: usize,
    },
    /// No options, or an empty one.
    #[error("option {0} is empty or missing")]
    EmptyOption(usize),
    /// The automaton would be larger than it may be.
    #[error("the automaton has more than {max} states")]
    TooLarge {
        /// Most states.
        max: usize,
    },
}

/// What a caller wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Pattern(Vec<u8>),
    Options(Vec<Vec<u8>>),
}

/// Options or a pattern, read and not yet built.
#[derive(Clone, Debug)]
pub struct Draft {
    source: Source,
    /// What a pattern means; nothing for options.
    expression: Expression,
    classes: ByteClasses,
    max_states: usize,
}

impl Draft {
    /// Reads a pattern, of which at most `max_states` bytes are named and whose automaton may have at most `max_states` states (and
    /// 65,535). Time and memory are linear in its length.
    pub fn pattern(pattern: &[u8], max_states: usize) -> Result<Self, ConstraintError> {
        let expression = Expression::parse(pattern)?;
        if expression.positions() > max_states {
            return Err(ConstraintError::TooLarge { max: max_states });
        }
        let classes = ByteClasses::of(expression.sets());
        Ok(Self { source: Source::Pattern(pattern.to_vec()), expression, classes, max_states })
    }

    /// Takes options: at least one, none empty. Time and memory are linear in their length.
    pub fn options(options: Vec<Vec<u8>>, max_states: usize) -> Result<Self, ConstraintError> {
        let empty = options.iter().position(Vec::is_empty);
        if let Some(index) = empty.or_else(|| options.is_empty().then_some(0)) {
            return Err(ConstraintError::EmptyOption(index));
        }
        let classes = Automaton::classes_of_options(&options);
        Ok(Self { source: Source::Options(options), expression: Expression::Empty, classes, max_states })
    }

    /// Bytes that the pattern names, each copy of a repetition counted. None for options.
    pub fn positions(&self) -> usize {
        self.expression.positions()
    }

    /// Classes of bytes: 1 to 256.
    pub const fn classes(&self) -> usize {
        self.classes.count()
    }

    /// The automaton will have no more states than this.
    pub fn most_states(&self) -> usize {
        match &self.source {
            Source::Pattern(_) => self.max_states,
            Source::Options(options) => {
                let bytes = options.iter().map(Vec::len).fold(0, usize::saturating_add);
                bytes.saturating_add(1).min(self.max_states)
            }
        }
    }

    /// Builds the automaton.
    ///
    /// Time is in the order of `positions² + states * (positions² + classes * positions) / 64`, memory of
    /// `positions² / 8 + states * (positions / 8 + 2 * classes)` bytes.
    pub fn build(self) -> Result<Constraint, ConstraintError> {
        let automaton = match &self.source {
            Source::Pattern(_) => {
                Automaton::of_positions(&Positions::of(&self.expression), self.classes, self.max_states)?
            }
            Source::Options(options) => Automaton::of_options(options, self.classes, self.max_states)?,
        };
        Ok(Constraint { source: self.source, automaton })
    }
}

/// The form of an answer.
#[derive(Debug)]
pub struct Constraint {
    source: Source,
    automaton: Automaton,
}

/// Constraints with one source accept the same answers.
impl PartialEq for Constraint {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Constraint {}

impl Constraint {
    /// The form that a pattern describes: [`Draft::pattern`] and [`Draft::build`].
    pub fn pattern(pattern: &[u8], max_states: usize) -> Result<Self, ConstraintError> {
        Draft::pattern(pattern, max_states)?.build()
    }

    /// One of some options: [`Draft::options`] and [`Draft::build`].
    pub fn options(options: Vec<Vec<u8>>, max_states: usize) -> Result<Self, ConstraintError> {
        Draft::options(options, max_states)?.build()
    }

    /// States of the automaton.
    pub const fn states(&self) -> usize {
        self.automaton.states()
    }

    /// Whether a whole answer has the form.
    pub fn matches(&self, answer: &[u8]) -> bool {
        let end = answer.iter().try_fold(State::START, |state, &byte| self.automaton.step(state, byte));
        end.is_some_and(|state| self.automaton.accepts(state))
    }

    /// Adds the source to the hash of a question; no two sources add the same bytes.
    pub(crate) fn hash_into(&self, hash: &mut Keccak256) {
        let (tag, parts) = match &self.source {
            Source::Pattern(pattern) => (0u8, std::slice::from_ref(pattern)),
            Source::Options(options) => (1, options.as_slice()),
        };
        hash.update([tag]);
        hash.update((parts.len() as u64).to_le_bytes());
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
}

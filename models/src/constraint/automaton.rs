//! The deterministic automaton that a generation follows: one table look-up for each byte.

use std::collections::BTreeMap;

use super::ConstraintError;
use super::bytes::{ByteClasses, ByteSet};
use super::positions::{Places, Positions};

/// A state of an [`Automaton`]: every one leads to acceptance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct State(u16);

impl State {
    /// No state: nothing accepted begins like this.
    const DEAD: Self = Self(u16::MAX);
    /// Where every match begins.
    pub(super) const START: Self = Self(0);
}

/// A deterministic automaton over bytes whose states all lead to acceptance.
#[derive(Debug)]
pub(super) struct Automaton {
    classes: ByteClasses,
    /// `[states, classes]`.
    next: Vec<State>,
    accepting: Vec<bool>,
}

impl Automaton {
    /// The subset construction, states numbered as they are found. Refused with more than `max_states`.
    pub(super) fn of_positions(
        positions: &Positions,
        classes: ByteClasses,
        max_states: usize,
    ) -> Result<Self, ConstraintError> {
        let reading: Vec<Places> =
            classes.representatives().into_iter().map(|byte| positions.reading(byte)).collect();
        let mut automaton = Self::new(classes);
        automaton.push(positions.nullable, max_states)?;
        // What has just been read: a set of positions for each state after the first, and the states by their sets.
        let mut found: Vec<Places> = Vec::new();
        let mut numbers: BTreeMap<Places, State> = BTreeMap::new();
        let mut state = 0;
        while state < automaton.states() {
            let ahead = match state.checked_sub(1).map(|index| &found[index]) {
                None => positions.first.clone(),
                Some(read) => positions.after(read),
            };
            for (class, reading) in reading.iter().enumerate() {
                let read = ahead.and(reading);
                if read.is_empty() {
                    continue;
                }
                let number = match numbers.get(&read) {
                    Some(&number) => number,
                    None => {
                        let number = automaton.push(read.meets(&positions.last), max_states)?;
                        numbers.insert(read.clone(), number);
                        found.push(read);
                        number
                    }
                };
                let at = state * automaton.classes.count() + class;
                automaton.next[at] = number;
            }
            state += 1;
        }
        Ok(automaton)
    }

    /// The tree of the options' prefixes. Refused with more than `max_states`.
    pub(super) fn of_options(
        options: &[Vec<u8>],
        classes: ByteClasses,
        max_states: usize,
    ) -> Result<Self, ConstraintError> {
        let mut automaton = Self::new(classes);
        automaton.push(false, max_states)?;
        for option in options {
            let mut state = State::START;
            for &byte in option {
                let at = automaton.entry(state, byte);
                state = match automaton.next[at] {
                    State::DEAD => {
                        let new = automaton.push(false, max_states)?;
                        automaton.next[at] = new;
                        new
                    }
                    known => known,
                };
            }
            automaton.accepting[usize::from(state.0)] = true;
        }
        Ok(automaton)
    }

    /// The classes of bytes that options tell apart: each byte that occurs, and the rest.
    pub(super) fn classes_of_options(options: &[Vec<u8>]) -> ByteClasses {
        let mut all = ByteSet::default();
        options.iter().flatten().for_each(|&byte| all.insert(byte));
        ByteClasses::of((0..=255).filter(|&byte| all.contains(byte)).map(ByteSet::one))
    }

    /// The state after one more byte, or `None` when nothing accepted goes on like this.
    pub(super) fn step(&self, state: State, byte: u8) -> Option<State> {
        match self.next[self.entry(state, byte)] {
            State::DEAD => None,
            next => Some(next),
        }
    }

    /// Whether what was read is accepted.
    pub(super) fn accepts(&self, state: State) -> bool {
        self.accepting[usize::from(state.0)]
    }

    pub(super) const fn states(&self) -> usize {
        self.accepting.len()
    }

    const fn new(classes: ByteClasses) -> Self {
        Self { classes, next: Vec::new(), accepting: Vec::new() }
    }

    /// Adds a state without transitions.
    fn push(&mut self, accepting: bool, max_states: usize) -> Result<State, ConstraintError> {
        let max = max_states.min(usize::from(State::DEAD.0));
        let number = u16::try_from(self.states()).ok().filter(|_| self.states() < max);
        let number = number.ok_or(ConstraintError::TooLarge { max: max_states })?;
        self.accepting.push(accepting);
        self.next.resize(self.next.len() + self.classes.count(), State::DEAD);
        Ok(State(number))
    }

    fn entry(&self, state: State, byte: u8) -> usize {
        usize::from(state.0) * self.classes.count() + self.classes.of_byte(byte)
    }
}

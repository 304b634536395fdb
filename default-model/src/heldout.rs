//! The held-out set: the instructions that the default model is judged by, as a committed file.
//!
//! One line per item, `instruction<TAB>expected answer`. No name and no sentence template of it occurs in
//! the training split.

use crate::grammar::{Command, GrammarError};
use crate::instructions::{Instructions, Split};
use std::collections::HashSet;

/// How many items the set has.
pub const ITEMS: usize = 1000;

/// The seed of the set. It is none of training's.
const SEED: u64 = 0x4d65_7469_7356_4d21;

/// One item of the set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// What the user writes.
    pub instruction: String,
    /// What the model must answer.
    pub expected: Command,
}

/// Makes the set anew: the first [`ITEMS`] different instructions of the held-out stream.
#[must_use]
pub fn generate() -> Vec<Item> {
    let mut seen = HashSet::new();
    Instructions::new(Split::HeldOut, SEED)
        .filter(|example| seen.insert(example.instruction.clone()))
        .map(|example| Item { instruction: example.instruction, expected: example.command })
        .take(ITEMS)
        .collect()
}

/// The set as the text of its file.
#[must_use]
pub fn to_text(items: &[Item]) -> String {
    items.iter().map(|item| format!("{}\t{}\n", item.instruction, item.expected)).collect()
}

/// Reads the text of a held-out file.
///
/// # Errors
/// A line without a tab, or whose answer is not canonical.
pub fn from_text(text: &str) -> Result<Vec<Item>, HeldOutError> {
    let item = |(at, line): (usize, &str)| {
        let (instruction, expected) = line.split_once('\t').ok_or(HeldOutError::NoTab(at + 1))?;
        let expected = expected.parse().map_err(|source| HeldOutError::Answer(at + 1, source))?;
        Ok(Item { instruction: instruction.to_owned(), expected })
    };
    text.lines().enumerate().map(item).collect()
}

/// The text is not a held-out file.
#[derive(Debug, thiserror::Error)]
pub enum HeldOutError {
    /// The line has no tab.
    #[error("line {0}: no tab between instruction and answer")]
    NoTab(usize),
    /// The line's answer is not a command.
    #[error("line {0}: {1}")]
    Answer(usize, GrammarError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instructions::names;

    const COMMITTED: &str = include_str!("../heldout.tsv");

    #[test]
    fn the_committed_file_is_what_the_generator_makes() {
        assert_eq!(to_text(&generate()), COMMITTED, "run `cargo run -p metis-default-model --bin heldout`");
    }

    #[test]
    fn the_committed_file_reads_back_and_its_names_are_held_out() {
        let items = from_text(COMMITTED).unwrap();
        assert_eq!(items.len(), ITEMS);
        for item in items {
            if let Command::Transfer { to, .. } = &item.expected {
                let stem = names::stem_of(to);
                assert_eq!(names::split_of_stem(stem), Split::HeldOut, "{to}");
                assert!(item.instruction.to_lowercase().contains(to.as_str()), "{item:?}");
            }
        }
    }

    #[test]
    fn broken_lines_are_refused() {
        assert!(matches!(from_text("a\tnone\nb"), Err(HeldOutError::NoTab(2))));
        assert!(matches!(from_text("a\tsend it"), Err(HeldOutError::Answer(1, _))));
    }
}

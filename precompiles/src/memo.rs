//! A memory of recent answers. It may skip work, never gas: nothing that a contract can see depends on it.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use alloy_primitives::B256;

use crate::inference::Answer;

/// Answers larger than this are not kept: bounds the memory of a memo.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// The last answers by the hash of their calldata, least recently used first.
#[derive(Debug)]
pub(crate) struct Memo {
    capacity: usize,
    answers: Mutex<VecDeque<(B256, Answer)>>,
}

impl Memo {
    /// A memo of at most `capacity` answers; zero keeps none.
    pub(crate) const fn new(capacity: usize) -> Self {
        Self { capacity, answers: Mutex::new(VecDeque::new()) }
    }

    pub(crate) const fn is_off(&self) -> bool {
        self.capacity == 0
    }

    pub(crate) fn get(&self, key: B256) -> Option<Answer> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let at = answers.iter().position(|(known, _)| *known == key)?;
        let found = answers.remove(at)?;
        let answer = found.1.clone();
        answers.push_back(found);
        Some(answer)
    }

    pub(crate) fn insert(&self, key: B256, answer: &Answer) {
        if self.is_off() || answer.output.len() > MAX_ANSWER_BYTES {
            return;
        }
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.retain(|(known, _)| *known != key);
        if answers.len() >= self.capacity {
            answers.pop_front();
        }
        answers.push_back((key, answer.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gas::Gas;
    use alloy_primitives::Bytes;

    fn answer(size: usize) -> Answer {
        Answer { reverted: false, output: Bytes::from(vec![7; size]), charged: Gas(1), steps: Vec::new() }
    }

    #[test]
    fn the_least_recently_used_answer_goes_first() {
        let memo = Memo::new(2);
        let key = B256::repeat_byte;
        memo.insert(key(1), &answer(1));
        memo.insert(key(2), &answer(2));
        assert_eq!(memo.get(key(1)), Some(answer(1)));
        memo.insert(key(3), &answer(3));
        assert_eq!(memo.get(key(2)), None);
        assert_eq!(memo.get(key(1)), Some(answer(1)));
        assert_eq!(memo.get(key(3)), Some(answer(3)));
    }

    #[test]
    fn memory_is_bounded() {
        let memo = Memo::new(1);
        memo.insert(B256::ZERO, &answer(MAX_ANSWER_BYTES + 1));
        assert_eq!(memo.get(B256::ZERO), None);
        let off = Memo::new(0);
        off.insert(B256::ZERO, &answer(1));
        assert_eq!(off.get(B256::ZERO), None);
    }
}

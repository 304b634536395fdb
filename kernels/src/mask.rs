//! Which tokens may be chosen.

use crate::formats::TokenId;

/// A set of tokens: a bit for each id below the vocabulary's size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenMask {
    words: Box<[u64]>,
    vocabulary: usize,
}

impl TokenMask {
    /// No token of a vocabulary.
    pub fn none(vocabulary: usize) -> Self {
        Self { words: vec![0; vocabulary.div_ceil(64)].into(), vocabulary }
    }

    /// Allows a token. One outside the vocabulary is not there to be chosen and changes nothing.
    pub fn allow(&mut self, token: TokenId) {
        if token.index() < self.vocabulary {
            self.words[token.index() / 64] |= 1 << (token.index() % 64);
        }
    }

    /// Takes a token out.
    pub fn forbid(&mut self, token: TokenId) {
        if token.index() < self.vocabulary {
            self.words[token.index() / 64] &= !(1 << (token.index() % 64));
        }
    }

    /// Whether a token is allowed.
    pub fn allows(&self, token: TokenId) -> bool {
        token.index() < self.vocabulary && self.words[token.index() / 64] >> (token.index() % 64) & 1 == 1
    }

    /// Whether no token is allowed.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// The allowed tokens, lowest id first.
    pub fn tokens(&self) -> impl Iterator<Item = TokenId> + Clone + '_ {
        self.words.iter().zip((0u32..).step_by(64)).flat_map(|(&word, first)| {
            // Clearing the lowest bit of what is left gives the next; a word without bits ends it.
            let rest = |&left: &u64| Some(left & left.wrapping_sub(1));
            std::iter::successors(Some(word), rest)
                .take_while(|&left| left != 0)
                .map(move |left| TokenId(first + left.trailing_zeros()))
        })
    }

    /// The bits, token 0 lowest in the first word; bits past the vocabulary are zero. For devices.
    pub const fn words(&self) -> &[u64] {
        &self.words
    }

    /// Tokens in the vocabulary.
    pub const fn vocabulary(&self) -> usize {
        self.vocabulary
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn a_mask_is_a_set_of_tokens(vocabulary in 0usize..200, steps: Vec<(bool, u8)>) {
            let (mut mask, mut set) = (TokenMask::none(vocabulary), BTreeSet::new());
            for (allow, id) in steps {
                let token = TokenId(id.into());
                if allow {
                    mask.allow(token);
                    if token.index() < vocabulary { set.insert(token); }
                } else {
                    mask.forbid(token);
                    set.remove(&token);
                }
            }
            prop_assert_eq!(mask.is_empty(), set.is_empty());
            prop_assert!((0..300).map(TokenId).all(|token| mask.allows(token) == set.contains(&token)));
            prop_assert!(mask.tokens().eq(set));
        }
    }
}

//! The vocabulary as a tree of bytes, to find all tokens that a text may go on with in one walk.

use std::sync::Arc;

use metis_kernels::TokenId;

use super::pieces::Pieces;

/// The tokens of text by their bytes. Special tokens and tokens without bytes are not in it.
#[derive(Debug)]
pub struct Spelling {
    pieces: Arc<Pieces>,
    /// Preorder, ascending by byte; a last one without bytes ends the tokens of the one before.
    nodes: Vec<Node>,
    /// In the order of their nodes.
    tokens: Vec<TokenId>,
    /// Bytes of the longest token.
    longest: usize,
}

/// The end of a prefix of some token.
#[derive(Clone, Copy, Debug)]
struct Node {
    byte: u8,
    /// Bytes of the prefix.
    depth: u32,
    /// The first node that does not have this prefix.
    end: u32,
    /// The first of the tokens that are the prefix; the next node's first ends them.
    tokens: u32,
}

impl Spelling {
    pub(super) fn new(pieces: Arc<Pieces>) -> Self {
        let mut sorted: Vec<TokenId> = (0..pieces.len() as u32).map(TokenId).collect();
        sorted.retain(|&token| !pieces.bytes(token).is_empty());
        sorted.sort_by_key(|&token| (pieces.bytes(token), token));

        let mut nodes: Vec<Node> = Vec::new();
        // The nodes of the last token's prefixes, shortest first.
        let mut open: Vec<usize> = Vec::new();
        let mut last: &[u8] = &[];
        let mut longest = 0;
        for (index, &token) in sorted.iter().enumerate() {
            let bytes = pieces.bytes(token);
            let shared = bytes.iter().zip(last).take_while(|(a, b)| a == b).count();
            let end = nodes.len() as u32;
            open.drain(shared..).for_each(|node| nodes[node].end = end);
            for (depth, &byte) in bytes.iter().enumerate().skip(shared) {
                open.push(nodes.len());
                nodes.push(Node { byte, depth: depth as u32 + 1, end: 0, tokens: index as u32 });
            }
            longest = longest.max(bytes.len());
            last = bytes;
        }
        let end = nodes.len() as u32;
        open.into_iter().for_each(|node| nodes[node].end = end);
        nodes.push(Node { byte: 0, depth: 0, end: end + 1, tokens: sorted.len() as u32 });
        Self { tokens: sorted, nodes, longest, pieces }
    }

    /// The bytes of a token of text; none for any other.
    pub fn bytes(&self, token: TokenId) -> &[u8] {
        self.pieces.bytes(token)
    }

    /// Token ids are below this.
    pub fn vocabulary(&self) -> usize {
        self.pieces.len()
    }

    /// Visits, in the order of their bytes, the tokens all of whose bytes `step` takes, from `start` on.
    ///
    /// Each prefix that tokens share is stepped through once.
    pub fn each_token<S: Copy>(
        &self,
        start: S,
        step: impl Fn(S, u8) -> Option<S>,
        mut visit: impl FnMut(TokenId),
    ) {
        // The state after each prefix of the node that is being visited.
        let mut states = vec![start; self.longest + 1];
        let mut at = 0;
        while let [node, after, ..] = &self.nodes[at..] {
            let depth = node.depth as usize;
            match step(states[depth - 1], node.byte) {
                Some(state) => {
                    states[depth] = state;
                    self.tokens[node.tokens as usize..after.tokens as usize].iter().for_each(|&t| visit(t));
                    at += 1;
                }
                None => at = node.end as usize,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pieces::Kind;
    use super::*;
    use proptest::prelude::*;

    fn spelling(words: &[Option<Vec<u8>>]) -> Spelling {
        let mut pieces = Pieces::new(words.len());
        for (id, word) in (0..).zip(words) {
            if let Some(word) = word {
                assert!(pieces.insert(id, Kind::Text, word.clone()));
            }
        }
        Spelling::new(Arc::new(pieces))
    }

    proptest! {
        #[test]
        fn exactly_the_tokens_that_can_be_read_are_visited(
            words in prop::collection::vec(prop::option::of(prop::collection::vec(0u8..4, 0..6)), 0..60),
            refused in prop::collection::vec(prop::collection::vec(0u8..4, 1..4), 0..6),
        ) {
            let spelling = spelling(&words);
            // The state is the text so far, which must not end with a refused one.
            let step = |state: (u32, u32), byte: u8| {
                let (text, length) = (state.0 << 2 | u32::from(byte), state.1 + 1);
                let ends = |r: &Vec<u8>| {
                    let tail = r.iter().fold(0, |t, &b| t << 2 | u32::from(b));
                    length >= r.len() as u32 && text & ((1 << (2 * r.len())) - 1) == tail
                };
                (!refused.iter().any(ends)).then_some((text, length))
            };
            let mut visited = Vec::new();
            spelling.each_token((0, 0), step, |token| visited.push(token));
            let readable = |word: &Vec<u8>| word.iter().try_fold((0, 0), |s, &b| step(s, b)).is_some();
            let mut expected: Vec<(&Vec<u8>, TokenId)> = (0..).map(TokenId).zip(&words)
                .filter_map(|(token, word)| Some((word.as_ref()?, token)))
                .filter(|(word, _)| !word.is_empty() && readable(word))
                .collect();
            expected.sort();
            prop_assert_eq!(visited, expected.into_iter().map(|(_, token)| token).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_vocabulary_without_text_has_nothing_to_visit() {
        spelling(&[None, None]).each_token((), |(), _| Some(()), |token| panic!("{token}"));
    }
}

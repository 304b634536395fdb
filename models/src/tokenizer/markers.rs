//! The strings of special tokens, for text that is trusted to contain them: a chat template's, at import.

use metis_kernels::TokenId;

use super::json::Definition;
use super::{TokenizerError, guarded};

/// A tokenizer that recognises special tokens in text.
#[derive(Debug)]
pub(crate) struct Markers {
    tokenizer: tokenizers::Tokenizer,
    special: Vec<(String, TokenId)>,
}

impl Markers {
    /// Reads the contents of a `tokenizer.json`.
    pub(crate) fn of(json: &[u8], vocabulary: usize) -> Result<Self, TokenizerError> {
        let definition = Definition::parse(json, vocabulary)?;
        let mut tokenizer = definition.build()?;
        tokenizer.set_encode_special_tokens(false);
        Ok(Self { tokenizer, special: definition.special_tokens() })
    }

    /// The first special token in a text, the longest of those that begin there: where it is, its length, and its id.
    pub(crate) fn first_in(&self, text: &str) -> Option<(usize, usize, TokenId)> {
        let found = self
            .special
            .iter()
            .filter_map(|(content, token)| Some((text.find(content.as_str())?, content.len(), *token)));
        found.min_by_key(|&(at, length, _)| (at, std::cmp::Reverse(length)))
    }

    /// The string of a special token; empty for any other.
    pub(crate) fn content(&self, id: u32) -> &str {
        self.special.iter().find(|(_, token)| token.0 == id).map_or("", |(content, _)| content)
    }

    /// Tokens of a text with special tokens in it.
    pub(crate) fn encode(&self, text: &str) -> Result<Vec<TokenId>, TokenizerError> {
        let encoding = guarded(|| self.tokenizer.encode_fast(text, false)).map_err(TokenizerError::Encode)?;
        Ok(encoding.get_ids().iter().map(|&id| TokenId(id)).collect())
    }
}
